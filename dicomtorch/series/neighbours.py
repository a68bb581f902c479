"""The frames before and after a frame."""

from __future__ import annotations

import numpy as np

from dicomtorch.errors import GeometryError, printable
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.series.search import stacks
from dicomtorch.series.sequences import FrameSequences, time_sequences
from dicomtorch.series.stacks import REPEATED, StackList

_LISTED = 4  # files in a message


def frame_order(index: FrameIndex) -> FrameSequences:
    """Every frame in one run of neighbours: slices of a stack by position, others by time.

    Raises:
        GeometryError: Slices lie at one place and nothing tells them apart, or some are copies.
    """
    runs = time_sequences(index)
    number = np.empty(len(index), np.int64)
    rank = np.empty(len(index), np.int64)
    number[runs.order] = np.repeat(np.arange(len(runs)), runs.lengths)
    rank[runs.order] = np.arange(len(index))
    found = stacks(index, on_gap="keep")
    _check_repeats(index, found)
    for k, stack in enumerate(found):
        number[stack.positions] = len(runs) + k
        rank[stack.positions] = np.arange(len(stack))
    order = np.lexsort((rank, number))
    starts = np.append(np.flatnonzero(np.diff(number[order], prepend=-1)), len(index))
    return FrameSequences(order, starts, np.full(len(index), np.nan))


def _check_repeats(index: FrameIndex, found: StackList) -> None:
    repeated = [part.positions for part in found.left_out if part.reason == REPEATED]
    names = [printable(index.path(i)) for part in repeated for i in part.tolist()]
    names += [name for stack in found for name in stack.report.duplicates]
    if names:
        more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
        raise GeometryError(
            f"several slices are at one place and nothing tells them apart, so that they have no neighbours: "
            f"{', '.join(names[:_LISTED])}{more}. Leave copies out with index.deduplicate(), others with index.select"
        )
