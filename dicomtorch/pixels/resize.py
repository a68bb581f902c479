"""Images in another size, their aspect kept by padding."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

Array = npt.NDArray[Any]


class Resized(NamedTuple):
    """What `size=` did: the image lies in a frame of padding.

    Attributes:
        scale: Output pixels for one input pixel.
        top: Rows of padding above it.
        left: Columns of padding left of it.
        rows: Its rows.
        columns: Its columns.
    """

    scale: float
    top: int
    left: int
    rows: int
    columns: int


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
    if around is None:
        around = float(inner.min(initial=np.inf, where=np.isfinite(inner)))
        around = around if np.isfinite(around) else 0.0
    return _framed(inner, where, size, around)


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
