"""The main job on files that everybody has: those in pydicom's wheel."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import torch
from torch.utils.data import DataLoader

from dicomtorch import plot
from dicomtorch.datasets import DicomFrames
from dicomtorch.errors import DicomTorchError
from dicomtorch.summary import format_summary, summarize

BATCH_SIZE = 16
PICTURES = 48


def bundled_files() -> Path:
    """The folder of test files inside pydicom; nothing is downloaded."""
    return Path(pydicom.__file__).parent / "data" / "test_files"


def run(output: Path, *, source: Path | None = None, num_workers: int = 2) -> Iterator[str]:
    """Indexes, loads one shuffled epoch, and writes `contact-sheet.png`.

    Args:
        output: Folder for the picture and the index; made if it is missing.
        source: Files to use, `None` for those of pydicom.
        num_workers: Worker processes of the `DataLoader`.

    Yields:
        Text for the terminal, as the work goes on.
    """
    source = source or bundled_files()
    output.mkdir(parents=True, exist_ok=True)
    # One size and one channel, because a batch needs equal shapes; what cannot be read is replaced, so that it ends.
    frames = DicomFrames(
        source, size=(256, 256), color="gray", on_error="replace", cache_dir=output / "index"
    )
    yield f"{source}: {format_summary(summarize(frames.index, frames.report))}"
    yield from epoch(frames, num_workers)
    picture = output / "contact-sheet.png"
    shown = contact_sheet(frames, picture)
    yield f"Wrote {picture}: the first frames of {shown} files, as training sees them."


def epoch(frames: DicomFrames, num_workers: int) -> Iterator[str]:
    """One pass as a training loop makes it, with the statistics that a network's first layer wants."""
    loader = DataLoader(
        frames,
        batch_size=BATCH_SIZE,
        shuffle=True,
        num_workers=num_workers,
        generator=torch.Generator().manual_seed(0),
    )
    count, replaced, total, squares = 0, 0, 0.0, 0.0
    start = time.perf_counter()
    for images, meta in loader:
        count += len(images)
        replaced += int((meta["index"] != meta["requested_index"]).sum())
        total += float(images.mean(dtype=torch.float64)) * len(images)
        squares += float(images.double().square().mean()) * len(images)
    seconds = time.perf_counter() - start
    mean = total / count
    deviation = (squares / count - mean * mean) ** 0.5
    yield (
        f"\nOne shuffled epoch, DataLoader with {num_workers} workers: {count} frames of 1 x 256 x 256 in "
        f"{seconds:.1f} s, {count / seconds:.0f} frames/s with the start of the workers; "
        f"mean {mean:.3f}, standard deviation {deviation:.3f}"
    )
    if replaced:
        yield f"{replaced} frames could not be decoded and were replaced by the next readable one."


def contact_sheet(frames: DicomFrames, path: Path) -> int:
    """A picture of the first frame of each kind of image.

    Returns:
        The number of frames in it.
    """
    images, captions = [], []
    looked_at = DicomFrames(frames.index)
    for i in _one_per_file(frames):
        try:
            image, meta = looked_at[i]
        except DicomTorchError:  # the epoch has counted it already
            continue
        images.append(image.numpy())
        captions.append(f"{meta['Modality']} {meta['Rows']}x{meta['Columns']}")
        if len(images) == PICTURES:
            break
    plot.contact_sheet(images, captions, columns=8, tile=128, path=path)
    return len(images)


def _one_per_file(frames: DicomFrames) -> list[int]:
    _, first = np.unique(frames.index.column("file"), return_index=True)
    return [int(i) for i in first]
