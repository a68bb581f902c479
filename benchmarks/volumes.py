"""`python -m benchmarks.volumes`: a CT series as one volume, and a crop of it, beside SimpleITK and MONAI.

MONAI is measured where it is installed. Everybody reads the same uncompressed slices from the cache of the system, and
is checked to give the same values. The index is there already, as in training: it is made once per data set, and the
time for that is reported apart.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from benchmarks import data
from dicomtorch import DicomCrops, DicomVolumes, scan

CROP = (32, 48, 48)
Read = Callable[[], np.ndarray[Any, Any]]


def main(argv: Sequence[str] | None = None) -> int:
    """Makes the series once, checks, times, prints a table, and writes JSON where asked to."""
    options = _parser().parse_args(argv)
    paths = data.make(options.data, data.SYNTAXES["uncompressed"], options.slices, options.size)
    start = time.perf_counter()
    index, _ = scan(paths)
    seconds = time.perf_counter() - start
    center = (options.slices // 2, options.size // 2, options.size // 2)
    depth = min(CROP[0], options.slices)
    size = (depth, *(min(n, options.size) for n in CROP[1:]))
    z, y, x = center
    row = {
        "SeriesInstanceUID": [index.column("SeriesInstanceUID")[0]],
        "x": [x],
        "y": [y],
        "z": [z],
    }
    crops = DicomCrops(index, row, size, coordinates="voxel", values="modality")
    volumes = DicomVolumes(index, values="modality")
    names = [str(path) for path in paths]
    part = tuple(slice(c - n // 2, c - n // 2 + n) for c, n in zip(center, size, strict=True))
    whole: dict[str, Read] = {
        "dicomtorch": lambda: volumes[0][0][0].numpy(),
        "SimpleITK": lambda: simpleitk(names),
    }
    monai = _monai(paths[0].parent)
    if monai is not None:
        whole["MONAI"] = monai
    cropped: dict[str, Read] = {
        "dicomtorch": lambda: crops[0][0][0].numpy(),
        "SimpleITK": lambda: simpleitk(names)[part],
    }
    results = {
        "settings": {"slices": options.slices, "size": options.size, "crop": size},
        "scan_seconds": seconds,
        "volume": compare(whole, options.repeats),
        "crop": compare(cropped, options.repeats),
    }
    print(f"Index of {len(index)} slices: {seconds:.3f} s, once")
    for what in ("volume", "crop"):
        ours = results[what]["dicomtorch"]["median"]  # type: ignore[index]
        for name, row_ in results[what].items():  # type: ignore[attr-defined]
            print(
                f"{what:8}{name:12}{1000 * row_['median']:9.1f} ms   x {row_['median'] / ours:.1f}"
            )
    if monai is None:
        print("MONAI is not installed: not measured")
    if options.output:
        options.output.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return 0


def simpleitk(names: Sequence[str]) -> np.ndarray[Any, Any]:
    """The series by SimpleITK's series reader, as float32 Hounsfield units."""
    reader: Any = sitk.ImageSeriesReader()  # type: ignore[no-untyped-call,unused-ignore]
    reader.SetFileNames(names)
    return np.asarray(sitk.GetArrayFromImage(reader.Execute()), np.float32)


def _monai(folder: Path) -> Read | None:
    try:
        PydicomReader: Any = importlib.import_module("monai.data").PydicomReader
    except ImportError:
        return None

    def read() -> np.ndarray[Any, Any]:
        reader = PydicomReader(swap_ij=False)
        values, _ = reader.get_data(reader.read(str(folder)))
        return np.ascontiguousarray(np.moveaxis(values, -1, 0), np.float32)

    return read


def compare(able: dict[str, Read], repeats: int) -> dict[str, dict[str, Any]]:
    """Seconds of each; repeats are interleaved, so that a slow moment slows everybody down."""
    expected = able["dicomtorch"]()
    for name, read in able.items():
        np.testing.assert_array_equal(read(), expected, err_msg=name)
    seconds: dict[str, list[float]] = {name: [] for name in able}
    for _ in range(repeats):
        for name, read in able.items():
            start = time.perf_counter()
            read()
            seconds[name].append(time.perf_counter() - start)
    return {name: {"median": statistics.median(s), "repeats": s} for name, s in seconds.items()}


def _parser() -> argparse.ArgumentParser:
    output = Path("out") / "benchmarks"
    parser = argparse.ArgumentParser(prog="python -m benchmarks.volumes", description=__doc__)
    parser.add_argument(
        "--data", type=Path, default=output / "data", help="made once; default: %(default)s"
    )
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, help="a JSON file for the numbers")
    return parser


if __name__ == "__main__":
    sys.exit(main())
