"""In which order frames that show one place were taken, and when: for all groups of frames at once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.series.geometry import Floats, Ints

Bools = npt.NDArray[np.bool_]

_DAY = 86_400.0  # seconds
_SECONDS = frozenset(("AcquisitionTime", "ContentTime"))
_CLOCKS = ("TriggerTime", "FrameReferenceTime", "AcquisitionTime", "ContentTime")


def ordered(index: FrameIndex, groups: Ints, rank: Floats, in_file: Bools) -> tuple[Ints, Bools]:
    """Sorts groups, and the frames of each by the first column that all have and that differs from frame to frame.

    Args:
        index: Of the frames.
        groups: (frames,), a number for each.
        rank: (frames,), the place of each frame in its group, nan where times decide.
        in_file: (frames,), whether the group is of one file, whose frames are in order.

    Returns:
        Positions of the index, group after group; and (frames,) whether the order of its group is known.
    """
    numbers = np.asarray(index.column("frame"))
    chosen = np.zeros(len(index))
    known = np.zeros(len(index), np.bool_)
    first = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[first], prepend=-1))
    lengths = np.diff(np.append(starts, len(first)))
    for key in _keys(index, rank, in_file, first, starts, lengths):
        if not np.isfinite(key[~known]).any():
            continue
        order = np.lexsort((key, groups))
        again = np.append(False, np.diff(key[order]) == 0)
        again[starts] = False
        tells = np.logical_and.reduceat(np.isfinite(key[order]) & ~again, starts)
        takes = np.empty(len(index), np.bool_)
        takes[order] = np.repeat(tells, lengths)
        takes &= ~known
        chosen[takes] = key[takes]
        known |= takes
    known |= in_file
    files = np.asarray(index.column("file"))
    return np.lexsort((numbers, files, chosen, groups)), known


def milliseconds(index: FrameIndex, order: Ints, starts: Ints, in_file: Bools) -> Floats:
    """Of the frames of sequences since the first of each, nan where they are not known.

    Args:
        index: Of the frames.
        order: Positions of the index, one sequence after the other.
        starts: Where each begins, and where the last ends.
        in_file: (frames,), by position, whether the sequence is of one file.
    """
    begins, lengths = starts[:-1], np.diff(starts)
    times = np.where(np.repeat(lengths, lengths) > 1, np.nan, 0.0)
    unset = lengths > 1
    for name in ("time", *_CLOCKS):
        values = _values(index, name, in_file)[order]
        if not unset.any() or not np.isfinite(values).any():
            continue
        if name in _SECONDS:
            values = 1000 * _unwrapped(values, begins, lengths)
        rises = np.append(False, np.diff(values) > 0)
        rises[begins] = np.isfinite(values[begins])
        takes = np.logical_and.reduceat(rises, begins) & unset
        since = values - np.repeat(values[begins], lengths)
        times = np.where(np.repeat(takes, lengths), since, times)
        unset &= ~takes
    return times


def _keys(
    index: FrameIndex, rank: Floats, in_file: Bools, order: Ints, starts: Ints, lengths: Ints
) -> Iterator[Floats]:
    """What may say which frame came first, in the order in which it is asked."""
    yield rank
    temporal = np.asarray(index.column("TemporalPositionIndex")).astype(np.float64)
    yield np.where(temporal < 0, np.nan, temporal)
    for name in ("time", *_CLOCKS):
        values = _values(index, name, in_file)
        if name in _SECONDS and np.isfinite(values).any():
            whole = np.empty(len(values))
            whole[order] = _unwrapped(values[order], starts, lengths)
            values = whole
        yield values


def _values(index: FrameIndex, name: str, in_file: Bools) -> Floats:
    values = np.asarray(index.column(name), np.float64)
    return np.where(in_file, values, np.nan) if name == "time" else values


def _unwrapped(seconds: Floats, starts: Ints, lengths: Ints) -> Floats:
    """Times of day, in each group whose times are all known those after midnight a day later."""
    span = np.maximum.reduceat(seconds, starts) - np.minimum.reduceat(seconds, starts)
    late = np.repeat(span > _DAY / 2, lengths) & (seconds < _DAY / 2)
    return np.where(late, seconds + _DAY, seconds)
