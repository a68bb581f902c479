"""A bounded, tolerant read of a Part 10 header: wanted tags only, stops at pixel data and never reads it.

PS3.10 section 7 (file meta), PS3.5 section 7 (data elements), annex A (transfer syntaxes).
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Final, Literal

from dicomtorch.attributes import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    LIMITS,
    NATIVE,
    Limits,
)
from dicomtorch.elements import (
    Element,
    Group,
    Header,
    Items,
    PixelDataElement,
    array,
    floats,
    integers,
    texts,
)
from dicomtorch.errors import HeaderError, NotDicomError
from dicomtorch.layouts import LONG, SHORT, UNDEFINED, Layout, first_two
from dicomtorch.tags import KEYWORDS, PIXEL_DATA_TAGS, VRS, vr_of
from dicomtorch.walk import FIRST_READ, NotUnderstoodError, Read, Walk, lookups

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = [
    "Element",
    "Group",
    "Header",
    "Items",
    "HeaderMemory",
    "PixelDataElement",
    "Read",
    "array",
    "floats",
    "header_from_pydicom",
    "integers",
    "read_header",
    "texts",
]

_FALLBACK_BYTES: Final = 1 << 18  # pydicom takes seconds for megabytes of empty items


def read_header(
    read: Read,
    size: int,
    wanted: Collection[int],
    limits: Limits = LIMITS,
    memory: HeaderMemory | None = None,
) -> Header:
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
        memory: What the headers read before had in common; it saves time and changes nothing else. It was made with the
            same `wanted` and `limits`.

    Raises:
        NotDicomError: The bytes are no DICOM.
        HeaderError: The header is damaged, cut off or beyond a limit; the message has the tag or limit and the offset.
    """
    remembered = None if memory is None else memory.recall(read, size)
    if remembered is not None:
        return remembered
    buffer = read(0, min(size, FIRST_READ))
    size = size if len(buffer) == min(size, FIRST_READ) else len(buffer)
    position = 132 if buffer[128:132] == b"DICM" else 0
    if not position and not _looks_like_dicom(buffer):
        raise NotDicomError(
            f"no DICOM: neither DICM at offset 128 nor a data set at offset 0 of {size} bytes"
        )
    stated, position, buffer, base = _file_meta(read, size, buffer, position)
    header = Header(stated)
    tags = wanted if isinstance(wanted, frozenset) else frozenset(wanted)
    deflated = None
    if stated == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        if _plausible(buffer, position - base, size - base, True, False) < 2:
            header.deflated = True
            deflated = _Deflated(read, position, size, limits)
            buffer = deflated.first
            position = base = 0
            size = len(buffer)
            read = _reader(buffer)
        else:
            header.transfer_syntax_uid = stated = EXPLICIT_VR_LITTLE_ENDIAN
            header.notices.append(
                f"TransferSyntaxUID is {DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN}, but not deflated"
            )
    explicit = _encoding(header, buffer, position - base, size - base)
    if memory is not None and not base and not header.notices and not header.deflated:
        memory.learn(header, buffer, position, explicit)
    walk = Walk(read, size, header, tags, limits)
    try:
        walk.run(buffer, base, position, explicit)
    except NotUnderstoodError as error:
        header = header_from_pydicom(
            read, size, position, tags, header, explicit, limits, cause=error
        )
    except HeaderError as error:
        if deflated is None or not deflated.is_partial:
            raise
        raise HeaderError(
            f"{error}; of the deflated data set the first {size} bytes are searched for pixel data "
            "(Limits.header_bytes)"
        ) from error
    if deflated is not None:
        header.inflated = deflated.whole(header)
    if not stated and header.pixel_data is not None and header.pixel_data.length < 0:
        header.transfer_syntax_uid = ""
        header.notices.append("the file names no TransferSyntaxUID for its encapsulated pixel data")
    return header


class _Family:
    """Files whose file meta name the same transfer syntax, writer and SOP class."""

    def __init__(self, uid: str, explicit: bool, layout: Layout) -> None:
        self.uid = uid
        self.explicit = explicit
        self.layout = layout
        self.starts: dict[bytes, tuple[struct.Struct, tuple[bytes, bytes]]] = {}


class HeaderMemory:
    """What the headers of a scan have in common.

    Args:
        wanted: The tags that all of them are read for.
        limits: What a header may cost.
    """

    def __init__(self, wanted: frozenset[int], limits: Limits = LIMITS) -> None:
        self.wanted = wanted
        self.limits = limits
        self._longest = min(limits.text_bytes, 0xFFFF)
        self._meta = Layout(
            lookups(_META, False)[0], VRS, explicit=True, longest=64, prefix=b"\x02\x00"
        )
        self._families: dict[Any, _Family] = {}
        self._first_read = FIRST_READ
        self._needed = self._reads = 0

    def recall(self, read: Read, size: int) -> Header | None:
        """The header of a file like earlier ones; `None` if it is not, or if anything about it is odd."""
        length = min(size, self._first_read)
        buffer = read(0, length)
        if buffer[128:132] != b"DICM" or len(buffer) < length:
            return None
        meta: Group = {}
        pos, _, whole = self._meta.walk(buffer, 132, meta, self.limits.elements)
        family = self._families.get(_key(meta)) if whole else None
        if family is None or buffer[pos : pos + 2] == b"\x02\x00":
            return None
        start = family.starts.get(buffer[pos : pos + 8])
        if start is None or pos + start[0].size > len(buffer):
            return None
        if start[0].unpack_from(buffer, pos) != start[1]:
            return None
        header = Header(family.uid)
        walk = Walk(read, size, header, self.wanted, self.limits, family.layout)
        try:
            walk.run(buffer, 0, pos, family.explicit)
        except HeaderError:  # comes again, and with it what is to be said and tried
            return None
        self._adapt(walk)
        return header

    def _adapt(self, walk: Walk) -> None:
        """Sizes the first read so that most headers need no second one."""
        self._needed = max(self._needed, walk.base + walk.pos)
        self._reads += 1
        if walk.base and self._first_read < FIRST_READ:
            self._first_read = FIRST_READ
            self._reads = 0
        elif self._reads == _WINDOW:
            room = self._needed + self._needed // 8
            self._first_read = min(max(-(-room // 4096) * 4096, 4096), FIRST_READ)
            self._needed = self._reads = 0

    def learn(self, header: Header, buffer: bytes, position: int, explicit: bool) -> None:
        """Remembers how a file began whose encoding was found to be as stated.

        Args:
            header: Before its walk.
            buffer: The first bytes of the file.
            position: Where its data set begins.
            explicit: Whether its VRs are explicit.
        """
        meta: Group = {}
        self._meta.walk(buffer, 132, meta, self.limits.elements)
        uid, layout = header.transfer_syntax_uid, self._layout(explicit)
        if (
            header.big_endian
            or buffer[128:132] != b"DICM"
            or KEYWORDS["TransferSyntaxUID"][0] not in meta
        ):
            return
        family = self._families.get(_key(meta))
        if family is None:
            if len(self._families) >= _MOST_FAMILIES:
                self._families.clear()
            family = self._families[_key(meta)] = _Family(uid, explicit, layout)
        start = first_two(buffer, position, explicit)
        if start is not None:
            if len(family.starts) >= _MOST_FAMILIES:
                family.starts.clear()
            family.starts[start[1][0]] = start

    def _layout(self, explicit: bool) -> Layout:
        lookup = lookups(self.wanted, False)[0]
        return Layout(lookup, VRS, explicit=explicit, longest=self._longest)


_META: Final = frozenset((0x00020002, 0x00020010, 0x00020012))
"""Media Storage SOP Class, Transfer Syntax, Implementation Class: files that agree in them are much alike."""
_MOST_FAMILIES: Final = 32
_WINDOW: Final = 64  # headers that say how long the next ones will be


def _key(meta: Group) -> tuple[Element | None, ...]:
    return tuple(map(meta.get, (0x00020010, 0x00020012, 0x00020002)))


def _reader(data: bytes) -> Read:
    return lambda offset, length: data[offset : offset + length]


def _looks_like_dicom(buffer: bytes) -> bool:
    """Whether a file without preamble begins with file meta or with group 0008, and goes on like a data set."""
    if buffer[:2] not in (b"\x02\x00", b"\x08\x00", b"\x00\x08"):
        return False
    big = buffer[:1] == b"\x00"
    found = (_plausible(buffer, 0, len(buffer), explicit, big) for explicit in (True, False))
    return max(found) >= 3


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
        if explicit and vr in SHORT:
            value, length = 8, int.from_bytes(head[6:8], order)
        elif explicit and vr in LONG:
            value, length = 12, int.from_bytes(head[8:12], order)
        elif explicit or vr in SHORT or vr in LONG:
            return count
        else:
            value, length = 8, int.from_bytes(head[4:8], order)
        if length == UNDEFINED:
            return 4 if count else 1
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
    candidates = sorted(_UIDS, key=lambda encoding: encoding != expected)
    found = [_plausible(buffer, pos, size, *expected)]
    if found[0] < 2:
        found += [_plausible(buffer, pos, size, *encoding) for encoding in candidates[1:]]
    if not any(found):
        what = (
            f"no data set follows the file meta, which ends with the file at offset {pos}"
            if pos >= size
            else f"no data element of any encoding at offset {pos}, where the data set should begin"
        )
        raise HeaderError(f"{what}; TransferSyntaxUID is {stated or 'absent'}")
    explicit, big = candidates[found.index(max(found))]
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
            buffer, base = read(pos, min(FIRST_READ, size - pos)), pos
        head = buffer[pos - base : pos - base + 12]
        if head[:2] != b"\x02\x00" or len(head) < 8:
            return uid, pos, buffer, base
        vr = head[4:6]
        if vr in LONG:
            value, length = 12, int.from_bytes(head[8:12], "little")
        elif vr in SHORT:
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


class _Deflated:
    """The data set of Deflated Explicit VR Little Endian (PS3.5 annex A.5: RFC 1951, no zlib header).

    A megabyte may inflate to a gigabyte. So the pixel data must begin in the first part, which is walked before
    anything else is inflated, and nothing is inflated that stands behind them.
    """

    def __init__(self, read: Read, start: int, size: int, limits: Limits) -> None:
        if size - start > limits.inflated_bytes:
            raise HeaderError(
                f"the deflated data set has {size - start} bytes, more than Limits.inflated_bytes = "
                f"{limits.inflated_bytes}"
            )
        data = read(start, size - start)
        by_ratio = limits.inflated_ratio * len(data) + (64 << 10)
        name, self.most = min(
            (("inflated_bytes", limits.inflated_bytes), ("inflated_ratio", by_ratio)),
            key=lambda limit: limit[1],
        )
        self.excess = (
            f"the data set inflates to more than {self.most} bytes, the most that Limits.{name} = "
            f"{getattr(limits, name)} allows for {len(data)} compressed bytes"
        )
        self.engine = zlib.decompressobj(-zlib.MAX_WBITS)
        self.tail = data
        self.is_cut = False
        self.first = self._take(min(limits.header_bytes, self.most + 1))
        self._check(self.first)

    @property
    def is_partial(self) -> bool:
        """Whether there is more than the first part."""
        return not self.engine.eof and not self.is_cut

    def whole(self, header: Header) -> bytes:
        """All bytes to the end of the pixel data."""
        pixels, inflated = header.pixel_data, self.first
        if self.is_partial and pixels is not None:
            end = self.most + 1
            if pixels.length >= 0:
                end = min(end, pixels.offset + pixels.length)
            if end > len(inflated):
                inflated += self._take(end - len(inflated))
                self._check(inflated)
        if self.is_cut:
            header.notices.append("the deflated data set is cut off")
        return inflated

    def _take(self, most: int) -> bytes:
        try:
            taken = self.engine.decompress(self.tail, most)
        except zlib.error as error:
            raise HeaderError(f"the deflated data set is damaged: {error}") from error
        self.tail = self.engine.unconsumed_tail
        self.is_cut = len(taken) < most and not self.engine.eof
        return taken

    def _check(self, inflated: bytes) -> None:
        if len(inflated) > self.most:
            raise HeaderError(self.excess)


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
        HeaderError: pydicom does not get to the pixel data, fails as well, or the header is too large for it; the
            message begins with that of `cause`.
    """
    from pydicom.filereader import read_dataset

    data = io.BytesIO(read(start, min(size - start, _FALLBACK_BYTES)))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the notice below says it all
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
    result = Header(header.transfer_syntax_uid, header.big_endian, elements)
    result.deflated = header.deflated
    result.notices = [*header.notices, f"read by pydicom, because {cause}"]
    if not _finds_pixel_data(read, size, position, result, explicit, limits):
        raise HeaderError(f"{cause}; pydicom stops at offset {position}") from cause
    return result


def _finds_pixel_data(
    read: Read, size: int, position: int, header: Header, explicit: bool, limits: Limits
) -> bool:
    """Whether pydicom stopped at pixel data, and not because it lost its way or ran out of bytes."""
    try:
        Walk(read, size, header, frozenset(), limits).run(b"", position, position, explicit)
    except HeaderError:
        return False
    return header.pixel_data is not None and header.pixel_data.offset - position <= 12


def _from_dataset(dataset: Dataset, wanted: frozenset[int], depth: int) -> Group:
    """The wanted raw elements of a data set of pydicom; `depth` bounds the recursion."""
    if depth == 0:
        raise RecursionError
    group: Group = {}
    for tag in map(int, wanted.intersection(dataset.keys())):
        element = dataset.get_item(tag)
        vr, value = element.VR, element.value or b""
        if vr in (None, "UN"):
            vr = vr_of(tag)
        if vr == "SQ":
            items = dataset[tag].value
            value = [_from_dataset(item, wanted, depth - 1) for item in items]
        elif isinstance(value, str):  # Specific Character Set, which pydicom converts at once
            value = value.encode()
        elif not isinstance(value, bytes):
            value = "\\".join(value).encode()
        group[tag] = vr or "", value
    return group
