"""One thread, file to float32 modality values, for each syntax: this package beside other readers.

`python -m benchmarks.peers --pydcm PYTHON` measures pydcm with a Python of its own, 3.12 or later (`python3.12 -m venv
place; place/bin/pip install pydcm`), in a process that takes turns with this one. Milliseconds a frame by the wall and
by the CPU: where the second is larger, a library uses several threads for one frame. A library that is absent, refuses
a syntax or gives other values is a row that says so.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import competitors, data, decoding, report
from benchmarks.pydcm_process import PydcmProcess
from dicomtorch import DicomFrames, FrameReader, PixelOptions, scan
from dicomtorch.pixels.memory import new_batch

SYNTAXES = ("uncompressed", "rle", "jpeg_lossless", "jpeg_ls", "htj2k", "jpeg_2000")
COLUMNS = ("syntax", "library", "ms", "CPU ms", "times ours")
Turn = Callable[[float], tuple[int, float, float]]
"""Reads for so many seconds: frames, and seconds by the wall and by the CPU."""


def turn_of(once: Callable[[], int]) -> Turn:
    """Calls `once`, which says how many frames it read, until the time is up."""

    def run(seconds: float) -> tuple[int, float, float]:
        frames, begin, worked = 0, time.perf_counter(), time.process_time()
        while time.perf_counter() - begin < seconds:
            frames += once()
        return frames, time.perf_counter() - begin, time.process_time() - worked

    return run


def measure(syntax: str, options: argparse.Namespace) -> list[report.Result]:
    """One row a library."""
    paths = data.make(options.data, data.SYNTAXES[syntax], options.files, options.size)
    index, _ = scan(paths)
    modality = PixelOptions(values="modality")
    frames, reader = DicomFrames(index, values="modality"), FrameReader(index, options=modality)
    order = list(range(len(index)))
    batch = new_batch((len(index), *reader.shape(0)), reader.dtype)
    expected = frames[0][0][0].numpy()
    able: dict[str, Turn] = {
        "dicomtorch, a batch": turn_of(lambda: len(reader.read_many(order, batch, num_threads=1))),
        "dicomtorch, frames[i]": turn_of(lambda: len([frames[i] for i in order])),
    }
    missing: dict[str, str] = {}
    if syntax in decoding.CODECS:
        streams, decode = [reader.read_encoded(i) for i in order], decoding.CODECS[syntax]
        able["codec alone, in memory"] = turn_of(
            lambda: sum(1 for stream in streams if decode(stream) is not None)
        )
        if syntax != "rle":  # its decoder gives bytes of another shape
            able["codec and conversion, in memory"] = turn_of(
                lambda: sum(
                    _converted(decode(s), out) for s, out in zip(streams, batch, strict=True)
                )
            )
    for name, read in competitors.MODALITY.items():
        try:
            if name in competitors.MAY_END_THE_PROCESS:
                competitors.survives(name, [competitors.Item(path, -1, path) for path in paths])
            np.testing.assert_allclose(read(paths[0]), expected, atol=2e-3)
        except (Exception, AssertionError) as error:
            missing[name] = report.first_line(error)
            continue
        able[name] = turn_of(lambda read=read: sum(1 for p in paths if read(p) is not None))  # type: ignore[misc]
    process, why = _pydcm(options.pydcm, paths, expected)
    if process is None:
        missing["pydcm"] = why
    else:
        able["pydcm"] = process.turn
    try:
        return _rows(syntax, able, missing, options)
    finally:
        if process is not None:
            process.close()


def _converted(stored: Any, out: torch.Tensor) -> int:
    """What NumPy takes for the same values, into the same kind of memory."""
    numbers = out.numpy()[0]
    np.copyto(numbers, stored)
    numbers += np.float32(-1024)
    return 1


def _pydcm(
    python: Path | None, paths: Sequence[Path], expected: Any
) -> tuple[PydcmProcess | None, str]:
    if python is None:
        return None, "name a Python that has it with --pydcm"
    with tempfile.TemporaryDirectory() as folder:
        try:
            process = PydcmProcess(python, paths, Path(folder) / "first.npy")
        except (OSError, ValueError) as error:
            return None, report.first_line(error)
        values = np.load(Path(folder) / "first.npy")
    if values.squeeze().shape != expected.shape or not np.allclose(
        values.squeeze(), expected, atol=2e-3
    ):
        process.close()
        return None, "gives other values"
    return process, ""


def _rows(
    syntax: str, able: dict[str, Turn], missing: dict[str, str], options: argparse.Namespace
) -> list[report.Result]:
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in able}
    for repeat in range(options.repeats + 1):
        for name, run in able.items():
            frames, wall, cpu = run(options.seconds)
            if repeat:
                spent[name].append((1e3 * wall / frames, 1e3 * cpu / frames))
    ours = statistics.median(wall for wall, _ in spent["dicomtorch, a batch"])
    rows: list[report.Result] = []
    for name, each in spent.items():
        wall, cpu = (statistics.median(numbers) for numbers in zip(*each, strict=True))
        rows.append(
            {
                "syntax": syntax,
                "library": name,
                "ms": f"{wall:.2f}",
                "CPU ms": f"{cpu:.2f}",
                "times ours": f"{wall / ours:.2f}",
            }
        )
    return rows + [
        {"syntax": syntax, "library": name, "missing": f"not measured: {why}"}
        for name, why in missing.items()
    ]


def main() -> None:
    """Prints one table for all syntaxes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--pydcm", type=Path, help="a Python 3.12 or later that has pydcm")
    parser.add_argument("--syntaxes", nargs="+", choices=SYNTAXES, default=SYNTAXES)
    parser.add_argument("--files", type=int, default=16, help="of each syntax")
    parser.add_argument("--size", type=int, default=512, help="rows and columns")
    parser.add_argument("--seconds", type=float, default=0.5, help="of one library in a round")
    parser.add_argument("--repeats", type=int, default=5, help="rounds; default: %(default)s")
    parser.add_argument("--data", type=Path, default=Path("out") / "benchmarks" / "data")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what other libraries say while they read
        rows = [row for syntax in options.syntaxes for row in measure(syntax, options)]
    print(report.plain_table("One thread, file to float32 modality values", rows, COLUMNS))
    title = "One thread, file to float32 modality values, ms a frame"
    print(report.pivot(title, rows, "library", "syntax", "ms"))


if __name__ == "__main__":
    main()
