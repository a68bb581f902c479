"""Rule 8: which frames follow each other in time: cine loops, and series that show one place again and again."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dicomtorch.errors import GeometryError, OptionError, printable
from dicomtorch.index.codes import by_appearance, numbered
from dicomtorch.index.columns import Texts
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.series.clock import milliseconds, ordered
from dicomtorch.series.geometry import SAME_PLACE, Floats, Ints
from dicomtorch.series.group import Group
from dicomtorch.series.search import stacks
from dicomtorch.series.slices import Slices
from dicomtorch.series.stacks import REPEATED, OnGap, StackList, listed
from dicomtorch.series.successive import Successive, ranks, successive

Bools = npt.NDArray[np.bool_]

_SAME_DIRECTION = 1e-4  # of direction cosines

_OTHERWISE_EQUAL = (
    "patient",
    "StudyInstanceUID",
    "image_pixel",
    "ImageType",
    "StackID",
    "EchoTime",
    "DiffusionBValue",
    "ComplexImageComponent",
    "ConvolutionKernel",
    "ContrastBolusAgent",
    "KVP",
)
"""What frames that are in no volume, and sheets, must have in common besides the place, to be a series in time."""


@dataclass(frozen=True)
class FrameSequences:
    """Every frame of an index in one sequence, and one sequence after the other.

    Attributes:
        order: Positions of the index, (frames,).
        starts: Where each sequence begins in `order`, and where the last ends, (sequences + 1,).
        times: Milliseconds since the first frame of the sequence, nan if unknown, in the order of `order`.
    """

    order: Ints
    starts: Ints
    times: Floats

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> Ints:
        """Frames of each sequence."""
        return np.diff(self.starts)


def time_sequences(index: FrameIndex, on_gap: OnGap = "keep") -> FrameSequences:
    """Groups frames that show one place over time, each group in the order of time.

    Where the stacks of a series are several volumes of one grid, the frames at each place are a sequence, in the order
    of the volumes; image type, component, echo, b-value and kernel do not change in one. Else the frames of a
    multi-frame file are one sequence in their order, unless they say that they lie at several places and come to some
    of these more than once: then each place is one. Single frames that are in no volume are a sequence where they have
    series, place (position and orientation) and kind of image in common and their times tell them apart: Temporal
    Position Index, Trigger Time, Frame Reference Time, Acquisition Time or Content Time, the first that all of a group
    have and that differs from frame to frame. Each other frame is a sequence of its own.

    Args:
        index: Of the frames.
        on_gap: For copies of frames of a time series, frames that fit none of its volumes, volumes that lack places,
            and frames at one place that nothing tells apart or orders: "raise", "warn" once, or "keep" in silence. With
            the last two such frames are alone, and places that a volume lacks have one frame less. Series without
            volumes that follow each other are not touched.

    Raises:
        GeometryError: `on_gap="raise"`, and there are some.
        OptionError: `on_gap` is none of these.
    """
    if on_gap not in ("raise", "warn", "keep"):
        raise OptionError(f'on_gap must be "raise", "warn" or "keep"; got {on_gap!r}')
    if not len(index):
        return FrameSequences(np.empty(0, np.int64), np.zeros(1, np.int64), np.empty(0))
    runs, problems = sequences_beside(index, stacks(index, on_gap="keep", mosaic="sheet"))
    if problems and on_gap != "keep":
        _say(problems, on_gap)
    return runs


def sequences_beside(index: FrameIndex, found: StackList) -> tuple[FrameSequences, list[str]]:
    """The sequences of an index that is not empty, and their problems in words.

    Args:
        index: Of the frames.
        found: Its stacks, sheets whole, in the order of rule 6.
    """
    made = successive(index, found)
    files = np.asarray(index.column("file")).astype(np.int64)
    several = np.asarray(index.files["frames"])[files] > 1
    groups, whole = _groups(index, files, several)
    in_line = made.line >= 0
    alone, problems = _alone(index, found, made, several, whole)
    copies = _copies(index, groups, ~(several | in_line | alone | (made.volume >= 0)))
    alone[copies] = True
    others = np.bincount(groups[~alone & ~in_line], minlength=len(index))
    if len(beside := copies[others[groups[copies]] > 1]):
        problems.append(_of_copies(index, beside))
    alone |= (made.volume >= 0) & ~whole
    alone &= ~in_line
    count = len(index)
    groups = np.where(in_line, count + made.line, groups)
    groups = np.where(alone, -1 - np.arange(count), groups)
    groups = by_appearance(groups)
    in_file = _in_one_file(files, several, groups)
    order, known = ordered(index, groups, ranks(made), in_file)
    begins = np.diff(groups[order], prepend=-1) != 0
    starts = np.append(np.flatnonzero(begins | ~known[order]), count)
    return FrameSequences(order, starts, milliseconds(index, order, starts, in_file)), problems


def _groups(index: FrameIndex, files: Ints, several: Bools) -> tuple[Ints, Bools]:
    """(frames,) numbers below that of frames, equal for one place or cine; and which frames are of a file in one."""
    position = np.asarray(index.column("ImagePositionPatient"), np.float64)
    located = np.isfinite(position).all(axis=1)
    series, mosaic = index.column("SeriesInstanceUID"), index.column("mosaic")
    assert isinstance(series, Texts)
    assert isinstance(mosaic, Texts)
    located |= mosaic != ""  # a sheet has the places of its tiles
    # Files that cannot be told to show one place stay apart.
    unit = np.where(several | ~located, files, len(index.files["frames"]) + series.codes)
    columns: list[Any] = [unit, mosaic, *(index.column(name) for name in _OTHERWISE_EQUAL)]
    places = numbered(columns, len(index))
    for values, apart in (
        (position, SAME_PLACE),
        (np.asarray(index.column("ImageOrientationPatient"), np.float64), _SAME_DIRECTION),
    ):
        for coordinate in values.T:
            places = _near(places, coordinate, apart)
    # A file that comes to no place twice is run through as it is.
    per_unit = numbered([unit], len(index))
    distinct = np.zeros(per_unit.max() + 1, np.int64)
    np.add.at(distinct, per_unit[np.unique(places, return_index=True)[1]], 1)
    whole = several & (~located | (distinct == np.bincount(per_unit))[per_unit])
    return numbered([np.where(whole, -1 - unit, places)], len(index)), whole


def _near(groups: Ints, values: Floats, apart: float) -> Ints:
    """Groups, each cut where values sorted by size are further apart; those that are absent are equal."""
    known = np.nan_to_num(values, nan=np.finfo(np.float64).max)
    order = np.lexsort((known, groups))
    cut = (np.diff(known[order]) > apart) | (np.diff(groups[order]) != 0)
    found = np.empty(len(groups), np.int64)
    found[order] = np.append(0, np.cumsum(cut))
    return found


def _in_one_file(files: Ints, several: Bools, groups: Ints) -> Bools:
    """(frames,), whether the group is of one multi-frame file."""
    pairs = numbered([groups, files], len(files))
    first = np.unique(pairs, return_index=True)[1]
    of_group = np.bincount(groups[first])
    return np.asarray(several & (of_group[groups] == 1))


# What is alone, and why


def _alone(
    index: FrameIndex,
    found: StackList,
    made: Successive,
    several: Bools,
    whole: Bools,
) -> tuple[Bools, list[str]]:
    """Which frames no clip may have beside others, and the problems to name.

    Frames of a file that is run through, in the order that the file gives them, are in no other clip; and where nothing
    else tells frames apart, a file orders its own.
    """
    alone = np.zeros(len(index), np.bool_)
    problems = list(made.problems)
    in_time = _of_series(index, made)
    for rows in made.unordered:
        alone[rows] = True
    for part in found.left_out:
        if not part.is_problem:
            continue
        repeated = part.reason == REPEATED
        rows = part.positions[~(several if repeated else whole)[part.positions]]
        alone[rows] = True
        if repeated and len(rows) and not Group(Slices(index, sheets=False), rows).is_single:
            problems.append(
                f"{part.reason}, so that each frame is alone: {_names(index, rows)}. Leave copies out with "
                f"index.deduplicate(), others with index.select"
            )
        elif not repeated and in_time[rows].any():
            problems.append(f"frames in no volume of a time series: {_names(index, rows)}")
    copies = found.copies
    alone[copies[in_time[copies] | ~whole[copies]]] = True
    if in_time[copies].any():
        problems.append(_of_copies(index, copies[in_time[copies]]))
    return alone, problems


def _of_series(index: FrameIndex, made: Successive) -> Bools:
    """Which frames are of a series that has volumes after each other."""
    series = index.column("SeriesInstanceUID")
    assert isinstance(series, Texts)
    return np.isin(series.codes, np.unique(series.codes[made.line >= 0]))


def _copies(index: FrameIndex, groups: Ints, chosen: Bools) -> Ints:
    """All but the first of chosen frames of a group that have one SOPInstanceUID; those without one are no copies."""
    uids = index.column("SOPInstanceUID")
    assert isinstance(uids, Texts)
    rows = np.flatnonzero(chosen & (uids.codes != uids.code("")))
    _, first = np.unique(numbered([groups[rows], uids.codes[rows]], len(rows)), return_index=True)
    return np.delete(rows, first)


def _of_copies(index: FrameIndex, rows: Ints) -> str:
    return (
        f"copies of frames of a time series, with their SOPInstanceUID and place, which are alone: "
        f"{_names(index, rows)}. Leave them out with index.deduplicate()"
    )


def _names(index: FrameIndex, rows: Ints) -> str:
    return listed([printable(index.path(i)) for i in rows.tolist()])


def _say(problems: Sequence[str], on_gap: OnGap) -> None:
    others = len(problems) - 1
    more = f" ({others} more such {'problem' if others == 1 else 'problems'})" if others else ""
    if on_gap == "raise":
        raise GeometryError(f'{problems[0]}{more}. on_gap="warn" goes on without them')
    warnings.warn(f"{problems[0]}{more}", stacklevel=4)
