"""Pictures with the labels, boxes or points of their target in colours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from dicomtorch.errors import OptionError

Array = npt.NDArray[Any]

_COLOURS = np.array(
    [
        *((230, 60, 60), (60, 170, 230), (90, 200, 90), (240, 200, 60), (190, 110, 230)),
        *((240, 140, 50), (70, 210, 200), (235, 120, 180)),
    ],
    np.float32,
)
_CROSS = 2  # pixels from the middle of a cross to its ends


def overlaid(picture: Array, target: Any) -> Array:
    """A picture with what its target says in colours.

    Args:
        picture: (H, W) or (H, W, 3); several beside each other are all drawn on.
        target: A mask (C, H, W): numbers in one channel, or one channel for each label; or a dict with `boxes` or
            `points`, and `labels`.

    Returns:
        (H, W, 3), float32 in [0, 1].

    Raises:
        OptionError: A mask is not as large as the picture.
    """
    low, high = float(np.min(picture)), float(np.max(picture))
    gray = (np.asarray(picture, np.float32) - low) / max(high - low, 1e-6)
    result = gray if gray.ndim == 3 else np.repeat(gray[..., None], 3, axis=2)
    if isinstance(target, Mapping):
        _mark(result, target)
        return result
    labels = _numbers(np.asarray(target))
    labels = np.tile(labels, (1, result.shape[1] // max(labels.shape[1], 1)))
    if labels.shape != result.shape[:2]:
        raise OptionError("this transform gives images of another size than their masks")
    some = labels > 0
    result[some] = 0.6 * result[some] + 0.4 * _colour(labels[some])
    return result


def _colour(numbers: Any) -> Any:
    return _COLOURS[(numbers - 1) % len(_COLOURS)] / 255


def _numbers(mask: Array) -> Array:
    """(H, W), the number of the label of each pixel, 0 of none."""
    if len(mask) == 1 and mask.dtype.kind != "f":
        return np.asarray(mask[0])
    numbers = (np.arange(len(mask)) + 1)[:, None, None]
    return np.asarray(np.max(np.where(mask > 0.5, numbers, 0), axis=0))


def _mark(picture: Array, target: Mapping[str, Any]) -> None:
    """Draws boxes as frames of one pixel, and points as crosses."""
    numbers = np.asarray(target.get("labels", ()), np.int64)
    boxes = np.floor(np.asarray(target.get("boxes", np.empty((0, 4))))).astype(int)
    for (left, top, right, bottom), colour in zip(boxes.tolist(), _colour(numbers), strict=False):
        last_row, last_column = max(bottom - 1, top), max(right - 1, left)
        _paint(picture, (top, top + 1), (left, last_column + 1), colour)
        _paint(picture, (last_row, last_row + 1), (left, last_column + 1), colour)
        _paint(picture, (top, last_row + 1), (left, left + 1), colour)
        _paint(picture, (top, last_row + 1), (last_column, last_column + 1), colour)
    points = np.floor(np.asarray(target.get("points", np.empty((0, 2))))).astype(int)
    for (column, row), colour in zip(points.tolist(), _colour(numbers), strict=False):
        _paint(picture, (row, row + 1), (column - _CROSS, column + _CROSS + 1), colour)
        _paint(picture, (row - _CROSS, row + _CROSS + 1), (column, column + 1), colour)


def _paint(picture: Array, rows: tuple[int, int], columns: tuple[int, int], colour: Any) -> None:
    """Colours what of a rectangle lies on the picture."""
    (top, bottom), (left, right) = ((max(a, 0), max(b, 0)) for a, b in (rows, columns))
    picture[top:bottom, left:right] = colour
