"""Volumes of regular slices, many at once: an archive has thousands of them, and little to say about each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from dicomtorch.index.codes import pieces
from dicomtorch.series.geometry import (
    SAME_PLACE,
    Floats,
    Ints,
    dot,
    drifts,
    offsets,
    slice_normal,
    tolerance,
)
from dicomtorch.series.keys import CONTENT, DIFFERING, DIRECTION
from dicomtorch.series.slices import Slices
from dicomtorch.series.stacks import Stack, StackReport

_DIFFERING = tuple(
    name for name in DIFFERING if name not in ("PixelSpacing", "ImageOrientationPatient")
)
_AT_ONCE = 1 << 15  # slices whose numbers lie beside each other

Bools = npt.NDArray[np.bool_]


def build_regular(
    slices: Slices, sets: Sequence[Ints], series: Ints, localizers: Mapping[int, Ints]
) -> list[Stack | None]:
    """The stack of each set of slices that is one regular volume without doubt, `None` for the others.

    Those have several slices of one plane to the bit, one at each place, far from each other and evenly spaced, and
    nothing in their content may part them; `build` makes the same of them.

    Args:
        slices: All slices.
        sets: Candidates (rule 1).
        series: The number of the series of each.
        localizers: Of each series that has some.
    """
    found: list[Stack | None] = [None] * len(sets)
    lengths = np.fromiter(map(len, sets), np.int64, len(sets))
    for alike in pieces(lengths):
        length = int(lengths[alike[0]])
        if length < 2:
            continue
        at_once = max(1, _AT_ONCE // length)
        for first in range(0, len(alike), at_once):
            some = alike[first : first + at_once]
            rows = np.stack([sets[k] for k in some.tolist()])
            made = _Regular(slices, rows)
            local = [localizers.get(number) for number in series[some[made.chosen]].tolist()]
            for k, stack in zip(some[made.chosen].tolist(), made.stacks(local), strict=True):
                found[k] = stack
    return found


class _Regular:
    """Those of some sets of equally many slices that are regular.

    Attributes:
        chosen: (k,), which of the sets they are.
        rows: (k, n), their slices in order.
    """

    rows: Ints
    _place: Floats
    _normal: Floats

    def __init__(self, slices: Slices, rows: Ints) -> None:
        self._slices = slices
        self.chosen = np.flatnonzero(_in_one_plane(slices, rows) & ~_may_part(slices, rows))
        rows = rows[self.chosen]
        along = self._look(rows)
        is_regular = self._is_regular(along, slices.pixel[rows[:, 0]])
        self.chosen = self.chosen[is_regular]
        self.rows, self._place = self.rows[is_regular], self._place[is_regular]
        self._normal = self._normal[is_regular]

    def _look(self, rows: Ints) -> Floats:
        """Puts slices in order along the normal; millimetres along it."""
        orientation = self._slices.orientation[rows[:, 0]]
        self._normal = np.array([slice_normal(one) for one in orientation]).reshape(-1, 3)
        along = dot(self._slices.place[rows], self._normal[:, None])
        order = np.argsort(along, axis=1, kind="stable")
        self.rows = np.take_along_axis(rows, order, axis=1)
        self._place = self._slices.place[self.rows]
        return np.take_along_axis(along, order, axis=1)

    def _is_regular(self, along: Floats, pixel: Floats) -> Bools:
        distances = np.diff(along, axis=1)
        # Farther apart than slices of one place can be, wherever the limit of these is.
        least = np.maximum(np.minimum(pixel.min(axis=1) / 10, 0.1), SAME_PLACE)
        apart = distances.min(axis=1) > least
        middle = (distances.shape[1] - 1) // 2
        usual = np.partition(distances, middle, axis=1)[:, middle]
        with np.errstate(divide="ignore", invalid="ignore"):  # where places are one
            has_gaps = np.rint(distances / usual[:, None]).max(axis=1) > 1
        return np.asarray(apart & ~has_gaps & (self._errors() <= tolerance(usual)), np.bool_)

    def _steps(self) -> Floats:
        return np.asarray((self._place[:, -1] - self._place[:, 0]) / (self.rows.shape[1] - 1))

    def _errors(self) -> Floats:
        numbers = np.arange(self.rows.shape[1])
        off = offsets(self._place, numbers, self._steps()[:, None])
        return np.asarray(off.max(axis=1))

    def stacks(self, localizers: Sequence[Ints | None]) -> list[Stack]:
        """One for each.

        Args:
            localizers: Of the series of each.
        """
        slices, rows, first = self._slices, self.rows, self.rows[:, 0]
        steps, errors, pixel = self._steps(), self._errors().tolist(), slices.pixel[first]
        between, tilts = _between(steps, self._normal, rows.shape[1], pixel)
        affines = _affines(self._place[:, 0], slices.orientation[first], pixel, steps)
        positions = slices.rows[rows]
        sizes, differing = _sizes(slices, first), _differing(slices, rows)
        spacings = zip(between, *pixel.T.tolist(), strict=True)
        return [
            Stack(
                positions=positions[k],
                affine=affines[k],
                spacing=spacing,
                shape=(rows.shape[1], *sizes[k]),
                origins=self._place[k],
                orientation=slices.orientation[int(first[k])],
                report=StackReport(
                    localizers=() if local is None else tuple(slices.names(local)),
                    position_error=errors[k],
                    tilt=tilts[k],
                ),
                differing=differing[k],
                windows=slices.windows_of(rows[k]),
            )
            for k, (spacing, local) in enumerate(zip(spacings, localizers, strict=True))
        ]


def _in_one_plane(slices: Slices, rows: Ints) -> Bools:
    """Which sets have one orientation and pixel spacing, to the bit."""
    found = np.ones(len(rows), np.bool_)
    for values in (*slices.orientation.T, *slices.pixel.T):
        there = values[rows]
        found &= (there == there[:, :1]).all(axis=1)
    return found


def _may_part(slices: Slices, rows: Ints) -> Bools:
    """Which sets have content that may part them (rule 3b), or directions that may be alike but for rounding."""
    found = np.zeros(len(rows), np.bool_)
    for name in (*CONTENT, DIRECTION):
        found |= slices.vary(name, rows)
    return found


def _differing(slices: Slices, rows: Ints) -> list[tuple[str, ...]]:
    """The columns of `DIFFERING` that vary in each set; the plane is one."""
    names: list[tuple[str, ...]] = [()] * len(rows)
    for name in _DIFFERING:
        for k in np.flatnonzero(slices.vary(name, rows)).tolist():
            names[k] = (*names[k], name)
    return names


def _between(
    steps: Floats, normal: Floats, count: int, pixel: Floats
) -> tuple[list[float], list[float]]:
    """(millimetres along the normal from slice to slice, degrees of tilt) of each volume."""
    spacing = dot(steps, normal)
    aside, is_sheared = drifts(steps, spacing, normal, count, pixel)
    far = aside.tolist()
    between = spacing.tolist()
    tilts = [0.0] * len(between)
    for k in np.flatnonzero(is_sheared).tolist():
        tilts[k] = math.degrees(math.atan2(far[k], between[k]))
    return between, tilts


def _affines(place: Floats, orientation: Floats, pixel: Floats, steps: Floats) -> Floats:
    """(k, 4, 4), as `affine_lps` has them."""
    directions = orientation.reshape(-1, 2, 3)
    directions = directions / np.linalg.norm(directions, axis=2, keepdims=True)
    affines = np.zeros((len(place), 4, 4))
    affines[:, :3, 0] = steps
    affines[:, :3, 1] = directions[:, 1] * pixel[:, :1]
    affines[:, :3, 2] = directions[:, 0] * pixel[:, 1:]
    affines[:, :3, 3] = place
    affines[:, 3, 3] = 1
    return affines


def _sizes(slices: Slices, first: Ints) -> list[tuple[int, int]]:
    """Rows and columns of some slices."""
    if slices.windows is not None:
        return list(map(tuple, slices.windows[first, 2:].tolist()))
    positions = slices.rows[first]
    rows, columns = (slices.index.gather(name, positions) for name in ("Rows", "Columns"))
    return list(zip(map(int, rows), map(int, columns), strict=True))
