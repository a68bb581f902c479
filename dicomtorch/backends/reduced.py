"""Frames at a half, a quarter or an eighth of their resolution: by the codec where it can, else by means of blocks."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np

from dicomtorch.backends.base import Array, Backend, Buffer
from dicomtorch.model.frame import Reduced
from dicomtorch.model.image import ImagePixel

_STRIP = 1 << 18
"""Pixels that are summed at once, so that they stay in the cache of one core."""


@runtime_checkable
class ReducingBackend(Protocol):
    """A backend that can make the codec decode less than a whole frame."""

    def decode_reduced(self, data: Buffer, pixel: ImagePixel, levels: int) -> Reduced | None:
        """Decodes a frame at 1 / 2^levels of its resolution.

        Returns:
            `None` where the stream or the library cannot: then the frame has to be decoded whole.

        Raises:
            DecodeError: The stream is damaged, or disagrees with `pixel`.
        """
        ...


def reduced_shape(pixel: ImagePixel, levels: int) -> tuple[int, ...]:
    """Shape of a frame whose rows and columns are divided by 2^levels, and rounded up."""
    factor = 1 << levels
    return (-(-pixel.rows // factor), -(-pixel.columns // factor), *pixel.shape[2:])


def decode_reduced(
    backend: Backend, data: Buffer, pixel: ImagePixel, levels: int, out: Array | None
) -> Reduced:
    """Decodes a frame at 1 / 2^levels of its resolution, whole where the backend or the stream allows nothing less.

    Args:
        backend: Decodes it.
        data: The code stream of one frame.
        pixel: What the header of its file says.
        levels: 1 to 3.
        out: As in `Backend.decode`.

    Raises:
        DecodeError: The stream is damaged, or disagrees with `pixel`.
    """
    if isinstance(backend, ReducingBackend):
        reduced = backend.decode_reduced(data, pixel, levels)
        if reduced is not None:
            return reduced
    return block_means(backend.decode(data, pixel, out), levels)


def block_means(stored: Array, levels: int) -> Reduced:
    """Means of blocks of 2^levels x 2^levels pixels; at the right and lower edge of what is there of a block.

    Args:
        stored: (rows, columns) or (rows, columns, samples), integers of 8 or 16 bits.
        levels: 1 to 3.
    """
    factor = 1 << levels
    if stored.ndim == 3:
        planes = [block_means(stored[..., k], levels).samples for k in range(stored.shape[2])]
        return Reduced(np.stack(planes, -1), factor, (factor - 1) / 2)
    rows, columns = stored.shape
    means = np.empty((-(-rows // factor), -(-columns // factor)), np.float32)
    whole_rows, whole_columns = rows // factor, columns // factor
    inner = stored[: whole_rows * factor, : whole_columns * factor]
    step = max(1, _STRIP // max(1, factor * columns))
    for first in range(0, whole_rows if whole_columns else 0, step):
        last = min(first + step, whole_rows)
        part = inner[first * factor : last * factor]
        _block_sums(part, factor, means[first:last, :whole_columns])
    if whole_rows and whole_columns * factor < columns:
        edge = stored[: whole_rows * factor, whole_columns * factor :]
        means[:whole_rows, -1] = edge.reshape(whole_rows, -1).mean(1)
    if whole_rows * factor < rows:
        starts = np.arange(0, columns, factor)
        edge = stored[whole_rows * factor :]
        sums = np.add.reduceat(edge.sum(0, dtype=np.float64), starts)
        widths = np.minimum(factor, columns - starts)
        means[-1] = sums / (widths * len(edge))
    return Reduced(means, factor, (factor - 1) / 2)


def _block_sums(stored: Array, factor: int, means: Array) -> None:
    """Fills `means` from whole blocks: rows are added, then neighbours, which lie in one word of twice the width."""
    signed = stored.dtype.kind == "i"
    word = np.int32 if signed else np.uint32
    sums = np.add(stored[0::factor], stored[1::factor], dtype=word)
    for k in range(2, factor):
        np.add(sums, stored[k::factor], out=sums)
    if signed:
        sums += factor << (8 * stored.dtype.itemsize - 1)
    halves = sums.view(np.uint32)
    while halves.shape[1] > means.shape[1]:
        pairs = np.ascontiguousarray(halves).view(np.uint64)
        halves = ((pairs & 0xFFFFFFFF) + (pairs >> np.uint64(32))).astype(np.uint32)
    np.multiply(halves, np.float32(1 / factor**2), out=means, casting="unsafe")
    if signed:
        means -= np.float32(1 << (8 * stored.dtype.itemsize - 1))
