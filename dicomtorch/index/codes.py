"""Equal rows get equal numbers: what groups, separates and counts the rows of a table, written once.

Two columns of three rows, `["CT", "MR", "CT"]` and `[512, 512, 512]`, give the codes `[0, 1, 0]`, and those the pieces
`[0, 2]` and `[1]`.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from dicomtorch.index.columns import Texts

Codes = npt.NDArray[np.int64]

_SMALL = (
    1 << 16
)  # codes that are numbered through a table rather than by sorting, however few rows there are


def numbered(columns: Iterable[Any], count: int) -> Codes:
    """Numbers from 0 without gaps: equal where all columns are, and in the order in which the columns sort.

    Text sorts by its codes. nan equals nan, and 0.0 equals -0.0.

    Args:
        columns: `Texts`, or arrays of `count` rows with one number each, or several.
        count: Rows; without columns all are equal.
    """
    codes = np.zeros(count, np.int64)
    for column in columns:
        values = plain(column)
        for part in values.T if values.ndim > 1 else (values,):
            if count == 0 or _is_constant(part):
                continue
            inverse = _dense(part)
            if codes.any():  # a million rows more at a time are 8 MB
                codes *= int(inverse.max()) + 1
                codes += inverse
                del inverse
                codes = _dense(codes, in_place=True)
            else:
                codes = inverse
    return codes


def plain(column: Any) -> npt.NDArray[Any]:
    """An array that is equal where `column` is: the codes of text, numbers as they are."""
    return column.codes if isinstance(column, Texts) else np.asarray(column)


def by_appearance(codes: Codes) -> Codes:
    """The same groups, numbered in the order in which the rows come to them first."""
    number = _dense(codes)
    first = firsts(number)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[number]


def firsts(codes: Codes) -> Codes:
    """The first row of each number, of codes without gaps."""
    first = np.empty(int(codes.max(initial=-1)) + 1, np.int64)
    first[codes[::-1]] = np.arange(len(codes) - 1, -1, -1)  # of several the last one stays
    return first


def distinct(texts: Texts) -> tuple[Codes, Codes]:
    """(the number of each row's text, the code of each number): numbers from 0 without gaps, in the order of codes."""
    used = np.zeros(len(texts.values), np.bool_)
    used[texts.codes] = True
    return (np.cumsum(used) - 1)[texts.codes], np.flatnonzero(used)


def pieces(codes: Codes, rows: Codes | None = None) -> list[Codes]:
    """The rows of each number, in the order of the numbers; within one in the order that they had.

    Args:
        codes: One for each row.
        rows: What to give back in place of 0, 1, 2, ...
    """
    order = np.argsort(codes, kind="stable")
    if not len(order):
        return []
    ends = (np.flatnonzero(np.diff(codes[order])) + 1).tolist()
    ordered = order if rows is None else rows[order]
    # `np.split` takes five times as long for a million pieces.
    return [ordered[first:end] for first, end in pairwise((0, *ends, len(ordered)))]


def _is_constant(values: npt.NDArray[Any]) -> bool:
    if values.strides[0] == 0 or bool((values == values[0]).all()):
        return True
    return values.dtype.kind == "f" and bool(np.isnan(values[0]) and np.isnan(values).all())


def _dense(values: npt.NDArray[Any], *, in_place: bool = False) -> Codes:
    """The rank of each value among the distinct ones; `in_place` if nobody needs the values any more."""
    if values.dtype.kind in "iu" and values.dtype != np.uint64 and len(values):
        low = int(values.min())
        span = int(values.max()) - low + 1
        if span <= max(_SMALL, 2 * len(values)):  # a table: several times faster than sorting
            at = values.astype(np.int64, copy=not in_place)
            at -= low
            there = np.zeros(span, np.bool_)
            there[at] = True
            ranks = np.cumsum(there, dtype=np.int32 if span < 1 << 31 else np.int64)
            return np.asarray(np.subtract(ranks[at], 1, dtype=np.int64))
    return np.unique(values, return_inverse=True)[1].reshape(-1).astype(np.int64, copy=False)
