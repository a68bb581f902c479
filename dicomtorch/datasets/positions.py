"""What stands between the brackets of `dataset[...]`: one position, or several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dicomtorch.errors import FrameIndexError, OptionError

_TAKES = "an integer, a slice, a list or array of integers, or a boolean mask"


def one_position(given: Any, count: int, what: str) -> int:
    """A position from 0, of an integer of any kind; negative ones count from the end.

    Args:
        given: What the user wrote.
        count: Samples of the dataset.
        what: What one of them is called in messages.

    Raises:
        OptionError: It is no integer.
        FrameIndexError: It is outside of the dataset.
    """
    number = given if type(given) is int else integer_of(given, what)
    if not -count <= number < count:
        there = f" (0 to {count - 1})" if count else ""
        raise FrameIndexError(
            f"{what} {number} is outside the dataset, which has {count} {what}{'s' * (count != 1)}{there}"
        )
    return number + count if number < 0 else number


def integer_of(given: Any, what: str) -> int:
    """An integer of any kind as `int`.

    Raises:
        OptionError: It is none.
    """
    # Truth values have an index too; in the place of a position they can only be a mistake.
    truth = isinstance(given, bool | np.bool_) or getattr(given, "dtype", None) == torch.bool
    if not truth:
        try:
            return int(given.__index__())
        except (AttributeError, TypeError):
            pass
    raise OptionError(f"{what}s are asked for by {_TAKES}; got {_described(given)}")


def several_positions(given: Any, count: int, what: str) -> Sequence[Any] | None:
    """The items of a slice, list, array or mask, not yet looked at one by one; `None` if one sample is asked for.

    Raises:
        OptionError: It holds none, has more than one axis, is a mask of another length, or holds something else.
    """
    items: Sequence[Any]
    if isinstance(given, slice):
        try:
            items = range(*given.indices(count))
        except TypeError as error:
            raise OptionError(f"the bounds of a slice of {what}s are integers ({error})") from error
    elif isinstance(given, Tensor):
        if not given.ndim:
            return None
        items = _listed(given.detach().cpu().numpy(), count, what)
    elif isinstance(given, list | tuple | range):
        truths = len(given) > 0 and all(isinstance(item, bool | np.bool_) for item in given)
        items = _listed(np.asarray(given), count, what) if truths else given
    elif hasattr(given, "__array__") and np.ndim(given):
        items = _listed(np.asarray(given), count, what)
    else:
        return None
    if not len(items):
        raise OptionError(f"an empty list, slice or mask of {what}s has no batch")
    return items


def _listed(array: np.ndarray[Any, Any], count: int, what: str) -> list[Any]:
    if array.ndim != 1:
        raise OptionError(
            f"{what}s are asked for by {_TAKES}; got an array of shape {array.shape}, which has {array.ndim} axes"
        )
    if array.dtype == np.bool_:
        if len(array) != count:
            raise OptionError(
                f"a boolean mask needs one value for each of the {count} {what}s; got {len(array)}"
            )
        array = np.flatnonzero(array)
    if len(array) and array.dtype.kind not in "iuO":
        raise OptionError(f"{what}s are asked for by {_TAKES}; got an array of {array.dtype}")
    items: list[Any] = array.tolist()
    return items


def _described(given: Any) -> str:
    """Its kind; a value only where it cannot be long."""
    kind = type(given).__name__
    return f"{kind} {given!r}" if isinstance(given, bool | float | np.generic) else kind
