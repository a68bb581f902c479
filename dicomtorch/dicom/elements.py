"""The elements of a header as they were read, and their values as text and numbers (PS3.5 section 6.2)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Read = Callable[[int, int], bytes]
"""`read(offset, length)`: the bytes there, fewer only at the end of what is read."""

Items = list["Group"]
Element = tuple[str, Any]  # (VR or "" if unknown, value bytes in file order | Items)
Group = dict[int, Element]  # tag -> element: a data set, or an item of a sequence


@dataclass(slots=True)
class PixelDataElement:
    """Where Pixel Data, Float Pixel Data or Double Float Pixel Data is.

    Attributes:
        tag: 0x7FE00010, 0x7FE00008 or 0x7FE00009.
        vr: "OB", "OW", "OF", "OD"; "OW" in Implicit VR; "UN" if the file says so.
        offset: First byte of the value, in the file (in the inflated data set if `Header.deflated`).
        length: Bytes of the value as stated; -1 if undefined (encapsulated).
    """

    tag: int
    vr: str
    offset: int
    length: int


@dataclass(slots=True)
class Header:
    """The wanted elements of one file.

    Attributes:
        transfer_syntax_uid: The one that the data set is really in. As stated where it is not a native one, known or
            not; "" if the file names none and its pixel data are encapsulated.
        big_endian: Byte order of `elements`.
        elements: Wanted elements of the main data set.
        pixel_data: Where the pixels are, or `None`.
        deflated: The data set had to be inflated.
        inflated: The inflated data set, if `deflated`.
        notices: What was odd but could be read.
    """

    transfer_syntax_uid: str
    big_endian: bool = False
    elements: Group = field(default_factory=dict)
    pixel_data: PixelDataElement | None = None
    deflated: bool = False
    inflated: bytes | None = None
    notices: list[str] = field(default_factory=list)


def texts(element: Element | None, character_set: str = "") -> list[str]:
    """The values of a text element, without the spaces and NULs around them; [] if absent or empty.

    Args:
        element: As recorded.
        character_set: (0008,0005) Specific Character Set, its values joined by backslashes. Bytes that it does not
            cover come out escaped, so that different values stay different.
    """
    if element is None:
        return []
    vr, value = element
    if not isinstance(value, bytes) or not value.strip(b" \0"):
        return []
    single = vr in ("ST", "LT", "UT", "UR")
    encoding = _PYTHON_ENCODINGS.get(character_set, "") if vr in _LOCALIZED else "ascii"
    if not encoding:
        parts = [_decode_extended(part, character_set) for part in value.split(b"\\")]
    else:
        try:
            text = value.decode(encoding)
            parts = [text] if single else text.split("\\")
        except UnicodeDecodeError:
            raw = [value] if single else value.split(b"\\")
            parts = [part.decode(encoding, "backslashreplace") for part in raw]
    return [part.strip(" \0") for part in parts]


def _decode_extended(value: bytes, character_set: str) -> str:
    """Text with code extensions (PS3.3 C.12.1.1.2), which pydicom knows; ASCII if a term is unknown."""
    from pydicom.charset import convert_encodings, decode_bytes, python_encoding

    terms = [term.strip() for term in character_set.split("\\")]
    if not python_encoding.keys() >= set(terms):
        return value.decode("ascii", "backslashreplace")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # bytes that fit nowhere come out as U+FFFD
        return decode_bytes(value, convert_encodings(terms), {ord("^"), ord("=")})


_LOCALIZED: Final = frozenset(("LO", "LT", "PN", "SH", "ST", "UC", "UT"))
_PYTHON_ENCODINGS: Final = {
    "": "ascii",
    "ISO_IR 6": "ascii",
    "ISO_IR 13": "shift_jis",
    "ISO_IR 100": "latin_1",
    "ISO_IR 101": "iso8859_2",
    "ISO_IR 109": "iso8859_3",
    "ISO_IR 110": "iso8859_4",
    "ISO_IR 126": "iso8859_7",
    "ISO_IR 127": "iso8859_6",
    "ISO_IR 138": "iso8859_8",
    "ISO_IR 144": "iso8859_5",
    "ISO_IR 148": "iso8859_9",
    "ISO_IR 166": "iso8859_11",
    "ISO_IR 192": "utf_8",
    "ISO_IR 203": "iso8859_15",
    "GB18030": "gb18030",
    "GBK": "gbk",
}

_NUMPY_TYPES: Final = {
    "FL": "f4",
    "FD": "f8",
    "OB": "u1",
    "OD": "f8",
    "OF": "f4",
    "OL": "u4",
    "OV": "u8",
    "OW": "u2",
    "SL": "i4",
    "SS": "i2",
    "SV": "i8",
    "UL": "u4",
    "US": "u2",
    "UV": "u8",
    "AT": "u2",
}


def array(element: Element | None, big_endian: bool = False) -> npt.NDArray[Any]:
    """The numbers of a binary element as a 1-D array in native byte order; empty if absent or not binary.

    Bytes beyond the last whole number are left out. OW is read as uint16, AT as pairs of uint16.
    """
    vr, value = element or ("", b"")
    kind = _NUMPY_TYPES.get(vr)
    if kind is None or not isinstance(value, bytes):
        return np.empty(0, np.uint16)
    dtype = np.dtype((">" if big_endian else "<") + kind)
    whole = np.frombuffer(value, dtype, len(value) // dtype.itemsize)
    return whole.astype(dtype.newbyteorder("="), copy=False)


def floats(element: Element | None, big_endian: bool = False) -> list[float]:
    """The numbers of an element of any numeric VR; nan for a component that is empty or no number."""
    if element is None:
        return []
    vr, value = element
    if vr in ("DS", "IS"):
        return [_float(part) for part in value.split(b"\\")] if value.strip(b" \0") else []
    return [float(number) for number in array(element, big_endian).tolist()]


def integers(element: Element | None, big_endian: bool = False) -> list[int | None]:
    """The integers of an element of any numeric VR; `None` for a component that is empty or no integer.

    AT gives whole tags.
    """
    if element is None:
        return []
    vr, value = element
    if vr in ("DS", "IS"):
        return [_integer(part) for part in value.split(b"\\")] if value.strip(b" \0") else []
    numbers = array(element, big_endian)
    if vr == "AT":
        pairs = numbers[: numbers.size // 2 * 2].reshape(-1, 2).tolist()
        return [group << 16 | number for group, number in pairs]
    if numbers.dtype.kind == "f":
        return [int(number) if number.is_integer() else None for number in numbers.tolist()]
    return list(numbers.tolist())


def _float(part: bytes) -> float:
    """A decimal string; Python would also take underscores for digit grouping."""
    try:
        return math.nan if b"_" in part else float(part)
    except ValueError:
        pass
    try:
        return float(part.strip(b" \0\t\r\n").replace(b",", b"."))
    except ValueError:
        return math.nan


def _integer(part: bytes) -> int | None:
    try:
        return None if b"_" in part else int(part)
    except ValueError:
        number = _float(part)
        return int(number) if number.is_integer() else None
