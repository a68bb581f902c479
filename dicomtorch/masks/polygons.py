"""Polygons on a grid of pixels, filled exactly: which pixel centres are inside, or on the path.

PS3.3 C.8.8.6.3: points on the path belong to the structure. Coordinates are (column, row) with pixel centres at whole
numbers. All contours of one plane are taken together by even-odd, so that holes, islands in holes, keyholes whose
channel has no width and contours that are combined by exclusive or need no cases of their own.
"""

from __future__ import annotations

import itertools
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from dicomtorch.errors import GeometryError
from dicomtorch.masks.compiled import painting

Path = Literal["in", "half-open"]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

ON_PATH = 0.01
"""Millimetres that a pixel centre may be from a contour to be on it: two decimals move a vertex by up to 0.007 mm."""

_MOST_ON_PATH = (
    0.25  # pixels: where pixels are tiny, rounded millimetres must not reach the next one
)
_FARTHEST = 1e9  # pixels from the image; farther ones are no coordinates
_LONGEST = 1 << 18  # rows or columns of what compiled kernels fill
_MOST_CROSSINGS = 1 << 26  # of edges with lines of pixels, in one call


class Runs(NamedTuple):
    """Pixels as runs along rows, ordered, that neither overlap nor touch.

    Attributes:
        line: Plane * rows + row of each run.
        first: Its first column.
        end: The column behind its last.
    """

    line: Ints
    first: Ints
    end: Ints

    @property
    def area(self) -> int:
        """Pixels."""
        return int((self.end - self.first).sum())

    def box(self, rows: int) -> tuple[int, int, int, int] | None:
        """(first column, first row, last column + 1, last row + 1) over all planes, or `None` of no pixel."""
        if not len(self.line):
            return None
        row = self.line % rows
        return (int(self.first.min()), int(row.min()), int(self.end.max()), int(row.max()) + 1)

    def paint(self, image: npt.NDArray[np.generic], value: int = 1) -> None:
        """Writes `value` into the pixels of a C-contiguous array (planes, rows, columns) or (rows, columns)."""
        image.reshape(-1)[self.flat(image.shape[-1])] = value

    def flat(self, columns: int) -> Ints:
        """Where the pixels are in an array of this many columns, flattened."""
        length = self.end - self.first
        total = int(length.sum())
        shift = self.line * columns + self.first - (np.cumsum(length) - length)
        return np.asarray(np.arange(total) + np.repeat(shift, length))

    def by_plane(self, count: int, rows: int) -> list[Runs]:
        """Those of each of `count` planes, whose lines begin at 0 again."""
        bounds = np.searchsorted(self.line, np.arange(count + 1) * rows).tolist()
        return [
            Runs(self.line[a:b] - k * rows, self.first[a:b], self.end[a:b])
            for k, (a, b) in enumerate(itertools.pairwise(bounds))
        ]


NO_RUNS = Runs(*(np.empty(0, np.int64) for _ in range(3)))


def fill(
    points: Floats,
    counts: Ints,
    planes: Ints,
    shape: tuple[int, int],
    *,
    spacing: tuple[float, float] = (1.0, 1.0),
    path: Path = "in",
) -> Runs:
    """The pixels of contours.

    Args:
        points: (n, 2), vertices (column, row), contour after contour; the last of each is joined to its first.
        counts: (k,), vertices of each contour. Those with fewer than three have no inside and no path.
        planes: (k,), which plane each lies on. Contours of one plane are one set; a plane may be one structure of one
            slice.
        shape: (rows, columns) of a plane.
        spacing: Millimetres between rows, between columns.
        path: "in": pixel centres within `ON_PATH` of an edge belong to it. "half-open": of the centres on the path only
            those at the low sides, so that areas which share a border share no pixel.

    Raises:
        GeometryError: A coordinate is not finite, there are more edges than memory is for, or `spacing` is no distance.
    """
    if not all(0 < each < _FARTHEST for each in spacing):
        raise GeometryError(
            f"contours are filled on pixels that are apart; (0028,0030) PixelSpacing is {list(spacing)}"
        )
    if len(points) and not (np.abs(points) < _FARTHEST).all():
        raise GeometryError(
            f"a vertex has no coordinates that an image can have: one is not finite, or further than {_FARTHEST:g} "
            f"pixels away"
        )
    compiled = _compiled(points, counts, planes, shape, spacing, path)
    if compiled is not None:
        return compiled
    start, end, plane = _edges(points, counts, planes)
    inside = _inside(start, end, plane, shape)
    if path == "half-open":
        return inside
    on = _on_path(start, end, plane, shape, spacing)
    return _united(inside, on) if len(on.line) else inside


def _compiled(
    points: Floats,
    counts: Ints,
    planes: Ints,
    shape: tuple[int, int],
    spacing: tuple[float, float],
    path: Path,
) -> Runs | None:
    """The same by compiled kernels; `None` where there are none, or where they refuse what is given."""
    module = painting()
    if module is None or not 0 < min(shape) <= max(shape) <= _LONGEST:
        return None
    points, counts, planes = _with_inside(points, counts, planes)
    scale = (spacing[1], spacing[0])
    near = -1.0 if path == "half-open" else min(ON_PATH, _MOST_ON_PATH * min(scale))
    found = module.fill_polygons(
        np.ascontiguousarray(points, np.float64),
        np.ascontiguousarray(counts, np.int64),
        np.ascontiguousarray(planes, np.int64),
        *shape,
        scale,
        near,
        near**2,
        _MOST_CROSSINGS,
    )
    return None if found is None else Runs(*np.frombuffer(found, np.int64).reshape(3, -1))


def _with_inside(points: Floats, counts: Ints, planes: Ints) -> tuple[Floats, Ints, Ints]:
    """Those contours that have an inside."""
    kept = counts >= 3
    if kept.all():
        return points, counts, planes
    return points[np.repeat(kept, counts)], counts[kept], planes[kept]


def _edges(points: Floats, counts: Ints, planes: Ints) -> tuple[Floats, Floats, Ints]:
    """First and last point and plane of every edge."""
    points, counts, planes = _with_inside(points, counts, planes)
    following = np.arange(1, len(points) + 1)
    ends = np.cumsum(counts)
    following[ends - 1] = ends - counts
    return points, points[following], np.repeat(planes, counts)


def _expanded(low: Ints, high: Ints) -> tuple[Ints, Ints]:
    """For ranges low to high - 1: the number of the range and the value, one after the other."""
    count = np.maximum(high - low, 0)
    total = int(count.sum())
    if total > _MOST_CROSSINGS:
        raise GeometryError(
            f"the contours cross {total:,} lines of pixels, more than {_MOST_CROSSINGS:,}; such contours are damage"
        )
    number = np.repeat(np.arange(len(count)), count)
    return number, np.arange(total) + np.repeat(low - (np.cumsum(count) - count), count)


def _inside(start: Floats, end: Floats, plane: Ints, shape: tuple[int, int]) -> Runs:
    """Even-odd over all edges of a plane; an edge counts for rows v_low <= row < v_high."""
    rows, columns = shape
    v0, v1 = start[:, 1], end[:, 1]
    low = np.clip(np.ceil(np.minimum(v0, v1)), 0, rows).astype(np.int64)
    high = np.clip(np.ceil(np.maximum(v0, v1)), 0, rows).astype(np.int64)
    edge, row = _expanded(low, high)
    u0, from_v = start[edge, 0], v0[edge]
    across, down = end[edge, 0] - u0, v1[edge] - from_v
    crossing = u0 + (row - from_v) * across / down
    # Which column comes next is all that counts, so that whole numbers are sorted.
    column = np.clip(np.ceil(crossing), 0, columns).astype(np.int64)
    key = (plane[edge] * rows + row) * (columns + 1) + column
    key.sort()
    line, column = np.divmod(key, columns + 1)
    runs = Runs(line[::2], column[::2], column[1::2])
    some = runs.first < runs.end
    return _joined(Runs(runs.line[some], runs.first[some], runs.end[some]))


def _on_path(
    start: Floats, end: Floats, plane: Ints, shape: tuple[int, int], spacing: tuple[float, float]
) -> Runs:
    """The pixel centres near edges, as runs in no order."""
    rows, columns = shape
    scale = np.array([spacing[1], spacing[0]])  # of (column, row)
    near = min(ON_PATH, _MOST_ON_PATH * float(scale.min()))
    reach = near / scale[1]
    v_low, v_high = (f(start[:, 1], end[:, 1]) for f in (np.minimum, np.maximum))
    low = np.clip(np.ceil(v_low - reach), 0, rows).astype(np.int64)
    high = np.clip(np.floor(v_high + reach) + 1, 0, rows).astype(np.int64)
    edge, row = _expanded(low, high)
    a, b = start[edge] * scale, end[edge] * scale
    left, right = _capsule(a, b, row * scale[1], near)
    # Beyond the image by less than a pixel is enough to be clipped.
    first = np.ceil(np.clip(left / scale[0], -1, columns)).astype(np.int64).clip(0)
    last = np.floor(np.clip(right / scale[0], -1, columns)).astype(np.int64)
    stop = np.minimum(last + 1, columns)
    some = first < stop
    return Runs((plane[edge] * rows + row)[some], first[some], stop[some])


def _capsule(a: Floats, b: Floats, y: Floats, near: float) -> tuple[Floats, Floats]:
    """From where to where lines at height `y` are within `near` of the segments from `a` to `b`; empty: (inf, -inf)."""
    left, right = np.full(len(y), np.inf), np.full(len(y), -np.inf)
    for point in (a, b):  # the rounded ends
        half = near**2 - (y - point[:, 1]) ** 2
        width = np.sqrt(np.maximum(half, 0))
        left = np.where(half >= 0, np.minimum(left, point[:, 0] - width), left)
        right = np.where(half >= 0, np.maximum(right, point[:, 0] + width), right)
    # Between them: across at most `near` from the line, along from 0 to its length.
    along, up = (b - a).T
    height = y - a[:, 1]
    length = np.hypot(along, up)
    low, high = np.full(len(y), -np.inf), np.full(len(y), np.inf)
    with np.errstate(divide="ignore", invalid="ignore"):
        for at, way in (
            ((along * height - near * length) / up, (along * height + near * length) / up),
            (-up * height / along, (length**2 - up * height) / along),
        ):
            bound = np.isfinite(at) & np.isfinite(way)
            low = np.where(bound, np.maximum(low, np.minimum(at, way)), low)
            high = np.where(bound, np.minimum(high, np.maximum(at, way)), high)
    flat = (up == 0) & (np.abs(height) > near)
    upright = (along == 0) & ((up * height < 0) | (up * height > length**2))
    some = (low <= high) & (length > 0) & ~flat & ~upright
    left = np.where(some, np.minimum(left, a[:, 0] + low), left)
    right = np.where(some, np.maximum(right, a[:, 0] + high), right)
    return left, right


def _united(one: Runs, other: Runs) -> Runs:
    """Both, without what they have in common twice."""
    line, first, end = (np.concatenate(pair) for pair in zip(one, other, strict=True))
    order = np.lexsort((first, line))
    return _joined(Runs(line[order], first[order], end[order]))


def _joined(runs: Runs) -> Runs:
    """Runs in order, those that overlap or touch made one."""
    line, first, end = runs
    if len(line) < 2:
        return runs
    # The farthest end so far in the same line: lines are far enough apart that one maximum does for all.
    width = int(end.max()) + 2
    reached = np.maximum.accumulate(line * width + end)
    new = np.append(True, line[1:] * width + first[1:] > reached[:-1])
    begins = np.flatnonzero(new)
    last = np.append(begins[1:], len(line)) - 1
    return Runs(line[begins], first[begins], reached[last] - line[last] * width)
