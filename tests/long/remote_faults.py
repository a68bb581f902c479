"""Ten thousand frames of a server that fails now and then: `python -m tests.long.remote_faults --frames 10000`.

Three epochs in random order: of a server without faults, of one of which one in twenty answers is a fault, and of one
of which some answers stall, before their body or within it, with a timeout of three seconds. Each frame must be that of
its file, none may be missing, and the time is bounded: three times that of the first epoch, and for stalls two timeouts
for each sixteen batches beside, since so many are asked for together. Prints JSON; ends with 1 if this does not hold.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dicomtorch import DicomFrames, FrameLoader, scan
from tests.support.http_server import counts, http_server
from tests.support.phantoms import ct, write

FRAMES_OF_OBJECT, SIDE, BATCH = 40, 64, 50
FAULTS = "cut,503,reset,short,ignored"
TIMEOUT = 3.0
SLOWER = 3.0
TOGETHER = 16  # batches at least that are asked for at once: what waits in them waits together


def epoch(folder: Path, images: Any, count: int, rate: float, faults: str) -> dict[str, Any]:
    """Reads frames in random order, and says how many are wrong or lost, what failed, and how long it took."""
    order = np.random.default_rng(2).permutation(count).tolist()
    with http_server(folder, rate=rate, faults=faults) as address:
        options = {"timeout": TIMEOUT}
        index, _ = scan(address, storage_options=options)
        frames = DicomFrames(index, values="stored", storage_options=options)
        counts(address)
        began = time.perf_counter()
        wrong, lost = wrong_and_lost(frames, images, order)
        seconds = time.perf_counter() - began
        seen = counts(address)
    failed = {name: seen[name] for name in faults.split(",") if name}
    return {"frames": count - lost, "wrong": wrong, "lost": lost, "seconds": seconds, **failed}


def wrong_and_lost(frames: DicomFrames, images: Any, order: list[int]) -> tuple[int, int]:
    """How many frames of an epoch are not the images that they should be, and how many did not come."""
    wrong = read = 0
    for batch, _ in FrameLoader(frames, BATCH, sampler=order):
        expected = torch.from_numpy(images[order[read : read + len(batch)]])
        wrong += int((batch[:, 0].to(torch.int16) != expected).flatten(1).any(1).sum())
        read += len(batch)
    return wrong, len(order) - read


def main() -> int:
    """Measures, prints what was found, and says whether it is as it has to be."""
    parser = argparse.ArgumentParser(prog="python -m tests.long.remote_faults", description=__doc__)
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--stalls", type=float, default=0.01, help="of all answers")
    arguments = parser.parse_args()
    images = np.random.default_rng(1).integers(0, 2000, (arguments.frames, SIDE, SIDE), np.int16)
    problems = []
    with tempfile.TemporaryDirectory() as name:
        for k in range(0, len(images), FRAMES_OF_OBJECT):
            write(ct(images[k : k + FRAMES_OF_OBJECT]), Path(name) / f"{k:06}.dcm")
        kinds = {
            "none": (0.0, ""),
            "mixed": (0.05, FAULTS),
            "stalls": (arguments.stalls, "stall,hang"),
        }
        found = {
            kind: epoch(Path(name), images, arguments.frames, *given)
            for kind, given in kinds.items()
        }
    clean = found["none"]["seconds"]
    # What is asked for again may stall again.
    rounds = math.ceil(arguments.frames / BATCH / TOGETHER)
    bounds = {
        "none": math.inf,
        "mixed": SLOWER * clean,
        "stalls": SLOWER * clean + 2 * TIMEOUT * rounds,
    }
    for kind, one in found.items():
        one["most_seconds"] = bounds[kind]
        if one["wrong"] or one["lost"]:
            problems.append(f"{kind}: {one['wrong']} wrong, {one['lost']} lost")
        if one["seconds"] > bounds[kind]:
            problems.append(f"{kind}: {one['seconds']:.0f} s, more than {bounds[kind]:.0f} s")
    print(json.dumps({**found, "problems": problems}, indent=2))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
