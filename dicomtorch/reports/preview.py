"""One picture of a tree: frames as training sees them, and how often each value occurs in them."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dicomtorch.datasets.labelling import without_masks
from dicomtorch.datasets.overlays import overlaid
from dicomtorch.errors import DicomTorchError, OptionError, SourceError, import_optional
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.masks.mask_index import MaskIndex
from dicomtorch.model.options import PixelOptions
from dicomtorch.model.shown import shown
from dicomtorch.pictures import plot
from dicomtorch.reader.reader import FrameReader

if TYPE_CHECKING:
    from PIL.Image import Image

_COLUMNS = 8
_TILE = 128
_HISTOGRAM_HEIGHT = 280
_VALUES_PER_FRAME = 65_536  # that enter the histogram
_UNITS = {
    "display": "display value, 0 to 1",
    "modality": "modality value",
    "stored": "stored value",
}


@dataclass(slots=True)
class Preview:
    """What was drawn.

    Attributes:
        positions: The frames in the picture, in the order of the index.
        failures: Position and error of those that were to be there and cannot be read; path and frame left out.
    """

    positions: list[int] = field(default_factory=list)
    failures: list[tuple[int, str]] = field(default_factory=list)


def write_preview(
    index: FrameIndex,
    path: str | os.PathLike[str],
    *,
    count: int = 32,
    options: PixelOptions | None = None,
    masks: MaskIndex | None = None,
) -> Preview:
    """Writes a contact sheet with a histogram below it.

    Args:
        index: Whose frames.
        path: The picture; its suffix decides the format.
        count: At most so many frames, spread over the series, and over each of them.
        options: What training asks of the pixels; `None` for display values.
        masks: Of `index`: their labels are drawn in colours, on frames that have a plane of an object, and on those of
            series without any.

    Raises:
        MissingDependencyError: matplotlib or Pillow is not installed.
        SourceError: There is no frame, or none of those chosen can be read.
        OptionError: The suffix of `path` is unknown, or `count` is less than 1.
    """
    if count < 1:
        raise OptionError(f"count must be 1 or more; got {count}")
    if not len(index):
        raise SourceError("there is no frame to draw; `dicomtorch scan` says what is there")
    options = options or PixelOptions()
    reader = FrameReader(index, options=options)
    result = Preview()
    images: list[npt.NDArray[Any]] = []
    captions: list[str] = []
    values: list[npt.NDArray[Any]] = []
    among = np.arange(len(index))
    if masks is not None:
        among = np.flatnonzero(masks.covered() | ~masks.labelled())
    for position in among[spread(index.select(among), count)].tolist():
        try:
            image, drawn = _drawn(reader, masks, position)
        except DicomTorchError as error:
            result.failures.append((position, str(error.__cause__ or error)))
            continue
        flat = image.reshape(-1)
        values.append(flat[:: -(-len(flat) // _VALUES_PER_FRAME)])
        images.append(drawn)
        captions.append(_caption(index, position))
        result.positions.append(position)
    if not images:
        raise SourceError(f"none of the frames chosen can be drawn ({result.failures[0][1]})")
    sheet = plot.contact_sheet(images, captions, columns=_COLUMNS, tile=_TILE)
    picture = _with_histogram(sheet, np.concatenate(values), _UNITS.get(options.values, ""))
    plot.write(path, lambda file, kind: picture.save(file, format=kind))
    return result


def masks_to_look_at(index: FrameIndex) -> tuple[FrameIndex, MaskIndex]:
    """(the frames that are no masks, the masks of SEG and RTSTRUCT beside them), as leniently as may be.

    Raises:
        DicomTorchError: An object is damaged.
    """
    images = without_masks(index)
    return images, MaskIndex(images, index, choose="all", between="nearest", resample="nearest")


def _drawn(
    reader: FrameReader, masks: MaskIndex | None, position: int
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """(a frame, what is drawn of it)."""
    (frame,) = reader.read_many([position])
    if isinstance(frame, DicomTorchError):
        raise frame
    image = frame.image.numpy()
    if masks is None or not masks.is_covered(position):
        return image, image
    mask, _ = masks.mask(position, "channels")
    gray = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    return image, overlaid(gray, mask)


def spread(index: FrameIndex, count: int) -> list[int]:
    """At most `count` positions: the same number of every series as far as it has them, evenly spaced."""
    series = np.asarray(index.column("SeriesInstanceUID").codes)
    order = np.argsort(series, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(series[order])) + 1)
    if len(groups) > count:
        groups = [groups[k] for k in _even(len(groups), count)]
    shares = [0] * len(groups)
    # Small series first: what they leave goes to the larger ones.
    left = count
    for rank, k in enumerate(sorted(range(len(groups)), key=lambda k: len(groups[k]))):
        shares[k] = min(len(groups[k]), left // (len(groups) - rank))
        left -= shares[k]
    chosen = [
        int(group[k])
        for group, share in zip(groups, shares, strict=True)
        for k in _even(len(group), share)
    ]
    return sorted(chosen)


def _even(length: int, count: int) -> Iterator[int]:
    """`count` numbers below `length`, evenly spaced; a single one is from the middle."""
    return ((2 * k + 1) * length // (2 * count) for k in range(count))


def _caption(index: FrameIndex, position: int) -> str:
    at = np.array([position])
    names = ("Modality", "Rows", "Columns")
    modality, rows, columns = (index.gather(name, at)[0] for name in names)
    return f"{position}: {shown('Modality', modality) or '-'}, {rows} x {columns}"


def _with_histogram(sheet: Image, values: npt.NDArray[Any], units: str) -> Image:
    """The sheet with a histogram as wide as it below."""
    pillow = import_optional("PIL.Image", "view")
    pyplot = import_optional("matplotlib.pyplot", "view")
    figure = plot.histogram(values, units=units)
    try:
        figure.axes[0].set_yscale("log")  # the background would hide the rest
        width = max(sheet.width, 4 * _TILE)
        figure.set_size_inches(width / figure.dpi, _HISTOGRAM_HEIGHT / figure.dpi)
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png")
    finally:
        pyplot.close(figure)
    below = pillow.open(drawn).convert("RGB")
    whole: Image = pillow.new("RGB", (width, sheet.height + below.height), (32, 32, 32))
    whole.paste(sheet, (0, 0))
    whole.paste(below, (0, sheet.height))
    return whole
