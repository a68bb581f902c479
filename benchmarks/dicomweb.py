"""`python -m benchmarks.dicomweb`: frames of a DICOMweb server beside the same requests by a bare HTTP client.

Starts Orthanc on loopback (Debian: orthanc, orthanc-dicomweb) with a cine loop, and asks for all frames: as batches of
`DicomFrames`, and by urllib3 with thirty frames a request and as many threads. Both are measured in turns in one
process, of which the first does not count; prints the medians as JSON.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import urllib3

from benchmarks.data import cines
from benchmarks.report import rate
from dicomtorch import DicomFrames, scan
from dicomtorch.storage.web import FRAMES
from tests.support.orthanc import OPTIONS, orthanc, orthanc_program

GROUP = 30
THREADS = 8


def bare(url: str, count: int) -> Callable[[], None]:
    """Asks for all frames of an instance, and splits nothing."""
    pool = urllib3.PoolManager(maxsize=THREADS)
    headers = {**OPTIONS["headers"], "Accept": FRAMES}

    def ask(first: int) -> int:
        numbers = ",".join(str(k + 1) for k in range(first, min(first + GROUP, count)))
        answer = pool.request("GET", f"{url}/frames/{numbers}", headers=headers)
        if answer.status != 200:
            raise SystemExit(f"the server answered {answer.status}")
        return len(answer.data)

    def work() -> None:
        with concurrent.futures.ThreadPoolExecutor(THREADS) as threads:
            list(threads.map(ask, range(0, count, GROUP)))

    return work


def measure(folder: Path, count: int, rounds: int) -> dict[str, float]:
    """Medians of frames per second, and of the ratio within each round."""
    (path,) = cines(folder / "files", 1, count, 256, 256)
    with orthanc(folder / "orthanc") as server:
        if not server.takes(path.read_bytes()):
            raise SystemExit("the server does not take the file")
        index, _ = scan(server.address, storage_options=OPTIONS)
        frames = DicomFrames(index, values="stored")
        url = "http" + index.path(0).removeprefix("dicomweb+http")
        alone = bare(url, count)
        batches = [list(range(first, min(first + 240, count))) for first in range(0, count, 240)]

        def ours() -> None:
            for batch in batches:
                frames[batch]

        found: dict[str, list[float]] = {"dicomtorch": [], "urllib3": []}
        for number in range(rounds + 1):
            for name in np.random.default_rng(number).permutation(list(found)).tolist():
                reached = rate(count, ours if name == "dicomtorch" else alone)
                if number:  # the first round opens connections
                    found[name].append(reached)
    ratios = np.array(found["dicomtorch"]) / np.array(found["urllib3"])
    medians = {name: round(statistics.median(each)) for name, each in found.items()}
    return {**medians, "of urllib3": round(float(np.median(ratios)), 3)}


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dicomweb", description=__doc__)
    parser.add_argument("--frames", type=int, default=960)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args(arguments)
    if not orthanc_program():
        raise SystemExit("Orthanc is not installed: apt-get install orthanc orthanc-dicomweb")
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(Path(folder), options.frames, options.rounds), indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
