"""The same images encoded otherwise; `python -m tests.long.metamorphic` for longer."""

from __future__ import annotations

import itertools

from tests.long import metamorphic
from tests.support.long_run import Tally


def test_no_value_changes() -> None:
    tally = Tally("metamorphic")
    for _ in itertools.islice(metamorphic.rounds(1, tally), 60):
        pass
    assert tally.problems == []
    assert tally.counts["the same"] == 60


def test_a_value_that_changes_is_found(monkeypatch) -> None:
    plain = metamorphic.in_syntax
    calls = itertools.count()

    def wrong(dataset, syntax, pixels):
        made = plain(dataset, syntax, pixels)
        if next(calls):
            made.RescaleSlope = 3
        return made

    monkeypatch.setattr(metamorphic, "in_syntax", wrong)
    tally = Tally("metamorphic")
    for _ in itertools.islice(metamorphic.rounds(1, tally), 1):
        pass
    assert "other image 0" in tally.problems[0]
