"""Files that are wrong on purpose: a model of a DICOM file, a writer that lies where it is told to, and mutations.

`mutated(random.Random(n))` is always the same file for the same n.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import imagecodecs
import numpy as np

CANARY = "ZQ7PNCANARY"
"""In every attribute of a seed that names somebody; no message may have it."""

LONG = frozenset((b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"UN", b"UT", b"UC", b"UR"))
UNDEFINED = 0xFFFFFFFF
ROWS, COLUMNS, SAMPLES, FRAMES = 0x00280010, 0x00280011, 0x00280002, 0x00280008
PIXELS, SYNTAX = 0x7FE00010, 0x00020010


@dataclass
class Element:
    """An element as it is written; `length` says another one than it has."""

    tag: int
    vr: bytes
    value: Any  # bytes, or a list of items, each a list of elements
    length: int | None = None

    def written(self, implicit: bool, big: bool) -> bytes:
        """Its bytes."""
        order = ">" if big else "<"
        if isinstance(self.value, list):
            body = b"".join(_item(item, implicit, big, self.length) for item in self.value)
            if self.length == UNDEFINED:
                body += struct.pack(f"{order}HHI", 0xFFFE, 0xE0DD, 0)
        else:
            body = self.value
        length = len(body) if self.length is None else self.length
        head = struct.pack(f"{order}HH", self.tag >> 16, self.tag & 0xFFFF)
        if implicit:
            return head + struct.pack(f"{order}I", length & 0xFFFFFFFF) + body
        if self.vr in LONG:
            return head + self.vr + struct.pack(f"{order}HI", 0, length & 0xFFFFFFFF) + body
        return head + self.vr + struct.pack(f"{order}H", length & 0xFFFF) + body


def _item(item: list[Element], implicit: bool, big: bool, length: int | None) -> bytes:
    order = ">" if big else "<"
    body = b"".join(element.written(implicit, big) for element in item)
    if length == UNDEFINED:
        end = struct.pack(f"{order}HHI", 0xFFFE, 0xE00D, 0)
        return struct.pack(f"{order}HHI", 0xFFFE, 0xE000, UNDEFINED) + body + end
    return struct.pack(f"{order}HHI", 0xFFFE, 0xE000, len(body)) + body


@dataclass
class File:
    """A file that may be wrong anywhere.

    Attributes:
        streams: Code streams by frame and fragment, `None` for native pixels, which are an element.
        table: The Basic Offset Table, `None` for the right one.
    """

    preamble: bytes
    meta: list[Element]
    elements: list[Element]
    streams: list[list[bytes]] | None
    table: list[int] | None = None
    extended: bool = False
    delimited: bool = True
    implicit: bool = False
    big: bool = False
    deflated: bool = False
    tail: bytes = b""
    names: list[str] = field(default_factory=list)

    def find(self, tag: int) -> Element | None:
        """The first element with a tag."""
        return next((element for element in self.elements if element.tag == tag), None)

    def put(self, tag: int, vr: bytes, value: Any) -> None:
        """Sets an element, in its place."""
        self.elements = [element for element in self.elements if element.tag != tag]
        self.elements.append(Element(tag, vr, value))
        self.elements.sort(key=lambda element: element.tag)

    def written(self) -> bytes:
        """Its bytes."""
        body = b"".join(element.written(self.implicit, self.big) for element in self.elements)
        if self.streams is not None:
            body += self._pixels()
        body += self.tail
        if self.deflated:
            engine = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
            body = engine.compress(body) + engine.flush()
        meta = b"".join(element.written(False, False) for element in self.meta)
        head = Element(0x00020000, b"UL", struct.pack("<I", len(meta))).written(False, False)
        magic = b"DICM" if self.preamble else b""
        return self.preamble + magic + head + meta + body

    def _pixels(self) -> bytes:
        assert self.streams is not None
        items, offsets = b"", []
        for fragments in self.streams:
            offsets.append(len(items))
            for fragment in fragments:
                items += struct.pack("<HHI", 0xFFFE, 0xE000, len(fragment)) + fragment
        table = offsets if self.table is None else self.table
        head = b"".join(struct.pack("<I", offset & 0xFFFFFFFF) for offset in table)
        value = struct.pack("<HHI", 0xFFFE, 0xE000, len(head)) + head + items
        end = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0) if self.delimited else b""
        return struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, UNDEFINED) + value + end


def us(value: int) -> bytes:
    """Unsigned Short."""
    return struct.pack("<H", value & 0xFFFF)


def text(value: str) -> bytes:
    """Text of an even length."""
    data = value.encode("utf-8", "surrogateescape")
    return data + b" " * (len(data) % 2)


def _streams(kind: str, frames: np.ndarray[Any, Any]) -> tuple[str, list[bytes]]:
    encode: dict[str, tuple[str, Callable[[Any], Any]]] = {
        "j2k": (
            "1.2.840.10008.1.2.4.90",
            lambda a: imagecodecs.jpeg2k_encode(a, level=0, codecformat="j2k", reversible=True),
        ),
        "htj2k": ("1.2.840.10008.1.2.4.201", imagecodecs.htj2k_encode),
        "jls": ("1.2.840.10008.1.2.4.80", imagecodecs.jpegls_encode),
        "jpeg": ("1.2.840.10008.1.2.4.50", lambda a: imagecodecs.jpeg8_encode(a, level=90)),
        "ljpeg": (
            "1.2.840.10008.1.2.4.70",
            lambda a: imagecodecs.jpeg8_encode(a, lossless=True, bitspersample=8),
        ),
        "jxl": ("1.2.840.10008.1.2.4.110", lambda a: imagecodecs.jpegxl_encode(a, lossless=True)),
        "rle": ("1.2.840.10008.1.2.5", _rle),
    }
    syntax, make = encode[kind]
    return syntax, [bytes(make(frame)) for frame in frames]


def _rle(frame: np.ndarray[Any, Any]) -> bytes:
    """RLE Lossless (PS3.5 annex G) without a run: bytes as literals."""
    planes = frame.reshape(*frame.shape[:2], -1).transpose(2, 0, 1)
    segments = []
    for plane in planes:
        segment = b""
        for row in plane:
            data = row.tobytes()
            for k in range(0, len(data), 128):
                segment += bytes([len(data[k : k + 128]) - 1]) + data[k : k + 128]
        segments.append(segment + b"\0" * (len(segment) % 2))
    offsets, at = [], 64
    for segment in segments:
        offsets.append(at)
        at += len(segment)
    words = [len(segments), *offsets] + [0] * (15 - len(segments))
    return struct.pack("<16I", *words) + b"".join(segments)


def seed_file(rng: random.Random) -> File:
    """A file that is right."""
    kind = rng.choice(("native", "native", "j2k", "htj2k", "jls", "jpeg", "ljpeg", "jxl", "rle"))
    samples = rng.choice((1, 1, 1, 3)) if kind not in ("htj2k", "jls") else 1
    deep = kind in ("native", "j2k", "htj2k", "jls", "jxl") and samples == 1 and rng.random() < 0.6
    rows, columns = rng.choice(((37, 53), (64, 64), (16, 40)))
    count = rng.choice((1, 1, 2, 4))
    shape = (count, rows, columns) if samples == 1 else (count, rows, columns, samples)
    values = np.random.default_rng(rng.getrandbits(32)).integers(0, 4096 if deep else 256, shape)
    pixels = values.astype(np.uint16 if deep else np.uint8)
    bits = 16 if deep else 8
    syntax, streams = "1.2.840.10008.1.2.1", None
    if kind != "native":
        syntax, encoded = _streams(kind, pixels)
        streams = [[stream + b"\0" * (len(stream) % 2)] for stream in encoded]
    uid = f"1.2.826.0.1.{rng.getrandbits(40)}"
    elements = [
        Element(0x00080005, b"CS", text("ISO_IR 192")),
        Element(0x00080008, b"CS", text("ORIGINAL\\PRIMARY\\AXIAL")),
        Element(0x00080016, b"UI", b"1.2.840.10008.5.1.4.1.1.7\0"),
        Element(0x00080018, b"UI", text(uid)),
        Element(0x00080060, b"CS", b"OT"),
        Element(0x0008103E, b"LO", text(f"{CANARY} series")),
        Element(0x00100010, b"PN", text(f"{CANARY}^Jane")),
        Element(0x00100020, b"LO", text(f"{CANARY}ID")),
        Element(0x00400275, b"SQ", [[Element(0x00400007, b"LO", text(CANARY))], []]),
        Element(0x0020000D, b"UI", text(uid + ".1")),
        Element(0x0020000E, b"UI", text(uid + ".2")),
        Element(0x00200013, b"IS", b"1 "),
        Element(SAMPLES, b"US", us(samples)),
        Element(0x00280004, b"CS", text("RGB" if samples == 3 else "MONOCHROME2")),
        Element(ROWS, b"US", us(rows)),
        Element(COLUMNS, b"US", us(columns)),
        Element(0x00280100, b"US", us(bits)),
        Element(0x00280101, b"US", us(12 if deep and kind != "htj2k" else bits)),
        Element(0x00280102, b"US", us(11 if deep and kind != "htj2k" else bits - 1)),
        Element(0x00280103, b"US", us(0)),
        Element(0x00281050, b"DS", text("40\\50")),
        Element(0x00281051, b"DS", text("400\\90")),
        Element(0x00281052, b"DS", text("-1024")),
        Element(0x00281053, b"DS", text("1")),
    ]
    if samples == 3:
        elements.append(Element(0x00280006, b"US", us(0)))
    if count > 1:
        elements.append(Element(FRAMES, b"IS", text(str(count))))
    if streams is None:
        data = pixels.tobytes()
        elements.append(Element(PIXELS, b"OW", data + b"\0" * (len(data) % 2)))
    elements.sort(key=lambda element: element.tag)
    meta = [
        Element(0x00020001, b"OB", b"\0\1"),
        Element(0x00020002, b"UI", b"1.2.840.10008.5.1.4.1.1.7\0"),
        Element(0x00020003, b"UI", text(uid)),
        Element(SYNTAX, b"UI", text(syntax)),
    ]
    return File(b"\0" * 128, meta, elements, streams)


LENGTHS = (0, 1, 3, 0x7FFF, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, UNDEFINED)
NUMBERS = ("", "-1", "0", "2147483648", "1e9", "\u0661", "1,5", "NaN", "1e308", "x" * 17, "9" * 40)


def lengths(file: File, rng: random.Random) -> None:
    """Lengths that lie."""
    element = rng.choice(file.elements)
    own = len(element.value) if isinstance(element.value, bytes) else 8
    element.length = rng.choice((*LENGTHS, own - 1, own + 1, own + 2))


def image_pixel(file: File, rng: random.Random) -> None:
    """The Image Pixel module."""
    for _ in range(rng.choice((1, 1, 2))):
        kind = rng.randrange(7)
        if kind == 0:
            tag = rng.choice((ROWS, COLUMNS))
            file.put(tag, b"US", us(rng.choice((0, 1, 2, 255, 4096, 65535))))
        elif kind == 1:
            file.put(
                rng.choice((ROWS, COLUMNS)),
                b"UL",
                struct.pack("<I", rng.choice((37, 64, 65536, 1 << 31))),
            )
        elif kind == 2:
            tag = rng.choice((0x00280100, 0x00280101, 0x00280102))
            file.put(tag, b"US", us(rng.choice((0, 1, 7, 8, 12, 15, 16, 24, 32, 52, 64, 65535))))
        elif kind == 3:
            file.put(SAMPLES, b"US", us(rng.choice((0, 1, 2, 3, 4, 65535))))
        elif kind == 4:
            file.put(FRAMES, b"IS", text(rng.choice((*NUMBERS, "2", "3", "1000000"))))
        elif kind == 5:
            names = ("MONOCHROME1", "PALETTE COLOR", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "?", "")
            file.put(0x00280004, b"CS", text(rng.choice(names)))
        else:
            gone = rng.choice((ROWS, COLUMNS, SAMPLES, 0x00280004, 0x00280100, 0x00280101))
            file.elements = [element for element in file.elements if element.tag != gone]


def encapsulation(file: File, rng: random.Random) -> None:
    """Offset tables, fragments, delimiters."""
    if file.streams is None:
        element = file.find(PIXELS)
        if element is not None:
            element.value = element.value[: rng.randrange(len(element.value) + 1)]
        return
    if not file.streams:  # an earlier mutation took the only one
        return
    kind = rng.randrange(8)
    frame = rng.choice(file.streams)
    if kind == 0:
        count = rng.choice((0, 1, len(file.streams), len(file.streams) + 3))
        file.table = [rng.choice((0, 1, 8, 7, 10**6, 1 << 31)) for _ in range(count)]
    elif kind == 1:
        at = rng.randrange(len(frame[0]) + 1)
        frame[:1] = [frame[0][:at], frame[0][at:]]
    elif kind == 2:
        frame.insert(rng.randrange(len(frame) + 1), b"")
    elif kind == 3:
        file.streams.append(rng.choice(file.streams))
    elif kind == 4:
        file.streams.remove(frame)
    elif kind == 5:
        file.delimited = False
    elif kind == 6:
        frame[0] += struct.pack("<HHI", 0xFFFE, rng.choice((0xE0DD, 0xE000, 0xE00D)), 0)
    else:
        frame.extend([b""] * rng.choice((10, 5000, 20000)))


def code_stream(file: File, rng: random.Random) -> None:
    """Bytes and markers of code streams."""
    if not file.streams:
        return image_pixel(file, rng)
    frame = rng.choice(file.streams)
    data = bytearray(frame[0])
    kind = rng.randrange(6)
    if kind == 0 and data:
        for _ in range(rng.choice((1, 2, 8))):
            data[rng.randrange(len(data))] = rng.choice(
                (0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256))
            )
    elif kind == 1:
        marks = [k for k in range(len(data) - 1) if data[k] == 0xFF and data[k + 1] > 0x4E]
        del data[rng.choice(marks or [0]) :]
    elif kind == 2:
        marks = [k for k in range(len(data) - 6) if data[k] == 0xFF and data[k + 1] > 0x4E][:12]
        at = rng.choice(marks or [0]) + rng.randrange(2, 24)
        data[at : at + 1] = bytes([rng.choice((0, 1, 0xFF, rng.randrange(256)))])
    elif kind == 3:
        data += rng.randbytes(rng.choice((1, 7, 400)))
    elif kind == 4:
        data[: rng.randrange(80)] = b""
    else:
        other = seed_file(random.Random(rng.getrandbits(30)))
        data[:] = other.streams[0][0] if other.streams else b"\xff\xd8\xff\xd9"
    frame[0] = bytes(data) + b"\0" * (len(data) % 2)
    return None


def nesting(file: File, rng: random.Random) -> None:
    """Sequences in sequences, many items, icons, delimiters from nowhere."""
    kind = rng.randrange(5)
    if kind == 0:
        depth = rng.choice((2, 60, 66, 200, 20_000))
        item = struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED)
        begin = item + struct.pack("<HH2sHI", 0x0040, 0x0275, b"SQ", 0, UNDEFINED)
        end = struct.pack("<HHIHHI", 0xFFFE, 0xE0DD, 0, 0xFFFE, 0xE00D, 0)
        file.put(0x00400275, b"SQ", begin * depth + end * rng.choice((0, depth)))
        element = file.find(0x00400275)
        assert element is not None
        element.length = UNDEFINED
    elif kind == 1:
        many: list[list[Element]] = [[] for _ in range(rng.choice((100, 5000, 60_000)))]
        file.put(0x00400275, b"SQ", many)
        file.elements[-2].length = rng.choice((None, UNDEFINED))
    elif kind == 2:
        icon = [element for element in file.elements if element.tag >> 16 == 0x0028]
        icon.append(Element(PIXELS, b"OW", bytes(64)))
        file.put(0x00880200, b"SQ", [icon])
    elif kind == 3:
        stray = struct.pack("<HHI", 0xFFFE, rng.choice((0xE00D, 0xE0DD, 0xE000)), 0)
        file.put(0x00091001, b"UN", stray * rng.choice((1, 3)))
        element = file.find(0x00091001)
        assert element is not None
        element.length = rng.choice((None, UNDEFINED))
    else:
        inner: list[Element] = [Element(0x00281050, b"DS", b"1 ")]
        file.put(0x52009229, b"SQ", [[Element(0x00289132, b"SQ", [inner] * rng.choice((0, 1, 3)))]])


def transfer_syntax(file: File, rng: random.Random) -> None:
    """What a file says that it is."""
    kind = rng.randrange(6)
    syntax = next((element for element in file.meta if element.tag == SYNTAX), None)
    if kind == 0 and syntax is not None:
        others: tuple[str, ...] = (
            "1.2.840.10008.1.2",
            "1.2.840.10008.1.2.2",
            "1.2.840.10008.1.2.5",
        )
        others += ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.80", "1.2.3", "", CANARY)
        syntax.value = text(rng.choice(others))
    elif kind == 1:
        file.meta = file.meta[: rng.randrange(len(file.meta))]
    elif kind == 2:
        file.implicit = True
    elif kind == 3:
        file.big = True
    elif kind == 4 and syntax is not None:
        syntax.value, file.deflated = b"1.2.840.10008.1.2.1.99", True
        file.tail = bytes(rng.choice((0, 100_000, 3_000_000)))
    else:
        heads = (b"", b"MZ" + bytes(126), b"\x7fELF" + bytes(124), b"%PDF" + bytes(124), b"II*\0")
        file.preamble = rng.choice(heads)


def arithmetic(file: File, rng: random.Random) -> None:
    """Numbers that are computed with."""
    tag = rng.choice((0x00281050, 0x00281051, 0x00281052, 0x00281053, 0x00280120, 0x00280121))
    several = "\\".join([rng.choice(NUMBERS)] * rng.choice((1, 1, 3, 3000)))
    file.put(tag, b"DS", text(several))
    if rng.random() < 0.4:
        entries = rng.choice((0, 1, 256, 65535))
        descriptor = us(entries) + us(rng.choice((0, 65535))) + us(rng.choice((8, 16, 99)))
        table = [
            Element(0x00283002, b"US", descriptor),
            Element(0x00283006, b"OW", bytes(2 * rng.choice((0, 1, 256)))),
        ]
        file.put(rng.choice((0x00283000, 0x00283010)), b"SQ", [table])
    if rng.random() < 0.3:
        for k in range(3):
            file.put(0x00281101 + k, b"US", us(rng.choice((0, 4, 256))) + us(0) + us(16))
            file.put(0x00281221 + k, b"OW", bytes(rng.choice(((0, 0), (2, 0, 5, 0)))))


def words(file: File, rng: random.Random) -> None:
    """Text that is none."""
    tag = rng.choice((0x00080005, 0x00080008, 0x00080018, 0x00080060, 0x00100020, 0x0020000E))
    many = ("ISO 2022 IR 87", "\0" * 9, "\x1b[31m", "=cmd|x", "../" * 9, "x" * 70_000)
    vr = rng.choice((b"LO", b"CS", b"UT", b"UN"))
    is_uid = tag in (0x00080018, 0x0020000E)  # samples have these as they are
    value = text(rng.choice(many) + rng.choice(("", "" if is_uid else CANARY, "\udcff")))
    file.put(tag, vr, value[:0xFFFE] if vr not in LONG else value)


def splice(file: File, rng: random.Random) -> None:
    """Parts of another file."""
    other = seed_file(random.Random(rng.getrandbits(30)))
    if rng.random() < 0.5:
        file.streams = other.streams
        file.elements = [element for element in file.elements if element.tag != PIXELS]
    else:
        for element in other.elements:
            if element.tag >> 16 == 0x0028 and rng.random() < 0.5:
                file.put(element.tag, element.vr, element.value)


WAYS: tuple[tuple[int, Callable[[File, random.Random], None]], ...] = (
    (20, lengths),
    (15, image_pixel),
    (12, encapsulation),
    (12, code_stream),
    (10, nesting),
    (8, transfer_syntax),
    (8, arithmetic),
    (5, words),
    (5, splice),
)


def mutated(rng: random.Random) -> tuple[bytes, str]:
    """(a file, what was done to it)."""
    file = seed_file(rng)
    ways = rng.choices(
        [way for _, way in WAYS], [weight for weight, _ in WAYS], k=rng.choice((1, 1, 2))
    )
    for way in ways:
        if file.elements:
            way(file, rng)
    data = file.written()
    names = [way.__name__ for way in ways]
    if rng.random() < 0.08:
        names.append("bytes")
        content = bytearray(data)
        kind, at = rng.randrange(3), rng.randrange(len(content))
        if kind == 0:
            content[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del content[at : at + rng.choice((1, 2, 64, len(content)))]
        else:
            content[at:at] = content[at : at + 64]
        data = bytes(content)
    return data, "+".join(names)
