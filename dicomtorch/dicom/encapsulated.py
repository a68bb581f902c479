"""Which items of encapsulated pixel data make which frame: offset tables, markers, one item each (PS3.5 A.4)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from dicomtorch.dicom.elements import PixelDataElement, Read
from dicomtorch.dicom.items import ITEM, ITEM_HEAD, UNDEFINED, Items, walk_items
from dicomtorch.errors import EncapsulationError, format_count
from dicomtorch.model.frame import FrameSpans, SpanRule
from dicomtorch.model.image import ImagePixel
from dicomtorch.model.limits import Limits
from dicomtorch.model.syntaxes import (
    HTJ2K_FAMILY,
    JPEG_2000_FAMILY,
    JPEG_DCT,
    JPEG_LOSSLESS_FAMILY,
    JPEG_LS_FAMILY,
)

Integers = npt.NDArray[np.int64]

_END_MARKER_WITHIN: Final = (
    16  # bytes at the end of a fragment; real encoders leave junk behind EOI
)

_JPEG: Final = JPEG_DCT | JPEG_LOSSLESS_FAMILY | JPEG_LS_FAMILY
_MARKED: Final = _JPEG | JPEG_2000_FAMILY | HTJ2K_FAMILY
_JPEG_START: Final = re.compile(rb"\xff+\xd8")  # SOI; FF may fill before any marker (T.81 B.1.1.2)
_JPEG_2000_START: Final = re.compile(
    rb"\xff\x4f\xff\x51|\x00\x00\x00\x0cjP  \r\n\x87\n"
)  # SOC+SIZ, JP2
_DELIMITER: Final = b"\xfe\xff\xdd\xe0\0\0\0\0"
_END: Final = b"\xff\xd9"  # EOI, EOC


class Encapsulated:
    """The frames of one encapsulated element."""

    def __init__(
        self,
        read: Read,
        size: int,
        element: PixelDataElement,
        pixel: ImagePixel,
        claimed: int,
        limits: Limits,
        notices: list[str],
    ) -> None:
        self.read = read
        self.element = element
        end = element.offset + element.length
        self.is_closed = element.length >= 0 and end <= size
        self.size = end if self.is_closed else size
        self.syntax = pixel.transfer_syntax_uid
        self.interpretation = pixel.photometric_interpretation
        self.claimed = claimed
        self.most = limits.fragments(claimed)
        self.notices = notices
        self.first = 0  # offset of the first item after the Basic Offset Table

    def locate(
        self, extended_offsets: npt.ArrayLike | None, extended_lengths: npt.ArrayLike | None
    ) -> FrameSpans:
        """Where the frames are; see `spans.locate_frames`."""
        basic = self._basic_offset_table()
        if extended_offsets is not None:
            lengths = None if extended_lengths is None else np.asarray(extended_lengths)
            spans = self._by_table("extended_offset_table", np.asarray(extended_offsets), lengths)
            if spans is not None:
                return spans
        if basic.size and self.claimed > 1:
            spans = self._by_table("basic_offset_table", basic, None)
            if spans is not None:
                return spans
        items = self._walk(self.first)
        if items.cut:
            self.notices.append(f"the file ends inside {element_name(self.element)}")
        return self._by_fragments(items)

    def _walk(self, at: int) -> Items:
        """The items from `at` to the end of the element, which a delimiter marks, or the length that it states."""
        items = walk_items(self.read, at, -1, self.size, self.most)
        if self.is_closed and items.after <= self.size < items.after + len(_DELIMITER):
            items.cut = False
        return items

    def _basic_offset_table(self) -> Integers:
        """Reads the Basic Offset Table and sets `first`; an unusable table is empty."""
        at = self.element.offset
        head = self.read(at, min(8, max(self.size - at, 0)))
        word, length = ITEM_HEAD.unpack(head) if len(head) == 8 else (0, 0)
        if word != ITEM or length == UNDEFINED or at + 8 + length > self.size:
            raise EncapsulationError(
                f"{element_name(self.element)} should begin with an item (FFFE,E000), the Basic Offset Table; "
                f"got {len(head)} bytes with the word {word:08X} and length {length}"
            )
        self.first = at + 8 + length
        if length == 0:
            return np.empty(0, np.int64)
        if length != 4 * self.claimed:
            self._reject(
                "Basic", f"it has {length} bytes for {format_count(self.claimed, 'frame')}"
            )
            return np.empty(0, np.int64)
        return np.frombuffer(self.read(at + 8, length), "<u4").astype(np.int64)

    def _reject(self, table: str, reason: str) -> None:
        self.notices.append(f"{table} Offset Table rejected: {reason}")

    def _by_table(
        self,
        rule: SpanRule,
        table: npt.NDArray[np.generic],
        true_lengths: npt.NDArray[np.generic] | None,
    ) -> FrameSpans | None:
        """The frames by an offset table, `None` if it is not to be trusted."""
        name = "Extended" if rule == "extended_offset_table" else "Basic"
        reason = self._table_fault(table, true_lengths)
        if reason:
            self._reject(name, reason)
            return None
        offset = table.astype(np.int64) + self.first
        try:
            ends, fragments = self._table_ends(offset)
        except EncapsulationError as error:
            self._reject(name, str(error))
            return None
        count = len(ends)
        length = ends - offset[:count]
        true_length = np.full(count, -1, np.int64)
        if true_lengths is not None:
            true_length = true_lengths[:count].astype(np.int64)
            if (true_length + 8 > length).any():
                self._reject(name, "a length of it reaches beyond its frame")
                return None
        self._report(count)
        return self._spans(rule, offset[:count], length, fragments, true_length, count)

    def _table_fault(
        self, table: npt.NDArray[np.generic], true_lengths: npt.NDArray[np.generic] | None
    ) -> str:
        """Why a table cannot be right, "" if it can."""
        for values in (table, true_lengths):
            if values is not None and values.shape != (self.claimed,):
                return f"it has {values.size} entries for {format_count(self.claimed, 'frame')}"
            if values is not None and int(values.max()) > 1 << 62:
                return "an entry is beyond the element"
        if int(table[0]) != 0:
            return f"its first entry is {int(table[0])}, not 0"
        if (np.diff(table.astype(np.int64)) <= 0).any():
            return "its entries do not ascend"
        return ""

    def _table_ends(self, offset: Integers) -> tuple[Integers, npt.NDArray[np.int32]]:
        """Where each frame ends, and the fragments that were counted on the way; fewer if the file is cut off.

        Only the items of the first and of the last frame are looked at.
        """
        inside = int(np.searchsorted(offset, self.size - 8, side="right"))
        if inside == 0:
            raise EncapsulationError("its entries are beyond the file")
        fragments = np.full(len(offset), -1, np.int32)
        last = self._walk(int(offset[inside - 1]))
        if inside < len(offset) and not last.cut:
            raise EncapsulationError(f"entry {inside} is beyond the element")
        if not last.offsets:
            raise EncapsulationError(f"entry {inside - 1} is no item")
        fragments[inside - 1] = len(last.offsets)
        ends = np.append(offset[1:inside], last.after)
        # Where the file is cut off, a frame is whole if it is the last of all or ends where the next begins.
        whole = not last.partial and (inside == len(offset) or last.after == int(offset[inside]))
        if inside > 1:
            first = walk_items(self.read, self.first, int(offset[1]), self.size, self.most)
            fragments[0] = len(first.offsets)
        count = inside if whole else inside - 1
        return ends[:count], fragments[:count]

    def _report(self, count: int) -> None:
        if count < self.claimed:
            self.notices.append(
                f"the file ends inside {element_name(self.element)}: "
                f"{format_count(self.claimed, 'frame')} claimed, {count:,} found"
            )

    def _by_fragments(self, items: Items) -> FrameSpans:
        """The frames where no table can be trusted."""
        claimed, count = self.claimed, len(items.offsets)
        if claimed == 1:
            starts = self._starts(items) if count > 1 and self.syntax in _MARKED else [0]
            if len(starts) > 1:
                self.notices.append(
                    f"1 frame claimed, {len(starts)} found; only the first is taken"
                )
            return self._grouped("single_frame", items, starts or [0])
        if count == claimed:
            return self._grouped("one_fragment_per_frame", items, range(count))
        if self.syntax in _MARKED:
            rule: SpanRule = "markers"
            starts = self._starts(items)
        else:  # PS3.5 annex A.4: in the other syntaxes a frame is one fragment
            rule, starts = "one_fragment_per_frame", list(range(count))
        if len(starts) == claimed or (items.cut and len(starts) < claimed):
            return self._grouped(rule, items, starts)
        how = "start and end markers show" if rule == "markers" else "one fragment each would be"
        raise EncapsulationError(
            f"(0028,0008) NumberOfFrames is {claimed}, but {element_name(self.element)} holds "
            f"{format_count(count, 'fragment')} without a valid offset table, and {how} "
            f"{format_count(len(starts), 'frame')}"
        )

    def _starts(self, items: Items) -> list[int]:
        """The fragments that begin a frame: with a start marker, after one with an end marker.

        Interiors are never searched: a thumbnail inside a frame has markers of its own. Empty if the first fragment
        has no start marker.
        """
        start = _JPEG_START if self.syntax in _JPEG else _JPEG_2000_START
        starts: list[int] = []
        window = (
            b""  # the last bytes of the frame so far, over fragments that are smaller than that
        )
        tail = 0  # bytes of the fragment before, which are read with the head of the next
        for number, (offset, length) in enumerate(zip(items.offsets, items.lengths, strict=True)):
            data = self.read(offset - tail, min(tail + 24, self.size - offset + tail))
            window = (window + data[:tail])[-_END_MARKER_WITHIN:]
            head = data[tail + 8 : tail + 8 + length]
            if (number == 0 or _END in window) and start.match(head):
                starts.append(number)
                window = b""
            elif not starts:
                return []
            tail = min(length, _END_MARKER_WITHIN)
        return starts

    def _grouped(self, rule: SpanRule, items: Items, starts: Sequence[int]) -> FrameSpans:
        """The frames that begin at the fragments `starts`; those that are not whole are left out."""
        found = len(starts)
        begin = np.array([*starts, len(items.offsets)], np.int64)
        offsets = np.array([*items.offsets, items.after], np.int64)[begin]
        fragments = np.diff(begin).astype(np.int32)
        count = min(found, self.claimed) if items.offsets else 0
        if items.partial and count == found > 0:
            count = found = found - 1
        if count < self.claimed:
            self.notices.append(f"{format_count(self.claimed, 'frame')} claimed, {count:,} found")
        return self._spans(
            rule,
            offsets[:count],
            np.diff(offsets)[:count],
            fragments[:count],
            np.full(count, -1, np.int64),
            found if items.offsets else 0,
        )

    def _spans(
        self,
        rule: SpanRule,
        offset: Integers,
        length: Integers,
        fragments: npt.NDArray[np.int32],
        true_length: Integers,
        found: int,
    ) -> FrameSpans:
        return FrameSpans(
            offset,
            length,
            fragments,
            np.zeros(len(offset), np.int8),
            true_length,
            rule,
            found,
            self.interpretation,
            tuple(self.notices),
        )


def element_name(element: PixelDataElement) -> str:
    """The element for a message: its tag and where its value begins."""
    return f"({element.tag >> 16:04X},{element.tag & 0xFFFF:04X}) at offset {element.offset}"
