"""Which frames of an index are slices of one volume, in which order, and what is irregular about them.

PS3.3 C.7.6.2 (Image Plane), C.7.6.16.2.3 and C.7.6.16.2.4 (plane position and orientation of a frame).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from dicomtorch.series.geometry import (
    Floats,
    Ints,
    patient_to_voxel,
    projections,
    shifted,
    voxel_to_patient,
)

OnGap = Literal["raise", "warn", "keep"]

REPEATED = "several slices at one place, which nothing tells apart"
"""A reason of `LeftOut`."""
SINGLE = "a single place, which is no volume"
"""A reason of `LeftOut`."""
FOREIGN = "is not that of the volume of its series"
"""How a reason of `LeftOut` ends."""
MISSING = "slices are missing of a volume"
"""In a reason of `LeftOut`."""

_LISTED = 8  # files in a message


@dataclass(frozen=True)
class StackGap:
    """Where slices are missing.

    Attributes:
        before: File (and frame) of the slice before.
        after: Of the slice behind.
        missing: Slices that fit in.
        millimetres: Between the two.
        changes: Attributes that change there and nowhere else in the stack.
    """

    before: str
    after: str
    missing: int
    millimetres: float
    changes: tuple[str, ...] = ()

    def __str__(self) -> str:
        where = f", where {' and '.join(self.changes)} changes" if self.changes else ""
        return f"{self.missing} missing between {self.before} and {self.after} ({self.millimetres:g} mm){where}"


@dataclass(frozen=True)
class StackReport:
    """What is odd about a stack.

    Attributes:
        gaps: Where slices are missing.
        unequal: Files of slices that are not where equal spacing would put them.
        duplicates: Files that were left out because they are copies of a slice: they have its SOPInstanceUID.
        localizers: Files of the same series that were left out because they are localizers.
        position_error: Most millimetres that a slice is from where the affine puts it.
        tilt: Degrees by which the way from slice to slice departs from the normal (gantry tilt), 0 for none; the affine
            then has a shear.
        direction_error: Most millimetres by which a corner of a slice is off because its directions and pixel spacing
            are not quite those of the affine, which are the mean directions and the most frequent spacing.
        remarks: What else is to be known: what alternates, or tells this volume apart without being meant to.
    """

    gaps: tuple[StackGap, ...] = ()
    unequal: tuple[str, ...] = ()
    duplicates: tuple[str, ...] = ()
    localizers: tuple[str, ...] = ()
    position_error: float = 0.0
    tilt: float = 0.0
    direction_error: float = 0.0
    remarks: tuple[str, ...] = ()

    @property
    def is_regular(self) -> bool:
        """Whether the affine says where every slice is."""
        return not (self.gaps or self.unequal)

    @property
    def is_only_uneven(self) -> bool:
        """Whether nothing is irregular but that steps from slice to slice are not equal."""
        return bool(self.unequal) and not self.gaps

    @property
    def problems(self) -> str:
        """What is irregular, in words; "" if nothing is."""
        parts = [str(gap) for gap in self.gaps[:_LISTED]]
        if len(self.gaps) > _LISTED:
            parts.append(f"{len(self.gaps) - _LISTED} more gaps")
        if self.unequal:
            parts.append(
                f"unequal spacing: {listed(self.unequal)} lie off by up to {self.position_error:g} mm"
            )
        return "; ".join(parts)


@dataclass(frozen=True, eq=False, slots=True)
class Stack:
    """Slices of one volume.

    Source: PS3.3 C.7.6.2 (Image Plane).

    Attributes:
        positions: (D,), of its slices in the index, ordered along the normal; slices that lie beside each other in one
            frame (a mosaic) have the same position.
        affine: (4, 4), from voxel indices (slice, row, column, 1) to millimetres in LPS. Of an irregular stack it is
            that of equal spacing from the first to the last slice; `report.position_error` says how far off that is.
        spacing: Millimetres between slices, between rows, between columns.
        shape: (D, rows, columns).
        origins: (D, 3), Image Position (Patient) of each slice.
        orientation: (6,), Image Orientation (Patient).
        report: What is odd.
        separated_by: Attributes that tell it from other volumes at the same or neighbouring places.
        differing: Attributes that are not the same in all of its slices, and do not part them.
        problems: What is missing or irregular, in words; what `on_gap` decides about.
        windows: (D, 4), first row, first column, rows and columns of each slice in its frame; `None`: slices are whole
            frames.
    """

    positions: Ints
    affine: Floats
    spacing: tuple[float, float, float]
    shape: tuple[int, int, int]
    origins: Floats
    orientation: Floats
    report: StackReport
    separated_by: tuple[str, ...] = ()
    differing: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    windows: Ints | None = None

    def __len__(self) -> int:
        return len(self.positions)

    def __repr__(self) -> str:
        spacing = " x ".join(f"{number:.4g}" for number in self.spacing)
        size = " x ".join(map(str, self.shape))
        return f"Stack({size}, {spacing} mm{'' if self.report.is_regular else ', irregular'})"

    def patient_to_voxel(self, points: npt.ArrayLike) -> Floats:
        """Voxel indices (slice, row, column), with fractions, of points (..., 3) in millimetres, LPS.

        In an irregular stack the slice is found by the places of the slices themselves, not by the affine.

        Source: PS3.3 C.7.6.2.1.1.
        """
        if not self.report.is_regular:
            places = projections(self.origins, self.orientation)
            along = projections(points, self.orientation)
            slices = np.interp(along, places, np.arange(len(self)))
            points = np.asarray(points, np.float64) - self._aside(slices)
        return patient_to_voxel(points, self.affine)

    def voxel_to_patient(self, voxels: npt.ArrayLike) -> Floats:
        """(..., 3) float64, mm (LPS), of voxel indices (..., 3): slice, row, column; inverse of `patient_to_voxel`."""
        points = voxel_to_patient(voxels, self.affine)
        if not self.report.is_regular:
            points = points + self._aside(np.asarray(voxels, np.float64)[..., 0])
        return points

    def _aside(self, slices: Floats) -> Floats:
        """How far (..., 3) slices of an irregular stack are from where the affine puts them."""
        inside = np.clip(slices, 0, len(self) - 1)
        k = np.minimum(np.floor(inside).astype(np.int64), len(self) - 2)
        between = (inside - k)[..., None]
        origin = self.origins[k] * (1 - between) + self.origins[k + 1] * between
        evenly = self.affine[:3, 3] + inside[..., None] * self.affine[:3, 0]
        return np.asarray(origin - evenly)

    def affine_of(self, first: int, end: int) -> Floats:
        """(4, 4) float64, voxels to mm: the affine of slices `first` to `end` - 1, if irregular by where these are."""
        if self.report.is_regular or end - first < 2:
            affine = shifted(self.affine, (first, 0, 0))
        else:
            affine = self.affine.copy()
            affine[:3, 0] = (self.origins[end - 1] - self.origins[first]) / (end - first - 1)
        if not self.report.is_regular:
            affine[:3, 3] = self.origins[first]
        return affine


@dataclass(frozen=True, eq=False)
class LeftOut:
    """Frames that are in no stack.

    Attributes:
        positions: In the index.
        reason: Why.
    """

    positions: Ints
    reason: str

    @property
    def is_problem(self) -> bool:
        """Whether the frames belong to volumes, so that `on_gap` decides about them."""
        return self.reason == REPEATED or self.reason.endswith(FOREIGN) or MISSING in self.reason


class StackList(list[Stack]):
    """The stacks of an index.

    Attributes:
        left_out: The frames that are in none, by reason; but for copies of a slice.
        copies: Positions of the copies that were left out; the report of each stack names its own.
        problems: What `on_gap` decides about, in words.
    """

    left_out: tuple[LeftOut, ...] = ()
    copies: Ints = np.empty(0, np.int64)
    problems: tuple[str, ...] = ()

    def reasons(self) -> str:
        """Why frames are in no stack, in words, with their number."""
        counts: Counter[str] = Counter()
        for part in self.left_out:
            counts[part.reason] += len(part.positions)
        return "; ".join(f"{count}: {reason}" for reason, count in counts.most_common())


def listed(names: Iterable[str]) -> str:
    """Names for a message, the first few of them."""
    found = list(names)
    more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    return f"{', '.join(found[:_LISTED])}{more}"
