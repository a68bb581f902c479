"""`DicomTiles`: squares of slides as a `torch.utils.data.Dataset`."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from typing import Any, Literal, Unpack, overload

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dicomtorch.batches.metadata import MetaColumns
from dicomtorch.datasets.glass import fill_of
from dicomtorch.datasets.images import ImageDataset
from dicomtorch.datasets.kinds import Batch_co, Pair, PairBatch, Sample_co, Triple, TripleBatch
from dicomtorch.datasets.masked import Mask
from dicomtorch.datasets.options import ReadOptions, UntransformedReading, check_names
from dicomtorch.datasets.places import Places, Sampling, placed, sampling
from dicomtorch.datasets.regions import (
    Box,
    RegionReader,
    fill_beyond,
    frames_of,
    patches_of,
)
from dicomtorch.datasets.slides import Slide, level_of, one_integer, only_tiles, slide_options
from dicomtorch.datasets.source import FrameSource, Given
from dicomtorch.datasets.tissue import TissueFinder, TissueMask, is_share
from dicomtorch.errors import (
    DicomTorchError,
    GeometryError,
    OptionError,
    PixelValueError,
    format_count,
    have,
)
from dicomtorch.index.columns import Table
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.index.joins import Joined
from dicomtorch.model.frame import AppliedVOI
from dicomtorch.model.schema import Column, Kind
from dicomtorch.pixels.resize import resize_nearest
from dicomtorch.reader.reader import Frame
from dicomtorch.series.geometry import Floats, Ints
from dicomtorch.series.pyramids import pyramids

_logger = logging.getLogger("dicomtorch")

Size = int | tuple[int, int]
Absent = Literal["drop", "keep"]

_SAME_MPP = (
    0.05  # a level is read as it is if its pixels are as large as asked for, but for this part
)

_COLUMNS: dict[str, Kind] = {
    "slide": "int32",
    "level": "int32",
    "row": "int32",
    "column": "int32",
    "coverage": "float64",
    "tissue": "float64",
}
"""What `index` of the dataset has beside the columns of frames."""


class DicomTiles(ImageDataset[Sample_co, Batch_co]):
    """Tiles of slides at one resolution: (C, rows, columns), each with where it is on which slide.

    A place that is a stored tile is decoded straight into the batch; others are put together from the tiles that they
    touch, of which neighbours in a batch share the decoded ones. So prefer the stored size, and a level that is there.

    `meta` is that of the stored tile that holds the first pixel, with `index` counting tiles of this dataset; and
    `slide` (its number in `slides`), `level`, `row` and `column` (its first pixel on that level, from 0), `mpp`
    (micrometres per pixel of the tile), `x_mm` and `y_mm` (its centre in the Slide Coordinate System), `coverage` (the
    share of its pixels that are there, not filled), `inside` (rows and columns of it that are inside the total pixel
    matrix) and `tissue` (the share of tissue, nan where nobody looked). What is not there is filled with the
    Recommended Absent Pixel CIELab Value, or white in colour and dark in gray.

    `index` has a row for each tile, with the columns `slide`, `level`, `row`, `column`, `coverage` and `tissue`:
    samplers and `find` take them. Split slides, not tiles: `DicomTiles(part)` for each of `slides.index.split(...)`.

    Sources: PS3.3 C.7.6.17.3 and C.8.12.14 (tiles).

    Args:
        source: `DicomSlides`, or as in `DicomFrames`.
        tile: Rows and columns of a tile, or one number for both.
        mpp: Micrometres per pixel: the coarsest level that is not coarser is read, and made smaller if its pixels are
            more than 5 % smaller. `None`: the level says it.
        level: In place of `mpp`: the number of a level, 0 the finest, negative ones from the coarsest.
        stride: From tile to tile, in pixels of tiles, as `tile`; `None`: side by side.
        tissue: The least share of tissue, 0 to 1; `None`: all tiles, and nobody looks for tissue.
        tissue_mask: What is tissue. "otsu": what is more saturated than Otsu's threshold, on the coarsest level. A
            function of a thumbnail of it, (rows, columns, C) in [0, 1], that returns a mask. Or segmentations of any
            level, all of whose labels are tissue: as `masks=`.
        absent: Tiles of which nothing is there: "drop" or "keep".
        **options: Those of `DicomFrames` but `size` and `decode`; `values` is "stored" where nothing else is said.
            `masks=True` gives samples the SEG on the same level.

    Attributes:
        slides: The slides; `slide` in `meta` is a position in it.

    Raises:
        SourceError: There is nothing at `source`, or no slide in it.
        GeometryError: A slide has no such level, or no tile is left.
        OptionError: An option means nothing, alone or with another.

    Example:
        >>> tiles = DicomTiles("slides/", 256, mpp=0.5, tissue=0.5)              # doctest: +SKIP
        >>> images, meta = next(iter(FrameLoader(tiles, 64, shuffle=True)))      # doctest: +SKIP
    """

    sample_name = "tile"

    @overload
    def __init__(
        self: DicomTiles[Pair, PairBatch],
        source: Given,
        tile: Size = ...,
        *,
        mpp: float | None = ...,
        level: int | None = ...,
        stride: Size | None = ...,
        tissue: float | None = ...,
        tissue_mask: TissueMask = ...,
        absent: Absent = ...,
        masks: Literal[False] | None = None,
        **options: Unpack[UntransformedReading],
    ) -> None: ...
    @overload
    def __init__(
        self: DicomTiles[Triple, TripleBatch],
        source: Given,
        tile: Size = ...,
        *,
        mpp: float | None = ...,
        level: int | None = ...,
        stride: Size | None = ...,
        tissue: float | None = ...,
        tissue_mask: TissueMask = ...,
        absent: Absent = ...,
        masks: Any,
        **options: Unpack[UntransformedReading],
    ) -> None: ...
    @overload
    def __init__(
        self: DicomTiles[Any, Any],
        source: Given,
        tile: Size = ...,
        *,
        mpp: float | None = ...,
        level: int | None = ...,
        stride: Size | None = ...,
        tissue: float | None = ...,
        tissue_mask: TissueMask = ...,
        absent: Absent = ...,
        **options: Unpack[ReadOptions],
    ) -> None: ...
    def __init__(
        self,
        source: Given,
        tile: Size = 256,
        *,
        mpp: float | None = None,
        level: int | None = None,
        stride: Size | None = None,
        tissue: float | None = None,
        tissue_mask: TissueMask = "otsu",
        absent: Absent = "drop",
        **options: Unpack[ReadOptions],
    ) -> None:
        check_names(DicomTiles, options)
        self.tile = _size(tile, "tile")
        self.stride = self.tile if stride is None else _size(stride, "stride")
        if mpp is not None and level is not None:
            raise OptionError("give mpp= or level=, not both")
        if absent not in ("drop", "keep"):
            raise OptionError(f'absent must be "drop" or "keep"; got {absent!r}')
        if tissue is not None and not is_share(tissue):
            raise OptionError(f"tissue must be a share from 0 to 1, or None; got {tissue!r}")
        super().__init__(FrameSource(source, within=only_tiles, **slide_options(options)))
        frames = self._source
        reader = self._frame_reader = frames.reader
        self.slides = [Slide(k, each, frames) for k, each in enumerate(pyramids(reader.index))]
        self._samplings = [self._sampling(slide, mpp, level) for slide in self.slides]
        self._say_unaligned()
        self._check_masks()
        finder = None if tissue is None else TissueFinder(reader, tissue_mask, frames.policy)
        self._places = self._placed(finder, tissue, absent == "keep")
        self._index = self._of_tiles(frames.index)
        self._centers = self._on_glass()
        self._regions = RegionReader(reader)
        self._fills: dict[int, Tensor] = {}
        self._check_target()

    # Making the list

    def _sampling(self, slide: Slide, mpp: float | None, level: int | None) -> Sampling:
        """Which level of a slide is read, and how."""
        if mpp is None:
            return sampling(slide.level(0 if level is None else level), self.tile, self.stride, 1.0)
        found = level_of(slide.levels, mpp, False, f"slide {slide.number}")
        scale = mpp / found.mpp
        as_it_is = abs(scale - 1) <= _SAME_MPP
        return sampling(found, self.tile, self.stride, 1.0 if as_it_is else scale)

    def _say_unaligned(self) -> None:
        for part in self._samplings:
            if (part.rows, part.columns) == self.tile and not part.is_aligned():
                height, width = part.level.tile
                _logger.warning(
                    "tiles of %d x %d, %d x %d apart, are put together from stored tiles of %d x %d, which is slower "
                    "than reading stored ones (said once)",
                    *(*self.tile, *self.stride, height, width),
                )
                return

    def _check_masks(self) -> None:
        """Refuses levels without masks where others of the slide have some: theirs would all be empty."""
        if self._masks is None:
            return
        covered = self._masks.masks.covered()
        for slide, part in zip(self.slides, self._samplings, strict=True):
            there = [each.number for each in slide.levels if covered[each.positions].any()]
            if there and part.level.number not in there:
                raise OptionError(
                    f"the masks of slide {slide.number} are of level {', '.join(map(str, there))}, and tiles are read "
                    f"from level {part.level.number}; give level="
                )

    def _placed(self, finder: TissueFinder | None, least: float | None, keep: bool) -> Places:
        parts = [
            placed(slide, part, finder, least, keep)
            for slide, part in zip(self.slides, self._samplings, strict=True)
        ]
        places = Places(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
        if not len(places.slide):
            what = "" if least is None else f", of which {least:g} is tissue"
            raise GeometryError(
                f"{have(len(self.slides), 'slide')} no tile of {self.tile[0]} x {self.tile[1]} pixels{what}"
            )
        return places

    def _of_tiles(self, index: FrameIndex) -> FrameIndex:
        """The frames of the first pixels, with the columns of this dataset."""
        clashes = sorted(_COLUMNS.keys() & set(index.joined))
        if clashes:
            raise OptionError(
                f"the joined columns {', '.join(clashes)} have names that tiles use already; rename them"
            )
        table: Table = {name: getattr(self._places, name) for name in _COLUMNS}
        columns = tuple(Column(name, kind) for name, kind in _COLUMNS.items())
        rows = np.arange(len(self), dtype=np.int32)
        return index.select(self._places.frame).beside(Joined(rows, columns, table))

    def _on_glass(self) -> Floats:
        """(n, 2), x and y of the centre of each tile in millimetres, nan where the files do not say."""
        centers = np.full((len(self), 2), np.nan)
        numbers = np.arange(len(self.slides) + 1)
        bounds = np.searchsorted(self._places.slide, numbers).tolist()
        for k, part in enumerate(self._samplings):
            some = slice(bounds[k], bounds[k + 1])
            with contextlib.suppress(GeometryError):
                rows = self._places.row[some] + (part.rows - 1) / 2
                columns = self._places.column[some] + (part.columns - 1) / 2
                centers[some] = np.stack(part.level.to_slide(rows, columns), -1)
        return centers

    # What it holds

    def __len__(self) -> int:
        return len(self._places.slide)

    def __repr__(self) -> str:
        rows, columns = self.tile
        slides = format_count(len(self.slides), "slide")
        return f"DicomTiles({format_count(len(self), 'tile')} of {rows} x {columns} from {slides})"

    @property
    def index(self) -> FrameIndex:
        """A row for each tile: that of the stored tile of its first pixel, with the columns of this dataset."""
        return self._index

    def _matching(self, equals: dict[str, Any]) -> Ints:
        return np.flatnonzero(self.index.where(**equals))

    def _label_names(self) -> list[str]:
        return [name for name in super()._label_names() if name not in _COLUMNS]

    def _covers(self) -> Ints:
        chosen = np.unique(np.linspace(0, len(self) - 1, 32).astype(int))
        return np.asarray(self._places.frame[chosen])

    # Samples

    def _box(self, asked: int) -> Box:
        places = self._places
        part = self._samplings[int(places.slide[asked])]
        corner = int(places.row[asked]), int(places.column[asked])
        return Box(part.level, *corner, part.rows, part.columns)

    def _fill(self, asked: int) -> Tensor:
        """What is put where a tile has no pixels."""
        slide = int(self._places.slide[asked])
        fill = self._fills.get(slide)
        if fill is None:
            fill = fill_of("background", self._frame_reader, self._samplings[slide].level)
            self._fills[slide] = fill
        return fill

    def _shape(self, asked: int) -> tuple[int, ...]:
        channels = self._frame_reader.shape(int(self._places.frame[asked]))[0]
        return (channels, *self.tile)

    def _shapes(self, asked: Sequence[int]) -> set[tuple[int, ...]]:
        try:
            frames = self._places.frame[np.asarray(asked, np.int64)].tolist()
            return {(shape[0], *self.tile) for shape in self._frame_reader.shapes(frames)}
        except PixelValueError:
            return super()._shapes(asked)

    def _positions(self, asked: int) -> Sequence[int]:
        if self._places.whole[asked]:
            return (int(self._places.frame[asked]),)
        return frames_of([self._box(asked)]) or (int(self._places.frame[asked]),)

    def _read_many(
        self, asked: Sequence[int], batch: Tensor | None
    ) -> list[Frame | DicomTorchError]:
        at = np.asarray(asked, np.int64)
        if not self._places.whole[at].all():
            return self._put_together(asked, batch)
        results = self._frame_reader.read_many(self._places.frame[at].tolist(), batch)
        for k in np.flatnonzero(self._places.coverage[at] < 1).tolist():
            frame = results[k]
            if isinstance(frame, Frame):
                fill_beyond(patches_of(self._box(asked[k])), frame.image, self._fill(asked[k]))
        return results

    def _put_together(
        self, asked: Sequence[int], batch: Tensor | None
    ) -> list[Frame | DicomTorchError]:
        boxes = [self._box(k) for k in asked]
        dtype = self._frame_reader.dtype
        targets, images = [], []
        for k, box in enumerate(boxes):
            fill = self._fill(asked[k])
            image = torch.empty((len(fill), *self.tile), dtype=dtype)
            if batch is not None and batch.shape[1:] == image.shape:
                image = batch[k]
            size = (box.rows, box.columns)
            images.append(image)
            targets.append(image if size == self.tile else image.new_empty((len(fill), *size)))
        found = [patches_of(box) for box in boxes]
        results = self._regions.read(boxes, found, targets, [self._fill(k) for k in asked])
        for k, (target, image) in enumerate(zip(targets, images, strict=True)):
            frame = results[k]
            if target is not image and isinstance(frame, Frame):
                image.copy_(resized(target, self.tile))
                results[k] = Frame(image, frame.voi)
        return results

    def _columns(
        self,
        read: Sequence[int],
        applied: Sequence[AppliedVOI],
        asked: Sequence[int],
        *,
        listed: bool = False,
    ) -> MetaColumns:
        at, places = np.asarray(read, np.int64), self._places
        columns = self._source.columns(places.frame[at].tolist(), applied, asked, listed=listed)
        columns["index"] = at
        for name in _COLUMNS:
            columns[name] = getattr(places, name)[at]
        samplings = [self._samplings[k] for k in places.slide[at].tolist()]
        scale = np.array([part.rows / self.tile[0] for part in samplings])
        columns["mpp"] = scale * [part.level.mpp for part in samplings]
        columns["x_mm"], columns["y_mm"] = self._centers[at].T
        left = [[s.level.rows / s.rows, s.level.columns / s.columns] for s in samplings]
        begin = np.stack([places.row[at], places.column[at]], 1)
        size = np.array([[s.rows, s.columns] for s in samplings])
        inside = np.minimum(np.array(left) - begin / size, 1) * self.tile
        columns["inside"] = np.rint(inside).astype(np.int64)
        return columns

    def _mask(self, asked: int, out: Tensor) -> Mask:
        masks = self._masks
        assert masks is not None
        box = self._box(asked)
        found = patches_of(box)
        positions = [patch.position for patch in found.patches]
        if not positions:
            return masks.finished(out.zero_(), [int(self._places.frame[asked])], None)
        whole = np.zeros((len(out), box.rows, box.columns), out.numpy().dtype)
        for patch in found.patches:
            one = torch.empty((1, *masks.shape(patch.position)), dtype=out.dtype)
            masks.read([patch.position], one)
            whole[(slice(None), *patch.of_box)] = one[0].numpy()[(slice(None), *patch.of_frame)]
        out.numpy()[:] = resize_nearest(whole, self.tile)
        return masks.finished(out, positions, None)


def resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    """(C, rows, columns), bilinear and antialiased; whole numbers are rounded."""
    plain = image if image.dtype in (torch.uint8, torch.float32, torch.float64) else image.float()
    result = functional.interpolate(
        plain[None], size, mode="bilinear", align_corners=False, antialias=True
    )[0]
    return result if image.is_floating_point() or plain is image else result.round()


def _size(given: Any, name: str) -> tuple[int, int]:
    """Two numbers above 0.

    Raises:
        OptionError: It is something else.
    """
    pair = tuple(given) if isinstance(given, tuple | list) else (given, given)
    if len(pair) == 2:
        rows, columns = (one_integer(n, name) for n in pair)
        if rows > 0 and columns > 0:
            return rows, columns
    raise OptionError(f"{name} must be one or two numbers of pixels, above 0; got {given!r}")
