"""Bytes of a frame as a decoder takes them: fragments joined, bits and words aligned (PS3.5 A.4, 8.1.1)."""

from __future__ import annotations

import numpy as np

from dicomtorch.dicom.items import ITEM, ITEM_HEAD
from dicomtorch.errors import EncapsulationError
from dicomtorch.model.frame import FrameSpan
from dicomtorch.model.image import ImagePixel
from dicomtorch.model.syntaxes import EXPLICIT_VR_BIG_ENDIAN


def packs_into_big_endian_words(pixel: ImagePixel) -> bool:
    """Whether pixels lie in 16-bit words that are big endian, so that frames can share one (PS3.5 8.1.1, 8.2)."""
    return (
        pixel.transfer_syntax_uid == EXPLICIT_VR_BIG_ENDIAN
        and pixel.pixel_data_vr == "OW"
        and pixel.bits_allocated % 16 != 0
    )


def align(data: bytes | memoryview, bit_offset: int, pixel: ImagePixel) -> bytes:
    """The bytes of a native frame that begins or ends inside a byte or word: first pixel at bit 0, 0 behind the last.

    Args:
        data: The bytes of its span.
        bit_offset: Of the span.
        pixel: Says whether the bits are counted in bytes or in big endian words, which the result then has too.
    """
    words = packs_into_big_endian_words(pixel)
    octets = np.frombuffer(data, np.uint8)
    if words:
        octets = octets.reshape(-1, 2)[:, ::-1].reshape(-1)
    if bit_offset % 8 == 0:
        moved = octets[bit_offset // 8 :][: (pixel.native_bits + 7) // 8].copy()
        moved[-1:] &= 0xFF >> -pixel.native_bits % 8
    else:
        bits = np.unpackbits(octets, bitorder="little")
        moved = np.packbits(bits[bit_offset : bit_offset + pixel.native_bits], bitorder="little")
    if words:
        moved = np.pad(moved, (0, moved.size % 2)).reshape(-1, 2)[:, ::-1]
    return moved.tobytes()


def join(data: bytes | bytearray | memoryview, span: FrameSpan) -> bytes | memoryview:
    """The encoded bytes of a frame from the bytes of its span: item headers dropped, fragments joined.

    Native data come back as they are; one fragment comes back as a view, without a copy.

    Args:
        data: The `span.length` bytes at `span.offset`.
        span: The span that they are of.

    Raises:
        EncapsulationError: The items do not tile the span exactly: the file was changed or is damaged.
    """
    view = memoryview(data)
    if len(view) != span.length:
        raise EncapsulationError(
            f"the span at offset {span.offset} has {span.length} bytes, got {len(view)}"
        )
    if span.fragments == 0:
        return view
    parts: list[memoryview] = []
    pos = 0
    while pos < len(view):
        word, length = ITEM_HEAD.unpack_from(view, pos) if pos + 8 <= len(view) else (0, 0)
        after = pos + 8 + length
        if word != ITEM or after > len(view):
            raise EncapsulationError(
                f"items do not tile the span of {span.length} bytes at offset {span.offset}: expected an "
                f"item (FFFE,E000) that ends inside it at {pos}, got the word {word:08X} and length {length}; "
                "the file changed after it was indexed, or its offset table is wrong"
            )
        parts.append(view[pos + 8 : after])
        pos = after
    if 0 < span.fragments != len(parts):
        raise EncapsulationError(
            f"the span at offset {span.offset} has {len(parts)} fragments, {span.fragments} were indexed; "
            "the file changed"
        )
    joined = parts[0] if len(parts) == 1 else b"".join(parts)
    if span.true_length > len(joined):
        raise EncapsulationError(
            f"the span at offset {span.offset} has {len(joined)} bytes in its fragments, the Extended "
            f"Offset Table states {span.true_length}"
        )
    return joined if span.true_length < 0 else joined[: span.true_length]
