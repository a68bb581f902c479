"""`python -m benchmarks.archives`: frames of zip and tar archives beside those of the same files in a folder.

All are read in turns in one process, in the order of a shuffle, one by one and as batches; prints the medians as JSON.
A deflated member is measured beside inflating it alone, with as many threads. The first round does not count.

All are read into the cache of the system before, as a first epoch would. What was just written lies there in pieces of
the size that it was written in, and reading it takes up to twice as long from the 8 KiB that `zipfile` writes as from
what the system read ahead: that measures who packed it.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import statistics
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np

from benchmarks.data import SYNTAXES, make
from benchmarks.report import rate
from dicomtorch import DicomFrames, FrameLoader, scan

BATCH = 32
_PIECE = 1 << 20  # bytes that are read at once


def pack(paths: list[Path], folder: Path) -> dict[str, Path]:
    """The same files in each kind of archive."""
    sources = {"stored zip": folder / "stored.zip", "deflated zip": folder / "deflated.zip"}
    for method, path in zip(
        (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED), sources.values(), strict=True
    ):
        with zipfile.ZipFile(path, "w", method) as archive:
            for each in paths:
                archive.write(each, each.name)
    with tarfile.open(folder / "plain.tar", "w") as tar:
        for each in paths:
            tar.add(each, each.name)
    return sources | {"tar": folder / "plain.tar"}


def read_anew(path: Path) -> None:
    """Has the system read a file from its disk, as large pieces as it likes."""
    with path.open("rb") as file:
        if hasattr(os, "posix_fadvise"):  # what is not on the disk yet cannot be forgotten
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while file.read(_PIECE):
            pass


def one_by_one(frames: DicomFrames, order: list[int]) -> None:
    for k in order:
        frames[k]


def epoch(frames: DicomFrames, threads: int) -> None:
    for _ in FrameLoader(frames, BATCH, shuffle=True, num_threads=threads):
        pass


def inflate_alone(archive: Path, threads: int) -> Callable[[], None]:
    """Inflates every member of an archive, already in memory."""
    with zipfile.ZipFile(archive) as directory:
        infos = directory.infolist()
    data = archive.read_bytes()
    streams = []
    for info in infos:
        at = info.header_offset + 30 + len(info.filename)
        streams.append((data[at : at + info.compress_size], info.file_size))

    def inflate(stream: tuple[bytes, int]) -> None:
        imagecodecs.deflate_decode(stream[0], raw=True, out=stream[1])

    def work() -> None:
        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            list(pool.map(inflate, streams))

    return work


def measure(folder: Path, count: int, rounds: int, threads: int) -> dict[str, Any]:
    """Medians over rounds of frames per second, and ratios within each round."""
    paths = make(folder / "files", SYNTAXES["uncompressed"], count, 512)
    archives = pack(paths, folder)
    for path in (*paths, *archives.values()):
        read_anew(path)
    sources = {"folder": folder / "files"} | archives
    frames = {name: DicomFrames(scan(path)[0]) for name, path in sources.items()}
    alone = inflate_alone(archives["deflated zip"], threads)
    rng = np.random.default_rng(0)
    for number in range(rounds + 1):
        if number < 2:  # the first round opens files and makes threads
            scanned: dict[str, list[float]] = {name: [] for name in sources}
            rates: dict[str, dict[str, list[float]]] = {}
            cpus: dict[str, dict[str, list[float]]] = {}
        order = rng.permutation(count).tolist()
        for name in rng.permutation(list(sources)).tolist():
            scanned[name].append(rate(count, partial(scan, sources[name])))
            for kind, work in (
                ("one by one", partial(one_by_one, frames[name], order)),
                ("loader", partial(epoch, frames[name], threads)),
            ):
                cpu = cpus.setdefault(f"{kind}, CPU ms a frame", {}).setdefault(name, [])
                rates.setdefault(kind, {}).setdefault(name, []).append(rate(count, work, cpu))
        rates.setdefault("loader", {}).setdefault("inflating alone", []).append(rate(count, alone))
    result: dict[str, Any] = {}
    for kind, found in (rates | {"scan": scanned}).items():
        result[kind] = {name: round(statistics.median(each)) for name, each in found.items()}
        result[f"{kind}, of a folder"] = {
            name: round(statistics.median(np.array(each) / np.array(found["folder"])), 3)
            for name, each in found.items()
            if name != "folder"
        }
    for kind, used in cpus.items():
        result[kind] = {name: round(min(each), 3) for name, each in used.items()}
    inflated = np.array(rates["loader"]["deflated zip"]) / np.array(
        rates["loader"]["inflating alone"]
    )
    result["deflated, of inflating alone"] = round(float(statistics.median(inflated)), 3)
    return result


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.archives", description=__doc__)
    parser.add_argument("--frames", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), options.frames, options.rounds, options.threads)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
