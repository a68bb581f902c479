"""Ten thousand frames of a DICOMweb server that fails now and then: `python -m tests.long.web_faults --frames 10000`.

Four epochs in random order: of a server without faults, of one of which one in twenty answers is a fault that passes,
of one of which some answers stall, before their body or within it, with a timeout of three seconds, and of one that
forbids one in twenty requests, which nobody asks for again. Each frame must be that of its file and none may be
missing; what was forbidden must be an error that says so, and right when it is asked for once more. The time is
bounded: three times that of the first epoch, and for stalls a timeout for each that came beside. Prints JSON; ends with
1 if this does not hold.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from dicomtorch import DicomFrames, scan
from dicomtorch.errors import StorageError
from tests.long.remote_faults import SIDE, SLOWER, TIMEOUT, wrong_and_lost
from tests.support.dicomweb_server import PASSING, Server, dicomweb_server
from tests.support.phantoms import ct

FRAMES_OF_INSTANCE = 40
FORBIDDEN = "403"


def instances(images: Any) -> list[Dataset]:
    """Data sets of frames."""
    return [
        ct(images[k : k + FRAMES_OF_INSTANCE], k) for k in range(0, len(images), FRAMES_OF_INSTANCE)
    ]


def epoch(
    datasets: list[Dataset], images: Any, share: float, kinds: tuple[str, ...]
) -> dict[str, Any]:
    """Reads frames in random order, and says how many are wrong or lost, what failed, and how long it took."""
    order = np.random.default_rng(2).permutation(len(images)).tolist()
    with dicomweb_server(datasets) as server:
        index, _ = scan(server.address, storage_options={"timeout": TIMEOUT})
        # By where each frame is in `images`: the server may list instances in any order.
        uids = {str(one.SOPInstanceUID): k for k, one in enumerate(datasets)}
        every = np.arange(len(index))
        first = [FRAMES_OF_INSTANCE * uids[uid] for uid in index.gather("SOPInstanceUID", every)]
        places = np.argsort(np.array(first) + np.asarray(index.gather("frame", every)))
        frames = DicomFrames(index.select(places), values="stored")
        server.asked.clear()
        server.faults.share, server.faults.kinds = share, kinds
        began = time.perf_counter()
        wrong, lost, refused = (
            _refused(frames, images, order, server)
            if FORBIDDEN in kinds
            else (*wrong_and_lost(frames, images, order), 0)
        )
        seconds = time.perf_counter() - began
        return {
            "frames": len(images) - lost,
            "wrong": wrong,
            "lost": lost,
            "refused": refused,
            "seconds": seconds,
            "requests": len(server.requests),
            **server.failed,
        }


def _refused(
    frames: DicomFrames, images: Any, order: list[int], server: Server
) -> tuple[int, int, int]:
    """(wrong, lost, forbidden) frames that are read one by one; what is forbidden is asked for once more."""
    wrong = lost = refused = 0
    for k in order:
        before = server.failed[FORBIDDEN]
        try:
            image, _ = frames[k]
        except StorageError as error:
            if type(error) is not StorageError or FORBIDDEN not in str(error):
                raise
            refused += 1
            assert server.failed[FORBIDDEN] == before + 1
            share, server.faults.share = server.faults.share, 0.0
            image, _ = frames[k]
            server.faults.share = share
        else:
            lost += server.failed[FORBIDDEN] != before
        wrong += not np.array_equal(image[0].numpy(), images[k])
    return wrong, lost, refused


def main() -> int:
    """Measures, prints what was found, and says whether it is as it has to be."""
    parser = argparse.ArgumentParser(prog="python -m tests.long.web_faults", description=__doc__)
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--stalls", type=float, default=0.01, help="of all answers")
    arguments = parser.parse_args()
    images = np.random.default_rng(1).integers(0, 2000, (arguments.frames, SIDE, SIDE), np.int16)
    datasets = instances(images)
    kinds: dict[str, tuple[float, tuple[str, ...]]] = {
        "none": (0.0, ()),
        "mixed": (0.05, PASSING),
        "stalls": (arguments.stalls, ("stall", "hang")),
        "forbidden": (0.05, (FORBIDDEN,)),
    }
    found = {kind: epoch(datasets, images, *given) for kind, given in kinds.items()}
    clean = found["none"]["seconds"]
    stalled = found["stalls"].get("stall", 0) + found["stalls"].get("hang", 0)
    bounds = {
        "none": math.inf,
        "mixed": SLOWER * clean,
        "stalls": SLOWER * clean + TIMEOUT * stalled,
        "forbidden": math.inf,  # one by one
    }
    problems = []
    for kind, one in found.items():
        one["most_seconds"] = bounds[kind]
        if one["wrong"] or one["lost"]:
            problems.append(f"{kind}: {one['wrong']} wrong, {one['lost']} lost")
        if one["seconds"] > bounds[kind]:
            problems.append(f"{kind}: {one['seconds']:.0f} s, more than {bounds[kind]:.0f} s")
        if any(not one.get(name) for name in kinds[kind][1]):
            problems.append(f"{kind}: not every fault came")
    print(json.dumps({**found, "problems": problems}, indent=2))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
