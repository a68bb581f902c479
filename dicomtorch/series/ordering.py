"""Rule 6: series in the order of their first rows, the stacks of one by time, then by number."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dicomtorch.series.geometry import Floats, Ints
from dicomtorch.series.keys import ORDER
from dicomtorch.series.slices import TIMES_OF_DAY, Slices, unwrapped_within

_AT_ONCE = 1 << 16  # slices


def order_of(slices: Slices, found: Sequence[Ints], series: Ints) -> Ints:
    """The order of stacks.

    Args:
        slices: All slices.
        found: Which of them each stack has; one at least.
        series: The number of the series of each stack.
    """
    of_series = np.unique(series, return_inverse=True)[1].reshape(-1)
    names = [name for name in reversed(ORDER) if not slices.is_constant(name)]
    firsts = np.empty(len(found), np.int64)
    columns = np.empty((len(names), len(found)))  # what is the same throughout orders nothing
    for some in _portions(found):
        rows = np.concatenate(found[some])
        starts = np.cumsum([0, *map(len, found[some])])[:-1]
        firsts[some] = np.minimum.reduceat(rows, starts)
        for name, earliest in zip(names, columns, strict=True):
            earliest[some] = _earliest(slices, name, rows, starts)
    for name, earliest in zip(names, columns, strict=True):
        if name in TIMES_OF_DAY:
            earliest[:] = unwrapped_within(earliest, of_series, len(found))
    first = _least(firsts, of_series, len(found), len(slices))
    return np.lexsort((firsts, *columns, first[of_series])).astype(np.int64)


def _portions(found: Sequence[Ints]) -> Iterator[slice]:
    """Some stacks at a time, of not many slices together."""
    portion = np.cumsum([0, *map(len, found)])[:-1] // _AT_ONCE
    starts = np.flatnonzero(np.diff(portion, prepend=-1)).tolist()
    return itertools.starmap(slice, itertools.pairwise([*starts, len(found)]))


def _earliest(slices: Slices, name: str, rows: Ints, starts: Ints) -> Floats:
    """The least value of each stack, of times within the day that it began; -inf where there is none."""
    values = np.asarray(slices.index.column_at(name, slices.rows[rows])).astype(np.float64)
    if name in TIMES_OF_DAY:
        of_stack = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(rows)))
        values = unwrapped_within(values, of_stack, len(starts))
    values[~np.isfinite(values)] = np.inf
    found = np.minimum.reduceat(values, starts)
    found[np.isinf(found)] = -np.inf
    return np.asarray(found)


def _least(values: npt.NDArray[Any], numbers: Ints, count: int, most: float) -> npt.NDArray[Any]:
    """The least of the values of each number, `most` where there are none."""
    least = np.full(count, most, values.dtype)
    np.minimum.at(least, numbers, values)
    return least
