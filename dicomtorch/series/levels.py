"""One level of a slide: where its tiles are in the total pixel matrix, and the way to millimetres on the glass.

PS3.3 C.7.6.17.3 and C.8.12.14 (tiles), C.8.12.6.1 and C.8.12.2.1.1 (Slide Coordinate System), C.7.6.2.1.1 (the
equation).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dicomtorch._forks import lazy
from dicomtorch.errors import GeometryError, printable
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.series.geometry import Floats, Ints

Pair = tuple[float, float]

_FLAT = 1e-3  # a determinant of two unit vectors, seen from above, below which they span no plane


@dataclass(frozen=True, eq=False)
class SlideLevel:
    """One level: a total pixel matrix, of which tiles are there.

    Attributes:
        number: In its slide, 0 the finest.
        rows: Of the total pixel matrix.
        columns: See `rows`.
        tile: (rows, columns) of a stored tile.
        spacing: Millimetres between rows, between columns; nan where the files do not say.
        origin: (x, y) of pixel (0, 0) on the slide, in millimetres; nan where the files do not say.
        orientation: (6,), Image Orientation (Slide).
        positions: Of its frames, in the index.
        index: That index.
    """

    number: int
    rows: int
    columns: int
    tile: tuple[int, int]
    spacing: Pair
    origin: Pair
    orientation: tuple[float, ...]
    positions: Ints
    index: FrameIndex

    def __repr__(self) -> str:
        across, down = self.tile_columns, self.tile_rows
        return (
            f"SlideLevel({self.number}: {self.rows:,} x {self.columns:,} pixels of {self.mpp:.4g} micrometres, "
            f"{len(self.positions):,} of {across * down:,} tiles of {self.tile[0]} x {self.tile[1]})"
        )

    def __getstate__(self) -> dict[str, Any]:
        return {name: self.__dict__[name] for name in self.__dataclass_fields__}

    @property
    def mpp(self) -> float:
        """Micrometres per pixel, the mean of both directions."""
        return 500.0 * (self.spacing[0] + self.spacing[1])

    @lazy
    def tile_rows(self) -> int:
        """Rows of tiles that cover the matrix."""
        return -(-self.rows // self.tile[0])

    @lazy
    def tile_columns(self) -> int:
        """See `tile_rows`."""
        return -(-self.columns // self.tile[1])

    # Tiles

    @lazy
    def corners(self) -> Ints:
        """(n, 2), row and column of the first pixel of each frame of `positions`, from 0.

        Raises:
            GeometryError: A frame begins outside of the matrix.
        """
        names = ("tile_row", "tile_column")
        found = np.stack([np.asarray(self.index.values(n, self.positions)) for n in names], 1)
        corners = found.astype(np.int64) - 1
        outside = ((corners < 0) | (corners >= (self.rows, self.columns))).any(axis=1)
        if outside.any():
            k = int(np.argmax(outside))
            raise GeometryError(
                f"{self._name(k)} is at row {found[k, 0]}, column {found[k, 1]} of a total pixel matrix of "
                f"{self.rows} x {self.columns}; leave the file out with index.filter"
            )
        return corners

    @lazy
    def is_aligned(self) -> bool:
        """Whether every tile begins at a multiple of the size of tiles."""
        return not (self.corners % self.tile).any()

    @lazy
    def grid(self) -> Ints:
        """(tile rows, tile columns), the position of each tile in the index, -1 for those that are absent.

        Raises:
            GeometryError: Tiles are not aligned, or two are at one place.
        """
        if not self.is_aligned:
            raise GeometryError(
                f"the tiles of level {self.number} do not lie on a grid of {self.tile[0]} x {self.tile[1]} pixels; "
                "read regions"
            )
        grid = np.full((self.tile_rows, self.tile_columns), -1, np.int64)
        row, column = (self.corners // self.tile).T
        grid[row, column] = self.positions
        again = np.flatnonzero(grid[row, column] != self.positions)
        if len(again):
            k = int(again[0])
            other = printable(self.index.path(int(grid[row[k], column[k]])))
            raise GeometryError(
                f"{self._name(k)} and a frame of {other} are both at tile row {row[k]}, tile column {column[k]} of "
                f"level {self.number}; leave one out with index.filter"
            )
        return grid

    def _name(self, k: int) -> str:
        position = int(self.positions[k])
        (frame,) = self.index.gather("frame", np.array([position]))
        return f"{printable(self.index.path(position))}, frame {frame},"

    @lazy
    def _by_row(self) -> tuple[Ints, Ints]:
        """Numbers of the frames in the order of their first rows, and these rows."""
        order = np.argsort(self.corners[:, 0], kind="stable")
        return order, self.corners[order, 0]

    def touching(self, row: int, column: int, rows: int, columns: int) -> Ints:
        """Numbers in `positions` of the frames that have pixels in a part of the matrix, in the order of frames.

        Args:
            row: First one of the part; `column` too.
            column: See `row`.
            rows: How many; `columns` too.
            columns: See `rows`.
        """
        order, firsts = self._by_row
        begin = np.searchsorted(firsts, row - self.tile[0], "right")
        near = order[begin : np.searchsorted(firsts, row + rows, "left")]
        first = self.corners[near, 1]
        return np.sort(near[(first > column - self.tile[1]) & (first < column + columns)])

    # Millimetres

    @property
    def _directions(self) -> Floats:
        """(2, 2), millimetres (x, y) of a step to the next row, and of one to the next column.

        Raises:
            GeometryError: The files do not say.
        """
        between_rows, between_columns = self.spacing
        for value, name in (
            (self.spacing, "(0028,0030) PixelSpacing"),
            (self.origin, "(0048,0008) TotalPixelMatrixOriginSequence"),
            (self.orientation, "(0048,0102) ImageOrientationSlide"),
        ):
            if not all(map(math.isfinite, value)):
                path = printable(self.index.path(int(self.positions[0])))
                raise GeometryError(
                    f"{path}: {name} is absent, so pixels have no place on the slide"
                )
        x, y = self.orientation[:2], self.orientation[3:5]
        return np.asarray(np.array([y, x]) * np.array([[between_rows], [between_columns]]))

    def to_slide(
        self, row: npt.ArrayLike, column: npt.ArrayLike
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """(x, y) in millimetres in the Slide Coordinate System; whole numbers are the centres of pixels.

        Raises:
            GeometryError: The files do not say where the level is.
        """
        pixels = np.stack(np.broadcast_arrays(*np.atleast_1d(row, column)), -1).astype(np.float64)
        points = np.asarray(self.origin) + pixels @ self._directions
        shape = np.broadcast_shapes(np.shape(row), np.shape(column))
        return points[..., 0].reshape(shape), points[..., 1].reshape(shape)

    def to_pixels(
        self, x: npt.ArrayLike, y: npt.ArrayLike
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """(row, column) of points on the slide, the inverse of `to_slide`.

        Raises:
            GeometryError: The files do not say where the level is, or its orientation is none.
        """
        directions = self._directions
        if abs(np.linalg.det(directions / np.array(self.spacing)[:, None])) < _FLAT:
            raise GeometryError(
                f"(0048,0102) ImageOrientationSlide is {list(self.orientation)}: its rows and columns do not lie in "
                "the plane of the slide"
            )
        points = np.stack(np.broadcast_arrays(*np.atleast_1d(x, y)), -1).astype(np.float64)
        pixels = (points - np.asarray(self.origin)) @ np.linalg.inv(directions)
        shape = np.broadcast_shapes(np.shape(x), np.shape(y))
        return pixels[..., 0].reshape(shape), pixels[..., 1].reshape(shape)
