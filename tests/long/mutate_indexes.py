"""Opens damaged copies of indexes in child processes: `python -m tests.long.mutate_indexes --seconds 60`.

A child opens 100 copies and uses what opens; no child may die, and no damaged copy may open unless its checksum was
made anew, as a faulty program would.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.support import mutate_index
from tests.support.long_run import Tally, main

COPIES = 100


def batch(seed: int) -> dict[str, int]:
    """What came of some copies.

    Raises:
        AssertionError: The child died, or said what may not be.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, mutate_index.__file__, str(Path(folder, "index")), str(COPIES)]
        done = subprocess.run(
            [*command, str(seed)], capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, f"the child ended with {done.returncode}: {done.stderr[-400:]}"
        found: dict[str, int] = json.loads(done.stdout)
    assert found["unclear"] == 0, f"{found['unclear']} messages do not say what to do"
    return found


def rounds(seed: int, tally: Tally) -> Iterator[None]:
    """One child after the other."""
    number = seed
    while True:

        def once(number: int = number) -> str:
            found = batch(number)
            tally.counts.update({f"copies {name}": count for name, count in found.items()})
            return "children"

        tally.timed(f"child with seed {number}", once)
        number += 1
        yield


if __name__ == "__main__":
    sys.exit(main("mutate_indexes", rounds))
