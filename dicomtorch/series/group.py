"""Slices that may make one volume or several, their places (rule 2), and what their keys say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dicomtorch._forks import lazy
from dicomtorch.index.codes import pieces
from dicomtorch.series.geometry import (
    SAME_PLACE,
    Floats,
    Ints,
    SliceGeometry,
    arrange,
    projections,
    slice_normal,
)
from dicomtorch.series.keys import ASIDE, DIRECTION, LAST, ORIENTATION, RANKED, UNCOUNTED, UNMIXED
from dicomtorch.series.slices import Slices

_FINE = 1e-4  # of direction cosines, and of millimetres between pixels
_HALF_PIXEL = 0.5
_SAME_RISE = 1e-6
_NOWHERE = 9.0  # beyond every direction


class Group:
    """Some slices of one plane.

    Args:
        slices: All slices.
        rows: Which they are.
        places: A number for the place of each along the normal, where a larger group has found these.
    """

    def __init__(self, slices: Slices, rows: Ints, places: Ints | None = None) -> None:
        self.slices = slices
        self.rows = rows
        self._given = places

    def __len__(self) -> int:
        return len(self.rows)

    @lazy
    def orientation(self) -> Floats:
        """(6,), the directions in the middle."""
        found = self.slices.orientation[self.rows]
        if (found == found[0]).all():
            return np.asarray(found[0])
        row, column = found.mean(axis=0).reshape(2, 3)
        row = row / np.linalg.norm(row)
        column = column - (column @ row) * row
        return np.concatenate([row, column / np.linalg.norm(column)])

    @lazy
    def along(self) -> Floats:
        """(n,), millimetres along the normal."""
        return projections(self.slices.place[self.rows], self.orientation)

    @lazy
    def places(self) -> Ints:
        """(n,), the place of each, from 0 without gaps, in the order along the normal."""
        if self._given is not None:
            return np.unique(self._given, return_inverse=True)[1].ravel().astype(np.int64)
        order = np.argsort(self.along, kind="stable")
        steps = np.diff(self.along[order], prepend=self.along[order[0]])
        places = np.empty(len(self.rows), np.int64)
        places[order] = np.cumsum(steps > _same_place(steps, float(self.pixel.min())))
        return places

    @lazy
    def counts(self) -> Ints:
        """Slices at each place."""
        return np.bincount(self.places)

    @property
    def is_single(self) -> bool:
        """Whether there is one slice at every place."""
        return bool(self.counts.max() == 1)

    @lazy
    def pixel(self) -> Floats:
        """(2,), the most frequent pixel spacing."""
        found = self.slices.pixel[self.rows]
        if (found == found[0]).all():
            return np.asarray(found[0])
        known, often = np.unique(found, axis=0, return_counts=True)
        return np.asarray(known[np.argmax(often)])

    @lazy
    def geometry(self) -> SliceGeometry:
        """How the slices lie."""
        return arrange(self.slices.place[self.rows], self.orientation, self.pixel)

    @lazy
    def beside(self) -> Floats:
        """(n, 3), where the slices are beside the normal."""
        normal = slice_normal(self.orientation)
        place = self.slices.place[self.rows]
        return np.asarray(place - np.outer(place @ normal, normal))

    @lazy
    def by_number(self) -> list[frozenset[int]] | None:
        """The slices of each part that Instance Number makes by its ranks."""
        parts = self.ranked(LAST)
        return None if parts is None else [frozenset(part.rows.tolist()) for part in parts]

    @lazy
    def _span(self) -> Ints | slice:
        """The rows; where one follows another, as what copies nothing."""
        first, last = int(self.rows[0]), int(self.rows[-1])
        if last - first == len(self) - 1 and (self.rows[1:] > self.rows[:-1]).all():
            return slice(first, last + 1)
        return self.rows

    # What keys say

    def codes(self, key: str) -> Ints | None:
        """(n,), equal for slices that a key does not tell apart; `None` where it tells none apart."""
        if key == ORIENTATION:
            rows = self.rows
            return _near(
                np.concatenate([self.slices.orientation[rows], self.slices.pixel[rows]], axis=1),
                _FINE,
            )
        if key == ASIDE:
            return _near(self.beside, _HALF_PIXEL * float(self.slices.pixel[self.rows].min()))
        found = self.slices.codes(key)
        if found is None:
            return None
        codes = found[self._span]
        if (codes == codes[0]).all():
            return None
        codes = codes.astype(np.int64, copy=False)
        if key == DIRECTION:
            return _near(np.nan_to_num(self.slices.directions[self.rows], nan=_NOWHERE), _FINE)
        return codes

    def take(self, chosen: Ints, *, anew: bool = False) -> Group:
        """Some of the slices, at the places that they have here; `anew`: at places of their own."""
        return Group(self.slices, self.rows[chosen], None if anew else self.places[chosen])

    def parts(self, codes: Ints, *, anew: bool = False) -> list[Group]:
        """The group by the codes of a key."""
        return [self.take(piece, anew=anew) for piece in pieces(codes)]

    def tells(self, key: str) -> bool:
        """Whether a key differs at one place."""
        if key == "SOPInstanceUID" and (self.slices.in_file[self.rows] < 2).any():
            return False
        codes = self.codes(key)
        if codes is None:
            return False
        pairs = np.unique(self.places * (int(codes.max()) + 1) + codes)
        return len(pairs) > len(self.counts)

    def by(self, key: str) -> list[Group] | None:
        """The parts that a key makes, if it qualifies (rule 4b), else those of its ranks (rule 4c)."""
        if key != LAST:
            codes = self.codes(key)
            if codes is None:
                return None
            parts = self.parts(codes)
            # Largest counts that sum to the group's: no value of its own for each slice, no interleaved packages.
            if sum(int(part.counts.max()) for part in parts) == self.counts.max():
                return parts
        return self.ranked(key) if key in RANKED else None

    def ranked(self, key: str) -> list[Group] | None:
        """The k-th of each place by a number: each place has as many, all different, and in one order (rule 4c)."""
        if (self.counts != self.counts[0]).any():
            return None
        values = self.slices.numbers(key, self.rows)
        if np.isnan(values).any():
            return None
        order = np.lexsort((values, self.places)).reshape(len(self.counts), -1)
        table = values[order]
        if (np.diff(table, axis=1) <= 0).any() or not (key == "TriggerTime" or _in_order(table)):
            return None
        parts = [self.take(order[:, k]) for k in range(order.shape[1])]
        if key == LAST and mixed([name for name in UNMIXED if self.tells(name)], parts):
            return None
        return parts


def mixed(keys: Sequence[str], parts: Sequence[Group]) -> int:
    """Of how many keys some part has several values."""
    counted = [key for key in keys if key not in UNCOUNTED]
    return sum(any(part.codes(key) is not None for part in parts) for key in counted)


def _same_place(steps: Floats, pixel: float) -> float:
    """How near slices of one place are: by the step at which half of the way is covered (rule 2).

    Nobody lays slices nearer to each other than a tenth of a pixel: where steps are shorter, one place drifts.
    """
    apart = np.sort(steps[steps > 0])
    if not len(apart):
        return SAME_PLACE
    way = np.cumsum(apart)
    typical = float(apart[np.searchsorted(way, way[-1] / 2)])
    least = min(pixel / 10, 0.1)
    return least if typical < least else max(min(typical / 20, least), SAME_PLACE)


def _in_order(table: Floats) -> bool:
    """Whether numbers (places, volumes) rise alike at each place, or run volume after volume, or place after place."""
    rises = table - table[:, :1]
    if (np.abs(rises - rises[0]) <= _SAME_RISE).all():
        return True
    if (table[:, :-1].max(axis=0) < table[:, 1:].min(axis=0)).all():
        return True
    order = np.argsort(table[:, 0])
    return bool((table[order[:-1], -1] < table[order[1:], 0]).all())


def _near(values: Floats, tolerance: float) -> Ints | None:
    """Numbers for rows that are within a tolerance of the first of their cluster; `None` if all are."""
    if (np.abs(values - values[0]) <= tolerance).all():
        return None
    known, inverse = np.unique(values, axis=0, return_inverse=True)
    codes = np.full(len(known), -1, np.int64)
    for k in range(len(known)):
        if codes[k] < 0:
            codes[(codes < 0) & (np.abs(known - known[k]) <= tolerance).all(axis=1)] = k
    found: npt.NDArray[np.int64] = codes[inverse.ravel()]
    return found
