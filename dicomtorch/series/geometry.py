"""Slices in space: their order, spacing and gaps, and the way between voxels and millimetres.

PS3.3 C.7.6.2.1.1. Voxel indices are (slice, row, column), as the axes of a volume are; points are (x, y, z) in
millimetres in patient coordinates, LPS: x grows to the patient's left, y to the back, z to the head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from dicomtorch.errors import GeometryError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SAME_PLACE = 1e-3
"""Slices that are nearer to each other along the normal than this are at one place, in millimetres."""

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
SKEW = 1e-2
"""How far the vectors of an orientation may be from unit length and a right angle."""

_HALF_PIXEL = 0.5


def is_orientation(orientation: npt.ArrayLike) -> bool:
    """Whether Image Orientation (Patient) holds two unit vectors at a right angle, within rounding."""
    row, column = np.asarray(orientation, np.float64).reshape(2, 3)
    products = np.array([row @ row - 1, column @ column - 1, row @ column])
    return bool((np.abs(products) < SKEW).all())


def slice_normal(orientation: npt.ArrayLike) -> Floats:
    """The unit normal of a slice: row direction x column direction.

    Args:
        orientation: (6,), Image Orientation (Patient).

    Returns:
        (3,).

    Raises:
        GeometryError: The two directions are not at a right angle, or absent.
    """
    return _slice_normal(np.asarray(orientation, np.float64).tobytes()).copy()


@lru_cache(maxsize=1024)  # most series of an archive lie in one of a few directions
def _slice_normal(numbers: bytes) -> Floats:
    orientation = np.frombuffer(numbers)
    if not is_orientation(orientation):
        raise GeometryError(
            f"(0020,0037) ImageOrientationPatient is {orientation.tolist()}; expected two unit "
            f"vectors at a right angle"
        )
    row, column = orientation.reshape(2, 3)
    normal = np.cross(row, column)
    return np.asarray(normal / np.linalg.norm(normal))


def projections(positions: npt.ArrayLike, orientation: npt.ArrayLike) -> Floats:
    """How far along the normal slices lie, in millimetres.

    Args:
        positions: (n, 3), Image Position (Patient).
        orientation: (6,), common to them.

    Returns:
        (n,).
    """
    return dot(np.asarray(positions, np.float64), slice_normal(orientation))


def dot(one: Floats, other: Floats) -> Floats:
    """Products of vectors (..., 3), rounded alike for one and for many, which those of BLAS are not."""
    products = (one[..., k] * other[..., k] for k in range(3))
    return np.asarray(next(products) + next(products) + next(products))


@dataclass(frozen=True)
class Gap:
    """Where slices are missing.

    Attributes:
        after: Place in the order of the slice before it.
        missing: Slices that fit in.
        millimetres: From the slice before to the one behind.
    """

    after: int
    missing: int
    millimetres: float


@dataclass(frozen=True, eq=False)
class SliceGeometry:
    """How parallel slices lie.

    Attributes:
        order: (n,), the slices from the lowest to the highest place along the normal.
        step: (3,), millimetres from one slice to the next, on the average; nan for a single slice.
        spacing: Millimetres between neighbouring planes, along the normal, on the average; nan for a single slice.
        gaps: Where slices are missing.
        repeated: Places in the order whose slice is where the one before it is.
        unequal: Places in the order of slices that are not where equal spacing, with the gaps, would put them.
        error: Most millimetres that a slice is from where `step` puts it.
        tilt: Degrees between `step` and the normal (a gantry tilt) if it moves the last slice by half a pixel or
            more, else 0.
    """

    order: Ints
    step: Floats
    spacing: float
    gaps: tuple[Gap, ...]
    repeated: tuple[int, ...]
    unequal: tuple[int, ...]
    error: float
    tilt: float

    @property
    def is_regular(self) -> bool:
        """Whether one affine says where every slice is."""
        return not (self.gaps or self.repeated or self.unequal)


def arrange(
    positions: npt.ArrayLike, orientation: npt.ArrayLike, pixel_spacing: npt.ArrayLike
) -> SliceGeometry:
    """Orders parallel slices along their normal and finds what is irregular.

    The spacing that gaps are measured by is the median distance of neighbours. Slices are equally spaced where they are
    within 5 % of it of their place, or within 0.1 mm, which positions with one decimal need, if that is not more than
    20 %.

    Args:
        positions: (n, 3), Image Position (Patient), in any order.
        orientation: (6,), Image Orientation (Patient) of all of them.
        pixel_spacing: (2,), of all of them.

    Raises:
        GeometryError: The orientation is none.
    """
    places = np.asarray(positions, np.float64)
    along = projections(places, orientation)
    order = np.argsort(along, kind="stable").astype(np.int64)
    places, along = places[order], along[order]
    if len(order) == 1:
        nan = math.nan
        return SliceGeometry(order, np.full(3, nan), nan, (), (), (), 0.0, 0.0)
    distances = np.diff(along)
    apart = np.sort(distances[distances >= SAME_PLACE])
    repeated = tuple((np.flatnonzero(distances < SAME_PLACE) + 1).tolist())
    step = (places[-1] - places[0]) / (len(order) - 1)
    error = float(offsets(places, np.arange(len(order)), step).max())
    gaps: tuple[Gap, ...] = ()
    unequal: tuple[int, ...] = ()
    if len(apart):
        usual = float(apart[(len(apart) - 1) // 2])
        jumps = np.rint(distances / usual).astype(np.int64)
        jumps[distances >= SAME_PLACE] = np.maximum(jumps[distances >= SAME_PLACE], 1)
        jumps[distances < SAME_PLACE] = 0
        gaps = tuple(
            Gap(int(k), int(jumps[k]) - 1, float(distances[k])) for k in np.flatnonzero(jumps > 1)
        )
        numbers = np.append(0, np.cumsum(jumps))
        off = offsets(places, numbers, (places[-1] - places[0]) / numbers[-1])
        unequal = tuple(np.flatnonzero(off > tolerance(usual)).tolist())
    normal = slice_normal(orientation)
    spacing = dot(step, normal)
    aside, is_sheared = drifts(step, spacing, normal, len(order), np.asarray(pixel_spacing))
    tilt = math.degrees(math.atan2(float(aside), float(spacing))) if is_sheared else 0.0
    return SliceGeometry(order, step, float(spacing), gaps, repeated, unequal, error, tilt)


def offsets(places: Floats, numbers: npt.NDArray[Any], step: Floats) -> Floats:
    """How far slices (..., n, 3) are from where equal steps (..., 3) or (..., 1, 3) from the first would put them."""
    expected = places[..., :1, :] + numbers[:, None] * step
    return np.asarray(np.linalg.norm(places - expected, axis=-1))


def tolerance(usual: npt.ArrayLike) -> Floats:
    """How far slices may be from where equal spacing would put them, by the usual distance of neighbours."""
    distance = np.asarray(usual, np.float64)
    return np.asarray(np.minimum(0.2 * distance, np.maximum(0.05 * distance, 0.1)) + 1e-6)


def drifts(
    step: Floats, spacing: Floats, normal: Floats, count: int, pixel: Floats
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """How far a step (..., 3) goes beside the normal, and whether `count` slices go half a pixel so."""
    beside = step - spacing[..., None] * normal
    aside = np.sqrt(dot(beside, beside))
    return aside, np.asarray(aside * (count - 1) >= _HALF_PIXEL * pixel.min(axis=-1))


def affine_lps(
    position: npt.ArrayLike,
    orientation: npt.ArrayLike,
    pixel_spacing: npt.ArrayLike,
    step: npt.ArrayLike,
) -> Floats:
    """The matrix from voxel indices (slice, row, column, 1) to millimetres (x, y, z, 1).

    Args:
        position: (3,), Image Position (Patient) of the first slice: the centre of its first pixel.
        orientation: (6,), Image Orientation (Patient); its two directions are made unit vectors, because files round
            them.
        pixel_spacing: (2,): between rows, between columns.
        step: (3,), from one slice to the next. It need not be along the normal: a tilted gantry shears.

    Returns:
        (4, 4).
    """
    directions = np.asarray(orientation, np.float64).reshape(2, 3)
    row, column = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    between_rows, between_columns = np.asarray(pixel_spacing, np.float64)
    affine = np.eye(4)
    affine[:3, 0] = np.asarray(step, np.float64)
    affine[:3, 1] = column * between_rows
    affine[:3, 2] = row * between_columns
    affine[:3, 3] = np.asarray(position, np.float64)
    return affine


def to_ras(affine: npt.ArrayLike) -> Floats:
    """An affine to RAS (NIfTI, MONAI) from one to LPS (DICOM, ITK), or the other way round."""
    return np.asarray(_LPS_TO_RAS @ np.asarray(affine, np.float64))


def shifted(affine: npt.ArrayLike, start: npt.ArrayLike) -> Floats:
    """The affine of a part of a volume whose first voxel is `start` (slice, row, column) of the whole."""
    result = np.array(affine, np.float64)
    result[:3, 3] += result[:3, :3] @ np.asarray(start, np.float64)
    return result


def scaled(affine: npt.ArrayLike, factors: npt.ArrayLike, start: npt.ArrayLike) -> Floats:
    """The affine of a resampled volume.

    Args:
        affine: Of the volume before.
        factors: (3,), old voxels for one new voxel along each axis.
        start: (3,), old index of the centre of the new first voxel.
    """
    result = shifted(affine, start)
    result[:3, :3] *= np.asarray(factors, np.float64)
    return result


def voxel_to_patient(voxels: npt.ArrayLike, affine: npt.ArrayLike) -> Floats:
    """Millimetres of voxel indices.

    Source: PS3.3 C.7.6.2.1.1.

    Args:
        voxels: (..., 3): slice, row, column; whole numbers are centres of voxels.
        affine: (4, 4), or (B, 4, 4) for `voxels` (B, ..., 3).

    Returns:
        (..., 3): x, y, z in the coordinates that the affine leads to.
    """
    points, matrix = np.asarray(voxels, np.float64), np.asarray(affine, np.float64)
    return np.asarray(_turned(points, matrix[..., :3, :3]) + _beside(matrix[..., :3, 3], points))


def patient_to_voxel(points: npt.ArrayLike, affine: npt.ArrayLike) -> Floats:
    """Voxel indices, with fractions, of millimetres: the inverse of `voxel_to_patient`.

    Source: PS3.3 C.7.6.2.1.1.

    Args:
        points: (..., 3): x, y, z.
        affine: (4, 4), or (B, 4, 4) for `points` (B, ..., 3).

    Returns:
        (..., 3): slice, row, column.

    Raises:
        GeometryError: The affine has no inverse.
    """
    at, matrix = np.asarray(points, np.float64), np.asarray(affine, np.float64)
    try:
        inverse = np.linalg.inv(matrix[..., :3, :3])
    except np.linalg.LinAlgError as error:
        raise GeometryError(f"the affine has no inverse: {matrix.tolist()}") from error
    return _turned(at - _beside(matrix[..., :3, 3], at), np.asarray(inverse, np.float64))


def _turned(points: Floats, matrix: Floats) -> Floats:
    batch, rest = matrix.shape[:-2], points.ndim - 1 - (matrix.ndim - 2)
    matrix = matrix.reshape(*batch, *(1,) * rest, 3, 3)
    return np.asarray((matrix @ points[..., None])[..., 0])


def _beside(origin: Floats, points: Floats) -> Floats:
    """`origin` with axes of length 1 before its last, so that it is added to each point of its volume."""
    rest = points.ndim - origin.ndim
    return origin.reshape(*origin.shape[:-1], *(1,) * max(rest, 0), 3)
