"""A stack of slices that belong together, and what is to be said about it."""

from __future__ import annotations

import numpy as np

from dicomtorch.series.geometry import Floats, Ints, affine_lps, slice_normal
from dicomtorch.series.group import Group
from dicomtorch.series.keys import CONTENT, DIFFERING, LAST, TIMES, shown
from dicomtorch.series.parts import Part
from dicomtorch.series.slices import VECTORS, Slices
from dicomtorch.series.stacks import Stack, StackGap, StackReport

_ALTERNATES = 0.8  # of the steps from slice to slice
_FEWEST = 4  # slices of a stack in which something alternates


def build(part: Part, whole: Group, copies: Ints, localizers: Ints, missing: str = "") -> Stack:
    """The stack of a part.

    Args:
        part: One slice at each place.
        whole: What it is a part of.
        copies: Slices left out because they are copies of some of it.
        localizers: Of its series.
        missing: What it lacks beside the other parts, in words.
    """
    group, slices = part.group, part.group.slices
    geometry = group.geometry
    ordered = group.rows[geometry.order]
    start = int(ordered[0])
    separated = tuple(name for key in part.keys for name in _names(slices, key, whole.rows))
    report = StackReport(
        gaps=tuple(
            StackGap(
                slices.name(int(ordered[gap.after])),
                slices.name(int(ordered[gap.after + 1])),
                gap.missing,
                gap.millimetres,
                _changes(slices, ordered, [g.after for g in geometry.gaps], gap.after),
            )
            for gap in geometry.gaps
        ),
        unequal=tuple(slices.name(int(ordered[k])) for k in geometry.unequal),
        duplicates=tuple(slices.names(copies)),
        localizers=tuple(slices.names(localizers)),
        position_error=geometry.error,
        tilt=geometry.tilt,
        direction_error=_direction_error(group),
        remarks=_remarks(whole, ordered, part.keys),
    )
    problems: tuple[str, ...] = (missing,) if missing else ()
    if not report.is_regular:
        problems += (f"a stack of {len(ordered)} slices: {report.problems}",)
    rows, columns = slices.size(start)
    between_rows, between_columns = group.pixel.tolist()
    step, between = geometry.step, geometry.spacing
    if len(ordered) == 1:
        step, between = _step_of_one(group)
    return Stack(
        positions=slices.rows[ordered],
        affine=affine_lps(slices.place[start], group.orientation, group.pixel, step),
        spacing=(between, between_rows, between_columns),
        shape=(len(ordered), rows, columns),
        origins=slices.place[ordered],
        orientation=group.orientation,
        report=report,
        separated_by=separated,
        differing=tuple(name for name in DIFFERING if group.codes(name) is not None),
        problems=problems,
        windows=slices.windows_of(ordered),
    )


def _step_of_one(group: Group) -> tuple[Floats, float]:
    """From a single slice to where the next would be: Spacing Between Slices, else Slice Thickness, else 1 mm."""
    row = group.slices.rows[group.rows[:1]]
    stated = [
        abs(group.slices.index.gather(name, row)[0])
        for name in ("SpacingBetweenSlices", "SliceThickness")
    ]
    between = next((number for number in stated if number > 0), 1.0)
    return slice_normal(group.orientation) * between, between


def _names(slices: Slices, key: str, rows: Ints) -> tuple[str, ...]:
    """The columns that a key stands for; of the vectors those that differ."""
    names = shown(key)
    return names if names != VECTORS else tuple(n for n in names if slices.differ(n, rows))


def _changes(slices: Slices, ordered: Ints, gaps: list[int], at: int) -> tuple[str, ...]:
    """Attributes that change at a gap, and from slice to slice at no other place but gaps."""
    found = []
    for name in DIFFERING:
        codes = slices.codes(name)
        if codes is None:
            continue
        changed = np.flatnonzero(np.diff(codes[ordered]))
        if at in changed and set(changed.tolist()) <= set(gaps):
            found.append(name)
    return tuple(found)


def _direction_error(group: Group) -> float:
    """Most millimetres that a corner is off by the directions and the spacing that the affine has."""
    slices = group.slices
    orientation, pixel = slices.orientation[group.rows], slices.pixel[group.rows]
    if (orientation == orientation[0]).all() and (pixel == pixel[0]).all():
        return 0.0
    rows, columns = slices.size(int(group.rows[0]))

    def far(directions: Floats, spacing: Floats) -> Floats:
        across = directions[..., :3] * spacing[..., 1:] * (columns - 1)
        down = directions[..., 3:] * spacing[..., :1] * (rows - 1)
        return np.stack([across, down, across + down])

    off = far(orientation, pixel) - far(group.orientation[None], group.pixel[None])
    return float(np.linalg.norm(off, axis=-1).max())


def _remarks(whole: Group, ordered: Ints, keys: tuple[str, ...]) -> tuple[str, ...]:
    slices, found = whole.slices, []
    if LAST in keys:
        found.append(f"only {LAST} tells it from the other volumes at its places")
    for name in CONTENT:
        codes = slices.codes(name)
        if codes is None or len(ordered) < _FEWEST:
            continue
        there = codes[ordered]
        changes = np.count_nonzero(np.diff(there))
        if not changes:
            continue
        if changes >= _ALTERNATES * (len(ordered) - 1) and len(np.unique(there)) < len(ordered) / 2:
            found.append(f"{name} alternates from slice to slice")
        elif alone := _alone(there):
            found.append(
                f"{name} of {slices.name(int(ordered[alone[0]]))} alone is not that of the others"
            )
    time = next((key for key in keys if key in TIMES), None)
    if time is not None and _disagree(whole, ordered):
        found.append(f"{time} and {LAST} disagree about which slices belong together")
    return tuple(found)


def _alone(codes: Ints) -> list[int]:
    """Where the only slice is that differs from all others."""
    values, first, counts = np.unique(codes, return_index=True, return_counts=True)
    once = first[counts == 1].tolist()
    return once if len(values) == 2 and len(once) == 1 else []


def _disagree(whole: Group, ordered: Ints) -> bool:
    """Whether Instance Number, which tells volumes apart too, makes others of them."""
    return whole.by_number is not None and frozenset(ordered.tolist()) not in whole.by_number
