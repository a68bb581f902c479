"""The file meta in front of a data set (PS3.10 7.1): which transfer syntax it states, and where it ends."""

from __future__ import annotations

from typing import Final, NamedTuple

from dicomtorch.dicom.elements import Read
from dicomtorch.dicom.runs import LONG, SHORT
from dicomtorch.errors import HeaderError

FIRST_READ: Final = 1 << 16
"""Bytes of a file that are read first: most headers end within them."""


class FileMeta(NamedTuple):
    """What group 0002 says.

    Attributes:
        transfer_syntax_uid: As stated, "" if it is not.
        end: Offset of the data set.
        buffer: Bytes of the file around `end`.
        base: Their offset.
    """

    transfer_syntax_uid: str
    end: int
    buffer: bytes
    base: int


def read_file_meta(read: Read, size: int, buffer: bytes) -> FileMeta:
    """Passes over the preamble, if there is one, and over group 0002.

    It goes element by element: the length that the group states is absent or wrong in some files.

    Args:
        read: Positioned read of the file.
        size: Bytes of the file.
        buffer: Its first bytes.

    Raises:
        HeaderError: The file ends inside its file meta.
    """
    uid, base = "", 0
    pos = 132 if buffer[128:132] == b"DICM" else 0
    while True:
        if pos + 128 > base + len(buffer) and base + len(buffer) < size:
            buffer, base = read(pos, min(FIRST_READ, size - pos)), pos
        head = buffer[pos - base : pos - base + 12]
        if head[:2] != b"\x02\x00" or len(head) < 8:
            return FileMeta(uid, pos, buffer, base)
        vr = head[4:6]
        if vr in LONG:
            value, length = 12, int.from_bytes(head[8:12], "little")
        elif vr in SHORT:
            value, length = 8, int.from_bytes(head[6:8], "little")
        else:  # Implicit VR, which the standard does not have here
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
