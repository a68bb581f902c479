"""`python -m benchmarks.isolation`: what decoding in child processes costs, and how soon one that died is replaced.

Frames are decoded in this process and in a child, in one thread, a few in a row by turns: whoever isolates does not
decode between, so that caches keep what isolation takes, as they do in a loop. The cost is the median of what a frame
takes beside the codec, since a codec alone takes a few percent more or less from frame to frame; what it takes with it
stands beside. One core may be a quarter slower than another one for seconds where a machine is shared:
on Linux the two processes change their cores after each round, and differences are those of two rounds. The time on a
core that both processes take together is compared too, which no other process changes much. Then a child is killed in
the middle of a frame, and the time from there to the next decoded frame is taken.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.noting import Noting
from dicomtorch import DecodeError, ImagePixel
from dicomtorch.backends.base import get_backend
from dicomtorch.backends.children import children
from dicomtorch.backends.isolated import IsolatedBackend
from dicomtorch.model.syntaxes import HTJ2K_LOSSLESS, JPEG_2000, JPEG_LOSSLESS_SV1, JPEG_LS_LOSSLESS

IN_A_ROW = 5
"""Frames that one of both decodes before the other's turn."""


def encoded_frames(size: int) -> dict[str, tuple[bytes, ImagePixel]]:
    """One 12-bit frame of smoothed noise in each of the syntaxes that are expensive to decode."""
    import imagecodecs

    noise = np.random.default_rng(0).normal(size=(size + 8, size + 8))
    for axis in (0, 1):
        noise = np.cumsum(noise, axis)
    noise = noise[8:, 8:]
    pixels = (4095 * (noise - noise.min()) / np.ptp(noise)).astype(np.uint16)
    streams: dict[str, tuple[str, Callable[[], Any]]] = {
        "JPEG 2000": (
            JPEG_2000,
            lambda: imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="j2k", reversible=True),
        ),
        "HTJ2K": (HTJ2K_LOSSLESS, lambda: imagecodecs.htj2k_encode(pixels)),
        "JPEG-LS": (JPEG_LS_LOSSLESS, lambda: imagecodecs.jpegls_encode(pixels)),
        "JPEG lossless": (
            JPEG_LOSSLESS_SV1,
            lambda: imagecodecs.jpeg8_encode(pixels, lossless=True, bitspersample=16),
        ),
    }
    found = {}
    for name, (syntax, encode) in streams.items():
        bits = 16 if name != "JPEG-LS" else 12
        pixel = ImagePixel(syntax, size, size, bits_stored=bits, high_bit=bits - 1)
        found[name] = (bytes(encode()), pixel)
    return found


def cost(data: bytes, pixel: ImagePixel, rounds: int) -> dict[str, float]:
    """Milliseconds a frame, in this process and in a child, in turn."""
    with tempfile.TemporaryDirectory() as folder:
        plain = Noting("imagecodecs", Path(folder) / "seconds")
        apart = IsolatedBackend(plain)
        out = np.empty(pixel.shape, pixel.stored_dtype)
        times: dict[str, list[float]] = {"plain": [], "isolated": []}
        beside: dict[str, list[float]] = {"plain": [], "isolated": []}
        cores: dict[str, list[float]] = {"plain": [], "isolated": []}
        expected = plain.decode(data, pixel).copy()
        assert np.array_equal(apart.decode(data, pixel), expected)
        places = usable_cores()
        for _ in range(max(1, rounds // (2 * IN_A_ROW)) * 2):
            put(places)
            places.reverse()
            for name, backend in (("plain", plain), ("isolated", apart)):
                for _ in range(IN_A_ROW):
                    on_core, began = on_cores(), time.perf_counter()
                    backend.decode(data, pixel, out)
                    times[name].append(1000 * (time.perf_counter() - began))
                    cores[name].append(on_cores() - on_core)
                    beside[name].append(times[name][-1] - 1000 * plain.seconds())
    if places:
        os.sched_setaffinity(0, places)
    return {name: statistics.median(each) for name, each in times.items()} | {
        "cost": difference(beside),
        "cost_with_codec": difference(times),
        "cost_on_cores": difference(cores),
    }


def difference(times: dict[str, list[float]]) -> float:
    """The median of the mean differences of two rounds, frame by frame of a row."""
    each = np.subtract(times["isolated"], times["plain"])
    return float(np.median(each.reshape(-1, 2, IN_A_ROW).mean(1)))


def usable_cores() -> list[int]:
    """Two cores, one where there are not more; none where processes cannot be put on one."""
    return sorted(os.sched_getaffinity(0))[:2] if hasattr(os, "sched_getaffinity") else []


def put(places: list[int]) -> None:
    """Puts this process on the first core and its children on the last."""
    if places:
        os.sched_setaffinity(0, places[:1])
        for child in children._all:
            os.sched_setaffinity(child.process, places[-1:])


def on_cores() -> float:
    """Milliseconds that this process and its children that decode have been on a core; 0 where nobody says."""
    try:
        files = [Path(f"/proc/{child.process}/schedstat") for child in children._all]
        others = sum(int(file.read_text().split()[0]) for file in files) / 1e6
    except OSError:
        return 0.0
    return 1000 * time.process_time() + others


def recovery(data: bytes, pixel: ImagePixel, rounds: int) -> list[float]:
    """Milliseconds from the death of a child in the middle of a frame to the next decoded frame."""
    backend = IsolatedBackend(get_backend("imagecodecs"))
    found: list[float] = []
    while len(found) < rounds:
        backend.decode(data, pixel)
        (child,) = children._all
        died: list[float] = []

        def kill(process: int = child.process, died: list[float] = died) -> None:
            died.append(time.perf_counter())
            os.kill(process, signal.SIGSEGV)

        timer = threading.Timer(0.002, kill)
        timer.start()
        try:
            while True:
                backend.decode(data, pixel)
        except DecodeError:
            backend.decode(data, pixel)
            found.append(1000 * (time.perf_counter() - died[0]))
        timer.join()
    return found


def main() -> None:
    """Prints a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=512, help="rows and columns of a frame")
    parser.add_argument("--rounds", type=int, default=100, help="frames of each")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    frames = encoded_frames(arguments.size)
    costs = {name: cost(*frame, arguments.rounds) for name, frame in frames.items()}
    deaths = recovery(*frames["HTJ2K"], max(5, arguments.rounds // 5))
    result = {
        "size": arguments.size,
        "milliseconds": costs,
        "death_to_next_frame": {"median": statistics.median(deaths), "largest": max(deaths)},
    }
    if arguments.json:
        print(json.dumps(result, indent=2))
        return
    for name, each in costs.items():
        print(
            f"{name:14} {each['plain']:7.2f} ms, in a child {each['isolated']:7.2f} ms: {each['cost']:+.2f} ms a frame "
            f"(with the codec {each['cost_with_codec']:+.2f}, on cores {each['cost_on_cores']:+.2f})"
        )
    print(
        f"death to next frame: median {statistics.median(deaths):.0f} ms, largest {max(deaths):.0f} ms"
    )


if __name__ == "__main__":
    main()
