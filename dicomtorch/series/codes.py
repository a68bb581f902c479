"""Numbers for equal rows, and rows by such numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


def numbered(columns: Sequence[npt.NDArray[Any]], count: int) -> Ints:
    """Numbers from 0, without gaps, that are equal where all columns are; nan equals nan."""
    codes = np.zeros(count, np.int64)
    for column in columns:
        _, inverse = np.unique(column, return_inverse=True)
        _, codes = np.unique(codes * (inverse.max(initial=0) + 1) + inverse, return_inverse=True)
    return codes.astype(np.int64)


def pieces(rows: Ints, codes: Ints) -> list[Ints]:
    """`rows` by their codes, each in the order that it had."""
    order = np.argsort(codes, kind="stable")
    ends = np.flatnonzero(np.diff(codes[order])) + 1
    return [piece for piece in np.split(rows[order], ends) if len(piece)]
