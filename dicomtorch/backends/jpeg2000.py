"""What a JPEG 2000 or HTJ2K code stream says of itself, read before native code sees it.

ISO/IEC 15444-1 annex A (code stream) and annex I (JP2 boxes), ISO/IEC 15444-15 annex A (HTJ2K).
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import NamedTuple

from dicomtorch.backends.base import Buffer
from dicomtorch.backends.marks import END_MARKER, HEAD, damaged
from dicomtorch.errors import DecodeError

JP2_SIGNATURE = b"\x00\x00\x00\x0cjP  \r\n\x87\n"
_SOC_SIZ = b"\xff\x4f\xff\x51"
_TILE_PART = struct.Struct(">IHI2xH")
"""SOT and Lsot, tile, length of the tile-part, the marker after the segment."""
_SOT, _SOD = 0xFF90000A, 0xFF93


class J2KStream(NamedTuple):
    """A JPEG 2000 or HTJ2K main header.

    Attributes:
        rows: Height in pixels.
        columns: Width in pixels.
        components: Number of components.
        precision: Bits of a sample.
        signed: Whether samples are signed.
        component_transform: Whether the codec turns the components into RGB.
        reversible: Whether the 5/3 wavelet is used everywhere, the only one that can be lossless.
        irreversible: Whether the 9/7 wavelet is used everywhere.
        high_throughput: Whether the blocks are coded as in HTJ2K.
        equal_blocks: Whether the blocks of all components and tiles have one size.
        levels: Decomposition levels, the fewest of all components and tiles.
        at_origin: Whether image and tiles begin at the origin of the reference grid.
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
    irreversible: bool
    high_throughput: bool
    equal_blocks: bool
    levels: int
    at_origin: bool
    start: int
    stop: int


def _codestream(data: Buffer) -> tuple[int, int]:
    """Where the code stream starts and stops; the boxes of a JP2 file are passed over."""
    size = len(data)
    head = bytes(data[:12])
    if head[:4] == _SOC_SIZ:
        return 0, size
    if head != JP2_SIGNATURE:
        raise damaged(
            "JPEG 2000 stream", 0, head[:4].hex(" ") or "nothing", "SOC and SIZ (ff 4f ff 51)"
        )
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
                raise damaged(
                    "JPEG 2000 stream",
                    start,
                    bytes(data[start : start + 4]).hex(" "),
                    "ff 4f ff 51",
                )
            # A box that is longer than the frame is left to the end marker.
            return start, min(stop, size)
        if stop > size or stop < position + header:
            raise damaged("JP2 box", position, f"length {length}", f"8 to {size - position}")
        position = stop
    raise damaged("JP2 file", size, "no jp2c box", "one")


class _J2KWalk:
    """The marker segments of a JPEG 2000 code stream."""

    __slots__ = ("at_origin", "blocks", "coding", "components", "data", "ht", "irreversible", "mct", "precision",
                 "quantisation", "reversible", "signed", "siz", "size", "start", "tiles")  # fmt: skip

    def __init__(self, data: Buffer, start: int, stop: int, tiles: int) -> None:
        self.data = data
        self.start = start
        self.size = stop
        self.tiles = tiles  # in: the limit; out: the number
        # By component, -1 for all: decomposition levels and whether the 5/3 wavelet is used; number of step sizes (0
        # where all follow from one), and their largest bit depth.
        self.coding: dict[int, tuple[int, bool]] = {}
        self.quantisation: dict[int, tuple[int, int]] = {}
        self.blocks: set[tuple[int, int]] = set()  # sizes, as exponents
        self.mct = self.ht = False
        self.reversible = self.irreversible = True

    def main_header(self) -> int:
        """Walks to the first tile-part; returns its position."""
        start, stop, data = self.start, self.size, self.data
        length = data[start + 4] << 8 | data[start + 5] if start + 6 <= stop else 0
        if start + 4 + length > stop:
            raise damaged("length of SIZ", start + 4, length, f"at most {stop - start - 4}")
        self.image(start + 6, start + 4 + length)
        position = self.segments(start + 4 + length, 0x90)
        self.check_quantisation(position)
        return position

    def image(self, position: int, stop: int) -> None:
        """SIZ: sizes before anything is allocated by them."""
        data = self.data
        if stop - position < 36:
            raise damaged("length of SIZ", position - 2, stop - position + 2, "at least 41")
        (_, x1, y1, x0, y0, width, height, tile_x0, tile_y0, count) = struct.unpack_from(
            ">H8IH", data, position
        )
        if count == 0 or stop - position != 36 + 3 * count:
            raise damaged(
                "length of SIZ", position - 2, stop - position + 2, f"{38 + 3 * max(count, 1)}"
            )
        if not (x0 < x1 and y0 < y1):
            raise damaged(
                "image area in SIZ", position, f"({x0}, {y0}) to ({x1}, {y1})", "a positive area"
            )
        if not (
            width
            and height
            and tile_x0 <= x0 < tile_x0 + width
            and tile_y0 <= y0 < tile_y0 + height
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
        across, down = bytes(data[position + 37 : stop : 3]), bytes(data[position + 38 : stop : 3])
        if across.count(1) != count or down.count(1) != count:
            raise damaged("subsampling in SIZ", position + 37, "a step that is not 1", "1")
        if depths.count(depths[0]) != count or (depths[0] & 127) + 1 > 32:
            raise damaged(
                "precision in SIZ", position + 36, depths.hex(" "), "one of 1 to 32 bits for all"
            )
        self.siz = (y1 - y0, x1 - x0)
        self.at_origin = not (x0 or y0 or tile_x0 or tile_y0)
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
            raise damaged(
                "component in COC or QCC", position, component, f"below {self.components}"
            )
        return component, position + 1

    def coding_style(self, position: int, stop: int) -> None:
        data = self.data
        if stop - position < 10:
            raise damaged("length of COD", position - 2, stop - position + 2, "at least 12")
        progression, layers, transform = (
            data[position + 1],
            data[position + 2] << 8 | data[position + 3],
            data[position + 4],
        )
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
            raise damaged(
                "length of COD or COC", position, stop - position, "at least 5 more bytes"
            )
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
        self.coding[component] = (levels, wavelet == 1)
        self.blocks.add((across, down))
        self.reversible &= wavelet == 1
        self.irreversible &= wavelet == 0
        self.ht |= bool(style & 0x40)

    def quantisation_style(self, component: int, position: int, stop: int) -> None:
        data = self.data
        first, size = self.byte(position, stop), stop - position - 1
        style, guard_bits = first & 31, first >> 5
        step = 1 if style == 0 else 2
        if style > 2 or size == 0 or size % step or (style == 1 and size != 2):
            raise damaged(
                "QCD or QCC",
                position,
                f"style {style} with {size} bytes",
                "style 0, 1 or 2, whole values",
            )
        exponent = max(bytes(data[position + 1 : stop : step])) >> 3
        bits, most = exponent + guard_bits - 1, 30 if style else 31
        if bits > most:
            raise damaged(
                "QCD or QCC",
                position,
                f"exponent {exponent} + {guard_bits} guard bits - 1",
                f"at most {most} in style {style}",
            )
        self.quantisation[component] = (0 if style == 1 else size // step, bits)

    def fewest_levels(self) -> int:
        """Of all components; there is a COD."""
        return min(levels for levels, _ in self.coding.values())

    def check_quantisation(self, position: int) -> None:
        """Every component needs as many step sizes as it has sub-bands; a decoder reads them unasked.

        With the 9/7 wavelet 31 bits end the process in OpenJPH, whatever the style of quantisation.
        """
        for component in {-1, *self.coding, *self.quantisation}:
            coding = self.coding.get(component, self.coding.get(-1))
            quantisation = self.quantisation.get(component, self.quantisation.get(-1))
            if coding is None or quantisation is None:
                raise damaged("JPEG 2000 main header", position, "its end", "COD and QCD before it")
            (levels, reversible), (steps, bits) = coding, quantisation
            if steps and steps < 3 * levels + 1:
                raise damaged(
                    "step sizes in QCD or QCC",
                    position,
                    steps,
                    f"{3 * levels + 1} for {levels} levels",
                )
            if bits > 30 and not reversible:
                raise damaged(
                    "QCD or QCC", position, f"{bits} bits with the 9/7 wavelet", "at most 30"
                )

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


class _TileParts:
    """The tile-parts of a JPEG 2000 code stream, which must tile the rest of it."""

    __slots__ = ("blocks", "data", "ht", "irreversible", "levels", "main", "reversible", "size")

    def __init__(self, data: Buffer, size: int, main: _J2KWalk) -> None:
        self.data = data
        self.size = size
        self.main = main
        self.ht, self.reversible, self.irreversible = main.ht, main.reversible, main.irreversible
        self.blocks, self.levels = set(main.blocks), main.fewest_levels()

    def header(self, position: int) -> int:
        """Walks the header of a tile-part; what it sets holds for its tile only. Returns where the data begin."""
        if bytes(self.data[position : position + 2]) == b"\xff\x93":
            return position + 2
        main, walk = self.main, _J2KWalk(self.data, position, self.size, self.main.tiles)
        walk.components = main.components
        walk.coding, walk.quantisation = dict(main.coding), dict(main.quantisation)
        body = walk.segments(position, 0x93) + 2
        walk.check_quantisation(position)
        self.ht |= walk.ht
        self.reversible &= walk.reversible
        self.irreversible &= walk.irreversible
        self.blocks |= walk.blocks
        self.levels = min(self.levels, walk.fewest_levels())
        return body

    def walk(self, position: int) -> int:
        """Goes from one to the next; returns where the stream ends, EOC included."""
        data, size, tiles, read = self.data, self.size, self.main.tiles, _TILE_PART.unpack_from
        last = size - _TILE_PART.size
        while position <= last:
            marker, tile, length, following = read(data, position)
            # There may be hundreds: this is all that it takes where a tile-part has no segments of its own.
            if marker == _SOT and following == _SOD and tile < tiles and length > 13:
                position += length
                continue
            if marker >> 16 == 0xFFD9:
                break
            if marker != _SOT:
                found = struct.pack(">I", marker).hex(" ")
                raise damaged("tile-part", position, found, "SOT (ff 90 00 0a) or EOC (ff d9)")
            if tile >= tiles:
                raise damaged("tile in SOT", position + 4, tile, f"below {tiles}")
            body = self.header(position + 12)
            if length == 0:  # the last one, up to EOC
                return self.last_end(body)
            if length < body - position:
                least = f"at least {body - position}"
                raise damaged("length of tile-part", position + 6, length, least)
            position += length
        found = bytes(data[position : position + 2]).hex(" ")
        if found != "ff d9":
            found = found or f"the end of the frame at byte {len(data)}"
            raise damaged("end of the tile-parts", position, found, "EOC (ff d9)")
        return position + 2

    def last_end(self, body: int) -> int:
        """Where a stream ends whose last tile-part, with data from `body` on, does not say how long it is."""
        end = bytes(memoryview(self.data)[body : self.size]).rfind(END_MARKER)
        if end < 0:
            raise damaged(
                "end of the JPEG 2000 stream", self.size, "the end of the frame", "EOC (ff d9)"
            )
        return body + end + 2


@lru_cache(maxsize=256)
def _main_header(head: bytes, tiles: int) -> tuple[_J2KWalk, int]:
    """The main header in `head`, which ends with the marker of the first tile-part, and its length.

    Kept, because the frames of a file mostly begin alike.
    """
    walk = _J2KWalk(head, 0, len(head), tiles)
    return walk, walk.main_header()


def is_high_throughput(data: Buffer) -> bool:
    """Whether a JPEG 2000 stream says that its blocks are coded as in HTJ2K: in CAP, which follows SIZ.

    Raises:
        DecodeError: There is no code stream.
    """
    start, _ = _codestream(data)
    at = start + 4 + int.from_bytes(data[start + 4 : start + 6], "big")
    segment = bytes(data[at : at + 6])
    return len(segment) == 6 and segment[:2] == b"\xff\x50" and bool(segment[5] & 2)


def parse_j2k(data: Buffer, tiles: int) -> J2KStream:
    """Reads the headers of a JPEG 2000 or HTJ2K frame; JP2 boxes are passed over.

    Args:
        data: The frame.
        tiles: The most tiles it may have.

    Raises:
        DecodeError: It is damaged, truncated, or asks for more than a decoder should be asked for.
    """
    start, stop = _codestream(data)
    head = bytes(data[start : min(start + HEAD, stop)])
    try:
        main, length = _main_header(head[: head.find(b"\xff\x90") + 2], tiles)
    except DecodeError:
        # It is longer, or those two bytes are in one of its segments, or it is damaged at a place that is to be named.
        main = _J2KWalk(data, start, stop, tiles)
        length = main.main_header() - start
    parts = _TileParts(data, stop, main)
    end = parts.walk(start + length)
    rows, columns = main.siz
    return J2KStream(
        rows=rows,
        columns=columns,
        components=main.components,
        precision=main.precision,
        signed=main.signed,
        component_transform=main.mct,
        reversible=parts.reversible,
        irreversible=parts.irreversible,
        high_throughput=parts.ht,
        equal_blocks=len(parts.blocks) == 1,
        levels=parts.levels,
        at_origin=main.at_origin,
        start=start,
        stop=end,
    )
