"""The main job on files that everybody has: those in pydicom's wheel."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d
from torch.utils.data import DataLoader

from dicomtorch.datasets.frames import DicomFrames
from dicomtorch.errors import DicomTorchError
from dicomtorch.model.shown import shown
from dicomtorch.pictures import plot
from dicomtorch.reports.summary import format_summary, summarize

BATCH_SIZE = 16
PICTURES = 24
SMALLEST = 48  # pixels a side that a picture needs to be worth looking at


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
    yield f"Wrote {picture}: {shown} frames that look different, as training sees them."


def epoch(frames: DicomFrames, num_workers: int) -> Iterator[str]:
    """One pass as a training loop makes it, with the statistics that a network's first layer wants."""
    loader = DataLoader(
        frames,
        batch_size=BATCH_SIZE,
        shuffle=True,
        num_workers=num_workers,
        generator=torch.Generator().manual_seed(0),
    )
    count, total, squares = 0, 0.0, 0.0
    replaced: list[int] = []
    start = time.perf_counter()
    with warnings.catch_warnings():
        # Workers warn of the first frame that each replaces; all of them are named below.
        warnings.filterwarnings("ignore", message=".*It was replaced by frame")
        for images, meta in loader:
            count += len(images)
            replaced += meta["requested_index"][meta["index"] != meta["requested_index"]].tolist()
            total += float(images.sum(dtype=torch.float64))
            squares += float(images.double().square().sum())
    seconds = time.perf_counter() - start
    pixels = count * images[0].numel()
    mean = total / pixels
    deviation = (squares / pixels - mean * mean) ** 0.5
    shape = " x ".join(map(str, images[0].shape))
    yield (
        f"\nOne shuffled epoch, DataLoader with {num_workers} workers: {count} frames of {shape} in "
        f"{seconds:.1f} s, {count / seconds:.0f} frames/s with the start of the workers; "
        f"mean {mean:.3f}, standard deviation {deviation:.3f}"
    )
    for i in replaced:
        yield f"Frame {i} was replaced by the next readable one: {_error_of(frames, i)}"


def contact_sheet(frames: DicomFrames, path: Path) -> int:
    """A picture of the first frame of each file, large ones first, without those that look like one that is there.

    Images of less than `SMALLEST` pixels a side are left out, unless there are no others.

    Returns:
        The number of frames in it.
    """
    images: list[npt.NDArray[np.float32]] = []
    captions, seen = [], list[Tensor]()
    as_is = DicomFrames(frames.index)  # their own sizes and colours
    _, first_of_file = np.unique(frames.index.column("file"), return_index=True)
    sides = np.stack([frames.index.column("Rows"), frames.index.column("Columns")])
    large = first_of_file[sides.min(axis=0)[first_of_file] >= SMALLEST]
    pixels = sides.prod(axis=0, dtype=np.int64)
    for i in sorted((large if len(large) else first_of_file).tolist(), key=lambda i: -pixels[i]):
        try:
            image, meta = as_is[i]
        except DicomTorchError:  # the epoch has named it
            continue
        look = adaptive_avg_pool2d(image.mean(0, keepdim=True), 8)
        if any(float((look - other).abs().max()) < 0.05 for other in seen):
            continue
        seen.append(look)
        images.append(image.numpy())
        captions.append(
            f"{shown('Modality', meta['Modality']) or '-'}, {meta['Rows']} x {meta['Columns']}"
        )
        if len(images) == PICTURES:
            break
    plot.contact_sheet(images, captions, columns=8, tile=128, path=path)
    return len(images)


def _error_of(frames: DicomFrames, i: int) -> str:
    try:
        DicomFrames(frames.index)[i]
    except DicomTorchError as error:
        return str(error)
    return "it can be read now"
