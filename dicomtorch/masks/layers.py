"""The labels of one image, each as its pixels, painted into one mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from dicomtorch.errors import PixelValueError
from dicomtorch.masks.coded_names import LabelMap

Overlap = Literal["raise", "first", "last"]
MaskOutput = Literal["labels", "channels", "fraction"]
Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]


class Layer(NamedTuple):
    """The pixels of one label on one image.

    Attributes:
        label: Position of the label.
        pixels: (rows, columns) of bool or float32, or the distinct flat positions of its pixels.
    """

    label: int
    pixels: Array

    @property
    def area(self) -> int:
        """Pixels of it."""
        return len(self.pixels) if self.pixels.ndim == 1 else int(np.count_nonzero(self.pixels))


def united(found: list[Layer], shape: tuple[int, int]) -> list[Layer]:
    """One layer for each label: the union, of fractions the largest."""
    by_label: dict[int, list[Array]] = {}
    for layer in found:
        by_label.setdefault(layer.label, []).append(layer.pixels)
    result = []
    for label in sorted(by_label):
        parts = by_label[label]
        if len(parts) == 1:
            result.append(Layer(label, parts[0]))
            continue
        is_fraction = any(part.dtype.kind == "f" for part in parts)
        whole: Array = np.zeros(shape, np.float32 if is_fraction else np.bool_)
        for part in parts:
            if part.ndim == 1:
                whole.reshape(-1)[part] = 1
            else:
                np.maximum(whole, part, out=whole)
        result.append(Layer(label, whole))
    return result


def paint(
    layers: Sequence[Layer], out: Array, output: MaskOutput, labels: LabelMap, overlap: Overlap
) -> Ints:
    """Paints layers into a mask.

    Args:
        layers: In the order of labels.
        out: (1, rows, columns) for "labels", (K, rows, columns) otherwise; C-contiguous. All of it is written.
        output: What a mask is.
        labels: The labels.
        overlap: What a pixel of two labels gets in a label map.

    Returns:
        (K,), pixels of each label.

    Raises:
        PixelValueError: Two labels share pixels of a label map and `overlap="raise"`.
    """
    out[...] = 0
    areas = np.zeros(len(labels), np.int64)
    for layer in layers:
        areas[layer.label] = layer.area
    if output == "labels":
        _paint_labels(layers, out[0], labels, overlap)
        return areas
    for layer in layers:
        if layer.pixels.ndim == 1:
            out[layer.label].reshape(-1)[layer.pixels] = 1
        else:
            np.copyto(out[layer.label], layer.pixels, casting="unsafe")
    return areas


def _paint_labels(
    layers: Sequence[Layer], channel: Array, labels: LabelMap, overlap: Overlap
) -> None:
    flat = channel.reshape(-1)
    for layer in layers if overlap == "last" else reversed(layers):  # the last one painted stays
        number, pixels = labels.numbers[layer.label], layer.pixels
        if overlap == "raise":
            taken = (
                flat[pixels]
                if pixels.ndim == 1
                else channel[pixels]
                if len(layers) > 1
                else flat[:0]
            )
            if taken.any():
                raise _shared(layers, channel.size, labels)
        if pixels.ndim == 1:
            flat[pixels] = number
        else:
            np.copyto(channel, number, where=pixels, casting="unsafe")


def _shared(layers: Sequence[Layer], size: int, labels: LabelMap) -> PixelValueError:
    """What to say of pixels with several labels."""
    count = np.zeros(size, np.int64)
    for layer in layers:
        flat = layer.pixels if layer.pixels.ndim == 1 else np.flatnonzero(layer.pixels)
        count[flat] += 1
    several = np.flatnonzero(count > 1)
    among = [
        str(labels.numbers[layer.label])
        for layer in layers
        if np.isin(
            several, layer.pixels if layer.pixels.ndim == 1 else np.flatnonzero(layer.pixels)
        ).any()
    ]
    return PixelValueError(
        f"{len(several)} pixels belong to several of the labels {', '.join(among)}; "
        f'mask_output="channels" keeps all, overlap="first" or "last" decides'
    )
