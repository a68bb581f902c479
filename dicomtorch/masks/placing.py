"""Which image a plane of a mask belongs to, and where on it.

Position decides, not reference (PS3.3 A.51.5.1, C.8.8.6): a reference narrows several images at one place, and stands
alone only where there is no Frame of Reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from dicomtorch._forks import lazy
from dicomtorch.index.codes import numbered, pieces
from dicomtorch.index.columns import Texts
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.series.geometry import SAME_PLACE, is_orientation, slice_normal

Place = Literal["auto", "reference", "position"]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

ON_GRID = 0.1
"""Pixels that a corner of a frame may be from the pixel of the image that it belongs to."""

_HALF_PIXEL = 0.5


class Links(NamedTuple):
    """Planes of masks on images: where the first pixel of the plane lies on the image.

    Attributes:
        plane: Which plane.
        row: Position of the image in its index.
        down: Rows from the image's first pixel.
        right: Columns.
    """

    plane: Ints
    row: Ints
    down: Ints
    right: Ints

    def where(self, kept: Flags | Ints) -> Links:
        """Those kept."""
        return Links(*(values[kept] for values in self))

    @classmethod
    def joined(cls, parts: list[Links]) -> Links:
        """Several as one."""
        empty = cls(*(np.empty(0, np.int64) for _ in range(4)))
        return cls(*(np.concatenate(values) for values in zip(empty, *parts, strict=True)))


@dataclass
class Planes:
    """The planes of one mask object that are to be placed.

    Attributes:
        frame_of_reference: "" without one.
        origin: (n, 3), first pixel of a frame or a point of a contour; nan where there is none.
        orientation: (n, 6), `None` of contours, which lie on whatever plane they lie.
        spacing: (n, 2), of frames.
        shape: (rows, columns), of frames.
        reference: (n,), code of the SOPInstanceUID that it names among those of the images, -1 for none.
        frame_number: (n,), from 1; 0 for the whole instance.
        preserved: (n,), whether the reference means the same place.
        tile: (n, 2), column and row in the total pixel matrix, from 1; -1 of what is no tile.
    """

    frame_of_reference: str
    origin: Floats
    orientation: Floats | None
    spacing: Floats
    shape: tuple[int, int]
    reference: Ints
    frame_number: Ints
    preserved: Flags
    tile: Ints

    def __len__(self) -> int:
        return len(self.origin)


@dataclass
class Placed:
    """What became of the planes of an object.

    Attributes:
        links: Where they lie.
        notices: What was odd, each once, with numbers.
        distance: (n,), millimetres to the nearest image plane of the same frame of reference; inf without one.
        spacing: (n,), millimetres between the image planes there.
        off_grid: (n,), pixels that a frame's corner is off the image's pixels, where its plane agrees; 0 for none.
        wrong_size: Frames that name an image by reference alone and have other Rows and Columns.
    """

    links: Links
    notices: list[str] = field(default_factory=list)
    distance: Floats = field(default_factory=lambda: np.empty(0))
    spacing: Floats = field(default_factory=lambda: np.empty(0))
    off_grid: Floats = field(default_factory=lambda: np.empty(0))
    wrong_size: int = 0


class Images:
    """Where the frames of an index are, in the form that placing needs."""

    def __init__(self, index: FrameIndex) -> None:
        self.index = index
        self._codes: dict[str, dict[str, int]] = {}
        self.instance: Texts = index.column("SOPInstanceUID")
        self.series: Texts = index.column("SeriesInstanceUID")
        self.study: Texts = index.column("StudyInstanceUID")
        self.patient: Texts = index.column("PatientID")
        self.frame_of_reference: Texts = index.column("FrameOfReferenceUID")
        self.frame = np.asarray(index.column("frame"))
        self.origin = np.asarray(index.column("ImagePositionPatient"))
        self.orientation = np.asarray(index.column("ImageOrientationPatient"))
        self.spacing = np.asarray(index.column("PixelSpacing"))
        self.shape = np.stack([np.asarray(index.column(n)) for n in ("Rows", "Columns")], 1)
        self.tile = np.stack([np.asarray(index.column(f"tile_{n}")) for n in ("column", "row")], 1)
        thickness = np.asarray(index.column("SliceThickness"))
        between = np.asarray(index.column("SpacingBetweenSlices"))
        self.thickness = np.where(between > 0, between, np.where(thickness > 0, thickness, 1.0))
        # Of the series as it was scanned: a selection of slices is no series with wide gaps.
        self.apart = _apart(index)

    @lazy
    def _by_study(self) -> tuple[Ints, Ints]:
        """Rows ordered by the code of their study, and those codes."""
        codes = np.asarray(self.study.codes, np.int64)
        order = np.argsort(codes, kind="stable")
        return order, codes[order]

    def rows_of_study(self, uid: str) -> Ints:
        """The frames of a study, in their order."""
        order, codes = self._by_study
        code = self.code("study", uid)
        low, high = np.searchsorted(codes, [code, code + 1])
        return order[low:high] if code >= 0 else order[:0]

    def code(self, name: str, text: str) -> int:
        """The code of a text in a column of few distinct ones, -1 if no row has it; made to be asked often."""
        known = self._codes.get(name)
        if known is None:
            column: Texts = getattr(self, name)
            values = enumerate(column.values)
            known = self._codes[name] = {value.decode(): code for code, value in values}
        return known.get(text, -1)

    def instances(self, rows: Ints, uids: Sequence[str]) -> Ints:
        """The code of each SOPInstanceUID among those of some frames, -1 if none of them has it."""
        codes = np.unique(self.instance.codes[rows]).tolist()
        known = {self.instance.value(code): code for code in codes} if uids else {}
        return np.array([known.get(uid, -1) for uid in uids], np.int64)

    def place(self, position: int, row: float, column: float) -> tuple[float, float, float]:
        """Millimetres (LPS) of a pixel of an image."""
        across, down = self.orientation[position].reshape(2, 3)
        between_rows, between_columns = self.spacing[position]
        found = (
            self.origin[position] + across * between_columns * column + down * between_rows * row
        )
        x, y, z = found.tolist()
        return x, y, z

    def groups(self, rows: Ints) -> list[Ints]:
        """Rows that share frame of reference, orientation, spacing and size; those without a place left out."""
        placed = rows[
            np.isfinite(self.origin[rows]).all(1) & np.isfinite(self.orientation[rows]).all(1)
        ]
        placed = placed[np.isfinite(self.spacing[placed]).all(1)]
        if not len(placed):
            return []
        key = np.column_stack(
            [
                self.frame_of_reference.codes[placed],
                self.orientation[placed],
                self.spacing[placed],
                self.shape[placed],
            ]
        )
        _, inverse = np.unique(key, axis=0, return_inverse=True)
        order = np.argsort(inverse, kind="stable")
        return np.split(placed[order], np.flatnonzero(np.diff(inverse[order])) + 1)


def place(images: Images, rows: Ints, planes: Planes, how: Place = "auto") -> Placed:
    """Finds the images of planes.

    Args:
        images: All of them.
        rows: Those that the object may mean.
        planes: Of one object.
        how: "auto" and "position": by place, narrowed by reference; "reference": by reference alone.
    """
    count = len(planes)
    result = Placed(
        Links.joined([]), [], np.full(count, np.inf), np.full(count, np.nan), np.zeros(count)
    )
    if not count or not len(rows):
        return result
    named = _named(images, rows, planes)
    if (planes.tile >= 0).all() and (images.tile[rows] >= 0).all():
        result.links = _by_tile(images, rows, planes)
        return result
    if how == "reference" or not planes.frame_of_reference:
        _by_reference(images, named, planes, result)
        return result
    parts = [_by_position(images, group, planes, result) for group in images.groups(rows)]
    links = Links.joined(parts)
    is_named = _is_named(images, links, planes)
    space = images.code("frame_of_reference", planes.frame_of_reference)
    foreign = images.frame_of_reference.codes[links.row] != space
    if (foreign & is_named).any():
        count_named = len(np.unique(links.plane[foreign & is_named]))
        result.notices.append(
            f"{'1 plane names' if count_named == 1 else f'{count_named:,} planes name'} images of another "
            f"FrameOfReferenceUID in the same plane; taken as the same space"
        )
    links = links.where(~foreign | is_named)
    result.links = _narrowed(links, is_named[~foreign | is_named], count)
    _tell_disagreement(images, named, planes, result)
    return result


def _named(images: Images, rows: Ints, planes: Planes) -> Links:
    """(plane, row) for every image that a plane names."""
    order = rows[np.argsort(images.instance.codes[rows], kind="stable")]
    codes = images.instance.codes[order]
    low, high = (np.searchsorted(codes, planes.reference, side) for side in ("left", "right"))
    low, high = np.where(planes.reference < 0, 0, low), np.where(planes.reference < 0, 0, high)
    plane = np.repeat(np.arange(len(planes)), high - low)
    at = np.arange(len(plane)) + np.repeat(low - (np.cumsum(high - low) - (high - low)), high - low)
    row = order[at]
    zeros = np.zeros(len(plane), np.int64)
    links = Links(plane, row, zeros, zeros)
    return links.where(_is_named(images, links, planes))


def _is_named(images: Images, links: Links, planes: Planes) -> Flags:
    reference, number = planes.reference[links.plane], planes.frame_number[links.plane]
    instance = images.instance.codes[links.row] == reference
    frame = (number == 0) | (images.frame[links.row] == number - 1)
    return np.asarray((reference >= 0) & instance & frame)


def _narrowed(links: Links, is_named: Flags, count: int) -> Links:
    """Of several images at one place those that are named, if any is."""
    some = np.zeros(count, np.bool_)
    some[links.plane[is_named]] = True
    return links.where(is_named | ~some[links.plane])


def _by_reference(images: Images, named: Links, planes: Planes, result: Placed) -> None:
    """Without a common space every pixel of a frame is one of the image that it names."""
    if planes.orientation is not None:
        fits = (images.shape[named.row] == planes.shape).all(1)
        result.wrong_size = int((~fits).sum())
        named = named.where(fits)
    result.links = named


def _by_position(images: Images, group: Ints, planes: Planes, result: Placed) -> Links:
    """Planes that lie in the planes of images of one orientation and grid."""
    orientation, spacing = images.orientation[group[0]], images.spacing[group[0]]
    none = Links.joined([])
    if not is_orientation(orientation):
        return none
    normal = slice_normal(orientation)
    height = images.origin[group] @ normal
    order = np.argsort(height, kind="stable")
    group, height = group[order], height[order]
    first = np.flatnonzero(np.append(True, np.diff(height) > SAME_PLACE))
    levels, end = height[first], np.append(first[1:], len(group))
    apart = images.apart[group[first]]
    at = planes.origin @ normal
    usable = np.isfinite(at)
    if planes.orientation is not None:
        usable &= _parallel(planes, orientation)
    nearest = _nearest(levels, np.where(np.isfinite(at), at, 0.0))
    distance = np.where(usable, np.abs(at - levels[nearest]), np.inf)
    if images.frame_of_reference[int(group[0])] == planes.frame_of_reference:
        closer = distance < result.distance
        result.distance[closer] = distance[closer]
        result.spacing[closer] = apart[nearest[closer]]
    d = apart[nearest]
    hit = np.flatnonzero(distance <= np.minimum(0.2 * d, np.maximum(0.05 * d, 0.1)) + 1e-6)
    many = (end - first)[nearest[hit]]
    plane = np.repeat(hit, many)
    offset = np.arange(len(plane)) - np.repeat(np.cumsum(many) - many, many)
    row = group[np.repeat(first[nearest[hit]], many) + offset]
    if planes.orientation is None:
        zeros = np.zeros(len(plane), np.int64)
        return Links(plane, row, zeros, zeros)
    down, right, off = _on_grid(images, plane, row, planes, orientation, spacing)
    fits = off <= ON_GRID
    np.maximum.at(result.off_grid, plane[~fits], off[~fits])
    return Links(plane, row, down, right).where(fits)


def _apart(index: FrameIndex) -> Floats:
    """Millimetres from the plane of each frame to the nearest other plane of its series in the whole scan."""
    whole = index.whole()
    origin = np.asarray(whole.column("ImagePositionPatient"))
    orientation = np.asarray(whole.column("ImageOrientationPatient"))
    between, thickness = (
        np.asarray(whole.column(name)) for name in ("SpacingBetweenSlices", "SliceThickness")
    )
    alone = np.where(between > 0, between, np.where(thickness > 0, thickness, 1.0))
    result = np.array(alone, np.float64)
    placed = np.flatnonzero(np.isfinite(origin).all(1) & np.isfinite(orientation).all(1))
    if not len(placed):
        return result[index.rows]
    series = whole.column("SeriesInstanceUID").codes[placed]
    key = np.column_stack([series, orientation[placed]])
    _, inverse = np.unique(key, axis=0, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    for group in np.split(placed[order], np.flatnonzero(np.diff(inverse[order])) + 1):
        if len(group) > 1 and is_orientation(orientation[group[0]]):
            height = origin[group] @ slice_normal(orientation[group[0]])
            by_height = np.argsort(height, kind="stable")
            new = np.append(True, np.diff(height[by_height]) > SAME_PLACE)
            levels = height[by_height][new]
            gaps = _local_spacing(levels, float(alone[group[0]]))
            result[group[by_height]] = gaps[np.cumsum(new) - 1]
    return np.asarray(result[index.rows])


def _local_spacing(levels: Floats, alone: float) -> Floats:
    """Millimetres from each plane to its nearest neighbour."""
    if len(levels) == 1:
        return np.array([alone])
    gaps = np.diff(levels)
    return np.asarray(np.minimum(np.append(np.inf, gaps), np.append(gaps, np.inf)))


def _nearest(levels: Floats, at: Floats) -> Ints:
    above = np.clip(np.searchsorted(levels, at), 1, max(len(levels) - 1, 1))
    if len(levels) == 1:
        return np.zeros(len(at), np.int64)
    lower = at - levels[above - 1] <= levels[above] - at
    return np.asarray(np.where(lower, above - 1, above), np.int64)


def _parallel(planes: Planes, orientation: Floats) -> Flags:
    """Whether frames lie in planes of this orientation: a far corner leaves them by half a pixel at most."""
    assert planes.orientation is not None
    normal = slice_normal(orientation)
    row, column = planes.orientation[:, :3] @ normal, planes.orientation[:, 3:] @ normal
    extent = np.array(planes.shape) * planes.spacing
    lifted = np.abs(column) * extent[:, 0] + np.abs(row) * extent[:, 1]
    result: Flags = lifted <= _HALF_PIXEL * planes.spacing.min(1)
    return result


def _on_grid(
    images: Images, plane: Ints, row: Ints, planes: Planes, orientation: Floats, spacing: Floats
) -> tuple[Ints, Ints, Floats]:
    """(rows down, columns right, pixels that the worst corner is off) of frames on images."""
    assert planes.orientation is not None
    across, down = (part / np.linalg.norm(part) for part in orientation.reshape(2, 3))
    step = np.array([spacing[1], spacing[0]])  # millimetres of a column, of a row
    axes = np.stack([across, down])
    moved = (planes.origin[plane] - images.origin[row]) @ axes.T / step
    whole = np.rint(moved)
    # Where one column and one row of the frame lead to, in pixels of the image.
    own = planes.orientation[plane].reshape(-1, 2, 3)
    own = own / np.linalg.norm(own, axis=2, keepdims=True)
    steps = own * planes.spacing[plane][:, ::-1, None]
    linear = steps @ axes.T / step - np.eye(2)
    corners = np.array([(c, r) for c in (0, planes.shape[1] - 1) for r in (0, planes.shape[0] - 1)])
    off = (moved - whole)[:, None, :] + corners @ linear
    worst = np.abs(off).max(axis=(1, 2)) if len(plane) else np.empty(0)
    return whole[:, 1].astype(np.int64), whole[:, 0].astype(np.int64), worst


def _by_tile(images: Images, rows: Ints, planes: Planes) -> Links:
    """Tiles of masks on the tiles of images that they overlap, in one total pixel matrix."""
    parts = []
    for group in _levels(images, rows):
        if not _one_matrix(images, group, planes):
            continue
        shape, tile = images.shape[group[0]], images.tile[group]
        order = np.argsort(planes.tile[:, 0], kind="stable")
        columns = planes.tile[order, 0]
        for column in np.unique(tile[:, 0]):
            mine = group[tile[:, 0] == column]
            low = np.searchsorted(columns, column - planes.shape[1] + 1)
            high = np.searchsorted(columns, column + shape[1])
            near = order[low:high]
            down = planes.tile[near, 1][:, None] - images.tile[mine, 1][None, :]
            a, b = np.nonzero((down > -planes.shape[0]) & (down < shape[0]))
            right = planes.tile[near[a], 0] - column
            parts.append(
                Links(near[a], mine[b], down[a, b].astype(np.int64), right.astype(np.int64))
            )
    return Links.joined(parts)


def _levels(images: Images, rows: Ints) -> list[Ints]:
    """Rows by the level of the slide that they are of: tiles of several levels are at the same rows and columns."""
    columns = (images.frame_of_reference.codes, images.spacing, images.shape)
    return pieces(numbered([column[rows] for column in columns], len(rows)), rows)


def _one_matrix(images: Images, group: Ints, planes: Planes) -> bool:
    same = images.frame_of_reference[int(group[0])] == planes.frame_of_reference
    spacing = images.spacing[group[0]]
    known = np.isfinite(spacing).all() and np.isfinite(planes.spacing).all()
    return same and (not known or bool(np.allclose(planes.spacing, spacing, rtol=0.01)))


def _tell_disagreement(images: Images, named: Links, planes: Planes, result: Placed) -> None:
    """Planes that lie elsewhere than the image that they name."""
    placed = np.zeros(len(planes), np.bool_)
    placed[result.links.plane] = True
    agrees = np.zeros(len(planes), np.bool_)
    agrees[result.links.plane[_is_named(images, result.links, planes)]] = True
    wrong = named.where(placed[named.plane] & ~agrees[named.plane] & planes.preserved[named.plane])
    if not len(wrong.plane):
        return
    far = [
        abs(float((planes.origin[p] - images.origin[r]) @ slice_normal(images.orientation[r])))
        for p, r in zip(wrong.plane.tolist(), wrong.row.tolist(), strict=True)
        if is_orientation(images.orientation[r])
    ]
    count = len(np.unique(wrong.plane))
    spacing = result.spacing[wrong.plane[0]]
    result.notices.append(
        f"{count} frame{'s' * (count != 1)} lie{'s' * (count == 1)} elsewhere than the image named, by up to "
        f"{max(far, default=0.0):g} mm ({max(far, default=0.0) / spacing:.3g} spacings); the position was taken"
    )
