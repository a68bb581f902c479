"""Ranges of one object that are asked for together: which of them are worth one request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

GAP: Final = 256 << 10
"""Bytes between two ranges that are rather moved than asked around: what a connection moves in a few milliseconds."""
BLOCK: Final = 8 << 20
"""Bytes of a request beyond which nothing more is put into it, so that several connections share the work."""


class Block(NamedTuple):
    """One request.

    Attributes:
        offset: Of its first byte.
        length: Bytes.
        numbers: Of the ranges that lie in it.
    """

    offset: int
    length: int
    numbers: list[int]


def coalesce(spans: Sequence[tuple[int, int]], gap: int = GAP, block: int = BLOCK) -> list[Block]:
    """Puts ranges of one object into as few requests as is sensible, in the order of their offsets.

    Ranges that are no further apart than `gap` share a request, up to `block` bytes; one that is longer by itself has
    one of its own, and so have those inside of it.

    Args:
        spans: (offset, length) of each range.
        gap: Bytes that may lie between two of them.
        block: Bytes of a request.
    """
    blocks: list[Block] = []
    for number in sorted(range(len(spans)), key=spans.__getitem__):
        offset, length = spans[number]
        end = offset + length
        if blocks:
            last = blocks[-1]
            stop = last.offset + last.length
            if end <= stop or (offset <= stop + gap and end - last.offset <= block):
                last.numbers.append(number)
                blocks[-1] = last._replace(length=max(end, stop) - last.offset)
                continue
        blocks.append(Block(offset, length, [number]))
    return blocks
