"""A bounded, tolerant walk over a Part 10 header: wanted tags only, stops at pixel data and never reads it.

PS3.10 section 7 (file meta), PS3.5 section 7 (data elements), section 7.5 (sequences).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

Items = list["Group"]
Element = tuple[str, Any]  # (VR or "" if unknown, value bytes in file order | Items)
Group = dict[int, Element]  # tag -> element: a data set, or an item of a sequence


@dataclass(slots=True)
class PixelDataElement:
    """Where Pixel Data, Float Pixel Data or Double Float Pixel Data is.

    Attributes:
        tag: 0x7FE00010, 0x7FE00008 or 0x7FE00009.
        vr: "OB", "OW", "OF", "OD"; "OW" in Implicit VR; "UN" if the file says so.
        offset: First byte of the value, in the file (in the inflated data set if `Header.deflated`).
        length: Bytes of the value as stated; -1 if undefined (encapsulated).
    """

    tag: int
    vr: str
    offset: int
    length: int


@dataclass(slots=True)
class Header:
    """The wanted elements of one file.

    Attributes:
        transfer_syntax_uid: The one that the data set is really in; "" if the file names none that is known.
        big_endian: Byte order of `elements`.
        elements: Wanted elements of the main data set.
        pixel_data: Where the pixels are, or `None`.
        deflated: The data set had to be inflated.
        inflated: The inflated data set, if `deflated`.
        notices: What was odd but could be read.
    """

    transfer_syntax_uid: str
    big_endian: bool = False
    elements: Group = field(default_factory=dict)
    pixel_data: PixelDataElement | None = None
    deflated: bool = False
    inflated: bytes | None = None
    notices: list[str] = field(default_factory=list)
