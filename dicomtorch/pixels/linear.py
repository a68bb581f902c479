"""Rescaling and windows as runs of NumPy calls over blocks."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch

from dicomtorch.pixels.dtypes import EXACT, Array

# A scaled value far from 0 loses digits when the offset brings it back; beyond this, the origin is moved first.
LARGEST_OFFSET = 4.0
# Beyond these, products with 16-bit values are no finite numbers of float32, or have lost digits.
SMALLEST_SCALE, LARGEST_SCALE = 1e-30, 1e30
# Pixels are converted in blocks that stay in the cache of one core.
BLOCK = 1 << 18
Step = tuple[Callable[..., Any], tuple[Any, ...]]

SMALL = np.dtype(np.uint16)
"""Means of integers of at most 16 bits are converted as these are."""


def fill_linear(
    planes: Array,
    image: Array,
    scale: float,
    offset: float,
    low: float,
    high: float,
    *,
    are_means: bool = False,
) -> None:
    """Computes clip(planes * scale + offset, low, high), right to some 2e-7 of the larger of 1 and the result.

    Args:
        planes: Stored values.
        image: Is filled.
        scale: See above.
        offset: See above.
        low: See above.
        high: See above.
        are_means: Whether `planes` are float32 means of integers of at most 16 bits, which need no float64.
    """
    stored = SMALL if are_means else planes.dtype
    steps = linear_steps(stored, image.dtype, scale, offset, low, high)
    if planes.size <= BLOCK:
        _run(planes, image, steps)
        return
    rows = max(1, BLOCK // max(1, planes.shape[0] * planes.shape[2]))
    for start in range(0, planes.shape[1], rows):
        part = np.s_[:, start : start + rows]
        _run(planes[part], image[part], steps)


def _run(planes: Array, image: Array, steps: tuple[Step, ...]) -> None:
    # Few long calls: each gives the interpreter's lock away and has to get it back.
    (begin, operands), *rest = steps
    begin(planes, image, *operands)
    for function, operands in rest:
        function(image, *operands, out=image)


@lru_cache(maxsize=1024)
def linear_steps(
    stored: np.dtype[Any],
    image: np.dtype[Any],
    scale: float,
    offset: float,
    low: float,
    high: float,
) -> tuple[Step, ...]:
    """The calls that `fill_linear` is made of: the first one from stored values to the image, the others in place."""
    if scale == 0.0:
        return ((fill_constant, (min(max(offset, low), high),)),)
    steps = _scaling(stored, image, scale, offset)
    if low == -math.inf and high == math.inf:
        return steps
    clamped: tuple[Step, ...] = (*steps, (np.ndarray.clip, (image.type(low), image.type(high))))
    if stored.itemsize > 1:
        return clamped
    # 8-bit images that use their full range have nothing to clamp.
    ends = np.array([np.iinfo(stored).min, np.iinfo(stored).max], stored)
    results = np.empty(2, image)
    _run(ends, results, steps)
    return steps if low <= results.min() and results.max() <= high else clamped


class Coefficients(NamedTuple):
    """(stored - origin) * scale + offset, each step rounded to float32."""

    origin: float
    scale: float
    offset: float


def coefficients(stored: np.dtype[Any], scale: float, offset: float) -> Coefficients | None:
    """How stored * scale + offset is computed in float32; `None` where that would lose digits."""
    small = stored.kind in "iu" and stored.itemsize <= 2
    usual = SMALLEST_SCALE <= abs(scale) <= LARGEST_SCALE and abs(offset) <= LARGEST_SCALE
    if not small or not usual or abs(offset / scale) >= EXACT[torch.float32] / 2:
        return None
    whole = scale.is_integer() and offset.is_integer() and abs(scale) < 256
    if abs(offset) <= LARGEST_OFFSET or whole:
        return Coefficients(0.0, scale, offset)
    # Differences of whole numbers are exact.
    origin = float(round(-offset / scale))
    return Coefficients(origin, scale, offset + origin * scale)


def _scaling(
    stored: np.dtype[Any], image: np.dtype[Any], scale: float, offset: float
) -> tuple[Step, ...]:
    found = coefficients(stored, scale, offset)
    if found is None or image == np.float64:
        return ((fill_in_float64, (scale, offset)),)
    steps: list[Step] = [(_cast_exactly, ())]
    if found.origin != 0.0:
        steps.append((np.subtract, (np.float32(found.origin),)))
    if found.scale != 1.0:
        steps.append((np.multiply, (np.float32(found.scale),)))
    if found.offset != 0.0:
        steps.append((np.add, (np.float32(found.offset),)))
    return tuple(steps)


def fill_constant(planes: Array, image: Array, number: float) -> None:
    """Every pixel is the same, whatever was stored."""
    image.fill(number)


def _cast_exactly(planes: Array, image: Array) -> None:
    np.copyto(image, planes)


def fill_in_float64(planes: Array, image: Array, scale: float, offset: float) -> None:
    """Only the result is rounded, and neither scale nor value need be one of float32."""
    with np.errstate(over="ignore", invalid="ignore"):
        numbers = np.multiply(planes, scale, dtype=np.float64)
        np.add(numbers, offset, out=image, casting="same_kind")
