"""Where a slide has tissue: a mask on its coarsest level, and the share of each place that it covers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dicomtorch.datasets.glass import fill_of
from dicomtorch.datasets.labelling import open_masks
from dicomtorch.datasets.options import ReadPolicy
from dicomtorch.datasets.regions import Box, RegionReader, patches_of
from dicomtorch.errors import DicomTorchError, OptionError, printable
from dicomtorch.masks.mask_index import MaskIndex
from dicomtorch.model.options import PixelOptions
from dicomtorch.reader.reader import FrameReader
from dicomtorch.series.geometry import Floats, Ints
from dicomtorch.series.levels import SlideLevel

Bools = npt.NDArray[np.bool_]
Thumbnail = npt.NDArray[np.float32]
FindTissue = Callable[[Thumbnail], Any]
TissueMask = Any
"""The option: "otsu", a function of a thumbnail, or what `masks=` takes."""

_SMALLEST = (
    256  # pixels of the longer side of a level that tissue is looked for on, if there are so many
)
_LONGEST = 2048  # pixels of the longer side of a thumbnail
_LEAST_SATURATION = 0.05


def tissue_level(levels: Sequence[SlideLevel]) -> SlideLevel:
    """The coarsest level, or a finer one where that is a stamp."""
    large = [level for level in levels if max(level.rows, level.columns) >= _SMALLEST]
    return large[-1] if large else levels[0]


def thumbnail(level: SlideLevel, reader: FrameReader, longest: int = _LONGEST) -> Thumbnail:
    """(rows, columns, C), display values in [0, 1] of a whole level, or means of square blocks of its pixels.

    Args:
        level: Of a slide.
        reader: Of display values.
        longest: Most pixels of the longer side.

    Raises:
        DicomTorchError: A tile cannot be read.
    """
    factor = -(-max(level.rows, level.columns) // longest)
    fill = fill_of("background", reader, level)
    regions = RegionReader(reader)
    step = max(factor, level.tile[0] // factor * factor)
    strips = []
    for row in range(0, level.rows, step):
        box = Box(level, row, 0, min(step, level.rows - row), level.columns)
        image = fill.new_empty((len(fill), box.rows, box.columns))
        (found,) = regions.read([box], [patches_of(box)], [image], [fill])
        if isinstance(found, DicomTorchError):
            raise found
        strips.append(_block_means(image.numpy(), factor))
    return np.ascontiguousarray(np.moveaxis(np.concatenate(strips, axis=1), 0, -1))


def _block_means(image: npt.NDArray[Any], factor: int) -> npt.NDArray[Any]:
    """Means of blocks of (C, rows, columns); those at the ends are of what there is."""
    if factor == 1:
        return image
    for axis in (1, 2):
        begins = np.arange(0, image.shape[axis], factor)
        sizes = np.diff(begins, append=image.shape[axis])
        shape = [1, 1, 1]
        shape[axis] = -1
        image = np.add.reduceat(image, begins, axis=axis) / sizes.reshape(shape)
    return np.asarray(image, np.float32)


def otsu_tissue(picture: Thumbnail) -> Bools:
    """Tissue in a thumbnail: what is more saturated than Otsu's threshold, and than 0.05; in gray, what is brighter.

    Args:
        picture: (rows, columns, 1 or 3), in [0, 1].

    Returns:
        (rows, columns).
    """
    if picture.shape[-1] == 1:  # light on a dark ground
        values, least = picture[..., 0], 0.0
    else:
        high, low = picture.max(axis=-1), picture.min(axis=-1)
        values, least = (high - low) / np.maximum(high, 1 / 255), _LEAST_SATURATION
    return np.asarray(values > max(_otsu(values), least))


def _otsu(values: npt.NDArray[Any]) -> float:
    """The threshold that parts a histogram into two classes with the most variance between them."""
    counts, edges = np.histogram(values, 256, (0.0, 1.0))
    centers = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * centers)
    with np.errstate(invalid="ignore", divide="ignore"):
        apart = sums / below - (sums[-1] - sums) / above
    between = np.where((below > 0) & (above > 0), below * above * apart**2, 0)
    return float(edges[1 + int(np.argmax(between))])


def found_tissue(find: FindTissue, picture: Thumbnail) -> Bools:
    """What a function finds in a thumbnail.

    Raises:
        OptionError: It gives something else than a mask of the same size.
    """
    mask = np.asarray(find(picture))
    if mask.shape != picture.shape[:2]:
        raise OptionError(
            f"tissue_mask got a thumbnail of shape {picture.shape} and must return one truth value for each pixel, "
            f"{picture.shape[:2]}; it returned {mask.shape}"
        )
    return mask.astype(np.bool_)


def shares(mask: Floats, level: SlideLevel, corners: Ints, rows: float, columns: float) -> Floats:
    """(n,), the share of boxes of a level that a mask covers, of what is inside the total pixel matrix.

    Args:
        mask: Of the whole slide, in whatever resolution: 1 where there is tissue, parts of 1 where a pixel is partly.
        level: Whose pixels boxes are in.
        corners: (n, 2), first row and column of each box.
        rows: Of each box.
        columns: See `rows`.
    """
    sums = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1))
    sums[1:, 1:] = mask.cumsum(0).cumsum(1)
    size = np.array([level.rows, level.columns])
    low = corners.clip(0, size)
    high = np.minimum(corners + np.array([rows, columns]), size)
    scale = np.array(mask.shape) / size
    (top, left), (bottom, right) = (low * scale).T, (high * scale).T
    covered = (
        _at(sums, bottom, right)
        - _at(sums, top, right)
        - _at(sums, bottom, left)
        + _at(sums, top, left)
    )
    area = (bottom - top) * (right - left)
    return np.asarray((covered / np.maximum(area, 1e-12)).clip(0, 1))


def _at(sums: Floats, rows: Floats, columns: Floats) -> Floats:
    """A table of sums between its points: exact, as pixels of the mask are squares of one value."""
    r = np.minimum(rows.astype(np.int64), sums.shape[0] - 2)
    c = np.minimum(columns.astype(np.int64), sums.shape[1] - 2)
    y, x = rows - r, columns - c
    upper = sums[r, c] * (1 - x) + sums[r, c + 1] * x
    lower = sums[r + 1, c] * (1 - x) + sums[r + 1, c + 1] * x
    return np.asarray(upper * (1 - y) + lower * y)


def is_share(value: Any) -> bool:
    """Whether an option is a number from 0 to 1."""
    numeric = isinstance(value, int | float | np.integer | np.floating)
    return numeric and not isinstance(value, bool) and math.isfinite(value) and 0 <= value <= 1


class TissueFinder:
    """Says which share of places on slides is tissue.

    Args:
        reader: Of the frames of the slides.
        given: "otsu", a function of a thumbnail (rows, columns, C) in [0, 1] that returns a mask, or segmentations: as
            `masks=` of `DicomFrames`.
        policy: For segmentations that are still to be found.

    Raises:
        OptionError: It is nothing of these.
    """

    def __init__(self, reader: FrameReader, given: Any, policy: ReadPolicy) -> None:
        self._reader = reader.with_options(PixelOptions(values="display"))
        self._masks: MaskIndex | None = None
        self._find: FindTissue = otsu_tissue
        if callable(given):
            self._find = given
        elif not (isinstance(given, str) and given == "otsu"):
            self._masks = open_masks(reader.index, policy, {"masks": given})

    def shares(
        self, levels: Sequence[SlideLevel], at: SlideLevel, corners: Ints, rows: int, columns: int
    ) -> Floats:
        """(n,), the share of tissue in boxes of one level of a slide; see the function `shares`.

        Raises:
            DicomTorchError: The tiles that tell it cannot be read.
            OptionError: No segmentation has anything to say of the slide.
        """
        if self._masks is not None:
            mask = _segmented(levels, self._masks)
        else:
            picture = thumbnail(tissue_level(levels), self._reader)
            mask = found_tissue(self._find, picture).astype(np.float64)
        return shares(mask, at, corners, rows, columns)


def _segmented(levels: Sequence[SlideLevel], masks: MaskIndex) -> Floats:
    """The share of each block of pixels that segmentations cover, on the coarsest level that they have frames of."""
    covered = masks.covered()
    for level in reversed(levels):
        there = np.flatnonzero(covered[level.positions])
        if len(there):
            break
    else:
        path = printable(levels[0].index.path(int(levels[0].positions[0])))
        raise OptionError(
            f"tissue_mask: no segmentation lies on a level of the slide of {path}; give a function for such slides"
        )
    factor = -(-max(level.rows, level.columns) // _LONGEST)
    sums = np.zeros((-(-level.rows // factor), -(-level.columns // factor)))
    for k in there.tolist():
        mask, _ = masks.mask(int(level.positions[k]), "labels")
        row, column = level.corners[k].tolist()
        inside = mask[0, : level.rows - row, : level.columns - column] > 0
        part = _block_sums(inside, row, column, factor)
        down, across = row // factor, column // factor
        sums[down : down + part.shape[0], across : across + part.shape[1]] += part
    areas = _block_sums(np.ones((level.rows, 1)), 0, 0, factor) * _block_sums(
        np.ones((1, level.columns)), 0, 0, factor
    )
    return np.asarray((sums / areas).clip(0, 1))


def _block_sums(mask: npt.NDArray[Any], row: int, column: int, factor: int) -> Floats:
    """Sums of the blocks of a matrix that a part of it, which begins at a row and a column, has pixels of."""
    result = mask.astype(np.float64)
    for axis, first in ((0, row), (1, column)):
        begins = np.arange(first // factor, (first + mask.shape[axis] - 1) // factor + 1) * factor
        result = np.add.reduceat(result, np.maximum(begins - first, 0), axis=axis)
    return result
