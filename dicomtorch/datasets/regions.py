"""Parts of the total pixel matrix of a level, put together from the tiles that they touch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dicomtorch.backends.base import Backend
from dicomtorch.errors import DicomTorchError, PixelValueError
from dicomtorch.index.location import FrameLocation
from dicomtorch.model.frame import AppliedVOI
from dicomtorch.model.image import ImagePixel
from dicomtorch.reader.open_files import KeptFiles, OpenFiles
from dicomtorch.reader.reader import Frame, FrameReader
from dicomtorch.reader.threads import FEW, worthwhile_threads
from dicomtorch.series.levels import SlideLevel

_TRUE = torch.ones((), dtype=torch.bool)
_MOST_LOCATED = 1 << 14  # frames whose place is remembered
_MOST_DECODERS = 256
_NO_VOI = AppliedVOI()
_LARGE = 1 << 20  # pixels of a frame that may be decoded by several threads


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
    if (box.rows, box.columns) == level.tile and not (box.row % height or box.column % width):
        found = _stored(box)
        if found is not None:
            return found
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


def _stored(box: Box) -> Patches | None:
    """The same of a box that may be a stored tile; `None` if it is none that lies inside of the matrix."""
    position = stored_tile(box)
    if position == ABSENT:
        return Patches([], False)
    whole = (slice(0, box.rows), slice(0, box.columns))
    return None if position < 0 else Patches([Patch(position, whole, whole)], True)


ABSENT, NO_TILE = -1, -2


def stored_tile(box: Box) -> int:
    """The frame that a box of a tile is, `ABSENT` if it is not in the file, `NO_TILE` if not all of it is one frame."""
    level, row, column = box.level, box.row, box.column
    inside = row >= 0 and column >= 0 and row + box.rows <= level.rows
    if not (inside and column + box.columns <= level.columns and level.is_aligned):
        return NO_TILE
    return max(ABSENT, level.grid.item(row // box.rows, column // box.columns))


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


@lru_cache(maxsize=64)
def whole_mask(rows: int, columns: int) -> Tensor:
    """(rows, columns) of True; one element, so that nobody can change it."""
    return _TRUE.expand(rows, columns)


def mask_of(box: Box, found: Patches) -> Tensor:
    """(rows, columns), bool: which pixels of a box are there."""
    if found.is_whole:
        return whole_mask(box.rows, box.columns)
    return torch.from_numpy(_mask(box, found.patches))


def _mask(box: Box, patches: Sequence[Patch]) -> npt.NDArray[np.bool_]:
    mask = np.zeros((box.rows, box.columns), np.bool_)
    for patch in patches:
        mask[patch.of_box] = True
    return mask


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
    """Reads boxes of levels: each frame is decoded once and goes into all boxes that touch it.

    Args:
        reader: Of the frames.
    """

    def __init__(self, reader: FrameReader) -> None:
        self.reader = reader
        options = reader.options
        # Then stored values go to where they belong without a tensor for each frame.
        self._copies = (
            options.values == "stored"
            and options.padding == "keep"
            and reader.dtype != torch.bfloat16
        )
        self._located: dict[int, FrameLocation] = {}
        self._decoders: dict[tuple[int, tuple[int, ...] | None], _Decoder] = {}
        self._dtype = _raw(torch.empty(0, dtype=reader.dtype)).dtype

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
        results: list[Frame | DicomTorchError] = [Frame(image, _NO_VOI) for image in out]
        targets = [_raw(image) for image in out]
        uses: dict[int, list[tuple[int, Patch]]] = {}
        for k, each in enumerate(found):
            if not each.is_whole:
                targets[k][:] = _raw(fill[k])
            for patch in each.patches:
                uses.setdefault(patch.position, []).append((k, patch))
        located = self._locate(sorted(uses))

        def work(n: int, files: OpenFiles) -> None:
            position = located[n].position
            used = uses[position]
            frame = self._frame(located[n], files, _memory(targets, used))
            for k, patch in used:
                if isinstance(frame, DicomTorchError):
                    results[k] = frame
                    continue
                image, voi, is_there = frame
                if len(image) != len(targets[k]):
                    results[k] = self._of_other_channels(position, len(targets[k]))
                    continue
                if not is_there:
                    (rows, columns), (of_rows, of_columns) = patch.of_box, patch.of_frame
                    targets[k][:, rows, columns] = image[:, of_rows, of_columns]
                if voi is not _NO_VOI and isinstance(results[k], Frame):
                    results[k] = Frame(out[k], voi)

        fetcher = self.reader.fetcher
        if self._are_quick(located):
            with KeptFiles(fetcher.index, fetcher.storage) as files:
                for n in range(len(located)):
                    work(n, files)
            return results
        # Of tiles that overlap the later one is above, so they are read one after the other.
        apart = all(box.level.is_aligned for box in boxes)
        fetcher.each(located, work, None if apart else 1)
        return results

    def _are_quick(self, located: Sequence[FrameLocation]) -> bool:
        """Whether frames take less than it takes to open their file again, or to wake up a thread."""
        fetcher = self.reader.fetcher
        if fetcher.is_remote or len(located) > FEW:
            return False
        pixels = [fetcher.index.image_pixel(where.position) for where in located]
        small = all(pixel.rows * pixel.columns < _LARGE for pixel in pixels)
        return small and worthwhile_threads(pixels) == 1

    def tile(self, box: Box, position: int, out: npt.NDArray[Any]) -> bool:
        """Reads a box that is one stored frame.

        Args:
            box: Of a tile.
            position: Of its frame.
            out: (rows, columns, C), as decoders write.

        Returns:
            Whether it did: `False` if that takes more than to decode the frame into `out`.

        Raises:
            DicomTorchError: The frame cannot be read.
        """
        height, width = box.level.tile
        if not self._copies or height * width >= _LARGE:
            return False
        where = self._located.get(position) or self._locate([position])[0]
        fetcher, target = self.reader.fetcher, out if out.shape[2] > 1 else out[:, :, 0]
        try:
            pixel, backend, fits = self._decoder(where, target)
            files = KeptFiles(fetcher.index, fetcher.storage)
            try:
                stored = fetcher.stored(where, files, pixel, backend, target if fits else None)
            finally:
                files.close()
        except DicomTorchError as error:
            raise fetcher.named(error, position) from error
        if stored is not target:
            if (stored.shape, stored.dtype) != (target.shape, target.dtype):
                return False
            target[...] = stored
        return True

    def _decoder(self, where: FrameLocation, target: npt.NDArray[Any] | None) -> _Decoder:
        """How the frames of a kind are decoded into arrays of a shape; remembered, as `_locate` does."""
        key = where.value_group, None if target is None else target.shape
        known = self._decoders.get(key)
        if known is not None:
            return known
        recipe = self.reader.recipe(where)
        pixel = recipe.values.pixel
        found = _Decoder(pixel, recipe.backend, target is not None and _fits(target, pixel))
        if len(self._decoders) >= _MOST_DECODERS:
            self._decoders.clear()
        self._decoders[key] = found
        return found

    def _locate(self, positions: list[int]) -> list[FrameLocation]:
        """As `index.locate`, which takes as long as all else does around the decoding of a tile."""
        known = self._located
        if new := [position for position in positions if position not in known]:
            if len(known) + len(new) > _MOST_LOCATED:
                known = self._located = {}
                new = positions
            known.update(zip(new, self.reader.index.locate(new), strict=True))
        return [known[position] for position in positions]

    def __getstate__(self) -> FrameReader:
        return self.reader

    def __setstate__(self, reader: FrameReader) -> None:
        self.__init__(reader)  # type: ignore[misc]

    def _frame(
        self, where: FrameLocation, files: OpenFiles, out: npt.NDArray[Any] | None
    ) -> _Read | DicomTorchError:
        """One frame: in `out`, in memory of this thread that the next one overwrites, or in memory of its own."""
        reader = self.reader
        if self._copies:
            try:
                pixel, backend, fits = self._decoder(where, out)
                stored = reader.fetcher.stored(where, files, pixel, backend, out if fits else None)
            except DicomTorchError as error:
                return reader.fetcher.named(error, where.position)
            if stored.dtype == self._dtype or np.can_cast(stored.dtype, self._dtype):
                image = stored[None] if stored.ndim == 2 else stored.transpose(2, 0, 1)
                there = out is not None and (stored is out or stored.base is out)
                return _Read(image, _NO_VOI, there)
        (frame,) = reader.read_many([where.position], num_threads=1)
        return _Read(_raw(frame.image), frame.voi) if isinstance(frame, Frame) else frame

    def _of_other_channels(self, position: int, channels: int) -> DicomTorchError:
        return self.reader.fetcher.named(
            PixelValueError(
                f"it has {self.reader.shape(position)[0]} channels, other tiles of its level {channels}; "
                'use values="display" with color="rgb" or "gray"'
            ),
            position,
        )


class _Decoder(NamedTuple):
    """How frames are decoded, and whether that may write into the array they are for."""

    pixel: ImagePixel
    backend: Backend
    fits: bool


class _Read(NamedTuple):
    """(C, rows, columns), how they were made display values, and whether they lie where they belong."""

    image: npt.NDArray[Any]
    voi: AppliedVOI
    is_there: bool = False


def _memory(
    targets: Sequence[npt.NDArray[Any]], used: Sequence[tuple[int, Patch]]
) -> npt.NDArray[Any] | None:
    """What a frame can be decoded straight into: a box that is all of it and lies in memory as decoders write."""
    k, patch = used[0]
    target = targets[k]
    whole = tuple(slice(0, n) for n in target.shape[1:])
    if len(used) > 1 or patch.of_frame != whole or patch.of_box != whole:
        return None
    picture = target[0] if len(target) == 1 else target.transpose(1, 2, 0)
    return picture if picture.flags.c_contiguous else None


def _fits(out: npt.NDArray[Any], pixel: ImagePixel) -> bool:
    """Whether a decoder may write a frame there."""
    as_decoded = out.shape == pixel.shape and out.dtype == pixel.stored_dtype
    return pixel.is_encapsulated and as_decoded


def box_of_tile(level: SlideLevel, row: int, column: int) -> Box:
    """The box of a stored tile: as large as all others, also where the total pixel matrix ends before."""
    height, width = level.tile
    return Box(level, row * height, column * width, height, width)


def frames_of(boxes: Sequence[Box]) -> list[int]:
    """The frames that boxes touch, each once."""
    return list(dict.fromkeys(p.position for box in boxes for p in patches_of(box).patches))
