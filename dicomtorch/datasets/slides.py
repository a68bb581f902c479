"""`DicomSlides`: whole slide images, their levels, tiles and regions, and places on the glass in millimetres."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Unpack, overload

import numpy as np
import numpy.typing as npt
from torch import Tensor

from dicomtorch._forks import lazy
from dicomtorch.datasets.glass import Fill, fill_of
from dicomtorch.datasets.options import Reading, check_names
from dicomtorch.datasets.positions import one_position, several_positions
from dicomtorch.datasets.regions import (
    Box,
    RegionReader,
    box_of_tile,
    mask_of,
    patches_of,
    stored_tile,
    whole_mask,
)
from dicomtorch.datasets.source import FrameSource, Given
from dicomtorch.errors import (
    DicomTorchError,
    FrameIndexError,
    FrameNotFoundError,
    GeometryError,
    OptionError,
    SourceError,
    format_count,
)
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.model.report import ScanReport
from dicomtorch.pictures import html
from dicomtorch.pixels.memory import Picture, new_picture
from dicomtorch.reader.reader import FrameReader
from dicomtorch.series.levels import SlideLevel
from dicomtorch.series.pyramids import Pyramid, pyramids, tile_mask

_SAME_MPP = 1.05  # how many times as coarse as asked for a level still is what was asked for
_MOST_PIXELS = 1 << 28  # of a region


class Region(NamedTuple):
    """A part of a level.

    Attributes:
        image: (C, rows, columns), which lie in memory as (rows, columns, C): `image.permute(1, 2, 0)` is contiguous.
        mask: (rows, columns), bool: which pixels are those of tiles; the others are filled.
    """

    image: Tensor
    mask: Tensor


class Slide:
    """One slide: the levels of one pyramid, of one optical path and focal plane.

    Levels count from 0, the finest. Rows and columns count from 0 in the total pixel matrix of a level; where tiles are
    meant, in its rows and columns of stored tiles.

    Args:
        number: In its `DicomSlides`.
        pyramid: Its levels.
        source: Reads the frames.

    Attributes:
        number: As given.
        levels: The finest first: `rows`, `columns`, `tile`, `spacing` (mm), `mpp` (micrometres), `grid` (positions of
            tiles in the index, -1 for absent ones).
        optical_path: Optical Path Identifier.
        focal_plane: From 0, the lowest first.
        notices: What is odd about it, in words without names.
    """

    def __init__(self, number: int, pyramid: Pyramid, source: FrameSource) -> None:
        self.number = number
        self.levels = pyramid.levels
        self.optical_path, self.focal_plane = pyramid.optical_path, pyramid.focal_plane
        self.notices = pyramid.notices
        self._pyramid = pyramid
        self._source = source
        self._regions = RegionReader(source.reader)
        self._backgrounds: dict[int, Tensor] = {}

    def __repr__(self) -> str:
        finest = self.levels[0]
        return (
            f"Slide({self.number}: {finest.rows:,} x {finest.columns:,} pixels of {finest.mpp:.4g} micrometres, "
            f"{len(self.levels)} level{'s' * (len(self.levels) > 1)})"
        )

    @property
    def index(self) -> FrameIndex:
        """Its frames; `positions` and `grid` of levels are positions in the index of its `DicomSlides`."""
        return self._source.index.select(self._pyramid.positions)

    @property
    def reader(self) -> FrameReader:
        """Reads positions of the index of its `DicomSlides`."""
        return self._source.reader

    # Levels

    def level(
        self, number: int | None = None, *, mpp: float | None = None, exact: bool = False
    ) -> SlideLevel:
        """A level by its number, or by its resolution.

        Args:
            number: From 0, the finest; negative ones count from the coarsest.
            mpp: Micrometres per pixel: the coarsest level that is not coarser than that (by more than 5 %).
            exact: Only a level that is within 5 % of it.

        Raises:
            FrameIndexError: There is no such number.
            GeometryError: All levels are coarser, none is within 5 %, or the files do not say how large pixels are.
            OptionError: Neither or both are given, or they mean nothing.
        """
        if (number is None) == (mpp is None):
            raise OptionError("a level is asked for by its number, or by mpp=, one of them")
        if number is not None:
            return self.levels[one_position(number, len(self.levels), "level")]
        return level_of(self.levels, mpp, exact, f"slide {self.number}")

    def to_slide(
        self, level: int | SlideLevel, row: npt.ArrayLike, column: npt.ArrayLike
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """(x, y), millimetres in the Slide Coordinate System, of pixels; whole numbers are their centres.

        Raises:
            FrameIndexError: There is no such level.
            GeometryError: The files do not say where the level is on the slide.
        """
        return self._level(level).to_slide(row, column)

    def to_pixels(
        self, level: int | SlideLevel, x: npt.ArrayLike, y: npt.ArrayLike
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """(row, column) of points on the slide, in millimetres; fractions and places outside of the level included.

        Raises:
            FrameIndexError: There is no such level.
            GeometryError: The files do not say where the level is on the slide.
        """
        return self._level(level).to_pixels(x, y)

    def _level(self, level: int | SlideLevel) -> SlideLevel:
        return level if isinstance(level, SlideLevel) else self.level(level)

    # Pixels

    def tile(
        self, level: int | SlideLevel, row: int, column: int, *, fill: Fill = "background"
    ) -> Region:
        """One stored tile.

        Args:
            level: Of the slide.
            row: Of the tile among rows of tiles.
            column: See `row`.
            fill: For what is not there; see `region`. What writers put beyond the total pixel matrix is not there.

        Returns:
            As large as all tiles of the level.

        Raises:
            FrameIndexError: There is no such level or tile; one that is absent from the file is filled.
            DicomTorchError: It cannot be read.
        """
        where = level if isinstance(level, SlideLevel) else self.level(level)
        if type(row) is not int or type(column) is not int:
            row, column = one_integer(row, "tile row"), one_integer(column, "tile column")
        rows, columns = where.tile_rows, where.tile_columns
        if not (0 <= row < rows and 0 <= column < columns):
            wrong = f"column {column}" if 0 <= row < rows else f"row {row}"
            raise FrameIndexError(
                f"level {where.number} has {rows} x {columns} tiles, rows 0 to {rows - 1} and columns 0 to "
                f"{columns - 1}; got {wrong}"
            )
        box = box_of_tile(where, row, column)
        if not isinstance(fill, str):
            return self._read(box, fill)
        return self._tile(box) or self._read(box, fill)

    def _tile(self, box: Box) -> Region | None:
        """A stored tile that is there in whole; `None` if it is another box, or its values take more to make."""
        position = stored_tile(box)
        if position < 0 or self._source.standardization is not None:
            return None
        image, samples = self._picture(box)
        if not self._regions.tile(box, position, samples):
            return None
        return Region(image, whole_mask(box.rows, box.columns))

    def _picture(self, box: Box) -> Picture:
        """Memory for the pixels of a box."""
        shape = (box.rows, box.columns, self._channels[box.level.number])
        return new_picture(shape, self._source.reader.dtype)

    def region(
        self,
        level: int | SlideLevel,
        row: int,
        column: int,
        rows: int,
        columns: int,
        *,
        fill: Fill = "background",
    ) -> Region:
        """A part of a level, across tiles.

        Args:
            level: Of the slide.
            row: First row, in pixels of the level; it may lie outside of it.
            column: First column.
            rows: How many.
            columns: How many.
            fill: What pixels are that are not there, beyond the total pixel matrix or of absent tiles: "background" is
                the Recommended Absent Pixel CIELab Value of the files, or white in colour and dark in gray; or a
                number, or one for each channel, in the values that are read.

        Raises:
            FrameIndexError: There is no such level, or the region is wholly outside of it.
            OptionError: A number means nothing, or the region has more than 2^28 pixels.
            DicomTorchError: A tile cannot be read.
        """
        where = self._level(level)
        box = Box(
            where,
            one_integer(row, "row"),
            one_integer(column, "column"),
            one_integer(rows, "rows"),
            one_integer(columns, "columns"),
        )
        if box.rows < 1 or box.columns < 1 or box.rows * box.columns > _MOST_PIXELS:
            raise OptionError(
                f"a region has 1 to {_MOST_PIXELS:,} pixels; got {box.rows} x {box.columns}. Read it in parts, or from "
                "a coarser level"
            )
        if not (-box.rows < box.row < where.rows and -box.columns < box.column < where.columns):
            raise FrameIndexError(
                f"level {where.number} has {where.rows} x {where.columns} pixels; {box.rows} x {box.columns} from row "
                f"{box.row}, column {box.column} on have none of them"
            )
        return self._read(box, fill)

    def _read(self, box: Box, fill: Fill) -> Region:
        found, image = patches_of(box), self._picture(box).image
        (frame,) = self._regions.read([box], [found], [image], [self._fill(fill, box.level)])
        if isinstance(frame, DicomTorchError):
            raise frame
        if self._source.standardization is not None:
            self._source.standardization.apply(image, 0)
        return Region(image, mask_of(box, found))

    @lazy
    def _channels(self) -> list[int]:
        """Of each level."""
        shape = self._source.reader.shape
        return [shape(int(level.positions[0]))[0] for level in self.levels]

    def _fill(self, fill: Fill, level: SlideLevel) -> Tensor:
        if not isinstance(fill, str) or fill != "background":
            return fill_of(fill, self._source.reader, level)
        if level.number not in self._backgrounds:
            self._backgrounds[level.number] = fill_of(fill, self._source.reader, level)
        return self._backgrounds[level.number]


class DicomSlides:
    """Whole slide images, one `Slide` for each pyramid, optical path and focal plane.

    Tiles of one slide have one PyramidUID; where files have none, it is one series, frame of reference and container,
    and several series of one frame of reference and container are one slide if no level is in two of them. Parts of
    concatenations are joined. Labels, overviews and thumbnails are no levels. `slides[0:10]` and `slides[[3, 5]]` are
    `DicomSlides` of fewer.

    Sources: PS3.3 C.8.12.4 (whole slide images), C.7.11.1 (pyramids), C.8.12.14 (tiles), C.8.12.6.1 (place on the
    glass).

    Args:
        source: As in `DicomFrames`.
        **options: Those of `DicomFrames` that say how frames are read. `values` is "stored" where nothing else is
            said: uint8, as most slides have them ("display" with `normalize`); `duplicates` is "first".

    Raises:
        SourceError: There is nothing at `source`, or no slide in it.
        OptionError: An option means nothing, alone or with another.

    Example:
        >>> slides = DicomSlides("slides/")                                         # doctest: +SKIP
        >>> slide = slides[0]                                                       # doctest: +SKIP
        >>> image, mask = slide.region(slide.level(mpp=0.5), 100, 200, 512, 512)  # doctest: +SKIP
        >>> x, y = slide.to_slide(0, 1000, 2000)                                    # doctest: +SKIP
    """

    def __init__(self, source: Given, **options: Unpack[Reading]) -> None:
        check_names(DicomSlides, options)
        self._options = slide_options(options)
        self._source = FrameSource(source, within=only_tiles, **self._options)
        self._slides = [
            Slide(number, pyramid, self._source)
            for number, pyramid in enumerate(pyramids(self._source.index))
        ]

    def __len__(self) -> int:
        return len(self._slides)

    @overload
    def __getitem__(self, i: int | np.integer[Any]) -> Slide: ...
    @overload
    def __getitem__(self, i: slice | Sequence[int] | npt.NDArray[Any]) -> DicomSlides: ...
    def __getitem__(self, i: Any) -> Any:
        several = several_positions(i, len(self), "slide")
        if several is None:
            return self._slides[one_position(i, len(self), "slide")]
        chosen = [self._slides[one_position(k, len(self), "slide")] for k in several]
        frames = np.concatenate([slide._pyramid.positions for slide in chosen])
        return DicomSlides(self.index.select(frames), **self._options)

    def __iter__(self) -> Iterator[Slide]:
        return iter(self._slides)

    def __repr__(self) -> str:
        levels = sum(len(slide.levels) for slide in self)
        return (
            f"DicomSlides({format_count(len(self), 'slide')}, {format_count(levels, 'level')}, "
            f"{format_count(len(self.index), 'tile')})"
        )

    def _repr_html_(self) -> str:
        counts = {"Slides": f"{len(self):,}"}
        return html.table("DicomSlides", counts | self.index.overview())

    @property
    def index(self) -> FrameIndex:
        """The index of the tiles; `split`, `join` and `filter` it, and make slides or tiles of what is left."""
        return self._source.index

    @property
    def report(self) -> ScanReport:
        """What the scan met, file by file."""
        return self._source.report

    def find(self, **equals: Any) -> int:
        """The number of the one slide with a frame whose columns equal the values given.

        Raises:
            FrameNotFoundError: There is none, or more than one.
            OptionError: There is no such column.
        """
        there = self.index.where(**equals)
        found = [slide.number for slide in self if there[slide._pyramid.positions].any()]
        if len(found) != 1:
            raise FrameNotFoundError(
                f"{len(found):,} slides of {len(self):,} match {', '.join(equals) or 'nothing'}; find needs exactly one"
            )
        return found[0]


def slide_options(given: Any) -> Any:
    """The options of slides and tiles, with their defaults.

    Raises:
        OptionError: `normalize` measures each tile by itself.
    """
    normalize = given.get("normalize")
    values = "stored" if normalize is None else "display"
    options = {"values": values, "duplicates": "first", **given}
    if isinstance(normalize, str):
        raise OptionError(
            f"normalize={normalize!r} is measured on each stored tile by itself, so that tiles of one slide would not "
            "fit together; give means and deviations, as in normalize=([0.7, 0.5, 0.7], [0.2, 0.2, 0.2])"
        )
    return options


def only_tiles(index: FrameIndex) -> FrameIndex:
    """The frames of an index that are tiles of slides.

    Raises:
        SourceError: There is none.
    """
    tiles = tile_mask(index)
    if len(index) and not tiles.any():
        raise SourceError(
            f"none of {len(index):,} frames is a tile of a slide: an image with TotalPixelMatrixRows and "
            "TotalPixelMatrixColumns whose ImageType is not LABEL, OVERVIEW or THUMBNAIL"
        )
    return index if tiles.all() else index.select(tiles)


def level_of(levels: Sequence[SlideLevel], mpp: Any, exact: bool, what: str) -> SlideLevel:
    """The coarsest level that is not coarser than asked for; see `Slide.level`."""
    numeric = isinstance(mpp, int | float | np.integer | np.floating) and not isinstance(mpp, bool)
    if not numeric or not 0 < mpp < np.inf:
        raise OptionError(f"mpp must be micrometres per pixel, above 0; got {mpp!r}")
    there = [level.mpp for level in levels]
    if not np.isfinite(there).all():
        raise GeometryError(
            f"{what}: (0028,0030) PixelSpacing is absent, so mpp= has no meaning; ask for levels by number"
        )
    listed = ", ".join(f"{each:.4g}" for each in there)
    fine = [level for level in levels if level.mpp <= mpp * _SAME_MPP]
    if not fine:
        raise GeometryError(
            f"{what} has no level as fine as {mpp:g} micrometres per pixel; it has {listed}"
        )
    found = fine[-1]
    if exact and found.mpp * _SAME_MPP < mpp:
        raise GeometryError(
            f"{what} has no level within 5 % of {mpp:g} micrometres per pixel; it has {listed}"
        )
    return found


def one_integer(value: Any, name: str) -> int:
    """A whole number.

    Raises:
        OptionError: It is none.
    """
    if type(value) is int:
        return value
    try:
        if not isinstance(value, bool | np.bool_):
            return int(value.__index__())
    except AttributeError:
        pass
    raise OptionError(f"{name} must be a whole number; got {value!r}")
