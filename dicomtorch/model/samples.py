"""Memory that decoders write to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

_VECTOR: Final = 32  # bytes of a register of AVX2
_BEYOND: Final = 16


def new_samples(shape: Sequence[int], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """An uninitialised array that begins 16 bytes beyond a multiple of 32.

    Where a row of colour pixels begins at a multiple of 32 bytes, libjpeg-turbo writes past the caches of the
    processor (non-temporal stores), which takes a third longer, and whoever reads the row waits for memory.

    Raises:
        MemoryError: There is no memory for it.
    """
    kind = np.dtype(dtype)
    memory = np.empty(math.prod(shape) * kind.itemsize + _VECTOR, np.uint8)
    address: int = memory.__array_interface__["data"][0]
    return np.ndarray(shape, kind, memory, (_BEYOND - address) % _VECTOR)
