"""Parts of the total pixel matrix of a level, put together from the tiles that they touch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dicomtorch.errors import DicomTorchError, PixelValueError
from dicomtorch.model.frame import AppliedVOI
from dicomtorch.reader.reader import Frame, FrameReader
from dicomtorch.series.levels import SlideLevel

_MOST_AT_ONCE = 64 << 20  # bytes of decoded tiles


class Box(NamedTuple):
    """A part of a level, in pixels; it may reach beyond the total pixel matrix."""

    level: SlideLevel
    row: int
    column: int
    rows: int
    columns: int


class Patch(NamedTuple):
    """What one frame has of a box.

    Attributes:
        position: Of the frame, in the index.
        of_frame: Its rows and columns.
        of_box: Those of the box where they go.
    """

    position: int
    of_frame: tuple[slice, slice]
    of_box: tuple[slice, slice]


class Patches(NamedTuple):
    """What there is of a box.

    Attributes:
        patches: In the order in which they are laid over each other.
        is_whole: Whether they cover the box.
    """

    patches: list[Patch]
    is_whole: bool


def patches_of(box: Box) -> Patches:
    """Which frames a box is put together from; what is beyond the total pixel matrix belongs to none."""
    level, (height, width) = box.level, box.level.tile
    top, left = max(box.row, 0), max(box.column, 0)
    bottom, right = (
        min(box.row + box.rows, level.rows),
        min(box.column + box.columns, level.columns),
    )
    if top >= bottom or left >= right:
        return Patches([], False)
    patches = []
    for position, row, column in _frames_in(level, top, left, bottom, right):
        a, b = max(row, top), min(row + height, bottom)
        c, d = max(column, left), min(column + width, right)
        patches.append(
            Patch(
                position,
                (slice(a - row, b - row), slice(c - column, d - column)),
                (slice(a - box.row, b - box.row), slice(c - box.column, d - box.column)),
            )
        )
    if not level.is_aligned:
        return Patches(patches, bool(_mask(box, patches).all()))
    covered = sum(
        (p.of_box[0].stop - p.of_box[0].start) * (p.of_box[1].stop - p.of_box[1].start)
        for p in patches
    )
    return Patches(patches, covered == box.rows * box.columns)


def _frames_in(
    level: SlideLevel, top: int, left: int, bottom: int, right: int
) -> Iterator[tuple[int, int, int]]:
    """Position, first row and first column of the frames in a part of a level."""
    height, width = level.tile
    if not level.is_aligned:
        numbers = level.touching(top, left, bottom - top, right - left)
        corners, positions = level.corners[numbers].tolist(), level.positions[numbers].tolist()
        for position, (row, column) in zip(positions, corners, strict=True):
            yield position, row, column
        return
    first, across = top // height, left // width
    grid = level.grid[first : -(-bottom // height), across : -(-right // width)].tolist()
    for row, line in enumerate(grid, first):
        for column, position in enumerate(line, across):
            if position >= 0:
                yield position, row * height, column * width


def mask_of(box: Box, found: Patches) -> Tensor:
    """(rows, columns), bool: which pixels of a box are there."""
    if found.is_whole:
        return torch.from_numpy(np.ones((box.rows, box.columns), np.bool_))
    return torch.from_numpy(_mask(box, found.patches))


def _mask(box: Box, patches: Sequence[Patch]) -> npt.NDArray[np.bool_]:
    mask = np.zeros((box.rows, box.columns), np.bool_)
    for patch in patches:
        mask[patch.of_box] = True
    return mask


def is_frame(box: Box, found: Patches) -> bool:
    """Whether a box is one stored tile; of one at the edge a part may be beyond the total pixel matrix."""
    if len(found.patches) != 1 or (box.rows, box.columns) != box.level.tile:
        return False
    patch = found.patches[0]
    return all(a.start == b.start == 0 for a, b in zip(patch.of_frame, patch.of_box, strict=True))


def fill_beyond(found: Patches, image: Tensor, fill: Tensor) -> None:
    """Fills what is below and right of the one patch of an image (C, rows, columns)."""
    if not found.is_whole:
        rows, columns = found.patches[0].of_box
        target, value = _raw(image), _raw(fill)
        target[:, rows.stop :] = value
        target[:, : rows.stop, columns.stop :] = value


def _raw(image: Tensor) -> npt.NDArray[Any]:
    """The same memory for NumPy: torch would wake threads for a copy of a tile, which costs more than the copy."""
    return (image.view(torch.int16) if image.dtype == torch.bfloat16 else image).numpy()


class RegionReader:
    """Reads boxes of levels.

    Frames that several boxes touch are decoded once, where the boxes lie near each other.

    Args:
        reader: Of the frames.
    """

    def __init__(self, reader: FrameReader) -> None:
        self.reader = reader

    def read(
        self,
        boxes: Sequence[Box],
        found: Sequence[Patches],
        out: Sequence[Tensor],
        fill: Sequence[Tensor],
    ) -> list[Frame | DicomTorchError]:
        """Fills a tensor for each box.

        Args:
            boxes: Parts of levels.
            found: What there is of each.
            out: For each (C, rows, columns).
            fill: For each (C, 1, 1), what pixels are that are not there.

        Returns:
            For each box its tensor, or what is wrong with a frame of it.
        """
        results: list[Frame | DicomTorchError] = [Frame(image, AppliedVOI()) for image in out]
        for part in self._parts(boxes, found):
            positions = list(dict.fromkeys(p.position for k in part for p in found[k].patches))
            if len(part) == 1 and is_frame(boxes[part[0]], found[part[0]]):
                (k,) = part
                (results[k],) = self.reader.read_many(positions, out[k][None])
                fill_beyond(found[k], out[k], fill[k])
                continue
            frames = dict(zip(positions, self._frames(positions), strict=True))
            for k in part:
                results[k] = self._put_together(found[k], frames, out[k], fill[k])
        return results

    def _put_together(
        self,
        found: Patches,
        frames: Mapping[int, Frame | DicomTorchError],
        out: Tensor,
        fill: Tensor,
    ) -> Frame | DicomTorchError:
        target, voi = _raw(out), AppliedVOI()
        if not found.is_whole:
            target[:] = _raw(fill)
        for patch in found.patches:
            frame = frames[patch.position]
            if isinstance(frame, DicomTorchError):
                return frame
            if len(frame.image) != len(out):
                return self._of_other_channels(patch.position, len(out))
            target[(slice(None), *patch.of_box)] = _raw(frame.image)[(slice(None), *patch.of_frame)]
            voi = frame.voi
        return Frame(out, voi)

    def _frames(self, positions: Sequence[int]) -> list[Frame | DicomTorchError]:
        if not positions:
            return []
        try:
            shapes = self.reader.shapes(positions)
        except PixelValueError:
            shapes = set()
        batch = None
        if len(shapes) == 1:  # one piece of memory, as the compiled kernels want it
            batch = torch.empty((len(positions), *shapes.pop()), dtype=self.reader.dtype)
        return self.reader.read_many(positions, batch)

    def _parts(self, boxes: Sequence[Box], found: Sequence[Patches]) -> Iterator[list[int]]:
        """Numbers of boxes that are read together: neighbours, of no more frames than fit into memory."""
        if len(boxes) == 1:
            yield [0]
            return
        order = sorted(
            range(len(boxes)), key=lambda k: min((p.position for p in found[k].patches), default=-1)
        )
        part: list[int] = []
        seen: set[int] = set()
        for k in order:
            new = {patch.position for patch in found[k].patches}
            size = 3 * math.prod(boxes[k].level.tile) * self.reader.dtype.itemsize
            if part and len(seen | new) * size > _MOST_AT_ONCE:
                yield part
                part, seen = [], set()
            part.append(k)
            seen |= new
        if part:
            yield part

    def _of_other_channels(self, position: int, channels: int) -> DicomTorchError:
        return self.reader.fetcher.named(
            PixelValueError(
                f"it has {self.reader.shape(position)[0]} channels, other tiles of its level {channels}; "
                'use color="rgb" or "gray"'
            ),
            position,
        )


def box_of_tile(level: SlideLevel, row: int, column: int) -> Box:
    """The box of a stored tile: as large as all others, also where the total pixel matrix ends before."""
    height, width = level.tile
    return Box(level, row * height, column * width, height, width)


def frames_of(boxes: Sequence[Box]) -> list[int]:
    """The frames that boxes touch, each once."""
    return list(dict.fromkeys(p.position for box in boxes for p in patches_of(box).patches))
