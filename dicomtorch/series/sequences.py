"""Which frames of an index follow each other in time: cine loops, and series that show one place again and again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dicomtorch.index.codes import numbered
from dicomtorch.index.frame_index import FrameIndex

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_DAY = 86_400.0  # seconds

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
"""What frames of one place must have in common to be a series in time, besides the place itself."""


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


def time_sequences(index: FrameIndex) -> FrameSequences:
    """Groups frames that show one place over time, each group in the order of time.

    The frames of a multi-frame file are one sequence in their order, unless they say that they lie at several places
    and come to some of these more than once: then each place is one. Single-frame files are a sequence where they have
    series, place (position and orientation) and kind of image in common and their times tell them apart; each other one
    is a sequence of its own. Times are Temporal Position Index, the time of the frame, Trigger Time, or
    Acquisition Time: the first that all of a group have and that differs from frame to frame.
    """
    count = len(index)
    if not count:
        return FrameSequences(np.empty(0, np.int64), np.zeros(1, np.int64), np.empty(0))
    files = np.asarray(index.column("file")).astype(np.int64)
    several = np.asarray(index.files["frames"])[files] > 1
    places = _places(index, files, several)
    # In the order in which the index comes to them first.
    _, first = np.unique(places, return_index=True)
    groups = np.argsort(np.argsort(first))[places]
    frames = np.asarray(index.column("frame"))
    order = np.lexsort((frames, files, groups))
    starts = np.append(np.flatnonzero(np.diff(groups[order], prepend=-1)), count)
    clock = _Clock(index)
    apart: list[Ints] = []
    times = np.zeros(count)
    lengths = np.diff(starts)
    for begin, length in zip(starts[:-1][lengths > 1], lengths[lengths > 1], strict=True):
        part = slice(begin, begin + length)
        one_file = bool(several[order[begin]])
        in_order = clock.order(order[part], one_file=one_file)
        if in_order is None:
            apart.append(np.arange(begin + 1, begin + length))
        else:
            order[part] = order[part][in_order]
            times[part] = clock.times(order[part], one_file=one_file)
    starts = np.sort(np.concatenate([starts, *apart]))
    return FrameSequences(order, starts, times)


def _places(index: FrameIndex, files: Ints, several: npt.NDArray[np.bool_]) -> Ints:
    """A number for each frame that frames of one place have in common; a cine without places is one."""
    position = np.asarray(index.column("ImagePositionPatient"))
    located = np.isfinite(position).all(axis=1)
    series = index.column("SeriesInstanceUID").codes
    # Files that cannot be told to show one place stay apart.
    unit = np.where(several | ~located, files, len(index.files["frames"]) + series)
    orientation = np.asarray(index.column("ImageOrientationPatient"))
    columns: list[Any] = [unit, np.round(position, 3), np.round(orientation, 4)]
    columns += [index.column(name) for name in _OTHERWISE_EQUAL]
    places = numbered(columns, len(index))
    # A file that comes to no place twice is run through as it is.
    per_unit = numbered([unit], len(index))
    distinct = np.zeros(per_unit.max() + 1, np.int64)
    np.add.at(distinct, per_unit[np.unique(places, return_index=True)[1]], 1)
    whole = several & (~located | (distinct == np.bincount(per_unit))[per_unit])
    return numbered([np.where(whole, -1 - unit, places)], len(index))


class _Clock:
    """What an index says about when its frames were taken."""

    def __init__(self, index: FrameIndex) -> None:
        temporal = np.asarray(index.column("TemporalPositionIndex")).astype(np.float64)
        self._temporal = np.where(temporal < 0, np.nan, temporal)
        self._in_file = np.asarray(index.column("time"))
        self._trigger = np.asarray(index.column("TriggerTime"))
        self._acquired = np.asarray(index.column("AcquisitionTime"))

    def order(self, rows: Ints, *, one_file: bool) -> Ints | None:
        """How to sort `rows`; `None` if nothing tells which came first."""
        for key in (
            self._temporal[rows],
            *([self._in_file[rows]] if one_file else []),
            self._trigger[rows],
            _unwrapped(self._acquired[rows]),
        ):
            if np.isfinite(key).all() and len(np.unique(key)) == len(key):
                return np.argsort(key, kind="stable")
        return np.arange(len(rows)) if one_file else None

    def times(self, rows: Ints, *, one_file: bool) -> Floats:
        """Milliseconds since the first of `rows`, which are in order; nan if they are not known."""
        for key in (
            *([self._in_file[rows]] if one_file else []),
            self._trigger[rows],
            _unwrapped(self._acquired[rows]) * 1000,
        ):
            if np.isfinite(key).all() and (np.diff(key) > 0).all():
                return np.asarray(key - key[0])
        return np.full(len(rows), np.nan)


def _unwrapped(seconds: Floats) -> Floats:
    """Times of day, those after midnight a day later."""
    if np.isfinite(seconds).all() and np.ptp(seconds) > _DAY / 2:
        return np.where(seconds < _DAY / 2, seconds + _DAY, seconds)
    return seconds
