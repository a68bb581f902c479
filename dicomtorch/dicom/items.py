"""The items that encapsulated pixel data are made of (PS3.5 A.4)."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final

from dicomtorch.dicom.elements import Read
from dicomtorch.errors import EncapsulationError

ITEM: Final = 0xE000FFFE
"""The tag (FFFE,E000) as a little endian word: encapsulated data are always little endian."""
ITEM_HEAD: Final = struct.Struct("<II")  # tag, length
UNDEFINED: Final = 0xFFFFFFFF

_SEQUENCE_END: Final = 0xE0DDFFFE
_READ_AHEAD: Final = 1 << 16
_SMALL_ITEM: Final = 1 << 14  # below, several item headers come with one read


@dataclass(slots=True)
class Items:
    """Items that follow each other; the last one is not wholly in the file if `partial`.

    Attributes:
        offsets: Of the item tags.
        lengths: Of the values.
        after: Where the walk stopped.
        cut: The file ended before the sequence delimiter.
        partial: It ended inside the last item.
    """

    offsets: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    after: int = 0
    cut: bool = False
    partial: bool = False


def walk_items(read: Read, at: int, end: int, size: int, most: int) -> Items:
    """Walks over items from `at` to `end` (-1: to the delimiter), reading little more than their headers.

    Raises:
        EncapsulationError: Something else than an item is there, or more than `most` items.
    """
    items = Items()
    offsets, lengths = items.offsets, items.lengths
    buffer, base, ahead = b"", at, _READ_AHEAD
    while at != end:
        pos = at - base
        if pos + 8 > len(buffer):
            buffer, base, pos = read(at, min(ahead, size - at)) if at < size else b"", at, 0
            if len(buffer) < 8:
                items.cut = True
                break
        word, length = ITEM_HEAD.unpack_from(buffer, pos)
        if word == _SEQUENCE_END and end < 0:
            break
        if word != ITEM or length == UNDEFINED or 0 <= end < at + 8 + length:
            raise EncapsulationError(
                f"expected an item (FFFE,E000) at offset {at}"
                f"{f' that ends by {end}' if end >= 0 else ''}, got the word {word:08X} "
                f"and length {length}"
            )
        if len(offsets) == most:
            raise EncapsulationError(
                f"more than {most} items, the most that Limits.fragments allows"
            )
        offsets.append(at)
        lengths.append(length)
        at += 8 + length
        ahead = _READ_AHEAD if length < _SMALL_ITEM else 8
        if at > size:
            items.cut = items.partial = True
            break
    items.after = at
    return items
