"""Tags as the words of a file, so that a walk looks them up without turning the bytes of every element round."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from dicomtorch.dicom.tags import LOCATED, PIXEL_DATA_TAGS

ITEM: Final = 0xFFFEE000
ITEM_END: Final = 0xFFFEE00D
SEQUENCE_END: Final = 0xFFFEE0DD
PADDING: Final = 1  # stands for tag 0, which has no negative
_SPECIAL: Final = frozenset((0, ITEM, ITEM_END, SEQUENCE_END)) | PIXEL_DATA_TAGS

Lookup = dict[int, int]


def swap(tag: int) -> int:
    """The tag as one little endian 32-bit word reads: the element number comes out on top."""
    return (tag & 0xFFFF) << 16 | tag >> 16


DELIMITERS: Final = (ITEM, ITEM_END, SEQUENCE_END)
SWAPPED_DELIMITERS: Final = (swap(ITEM), swap(ITEM_END), swap(SEQUENCE_END))

_EMPTY_ITEMS: Final = (
    re.compile(rb"(?:\xfe\xff\x00\xe0\x00\x00\x00\x00)*+"),
    re.compile(rb"(?:\xff\xfe\xe0\x00\x00\x00\x00\x00)*+"),
)


def empty_items(buffer: bytes, start: int, stop: int, big_endian: bool) -> int:
    """How many items without content follow each other from `start` on, whole ones before `stop`."""
    found = _EMPTY_ITEMS[big_endian].match(buffer, start, stop)
    return (found.end() - start) // 8 if found else 0


@lru_cache(maxsize=16)
def lookups(wanted: frozenset[int], big_endian: bool) -> tuple[Lookup, Lookup]:
    """(for what is recorded, for what is skipped): tag as a word of the file -> tag, negative if special."""
    word = int if big_endian else swap
    skipped = {word(tag): -(tag or PADDING) for tag in _SPECIAL}
    recorded = {word(tag): -tag if tag in LOCATED else tag for tag in wanted}
    return recorded | skipped, skipped
