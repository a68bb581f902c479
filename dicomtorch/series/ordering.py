"""Rule 6: series in the order of their first rows, the stacks of one by time, then by number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dicomtorch.series.geometry import Floats, Ints
from dicomtorch.series.keys import ORDER
from dicomtorch.series.slices import TIMES_OF_DAY, Slices, unwrapped_within


def order_of(slices: Slices, found: Sequence[Ints], series: Ints) -> Ints:
    """The order of stacks.

    Args:
        slices: All slices.
        found: Which of them each stack has; one at least.
        series: The number of the series of each stack.
    """
    counts = np.array(list(map(len, found)))
    of_stack = np.repeat(np.arange(len(found)), counts)
    rows = np.concatenate(found)
    firsts = _least(rows, of_stack, len(found), len(slices))
    of_series = np.unique(series, return_inverse=True)[1].reshape(-1)
    first = _least(firsts, of_series, len(found), len(slices))
    columns = [
        _earliest(slices, name, rows, of_stack, of_series)
        for name in reversed(ORDER)
        if slices.codes(name) is not None  # else it is the same throughout
    ]
    return np.lexsort((firsts, *columns, first[of_series])).astype(np.int64)


def _earliest(slices: Slices, name: str, rows: Ints, of_stack: Ints, of_series: Ints) -> Floats:
    """The least value of each stack, of times within the day that its series began."""
    count = len(of_series)
    values = np.asarray(slices.index.column(name))[slices.rows[rows]].astype(np.float64)
    if name in TIMES_OF_DAY:
        values = unwrapped_within(values, of_stack, count)
    known = np.isfinite(values)
    found = _least(values[known], of_stack[known], count, np.inf)
    found[np.isinf(found)] = -np.inf
    return unwrapped_within(found, of_series, count) if name in TIMES_OF_DAY else found


def _least(values: npt.NDArray[Any], numbers: Ints, count: int, most: float) -> npt.NDArray[Any]:
    """The least of the values of each number, `most` where there are none."""
    least = np.full(count, most, values.dtype)
    np.minimum.at(least, numbers, values)
    return least
