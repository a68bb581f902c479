"""The segments of an RLE frame (PS3.5 annex G)."""

from __future__ import annotations

import itertools
import struct

from dicomtorch.backends.base import Buffer
from dicomtorch.backends.marks import damaged
from dicomtorch.errors import format_count

_PACKBITS_TAKES = [*range(2, 130), 1, *[2] * 127]
"""Bytes of a segment that a run takes, by its first byte: literal, nothing, repeated."""
_PACKBITS_GIVES = [*range(1, 129), 0, *range(128, 1, -1)]


def rle_segments(data: Buffer, count: int) -> list[tuple[int, int]]:
    """Start and stop of each segment of an RLE frame.

    Args:
        data: The frame.
        count: How many segments it must have: samples per pixel times bytes per sample.

    Raises:
        DecodeError: The header says otherwise, or a segment is outside the frame.
    """
    size = len(data)
    if size < 64:
        raise damaged("RLE header", 0, f"{size} bytes", "64")
    number, *offsets = struct.unpack_from("<16I", data)
    if number != count or count > 15:
        raise damaged(
            "RLE header",
            0,
            format_count(number, "segment"),
            f"{count}, samples times bytes per sample",
        )
    edges = [*offsets[:count], size]
    if edges[0] != 64 or any(low >= high for low, high in itertools.pairwise(edges)):
        raise damaged("RLE segment offsets", 4, edges[:-1], f"64, ascending, below {size}")
    return list(itertools.pairwise(edges))


def packbits_length(segment: Buffer, most: int) -> int:
    """Bytes that an RLE segment gives (PS3.5 G.3.2), counted no further than `most`."""
    data, takes, gives = bytes(segment), _PACKBITS_TAKES, _PACKBITS_GIVES
    size, position, length, code = len(data), 0, 0, 128
    while length < most and position < size:
        code = data[position]
        position += takes[code]
        length += gives[code]
    if position > size:  # the last run is not there in whole
        length -= position - size if code < 128 else gives[code]
    return min(length, most)
