"""The pixels of one label on one image as words of 64 bits, of which only those with pixels are there.

Painting them moves words, not pixels: positions of pixels would be 64 times as many numbers.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from dicomtorch.masks.polygons import Runs

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

WORD: Final = 64
"""Pixels of a word."""

_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
_EACH = 0x0101010101010101  # a 1 for each of 8 pixels
_PIXELS: Final = np.dtype(f"V{WORD}")  # those of one word, in 8 bits each
_NONE = np.empty(0, np.int64)


class Bits(NamedTuple):
    """Pixels of an image whose size is a multiple of `WORD`.

    Attributes:
        where: (n,), which words of the flattened image have some pixels, ascending.
        words: (n,), those words; their bytes in the order of pixels, the least significant bit first.
        full: (m,), which words have all pixels, and are not among `where`.
        area: Pixels.
        masks: (8 * n,), the words as `_expanded` makes them, where that was done for many at once.
    """

    where: Ints
    words: Words
    full: Ints
    area: int
    masks: Words | None = None

    def flat(self) -> Ints:
        """Where the pixels are in the flattened image, ascending."""
        bits = np.flatnonzero(np.unpackbits(self.words.view(np.uint8), bitorder="little"))
        some = self.where[bits >> 6] * WORD + (bits & 63)
        if not len(self.full):
            return np.asarray(some)
        whole = (self.full[:, None] * WORD + np.arange(WORD)).reshape(-1)
        return np.sort(np.concatenate([some, whole]))

    def write(self, channel: Array, value: int) -> None:
        """Writes `value` into the pixels of a C-contiguous array (rows, columns)."""
        if channel.dtype.itemsize != 1:
            channel.reshape(-1)[self.flat()] = value
            return
        pixels = channel.reshape(-1).view(_PIXELS)
        eight = np.uint64(value * _EACH)
        if len(self.full):
            pixels.view(np.uint64).reshape(-1, 8)[self.full] = eight
        old = pixels.take(self.where)
        # Where the mask is set the new value, elsewhere what is there.
        there = old.view(np.uint64)
        change = there ^ eight
        change &= _expanded(self.words) if self.masks is None else self.masks
        there ^= change
        pixels[self.where] = old


def _expanded(words: Words) -> Words:
    """(8 * n,), each bit as the 8 bits of its pixel."""
    masks = np.unpackbits(words.view(np.uint8), bitorder="little").view(np.uint64)
    masks *= np.uint64(255)
    return masks


def bits_of(sheets: Words) -> list[Bits]:
    """The bits of several images.

    Args:
        sheets: (n, words of an image); what can be done for all at once is.
    """
    count, size = sheets.shape
    flat = sheets.reshape(-1)
    where = (flat != 0).nonzero()[0]
    words = flat.take(where)
    bounds = where.searchsorted(np.arange(count + 1) * size)
    where -= np.repeat(np.arange(count) * size, bounds[1:] - bounds[:-1])
    masks = _expanded(words)
    total = np.zeros(len(words) + 1, np.int64)
    np.bitwise_count(words).cumsum(dtype=np.int64, out=total[1:])
    ends, totals = bounds.tolist(), total.take(bounds).tolist()
    return [
        Bits(
            where[ends[k] : ends[k + 1]],
            words[ends[k] : ends[k + 1]],
            _NONE,
            totals[k + 1] - totals[k],
            masks[8 * ends[k] : 8 * ends[k + 1]],
        )
        for k in range(count)
    ]


def planes_of(runs: Runs, planes: int, shape: tuple[int, int]) -> list[Bits]:
    """Runs of several planes as bits, plane by plane.

    Args:
        runs: In order; the line of a run is plane * rows + row.
        planes: How many.
        shape: (rows, columns) of a plane; their product is a multiple of `WORD`.
    """
    size = shape[0] * shape[1]
    start, end = (runs.line * shape[1] + each for each in (runs.first, runs.end))
    low, high = start >> 6, (end - 1) >> 6
    count = high - low + 1
    run = np.repeat(np.arange(len(count)), count)
    word = np.arange(len(run)) + np.repeat(low - (np.cumsum(count) - count), count)
    first = np.maximum(start[run] - word * WORD, 0).astype(np.uint64)
    rest = np.maximum((word + 1) * WORD - end[run], 0).astype(np.uint64)
    bits = (_ALL << first) & (_ALL >> rest)
    # Runs of one word are one after the other.
    new = np.flatnonzero(np.append(True, np.diff(word) > 0))[: len(word)]
    word, bits = word[new], np.bitwise_or.reduceat(bits, new) if len(new) else bits
    is_full = bits == _ALL
    areas = np.bincount(start // size, weights=end - start, minlength=planes).astype(np.int64)
    little = bits.astype("<u8").view(np.uint64)  # the bytes in the order of pixels
    parts = [(word[~is_full], little[~is_full]), (word[is_full], little[is_full])]
    bounds = np.arange(planes + 1) * (size // WORD)
    (some, full) = (np.searchsorted(where, bounds) for where, _ in parts)
    return [
        Bits(
            parts[0][0][some[k] : some[k + 1]] - bounds[k],
            parts[0][1][some[k] : some[k + 1]],
            parts[1][0][full[k] : full[k + 1]] - bounds[k],
            int(areas[k]),
        )
        for k in range(planes)
    ]
