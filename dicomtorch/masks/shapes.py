"""Points, boxes and outlines in pixels of images, and the boxes and runs that they make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dicomtorch.errors import PixelValueError
from dicomtorch.masks.polygons import Path, Runs, fill

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

POINT, LINE, POLYGON, ELLIPSE, BOX = range(5)
"""What a shape is. A line is open and has no inside; an ellipse is the ends of two axes, a box two corners."""

_EXACT = 1e4
"""As if pixels were so wide: what is drawn in pixels was not rounded to parts of a millimetre."""

KIND_NAMES: Final = ("point", "open line", "polygon", "ellipse", "box")


@dataclass(frozen=True, eq=False)
class Shapes:
    """Shapes in pixels, 0 being the corner of the first pixel.

    Attributes:
        segment: (n,), which segment each is of.
        kind: (n,), `POINT` to `BOX`.
        points: (m, 2), (x, y), shape after shape.
        counts: (n,), points of each.
        boxed: (n,), whether its box is one that was drawn, not that of a part of something.
    """

    segment: Ints
    kind: Ints
    points: Floats
    counts: Ints
    boxed: Flags

    def __len__(self) -> int:
        return len(self.kind)

    @property
    def first(self) -> Ints:
        """(n,), where the points of each begin."""
        return np.cumsum(self.counts) - self.counts

    def take(self, which: Ints) -> Shapes:
        """Those, in that order."""
        counts = self.counts[which]
        at = np.arange(int(counts.sum())) + np.repeat(
            self.first[which] - (np.cumsum(counts) - counts), counts
        )
        return Shapes(
            self.segment[which], self.kind[which], self.points[at], counts, self.boxed[which]
        )

    def moved(self, by: Floats) -> Shapes:
        """With (n, 2), (x, y) of each, subtracted."""
        points = self.points - np.repeat(by, self.counts, axis=0)
        return Shapes(self.segment, self.kind, points, self.counts, self.boxed)

    def boxes(self) -> Floats:
        """(n, 4): left, top, right, bottom of each."""
        if not len(self):
            return np.empty((0, 4))
        low, high = (f.reduceat(self.points, self.first) for f in (np.minimum, np.maximum))
        round_ones = np.flatnonzero(self.kind == ELLIPSE)
        if len(round_ones):
            ends = self.points[self.first[round_ones][:, None] + np.arange(4)]
            middle = ends[:, :2].mean(1)
            reach = np.hypot(ends[:, 1] - ends[:, 0], ends[:, 3] - ends[:, 2]) / 2
            low[round_ones], high[round_ones] = middle - reach, middle + reach
        return np.concatenate([low, high], 1)

    @classmethod
    def joined(cls, parts: Sequence[Shapes]) -> Shapes:
        """Several as one."""
        return cls(
            *(
                np.concatenate([getattr(part, name) for part in (NO_SHAPES, *parts)])
                for name in ("segment", "kind", "points", "counts", "boxed")
            )
        )


_NONE = np.empty(0, np.int64)
NO_SHAPES = Shapes(_NONE, _NONE, np.empty((0, 2)), _NONE, np.empty(0, np.bool_))


def shapes_of(
    found: Sequence[tuple[int, Any]], segment: Sequence[int], boxed: Sequence[bool]
) -> Shapes:
    """Shapes from (kind, points) each."""
    points = [np.asarray(each, np.float64).reshape(-1, 2) for _, each in found]
    return Shapes(
        np.array(segment, np.int64),
        np.array([kind for kind, _ in found], np.int64),
        np.concatenate([np.empty((0, 2)), *points]),
        np.array([len(each) for each in points], np.int64),
        np.array(boxed, np.bool_),
    )


def circle(middle: Any, edge: Any) -> Floats:
    """A circle as an ellipse.

    Args:
        middle: (x, y).
        edge: A point on it.
    """
    x, y = map(float, middle)
    radius = float(np.hypot(*(np.asarray(edge, np.float64) - (x, y))))
    return np.array([(x - radius, y), (x + radius, y), (x, y - radius), (x, y + radius)])


def runs_of(shapes: Shapes, shape: tuple[int, int], path: Path) -> list[tuple[int, Runs]]:
    """(segment, pixels) of each polygon and ellipse: pixels whose centres are inside, or on the path.

    Args:
        shapes: On one image; others have no inside.
        shape: (rows, columns) of it.
        path: As in `fill`.

    Raises:
        GeometryError: A vertex is no coordinate.
    """
    found: list[tuple[int, Runs]] = []
    outlined = shapes.take(np.flatnonzero(shapes.kind == POLYGON))
    if len(outlined):
        count = len(outlined)
        whole = fill(
            outlined.points - 0.5,
            outlined.counts,
            np.arange(count),
            shape,
            spacing=(_EXACT, _EXACT),
            path=path,
        )
        found += zip(outlined.segment.tolist(), whole.by_plane(count, shape[0]), strict=True)
    round_ones = shapes.take(np.flatnonzero(shapes.kind == ELLIPSE))
    corners = round_ones.points.reshape(-1, 4, 2)
    for segment, four in zip(round_ones.segment.tolist(), corners, strict=True):
        found.append((segment, _ellipse(four, shape)))
    return found


def _ellipse(ends: Floats, shape: tuple[int, int]) -> Runs:
    """The pixel centres inside an ellipse, by the quadratic that each line of pixels makes of it."""
    axes = np.stack([ends[1] - ends[0], ends[3] - ends[2]], 1) / 2
    none = Runs(*(np.empty(0, np.int64) for _ in range(3)))
    if abs(np.linalg.det(axes)) < 1e-12:
        return none
    middle = ends[:2].mean(0)
    inverse = np.linalg.inv(axes)
    square, mixed, rest = (
        float(inverse[:, i] @ inverse[:, j]) for i, j in ((0, 0), (0, 1), (1, 1))
    )
    line = np.arange(shape[0])
    up = line + 0.5 - middle[1]
    under = (mixed * up) ** 2 - square * (rest * up**2 - 1)
    reach = np.sqrt(np.maximum(under, 0)) / square
    centre = middle[0] - mixed * up / square - 0.5
    first = np.ceil(np.clip(centre - reach - 1e-9, 0, shape[1])).astype(np.int64)
    end = np.floor(np.clip(centre + reach + 1e-9, -1, shape[1] - 1)).astype(np.int64) + 1
    some = (under >= 0) & (first < end)
    return Runs(line[some], first[some], end[some])


def points_of(values: Any, dimensions: int, attribute: str) -> Any:
    """(n, 2 or 3), checked.

    Raises:
        PixelValueError: The number of values is wrong, or one is not finite.
    """
    flat = np.asarray(values, np.float64).reshape(-1)
    if len(flat) % dimensions or not len(flat):
        raise PixelValueError(
            f"{attribute} holds {len(flat)} numbers, which are no points of {dimensions} coordinates"
        )
    if not np.isfinite(flat).all():
        raise PixelValueError(f"{attribute} holds a number that is not finite")
    return flat.reshape(-1, dimensions)
