"""Rule 8: the frames before and after a frame; a neighbour of a slice is in the same volume."""

from __future__ import annotations

import warnings

import numpy as np

from dicomtorch.errors import GeometryError, OptionError, printable
from dicomtorch.index.columns import Texts
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.series.search import stacks
from dicomtorch.series.sequences import FrameSequences, sequences_beside
from dicomtorch.series.stacks import REPEATED, OnGap, StackList, listed


def frame_order(index: FrameIndex, on_gap: OnGap = "raise") -> FrameSequences:
    """Every frame in one run of neighbours: slices of a stack by position, others by time.

    Args:
        index: Of the frames.
        on_gap: For copies of a slice, and for slices at one place that nothing tells apart: "raise", or "warn" and
            "keep", with which such a frame has no neighbours. Frames of other series are not touched by them.

    Raises:
        GeometryError: `on_gap="raise"`, and there are some.
        OptionError: `on_gap` is none of these.
    """
    if on_gap not in ("raise", "warn", "keep"):
        raise OptionError(f'on_gap must be "raise", "warn" or "keep"; got {on_gap!r}')
    if not len(index):
        return FrameSequences(np.empty(0, np.int64), np.zeros(1, np.int64), np.empty(0))
    found = stacks(index, on_gap="keep", mosaic="sheet")
    runs, _ = sequences_beside(index, found)
    number = np.empty(len(index), np.int64)
    rank = np.empty(len(index), np.int64)
    number[runs.order] = np.repeat(np.arange(len(runs)), runs.lengths)
    rank[runs.order] = np.arange(len(index))
    alone = _without_order(found)
    if len(alone):
        _say(index, found, on_gap)
    mosaic = index.column("mosaic")
    assert isinstance(mosaic, Texts)
    # A sheet is a volume, so that no other frame is in it.
    alone = np.union1d(alone, np.flatnonzero(mosaic != ""))
    number[alone] = len(runs) + np.arange(len(alone))
    rank[alone] = 0
    for k, stack in enumerate(found):
        number[stack.positions] = len(runs) + len(alone) + k
        rank[stack.positions] = np.arange(len(stack))
    order = np.lexsort((rank, number))
    starts = np.append(np.flatnonzero(np.diff(number[order], prepend=-1)), len(index))
    return FrameSequences(order, starts, np.full(len(index), np.nan))


def _without_order(found: StackList) -> np.ndarray:
    """Positions of the slices at one place that nothing tells apart, and of copies."""
    parts = [part.positions for part in found.left_out if part.reason == REPEATED]
    return np.unique(np.concatenate([*parts, found.copies]))


def _say(index: FrameIndex, found: StackList, on_gap: OnGap) -> None:
    names = [printable(index.path(i)) for i in _without_order(found).tolist()]
    text = (
        f"several slices are at one place and nothing tells them apart, so that they have no neighbours: "
        f"{listed(names)}. Leave copies out with index.deduplicate(), others with index.select"
    )
    if on_gap == "raise":
        raise GeometryError(f'{text}; on_gap="warn" takes each without neighbours')
    if on_gap == "warn":
        warnings.warn(text, stacklevel=5)
