"""Short forms of the long runs: faults of the system, kills, races, damage and leaks; see `tests/long`."""

from __future__ import annotations

import ast
import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dicomtorch.errors import DecodeError
from dicomtorch.reader.fetch import FrameFetcher
from tests.long import kill_points, leaks, mutate_files, mutate_indexes, races, soak, system_faults
from tests.support.dicom_mutator import CANARY
from tests.support.long_run import Tally

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="forks, signals and resource limits"
)

LONG = Path(__file__).parents[1] / "long"


def some(module: Any, inputs: int, seed: int = 3, most_seconds: float = 30.0) -> Tally:
    """What came of the first inputs of a long run."""
    tally = Tally(module.__name__, most_seconds=most_seconds)
    for _ in itertools.islice(module.rounds(seed, tally), inputs):
        pass
    return tally


@pytest.mark.slow
def test_a_fault_of_the_system_at_every_call() -> None:
    tally = some(system_faults, 120)
    assert tally.problems == []
    assert tally.counts["went on"] > 20


@pytest.mark.slow
def test_a_kill_at_every_call() -> None:
    tally = some(kill_points, 50)
    assert tally.problems == []
    assert tally.counts["killed"] > 30


@pytest.mark.slow
def test_a_file_that_changes_in_an_epoch() -> None:
    assert some(races, 8).problems == []


@pytest.mark.slow
def test_files_that_are_wrong_on_purpose() -> None:
    tally = some(mutate_files, 120)
    assert tally.problems == []
    assert tally.counts["decoded"] > 10
    assert tally.counts["unreadable"] > 10


def test_indexes_that_are_damaged() -> None:
    found = mutate_indexes.batch(5)
    assert found["refused"] > 20


@pytest.mark.slow
def test_one_in_a_hundred_is_damaged() -> None:
    assert some(soak, 4).problems == []


@pytest.mark.slow
def test_nothing_leaks() -> None:
    assert some(leaks, 15).problems == []


def test_a_problem_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that gives another exception, and one that says what it read."""
    fetch = FrameFetcher.read_encoded

    def foreign(self: FrameFetcher, *arguments: Any) -> Any:
        fetch(self, *arguments)
        raise IndexError("list index out of range")

    with monkeypatch.context() as patch:
        patch.setattr(FrameFetcher, "read_encoded", foreign)
        assert "IndexError" in " ".join(some(mutate_files, 40).problems)

    def talkative(self: FrameFetcher, *arguments: Any) -> Any:
        raise DecodeError(f"the patient is {CANARY}")

    with monkeypatch.context() as patch:
        patch.setattr(FrameFetcher, "read_encoded", talkative)
        assert "a message names somebody" in " ".join(some(mutate_files, 40).problems)


def test_every_long_run_takes_seconds_and_ends_with_one_line() -> None:
    names = sorted(path.stem for path in LONG.glob("*.py"))
    assert len(names) >= 10
    for name in names:
        tree = ast.parse((LONG / f"{name}.py").read_text(encoding="utf-8"))
        assert any(isinstance(node, ast.If) for node in tree.body), name
    command = [sys.executable, "-m", "tests.long.mutate_files", "--seconds", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=LONG.parents[1])
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert line.startswith("mutate_files: ")
    assert line.endswith("no problem")
