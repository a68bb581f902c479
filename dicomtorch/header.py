"""A bounded, tolerant walk over a Part 10 header: wanted tags only, stops at pixel data and never reads it.

PS3.10 section 7 (file meta), PS3.5 section 7 (data elements), section 7.5 (sequences).
"""

from __future__ import annotations

import io
import math
import struct
import time
import zlib
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import numpy.typing as npt

from dicomtorch.attributes import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    LIMITS,
    NATIVE,
    Limits,
)
from dicomtorch.errors import HeaderError, NotDicomError
from dicomtorch.tags import PIXEL_DATA_TAGS, VRS, describe, vr_of

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Items = list["Group"]
Element = tuple[str, Any]  # (VR or "" if unknown, value bytes in file order | Items)
Group = dict[int, Element]  # tag -> element: a data set, or an item of a sequence
Read = Callable[[int, int], bytes]  # (offset, length) -> bytes, fewer only at the end of the file


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
        transfer_syntax_uid: The one that the data set is really in. As stated where it is not a native one, known or
            not; "" if the file names none and its pixel data are encapsulated.
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


class _NotUnderstoodError(HeaderError):
    """Not beyond a limit and not cut off: another parser may make sense of it."""


_FIRST_READ: Final = 1 << 16
_READ_AFTER_JUMP: Final = 1 << 14
_LARGEST_READ: Final = 1 << 20
_FALLBACK_BYTES: Final = 1 << 18  # pydicom takes seconds for megabytes of empty items
_BATCH: Final = 4096
_UNDEFINED: Final = 0xFFFFFFFF

_TEXT: Final = (
    "AE",
    "AS",
    "CS",
    "DA",
    "DT",
    "LO",
    "LT",
    "PN",
    "SH",
    "ST",
    "TM",
    "UC",
    "UI",
    "UR",
    "UT",
)
_SHORT_VRS: Final = {*_TEXT, "AT", "DS", "FL", "FD", "IS", "SL", "SS", "UL", "US"} - {
    "UC",
    "UR",
    "UT",
}
_LONG_VRS: Final = ("OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV")
_SHORT: Final = {vr.encode(): vr for vr in _SHORT_VRS}  # 16-bit length
_LONG: Final = {vr.encode(): vr for vr in _LONG_VRS}  # two reserved bytes, 32-bit length

_ITEM: Final = 0xFFFEE000
_ITEM_END: Final = 0xFFFEE00D
_SEQUENCE_END: Final = 0xFFFEE0DD
_PADDING: Final = 1  # stands for tag 0, which has no negative
_SPECIAL: Final = frozenset((0, _ITEM, _ITEM_END, _SEQUENCE_END)) | PIXEL_DATA_TAGS

_EXPLICIT: Final = (struct.Struct("<I2sH").unpack_from, struct.Struct(">I2sH").unpack_from)
_PAIR: Final = (struct.Struct("<II").unpack_from, struct.Struct(">II").unpack_from)
_LENGTH: Final = (struct.Struct("<I").unpack_from, struct.Struct(">I").unpack_from)

_Lookup = dict[int, int]


def _swap(tag: int) -> int:
    """The tag as one little endian 32-bit word reads: the element number comes out on top."""
    return (tag & 0xFFFF) << 16 | tag >> 16


@lru_cache(maxsize=16)
def _lookups(wanted: frozenset[int], big_endian: bool) -> tuple[_Lookup, _Lookup]:
    """(for what is recorded, for what is skipped): tag as a word of the file -> tag, negative if special."""
    word = int if big_endian else _swap
    skipped = {word(tag): -(tag or _PADDING) for tag in _SPECIAL}
    return {word(tag): tag for tag in wanted} | skipped, skipped


class _Walk:
    """One pass over a data set, forwards only, on a stack of its own.

    `pos` counts from `base`, the file offset of `buffer`; every end is a file offset, -1 if a delimiter marks it.
    """

    def __init__(
        self,
        read: Read,
        size: int,
        header: Header,
        lookups: tuple[_Lookup, _Lookup],
        limits: Limits,
    ) -> None:
        self.read = read
        self.size = size
        self.header = header
        self.limits = limits
        self.lookups = lookups
        self.buffer = b""
        self.base = self.pos = self.start = 0
        self.skipped = 0  # bytes jumped over without being read
        self.chunk = _FIRST_READ
        self.began = time.thread_time()  # not wall time: a slow disk is no damage
        self.elements = self.items_met = 0
        self.done = False
        self.encoding = True, header.big_endian  # (explicit VR, big endian)
        self.group: Group = header.elements
        self.end = size
        self.items: Items | None = None
        self.sequence_end = -1
        self.get = lookups[0].get
        self.stack: list[tuple[Any, ...]] = []

    def run(self, buffer: bytes, base: int, start: int, explicit: bool) -> None:
        """Walks the data set that begins at offset `start`; `buffer` are the bytes from `base`."""
        self.buffer, self.base, self.pos, self.start = buffer, base, start - base, start
        self.encoding = explicit, self.header.big_endian
        try:
            while not self.done:
                count = min(_BATCH, self.limits.elements - self.elements + 1)
                self.elements += (self._explicit if self.encoding[0] else self._implicit)(count)
                self._check()
        except struct.error:
            raise self._truncated() from None

    def _explicit(self, count: int) -> int:
        """Walks up to `count` elements with explicit VR; returns how many."""
        buffer, pos, group, get, stop = self._locals()
        encoding = self.encoding
        head, long_length = _EXPLICIT[encoding[1]], _LENGTH[encoding[1]]
        quick = min(self.limits.text_bytes, 0xFFFF)
        done = 0
        for done in range(1, count + 1):
            if pos >= stop:
                self.pos = pos
                self._boundary()
            else:
                word, vr, length = head(buffer, pos)
                tag = get(word)
                if vr in _SHORT:
                    value = pos + 8
                    if tag is None:
                        pos = value + length
                        continue
                    after = value + length
                    if tag > 0 and length <= quick and after <= len(buffer):
                        group[tag] = _SHORT[vr], buffer[value:after]
                        pos = after
                        continue
                    name = _SHORT[vr]
                elif vr in _LONG:
                    (length,) = long_length(buffer, pos + 8)
                    value = pos + 12
                    if tag is None and length != _UNDEFINED:
                        pos = value + length
                        continue
                    name = _LONG[vr]
                else:
                    name, length, value = self._odd_vr(vr, pos)
                self.pos = pos
                self._unusual(tag, name, length, value)
            if self.done or self.encoding != encoding:
                return done
            buffer, pos, group, get, stop = self._locals()
        self.pos = pos
        return done

    def _implicit(self, count: int) -> int:
        """Walks up to `count` elements with implicit VR; returns how many."""
        buffer, pos, group, get, stop = self._locals()
        encoding = self.encoding
        head = _PAIR[encoding[1]]
        quick = min(self.limits.text_bytes, 0xFFFF)
        done = 0
        for done in range(1, count + 1):
            if pos >= stop:
                self.pos = pos
                self._boundary()
            else:
                word, length = head(buffer, pos)
                tag = get(word)
                value = pos + 8
                after = value + length
                if tag is None:
                    if length != _UNDEFINED:
                        pos = after
                        continue
                elif length <= quick and after <= len(buffer):
                    name = VRS.get(tag, "SQ")
                    if name != "SQ" and tag > 0:
                        group[tag] = name, buffer[value:after]
                        pos = after
                        continue
                self.pos = pos
                self._unusual(tag, "", length, value)
            if self.done or self.encoding != encoding:
                return done
            buffer, pos, group, get, stop = self._locals()
        self.pos = pos
        return done

    def _locals(self) -> tuple[bytes, int, Group, Callable[[int], int | None], int]:
        length = len(self.buffer)
        # 12 bytes are the longest element header, 8 the shortest that can end a file.
        stop = length - (7 if self.base + length >= self.size else 11)
        if 0 <= self.end - self.base < stop:
            stop = self.end - self.base
        return self.buffer, self.pos, self.group, self.get, stop

    def _boundary(self) -> None:
        """Goes on where an item, the buffer or the file ends."""
        at = self.base + self.pos
        if self.stack and 0 <= self.end <= at:
            if at > self.end:
                raise _NotUnderstoodError(
                    f"an item should end at offset {self.end}, but its last element ends at {at}"
                )
            self._next_item()
        elif self.size - at >= 8:
            self._fill(at, min(12, self.size - at))
        elif self.stack or at > self.size:
            raise self._truncated()
        else:
            if at < self.size:
                self.notice(f"{self.size - at} bytes follow the last element")
            self.done = True

    def _fill(self, at: int, need: int) -> None:
        """Makes `buffer` begin at file offset `at`, with at least `need` bytes."""
        jump = at - self.base - len(self.buffer)
        self.skipped += max(jump, 0)
        self.pos = at - self.base
        self._check()
        self.chunk = min(self.chunk * 2, _LARGEST_READ) if jump <= 0 else _READ_AFTER_JUMP
        length = min(max(need, self.chunk), self.size - at)
        buffer = self.read(at, length) if length >= need else b""
        if len(buffer) < max(need, 1):
            raise self._truncated()
        if len(buffer) < length:
            self.size = at + len(buffer)
        self.buffer, self.base, self.pos = buffer, at, 0

    def _need(self, length: int) -> None:
        if self.pos + length > len(self.buffer):
            self._fill(self.base + self.pos, length)

    def _check(self) -> None:
        limits = self.limits
        if self.elements > limits.elements:
            raise self._beyond("elements", limits.elements)
        walked = self.base + self.pos - self.start - self.skipped
        if walked > limits.header_bytes:
            raise self._beyond("header_bytes", limits.header_bytes)
        allowed = limits.header_seconds + limits.header_seconds_per_16_mib * walked / (16 << 20)
        if time.thread_time() - self.began > allowed:
            raise self._beyond("header_seconds", limits.header_seconds)

    def _beyond(self, limit: str, value: float) -> HeaderError:
        return HeaderError(
            f"the header exceeds Limits.{limit} = {value} at offset {self.base + self.pos}; "
            "raise the limit if the file is trusted"
        )

    def _truncated(self) -> HeaderError:
        return HeaderError(
            f"the file ends inside its header: the element at offset {self.base + self.pos} does "
            f"not fit into {self.size} bytes; the file is incomplete, get it again"
        )

    def notice(self, text: str) -> None:
        if text not in self.header.notices:
            self.header.notices.append(text)

    def _odd_vr(self, vr: bytes, pos: int) -> tuple[str, int, int]:
        """(VR, length, value position) of an element whose VR is none of the standard's."""
        big = self.encoding[1]
        if vr.isalpha() and vr.isupper():
            # PS3.5 section 7.1.2 gives VRs to come two reserved bytes and a 32-bit length.
            (short,) = struct.unpack_from(">H" if big else "<H", self.buffer, pos + 6)
            if short == 0:
                (length,) = _LENGTH[big](self.buffer, pos + 8)
                if length <= self.size - self.base - pos - 12 or length == _UNDEFINED:
                    return "", length, pos + 12
            return "", short, pos + 8
        (length,) = _LENGTH[big](self.buffer, pos + 4)
        return "", length, pos + 8

    def _unusual(self, tag: int | None, vr: str, length: int, value: int) -> None:
        """Deals with an element that the fast path leaves: special, a sequence, long, or of undefined length."""
        if tag is not None and tag < 0:
            self._special(-tag, vr, length, value)
        elif tag is not None and (vr or VRS.get(tag)) == "SQ":
            items: Items = []
            self.group[tag] = "SQ", items
            self._enter(items, vr, length, value)
        elif tag is not None:
            self._wanted(tag, vr, length, value)
        elif length != _UNDEFINED:
            self.pos = value + length
        elif vr in ("SQ", "UN", ""):
            self._enter(None, vr, length, value)
        else:
            self._skip_fragments(value)

    def _special(self, tag: int, vr: str, length: int, value: int) -> None:
        pos = self.pos
        if tag in PIXEL_DATA_TAGS:
            if not self.stack:
                stated = -1 if length == _UNDEFINED else length
                self.header.pixel_data = PixelDataElement(
                    tag, vr or VRS[tag], self.base + value, stated
                )
                self.done = True
            elif length == _UNDEFINED:
                self._skip_fragments(value)
            else:
                self.pos = value + length
        elif tag == _ITEM_END and self.stack and self.end < 0:
            self.pos = pos + 8
            self._next_item()
        elif tag == _SEQUENCE_END and self.stack and self.sequence_end < 0:
            self._next_item()
        elif tag == _PADDING:
            self._padding()
        elif tag == _ITEM:
            self._stray_item()
        else:
            self.notice(f"stray {describe(tag)}")
            self.pos = pos + 8

    def _stray_item(self) -> None:
        """An item outside of a sequence, as after one whose length says 0; it belongs to nothing here."""
        _, length = _PAIR[self.encoding[1]](self.buffer, self.pos)
        if length == _UNDEFINED:
            raise _NotUnderstoodError(
                f"an item of undefined length outside of a sequence, at offset {self.base + self.pos}"
            )
        self.notice(f"an item of {length} bytes outside of a sequence; passed over")
        self.pos += 8 + length

    def _padding(self) -> None:
        """Zeros where a tag should be: harmless if nothing else follows to the end of the file."""
        at = self.base + self.pos
        if self.stack or self.buffer.count(0, self.pos) < len(self.buffer) - self.pos:
            raise _NotUnderstoodError(f"(0000,0000) is no tag of a data set, at offset {at}")
        if self.base + len(self.buffer) < self.size:
            self._fill(self.base + len(self.buffer), 1)
        else:
            self.notice(f"{self.size - at} zero bytes follow the last element")
            self.done = True

    def _wanted(self, tag: int, vr: str, length: int, value: int) -> None:
        known = vr_of(tag)
        name = known or vr if vr in ("", "UN") else vr
        if name == "SQ" or (length == _UNDEFINED and vr in ("", "UN")):
            items: Items | None = [] if name == "SQ" else None
            if vr == "UN" and self.encoding[1]:
                self.notice(
                    f"{describe(tag)} has VR UN, little endian among big endian; passed over"
                )
                items = None
            if items is not None:
                self.group[tag] = "SQ", items
            self._enter(items, vr, length, value)
        elif length == _UNDEFINED:
            self.notice(f"{describe(tag)} has VR {name} and undefined length; passed over")
            self._skip_fragments(value)
        elif known == "SQ":
            self.notice(f"{describe(tag)} has VR {name} instead of SQ; passed over")
            self.pos = value + length
        else:
            self._value(tag, name, length, value)

    def _value(self, tag: int, vr: str, length: int, value: int) -> None:
        limits = self.limits
        limit, most = (
            ("text_bytes", limits.text_bytes)
            if vr in _TEXT
            else ("header_bytes", limits.header_bytes)
        )
        if length > most:
            raise HeaderError(
                f"{describe(tag)} at offset {self.base + self.pos} has VR {vr or 'unknown'} and "
                f"{length} bytes, more than Limits.{limit} = {most}"
            )
        if self.base + value + length > self.size:
            raise self._truncated()
        self.pos = value
        self._need(length)
        after = self.pos + length
        self.group[tag] = vr, self.buffer[self.pos : after]
        self.pos = after

    def _enter(self, items: Items | None, vr: str, length: int, value: int) -> None:
        """Begins a sequence, to be recorded into `items` or to be passed over."""
        if len(self.stack) >= self.limits.depth:
            raise self._beyond("depth", self.limits.depth)
        self.stack.append(
            (self.group, self.end, self.encoding, self.get, self.items, self.sequence_end)
        )
        self.items = items
        self.sequence_end = -1 if length == _UNDEFINED else self.base + value + length
        self.get = self.lookups[items is None].get
        self.pos = value
        if vr == "UN":
            self._enter_unknown()
        self._next_item()

    def _enter_unknown(self) -> None:
        """PS3.5 section 6.2.2: a sequence in UN is Implicit VR Little Endian; some writers leave it explicit."""
        if self.encoding[1]:
            self.get = _lookups(frozenset(), False)[1].get
        self._need(min(16, self.size - self.base - self.pos))
        vr = self.buffer[self.pos + 12 : self.pos + 14]
        self.encoding = vr in _SHORT or vr in _LONG, False

    def _next_item(self) -> None:
        """Begins the next item, or leaves the sequence if there is none."""
        unpack = _PAIR[self.encoding[1]]
        item, item_end, sequence_end = (
            (_ITEM, _ITEM_END, _SEQUENCE_END) if self.encoding[1] else _SWAPPED_DELIMITERS
        )
        while True:
            at = self.base + self.pos
            if 0 <= self.sequence_end <= at:
                if at > self.sequence_end:
                    raise _NotUnderstoodError(
                        f"a sequence should end at offset {self.sequence_end}, but its last item "
                        f"ends at {at}"
                    )
                self._leave()
                return
            if self.pos + 8 > len(self.buffer):
                self._fill(at, 8)
            word, length = unpack(self.buffer, self.pos)
            if word == sequence_end:
                self.pos += 8
                self._leave()
                return
            self.items_met += 1
            if self.items_met > self.limits.items:
                raise self._beyond("items", self.limits.items)
            self.pos += 8
            if word == item:
                self.end = -1 if length == _UNDEFINED else at + 8 + length
                if self.items is not None:
                    self.group = {}
                    self.items.append(self.group)
                elif self.end >= 0:
                    self.pos += length
                    continue
                return
            if word != item_end:
                raise _NotUnderstoodError(
                    f"expected an item (FFFE,E000) at offset {at}, got the word {word:08X}"
                )

    def _leave(self) -> None:
        (self.group, self.end, self.encoding, self.get, self.items, self.sequence_end) = (
            self.stack.pop()
        )

    def _skip_fragments(self, value: int) -> None:
        """Passes over the items of an encapsulated value that is not the image's own."""
        self.pos = value
        unpack = _PAIR[self.encoding[1]]
        item, _, sequence_end = (
            (_ITEM, _ITEM_END, _SEQUENCE_END) if self.encoding[1] else _SWAPPED_DELIMITERS
        )
        while True:
            self._need(8)
            word, length = unpack(self.buffer, self.pos)
            self.items_met += 1
            if self.items_met > self.limits.items:
                raise self._beyond("items", self.limits.items)
            if word == sequence_end:
                self.pos += 8
                return
            if word != item or length == _UNDEFINED:
                raise _NotUnderstoodError(
                    f"expected an item (FFFE,E000) at offset {self.base + self.pos}, "
                    f"got the word {word:08X}"
                )
            self.pos += 8 + length


_SWAPPED_DELIMITERS: Final = (_swap(_ITEM), _swap(_ITEM_END), _swap(_SEQUENCE_END))


def read_header(read: Read, size: int, wanted: Collection[int], limits: Limits = LIMITS) -> Header:
    """Reads the wanted elements in front of the pixel data; the pixel data are never read.

    Handles Explicit and Implicit VR, both byte orders, deflated data sets, files without preamble or file meta, and
    files whose meta names another encoding than the data set is in. What the walk makes no sense of goes to pydicom,
    where the data set is small.

    Args:
        read: `read(offset, length)` gives the bytes there, fewer only at the end of the file.
        size: Bytes of the file.
        wanted: Tags to record, at any level; a wanted sequence becomes a list of items that hold wanted tags only. A
            `frozenset` that is handed in again and again saves the time to look at it anew.
        limits: What the header may cost.

    Raises:
        NotDicomError: The bytes are no DICOM.
        HeaderError: The header is damaged, cut off or beyond a limit; the message has the tag or limit and the offset.
    """
    buffer = read(0, min(size, _FIRST_READ))
    size = size if len(buffer) == min(size, _FIRST_READ) else len(buffer)
    position = 132 if buffer[128:132] == b"DICM" else 0
    if not position and not _looks_like_dicom(buffer, size):
        raise NotDicomError(
            f"no DICOM: neither DICM at offset 128 nor a data set at offset 0 of {size} bytes"
        )
    stated, position, buffer, base = _file_meta(read, size, buffer, position)
    header = Header(stated)
    tags = wanted if isinstance(wanted, frozenset) else frozenset(wanted)
    if stated == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        if _plausible(buffer, position - base, size - base, True, False) < 2:
            header.deflated = True
            buffer = header.inflated = _inflate(read(position, size - position), header, limits)
            position = base = 0
            size = len(buffer)
            read = _reader(buffer)
        else:
            header.transfer_syntax_uid = stated = EXPLICIT_VR_LITTLE_ENDIAN
            header.notices.append(
                f"TransferSyntaxUID is {DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN}, but not deflated"
            )
    explicit = _encoding(header, buffer, position - base, size - base)
    walk = _Walk(read, size, header, _lookups(tags, header.big_endian), limits)
    try:
        walk.run(buffer, base, position, explicit)
    except _NotUnderstoodError as error:
        return header_from_pydicom(
            read, size, position, tags, header, explicit, limits, cause=error
        )
    if not stated and header.pixel_data is not None and header.pixel_data.length < 0:
        header.transfer_syntax_uid = ""
        header.notices.append("the file names no TransferSyntaxUID for its encapsulated pixel data")
    return header


def _reader(data: bytes) -> Read:
    return lambda offset, length: data[offset : offset + length]


def _looks_like_dicom(buffer: bytes, size: int) -> bool:
    """Whether a file without preamble begins with file meta or with group 0008, and goes on like a data set."""
    if buffer[:2] not in (b"\x02\x00", b"\x08\x00", b"\x00\x08"):
        return False
    big = buffer[:1] == b"\x00"
    return max(_plausible(buffer, 0, size, explicit, big) for explicit in (True, False)) >= 3


def _plausible(buffer: bytes, pos: int, size: int, explicit: bool, big: bool) -> int:
    """How many elements follow each other sensibly from `pos` on, in this encoding; counts to 4.

    A value that reaches beyond `buffer` but not beyond `size`, or of undefined length, and the very end of the file
    count as the rest.
    """
    order: Literal["little", "big"] = "big" if big else "little"
    last = -1
    for count in range(4):
        if pos == size and count:
            return 4
        head = buffer[pos : pos + 12]
        if len(head) < 8:
            return 4 if count and pos < size and pos > len(buffer) - 12 else count
        group = int.from_bytes(head[:2], order)
        tag = group << 16 | int.from_bytes(head[2:4], order)
        vr = head[4:6]
        if tag <= last or (group == 0 and count):
            return count
        if explicit and vr in _SHORT:
            value, length = 8, int.from_bytes(head[6:8], order)
        elif explicit and vr in _LONG:
            value, length = 12, int.from_bytes(head[8:12], order)
        elif explicit or vr in _SHORT or vr in _LONG:
            return count
        else:
            value, length = 8, int.from_bytes(head[4:8], order)
        if length == _UNDEFINED:
            return 4
        last, pos = tag, pos + value + length
        if pos > size:
            return 4 if tag in PIXEL_DATA_TAGS and count else count
        if pos > len(buffer) and count:
            return 4
    return 4


def _encoding(header: Header, buffer: bytes, pos: int, size: int) -> bool:
    """Finds the encoding of the data set, sets `header`'s syntax and byte order; returns whether VRs are explicit."""
    stated = header.transfer_syntax_uid
    expected = _ENCODINGS.get(stated, (True, False))
    others = [encoding for encoding in _ENCODINGS.values() if encoding != expected]
    for explicit, big in (expected, *others, (False, True)):
        found = _plausible(buffer, pos, size, explicit, big)
        if found >= 2 or (found and (explicit, big) == expected):
            break
    else:
        if pos >= size:
            raise HeaderError(
                f"no data set follows the file meta, which ends with the file at offset {pos}"
            )
        raise HeaderError(
            f"no data element of any encoding at offset {pos}, where the data set should begin; "
            f"TransferSyntaxUID is {stated or 'absent'}"
        )
    header.big_endian = big
    actual = _UIDS[explicit, big]
    if not stated:
        header.transfer_syntax_uid = actual
        header.notices.append(f"(0002,0010) TransferSyntaxUID is absent; the data set is {actual}")
    elif (explicit, big) != expected:
        header.notices.append(
            f"(0002,0010) TransferSyntaxUID is {stated}, but the data set is encoded as {actual}"
        )
        if stated in NATIVE:
            header.transfer_syntax_uid = actual
    return explicit


_ENCODINGS: Final = {
    EXPLICIT_VR_LITTLE_ENDIAN: (True, False),
    IMPLICIT_VR_LITTLE_ENDIAN: (False, False),
    EXPLICIT_VR_BIG_ENDIAN: (True, True),
}
# Implicit VR with big endian bytes is no syntax of the standard; its pixel data are laid out like Explicit Big Endian.
_UIDS: Final = {encoding: uid for uid, encoding in _ENCODINGS.items()} | {
    (False, True): EXPLICIT_VR_BIG_ENDIAN
}


def _file_meta(read: Read, size: int, buffer: bytes, pos: int) -> tuple[str, int, bytes, int]:
    """Passes over group 0002, whatever its stated length.

    Returns (TransferSyntaxUID or "", offset of the data set, bytes around it, their offset).
    """
    uid, base = "", 0
    while True:
        if pos + 128 > base + len(buffer) and base + len(buffer) < size:
            buffer, base = read(pos, min(_FIRST_READ, size - pos)), pos
        head = buffer[pos - base : pos - base + 12]
        if head[:2] != b"\x02\x00" or len(head) < 8:
            return uid, pos, buffer, base
        vr = head[4:6]
        if vr in _LONG:
            value, length = 12, int.from_bytes(head[8:12], "little")
        elif vr in _SHORT:
            value, length = 8, int.from_bytes(head[6:8], "little")
        else:
            value, length = 8, int.from_bytes(head[4:8], "little")
        if pos + value + length > size:
            raise HeaderError(
                f"the file ends inside its file meta: ({head[1]:02X}{head[0]:02X},"
                f"{head[3]:02X}{head[2]:02X}) at offset {pos} states {length} bytes"
            )
        if head[2:4] == b"\x10\x00":
            start = pos - base + value
            uid = buffer[start : start + min(length, 64)].strip(b" \0").decode("ascii", "replace")
        pos += value + length


def _inflate(data: bytes, header: Header, limits: Limits) -> bytes:
    """The data set of Deflated Explicit VR Little Endian (PS3.5 annex A.5: RFC 1951, no zlib header)."""
    by_ratio = limits.inflated_ratio * len(data) + (64 << 10)
    name, most = min(
        (("inflated_bytes", limits.inflated_bytes), ("inflated_ratio", by_ratio)),
        key=lambda limit: limit[1],
    )
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = inflater.decompress(data, most + 1)
    except zlib.error as error:
        raise HeaderError(f"the deflated data set is damaged: {error}") from error
    if len(inflated) > most:
        raise HeaderError(
            f"the data set inflates to more than {most} bytes, the most that Limits.{name} = "
            f"{getattr(limits, name)} allows for {len(data)} compressed bytes"
        )
    if not inflater.eof:
        header.notices.append("the deflated data set is cut off")
    return inflated


def header_from_pydicom(
    read: Read,
    size: int,
    start: int,
    wanted: frozenset[int],
    header: Header,
    explicit: bool,
    limits: Limits,
    *,
    cause: HeaderError,
) -> Header:
    """Reads what the walk made no sense of with pydicom, if the data set in front of the pixels is small.

    Raises:
        HeaderError: It is too large for that, or pydicom fails as well; then the message is that of `cause`.
    """
    from pydicom.filereader import read_dataset

    data = io.BytesIO(read(start, min(size - start, _FALLBACK_BYTES)))
    try:
        dataset = read_dataset(
            data,
            is_implicit_VR=not explicit,
            is_little_endian=not header.big_endian,
            stop_when=lambda tag, vr, length: int(tag) in PIXEL_DATA_TAGS,
        )
        elements = _from_dataset(dataset, wanted, limits.depth)
    except (Exception, RecursionError, MemoryError) as error:
        raise HeaderError(f"{cause}; pydicom fails too ({type(error).__name__})") from cause
    position = start + data.tell()
    result = Header(header.transfer_syntax_uid, header.big_endian, elements, None)
    result.deflated, result.inflated = header.deflated, header.inflated
    result.notices = [*header.notices, f"read by pydicom, because {cause}"]
    if position < size:
        walk = _Walk(read, size, result, _lookups(frozenset(), header.big_endian), limits)
        walk.run(b"", position, position, explicit)
        if result.pixel_data is None:
            raise HeaderError(f"{cause}; pydicom stops at offset {position}") from cause
    return result


def _from_dataset(dataset: Dataset, wanted: frozenset[int], depth: int) -> Group:
    """The wanted raw elements of a data set of pydicom; `depth` bounds the recursion."""
    if depth == 0:
        raise RecursionError
    group: Group = {}
    for tag in wanted:
        element = dataset.get_item(tag) if tag in dataset else None
        if element is None:
            continue
        vr = element.VR or vr_of(tag)
        if vr == "UN":
            vr = vr_of(tag) or vr
        if vr == "SQ":
            group[tag] = (
                "SQ",
                [_from_dataset(item, wanted, depth - 1) for item in dataset[tag].value],
            )
        elif isinstance(element.value, bytes) or element.value is None:
            group[tag] = vr, element.value or b""
    return group


def texts(element: Element | None, character_set: str = "") -> list[str]:
    """The values of a text element, without the spaces and NULs around them; [] if absent or empty.

    Args:
        element: As recorded.
        character_set: (0008,0005) Specific Character Set, its values joined by backslashes. Bytes that it does not
            cover come out escaped, so that different values stay different.
    """
    if element is None:
        return []
    vr, value = element
    if not isinstance(value, bytes) or not value.strip(b" \0"):
        return []
    encoding = _PYTHON_ENCODINGS.get(character_set, "") if vr in _LOCALIZED else "ascii"
    if encoding:
        text = value.decode(encoding, "backslashreplace")
        parts = [text] if vr in ("ST", "LT", "UT", "UR") else text.split("\\")
    else:
        from pydicom.charset import convert_encodings, decode_bytes

        encodings = convert_encodings(character_set.split("\\"))
        parts = [decode_bytes(part, encodings, {ord("^"), ord("=")}) for part in value.split(b"\\")]
    return [part.strip(" \0") for part in parts]


_LOCALIZED: Final = frozenset(("LO", "LT", "PN", "SH", "ST", "UC", "UT"))
_PYTHON_ENCODINGS: Final = {
    "": "ascii",
    "ISO_IR 6": "ascii",
    "ISO_IR 13": "shift_jis",
    "ISO_IR 100": "latin_1",
    "ISO_IR 101": "iso8859_2",
    "ISO_IR 109": "iso8859_3",
    "ISO_IR 110": "iso8859_4",
    "ISO_IR 126": "iso8859_7",
    "ISO_IR 127": "iso8859_6",
    "ISO_IR 138": "iso8859_8",
    "ISO_IR 144": "iso8859_5",
    "ISO_IR 148": "iso8859_9",
    "ISO_IR 166": "iso8859_11",
    "ISO_IR 192": "utf_8",
    "ISO_IR 203": "iso8859_15",
    "GB18030": "gb18030",
    "GBK": "gbk",
}

_NUMPY_TYPES: Final = {
    "FL": "f4",
    "FD": "f8",
    "OB": "u1",
    "OD": "f8",
    "OF": "f4",
    "OL": "u4",
    "OV": "u8",
    "OW": "u2",
    "SL": "i4",
    "SS": "i2",
    "SV": "i8",
    "UL": "u4",
    "US": "u2",
    "UV": "u8",
    "AT": "u2",
}


def array(element: Element | None, big_endian: bool = False) -> npt.NDArray[Any]:
    """The numbers of a binary element as a 1-D array in native byte order; empty if absent or not binary.

    Bytes beyond the last whole number are left out. OW is read as uint16, AT as pairs of uint16.
    """
    vr, value = element or ("", b"")
    kind = _NUMPY_TYPES.get(vr)
    if kind is None or not isinstance(value, bytes):
        return np.empty(0, np.uint16)
    dtype = np.dtype((">" if big_endian else "<") + kind)
    whole = np.frombuffer(value, dtype, len(value) // dtype.itemsize)
    return whole.astype(dtype.newbyteorder("="), copy=False)


def floats(element: Element | None, big_endian: bool = False) -> list[float]:
    """The numbers of an element of any numeric VR; nan for a component that is empty or no number."""
    if element is None:
        return []
    vr, value = element
    if vr in ("DS", "IS"):
        try:
            return [float(part) for part in value.split(b"\\")]
        except ValueError:
            return [_float(part) for part in value.split(b"\\")] if value.strip(b" \0") else []
    return [float(number) for number in array(element, big_endian)]


def integers(element: Element | None, big_endian: bool = False) -> list[int | None]:
    """The integers of an element of any numeric VR; `None` for a component that is empty or no integer.

    AT gives whole tags.
    """
    if element is None:
        return []
    vr, value = element
    if vr in ("DS", "IS"):
        try:
            return [int(part) for part in value.split(b"\\")]
        except ValueError:
            return [_integer(number) for number in floats(element)]
    numbers = array(element, big_endian)
    if vr == "AT":
        pairs = numbers[: numbers.size // 2 * 2].reshape(-1, 2)
        return [int(group) << 16 | int(number) for group, number in pairs]
    if numbers.dtype.kind == "f":
        return [_integer(float(number)) for number in numbers]
    return list(map(int, numbers))


def _float(part: bytes) -> float:
    text = part.strip(b" \0\t\r\n").replace(b",", b".")
    try:
        return math.nan if b"_" in text else float(text)
    except ValueError:
        return math.nan


def _integer(number: float) -> int | None:
    return int(number) if number.is_integer() else None
