"""Rule 1: which slices can make a volume, and which of them may belong together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dicomtorch.index.codes import numbered, pieces
from dicomtorch.index.columns import Texts
from dicomtorch.series.geometry import SKEW, Floats, Ints, dot
from dicomtorch.series.keys import ALIKE
from dicomtorch.series.slices import Slices

MOST_TURNED = 5e-3
"""How far a direction may be from the middle of those of its cluster."""

_HALF_PIXEL = 0.5
_CINE = frozenset({"US", "IVUS", "XA", "RF"})
# Reconstructions by machines whose other images are projections or planes held by hand.
_VOLUME_CLASSES = frozenset(
    f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("6.2", "13.1.1", "13.1.2", "13.1.3")
)

Bools = npt.NDArray[np.bool_]


def unusable(slices: Slices, *, sheets: bool) -> list[tuple[Bools, str]]:
    """Which slices can be in no volume, and why; the first reason of each counts."""
    index = slices.index
    localizer = _has_value(index.column("ImageType"), {"LOCALIZER", "SCOUT"})
    cine = _among(index.column("Modality"), _CINE)
    cine &= ~_among(index.column("SOPClassUID"), _VOLUME_CLASSES)
    placed, oriented = _finite(slices.place), _finite(slices.orientation)
    spaced = _finite(slices.pixel) & _all(slices.pixel > 0)
    reasons: list[tuple[Bools, str]] = [
        (localizer[slices.rows], "localizers, by their ImageType"),
        (cine[slices.rows], "ultrasound, angiography or fluoroscopy, which are no volumes"),
        (~placed, "ImagePositionPatient is missing"),
        (~oriented, "ImageOrientationPatient is missing"),
        (~spaced, "PixelSpacing is missing"),
        (
            _skewed(slices.orientation, oriented),
            "ImageOrientationPatient is not two unit vectors at a right angle",
        ),
    ]
    if not sheets:
        reasons.insert(
            0, (slices.is_sheet, 'sheets of several slices, which mosaic="sheet" keeps whole')
        )
    return reasons


def localizers(slices: Slices) -> Bools:
    """Which slices are localizers."""
    return _has_value(slices.index.column("ImageType"), {"LOCALIZER", "SCOUT"})[slices.rows]


def candidates(slices: Slices, rows: Ints, split_by: Sequence[str]) -> list[Ints]:
    """Sets of slices of one series, kind, size and plane."""
    codes = (slices.codes(name) for name in (*ALIKE, *split_by))
    alike = numbered((code[rows] for code in codes if code is not None), len(rows))
    return [cluster for group in pieces(alike, rows) for cluster in _parallel(slices, group)]


def _parallel(slices: Slices, group: Ints) -> list[Ints]:
    """A group by what moves no corner of the image by more than half a pixel, and turns it no further than that."""
    if len(group) == 1:
        return [group]
    orientation, pixel = slices.orientation[group], slices.pixel[group]
    if (orientation == orientation[0]).all() and (pixel == pixel[0]).all():
        return [group]
    known, inverse = np.unique(
        np.concatenate([orientation, pixel], axis=1), axis=0, return_inverse=True
    )
    rows, columns = slices.size(int(group[0]))
    across = known[:, :3] * (known[:, 7:8] * (columns - 1))
    down = known[:, 3:6] * (known[:, 6:7] * (rows - 1))
    corners = np.stack([across, down, across + down], axis=1)
    turns = np.stack([known[:, :3], known[:, 3:6]], axis=1)
    half = _HALF_PIXEL * float(known[:, 6:8].min())
    return pieces(_clusters(corners, half, turns)[inverse.ravel()], group)


def _clusters(corners: Floats, most: float, turns: Floats) -> Ints:
    """Numbers of clusters whose members are near their middle: (n, 3, 3) corners, (n, 2, 3) directions."""
    codes = np.full(len(corners), -1, np.int64)
    while (codes < 0).any():
        left = np.flatnonzero(codes < 0)
        members = _about(corners[left], most, turns[left])
        codes[left[members]] = codes.max() + 1
    return codes


def _about(corners: Floats, most: float, turns: Floats) -> Bools:
    """The members of one cluster: begins with what is near the first, then moves to the middle of what is near."""

    def near(middle: Floats, turn: Floats, factor: float = 1.0) -> Bools:
        moved = np.linalg.norm(corners - middle, axis=2).max(axis=1)
        turned = np.linalg.norm(turns - turn, axis=2).max(axis=1)
        found: Bools = (moved <= factor * most) & (turned <= factor * MOST_TURNED)
        return found

    chosen = near(corners[0], turns[0], 2.0)
    for _ in range(4):
        again = near(_middle(corners[chosen]), _middle(turns[chosen]))
        if not again.any():
            again = np.arange(len(corners)) == 0
        if (again == chosen).all():
            break
        chosen = again
    return chosen


def _middle(points: Floats) -> Floats:
    return np.asarray((points.max(axis=0) + points.min(axis=0)) / 2)


def _skewed(orientation: Floats, oriented: Bools) -> Bools:
    row, column = orientation[:, :3], orientation[:, 3:]
    right = oriented.copy()
    for one, other, wanted in ((row, row, 1), (column, column, 1), (row, column, 0)):
        with np.errstate(invalid="ignore"):  # infinite where it is none
            right &= np.abs(dot(one, other) - wanted) < SKEW
    return oriented & ~right


def _finite(values: Floats) -> Bools:
    return _all(np.isfinite(values))


def _all(values: Bools) -> Bools:
    """Where all of a row are true."""
    return np.asarray(np.logical_and.reduce([*values.T]), np.bool_)


def _among(column: Texts, wanted: frozenset[str]) -> Bools:
    codes = [code for code in (column.code(value) for value in wanted) if code >= 0]
    return np.isin(column.codes, codes)


def _has_value(column: Texts, wanted: set[str]) -> Bools:
    """Where one of the values, which are joined with a backslash, is wanted."""
    used = np.unique(column.codes).tolist()
    codes = [
        code
        for code in used
        if wanted & {part.strip().upper() for part in column.value(code).split("\\")}
    ]
    return np.isin(column.codes, codes)
