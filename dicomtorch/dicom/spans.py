"""Where the frames of a Pixel Data element are: offset tables, fragments, native frames (PS3.5 section 8, annex A.4).

Pure functions: bytes come from a `read(offset, length)` that is handed in, or are given as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from dicomtorch.dicom.elements import PixelDataElement
from dicomtorch.dicom.fragments import _HEADER, _ITEM, _packs_into_big_endian_words
from dicomtorch.errors import EncapsulationError
from dicomtorch.model.frame import FrameSpan, SpanRule
from dicomtorch.model.image import ImagePixel
from dicomtorch.model.limits import LIMITS, Limits
from dicomtorch.model.syntaxes import (
    HTJ2K_FAMILY,
    JPEG_2000_FAMILY,
    JPEG_DCT,
    JPEG_LOSSLESS_FAMILY,
    JPEG_LS_FAMILY,
)

Read = Callable[[int, int], bytes]  # (offset, length) -> bytes, fewer only at the end of the file
Integers = npt.NDArray[np.int64]

_SEQUENCE_END: Final = 0xE0DDFFFE
_UNDEFINED: Final = 0xFFFFFFFF
_READ_AHEAD: Final = 1 << 16
_SMALL_ITEM: Final = 1 << 14  # below, several item headers come with one read
_END_MARKER_WITHIN: Final = (
    16  # bytes at the end of a fragment; real encoders leave junk behind EOI
)

_JPEG: Final = JPEG_DCT | JPEG_LOSSLESS_FAMILY | JPEG_LS_FAMILY
_MARKED: Final = _JPEG | JPEG_2000_FAMILY | HTJ2K_FAMILY
_JPEG_START: Final = re.compile(rb"\xff+\xd8")  # SOI; FF may fill before any marker (T.81 B.1.1.2)
_JPEG_2000_START: Final = re.compile(
    rb"\xff\x4f\xff\x51|\x00\x00\x00\x0cjP  \r\n\x87\n"
)  # SOC+SIZ, JP2
_END: Final = b"\xff\xd9"  # EOI, EOC


@dataclass(frozen=True, eq=False)
class FrameSpans:
    """The frames of one Pixel Data element, in order; arrays have one entry a frame.

    Attributes:
        offset: int64. First byte in the file: of the frame, or of the item tag of its first fragment.
        length: int64. Bytes to read, item headers included.
        fragments: int32. Items in the span, 0 for native data, -1 where a table made counting unnecessary.
        bit_offset: int8. The bit of the first byte, of the first word in Explicit Big Endian OW, at which a native
            frame begins.
        true_length: int64. Length from the Extended Offset Table without padding; -1 if unknown.
        rule: What told the frames apart.
        found: Frames that the element holds; differs from the frames here where more are there than claimed.
        photometric_interpretation: The one that the length bears out: YBR_FULL where the header says YBR_FULL_422 but
            no chroma sample is missing; else as in the header.
        notices: What was odd: tables rejected and why, claimed against found, excess bytes, truncation.
    """

    offset: Integers
    length: Integers
    fragments: npt.NDArray[np.int32]
    bit_offset: npt.NDArray[np.int8]
    true_length: Integers
    rule: SpanRule
    found: int
    photometric_interpretation: str = ""
    notices: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.offset)

    def span(self, frame: int) -> FrameSpan:
        """The span of one frame."""
        return FrameSpan(
            int(self.offset[frame]),
            int(self.length[frame]),
            int(self.fragments[frame]),
            int(self.bit_offset[frame]),
            int(self.true_length[frame]),
        )


def locate_frames(
    read: Read,
    size: int,
    element: PixelDataElement,
    pixel: ImagePixel,
    number_of_frames: int | None,
    *,
    extended_offsets: npt.ArrayLike | None = None,
    extended_lengths: npt.ArrayLike | None = None,
    limits: Limits = LIMITS,
) -> FrameSpans:
    """Finds the bytes of every frame of a Pixel Data element.

    Native frames follow from the header alone. Encapsulated ones are told apart by, in order of trust: the Extended
    Offset Table, the Basic Offset Table, their being one, one fragment each, start and end markers. Frames that are
    claimed but not in the file are left out, and a notice says so.

    Args:
        read: Positioned read of the file, of the inflated data set if it is deflated.
        size: Bytes of the same.
        element: The element's place.
        pixel: Its Image Pixel Module.
        number_of_frames: (0028,0008) as in the header, `None` if absent.
        extended_offsets: (7FE0,0001) Extended Offset Table, integers from the first item after the Basic Offset Table.
        extended_lengths: (7FE0,0002) Extended Offset Table Lengths.
        limits: `frames_per_file` and `fragments` are minded here.

    Raises:
        EncapsulationError: The frames cannot be told apart, or the element contradicts its transfer syntax.
    """
    notices: list[str] = []
    claimed = 1 if number_of_frames is None else number_of_frames
    if claimed < 1:
        notices.append(f"(0028,0008) NumberOfFrames is {claimed}; taken as 1")
        claimed = 1
    if not pixel.is_encapsulated:
        return _native(size, element, pixel, claimed, limits, notices)
    if element.length >= 0:
        raise EncapsulationError(
            f"{_name(element)} has {element.length} bytes, but transfer syntax "
            f"{pixel.transfer_syntax_uid} needs undefined length and items; one of the two is wrong"
        )
    if claimed > limits.frames_per_file:
        raise EncapsulationError(
            f"(0028,0008) NumberOfFrames is {claimed}, more than Limits.frames_per_file = "
            f"{limits.frames_per_file}"
        )
    return _Encapsulated(read, size, element, pixel, claimed, limits, notices).locate(
        extended_offsets, extended_lengths
    )


def _name(element: PixelDataElement) -> str:
    return f"({element.tag >> 16:04X},{element.tag & 0xFFFF:04X}) at offset {element.offset}"


def _native(
    size: int,
    element: PixelDataElement,
    pixel: ImagePixel,
    claimed: int,
    limits: Limits,
    notices: list[str],
) -> FrameSpans:
    if element.length < 0:
        raise EncapsulationError(
            f"{_name(element)} has undefined length, but transfer syntax "
            f"{pixel.transfer_syntax_uid} is native and needs a length; one of the two is wrong"
        )
    available = max(min(element.length, size - element.offset), 0)
    if available < element.length:
        notices.append(
            f"{_name(element)} states {element.length} bytes, the file has {available} of them"
        )
    bits, interpretation = _native_frame(pixel, claimed, element.length, notices)
    words = _packs_into_big_endian_words(pixel)
    whole = (available // 2 * 2 if words else available) * 8 // bits
    if min(whole, claimed) > limits.frames_per_file:
        raise EncapsulationError(
            f"{min(whole, claimed)} frames are more than Limits.frames_per_file = "
            f"{limits.frames_per_file}"
        )
    count = min(whole, claimed)
    excess = available - -(-claimed * bits // 8)
    found = whole if excess > 1 else count
    if count < claimed or found > claimed:
        notices.append(f"{claimed} frames claimed, {found} found")
    elif excess > 1:
        notices.append(f"{excess} bytes follow the last frame")
    start = np.arange(count, dtype=np.int64) * bits
    unit = 16 if words else 8
    offset, bit_offset = start // unit * (unit // 8), start % unit
    length = (bit_offset + bits + unit - 1) // unit * (unit // 8)
    return FrameSpans(
        offset + element.offset,
        length,
        np.zeros(count, np.int32),
        bit_offset.astype(np.int8),
        np.full(count, -1, np.int64),
        "native",
        found,
        interpretation,
        tuple(notices),
    )


def _native_frame(
    pixel: ImagePixel, claimed: int, stated: int, notices: list[str]
) -> tuple[int, str]:
    """(bits of a frame, photometric interpretation that the length bears out)."""
    bits = pixel.native_bits
    if bits <= 0:
        raise EncapsulationError(
            f"(0028,0010) Rows is {pixel.rows}, (0028,0011) Columns is {pixel.columns}; both must be "
            "positive"
        )
    if pixel.photometric_interpretation == "YBR_FULL_422" and pixel.samples_per_pixel == 3:
        full = bits // 2 * 3
        if 0 <= stated - -(-claimed * full // 8) <= 1:
            notices.append(
                "(0028,0004) PhotometricInterpretation is YBR_FULL_422, but the pixel data have "
                "the length of YBR_FULL; taken as that"
            )
            return full, "YBR_FULL"
    return bits, pixel.photometric_interpretation


@dataclass(slots=True)
class _Items:
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


def _walk_items(read: Read, at: int, end: int, size: int, most: int) -> _Items:
    """Walks over items from `at` to `end` (-1: to the delimiter), reading little more than their headers.

    Raises:
        EncapsulationError: Something else than an item is there, or more than `most` items.
    """
    items = _Items()
    offsets, lengths = items.offsets, items.lengths
    buffer, base, ahead = b"", at, _READ_AHEAD
    while at != end:
        pos = at - base
        if pos + 8 > len(buffer):
            buffer, base, pos = read(at, min(ahead, size - at)) if at < size else b"", at, 0
            if len(buffer) < 8:
                items.cut = True
                break
        word, length = _HEADER.unpack_from(buffer, pos)
        if word == _SEQUENCE_END and end < 0:
            break
        if word != _ITEM or length == _UNDEFINED or 0 <= end < at + 8 + length:
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


class _Encapsulated:
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
        self.size = size
        self.element = element
        self.syntax = pixel.transfer_syntax_uid
        self.interpretation = pixel.photometric_interpretation
        self.claimed = claimed
        self.most = limits.fragments(claimed)
        self.notices = notices
        self.first = 0  # offset of the first item after the Basic Offset Table

    def locate(
        self, extended_offsets: npt.ArrayLike | None, extended_lengths: npt.ArrayLike | None
    ) -> FrameSpans:
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
        items = _walk_items(self.read, self.first, -1, self.size, self.most)
        if items.cut:
            self.notices.append(f"the file ends inside {_name(self.element)}")
        return self._by_fragments(items)

    def _basic_offset_table(self) -> Integers:
        """Reads the Basic Offset Table and sets `first`; an unusable table is empty."""
        at = self.element.offset
        head = self.read(at, min(8, max(self.size - at, 0)))
        word, length = _HEADER.unpack(head) if len(head) == 8 else (0, 0)
        if word != _ITEM or length == _UNDEFINED or at + 8 + length > self.size:
            raise EncapsulationError(
                f"{_name(self.element)} should begin with an item (FFFE,E000), the Basic Offset Table; "
                f"got {len(head)} bytes with the word {word:08X} and length {length}"
            )
        self.first = at + 8 + length
        if length == 0:
            return np.empty(0, np.int64)
        if length != 4 * self.claimed:
            self._reject("Basic", f"it has {length} bytes for {self.claimed} frames")
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
                return f"it has {values.size} entries for {self.claimed} frames"
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
        last = _walk_items(self.read, int(offset[inside - 1]), -1, self.size, self.most)
        if inside < len(offset) and not last.cut:
            raise EncapsulationError(f"entry {inside} is beyond the element")
        if not last.offsets:
            raise EncapsulationError(f"entry {inside - 1} is no item")
        fragments[inside - 1] = len(last.offsets)
        ends = np.append(offset[1:inside], last.after)
        # Where the file is cut off, a frame is whole if it is the last of all or ends where the next begins.
        whole = not last.partial and (inside == len(offset) or last.after == int(offset[inside]))
        if inside > 1:
            first = _walk_items(self.read, self.first, int(offset[1]), self.size, self.most)
            fragments[0] = len(first.offsets)
        count = inside if whole else inside - 1
        return ends[:count], fragments[:count]

    def _report(self, count: int) -> None:
        if count < self.claimed:
            self.notices.append(
                f"the file ends inside {_name(self.element)}: {self.claimed} frames claimed, {count} found"
            )

    def _by_fragments(self, items: _Items) -> FrameSpans:
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
            f"(0028,0008) NumberOfFrames is {claimed}, but {_name(self.element)} holds {count} "
            f"fragments without a valid offset table, and {how} {len(starts)} frames"
        )

    def _starts(self, items: _Items) -> list[int]:
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

    def _grouped(self, rule: SpanRule, items: _Items, starts: Sequence[int]) -> FrameSpans:
        """The frames that begin at the fragments `starts`; those that are not whole are left out."""
        found = len(starts)
        begin = np.array([*starts, len(items.offsets)], np.int64)
        offsets = np.array([*items.offsets, items.after], np.int64)[begin]
        fragments = np.diff(begin).astype(np.int32)
        count = min(found, self.claimed) if items.offsets else 0
        if items.partial and count == found:
            count = found = found - 1
        if count < self.claimed:
            self.notices.append(f"{self.claimed} frames claimed, {count} found")
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
