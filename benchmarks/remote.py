"""`python -m benchmarks.remote`: frames of a server on this machine beside the same requests by obstore alone.

nginx measures what a request costs, our own server with a latency whether as many are under way as may be. Both are
asked in turns in one process, in random order; prints the medians as JSON, with the requests for each frame. What
decoding may cost at the least is the same requests in threads that write into batches ("converted"). CPU time is that
of this process, for a frame. Needs nginx, obstore and the repository (for the server).
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
import obstore
import torch
from obstore.store import HTTPStore

from benchmarks.report import rate
from dicomtorch import DicomClips, DicomFrames, FrameLoader, scan
from dicomtorch.reader.fetch import FrameFetcher
from dicomtorch.storage.choose import storage_for
from dicomtorch.storage.remote import RemoteStorage
from tests.support.http_server import counts, http_server
from tests.support.phantoms import ct, write
from tests.support.servers import nginx

SIDE = 274  # of a frame of 150 KB
BATCH = 64


def make(folder: Path, files: int, frames: int) -> None:
    """Files of one frame, and one of many."""
    random = np.random.default_rng(1)
    for k in range(files):
        write(ct(random.integers(0, 2000, (SIDE, SIDE), np.int16)), folder / "one" / f"{k:05}.dcm")
    many = random.integers(0, 2000, (frames, SIDE, SIDE), np.int16)
    write(ct(many), folder / "many" / "many.dcm")


def bare(address: str, frames: DicomFrames, order: list[int], at_once: int) -> Callable[[], Any]:
    """The same ranges by obstore in threads."""
    store = HTTPStore(address, client_options={"allow_http": True})
    index = frames.index
    wanted = [
        (index.path(where.position).removeprefix(f"{address}/"), *where.span[:2])
        for where in index.locate(order)
    ]

    def get(one: tuple[str, int, int]) -> int:
        path, offset, length = one
        return len(obstore.get_range(store, path, start=offset, length=length))

    def work() -> None:
        with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
            assert sum(pool.map(get, wanted)) == sum(length for _, _, length in wanted)

    return work


def converted(
    address: str, frames: DicomFrames, order: list[int], at_once: int
) -> Callable[[], Any]:
    """The same requests as `bare`, each thread writing what came into a batch: what decoding costs at the least."""
    store = HTTPStore(address, client_options={"allow_http": True})
    index = frames.index
    shape, dtype = frames[0][0].shape, frames[0][0].dtype
    batches = [order[k : k + BATCH] for k in range(0, len(order), BATCH)]
    wanted = [
        [
            (index.path(where.position).removeprefix(f"{address}/"), *where.span[:2])
            for where in index.locate(batch)
        ]
        for batch in batches
    ]

    def get(one: tuple[str, int, int], out: Any) -> None:
        path, offset, length = one
        data = obstore.get_range(store, path, start=offset, length=length)
        np.copyto(out, np.frombuffer(memoryview(data), np.int16).reshape(shape), casting="unsafe")

    def work() -> None:
        with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
            begun = []
            for batch in wanted:
                out = torch.empty((len(batch), *shape), dtype=dtype)
                begun.append(
                    (
                        out,
                        [pool.submit(get, *both) for both in zip(batch, out.numpy(), strict=True)],
                    )
                )
            begun.reverse()
            while begun:
                _, tasks = begun.pop()
                for task in tasks:
                    task.result()

    return work


def ranges(frames: DicomFrames, order: list[int]) -> Callable[[], Any]:
    """Encoded frames by our storage, asked for as the loader does."""
    index = frames.index
    storage = storage_for(index.root)
    assert isinstance(storage, RemoteStorage)
    fetcher = FrameFetcher(index)
    wanted = [fetcher.byte_range(where) for where in index.locate(order)]
    batches = [wanted[k : k + BATCH] for k in range(0, len(wanted), BATCH)]

    def work() -> None:
        storage.will_need(wanted)
        for batch in batches:
            storage.take_many(batch)

    return work


def loader(frames: DicomFrames, order: list[int]) -> Callable[[], Any]:
    """Batches of tensors, by one loader for all rounds as for all epochs of a training: its memory stays."""
    batches = FrameLoader(frames, BATCH, sampler=order)

    def work() -> None:
        for _ in batches:
            pass

    return work


def compare(address: str, at_once: int, rounds: int, count: int) -> dict[str, float]:
    """Medians of frames per second, and of their ratios to bare requests and to what converts them by hand."""
    index, _ = scan(f"{address}/one")
    frames = DicomFrames(index, values="stored", storage_options={"io_threads": at_once})
    order = np.random.default_rng(2).permutation(len(frames))[:count].tolist()
    works = {
        "bare": bare(address, frames, order, at_once),
        "converted": converted(address, frames, order, at_once),
        "ranges": ranges(frames, order),
        "loader": loader(frames, order),
    }
    rates: dict[str, list[float]] = {name: [] for name in works}
    spent: dict[str, list[float]] = {name: [] for name in works}
    for k in range(rounds + 1):
        for name in np.random.default_rng(k).permutation(list(works)).tolist():
            used: list[float] = []
            found = rate(len(order), works[name], used)
            if k:  # the first round opens connections
                rates[name].append(found)
                spent[name] += used
    result: dict[str, float] = {}
    result |= {f"{name}/s": round(statistics.median(values)) for name, values in rates.items()}
    result |= {f"{name} CPU ms": round(statistics.median(spent[name]), 3) for name in works}
    return result | {
        f"{name} of {of}": round(
            statistics.median(a / b for a, b in zip(rates[name], rates[of], strict=True)), 3
        )
        for name, of in (("ranges", "bare"), ("loader", "bare"), ("loader", "converted"))
    }


def requests(address: str, files: int, frames: int) -> dict[str, float]:
    """Requests for each object of a scan, each frame at random, and each frame that clips of 16 have."""
    counts(address)
    index, _ = scan(f"{address}/one")
    found = {"scan": (counts(address)["GET"] - 1) / files}
    one = DicomFrames(index, values="stored")
    order = np.random.default_rng(3).permutation(files).tolist()
    loader(one, order)()
    found["random"] = counts(address)["GET"] / files
    many = DicomFrames(scan(f"{address}/many")[0], values="stored")
    counts(address)
    for first in range(0, frames - 15, 16):
        many[first : first + 16]
    found["clips of 16"] = counts(address)["GET"] / (frames // 16 * 16)
    clips = DicomClips(many, 16)
    for _ in FrameLoader(clips, 4, shuffle=True):
        pass
    found["overlapping clips of 16"] = counts(address)["GET"] / (16 * len(clips))
    return {name: round(value, 3) for name, value in found.items()}


def main() -> None:
    """Measures, and prints what it found."""
    parser = argparse.ArgumentParser(prog="benchmarks.remote", description=__doc__)
    parser.add_argument("--files", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder / "files", arguments.files, 64)
        result: dict[str, Any] = {}
        with nginx(folder / "files", folder / "nginx") as address:
            result["nginx"] = compare(address, 64, arguments.rounds, arguments.files)
        for latency in (0.0, 0.01, 0.03, 0.1):
            with http_server(folder / "files", latency=latency) as address:
                milliseconds = f"{latency * 1000:g} ms"
                result[milliseconds] = compare(address, 64, arguments.rounds, arguments.files)
                if not latency:
                    result["requests"] = requests(address, arguments.files, 64)
    json.dump(result, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
