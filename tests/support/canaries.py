"""Markers in place of what headers hold, files that are full of them, and a search that finds them in any disguise."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from pydicom.datadict import dictionary_VR, tag_for_keyword

from dicomtorch.dicom.tags import KEYWORDS
from tests.support.phantoms import ct, ct_pixels, encapsulated, write

SHOWN_UIDS = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
"""What every sample has and may show."""

_PERSONAL = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "PatientAge", "PatientAddress"),
    *("OtherPatientIDs", "AccessionNumber", "ReferringPhysicianName", "InstitutionName"),
    *("StationName", "StudyDescription", "SeriesDescription", "StudyDate", "StudyTime", "StudyID"),
    *("SeriesDate", "ProtocolName", "BodyPartExamined", "PatientComments", "ImageComments"),
    *("DeviceSerialNumber", "OperatorsName", "RequestedProcedureDescription", "DeviceUID"),
)
_NO_TEXT = ("SQ", "OB", "OW", "OV", "OF", "OD", "UV", "AT")
_BYTES = {"US": 2, "SS": 2, "UL": 4, "SL": 4, "FL": 4, "FD": 8}


def marker(keyword: str) -> str:
    """Twelve characters that occur nowhere else, digits where only these pass for a UID."""
    digest = hashlib.sha256(keyword.encode()).digest()
    if keyword.endswith("UID"):
        return f"97{int.from_bytes(digest[:4], 'big'):010d}"
    return f"QJ{base64.b32encode(digest).decode()[:10]}"


def keywords() -> list[str]:
    """Every attribute that the package reads and that can hold text, in the right VR or in a wrong one."""
    known = [name for name, (_, vr) in KEYWORDS.items() if vr not in _NO_TEXT]
    return [*known, *(name for name in _PERSONAL if name not in known)]


def with_markers(data: bytes, keywords: Iterable[str]) -> bytes:
    """A file of `phantoms.ct` with markers in place of what some attributes hold, or beside what it has."""
    elements = dict(_elements(data))
    for keyword in keywords:
        tag = tag_for_keyword(keyword)
        assert tag is not None
        vr = KEYWORDS[keyword][1] if keyword in KEYWORDS else dictionary_VR(tag)
        value = marker(keyword).encode()
        value += b" " * (-len(value) % _BYTES.get(vr, 2))
        long = vr in ("UC", "UR", "UT", "UN")
        length = b"\0\0" + struct.pack("<I", len(value)) if long else struct.pack("<H", len(value))
        head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr.encode() + length
        elements[tag] = head + value
    return data[:132] + b"".join(elements[tag] for tag in sorted(elements))


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The elements of a file in Explicit VR Little Endian without sequences, with their tags."""
    at = 132
    while at < len(data):
        group, element = struct.unpack_from("<HH", data, at)
        if group == 0x7FE0:  # whatever it is, it comes last
            yield group << 16 | element, data[at:]
            return
        if data[at + 4 : at + 6] in (b"OB", b"OW", b"UT", b"UC", b"UR", b"UN"):
            end = at + 12 + struct.unpack_from("<I", data, at + 8)[0]
        else:
            end = at + 8 + struct.unpack_from("<H", data, at + 6)[0]
        yield group << 16 | element, data[at:end]
        at = end


_VITAL = (
    *("TransferSyntaxUID", "SpecificCharacterSet", "Rows", "Columns", "SamplesPerPixel"),
    *("PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("PlanarConfiguration", "NumberOfFrames", "RescaleSlope", "RescaleIntercept"),
    *("DoseGridScaling", "VOILUTFunction"),
)
"""Attributes without which there is no image, or no display value: these are marked in a file of their own only."""


def write_marked(folder: Path) -> None:
    """Files that are sound but for markers: `whole.dcm` with all at once, and one for each attribute."""
    whole = write(ct(ct_pixels()), folder / "whole.dcm")
    whole.write_bytes(
        with_markers(whole.read_bytes(), [name for name in keywords() if name not in _VITAL])
    )
    marked = whole.read_bytes()
    for part in range(1, 6):  # cut off, mostly inside the header
        (folder / f"cut{part}.dcm").write_bytes(marked[: len(marked) * part // 6])
    broken = write(encapsulated(ct(ct_pixels()), [b"\0" * 64]), folder / "broken.dcm")
    broken.write_bytes(with_markers(broken.read_bytes(), ["Modality", "StudyDescription"]))
    for k, keyword in enumerate(keywords()):
        path = write(ct(ct_pixels(k), k), folder / f"{k:03d}.dcm")
        path.write_bytes(with_markers(path.read_bytes(), [keyword]))


def disguises(text: str) -> Iterator[bytes]:
    """A text as it could stand somewhere: encoded, as digits, backwards, hashed; letters of either case."""
    for one in (text, text[::-1]):
        yield one.encode()
        yield one.lower().encode()
        yield one.encode("utf-16-le")[:-1]  # big endian is the same, one byte later
        yield one.encode().hex().encode()
        yield one.encode().hex(" ").encode()
        yield one.encode().hex().upper().encode()
        for shift in range(3):  # where it lies among the bytes that are encoded
            encoded = base64.b64encode(b"\0" * shift + one.encode())
            yield encoded[(0, 2, 3)[shift] : (shift + len(one)) * 8 // 6]
    for name in (
        "sha256",
        "sha1",
        "md5",
    ):  # whoever has a list of names finds the one that has the hash
        digest = hashlib.new(name, text.encode())
        yield digest.digest()[:12]
        yield digest.hexdigest()[:24].encode()


def hidden_in_png(data: bytes) -> bytes:
    """What the chunks of a PNG file hold beside its pixels, inflated where they are compressed."""
    found, at = b"", 8
    while at + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        content = data[at + 8 : at + 8 + length]
        if kind != b"IDAT":
            found += kind + content
        for start in range(1, len(content)) if kind in (b"zTXt", b"iTXt", b"iCCP") else ():
            with contextlib.suppress(zlib.error):
                found += zlib.decompress(content[start:])
        at += 12 + length
    return found


def leaks(output: str | bytes, wanted: Mapping[str, str] | None = None) -> list[str]:
    """The keywords of the markers that an output holds.

    Args:
        output: Anything that was printed, written or raised.
        wanted: Keyword -> text to look for; `None`: every marker but those of `SHOWN_UIDS`.
    """
    data = output.encode("utf-8", "surrogateescape") if isinstance(output, str) else output
    if data.startswith(b"\x89PNG"):
        data += hidden_in_png(data)
    if wanted is None:
        wanted = {name: marker(name) for name in keywords() if name not in SHOWN_UIDS}
    return [name for name, text in wanted.items() if any(one in data for one in disguises(text))]
