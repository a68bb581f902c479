"""Rule 8: the frames that show one place of successive volumes of a series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from dicomtorch.index.codes import numbered, pieces
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.series.candidates import candidates
from dicomtorch.series.geometry import Floats, Ints
from dicomtorch.series.group import Group
from dicomtorch.series.keys import ORDER, UNMIXED
from dicomtorch.series.slices import Slices
from dicomtorch.series.stacks import Stack, listed
from dicomtorch.series.volumes import SAME_GRID

_NOT_IN_TIME = (
    "EchoNumbers",
    "SliceThickness",
    "KVP",
    "ContrastBolusAgent",
    "DataType",
    "EnergyWindowVector",
    "DetectorVector",
)
"""What volumes of one clip have in common where it tells volumes apart, besides `UNMIXED`."""


@dataclass
class Successive:
    """Which frames of an index are at one place of successive volumes.

    Attributes:
        volume: (frames,), number of the stack of each frame, -1: none.
        line: (frames,), equal for frames at one place of successive volumes, -1: in none.
        problems: What `on_gap` decides about, in words.
        unordered: Positions of the frames of successive volumes of which nothing tells which came first.
    """

    volume: Ints
    line: Ints
    problems: list[str] = field(default_factory=list)
    unordered: list[Ints] = field(default_factory=list)


def successive(index: FrameIndex, found: Sequence[Stack]) -> Successive:
    """Finds the volumes of each series that have one grid and kind, and are more than one.

    Args:
        index: Of the frames.
        found: Its stacks, in the order of rule 6.
    """
    result = Successive(np.full(len(index), -1), np.full(len(index), -1))
    if len(found) < 2:
        return result
    rows = np.concatenate([stack.positions for stack in found])
    result.volume[rows] = np.repeat(np.arange(len(found)), [len(stack) for stack in found])
    slices = Slices(index, sheets=False)
    several = np.sort(rows[_of_several(slices, rows, result.volume)])
    if not len(several):
        return result
    kinds = _kinds(slices, found, rows, result.volume[rows])
    made = 0
    for candidate in candidates(slices, several, ()):
        volumes = result.volume[candidate]
        if (volumes != volumes[0]).any():
            group = Group(slices, candidate)
            spots = made + _spots(group, volumes)
            made = int(spots.max()) + 1
            for part in pieces(kinds[volumes]):
                made = _line_up(result, slices, candidate[part], spots[part], made)
    return result


def _of_several(slices: Slices, rows: Ints, volume: Ints) -> np.ndarray:
    """Which rows are of a series with several stacks."""
    codes = slices.codes("SeriesInstanceUID")
    series = np.zeros(len(rows), np.int64) if codes is None else codes[rows]
    begins = np.append(True, np.diff(volume[rows]) != 0)
    return np.asarray(np.bincount(series[begins])[series] > 1)


def _kinds(slices: Slices, found: Sequence[Stack], rows: Ints, volume: Ints) -> Ints:
    """(volumes,), equal for those that may be in one clip, if their grids are."""
    columns = []
    for name in (*UNMIXED, *_NOT_IN_TIME):
        codes = slices.codes(name)
        if codes is None:
            continue
        usual = _usual(codes[rows].astype(np.int64), volume)
        if name not in UNMIXED:
            usual[[name not in stack.separated_by for stack in found]] = -1
        columns.append(usual)
    return numbered(columns, len(found))


def _usual(codes: Ints, volume: Ints) -> Ints:
    """The value that most slices of each volume have; of several such that of the first slice."""
    pairs = volume * (int(codes.max()) + 1) + codes
    _, first, counts = np.unique(pairs, return_index=True, return_counts=True)
    order = np.lexsort((-first, counts, volume[first]))
    last = np.append(np.diff(volume[first][order]) != 0, True)
    return np.asarray(codes[first[order[last]]])


def _spots(group: Group, volumes: Ints) -> Ints:
    """(n,), the place of each slice, apart where the corners of slices at one place are."""
    slices, rows = group.slices, group.rows
    high, wide = (size - 1 for size in slices.size(int(rows[0])))
    across = slices.orientation[rows, :3] * (group.pixel[1] * wide)
    down = slices.orientation[rows, 3:] * (group.pixel[0] * high)
    origin = slices.place[rows]
    corners = np.stack([origin, origin + across, origin + down], axis=1)
    most = SAME_GRID * float(group.pixel.min())
    spots = np.empty(len(rows), np.int64)
    left = np.lexsort((volumes, group.places))
    made = 0
    while len(left):
        begins = np.append(True, np.diff(group.places[left]) != 0)
        of = np.cumsum(begins) - 1
        off = np.linalg.norm(corners[left] - corners[left[begins]][of], axis=2).max(axis=1)
        spots[left[off <= most]] = (made + of)[off <= most]
        made += int(of[-1]) + 1
        left = left[off > most]
    return spots


def _line_up(result: Successive, slices: Slices, rows: Ints, spots: Ints, made: int) -> int:
    """Gives the frames of one kind of volume their lines, and says how many lines there are now.

    A volume belongs to the first that has all of its places.
    """
    volumes = result.volume[rows]
    parts = pieces(volumes)
    parts.sort(key=lambda part: -len(part))
    grids: list[tuple[frozenset[int], list[Ints]]] = []
    known: dict[frozenset[int], list[Ints]] = {}
    for part in parts:
        own = frozenset(spots[part].tolist())
        members = known.get(own)
        if members is None:
            wider = (others for grid, others in grids if own < grid)
            members = next(wider, None) or []
            known[own] = members
            if not members:
                grids.append((own, members))
        members.append(part)
    for grid, members in grids:
        if len(members) > 1:
            together = np.concatenate(members)
            if _is_ordered(slices, [rows[part] for part in members]):
                result.line[rows[together]] = made + spots[together] - spots.min()
                _say_missing(result, slices, [rows[part] for part in members], len(grid))
            else:
                _say_unordered(result, slices, rows[together])
            made += int(np.ptp(spots)) + 1
    return made


def _is_ordered(slices: Slices, members: list[Ints]) -> bool:
    """Whether rule 6 says of all which came first, without the order of files."""
    rows = np.concatenate(members)
    begins = np.append(0, np.cumsum([len(part) for part in members])[:-1])
    columns = []
    for name in ORDER:
        values = np.asarray(slices.index.column_at(name, rows)).astype(np.float64)
        least = np.fmin.reduceat(values, begins)
        columns.append(np.where(np.isfinite(least), least, -np.inf))
    return len(np.unique(np.stack(columns, axis=1), axis=0)) == len(members)


def _say_missing(result: Successive, slices: Slices, members: list[Ints], whole: int) -> None:
    for rows in members:
        if len(rows) < whole:
            result.problems.append(
                f"{whole - len(rows)} of {whole} places are missing of a volume of a time series, of which there is "
                f"{listed(slices.names(rows))}; clips there lack its frame"
            )


def _say_unordered(result: Successive, slices: Slices, rows: Ints) -> None:
    result.unordered.append(rows)
    result.problems.append(
        f"nothing tells which volumes of a series came first, so that each frame is alone: "
        f"{listed(slices.names(np.sort(rows)))}"
    )


def ranks(made: Successive) -> Floats:
    """(frames,), which volume of its line each frame is of, nan: in none."""
    return np.where(made.line >= 0, made.volume, np.nan).astype(np.float64)
