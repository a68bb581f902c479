"""Which rows are asked for: positions and masks, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dicomtorch.errors import FrameIndexError, OptionError
from dicomtorch.index.columns import HasColumns, Texts

Mask = npt.NDArray[np.bool_]


def positions(asked: Sequence[int] | npt.NDArray[Any], count: int) -> npt.NDArray[np.int64]:
    """Positions from 0; a boolean array stands for where it is true.

    Raises:
        OptionError: It is neither.
        FrameIndexError: One is outside the `count` frames.
    """
    chosen = np.asarray(asked)
    if chosen.dtype == np.bool_:
        if chosen.shape != (count,):
            raise OptionError(
                f"a boolean selection needs one value per frame: got shape {chosen.shape} for {count} frames"
            )
        return np.flatnonzero(chosen)
    if chosen.ndim != 1:
        raise OptionError(f"select takes a list of positions; got shape {chosen.shape}")
    if len(chosen) and chosen.dtype.kind not in "iu":
        raise OptionError(
            f"select takes whole numbers, or a boolean array; got values of type {chosen.dtype}"
        )
    chosen = chosen.astype(np.int64)
    if len(chosen) and not (-count <= chosen.min() and chosen.max() < count):
        raise FrameIndexError(
            f"positions {chosen.min()} to {chosen.max()} are not all inside the index, which has {count} frames"
        )
    return np.where(chosen < 0, chosen + count, chosen)


def equal(index: HasColumns, equals: Mapping[str, Any]) -> Mask:
    """Where every column named equals the value given, or one of a list of values.

    Raises:
        OptionError: There is no such column, or it holds several numbers.
    """
    mask = np.ones(len(index), np.bool_)
    for name, wanted in equals.items():
        several = isinstance(wanted, list | tuple | set | frozenset | np.ndarray)
        mask &= _is_in(name, index.column(name), list(wanted) if several else [wanted])
    return mask


def _is_in(name: str, data: Any, wanted: list[Any]) -> Mask:
    if isinstance(data, Texts):
        codes = data.codes_of(map(str, wanted))
        return np.isin(data.codes, codes[codes >= 0])
    if data.ndim > 1:
        raise OptionError(
            f"{name} holds {data.shape[1]} numbers a frame and cannot be compared with one value; make a boolean "
            f"array from index.column({name!r}) and use select"
        )
    numbers = np.asarray(wanted)
    if wanted and numbers.dtype.kind not in "biuf":
        raise OptionError(
            f"{name} holds numbers and cannot be compared with {type(wanted[0]).__name__}"
        )
    return np.isin(data, numbers)


def truth(given: Any, count: int) -> Mask:
    """What the expression of a filter gave, if it is one truth value per frame.

    Raises:
        OptionError: It is not.
    """
    mask = np.asarray(given)
    if mask.dtype != np.bool_ or mask.shape != (count,):
        raise OptionError(
            f"the expression of filter must give a boolean array with one value per frame, ({count},); got "
            f"{mask.dtype}, {mask.shape}"
        )
    return mask


def repeated(index: HasColumns) -> Mask:
    """Where the file repeats the SOPInstanceUID of an earlier one."""
    uids, file = index.column("SOPInstanceUID"), np.asarray(index.column("file"))
    found = np.zeros(len(file), np.bool_)
    counts = np.bincount(uids.codes, minlength=1)
    among = np.flatnonzero(counts[uids.codes] > 1)  # of most sets nothing, or little
    _, first, inverse = np.unique(uids.codes[among], return_index=True, return_inverse=True)
    found[among] = (file[among] != file[among][first][inverse]) & (uids != "")[among]
    return found
