"""Frames/s of shuffled epochs, and of single frames: each library beside this package, on the same files."""

from __future__ import annotations

import argparse
import gc
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from benchmarks import competitors, data, report
from benchmarks.competitors import FrameDataset, Item
from dicomtorch import DicomFrames, FrameIndex, FrameLoader, scan

CASES = ("uncompressed", "jpeg_lossless", "jpeg_2000", "colour_jpeg_cine")
COLUMNS = ("data", "loader", "workers")


def paths_of(case: str, options: argparse.Namespace) -> list[Path]:
    """The files of a case, made if need be; slow syntaxes have fewer, so that an epoch takes seconds."""
    if case == "colour_jpeg_cine":
        frames = max(options.frames // 4, 2)
        rows, columns = (options.size * 15 // 16, options.size * 5 // 4)
        return data.cines(options.data, 4, frames, rows, columns)
    share = {"uncompressed": 4, "rle": 2, "jpeg_lossless": 1, "htj2k": 1}.get(case, 0.5)
    count = max(int(options.frames * share), 2)
    return data.make(options.data, data.SYNTAXES[case], count, options.size)


def measure(case: str, options: argparse.Namespace) -> list[report.Result]:
    """Every library with every number of workers, and our loaders; `times_base` is of plain pydicom at its best."""
    cine = case == "colour_jpeg_cine"
    index, _ = scan(paths_of(case, options))
    items = competitors.items_of(index, cine=cine)
    competitors.convert(index, items, cine=cine)
    frames = DicomFrames(index)
    batch_size = min(options.batch_size, max(2, len(index) // 4))  # or workers have nothing to do
    able: dict[str, Callable[[], int]] = {}
    described: dict[str, dict[str, Any]] = {}
    missing = []

    def add(library: str, loader: Any, workers: int, kind: str = "DataLoader") -> None:
        name = f"{library}/{kind}/{workers}"
        able[name] = lambda: sum(len(images) for images, _ in loader)
        described[name] = {"library": library, "loader": kind, "workers": workers}

    for library in (*competitors.LIBRARIES, *competitors.CONVERTED):
        try:
            check(library, items, frames)
        except AssertionError:
            raise
        except Exception as error:  # whatever a library raises for what it cannot do
            missing.append({"data": case, "library": library, "missing": report.first_line(error)})
            continue
        dataset = FrameDataset(library, items)
        for workers in (
            options.workers if library == "pydicom" else sorted({0, max(options.workers)})
        ):
            add(library, _loader(dataset, batch_size, workers), workers)
    for workers in options.workers:
        add(report.OURS, _loader(frames, batch_size, workers), workers)
    threads = 2
    threaded = FrameLoader(frames, batch_size, shuffle=True, num_threads=threads)
    add(report.OURS, threaded, threads, "FrameLoader")

    rates = report.interleaved(able, options.repeats)
    able.clear()  # ends the workers
    gc.collect()
    best = max(
        (name for name in rates if name.startswith("pydicom/")),
        key=lambda name: statistics.median(rates[name]),
        default="",
    )
    found = report.rows(rates, {}, best, data=case)
    for row in found:
        row.update(described[row["library"]], base="pydicom, best")
    return found + missing


def check(library: str, items: Sequence[Item], frames: DicomFrames) -> None:
    """That a library gives what we give, before it is timed.

    Raises:
        AssertionError: It gives something else.
    """
    few = items[:: max(1, len(items) // 4)]
    if library == "SimpleITK" and items[0].frame >= 0:
        raise competitors.NotOffered("it decodes the whole file for each frame")
    if library in competitors.MAY_END_THE_PROCESS:
        competitors.survives(library, items)
    for item in few:
        ours = frames[items.index(item)][0].numpy()
        theirs = competitors.display(library, item)
        lossy = 1 / 255 if library == "png" else 0
        # Decoders of lossy JPEG differ by a level here and there, and in how they bring chroma back to full size.
        atol = max(lossy, 4.5 / 255 if item.frame >= 0 else 2e-6)
        np.testing.assert_allclose(theirs, ours, atol=atol, err_msg=f"{library}, {item.path.name}")


def _loader(dataset: Any, batch_size: int, workers: int) -> DataLoader[Any]:
    """Its worker processes live on between epochs, so that their start is not measured."""
    return DataLoader(
        dataset,
        batch_size=batch_size,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        generator=torch.Generator().manual_seed(0),
    )


# Single frames


def measure_single(options: argparse.Namespace) -> list[report.Result]:
    """`frames[i]` in random order: one-frame CT files, and one file of a thousand colour JPEG frames."""
    paths = data.make(options.data, data.SYNTAXES["uncompressed"], options.frames, options.size)
    index, _ = scan(paths)
    results = _single("uncompressed CT, one frame a file", index, False, options.repeats, 32)
    frames = 1000 if options.size >= 256 else 50
    (path,) = data.cines(options.data, 1, frames, options.size * 15 // 32, options.size * 5 // 8)
    index, _ = scan([path])
    title = f"colour JPEG, one file of {frames} frames, no offset table"
    return results + _single(title, index, True, options.repeats, 16)


def _single(
    case: str, index: FrameIndex, cine: bool, repeats: int, count: int
) -> list[report.Result]:
    items = competitors.items_of(index, cine=cine)
    frames = DicomFrames(index)
    order = np.random.default_rng(0).permutation(len(items))
    able: dict[str, Callable[[], int]] = {report.OURS: lambda: _read(frames, order[: 4 * count])}
    missing = {}
    for library in competitors.LIBRARIES:
        slow = library == "SimpleITK" and cine
        try:
            if not slow:
                check(
                    library,
                    [items[i] for i in order[:count]],
                    DicomFrames(index.select(order[:count])),
                )
            competitors.display(library, items[0])
        except AssertionError:
            raise
        except Exception as error:
            missing[library] = report.first_line(error)
            continue
        dataset = FrameDataset(library, items)
        chosen = order[: 1 if slow else count]
        able[library] = lambda dataset=dataset, chosen=chosen: _read(dataset, chosen)  # type: ignore[misc]
    return report.rows(report.interleaved(able, repeats), missing, "pydicom", data=case)


def _read(dataset: Any, order: Any) -> int:
    for i in order:
        dataset[int(i)]
    return len(order)
