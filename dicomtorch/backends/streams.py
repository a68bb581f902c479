"""What a code stream says of itself, read from its own markers in plain Python before native code sees it.

Every parser walks the header of one frame, keeps inside its bytes, and refuses what would make a native decoder crash,
hang or allocate without bound. What the header of the file says is compared in `guard`.

JPEG: ISO/IEC 10918-1 annex B. JPEG-LS: ISO/IEC 14495-1 annex C. JPEG 2000: ISO/IEC 15444-1 annexes A and I, HTJ2K:
ISO/IEC 15444-15 annex A. JPEG XL: ISO/IEC 18181-1 annex D, 18181-2. RLE: PS3.5 annex G.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from dicomtorch.errors import DecodeError

Buffer = bytes | bytearray | memoryview

JFIF = b"JFIF\0"
ADOBE = b"Adobe"
_SOF_KINDS = frozenset({0xC0, 0xC1, 0xC2, 0xC3})
_OTHER_SOF = frozenset({0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7})
_EOI = b"\xff\xd9"
_TAIL = 64
"""Bytes at the end of a frame in which its end marker is looked for first."""


@dataclass(frozen=True, slots=True)
class JPEGStream:
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


@dataclass(frozen=True, slots=True)
class J2KStream:
    """A JPEG 2000 or HTJ2K main header.

    Attributes:
        rows: Height in pixels.
        columns: Width in pixels.
        components: Number of components.
        precision: Bits of a sample.
        signed: Whether samples are signed.
        component_transform: Whether the codec turns the components into RGB.
        reversible: Whether the 5/3 wavelet is used, the only one that can be lossless.
        high_throughput: Whether the blocks are coded as in HTJ2K.
        start: Where the code stream begins in the frame: after the boxes of a JP2 file.
        stop: Where it ends.
    """

    rows: int
    columns: int
    components: int
    precision: int
    signed: bool
    component_transform: bool
    reversible: bool
    high_throughput: bool
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class JXLStream:
    """A JPEG XL size and image header.

    Attributes:
        rows: Height in pixels.
        columns: Width in pixels.
        precision: Bits of a sample, 0 where they stand behind fields that are not read.
    """

    rows: int
    columns: int
    precision: int


def damaged(what: str, offset: int, received: object, expected: object) -> DecodeError:
    """A `DecodeError` about the byte at `offset` of the frame."""
    return DecodeError(
        f"{what} at byte {offset} of the frame: found {received}, expected {expected}"
    )


def _has_end(data: Buffer, start: int) -> bool:
    """Whether FF D9 stands somewhere after `start`; only the tail is copied when it does."""
    view = memoryview(data)
    tail = max(start, len(data) - _TAIL)
    return _EOI in bytes(view[tail:]) or _EOI in bytes(view[start:tail]) + bytes(view[tail:][:1])


# --- JPEG and JPEG-LS ---------------------------------------------------------------------------------------------------


class _JPEGWalk:
    """The segments of a JPEG or JPEG-LS frame up to its first scan."""

    __slots__ = ("adobe", "data", "frame", "jfif", "size", "tables")

    def __init__(self, data: Buffer) -> None:
        self.data = data
        self.size = len(data)
        self.frame: tuple[int, int, int, int, bytes, bool] | None = None
        self.tables: dict[int, int] = {}  # DC table id -> largest symbol
        self.jfif = False
        self.adobe = -1

    def start(self) -> int:
        """Position after SOI."""
        data, size = self.data, self.size
        position = 0
        while position < size and position < 16 and data[position] == 0xFF:
            position += 1  # fill bytes, PS3.5 A.4
        if position == 0 or position >= size or data[position] != 0xD8:
            found = bytes(data[:4]).hex(" ") or "nothing"
            raise damaged("SOI", 0, found, "ff d8")
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
        if code in _SOF_KINDS or code == 0xF7:
            self.start_of_frame(code, start, stop)
        elif code in _OTHER_SOF:
            raise damaged(
                "JPEG process", start, f"SOF marker ff {code:02x}", "ff c0, c1, c2, c3 or f7"
            )
        elif code == 0xC4:
            self.huffman_tables(start, stop)
        elif code == 0xDB:
            self.quantisation_tables(start, stop)
        elif code == 0xE0 and stop - start >= 5 and bytes(data[start : start + 5]) == JFIF:
            self.jfif = True
        elif code == 0xEE and stop - start >= 12 and bytes(data[start : start + 5]) == ADOBE:
            self.adobe = data[start + 11]
        elif code == 0xDD and stop - start != 2 and self.frame and self.frame[0] != 0xF7:
            raise damaged("length of DRI", start - 2, stop - start + 2, 4)

    def start_of_frame(self, code: int, start: int, stop: int) -> None:
        data = self.data
        if self.frame is not None:
            raise damaged("JPEG frame header", start, "a second SOF", "one")
        count = data[start + 5] if stop - start >= 6 else 0
        if count == 0 or stop - start != 6 + 3 * count:
            raise damaged(
                "length of SOF", start - 2, stop - start + 2, f"{8 + 3 * max(count, 1)}"
            )
        precision = data[start]
        rows = data[start + 1] << 8 | data[start + 2]
        columns = data[start + 3] << 8 | data[start + 4]
        allowed = {0xC0: (8,), 0xC1: (8, 12), 0xC2: (8, 12)}.get(code, range(2, 17))
        if precision not in allowed:
            raise damaged(f"precision in SOF ff {code:02x}", start, precision, list(allowed))
        ids = bytes(data[start + 6 : stop : 3])
        if len(set(ids)) != count:
            raise damaged("component identifiers in SOF", start + 6, ids.hex(" "), "different ones")
        sampling = bytes(data[start + 7 : stop : 3])
        for offset, factors in enumerate(sampling):
            across, down = factors >> 4, factors & 15
            top = 1 if code in (0xC3, 0xF7) and count > 1 else 4
            if not (1 <= across <= top and 1 <= down <= top):
                raise damaged(
                    "sampling factors in SOF", start + 7 + 3 * offset, f"{across}x{down}", f"1 to {top}"
                )
        if code in _SOF_KINDS and any(table > 3 for table in data[start + 8 : stop : 3]):
            raise damaged("quantisation table in SOF", start + 8, "an id above 3", "0 to 3")
        self.frame = (code, precision, rows, columns, ids, len(set(sampling)) > 1)

    def huffman_tables(self, start: int, stop: int) -> None:
        data, position = self.data, start
        while position < stop:
            kind = data[position]
            if kind >> 4 > 1 or kind & 15 > 3:
                raise damaged("Huffman table in DHT", position, f"{kind:02x}", "class 0 or 1, id 0 to 3")
            count = sum(data[position + 1 : min(position + 17, stop)])
            end = position + 17 + count
            if count > 256 or end > stop:
                raise damaged("codes in DHT", position, count, f"at most {min(256, stop - position - 17)}")
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
                    "quantisation table in DQT", position, f"{kind:02x}", "precision 0 or 1, id 0 to 3, whole"
                )
            position = end


def parse_jpeg(data: Buffer) -> JPEGStream:
    """Reads the header of a JPEG or JPEG-LS frame.

    Raises:
        DecodeError: It is damaged, is no JPEG process that DICOM uses, or has no end.
    """
    walk = _JPEGWalk(data)
    position = walk.scan()
    if walk.frame is None:
        raise damaged("JPEG scan header", position, "SOS", "SOF before it")
    code, precision, rows, columns, ids, subsampled = walk.frame
    length = data[position] << 8 | data[position + 1]
    count = data[position + 2] if length > 2 else 0
    if not (1 <= count <= 4) or length != 6 + 2 * count:
        raise damaged("length of SOS", position, length, f"{6 + 2 * max(count, 1)} for {count} components")
    named = bytes(data[position + 3 : position + 3 + 2 * count : 2])
    if any(named.count(value) > 1 or value not in ids for value in named):
        raise damaged("components in SOS", position + 3, named.hex(" "), f"some of {ids.hex(' ')}")
    if code == 0xC3:
        _check_lossless_tables(walk, position, count)
    near = data[position + 3 + 2 * count]
    if code != 0xF7 and not _has_end(data, position + length):
        raise damaged("end of the JPEG stream", len(data), "the end of the frame", "EOI (ff d9)")
    return JPEGStream(
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
    )


def _check_lossless_tables(walk: _JPEGWalk, position: int, count: int) -> None:
    for selector in walk.data[position + 4 : position + 3 + 2 * count : 2]:
        symbol = walk.tables.get(selector >> 4)
        if symbol is None or symbol > 16:
            raise damaged(
                "Huffman table of a lossless scan",
                position,
                f"table {selector >> 4} " + ("missing" if symbol is None else f"with symbol {symbol}"),
                "a table with symbols up to 16",
            )


# --- JPEG 2000 and HTJ2K ------------------------------------------------------------------------------------------------

_JP2_SIGNATURE = b"\x00\x00\x00\x0cjP  \r\n\x87\n"
_SOC_SIZ = b"\xff\x4f\xff\x51"


def _codestream(data: Buffer) -> tuple[int, int]:
    """Where the code stream starts and stops; the boxes of a JP2 file are passed over."""
    size = len(data)
    head = bytes(data[:12])
    if head[:4] == _SOC_SIZ:
        return 0, size
    if head != _JP2_SIGNATURE:
        raise damaged("JPEG 2000 stream", 0, head[:4].hex(" ") or "nothing", "SOC and SIZ (ff 4f ff 51)")
    position = 0
    while position + 8 <= size:
        length, kind = struct.unpack_from(">I4s", data, position)
        header = 8
        if length == 1 and position + 16 <= size:
            length, header = struct.unpack_from(">Q", data, position + 8)[0], 16
        stop = size if length == 0 else position + length
        if kind == b"jp2c":
            start = position + header
            if bytes(data[start : start + 4]) != _SOC_SIZ:
                raise damaged("JPEG 2000 stream", start, bytes(data[start : start + 4]).hex(" "), "ff 4f ff 51")
            # A box that is longer than the frame is left to the end marker.
            return start, min(stop, size)
        if stop > size or stop < position + header:
            raise damaged("JP2 box", position, f"length {length}", f"8 to {size - position}")
        position = stop
    raise damaged("JP2 file", size, "no jp2c box", "one")


class _J2KWalk:
    """The marker segments of a JPEG 2000 code stream."""

    __slots__ = ("coding", "components", "data", "ht", "mct", "precision", "quantisation", "reversible",
                 "signed", "siz", "size", "start", "tiles")  # fmt: skip

    def __init__(self, data: Buffer, start: int, stop: int, tiles: int) -> None:
        self.data = data
        self.start = start
        self.size = stop
        self.tiles = tiles  # in: the limit; out: the number
        self.coding: dict[int, int] = {}  # component, -1 for all -> decomposition levels
        self.quantisation: dict[int, int] = {}  # component, -1 for all -> values, 0: derived
        self.mct = self.ht = False
        self.reversible = True

    def image(self, position: int, stop: int) -> None:
        """SIZ: sizes before anything is allocated by them."""
        data = self.data
        if stop - position < 36:
            raise damaged("length of SIZ", position - 2, stop - position + 2, "at least 41")
        (_, x1, y1, x0, y0, width, height, tile_x0, tile_y0, count) = struct.unpack_from(
            ">H8IH", data, position
        )
        if count == 0 or stop - position != 36 + 3 * count:
            raise damaged("length of SIZ", position - 2, stop - position + 2, f"{38 + 3 * max(count, 1)}")
        if not (x0 < x1 and y0 < y1):
            raise damaged("image area in SIZ", position, f"({x0}, {y0}) to ({x1}, {y1})", "a positive area")
        if not (
            width and height and tile_x0 <= x0 < tile_x0 + width and tile_y0 <= y0 < tile_y0 + height
        ):
            raise damaged(
                "tiles in SIZ",
                position + 18,
                f"{width} x {height} from ({tile_x0}, {tile_y0})",
                "a first tile that holds the image origin",
            )
        number = -((tile_x0 - x1) // width) * -((tile_y0 - y1) // height)
        # A real tile has thousands of pixels: 65,535 tiles of one pixel cost OpenJPEG half a gigabyte.
        limit = min(self.tiles, max(256, (x1 - x0) * (y1 - y0) // 4096))
        if number > limit:
            raise damaged("tiles in SIZ (Limits.tiles)", position + 18, number, f"at most {limit}")
        depths = bytes(data[position + 36 : stop : 3])
        if any(step != 1 for step in data[position + 37 : stop : 3]) or any(
            step != 1 for step in data[position + 38 : stop : 3]
        ):
            raise damaged("subsampling in SIZ", position + 37, "a step that is not 1", "1")
        if len(set(depths)) != 1 or (depths[0] & 127) + 1 > 32:
            raise damaged("precision in SIZ", position + 36, depths.hex(" "), "one of 1 to 32 bits for all")
        self.siz = (y1 - y0, x1 - x0)
        self.components, self.tiles = count, number
        self.precision, self.signed = (depths[0] & 127) + 1, depths[0] > 127

    def segment(self, code: int, position: int, stop: int) -> None:
        if code == 0x52:
            self.coding_style(position, stop)
        elif code == 0x53:
            component, position = self.component(position, stop)
            self.block_style(component, position + 1, stop, bool(self.byte(position, stop) & 1))
        elif code == 0x5C:
            self.quantisation_style(-1, position, stop)
        elif code == 0x5D:
            component, position = self.component(position, stop)
            self.quantisation_style(component, position, stop)
        elif code == 0x50 and stop - position >= 4:
            self.ht = bool(self.data[position + 1] & 2)  # Pcap15
        elif code == 0x51:
            raise damaged("JPEG 2000 marker", position, "a second SIZ", "one")

    def byte(self, position: int, stop: int) -> int:
        if position >= stop:
            raise damaged("JPEG 2000 segment", position, "its end", "one more byte")
        return self.data[position]

    def component(self, position: int, stop: int) -> tuple[int, int]:
        """The component that COC or QCC speaks of, and the position after it."""
        component = self.byte(position, stop)
        if self.components > 256:
            component, position = component << 8 | self.byte(position + 1, stop), position + 1
        if component >= self.components:
            raise damaged("component in COC or QCC", position, component, f"below {self.components}")
        return component, position + 1

    def coding_style(self, position: int, stop: int) -> None:
        data = self.data
        if stop - position < 10:
            raise damaged("length of COD", position - 2, stop - position + 2, "at least 12")
        progression, layers, transform = data[position + 1], data[position + 2] << 8 | data[position + 3], data[position + 4]
        if progression > 4 or layers == 0 or transform > 1 or (transform and self.components < 3):
            raise damaged(
                "COD",
                position,
                f"progression {progression}, {layers} layers, component transform {transform}",
                f"0 to 4, at least 1, 0 or 1 (three components; there are {self.components})",
            )
        self.mct = transform == 1
        self.block_style(-1, position + 5, stop, bool(data[position] & 1))

    def block_style(self, component: int, position: int, stop: int, precincts: bool) -> None:
        data = self.data
        if stop - position < 5:
            raise damaged("length of COD or COC", position, stop - position, "at least 5 more bytes")
        levels, across, down, style, wavelet = data[position : position + 5]
        if levels > 32 or across > 8 or down > 8 or across + down > 8 or wavelet > 1:
            raise damaged(
                "COD or COC",
                position,
                f"levels {levels}, block exponents {across} and {down}, wavelet {wavelet}",
                "at most 32, 8 and 8 (together 8), 0 or 1",
            )
        if precincts and stop - position != 6 + levels:
            raise damaged("precincts in COD or COC", position + 5, stop - position - 5, levels + 1)
        if precincts and any(not size & 15 or not size >> 4 for size in data[position + 6 : stop]):
            raise damaged("precincts in COD or COC", position + 6, "an exponent of 0", "at least 1")
        self.coding[component] = levels
        self.reversible &= wavelet == 1
        self.ht |= bool(style & 0x40)

    def quantisation_style(self, component: int, position: int, stop: int) -> None:
        data = self.data
        style, guard_bits = self.byte(position, stop) & 31, self.byte(position, stop) >> 5
        values = stop - position - 1
        if style == 0:
            exponents = [value >> 3 for value in data[position + 1 : stop]]
        else:
            exponents = [value >> 3 for value in data[position + 1 : stop : 2]]
        step = 1 if style == 0 else 2
        if style > 2 or values == 0 or values % step or (style == 1 and values != 2):
            raise damaged("QCD or QCC", position, f"style {style} with {values} bytes", "style 0, 1 or 2, whole values")
        if max(exponents) + guard_bits - 1 > 31:
            raise damaged(
                "QCD or QCC", position, f"exponent {max(exponents)} + {guard_bits} guard bits - 1", "at most 31"
            )
        self.quantisation[component] = 0 if style == 1 else values // step

    def check_quantisation(self, position: int) -> None:
        """Every component needs as many step sizes as it has sub-bands; a decoder reads them unasked."""
        for component in {-1, *self.coding, *self.quantisation}:
            levels = self.coding.get(component, self.coding.get(-1))
            values = self.quantisation.get(component, self.quantisation.get(-1))
            if levels is None or values is None:
                raise damaged("JPEG 2000 main header", position, "its end", "COD and QCD before it")
            if values and values < 3 * levels + 1:
                raise damaged("step sizes in QCD or QCC", position, values, f"{3 * levels + 1} for {levels} levels")

    def segments(self, position: int, end: int) -> int:
        """Walks marker segments up to SOT or SOD (`end`, the low byte); returns the marker's position."""
        data, size = self.data, self.size
        while True:
            if position + 2 > size or data[position] != 0xFF:
                found = bytes(data[position : position + 2]).hex(" ") or "the end of the frame"
                raise damaged("JPEG 2000 marker", position, found, "ff and a code")
            code = data[position + 1]
            if code == end:
                return position
            length = data[position + 2] << 8 | data[position + 3] if position + 4 <= size else 0
            if code < 0x4F or code >= 0x90 or length < 2 or position + 2 + length > size:
                raise damaged(
                    f"JPEG 2000 marker ff {code:02x}",
                    position,
                    f"length {length}",
                    f"a segment of the header of 2 to {size - position - 2} bytes",
                )
            if code != 0x64:
                self.segment(code, position + 4, position + 2 + length)
            position += 2 + length

    def tile_header(self, position: int) -> int:
        """Walks the header of a tile-part; what it sets holds for its tile only. Returns where the data begin."""
        if bytes(self.data[position : position + 2]) == b"\xff\x93":
            return position + 2
        main = self.coding, self.quantisation, self.mct
        self.coding, self.quantisation = dict(self.coding), dict(self.quantisation)
        body = self.segments(position, 0x93) + 2
        self.check_quantisation(position)
        self.coding, self.quantisation, self.mct = main
        return body

    def tile_parts(self, position: int) -> int:
        """Walks the tile-parts, which must tile the rest of the stream; returns where it ends, EOC included."""
        data, size = self.data, self.size
        while True:
            if bytes(data[position : position + 2]) == _EOI:
                return position + 2
            if position + 12 > size or bytes(data[position : position + 4]) != b"\xff\x90\x00\x0a":
                found = bytes(data[position : position + 4]).hex(" ") or "the end of the frame"
                raise damaged("tile-part", position, found, "SOT (ff 90 00 0a) or EOC (ff d9)")
            tile, length = struct.unpack_from(">HI", data, position + 4)
            if tile >= self.tiles:
                raise damaged("tile in SOT", position + 4, tile, f"below {self.tiles}")
            body = self.tile_header(position + 12)
            if length == 0:  # the last one, up to EOC
                tail = bytes(memoryview(data)[body:size])
                end = tail.rfind(_EOI)
                if end < 0:
                    raise damaged("end of the JPEG 2000 stream", size, "the end of the frame", "EOC (ff d9)")
                return body + end + 2
            if position + length > size or position + length < body:
                raise damaged(
                    "length of tile-part", position + 6, length, f"{body - position} to {size - position}"
                )
            position += length


def parse_j2k(data: Buffer, tiles: int) -> J2KStream:
    """Reads the headers of a JPEG 2000 or HTJ2K frame; JP2 boxes are passed over.

    Args:
        data: The frame.
        tiles: The most tiles it may have.

    Raises:
        DecodeError: It is damaged, truncated, or asks for more than a decoder should be asked for.
    """
    start, stop = _codestream(data)
    walk = _J2KWalk(data, start, stop, tiles)
    length = data[start + 4] << 8 | data[start + 5] if start + 6 <= stop else 0
    if start + 4 + length > stop:
        raise damaged("length of SIZ", start + 4, length, f"at most {stop - start - 4}")
    walk.image(start + 6, start + 4 + length)
    position = walk.segments(start + 4 + length, 0x90)
    walk.check_quantisation(position)
    end = walk.tile_parts(position)
    rows, columns = walk.siz
    return J2KStream(
        rows=rows,
        columns=columns,
        components=walk.components,
        precision=walk.precision,
        signed=walk.signed,
        component_transform=walk.mct,
        reversible=walk.reversible,
        high_throughput=walk.ht,
        start=start,
        stop=end,
    )


# --- JPEG XL ------------------------------------------------------------------------------------------------------------

_JXL_CONTAINER = b"\x00\x00\x00\x0cJXL \r\n\x87\n"
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


def _jxl_codestream(data: Buffer) -> int:
    """Where the signature of the code stream is; boxes are passed over."""
    if bytes(data[:2]) == b"\xff\x0a":
        return 0
    size = len(data)
    if bytes(data[:12]) != _JXL_CONTAINER:
        raise damaged("JPEG XL stream", 0, bytes(data[:4]).hex(" ") or "nothing", "ff 0a or a container")
    position = 12
    while position + 8 <= size:
        length, kind = struct.unpack_from(">I4s", data, position)
        header = 8
        if length == 1 and position + 16 <= size:
            length, header = struct.unpack_from(">Q", data, position + 8)[0], 16
        if kind in (b"jxlc", b"jxlp"):
            start = position + header + (4 if kind == b"jxlp" else 0)
            if bytes(data[start : start + 2]) != b"\xff\x0a":
                raise damaged("JPEG XL stream", start, bytes(data[start : start + 2]).hex(" "), "ff 0a")
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
                "JPEG XL image header", start, f"orientation {orientation}, preview or animation", "a single image"
            )
        if extras & 1:
            return JXLStream(rows, columns, 0)
    if bits.take(1):  # floating point samples
        return JXLStream(rows, columns, (32, 16, 24, 0)[bits.take(2)])
    choice = bits.take(2)
    return JXLStream(rows, columns, (8, 10, 12)[choice] if choice < 3 else bits.take(6) + 1)


# --- RLE ----------------------------------------------------------------------------------------------------------------


def rle_segments(data: Buffer, count: int) -> list[tuple[int, int]]:
    """Start and stop of each segment of an RLE frame.

    Args:
        data: The frame.
        count: How many segments it must have: samples per pixel times bytes per sample.

    Raises:
        DecodeError: The header says otherwise, or a segment is outside the frame.
    """
    size = len(data)
    if size < 64:
        raise damaged("RLE header", 0, f"{size} bytes", "64")
    number, *offsets = struct.unpack_from("<16I", data)
    if number != count or count > 15:
        raise damaged("RLE header", 0, f"{number} segments", f"{count}, samples times bytes per sample")
    edges = [*offsets[:count], size]
    if edges[0] != 64 or any(low >= high for low, high in zip(edges, edges[1:], strict=False)):
        raise damaged("RLE segment offsets", 4, edges[:-1], f"64, ascending, below {size}")
    return list(zip(edges[:-1], edges[1:], strict=True))
