"""Orders and searches over the rows of an index, quick where there are ten million."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

_SMALL: Final = 1 << 16  # sums that lie in the caches of a processor
_STEPS: Final = 8
_NOTHING = np.empty(0, np.int64)


def in_order(*keys: npt.NDArray[Any]) -> Ints:
    """What `np.lexsort` gives, the first key first; as most indexes have it, nothing is to be sorted."""
    rises = np.zeros(max(len(keys[0]) - 1, 0), np.bool_)
    equal = ~rises
    for key in keys:
        step = key[1:] > key[:-1]
        rises |= equal & step
        equal &= key[1:] == key[:-1]
    return np.arange(len(keys[0])) if (rises | equal).all() else np.lexsort(keys[::-1])


def searched(cumulative: npt.NDArray[np.float64], drawn: npt.NDArray[np.float64]) -> Ints:
    """What `np.searchsorted(side="right")` gives for numbers in no order: looked up through a table of where to begin.

    A search over ten million sums misses the processor's caches at every step; a table that says where each of as many
    equal parts of the sum begins leaves a step or two.
    """
    count = len(cumulative)
    if count < _SMALL or not cumulative[-1] > 0:
        return np.searchsorted(cumulative, drawn, side="right")
    edges = np.arange(count) * (cumulative[-1] / count)
    begins = np.searchsorted(cumulative, edges, side="right")
    cell = np.minimum((drawn * (count / cumulative[-1])).astype(np.int64), count - 1)
    found: Ints = begins[cell]
    left = np.flatnonzero((found < count) & (cumulative[np.minimum(found, count - 1)] <= drawn))
    for _ in range(_STEPS):
        if not len(left):
            break
        found[left] += 1
        at = found[left]
        left = left[(at < count) & (cumulative[np.minimum(at, count - 1)] <= drawn[left])]
    found[left] = np.searchsorted(cumulative, drawn[left], side="right")
    before = np.flatnonzero((found > 0) & (cumulative[found - 1] > drawn))  # of a rounded cell
    found[before] = np.searchsorted(cumulative, drawn[before], side="right")
    return found


def shuffle_windows(window: int, bits: npt.NDArray[np.uint64]) -> Ints:
    """The order of `bits` within windows, of which the last may be shorter; `np.lexsort` takes ten times as long."""
    order = np.empty(len(bits), np.int64)
    whole = len(bits) // window * window
    for first, end, length in ((0, whole, window), (whole, len(bits), len(bits) - whole)):
        if end > first:
            within = np.argsort(bits[first:end].reshape(-1, length), axis=1, kind="stable")
            order[first:end] = (within + np.arange(first, end, length)[:, None]).reshape(-1)
    return order


def starts_of(codes: npt.NDArray[Any]) -> Ints:
    """Where runs of equal values begin."""
    return np.flatnonzero(np.diff(codes, prepend=codes[:1] - 1)) if len(codes) else _NOTHING
