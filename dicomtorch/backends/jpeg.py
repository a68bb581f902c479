"""What a JPEG or JPEG-LS code stream says of itself, read before native code sees it.

ISO/IEC 10918-1 annex B (JPEG), ISO/IEC 14495-1 annex C (JPEG-LS).
"""

from __future__ import annotations

import re
import struct
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from dicomtorch.backends.base import Buffer
from dicomtorch.backends.marks import END_MARKER, HEAD, damaged
from dicomtorch.errors import DecodeError

JFIF = b"JFIF\0"
ADOBE = b"Adobe"
_SOF_KINDS = frozenset({0xC0, 0xC1, 0xC2, 0xC3})
_OTHER_SOF = frozenset({0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7})
_PRECISIONS = {0xC0: (8,), 0xC1: (8, 12), 0xC2: (8, 12)}
_SAMPLING = frozenset(across << 4 | down for across in range(1, 5) for down in range(1, 5))
_UNSAMPLED = frozenset({0x11})
_END = re.compile(END_MARKER)
_SOS_OR_LSE = re.compile(rb"\xff[\xda\xf8]")
_SCANS = 199
"""Scans after the first that a stream may have; encoders write about ten."""
_TAIL = 64
"""Bytes at the end of a frame in which its end marker is looked for first."""


class JPEGStream(NamedTuple):
    """A JPEG or JPEG-LS frame header.

    Attributes:
        rows: Height in pixels.
        columns: Width in pixels.
        components: Number of components.
        precision: Bits of a sample.
        process: Low byte of the start-of-frame marker: C0, C1, C2, C3 (lossless) or F7 (JPEG-LS).
        lossless: Whether the samples come back as they went in.
        ids: Component identifiers.
        subsampled: Whether a component is smaller than the image.
        jfif: Whether there is a JFIF segment.
        adobe: Colour transform of the Adobe segment; -1 without one.
        start: Offset of SOI, behind fill bytes, which decoders refuse there.
        planar: Whether each component has a scan of its own in JPEG-LS (interleave mode none).
    """

    rows: int
    columns: int
    components: int
    precision: int
    process: int
    lossless: bool
    ids: bytes = b""
    subsampled: bool = False
    jfif: bool = False
    adobe: int = -1
    start: int = 0
    planar: bool = False


def _has_end(data: Buffer, start: int) -> bool:
    """Whether FF D9 stands somewhere after `start`: mostly in the tail, looked at first."""
    tail = max(start, len(data) - _TAIL)
    return END_MARKER in bytes(data[tail:]) or _END.search(data, start) is not None


class _JPEGWalk:
    """The segments of a JPEG or JPEG-LS frame up to its first scan."""

    __slots__ = ("adobe", "begin", "data", "frame", "jfif", "preset", "size", "tables")

    def __init__(self, data: Buffer) -> None:
        self.data = data
        self.size = len(data)
        self.frame: tuple[int, int, int, int, bytes, bool] | None = None
        self.tables: dict[int, int] = {}  # DC table id -> largest symbol
        self.preset = (0, 0, 0, 0, 0)  # MAXVAL, T1, T2, T3, RESET of JPEG-LS; 0 is the default
        self.jfif = False
        self.adobe = -1
        self.begin = 0  # of SOI

    def start(self) -> int:
        """Position after SOI."""
        data, size = self.data, self.size
        position = 0
        while position < size and position < 16 and data[position] == 0xFF:
            position += 1  # fill bytes, PS3.5 A.4
        if position == 0 or position >= size or data[position] != 0xD8:
            found = bytes(data[:4]).hex(" ") or "nothing"
            raise damaged("SOI", 0, found, "ff d8")
        self.begin = position - 1
        return position + 1

    def scan(self) -> int:
        """Walks to the first SOS; returns the position of its segment."""
        data, size, position = self.data, self.size, self.start()
        while True:
            if position >= size or data[position] != 0xFF:
                found = f"{data[position]:02x}" if position < size else "the end of the frame"
                raise damaged("JPEG marker", position, found, "ff")
            while position < size and data[position] == 0xFF:
                position += 1
            if position + 2 >= size:
                raise damaged("JPEG marker", position, "the end of the frame", "a segment")
            code = data[position]
            position += 1
            if code == 0x01 or 0xD0 <= code <= 0xD7:
                continue
            if code in (0x00, 0xD8, 0xD9):
                raise damaged("JPEG marker", position - 1, f"ff {code:02x}", "a segment before SOS")
            length = data[position] << 8 | data[position + 1]
            if length < 2 or position + length > size:
                raise damaged(
                    f"length of segment ff {code:02x}",
                    position,
                    length,
                    f"2 to {size - position}, what is left of the frame",
                )
            if code == 0xDA:
                return position
            self.segment(code, position + 2, position + length)
            position += length

    def segment(self, code: int, start: int, stop: int) -> None:
        data = self.data
        if code == 0xC4:
            self.huffman_tables(start, stop)
        elif code == 0xDB:
            self.quantisation_tables(start, stop)
        elif code in _SOF_KINDS or code == 0xF7:
            self.start_of_frame(code, start, stop)
        elif code in _OTHER_SOF:
            raise damaged(
                "JPEG process", start, f"SOF marker ff {code:02x}", "ff c0, c1, c2, c3 or f7"
            )
        elif code == 0xE0 and stop - start >= 5 and bytes(data[start : start + 5]) == JFIF:
            self.jfif = True
        elif code == 0xEE and stop - start >= 12 and bytes(data[start : start + 5]) == ADOBE:
            self.adobe = data[start + 11]
        elif code == 0xF8 and stop - start == 11 and data[start] == 1:
            self.preset = struct.unpack_from(">5H", data, start + 1)
        elif code == 0xDD and stop - start != 2 and self.frame and self.frame[0] != 0xF7:
            raise damaged("length of DRI", start - 2, stop - start + 2, 4)

    def start_of_frame(self, code: int, start: int, stop: int) -> None:
        data = bytes(self.data[:stop])
        if self.frame is not None:
            raise damaged("JPEG frame header", start, "a second SOF", "one")
        count = data[start + 5] if stop - start >= 6 else 0
        if count == 0 or stop - start != 6 + 3 * count:
            raise damaged("length of SOF", start - 2, stop - start + 2, f"{8 + 3 * max(count, 1)}")
        precision = data[start]
        rows = data[start + 1] << 8 | data[start + 2]
        columns = data[start + 3] << 8 | data[start + 4]
        allowed = _PRECISIONS.get(code, range(2, 17))
        if precision not in allowed:
            raise damaged(f"precision in SOF ff {code:02x}", start, precision, list(allowed))
        ids, sampling = data[start + 6 : stop : 3], data[start + 7 : stop : 3]
        if len(set(ids)) != count:
            raise damaged("component identifiers in SOF", start + 6, ids.hex(" "), "different ones")
        whole = code in (0xC3, 0xF7) and count > 1
        if not (_UNSAMPLED if whole else _SAMPLING).issuperset(sampling):
            expected = "11" if whole else "11 to 44"
            raise damaged("sampling factors in SOF", start + 7, sampling.hex(" "), expected)
        if code in _SOF_KINDS and max(data[start + 8 : stop : 3]) > 3:
            raise damaged("quantisation table in SOF", start + 8, "an id above 3", "0 to 3")
        self.frame = (code, precision, rows, columns, ids, len(set(sampling)) > 1)

    def huffman_tables(self, start: int, stop: int) -> None:
        data, position = self.data, start
        while position < stop:
            kind = data[position]
            if kind >> 4 > 1 or kind & 15 > 3:
                raise damaged(
                    "Huffman table in DHT", position, f"{kind:02x}", "class 0 or 1, id 0 to 3"
                )
            count = sum(data[position + 1 : position + 17])
            end = position + 17 + count
            if count > 256 or end > stop:
                raise damaged(
                    "codes in DHT", position, count, f"at most {min(256, stop - position - 17)}"
                )
            if kind < 4:
                self.tables[kind] = max(data[position + 17 : end], default=0)
            position = end

    def quantisation_tables(self, start: int, stop: int) -> None:
        data, position = self.data, start
        while position < stop:
            kind = data[position]
            end = position + (129 if kind >> 4 else 65)
            if kind >> 4 > 1 or kind & 15 > 3 or end > stop:
                raise damaged(
                    "quantisation table in DQT",
                    position,
                    f"{kind:02x}",
                    "precision 0 or 1, id 0 to 3, whole",
                )
            position = end


def jpeg_process(data: Buffer) -> int:
    """Low byte of the start-of-frame marker of a JPEG or JPEG-LS frame, of which no more has to be there.

    Raises:
        DecodeError: What comes before it is damaged, or it is of a process that DICOM does not use.
    """
    walk = _JPEGWalk(data)
    try:
        walk.scan()
    except DecodeError:
        if walk.frame is None:
            raise
    return walk.frame[0] if walk.frame else -1


class _Header(NamedTuple):
    """What stands before the entropy-coded data of a JPEG frame, which begin at `stop`."""

    stream: JPEGStream
    stop: int
    several: bool  # scans, of which the first has not all components or not all bits


def _header(data: Buffer) -> _Header:
    walk = _JPEGWalk(data)
    position = walk.scan()
    if walk.frame is None:
        raise damaged("JPEG scan header", position, "SOS", "SOF before it")
    code, precision, rows, columns, ids, subsampled = walk.frame
    length = data[position] << 8 | data[position + 1]
    count = data[position + 2] if length > 2 else 0
    if not (1 <= count <= 4) or length != 6 + 2 * count:
        raise damaged(
            "length of SOS", position, length, f"{6 + 2 * max(count, 1)} for {count} components"
        )
    named = bytes(data[position + 3 : position + 3 + 2 * count : 2])
    if any(named.count(value) > 1 or value not in ids for value in named):
        raise damaged("components in SOS", position + 3, named.hex(" "), f"some of {ids.hex(' ')}")
    if code == 0xC3:
        _check_lossless_tables(walk, position, count)
    near = data[position + 3 + 2 * count]
    if code == 0xF7:
        _check_jpeg_ls(walk.preset, precision, near, data[position + 4 + 2 * count], position)
    stream = JPEGStream(
        rows=rows,
        columns=columns,
        components=len(ids),
        precision=precision,
        process=code,
        lossless=code == 0xC3 or (code == 0xF7 and near == 0),
        ids=ids,
        subsampled=subsampled,
        jfif=walk.jfif,
        adobe=walk.adobe,
        start=walk.begin,
        planar=code == 0xF7 and count < len(ids),
    )
    return _Header(stream, position + length, code == 0xC2 or count < len(ids))


_kept_header = lru_cache(maxsize=256)(_header)
"""Kept, because the frames of a file mostly begin alike."""


def parse_jpeg(data: Buffer) -> JPEGStream:
    """Reads the header of a JPEG or JPEG-LS frame.

    Raises:
        DecodeError: It is damaged, is no JPEG process that DICOM uses, or has no end.
    """
    head = bytes(data[:HEAD])
    at = head.find(b"\xff\xda") + 2
    try:
        stream, stop, several = _kept_header(head[: at + int.from_bytes(head[at : at + 2], "big")])
    except DecodeError:
        # It is longer, or those two bytes are in one of its segments, or it is damaged at a place that is to be named.
        stream, stop, several = _header(data)
    if not _has_end(data, stop):
        raise damaged("end of the JPEG stream", len(data), "the end of the frame", "EOI (ff d9)")
    if stream.process != 0xF7:
        _check_scans(data, stop, stream, several)
    elif stream.planar:
        _check_plane_scans(data, stop, stream)
    return stream


def _check_plane_scans(data: Buffer, start: int, stream: JPEGStream) -> None:
    """Looks at the scans after the first of a JPEG-LS frame that has one for each component.

    A coded byte FF is followed by one below 80 (ISO/IEC 14495-1 A.1), so markers are found without decoding.
    """
    preset, scans = (0, 0, 0, 0, 0), 1
    for found in _SOS_OR_LSE.finditer(data, start):
        at = found.end()
        content = bytes(data[at + 2 : at + 13])
        if found[0] == b"\xff\xf8":
            if content[:1] == b"\1" and len(content) == 11:
                preset = struct.unpack_from(">5H", content, 1)
            continue
        scans += 1
        if len(content) < 6 or content[0] != 1:
            number = content[0] if content else 0
            raise damaged("JPEG-LS scan", at, f"{number} components", "1, as in the scan before")
        _check_jpeg_ls(preset, stream.precision, content[3], content[4], at)
    if scans != stream.components:
        raise damaged("JPEG-LS", start, f"{scans} scans", f"{stream.components}, one a component")


def _check_scans(data: Buffer, start: int, stream: JPEGStream, several: bool) -> None:
    """Refuses images that are large for nothing, and scans without end: both only cost time.

    A lossless sample takes a bit, a DCT block of 64 pixels at least one.
    """
    pixels = stream.rows * stream.columns
    size, least = len(data) - start, pixels // (8 if stream.process == 0xC3 else 512)
    if size < least:
        raise damaged(
            "entropy-coded data", start, f"{size} bytes", f"at least {least} for {pixels} pixels"
        )
    if several:
        # `bytes.count` takes seven times as long.
        octets = np.frombuffer(data, np.uint8, size, start)
        scans = np.count_nonzero((octets[:-1] == 0xFF) & (octets[1:] == 0xDA))
        if scans > _SCANS:
            raise damaged("JPEG", start, f"{scans + 1} scans", f"at most {_SCANS + 1}")


def _check_jpeg_ls(
    preset: tuple[int, ...], precision: int, near: int, interleave: int, position: int
) -> None:
    """Refuses parameters that ISO/IEC 14495-1 C.2.3 and C.2.4.1.1 do not allow: some decoders never end with them."""
    largest = (1 << precision) - 1
    most, *thresholds, reset = preset
    if most > largest or (reset and not 3 <= reset <= max(255, most or largest)):
        raise damaged("LSE", position, f"MAXVAL {most}, RESET {reset}", f"at most {largest}, 3 up")
    most = most or largest
    if near > min(255, most // 2) or interleave > 2:
        expected = f"at most {min(255, most // 2)} and 2"
        raise damaged("SOS", position, f"NEAR {near}, interleave mode {interleave}", expected)
    # Those that are 0 get a default between their neighbours.
    given = [near + 1, *filter(None, thresholds), most]
    if given != sorted(given):
        expected = f"ascending from NEAR + 1 = {near + 1} to MAXVAL {most}"
        raise damaged("thresholds in LSE", position, thresholds, expected)


def _check_lossless_tables(walk: _JPEGWalk, position: int, count: int) -> None:
    for selector in walk.data[position + 4 : position + 3 + 2 * count : 2]:
        symbol = walk.tables.get(selector >> 4)
        if symbol is None or symbol > 16:
            raise damaged(
                "Huffman table of a lossless scan",
                position,
                f"table {selector >> 4} "
                + ("missing" if symbol is None else f"with symbol {symbol}"),
                "a table with symbols up to 16",
            )
