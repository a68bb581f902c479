"""Places on slides: where squares of one size lie at one resolution, and how much of each is there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dicomtorch.datasets.regions import Box, frames_of
from dicomtorch.datasets.slides import Slide
from dicomtorch.datasets.tissue import TissueFinder
from dicomtorch.series.geometry import Floats, Ints
from dicomtorch.series.levels import SlideLevel

_FRAMES_AT_ONCE = 4096


@dataclass(frozen=True)
class Sampling:
    """How squares of a level become tiles.

    Attributes:
        level: That is read.
        rows: Of a square, in pixels of the level.
        columns: See `rows`.
        step: Pixels of the level from one square to the next, down and across.
    """

    level: SlideLevel
    rows: int
    columns: int
    step: tuple[float, float]

    def corners(self) -> Ints:
        """(n, 2), first row and column of the squares that cover the total pixel matrix, row by row."""
        rows, columns = (
            np.rint(np.arange(_steps(size, part, step)) * step).astype(np.int64)
            for size, part, step in (
                (self.level.rows, self.rows, self.step[0]),
                (self.level.columns, self.columns, self.step[1]),
            )
        )
        return np.stack(np.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2)

    def is_aligned(self) -> bool:
        """Whether every square is a stored tile."""
        level = self.level
        whole = all(step == size for step, size in zip(self.step, level.tile, strict=True))
        return whole and (self.rows, self.columns) == level.tile and level.is_aligned

    def coverage(self, corners: Ints) -> Floats:
        """(n,), the share of each square that is there; too high, never too low, where stored tiles overlap."""
        tops, row = np.unique(corners[:, 0], return_inverse=True)
        lefts, column = np.unique(corners[:, 1], return_inverse=True)
        level = self.level
        if level.is_aligned:
            down = _overlaps(
                tops,
                self.rows,
                np.arange(level.tile_rows) * level.tile[0],
                level.tile[0],
                level.rows,
            )
            across = _overlaps(
                lefts,
                self.columns,
                np.arange(level.tile_columns) * level.tile[1],
                level.tile[1],
                level.columns,
            )
            area = down @ (level.grid >= 0) @ across.T
        else:
            area = np.zeros((len(tops), len(lefts)))
            for k in range(0, len(level.corners), _FRAMES_AT_ONCE):
                part = level.corners[k : k + _FRAMES_AT_ONCE]
                down = _overlaps(tops, self.rows, part[:, 0], level.tile[0], level.rows)
                across = _overlaps(lefts, self.columns, part[:, 1], level.tile[1], level.columns)
                area += down @ across.T
        share = np.asarray(area[row, column] / (self.rows * self.columns))
        return share.clip(0, 1)


def _steps(size: int, part: int, step: float) -> int:
    """How many parts cover a length, the last one reaching its end or beyond."""
    return 1 + max(0, int(np.ceil((size - part) / step - 1e-9)))


def _overlaps(begins: Ints, length: int, tiles: Ints, tile: int, end: int) -> Floats:
    """(n, m), the pixels that n stretches and m tiles have in common, before the end of the matrix."""
    low = np.maximum(begins[:, None], tiles)
    high = np.minimum(np.minimum(begins + length, end)[:, None], tiles + tile)
    return np.asarray((high - low).clip(0), np.float64)


def sampling(
    level: SlideLevel, tile: tuple[int, int], stride: tuple[int, int], scale: float
) -> Sampling:
    """Squares of a level that tiles are made of.

    Args:
        level: That is read.
        tile: (rows, columns) of a tile.
        stride: From tile to tile, in pixels of tiles.
        scale: Pixels of the level for one of a tile.
    """
    rows, columns = (max(1, round(n * scale)) for n in tile)
    step = (stride[0] * scale, stride[1] * scale)
    return Sampling(level, rows, columns, step)


class Places(NamedTuple):
    """Tiles, one row each.

    Attributes:
        slide: Number of the slide.
        level: Number of the level.
        row: Of the first pixel, on that level.
        column: See `row`.
        coverage: The share of pixels that are there.
        tissue: The share of tissue, nan where nobody looked.
        frame: Position of the first frame that it touches; of some frame of the level where it touches none.
        whole: Whether it is that frame, or what is inside the total pixel matrix of it.
    """

    slide: npt.NDArray[np.int32]
    level: npt.NDArray[np.int32]
    row: npt.NDArray[np.int32]
    column: npt.NDArray[np.int32]
    coverage: Floats
    tissue: Floats
    frame: Ints
    whole: npt.NDArray[np.bool_]


def placed(
    slide: Slide, sampling: Sampling, finder: TissueFinder | None, least: float | None, keep: bool
) -> Places:
    """The tiles of one slide.

    Args:
        slide: Where they are.
        sampling: How they lie.
        finder: Looks for tissue, if that is asked for.
        least: The least share of tissue.
        keep: Whether tiles of which nothing is there are kept.

    Raises:
        DicomTorchError: The tiles that tell where tissue is cannot be read, or tiles have no place.
    """
    level = sampling.level
    corners = sampling.corners()
    coverage = sampling.coverage(corners)
    tissue = np.full(len(corners), np.nan)
    chosen = np.ones(len(corners), np.bool_) if keep else coverage > 0
    if finder is not None:
        tissue = finder.shares(slide.levels, level, corners, sampling.rows, sampling.columns)
        chosen &= tissue >= (least or 0)
    corners, coverage, tissue = corners[chosen], coverage[chosen], tissue[chosen]
    frame, whole = _frames(sampling, corners)
    many = len(corners)
    return Places(
        np.full(many, slide.number, np.int32),
        np.full(many, level.number, np.int32),
        corners[:, 0].astype(np.int32),
        corners[:, 1].astype(np.int32),
        coverage,
        tissue,
        frame,
        whole,
    )


def _frames(sampling: Sampling, corners: Ints) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """The first frame that each square touches, and whether it is the square."""
    level = sampling.level
    frame = np.full(len(corners), -1, np.int64)
    if level.is_aligned:
        frame = level.grid[tuple((corners // level.tile).T)]
    there = frame >= 0
    for k in np.flatnonzero(~there).tolist():
        row, column = corners[k].tolist()
        touched = frames_of([Box(level, row, column, sampling.rows, sampling.columns)])
        frame[k] = touched[0] if touched else level.positions[0]
    stored = (sampling.rows, sampling.columns) == level.tile
    return frame, there & stored & ~(corners % level.tile).any(axis=1)
