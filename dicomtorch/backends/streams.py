"""Which process a code stream is of, whatever the header of its file says, and which transfer syntaxes it belongs to.

The parsers of the single processes are in `jpeg`, `jpeg2000`, `jpegxl` and `rle`.
"""

from __future__ import annotations

from typing import Final

from dicomtorch.backends.base import Buffer
from dicomtorch.backends.jpeg import JPEGStream, jpeg_process, parse_jpeg
from dicomtorch.backends.jpeg2000 import JP2_SIGNATURE, J2KStream, is_high_throughput, parse_j2k
from dicomtorch.backends.jpegxl import JXL_CONTAINER, JXLStream, parse_jxl
from dicomtorch.errors import DecodeError
from dicomtorch.model.syntaxes import (
    HTJ2K,
    HTJ2K_FAMILY,
    HTJ2K_LOSSLESS,
    JPEG_2000,
    JPEG_2000_FAMILY,
    JPEG_2000_LOSSLESS,
    JPEG_BASELINE,
    JPEG_DCT,
    JPEG_EXTENDED,
    JPEG_LOSSLESS,
    JPEG_LOSSLESS_FAMILY,
    JPEG_LS_FAMILY,
    JPEG_LS_LOSSLESS,
    JPEG_LS_NEAR_LOSSLESS,
    JPEG_XL,
    JPEG_XL_FAMILY,
    JPEG_XL_LOSSLESS,
    LOSSY,
)

Stream = JPEGStream | J2KStream | JXLStream

SYNTAXES: Final[dict[str, frozenset[str]]] = {
    "JPEG": JPEG_DCT,
    "JPEG Lossless": JPEG_LOSSLESS_FAMILY,
    "JPEG-LS": JPEG_LS_FAMILY,
    "JPEG 2000": JPEG_2000_FAMILY,
    "HTJ2K": HTJ2K_FAMILY,
    "JPEG XL": JPEG_XL_FAMILY,
}
"""The transfer syntaxes of each process that has marks of its own; "JPEG" is every process with a DCT."""

_JPEG_NAMES = {0xC0: "JPEG", 0xC1: "JPEG", 0xC2: "JPEG", 0xC3: "JPEG Lossless", 0xF7: "JPEG-LS"}
_OPENINGS = {b"\xff\xd8": "jpeg", b"\xff\xff": "jpeg", b"\xff\x4f": "j2k", b"\xff\x0a": "jxl"}


def _family(data: Buffer) -> str:
    """Which parser the first bytes call for: "jpeg", "j2k" or "jxl"; "" if they say nothing."""
    first = bytes(data[:2])
    if first == b"\0\0":
        box = bytes(data[:12])
        return {JP2_SIGNATURE: "j2k", JXL_CONTAINER: "jxl"}.get(box, "")
    return _OPENINGS.get(first, "")


def _labelled_family(syntax: str) -> str:
    if syntax in JPEG_2000_FAMILY or syntax in HTJ2K_FAMILY:
        return "j2k"
    return "jxl" if syntax in JPEG_XL_FAMILY else "jpeg"


def parse(data: Buffer, syntax: str, tiles: int) -> Stream:
    """Reads the header of a code stream as what its first bytes say it is; where they say nothing, as `syntax`.

    Args:
        data: The frame.
        syntax: Transfer syntax of the file.
        tiles: The most tiles that a JPEG 2000 stream may have.

    Raises:
        DecodeError: It is damaged, truncated, or asks for more than a decoder should be asked for.
    """
    family = _family(data) or _labelled_family(syntax)
    if family == "jpeg":
        return parse_jpeg(data)
    return parse_j2k(data, tiles) if family == "j2k" else parse_jxl(data)


def stream_process(data: Buffer) -> str:
    """The process of a code stream by its own marks: a key of `SYNTAXES`, "" if it has none that are known.

    Reads no further than the start of the frame header, and takes a frame that was cut after it as well.

    Args:
        data: A frame, or its beginning.
    """
    family = _family(data)
    try:
        if family == "jpeg":
            return _JPEG_NAMES.get(jpeg_process(data), "")
        if family == "j2k":
            return "HTJ2K" if is_high_throughput(data) else "JPEG 2000"
    except DecodeError:
        return ""
    return "JPEG XL" if family == "jxl" else ""


def other_process(data: Buffer, syntax: str) -> str:
    """The process of a code stream if it is another one than its transfer syntax says, else "".

    Args:
        data: A frame, or its beginning.
        syntax: Transfer syntax of the file.
    """
    process = stream_process(data)
    return "" if not process or syntax in SYNTAXES[process] else process


def process_of(stream: Stream) -> str:
    """The process of a stream whose header was read: a key of `SYNTAXES`."""
    if isinstance(stream, JPEGStream):
        return _JPEG_NAMES[stream.process]
    if isinstance(stream, J2KStream):
        return "HTJ2K" if stream.high_throughput else "JPEG 2000"
    return "JPEG XL"


def syntax_of(stream: Stream, labelled: str) -> str:
    """The transfer syntax that a stream should have been labelled with.

    A lossless one only where the label is lossless as well: beside a lossy label a stream that could be lossless was
    not promised to be.
    """
    lossless = labelled not in LOSSY
    if isinstance(stream, JXLStream):
        return JPEG_XL_LOSSLESS if lossless else JPEG_XL
    if isinstance(stream, J2KStream):
        exact = lossless and stream.reversible
        if stream.high_throughput:
            return HTJ2K_LOSSLESS if exact else HTJ2K
        return JPEG_2000_LOSSLESS if exact else JPEG_2000
    if stream.process == 0xF7:
        return JPEG_LS_LOSSLESS if lossless and stream.lossless else JPEG_LS_NEAR_LOSSLESS
    if stream.process == 0xC3:
        return JPEG_LOSSLESS
    return JPEG_BASELINE if stream.precision == 8 else JPEG_EXTENDED
