"""Frames of a file by way of pydicom alone: an independent path to the bytes of a frame and its `ImagePixel`."""

from __future__ import annotations

from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames

from dicomtorch.model.image import ImagePixel, PixelDataVR
from dicomtorch.model.syntaxes import NATIVE

PIXEL_ELEMENTS: tuple[tuple[str, PixelDataVR | None], ...] = (
    ("PixelData", None),
    ("FloatPixelData", "OF"),
    ("DoubleFloatPixelData", "OD"),
)


def read(path: Path) -> Dataset:
    """The data set, also of a file without preamble."""
    return pydicom.dcmread(path, force=True)


def syntax_of(ds: Dataset) -> str:
    """The transfer syntax that the data set is in."""
    uid = getattr(ds.file_meta, "TransferSyntaxUID", None)
    if uid is not None:
        return str(uid)
    implicit, little = ds.original_encoding
    if implicit:
        return "1.2.840.10008.1.2"
    return "1.2.840.10008.1.2.1" if little else "1.2.840.10008.1.2.2"


def image_pixel(ds: Dataset) -> ImagePixel:
    """The Image Pixel Module of a data set."""
    keyword, vr = next((keyword, vr) for keyword, vr in PIXEL_ELEMENTS if keyword in ds)
    uid = syntax_of(ds)
    bits = int(ds.BitsAllocated)
    stored = int(ds.get("BitsStored") or bits)
    return ImagePixel(
        transfer_syntax_uid=uid,
        rows=int(ds.Rows),
        columns=int(ds.Columns),
        samples_per_pixel=int(ds.get("SamplesPerPixel") or 1),
        photometric_interpretation=str(
            ds.get("PhotometricInterpretation") or "MONOCHROME2"
        ).strip(),
        bits_allocated=bits,
        bits_stored=stored,
        high_bit=int(ds.get("HighBit", stored - 1)),
        pixel_representation=int(ds.get("PixelRepresentation") or 0),
        planar_configuration=int(ds.get("PlanarConfiguration") or 0),
        pixel_data_vr=vr or ("OB" if ds[keyword].VR == "OB" else "OW"),
    )


def number_of_frames(ds: Dataset) -> int:
    """NumberOfFrames, 1 if it is absent, empty or 0."""
    return int(ds.get("NumberOfFrames") or 1) or 1


def frames(ds: Dataset, wanted: set[int] | None = None) -> dict[int, bytes]:
    """The bytes of the frames: joined fragments, or a slice of native data shifted to its first bit."""
    keyword = next(keyword for keyword, _ in PIXEL_ELEMENTS if keyword in ds)
    value, number, pixel = ds[keyword].value, number_of_frames(ds), image_pixel(ds)
    if pixel.transfer_syntax_uid in NATIVE:
        return {k: _native(value, k, pixel) for k in range(number) if wanted is None or k in wanted}
    table = ds.get("ExtendedOffsetTable"), ds.get("ExtendedOffsetTableLengths")
    found = {}
    for k, frame in enumerate(
        generate_frames(
            value, number_of_frames=number, extended_offsets=table if all(table) else None
        )
    ):
        if wanted is None or k in wanted:
            found[k] = frame
        if wanted is not None and k >= max(wanted):
            break
    return found


def _native(value: bytes, frame: int, pixel: ImagePixel) -> bytes:
    first, last = frame * pixel.native_bits, (frame + 1) * pixel.native_bits
    raw = value[first // 8 : (last + 7) // 8]
    if first % 8:
        bits = int.from_bytes(raw, "little") >> first % 8
        raw = bits.to_bytes(len(raw), "little")[: (pixel.native_bits + 7) // 8]
    if len(raw) % 2 and pixel.transfer_syntax_uid.endswith(".2"):
        raw = value[first // 8 : (last + 7) // 8 + 1]  # whole 16-bit words of Explicit Big Endian
    return raw
