"""Images in another size, their aspect kept by padding."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from dicomtorch.model.frame import Reduced

Array = npt.NDArray[Any]


class Resized(NamedTuple):
    """What `size=` did: the image lies in a frame of padding.

    Attributes:
        scale: Output pixels for one input pixel.
        top: Rows of padding above it.
        left: Columns of padding left of it.
        rows: Its rows.
        columns: Its columns.
        reduced: Pixels of the file, in each direction, for one that was decoded: 1 but with `decode="reduced"`.
    """

    scale: float
    top: int
    left: int
    rows: int
    columns: int
    reduced: int = 1


def resized(rows: int, columns: int, size: tuple[int, int]) -> Resized:
    """Where an image comes to lie in `size`, its aspect kept, centred (the odd pixel is below or right)."""
    scale = min(size[0] / rows, size[1] / columns)
    inner_rows = min(size[0], max(1, round(rows * scale)))
    inner_columns = min(size[1], max(1, round(columns * scale)))
    top, left = (size[0] - inner_rows) // 2, (size[1] - inner_columns) // 2
    return Resized(scale, top, left, inner_rows, inner_columns)


def resize(image: Array, size: tuple[int, int], around: float | None) -> Array:
    """Bilinear, antialiased when shrinking.

    Args:
        image: (C, H, W), float32 or float64.
        size: (rows, columns).
        around: What surrounds the image; `None`: its lowest finite value.

    Returns:
        (C, *size).
    """
    where = resized(image.shape[1], image.shape[2], size)
    inner = torch.nn.functional.interpolate(
        torch.from_numpy(np.ascontiguousarray(image))[None],
        size=(where.rows, where.columns),
        mode="bilinear",
        align_corners=False,
        antialias=True,
    )[0].numpy()
    return _framed(inner, where, size, _lowest(inner) if around is None else around)


def resize_reduced(
    reduced: Reduced,
    image: Array,
    shape: tuple[int, int],
    size: tuple[int, int],
    around: float | None,
) -> Array:
    """What `resize` makes of a frame, from one that was decoded at less than its resolution.

    Args:
        reduced: Says where its samples lie in the frame.
        image: (C, H, W), what was made of them.
        shape: (rows, columns) of the frame.
        size: (rows, columns).
        around: What surrounds the image; `None`: its lowest finite value.

    Returns:
        (C, *size).
    """
    where = resized(*shape, size)
    inner = image
    for axis, (full, wanted) in enumerate(zip(shape, (where.rows, where.columns), strict=True), 1):
        weights = taps(full, wanted, reduced.factor, reduced.offset, image.shape[axis])
        inner = _weighted(inner, weights, axis)
    return _framed(inner, where, size, _lowest(inner) if around is None else around)


Taps = tuple[tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]], ...]


@lru_cache(maxsize=64)
def taps(full: int, wanted: int, factor: int, offset: float, there: int) -> Taps:
    """For each tap of a triangular filter, the sample and the weight of every output pixel.

    Output pixel i is centred at (i + 0.5) * full / wanted - 0.5 in pixels of the frame, sample n lies at
    n * factor + offset. The filter is as wide as that of an antialiased resize of what there is.
    """
    centers = ((np.arange(wanted) + 0.5) * full / wanted - 0.5 - offset) / factor
    width = max(1.0, full / (wanted * factor))
    first = np.floor(centers - width).astype(np.intp) + 1
    indices = first[:, None] + np.arange(int(np.ceil(2 * width)) + 1)
    weights = np.maximum(0.0, 1 - np.abs(indices - centers[:, None]) / width)
    weights[(indices < 0) | (indices >= there)] = 0.0
    # Beyond the outermost samples there is nothing else than those.
    lost = weights.sum(1) == 0
    nearest = np.clip(np.rint(centers), 0, there - 1).astype(np.intp)
    indices[lost, 0], weights[lost, 0] = nearest[lost], 1.0
    weights /= weights.sum(1, keepdims=True)
    indices = np.clip(indices, 0, there - 1)
    used = weights.any(0)
    return tuple((indices[:, k], weights[:, k].astype(np.float32)) for k in np.flatnonzero(used))


def _weighted(image: Array, weights: Taps, axis: int) -> Array:
    result: Array | None = None
    for indices, weight in weights:
        part = np.take(image, indices, axis)
        part *= weight[:, None] if axis == 1 else weight
        result = part if result is None else np.add(result, part, out=result)
    assert result is not None
    return result


def _lowest(image: Array) -> float:
    lowest = float(image.min(initial=np.inf, where=np.isfinite(image)))
    return lowest + 0.0 if np.isfinite(lowest) else 0.0  # the sign of a zero is nobody's choice


def resize_nearest(image: Array, size: tuple[int, int]) -> Array:
    """By nearest neighbour, of any type, surrounded by 0: for labels and stored values."""
    where = resized(image.shape[1], image.shape[2], size)
    rows = (np.arange(where.rows) + 0.5) * image.shape[1] / where.rows
    columns = (np.arange(where.columns) + 0.5) * image.shape[2] / where.columns
    inner = image[:, rows.astype(np.int64)][:, :, columns.astype(np.int64)]
    return _framed(inner, where, size, 0)


def _framed(inner: Array, where: Resized, size: tuple[int, int], around: float) -> Array:
    if inner.shape[1:] == size:
        return inner
    image = np.full((len(inner), *size), around, inner.dtype)
    rows = slice(where.top, where.top + where.rows)
    columns = slice(where.left, where.left + where.columns)
    image[:, rows, columns] = inner
    return image
