"""Entries on their way to a worker."""

from __future__ import annotations

import pickle
import pickletools
from collections.abc import Sequence

import pytest

from dicomtorch.index.builder import Member
from dicomtorch.scanner.entries import Entries, Entry

PLAIN = [Entry(b"%d.dcm" % k, k, 10**18 + k, k) for k in range(300)]
OTHERS = [
    Entry(b"a", 1, -1, 0, "unreadable", "no permission"),
    Entry(b"b", 2, 3, 4, is_unlisted=True, version="etag"),
    Entry(b"c.zip/d", 5, 6, 7, member=Member(1, "d", 10, 20, 30, 40), header=50),
]


@pytest.mark.parametrize("entries", [[], PLAIN[:1], PLAIN, [*OTHERS, *PLAIN]])
def test_entries_arrive_as_they_were(entries: Sequence[Entry]) -> None:
    arrived = pickle.loads(pickle.dumps(Entries(entries)))
    assert type(arrived) is Entries
    assert list(arrived) == list(entries)
    assert len(arrived) == len(entries)
    again = pickle.loads(pickle.dumps(arrived))
    assert list(again) == list(entries)


def test_an_engine_moves_one_string_of_bytes() -> None:
    """Those that look at each object of a call, in Python, took longer for it than a worker for the headers."""
    data = pickle.dumps(Entries(PLAIN), pickle.HIGHEST_PROTOCOL)
    assert len(list(pickletools.genops(data))) < 20
