"""The main job on files that everybody has: those in pydicom's wheel."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
from dicomtorch.reports.page import PLAIN, Block, Page, Sentence, table
from dicomtorch.reports.summary import headline, summarize
from dicomtorch.reports.text import PROBLEMS

BATCH_SIZE = 16
_MOST_ROWS = 8  # of a table
PICTURES = 24
SMALLEST = 48  # pixels a side that a picture needs to be worth looking at


def bundled_files() -> Path:
    """The folder of test files inside pydicom; nothing is downloaded."""
    return Path(pydicom.__file__).parent / "data" / "test_files"


def run(
    output: Path, *, source: Path | None = None, num_workers: int = 2, page: Page = PLAIN
) -> Iterator[str]:
    """Indexes, loads one shuffled epoch, and writes `contact-sheet.png`.

    Args:
        output: Folder for the picture and the index; made if it is missing.
        source: Files to use, `None` for those of pydicom.
        num_workers: Worker processes of the `DataLoader`.
        page: Where the text is printed.

    Yields:
        Text for the terminal, as the work goes on.
    """
    source = source or bundled_files()
    output.mkdir(parents=True, exist_ok=True)
    # One size and one channel, because a batch needs equal shapes; what cannot be read is replaced, so that it ends.
    frames = DicomFrames(
        source, size=(256, 256), color="gray", on_error="replace", cache_dir=output / "index"
    )
    summary = summarize(frames.index, frames.report)
    yield page.render(_overview(source, summary))
    yield from (page.render([Sentence(line, 0)]) for line in epoch(frames, num_workers))
    picture = output / "contact-sheet.png"
    drawn = contact_sheet(frames, picture)
    yield page.render(
        [
            Sentence(
                f"Wrote {picture}: {drawn} frames that look different, as training sees them.", 0
            )
        ]
    )


def _overview(source: Path, summary: dict[str, Any]) -> list[Block]:
    """What there is, in short; `dicomtorch scan` says more."""
    lost = sum(summary["files"][name] for name in PROBLEMS)
    without = sum(summary["files"].values()) - summary["files"]["image"] - lost
    syntaxes = [(e["name"], e["frames"], e["files"]) for e in summary["transfer_syntaxes"]]
    modalities = [(e["name"] or "(none)", e["frames"], e["files"]) for e in summary["modalities"]]
    return [
        Sentence(f"{source}: {headline(summary)}", 0),
        table(("Modality", "frames", "files"), modalities, most=_MOST_ROWS, hint=""),
        table(("Transfer syntax", "frames", "files"), syntaxes, most=_MOST_ROWS, hint=""),
        Sentence(
            f"{without} files without an image and {lost} damaged ones are passed over; `dicomtorch scan` names them.",
            0,
        ),
    ]


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
        warnings.filterwarnings("ignore", message=".*was replaced by")
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
        f"One shuffled epoch, DataLoader with {num_workers} workers: {count} frames of {shape} in "
        f"{seconds:.1f} s, {count / seconds:.0f} frames/s with the start of the workers; "
        f"mean {mean:.3f}, standard deviation {deviation:.3f}"
    )
    names = ", ".join(sorted({_name(frames, i) for i in replaced}))
    if names:
        yield (
            f"{count - len(replaced)} of {count} frames were decoded; other frames took the place of what is damaged "
            f"in {names}."
        )
    else:
        yield f"All {count} frames were decoded."


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


def _name(frames: DicomFrames, i: int) -> str:
    return Path(os.fsdecode(frames.index.path(i))).name
