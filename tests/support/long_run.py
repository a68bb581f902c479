"""What the long runs have in common: how long, and one last line that says what was done."""

from __future__ import annotations

import argparse
import logging
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

SLOWEST = 2.0
"""Seconds that no input may take."""


@dataclass
class Tally:
    """What came of the inputs of a run.

    Attributes:
        name: Of the run.
        counts: What came of them.
        problems: What may not happen, in words that repeat it.
        slowest: Seconds of the slowest input.
        most_seconds: That none may take more of.
    """

    name: str
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    slowest: float = 0.0
    most_seconds: float = SLOWEST

    def timed(self, what: str, work: Callable[[], str]) -> None:
        """Does one input; `work` says what came of it.

        What takes too long by the clock of this thread or of the processes that it waited for is a problem.
        """
        began = _cpu_seconds()
        try:
            outcome = work()
        except Exception as error:
            outcome = "foreign"
            self.problems.append(f"{what}: {type(error).__name__}: {error}")
        self.counts[outcome] += 1
        seconds = _cpu_seconds() - began
        self.slowest = max(self.slowest, seconds)
        if seconds > self.most_seconds:
            self.problems.append(f"{what}: took {seconds:.1f} s")

    def line(self, seconds: float) -> str:
        """The last line of a run."""
        peak = max(resource.getrusage(who).ru_maxrss for who in _WHO) / 1024
        counts = ", ".join(f"{count:,} {name}" for name, count in sorted(self.counts.items()))
        bad = f"{len(self.problems)} problems" if self.problems else "no problem"
        return (
            f"{self.name}: {sum(self.counts.values()):,} inputs in {seconds:.0f} s ({counts}), slowest "
            f"{self.slowest:.2f} s, at most {peak:.0f} MB, {bad}"
        )


_WHO = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main(
    name: str, rounds: Callable[[int, Tally], Iterator[None]], most_seconds: float = SLOWEST
) -> int:
    """Runs until the time is up, and says what came of it.

    Args:
        name: Of the run.
        rounds: Takes a seed and the tally; an iterator of which each step is one input.
        most_seconds: That an input may take.

    Returns:
        1 if there was a problem.
    """
    parser = argparse.ArgumentParser(prog=f"python -m tests.long.{name}")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.getLogger("dicomtorch").setLevel(logging.ERROR)
    sys.unraisablehook = lambda _: None  # imagecodecs loses what OpenJPH throws
    tally = Tally(name, most_seconds=most_seconds)
    began = time.monotonic()
    for _ in rounds(arguments.seed, tally):
        if time.monotonic() - began > arguments.seconds or len(tally.problems) > 20:
            break
    for problem in tally.problems:
        print(problem, file=sys.stderr)
    print(tally.line(time.monotonic() - began))
    return bool(tally.problems)
