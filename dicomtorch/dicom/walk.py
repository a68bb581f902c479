"""One pass over the elements of a data set, bounded and without recursion (PS3.5 sections 7.1, 7.5).

`header.read_header` finds out how a file is encoded and starts it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final

from dicomtorch.dicom.cursor import Cursor
from dicomtorch.dicom.elements import Group, Header, Items, PixelDataElement, Read
from dicomtorch.dicom.runs import LONG, SHORT, TEXT, UNDEFINED, KnownRuns
from dicomtorch.dicom.tags import LOCATED, PIXEL_DATA_TAGS, VRS, describe, vr_of
from dicomtorch.dicom.words import (
    DELIMITERS,
    ITEM,
    ITEM_END,
    PADDING,
    SEQUENCE_END,
    SWAPPED_DELIMITERS,
    empty_items,
    lookups,
    swap,
)
from dicomtorch.errors import HeaderError
from dicomtorch.model.limits import Limits


class NotUnderstoodError(HeaderError):
    """Not beyond a limit and not cut off: another parser may make sense of it."""


_BATCH: Final = 4096
_EXPLICIT: Final = (struct.Struct("<I2sH").unpack_from, struct.Struct(">I2sH").unpack_from)
_PAIR: Final = (struct.Struct("<II").unpack_from, struct.Struct(">II").unpack_from)
_LENGTH: Final = (struct.Struct("<I").unpack_from, struct.Struct(">I").unpack_from)

_HEAD: Final = 192  # bytes of a located value: more than a point takes


class Walk(Cursor):
    """One pass over a data set, forwards only, on a stack of its own.

    `pos` counts from `base`, the file offset of `buffer`; every end is a file offset, -1 if a delimiter marks it.
    """

    def __init__(
        self,
        read: Read,
        size: int,
        header: Header,
        wanted: frozenset[int],
        limits: Limits,
        runs: KnownRuns | None = None,
    ) -> None:
        super().__init__(read, size, header, limits)
        self.lookups = lookups(wanted, header.big_endian)
        self.done = False
        self.encoding = True, header.big_endian  # (explicit VR, big endian)
        self.group: Group = header.elements
        self.end = size
        self.items: Items | None = None
        self.sequence_end = -1
        self.get = self.lookups[0].get
        self.stack: list[tuple[Any, ...]] = []
        self.runs = runs  # of the data set that no item surrounds, as long as it helps

    def run(self, buffer: bytes, base: int, start: int, explicit: bool) -> None:
        """Walks the data set that begins at offset `start`; `buffer` are the bytes from `base`."""
        self.buffer, self.base, self.pos, self.start = buffer, base, start - base, start
        self.encoding = explicit, self.header.big_endian
        try:
            while not self.done:
                count = min(_BATCH, self.limits.elements - self.elements + 1)
                if self._comes_back() and self._known():
                    count = 1
                self.elements += (self._explicit if self.encoding[0] else self._implicit)(count)
                self.check()
        except struct.error:
            raise self.truncated() from None

    def _known(self) -> bool:
        """Walks the runs that are known; whether one may follow the next element."""
        assert self.runs is not None
        most = self.limits.elements - self.elements
        self.pos, count, again = self.runs.walk(self.buffer, self.pos, self.group, most)
        self.elements += count
        if not again:
            self.runs = None
        return again

    def _comes_back(self) -> bool:
        return self.runs is not None and not self.stack

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
                if vr in SHORT:
                    value = pos + 8
                    if tag is None:
                        pos = value + length
                        continue
                    after = value + length
                    if tag > 0 and length <= quick and after <= len(buffer):
                        group[tag] = SHORT[vr], buffer[value:after]
                        pos = after
                        continue
                    name = SHORT[vr]
                elif vr in LONG:
                    (length,) = long_length(buffer, pos + 8)
                    value = pos + 12
                    if tag is None and length != UNDEFINED:
                        pos = value + length
                        continue
                    name = LONG[vr]
                else:
                    name, length, value = self._odd_vr(vr, pos)
                self.pos = pos
                self._unusual(tag, name, length, value)
            if self.done or self.encoding != encoding or self._comes_back():
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
                    if length != UNDEFINED:
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
            if self.done or self.encoding != encoding or self._comes_back():
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
                raise NotUnderstoodError(
                    f"an item should end at offset {self.end}, but its last element ends at {at}"
                )
            self._next_item()
        elif self.size - at >= 8:
            self.fill(at, min(12, self.size - at))
        elif self.stack or at > self.size:
            raise self.truncated()
        else:
            if at < self.size:
                self.notice(f"{self.size - at} bytes follow the last element")
            self.done = True

    def _odd_vr(self, vr: bytes, pos: int) -> tuple[str, int, int]:
        """(VR, length, value position) of an element whose VR is none of the standard's."""
        big = self.encoding[1]
        if vr.isalpha() and vr.isupper():
            group, element, short, next_group, next_element = struct.unpack_from(
                ">HH2xHHH" if big else "<HH2xHHH", self.buffer, pos
            )
            # PS3.5 section 7.1.2 gives VRs to come two reserved bytes and a 32-bit length, others 16 bits.
            if short or (next_group == group and next_element > element):
                return "", short, pos + 8
            return "", _LENGTH[big](self.buffer, pos + 8)[0], pos + 12
        (length,) = _LENGTH[big](self.buffer, pos + 4)
        if vr.isascii() and vr.decode().isprintable():
            # "??", blanks: characters, and not half a length.
            short = int.from_bytes(self.buffer[pos + 6 : pos + 8], "big" if big else "little")
            wide = _LENGTH[big](self.buffer, pos + 8)[0]
            for found, value in ((short, pos + 8), (wide, pos + 12)):
                if self._leads_on(pos, value + found):
                    return "", found, value
        return "", length, pos + 8

    def _leads_on(self, pos: int, after: int) -> bool:
        """Whether the element behind the one at `pos` may begin at `after`: a larger tag with a VR, or a delimiter."""
        if self.base + after == self.size:
            return True
        if after + 8 > len(self.buffer):  # it may: the look-ahead ends with what was read
            return self.base + after + 8 <= self.size
        unpack = _EXPLICIT[self.encoding[1]]
        (here, vr, _), (there, known, _) = unpack(self.buffer, pos), unpack(self.buffer, after)
        if not self.encoding[1]:
            here, there = swap(here), swap(there)
        is_known = known in SHORT or known in LONG or known == vr
        return (there > here and is_known) or there in (ITEM_END, SEQUENCE_END)

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
        elif length != UNDEFINED:
            self.pos = value + length
        elif vr in ("SQ", "UN", ""):
            self._enter(None, vr, length, value)
        else:
            self._skip_fragments(value)

    def _special(self, tag: int, vr: str, length: int, value: int) -> None:
        pos = self.pos
        if tag in PIXEL_DATA_TAGS:
            if not self.stack:
                stated = -1 if length == UNDEFINED else length
                self.header.pixel_data = PixelDataElement(
                    tag, vr or VRS[tag], self.base + value, stated
                )
                self.done = True
            elif length == UNDEFINED:
                self._skip_fragments(value)
            else:
                self.pos = value + length
        elif tag == ITEM_END and self.stack and self.end < 0:
            self.pos = pos + 8
            self._next_item()
        elif tag == SEQUENCE_END and self.stack and self.sequence_end < 0:
            self._next_item()
        elif tag in LOCATED:
            self._locate(tag, vr, length, value)
        elif tag == PADDING:
            self._padding()
        elif tag == ITEM:
            self._stray_item()
        else:
            self.notice(f"stray {describe(tag)}")
            self.pos = pos + 8

    def _locate(self, tag: int, vr: str, length: int, value: int) -> None:
        """Records where a value is instead of reading it, and its first bytes."""
        if length == UNDEFINED:
            raise NotUnderstoodError(f"{describe(tag)} has VR {vr} and undefined length")
        offset = self.base + value
        if offset + length > self.size:
            raise self.truncated()
        self.pos = value
        head = min(length, _HEAD)
        self.need(head)
        self.group[tag] = vr, (offset, length, self.buffer[self.pos : self.pos + head])
        self.pos += length

    def _stray_item(self) -> None:
        """An item outside of a sequence, as after one whose length says 0; it belongs to nothing here."""
        _, length = _PAIR[self.encoding[1]](self.buffer, self.pos)
        if length == UNDEFINED:
            raise NotUnderstoodError(
                f"an item of undefined length outside of a sequence, at offset {self.base + self.pos}"
            )
        self.notice(f"an item of {length} bytes outside of a sequence; passed over")
        self.pos += 8 + length

    def _padding(self) -> None:
        """Zeros where a tag should be: harmless if nothing else follows to the end of the file."""
        at = self.base + self.pos
        if self.stack or self.buffer.count(0, self.pos) < len(self.buffer) - self.pos:
            raise NotUnderstoodError(f"(0000,0000) is no tag of a data set, at offset {at}")
        if self.base + len(self.buffer) < self.size:
            self.fill(self.base + len(self.buffer), 1)
        else:
            self.notice(f"{self.size - at} zero bytes follow the last element")
            self.done = True

    def _wanted(self, tag: int, vr: str, length: int, value: int) -> None:
        known = vr_of(tag)
        name = known or vr if vr in ("", "UN") else vr
        if name == "SQ" or (length == UNDEFINED and vr in ("", "UN")):
            items: Items | None = [] if name == "SQ" else None
            if vr == "UN" and self.encoding[1]:
                self.notice(
                    f"{describe(tag)} has VR UN, little endian among big endian; passed over"
                )
                items = None
            if items is not None:
                self.group[tag] = "SQ", items
            self._enter(items, vr, length, value)
        elif length == UNDEFINED:
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
            if vr in TEXT
            else ("header_bytes", limits.header_bytes)
        )
        if length > most:
            raise HeaderError(
                f"{describe(tag)} at offset {self.base + self.pos} has VR {vr or 'unknown'} and "
                f"{length} bytes, more than Limits.{limit} = {most}"
            )
        if self.base + value + length > self.size:
            raise self.truncated()
        self.pos = value
        self.need(length)
        after = self.pos + length
        self.group[tag] = vr, self.buffer[self.pos : after]
        self.pos = after

    def _enter(self, items: Items | None, vr: str, length: int, value: int) -> None:
        """Begins a sequence, to be recorded into `items` or to be passed over."""
        if len(self.stack) >= self.limits.depth:
            raise self.beyond("depth", self.limits.depth)
        self.stack.append(
            (self.group, self.end, self.encoding, self.get, self.items, self.sequence_end)
        )
        self.items = items
        self.sequence_end = -1 if length == UNDEFINED else self.base + value + length
        if self.encoding[1] == self.header.big_endian:
            self.get = self.lookups[items is None].get
        self.pos = value
        if vr == "UN":
            self._enter_unknown()
        self._next_item()

    def _enter_unknown(self) -> None:
        """PS3.5 section 6.2.2: a sequence in UN is Implicit VR Little Endian; some writers leave it explicit."""
        if self.encoding[1]:
            self.get = lookups(frozenset(), False)[1].get
        self.need(min(16, self.size - self.base - self.pos))
        vr = self.buffer[self.pos + 12 : self.pos + 14]
        self.encoding = vr in SHORT or vr in LONG, False

    def _next_item(self) -> None:
        """Begins the next item, or leaves the sequence if there is none."""
        unpack = _PAIR[self.encoding[1]]
        item, item_end, sequence_end = DELIMITERS if self.encoding[1] else SWAPPED_DELIMITERS
        while True:
            at = self.base + self.pos
            if 0 <= self.sequence_end <= at:
                if at > self.sequence_end:
                    raise NotUnderstoodError(
                        f"a sequence should end at offset {self.sequence_end}, but its last item "
                        f"ends at {at}"
                    )
                self._leave()
                return
            if self.pos + 8 > len(self.buffer):
                self.fill(at, 8)
            word, length = unpack(self.buffer, self.pos)
            if word == sequence_end:
                self.pos += 8
                self._leave()
                return
            count = 1  # of items that are met here: of empty ones all that are in the buffer
            if word == item and not length:
                stop = len(self.buffer) if self.sequence_end < 0 else self.sequence_end - self.base
                count = max(1, empty_items(self.buffer, self.pos, stop, self.encoding[1]))
                if self.items is not None:
                    self.items.extend([{} for _ in range(count - 1)])
            self.items_met += count
            if self.items_met > self.limits.items:
                raise self.beyond("items", self.limits.items)
            self.pos += 8 * count
            if word == item:
                self.end = -1 if length == UNDEFINED else self.base + self.pos + length
                if self.items is not None:
                    self.group = {}
                    self.items.append(self.group)
                    if length:
                        return
                elif self.end >= 0:
                    self.pos += length
                else:
                    return
                continue  # empty, or passed over
            if word != item_end:
                raise NotUnderstoodError(
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
        item, _, sequence_end = DELIMITERS if self.encoding[1] else SWAPPED_DELIMITERS
        while True:
            self.need(8)
            word, length = unpack(self.buffer, self.pos)
            self.items_met += 1
            if self.items_met > self.limits.items:
                raise self.beyond("items", self.limits.items)
            if word == sequence_end:
                self.pos += 8
                return
            if word != item or length == UNDEFINED:
                raise NotUnderstoodError(
                    f"expected an item (FFFE,E000) at offset {self.base + self.pos}, "
                    f"got the word {word:08X}"
                )
            self.pos += 8 + length
