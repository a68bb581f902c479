"""`python -m benchmarks`: makes the data once, checks that everybody reads the same values, then times.

Repeats are interleaved, so that a machine that slows down slows everybody down, and medians are reported.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from benchmarks import competitors, data
from dicomtorch import FrameIndex, __version__, scan

OURS = "dicomtorch"
PACKAGES = (
    *("torch", "numpy", "pydicom", "SimpleITK", "imagecodecs", "pyarrow"),
    *("pylibjpeg-openjpeg", "pylibjpeg-rle", "pylibjpeg-libjpeg", "pyjpegls", "python-gdcm"),
)
LOADER_SYNTAXES = ("uncompressed", "jpeg_2000")

Result = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs everything and writes `results.json`."""
    options = _parser().parse_args(argv)
    if options.quick:
        options.frames, options.size, options.repeats = 16, 128, 2
    results: dict[str, Any] = {
        "machine": machine(),
        "versions": versions(),
        "settings": {
            "frames": options.frames,
            "size": options.size,
            "repeats": options.repeats,
            "batch_size": options.batch_size,
            "torch_threads": torch.get_num_threads(),
        },
        "decode": [],
        "loader": [],
    }
    for name in options.syntaxes:
        paths = data.make(options.data, data.SYNTAXES[name], options.frames, options.size)
        index, _ = scan(paths)
        results["decode"] += measure_decode(name, paths, index, options.repeats)
    print(table("One frame from its file to float32 modality values, frames/s", results["decode"]))
    for name in [name for name in options.syntaxes if name in LOADER_SYNTAXES]:
        paths = data.make(options.data, data.SYNTAXES[name], options.frames, options.size)
        index, _ = scan(paths)
        for workers in options.workers:
            results["loader"] += measure_loader(name, paths, index, workers, options)
    print(table("Shuffled DataLoader epoch of float32 display values, frames/s", results["loader"]))
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "results.json"
    path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(f"Wrote {path}")
    return 0


def measure_decode(
    syntax: str, paths: Sequence[Path], index: FrameIndex, repeats: int
) -> list[Result]:
    """Every frame once in random order, one at a time."""
    order = np.random.default_rng(0).permutation(len(paths)).tolist()
    able: dict[str, Callable[[], int]] = {}
    missing: dict[str, str] = {}
    for name, read in competitors.readers(paths, index).items():
        try:
            first = read(0)
        except Exception as error:  # whatever a competitor raises for what it cannot decode
            if name == OURS:
                raise
            missing[name] = _first_line(error)
            continue
        for number in range(min(len(paths), 8)):
            values = first if number == 0 else read(number)
            size = values.shape[0]
            expected = data.modality_values(data.phantom(number, size))
            np.testing.assert_array_equal(
                values, expected, err_msg=f"{name}, {syntax}, {paths[number].name}"
            )

        def once(read: competitors.Reader = read) -> int:
            for i in order:
                read(i)
            return len(order)

        able[name] = once
    return _results(interleaved(able, repeats), missing, syntax=syntax)


def measure_loader(
    syntax: str, paths: Sequence[Path], index: FrameIndex, workers: int, options: argparse.Namespace
) -> list[Result]:
    """One shuffled epoch; worker processes live on between epochs, so that their start is not measured."""
    able: dict[str, Callable[[], int]] = {}
    missing: dict[str, str] = {}
    for name, dataset in competitors.datasets(paths, index).items():
        try:
            image = dataset[0][0]
        except Exception as error:
            if name == OURS:
                raise
            missing[name] = _first_line(error)
            continue
        expected = data.display_values(data.phantom(0, options.size))
        np.testing.assert_allclose(
            image[0].numpy(), expected, atol=1e-5, err_msg=f"{name}, {syntax}"
        )
        loader = DataLoader(
            dataset,
            batch_size=options.batch_size,
            shuffle=True,
            num_workers=workers,
            persistent_workers=workers > 0,
            generator=torch.Generator().manual_seed(0),
        )

        def once(loader: DataLoader[Any] = loader) -> int:
            return sum(len(images) for images, _ in loader)

        able[name] = once
    return _results(interleaved(able, options.repeats), missing, syntax=syntax, workers=workers)


def interleaved(able: dict[str, Callable[[], int]], repeats: int) -> dict[str, list[float]]:
    """Frames/s of each repeat; the first round warms up and does not count."""
    rates: dict[str, list[float]] = {name: [] for name in able}
    for repeat in range(repeats + 1):
        for name, once in able.items():
            start = time.perf_counter()
            frames = once()
            if repeat:
                rates[name].append(frames / (time.perf_counter() - start))
    return rates


def _results(rates: dict[str, list[float]], missing: dict[str, str], **row: Any) -> list[Result]:
    ours = statistics.median(rates[OURS])
    measured = [
        {
            **row,
            "library": name,
            "frames_per_second": statistics.median(values),
            "repeats": values,
            "ours_is_faster_by": ours / statistics.median(values),
        }
        for name, values in rates.items()
    ]
    return measured + [{**row, "library": name, "missing": why} for name, why in missing.items()]


def table(title: str, results: Sequence[Result]) -> str:
    """One line per row of results, as Markdown."""
    lines = [
        f"\n{title}\n",
        "| syntax | workers | library | frames/s | dicomtorch / it |",
        "|---|---|---|---|---|",
    ]
    for row in results:
        if "missing" in row:
            measured = f"- | not measured: {row['missing']}"
        else:
            measured = f"{row['frames_per_second']:,.0f} | {row['ours_is_faster_by']:.2f}"
        lines.append(
            f"| {row['syntax']} | {row.get('workers', '-')} | {row['library']} | {measured} |"
        )
    return "\n".join(lines)


def versions() -> dict[str, str]:
    """Of everything that takes part; "" for what is not installed."""
    found = {"dicomtorch": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = ""
    return found


def machine() -> dict[str, Any]:
    """What the numbers depend on; no names of hosts or people."""
    cpu = platform.machine()
    if (info := Path("/proc/cpuinfo")).exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0].partition(":")[2].strip() if names else cpu
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": cpu,
        "usable_cores": usable,
        "system": f"{platform.system()} {platform.release()}",
    }


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:120]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    output = Path("out") / "benchmarks"
    parser.add_argument("--frames", type=int, default=64, help="per syntax; default: %(default)s")
    parser.add_argument(
        "--size", type=int, default=512, help="rows and columns; default: %(default)s"
    )
    parser.add_argument("--repeats", type=int, default=3, help="timed rounds; default: %(default)s")
    parser.add_argument("--batch-size", type=int, default=32, help="default: %(default)s")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument(
        "--syntaxes",
        nargs="+",
        choices=list(data.SYNTAXES),
        default=list(data.SYNTAXES),
        metavar="NAME",
    )
    parser.add_argument(
        "--data", type=Path, default=output / "data", help="made once; default: %(default)s"
    )
    parser.add_argument("--output", type=Path, default=output, help="default: %(default)s")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="small data, few repeats: whether it runs, not how fast",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
