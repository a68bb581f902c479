"""The labels of one image, each as its pixels, painted into one mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from dicomtorch.errors import PixelValueError
from dicomtorch.masks.bits import Bits
from dicomtorch.masks.coded_names import LabelMap
from dicomtorch.masks.compiled import painting
from dicomtorch.masks.polygons import Runs

Overlap = Literal["raise", "first", "last"]
MaskOutput = Literal["labels", "channels", "fraction"]
Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]

_LONG = 8  # pixels a run from which on runs are written one by one


class Layer(NamedTuple):
    """The pixels of one label on one image.

    Attributes:
        label: Position of the label.
        pixels: (rows, columns) of bool or float32, the distinct flat positions of its pixels, runs, or bits.
        counted: How many there are, -1 if nobody has counted.
    """

    label: int
    pixels: Array | Runs | Bits
    counted: int = -1

    @property
    def area(self) -> int:
        """Pixels of it."""
        if self.counted >= 0:
            return self.counted
        pixels = self.pixels
        if isinstance(pixels, Runs | Bits):
            return pixels.area
        return len(pixels) if pixels.ndim == 1 else int(np.count_nonzero(pixels))

    def flat(self, columns: int) -> Ints:
        """Where its pixels are in an image of so many columns, flattened."""
        pixels = self.pixels
        if isinstance(pixels, Runs):
            return pixels.flat(columns)
        if isinstance(pixels, Bits):
            return pixels.flat()
        return pixels if pixels.ndim == 1 else np.flatnonzero(pixels)

    def write(self, channel: Array, value: int = 1) -> None:
        """Writes `value` into its pixels of a C-contiguous array (rows, columns); of fractions the fractions."""
        pixels = self.pixels
        if isinstance(pixels, Bits):
            pixels.write(channel, value)
        elif isinstance(pixels, Runs):
            _write_runs(pixels, channel, value)
        elif pixels.ndim == 1:
            channel.reshape(-1)[pixels] = value
        elif pixels.dtype == np.bool_:
            np.copyto(channel, value, where=pixels, casting="unsafe")
        else:
            np.copyto(channel, pixels, casting="unsafe")


def _write_runs(runs: Runs, channel: Array, value: int) -> None:
    flat, columns = channel.reshape(-1), channel.shape[1]
    module = painting()
    if module is not None and channel.dtype.itemsize == 1:
        module.paint_runs(*runs, columns, value, flat.view(np.uint8))
        return
    if runs.area < _LONG * len(runs.line):
        flat[runs.flat(columns)] = value
        return
    start = runs.line * columns
    pairs = zip((start + runs.first).tolist(), (start + runs.end).tolist(), strict=True)
    for first, end in pairs:
        flat[first:end] = value


def united(found: list[Layer], shape: tuple[int, int]) -> list[Layer]:
    """One layer for each label: the union, of fractions the largest."""
    labels = [layer.label for layer in found]
    if len(set(labels)) == len(labels):
        return found if labels == sorted(labels) else sorted(found, key=_label)
    by_label: dict[int, list[Layer]] = {}
    for layer in found:
        by_label.setdefault(layer.label, []).append(layer)
    result = []
    for label in sorted(by_label):
        parts = by_label[label]
        if len(parts) == 1:
            result.append(parts[0])
            continue
        fractions: list[Any] = [part.pixels for part in parts if is_fraction(part)]
        whole: Array = np.zeros(shape, np.float32 if fractions else np.bool_)
        for share in fractions:
            np.maximum(whole, share, out=whole)
        for part in parts:
            if not is_fraction(part):
                part.write(whole)
        result.append(Layer(label, whole))
    return result


def _label(layer: Layer) -> int:
    return layer.label


def is_fraction(layer: Layer) -> bool:
    """Whether a layer has fractions instead of pixels."""
    return not isinstance(layer.pixels, Runs | Bits) and layer.pixels.dtype.kind == "f"


def paint(
    layers: Sequence[Layer], out: Array, output: MaskOutput, labels: LabelMap, overlap: Overlap
) -> Ints:
    """Paints layers into a mask.

    Args:
        layers: In the order of labels.
        out: (1, rows, columns) for "labels", (K, rows, columns) otherwise; each channel C-contiguous. All of it is
            written.
        output: What a mask is.
        labels: The labels.
        overlap: What a pixel of two labels gets in a label map.

    Returns:
        (K,), pixels of each label.

    Raises:
        PixelValueError: Two labels share pixels of a label map and `overlap="raise"`.
    """
    out[...] = 0
    counts = [0] * len(labels)
    for layer in layers:
        counts[layer.label] = layer.area
    areas = np.array(counts, np.int64)
    if output != "labels":
        for layer in layers:
            layer.write(out[layer.label])
        return areas
    channel = out[0]
    for layer in layers if overlap == "last" else reversed(layers):  # the last one painted stays
        layer.write(channel, labels.numbers[layer.label])
    if overlap == "raise" and len(layers) > 1 and np.count_nonzero(channel) != areas.sum():
        raise _shared(layers, channel.shape, labels)
    return areas


def _shared(layers: Sequence[Layer], shape: tuple[int, ...], labels: LabelMap) -> PixelValueError:
    """What to say of pixels with several labels."""
    count = np.zeros(shape[0] * shape[1], np.int64)
    for layer in layers:
        count[layer.flat(shape[1])] += 1
    several = np.flatnonzero(count > 1)
    among = [
        str(labels.numbers[layer.label])
        for layer in layers
        if np.isin(several, layer.flat(shape[1])).any()
    ]
    return PixelValueError(
        f"{len(several)} pixels belong to several of the labels {', '.join(among)}; "
        f'mask_output="channels" keeps all, overlap="first" or "last" decides'
    )
