"""`python -m benchmarks.dicomweb`: frames of a DICOMweb server beside the same requests by a bare HTTP client.

Starts Orthanc on loopback (Debian: orthanc, orthanc-dicomweb) with a cine loop in JPEG, and asks for all frames: as
batches of `DicomFrames`, which are decoded; as they are encoded; and by urllib3 with thirty frames a request and as
many threads. Then uncompressed frames of a CT as display values from `range_cache`, by the compiled kernels and one by
one: Orthanc reads the whole file for each request of such frames. All are measured in turns in one process, of which
the first round does not count; prints medians as JSON.
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
from typing import Any

import numpy as np
import urllib3

from benchmarks.data import cines
from benchmarks.report import rate
from dicomtorch import DicomFrames, scan
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.reader.web import WantedFrame, WebFrames
from dicomtorch.storage.web import FRAMES
from tests.support.orthanc import OPTIONS, orthanc, orthanc_program
from tests.support.phantoms import ct, write

GROUP = 30
THREADS = 8
STUDY = "1.2.3.4"


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


def encoded(index: FrameIndex) -> Callable[[], None]:
    """Asks for all frames of an index of one instance as it has them."""
    source = WebFrames(index.root)
    files: Any = index.files
    instance = files["path"][index.column("file")[0]].decode()
    wanted = [WantedFrame(instance, number, 0) for number in range(len(index))]

    def work() -> None:
        source.need(wanted)
        for one in wanted:
            source.take(one)

    return work


def in_batches(frames: DicomFrames) -> Callable[[], None]:
    """Reads all frames."""
    count = len(frames)
    batches = [list(range(first, min(first + 240, count))) for first in range(0, count, 240)]

    def work() -> None:
        for batch in batches:
            frames[batch]

    return work


def one_by_one(frames: DicomFrames) -> DicomFrames:
    """The same frames without one call of the kernels for all of a batch."""
    reader: Any = frames._reader
    reader.plain.is_used = False
    return frames


def measure(folder: Path, count: int, rounds: int) -> dict[str, float]:
    """Medians of frames per second, and of the ratio within each round."""
    (path,) = cines(folder / "files", 1, count, 256, 256)
    words = np.random.default_rng(0).integers(0, 4000, (count // 4, 256, 256), np.int16)
    native = write(ct(words, StudyInstanceUID=STUDY), folder / "native.dcm")
    kept = {**OPTIONS, "range_cache": str(folder / "kept"), "timeout": 300.0}
    with orthanc(folder / "orthanc") as server:
        for one in (path, native):
            if not server.takes(one.read_bytes()):
                raise SystemExit("the server does not take the file")
        plain, _ = scan(f"{server.address}/studies/{STUDY}", storage_options=kept)
        works = {
            "native kept": in_batches(DicomFrames(plain)),
            "native kept one by one": in_batches(one_by_one(DicomFrames(plain))),
        }
        every, _ = scan(server.address, storage_options=OPTIONS)
        (other,) = set(every.column("StudyInstanceUID")) - {STUDY}
        index = every.filter(StudyInstanceUID=other)
        url = "http" + index.path(0).removeprefix("dicomweb+http")
        works |= {
            "decoded": in_batches(DicomFrames(index, values="stored")),
            "encoded": encoded(index),
            "urllib3": bare(url, count),
        }
        found: dict[str, list[float]] = {name: [] for name in works}
        for number in range(rounds + 1):
            for name in np.random.default_rng(number).permutation(list(found)).tolist():
                reached = rate(count // 4 if "native" in name else count, works[name])
                if number:  # the first round opens connections
                    found[name].append(reached)
    medians = {name: round(statistics.median(each)) for name, each in found.items()}
    pairs = (
        ("decoded", "urllib3"),
        ("encoded", "urllib3"),
        ("native kept", "native kept one by one"),
    )
    ratios = {
        f"{one} of {other}": round(
            float(np.median(np.array(found[one]) / np.array(found[other]))), 3
        )
        for one, other in pairs
    }
    return {**medians, **ratios}


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
