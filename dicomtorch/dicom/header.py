"""A bounded, tolerant read of a Part 10 header: wanted tags only, stops at pixel data and never reads it.

PS3.10 section 7 (file meta), PS3.5 section 7 (data elements), annex A (transfer syntaxes).
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from typing import Final, Literal

from dicomtorch.dicom.deflate import Inflater
from dicomtorch.dicom.elements import Header, Read
from dicomtorch.dicom.fallback import header_from_pydicom
from dicomtorch.dicom.memory import HeaderMemory
from dicomtorch.dicom.meta import FIRST_READ, read_file_meta
from dicomtorch.dicom.runs import LONG, SHORT, UNDEFINED
from dicomtorch.dicom.tags import PIXEL_DATA_TAGS
from dicomtorch.dicom.walk import NotUnderstoodError, Walk
from dicomtorch.errors import HeaderError, NotDicomError
from dicomtorch.model.limits import LIMITS, Limits
from dicomtorch.model.shown import named_uid
from dicomtorch.model.syntaxes import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    NATIVE,
)


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
    if buffer[128:132] != b"DICM" and not _looks_like_dicom(buffer):
        raise NotDicomError(
            f"no DICOM: neither DICM at offset 128 nor a data set at offset 0 of {size} bytes"
        )
    stated, position, buffer, base = read_file_meta(read, size, buffer)
    header = Header(stated)
    tags = wanted if isinstance(wanted, frozenset) else frozenset(wanted)
    deflated = None
    if stated == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        if _plausible(buffer, position - base, size - base, True, False) < 2:
            header.deflated = True
            deflated = Inflater(read, position, size, limits)
            buffer = deflated.inflate_to(limits.header_bytes)
            position = base = 0
            size = len(buffer)
            read = _reader(buffer)
        else:
            header.transfer_syntax_uid = stated = EXPLICIT_VR_LITTLE_ENDIAN
            header.notices.append(
                "TransferSyntaxUID is Deflated Explicit VR Little Endian, but the data set is not deflated"
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
        header.inflated = _inflated(deflated, header)
    if not stated and header.pixel_data is not None and header.pixel_data.length < 0:
        header.transfer_syntax_uid = ""
        header.notices.append("the file names no TransferSyntaxUID for its encapsulated pixel data")
    return header


def _inflated(deflated: Inflater, header: Header) -> bytes:
    """All bytes to the end of the pixel data.

    These begin in the part that was walked: nothing else is inflated before, and nothing that stands behind them.
    """
    pixels = header.pixel_data
    if pixels is not None:
        deflated.inflate_to(pixels.offset + pixels.length if pixels.length >= 0 else sys.maxsize)
    if deflated.is_cut:
        header.notices.append("the deflated data set is cut off")
    return deflated.data


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
        elif explicit and vr in _NAMELESS:
            short = int.from_bytes(head[6:8], order)
            value, length = (8, short) if short else (12, int.from_bytes(head[8:12], order))
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


_NAMELESS: Final = (b"??", b"  ")  # what some writers put where they know no VR


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
        raise HeaderError(f"{what}; TransferSyntaxUID is {named_uid(stated) or 'absent'}")
    explicit, big = candidates[found.index(max(found))]
    header.big_endian = big
    actual = _UIDS[explicit, big]
    if not stated:
        header.transfer_syntax_uid = actual
        header.notices.append(
            f"(0002,0010) TransferSyntaxUID is absent; the data set is {named_uid(actual)}"
        )
    elif (explicit, big) != expected:
        header.notices.append(
            f"(0002,0010) TransferSyntaxUID is {named_uid(stated)}, but the data set is encoded as "
            f"{named_uid(actual)}"
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
