"""Stresses loaders over one dataset, seed after seed: `python -m tests.long.stress_batches --seconds 60`."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.support.stress import Stress, write_frames


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "frames"
        folder.mkdir()
        frames = write_frames(folder)
        seed = arguments.seed
        wrong = 0
        while not wrong and time.monotonic() - began < arguments.seconds:
            found = Stress(frames, seed).run(2000)
            wrong = len(found.wrong)
            print(f"seed {seed}: {found}", flush=True)
            seed += 1
    print(
        f"stress_batches: {seed - arguments.seed} seeds of 2,000 steps in {time.monotonic() - began:.0f} s, "
        f"{wrong or 'no'} problem"
    )
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
