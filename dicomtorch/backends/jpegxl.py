"""What a JPEG XL code stream says of itself (ISO/IEC 18181-1 annex D, 18181-2)."""

from __future__ import annotations

import struct
from typing import NamedTuple

from dicomtorch.backends.base import Buffer
from dicomtorch.backends.marks import damaged
from dicomtorch.errors import DecodeError

JXL_CONTAINER = b"\x00\x00\x00\x0cJXL \r\n\x87\n"
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


class JXLStream(NamedTuple):
    """A JPEG XL size and image header.

    Attributes:
        rows: Height in pixels.
        columns: Width in pixels.
        precision: Bits of a sample, 0 where they stand behind fields that are not read.
    """

    rows: int
    columns: int
    precision: int


def _jxl_codestream(data: Buffer) -> int:
    """Where the signature of the code stream is; boxes are passed over."""
    if bytes(data[:2]) == b"\xff\x0a":
        return 0
    size = len(data)
    if bytes(data[:12]) != JXL_CONTAINER:
        raise damaged(
            "JPEG XL stream", 0, bytes(data[:4]).hex(" ") or "nothing", "ff 0a or a container"
        )
    position = 12
    while position + 8 <= size:
        length, kind = struct.unpack_from(">I4s", data, position)
        header = 8
        if length == 1 and position + 16 <= size:
            length, header = struct.unpack_from(">Q", data, position + 8)[0], 16
        if kind in (b"jxlc", b"jxlp"):
            start = position + header + (4 if kind == b"jxlp" else 0)
            if bytes(data[start : start + 2]) != b"\xff\x0a":
                raise damaged(
                    "JPEG XL stream", start, bytes(data[start : start + 2]).hex(" "), "ff 0a"
                )
            return start
        if length < header or position + length > size:
            raise damaged("JPEG XL box", position, f"length {length}", f"8 to {size - position}")
        position += length
    raise damaged("JPEG XL container", size, "no code stream", "a jxlc or jxlp box")


class _Bits:
    """Bits of a buffer, least significant first."""

    __slots__ = ("left", "value")

    def __init__(self, data: bytes) -> None:
        self.value = int.from_bytes(data, "little")
        self.left = 8 * len(data)

    def take(self, count: int) -> int:
        self.left -= count
        if self.left < 0:
            raise DecodeError("JPEG XL header: the frame ends inside it; the frame is truncated")
        value = self.value & ((1 << count) - 1)
        self.value >>= count
        return value


def parse_jxl(data: Buffer) -> JXLStream:
    """Reads the size and the precision of a JPEG XL frame.

    Raises:
        DecodeError: It is no JPEG XL stream, or ends inside its header.
    """
    start = _jxl_codestream(data)
    bits = _Bits(bytes(data[start + 2 : start + 34]))
    small = bits.take(1)

    def size() -> int:
        return (bits.take(5) + 1) * 8 if small else bits.take((9, 13, 18, 30)[bits.take(2)]) + 1

    rows = size()
    ratio = bits.take(3)
    columns = rows * _RATIOS[ratio - 1][0] // _RATIOS[ratio - 1][1] if ratio else size()
    if bits.take(1):  # all defaults
        return JXLStream(rows, columns, 8)
    if bits.take(1):  # orientation, intrinsic size, preview or animation
        orientation, extras = bits.take(3) + 1, bits.take(3)
        if orientation != 1 or extras & 6:
            raise damaged(
                "JPEG XL image header",
                start,
                f"orientation {orientation}, preview or animation",
                "a single image",
            )
        if extras & 1:
            return JXLStream(rows, columns, 0)
    if bits.take(1):  # floating point samples
        return JXLStream(rows, columns, (32, 16, 24, 0)[bits.take(2)])
    choice = bits.take(2)
    return JXLStream(rows, columns, (8, 10, 12)[choice] if choice < 3 else bits.take(6) + 1)
