"""`python -m benchmarks.large`: large frames, of which training needs a small picture or a small part.

Two phantoms, a mammogram of 4000 x 3000 with 14 bits and a radiograph of 2500 x 2048 with 12, are written once in each
syntax. Measured are: `decode="reduced"` beside `decode="exact"` to 512 x 512 display values in one thread, with the
differences of the pictures; a crop of an uncompressed frame beside the whole; tables of boxes until the first crop; and
one frame of JPEG 2000 alone with one core and with two. Files are in the cache of the system; rounds are interleaved,
and medians are reported.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DigitalMammographyXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
)

from benchmarks import report
from dicomtorch import DicomCrops, DicomFrames, DicomPatches, FrameReader, scan
from dicomtorch.reader.threads import limit_threads

Stored = npt.NDArray[Any]

PHANTOMS = {"mammogram": (4000, 3000, 14), "radiograph": (2500, 2048, 12)}
NOISE = {
    14: 25.0,
    12: 12.5,
}  # of the stored values; lossless JPEG 2000 then has some 6.7 and 5.7 bits a pixel
SYNTAXES = {
    "native": ExplicitVRLittleEndian,
    "jpeg": JPEGBaseline8Bit,
    "jpeg_lossless": JPEGLosslessSV1,
    "htj2k": HTJ2KLossless,
    "jpeg_2000": JPEG2000Lossless,
}
SIZE = (512, 512)
ROUND_SECONDS = 0.2  # of one round of what is fast


def main(argv: Sequence[str] | None = None) -> int:
    """Makes the files once, times, prints tables, and writes JSON where asked to."""
    options = _parser().parse_args(argv)
    results: dict[str, Any] = {"machine": report.machine(), "versions": report.versions()}
    shapes = {
        name: (max(64, round(rows * options.scale)), max(64, round(columns * options.scale)), bits)
        for name, (rows, columns, bits) in PHANTOMS.items()
    }
    size = tuple(max(16, round(length * options.scale)) for length in SIZE)
    parts: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "reduced": lambda: reduced(options, shapes, (size[0], size[1])),
        "crops": lambda: crops(options, shapes["mammogram"], size[0]),
        "boxes": lambda: boxes(options, shapes["mammogram"], size[0]),
        "alone": lambda: alone(options, shapes["radiograph"]),
    }
    columns = {
        "reduced": (
            "phantom",
            "syntax",
            "factor",
            "exact_ms",
            "reduced_ms",
            "times",
            "rms",
            "bias",
        ),
        "crops": ("what", "ms", "times"),
        "boxes": ("boxes", "seconds"),
        "alone": ("frame", "one_core_ms", "two_cores_ms", "times"),
    }
    for name in options.parts:
        results[name] = parts[name]()
        print(report.plain_table(name.capitalize(), results[name], columns[name]), flush=True)
    if options.output:
        options.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return 0


def phantom(rows: int, columns: int, bits: int) -> Stored:
    """Soft tissue with round densities on black, and the noise of its quanta."""
    chance = np.random.default_rng((rows, columns, bits))
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
    y, x = y / rows, x / columns
    tissue = 0.12 + 0.55 * np.exp(-(((y - 0.5) / 0.4) ** 2 + ((x - 0.2) / 0.5) ** 2))
    for cy, cx, radius in chance.uniform((0.1, 0.1, 0.01), (0.9, 0.9, 0.08), (40, 3)):
        near = np.s_[
            max(0, round((cy - 0.2) * rows)) : round((cy + 0.2) * rows),
            max(0, round((cx - 0.2) * columns)) : round((cx + 0.2) * columns),
        ]
        away = np.hypot(y[near] - cy, x[near] - cx)
        tissue[near] += 0.05 / (1 + np.exp(np.minimum((away - radius) * 150, 50)))
    top = (1 << bits) - 1
    noise = chance.normal(0, NOISE[bits], (rows, columns)).astype(np.float32)
    stored: Stored = np.clip(np.rint(tissue * top + noise), 0, top).astype(np.uint16)
    return stored


def encoded(stored: Stored, bits: int, syntax: str) -> bytes:
    """The code stream of a frame."""
    if syntax == "jpeg":
        return bytes(imagecodecs.jpeg8_encode(stored.astype(np.uint8), level=90))
    if syntax == "jpeg_lossless":
        return bytes(
            imagecodecs.jpeg8_encode(stored, lossless=True, predictor=1, bitspersample=bits)
        )
    if syntax == "jpeg_2000":
        return bytes(
            imagecodecs.jpeg2k_encode(
                stored, level=0, codecformat="j2k", reversible=True, bitspersample=bits
            )
        )
    # The encoder takes the width of a word for the precision; the wavelet does not depend on it.
    shifted = (stored.astype(np.int32) - (1 << bits - 1)).astype(np.int16)
    stream = bytearray(imagecodecs.htj2k_encode(shifted, reversible=True))
    stream[42] = bits - 1  # Ssiz
    return bytes(stream)


def make(folder: Path, name: str, shape: tuple[int, int, int], syntax: str) -> Path:
    """The file of one phantom in one syntax, written unless an earlier run has done so."""
    rows, columns, bits = shape
    path = folder / f"large-{name}-{rows}x{columns}-{syntax}.dcm"
    if path.exists():
        return path
    stored = phantom(*shape)
    if syntax == "jpeg":
        stored, bits = stored >> (bits - 8), 8
    dataset: Any = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(SYNTAXES[syntax])
    dataset.SOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    study = "1.2.826.0.1.3680043.8.498.91"
    dataset.SOPInstanceUID = f"{study}.{list(PHANTOMS).index(name)}.{list(SYNTAXES).index(syntax)}"
    dataset.SeriesInstanceUID, dataset.StudyInstanceUID = f"{study}.1", study
    dataset.PatientID, dataset.Modality = "phantom", "MG"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = rows, columns
    dataset.BitsAllocated = 8 if bits == 8 else 16
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = bits, bits - 1, 0
    dataset.WindowCenter, dataset.WindowWidth = float(1 << bits - 1), float(1 << bits)
    if syntax == "native":
        dataset.PixelData = stored.tobytes()
    else:
        dataset.PixelData = encapsulate([encoded(stored, bits, syntax)])
    dataset["PixelData"].VR = "OW" if syntax == "native" else "OB"
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    dataset.save_as(part, enforce_file_format=True)
    part.replace(path)
    return path


def timed(steps: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each step, in interleaved rounds; the first warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    times = dict.fromkeys(steps, 1)
    for repeat in range(repeats + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            for _ in range(times[name]):
                step()
            spent = (time.perf_counter() - start) / times[name]
            if repeat:
                seconds[name].append(spent)
            else:
                times[name] = max(1, min(50, round(ROUND_SECONDS / spent)))
    return {name: median(values) for name, values in seconds.items()}


def reduced(
    options: argparse.Namespace, shapes: dict[str, tuple[int, int, int]], size: tuple[int, int]
) -> list[dict[str, Any]]:
    """From file to `size`: time and difference, in levels of 255, of "reduced" against "exact"."""
    rows = []
    for name, shape in shapes.items():
        for syntax in options.syntaxes:
            path = make(options.data, name, shape, syntax)
            exact = DicomFrames(path, size=size)
            small = DicomFrames(path, size=size, decode="reduced")
            image, meta = small[0]
            difference = 255 * (image - exact[0][0])
            limit_threads(1)
            steps = {
                "exact": partial(exact.__getitem__, 0),
                "reduced": partial(small.__getitem__, 0),
            }
            seconds = timed(steps, options.repeats)
            limit_threads(0)
            rows.append(
                {
                    "phantom": name,
                    "syntax": syntax,
                    "factor": int(meta["resized"][-1]),
                    "exact_ms": 1000 * seconds["exact"],
                    "reduced_ms": 1000 * seconds["reduced"],
                    "times": seconds["exact"] / seconds["reduced"],
                    "rms": float(difference.square().mean().sqrt()),
                    "bias": float(difference.mean()),
                }
            )
    return rows


def crops(
    options: argparse.Namespace, shape: tuple[int, int, int], size: int
) -> list[dict[str, Any]]:
    """One crop of an uncompressed frame beside the whole frame and the crop cut out of it."""
    path = make(options.data, "mammogram", shape, "native")
    whole = DicomFrames(path)
    uid = whole.index.column("SOPInstanceUID")[0]
    at = {"SOPInstanceUID": [uid], "x": [shape[1] // 2], "y": [shape[0] // 2]}
    parts = DicomCrops(path, at, (size, size))
    patches = DicomPatches(path, (size, size), per_frame=64, foreground=0.5)
    patches[0]  # the first one of a frame looks for its foreground
    counter = iter(range(1 << 30))
    top, left = parts[0][1]["window"][:2]

    def cut() -> Any:
        return whole[0][0][:, top : top + size, left : left + size].clone()

    assert cut().equal(parts[0][0]), "a crop is what DicomFrames gives there"
    seconds = timed(
        {
            "whole frame, then cut": cut,
            "DicomCrops": lambda: parts[0],
            "DicomPatches": lambda: patches[next(counter) % len(patches)],
        },
        options.repeats,
    )
    base = seconds["whole frame, then cut"]
    return [
        {"what": name, "ms": 1000 * spent, "times": base / spent} for name, spent in seconds.items()
    ]


def boxes(
    options: argparse.Namespace, shape: tuple[int, int, int], size: int
) -> list[dict[str, Any]]:
    """Tables of boxes on one frame, until the first crop is there."""
    path = make(options.data, "mammogram", shape, "native")
    index, _ = scan(path)
    chance = np.random.default_rng(0)
    rows = []
    for count in (1000, options.boxes):
        x, y = (chance.uniform(0, length - 1, count) for length in (shape[1], shape[0]))
        table = {"SOPInstanceUID": [index.column("SOPInstanceUID")[0]] * count, "x": x, "y": y}
        table["label"] = chance.integers(0, 2, count)
        start = time.perf_counter()
        DicomCrops(index, table, (size, size))[count // 2]
        rows.append({"boxes": count, "seconds": time.perf_counter() - start})
    return rows


def alone(options: argparse.Namespace, shape: tuple[int, int, int]) -> list[dict[str, Any]]:
    """One frame of JPEG 2000 with one core and with two, where the system lets a process choose."""
    path = make(options.data, "radiograph", shape, "jpeg_2000")
    reader = FrameReader(scan(path)[0])
    seconds = timed(
        {
            "one": lambda: reader.read_many([0], num_threads=1),
            "two": lambda: reader.read_many([0], num_threads=2),
        },
        options.repeats,
    )
    return [
        {
            "frame": f"{shape[0]} x {shape[1]}, {os.cpu_count()} cores",
            "one_core_ms": 1000 * seconds["one"],
            "two_cores_ms": 1000 * seconds["two"],
            "times": seconds["one"] / seconds["two"],
        }
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large", description=__doc__)
    everything = ("reduced", "crops", "boxes", "alone")
    parser.add_argument("--parts", nargs="+", choices=everything, default=everything)
    parser.add_argument("--syntaxes", nargs="+", choices=SYNTAXES, default=tuple(SYNTAXES))
    parser.add_argument("--scale", type=float, default=1.0, help="of all sizes, to try it")
    parser.add_argument("--boxes", type=int, default=100_000, help="default: %(default)s")
    parser.add_argument("--repeats", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--data", type=Path, default=Path("out") / "benchmarks" / "data")
    parser.add_argument("--output", type=Path, help="a file for the results as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
