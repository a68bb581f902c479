"""Stresses loaders over one dataset with one seed after the other: `python -m tests.long.stress_batches [minutes]`."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from tests.support.stress import Stress, write_frames


def main() -> int:
    until = time.monotonic() + 60 * float(sys.argv[1] if len(sys.argv) > 1 else 10)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "frames"
        folder.mkdir()
        frames = write_frames(folder)
        seed = 0
        while time.monotonic() < until:
            found = Stress(frames, seed).run(2000)
            print(f"seed {seed}: {found}", flush=True)
            if found.wrong:
                return 1
            seed += 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
