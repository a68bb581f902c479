"""Rule 7: the volumes of a series, and when and how each was taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dicomtorch.index.codes import numbered, pieces
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.series.geometry import Floats, Ints
from dicomtorch.series.slices import TIMES_OF_DAY, unwrapped
from dicomtorch.series.stacks import Stack

SAME_GRID = 0.1  # of the smallest distance between voxels: how far corners of one grid may be apart
_MILLISECONDS = {
    "FrameReferenceTime": 1.0,
    "AcquisitionTime": 1000.0,
    "TriggerTime": 1.0,
    "ContentTime": 1000.0,
}
"""Columns with the time of a volume, in the order in which they are asked -> ms of one unit."""

Direction = tuple[float, float, float]


@dataclass(frozen=True)
class SeriesVolumes:
    """The stacks of one series, in order.

    Attributes:
        stacks: Their numbers in the list of stacks.
        share_grid: Whether their voxels are at the same places, so that they are one array.
    """

    stacks: tuple[int, ...]
    share_grid: bool


def series_volumes(index: FrameIndex, found: Sequence[Stack]) -> list[SeriesVolumes]:
    """The stacks of each series, series in the order of their first stack."""
    if not found:
        return []
    firsts = np.array([int(stack.positions[0]) for stack in found])
    columns = [np.asarray(index.values("patient", firsts))]
    columns += [
        np.asarray(index.column(name).codes)[firsts]
        for name in ("StudyInstanceUID", "SeriesInstanceUID")
    ]
    groups = sorted(pieces(numbered(columns, len(firsts))), key=lambda group: int(group[0]))
    return [
        SeriesVolumes(tuple(group.tolist()), on_one_grid([found[k] for k in group.tolist()]))
        for group in groups
    ]


def on_one_grid(stacks: Sequence[Stack]) -> bool:
    """Whether the voxels of some stacks are at the same places, within a tenth of the smallest distance."""
    first = stacks[0]
    most = SAME_GRID * min(first.spacing)
    for stack in stacks[1:]:
        if stack.shape != first.shape:
            return False
        if np.abs(_corners(stack) - _corners(first)).max() > most:
            return False
    return True


def _corners(stack: Stack) -> Floats:
    depth, rows, columns = (size - 1 for size in stack.shape)
    corners = np.array(
        [(d, r, c, 1) for d in (0, depth) for r in (0, rows) for c in (0, columns)], np.float64
    )
    return np.asarray((corners @ stack.affine.T)[:, :3])


def volume_times(index: FrameIndex, found: Sequence[Stack]) -> tuple[float, ...]:
    """Milliseconds from the first of some volumes to the beginning of each; nan where no attribute tells them apart."""
    if len(found) == 1:
        return (0.0,)
    for name, unit in _MILLISECONDS.items():
        times = np.array([_least(index, name, stack.positions) for stack in found])
        if np.isfinite(times).all() and np.ptp(times) > 0:
            if name in TIMES_OF_DAY:
                times = unwrapped(times)
            return tuple(((times - times.min()) * unit).tolist())
    return (float("nan"),) * len(found)


def _least(index: FrameIndex, name: str, positions: Ints) -> float:
    values = np.asarray(index.values(name, positions))
    if name in TIMES_OF_DAY:
        values = unwrapped(values)
    known = values[np.isfinite(values)]
    return float(known.min()) if len(known) else float("nan")


def common_values(index: FrameIndex, name: str, found: Sequence[Stack]) -> tuple[float, ...]:
    """A column of numbers, one for each volume: what its slices have in common, else nan."""
    values = []
    for stack in found:
        there = np.asarray(index.values(name, stack.positions), np.float64)
        values.append(float(there[0]) if (there == there[0]).all() else float("nan"))
    return tuple(values)


def b_values(index: FrameIndex, found: Sequence[Stack]) -> tuple[float, ...]:
    """Diffusion b-value of each volume, s/mm2; nan: unknown.

    Some scanners state it only where a gradient is applied: volumes that state none are 0, if another one of the same
    Image Type states one.
    """
    values = common_values(index, "DiffusionBValue", found)
    kinds = [str(index.gather("ImageType", stack.positions[:1])[0]) for stack in found]
    weighted = {kind for kind, value in zip(kinds, values, strict=True) if value == value}
    return tuple(
        0.0 if kind in weighted and _states_none(index, stack) else value
        for kind, value, stack in zip(kinds, values, found, strict=True)
    )


def _states_none(index: FrameIndex, stack: Stack) -> bool:
    return bool(np.isnan(np.asarray(index.values("DiffusionBValue", stack.positions))).all())


def gradient_directions(index: FrameIndex, found: Sequence[Stack]) -> tuple[Direction, ...]:
    """Diffusion Gradient Orientation of each volume in patient coordinates (LPS): the mean of its slices; nan: none."""
    directions = []
    for stack in found:
        there = np.asarray(index.values("DiffusionGradientOrientation", stack.positions))
        x, y, z = there.mean(axis=0).tolist()
        directions.append((x, y, z))
    return tuple(directions)
