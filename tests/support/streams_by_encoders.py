"""Frames that the tests encode themselves, one function per kind of stream, with what the header must say of them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt

from dicomtorch.model.image import ImagePixel
from dicomtorch.model.syntaxes import (
    DEFLATED_IMAGE_FRAME,
    ENCAPSULATED_UNCOMPRESSED,
    EXPLICIT_VR_LITTLE_ENDIAN,
    HTJ2K_LOSSLESS,
    JPEG_2000_LOSSLESS,
    JPEG_LOSSLESS_SV1,
    JPEG_LS_LOSSLESS,
    JPEG_XL_LOSSLESS,
    RLE_LOSSLESS,
)

Array = npt.NDArray[np.generic]


def pixel_of(
    array: Array, syntax: str, bits: int, *, signed: bool = False, **more: object
) -> ImagePixel:
    """The header of `array`, with `bits` stored."""
    samples = 1 if array.ndim == 2 else array.shape[2]
    values: dict[str, object] = {
        "samples_per_pixel": samples,
        "photometric_interpretation": "MONOCHROME2" if samples == 1 else "RGB",
        "bits_allocated": 8 * array.dtype.itemsize,
        "bits_stored": bits,
        "high_bit": bits - 1,
        "pixel_representation": int(signed),
        "pixel_data_vr": "OB" if syntax != EXPLICIT_VR_LITTLE_ENDIAN else "OW",
        **more,
    }
    return ImagePixel(syntax, array.shape[0], array.shape[1], **values)  # type: ignore[arg-type]


def unsigned(array: Array, bits: int) -> Array:
    """The two's complement of `bits` bits in an unsigned word: what an encoder without a sign is given."""
    word = np.dtype(f"u{array.dtype.itemsize}")
    masked: Array = np.bitwise_and(array.view(word), word.type((1 << bits) - 1))
    return masked


def native(array: Array, bits: int) -> bytes:
    """Little endian words."""
    return array.astype(array.dtype.newbyteorder("<")).tobytes()


def rle(array: Array, bits: int) -> bytes:
    """RLE as in PS3.5 annex G."""
    planes = array.reshape(*array.shape[:2], -1)
    segments = []
    for sample in range(planes.shape[2]):
        words = np.ascontiguousarray(planes[..., sample]).astype(array.dtype.newbyteorder(">"))
        octets = words.view(np.uint8).reshape(*array.shape[:2], -1)
        for k in range(octets.shape[2]):
            segment = bytes(imagecodecs.packbits_encode(octets[..., k].tobytes()))
            segments.append(segment + b"\0" * (len(segment) % 2))
    offsets = 64 + np.cumsum([0, *map(len, segments)])[:-1]
    header = np.zeros(16, "<u4")
    header[0], header[1 : 1 + len(segments)] = len(segments), offsets
    return header.tobytes() + b"".join(segments)


def deflated(array: Array, bits: int) -> bytes:
    """Raw deflate."""
    engine = zlib.compressobj(wbits=-15)
    return engine.compress(native(array, bits)) + engine.flush()


def jpeg_lossless(array: Array, bits: int) -> bytes:
    """Process 14, selection value 1."""
    space: dict[str, Any] = {"colorspace": "RGB", "outcolorspace": "RGB"} if array.ndim == 3 else {}
    return bytes(imagecodecs.jpeg8_encode(array, lossless=True, bitspersample=bits, **space))


def jpeg_dct(array: Array, bits: int) -> bytes:
    """Baseline of 8 bits, extended of 12."""
    return bytes(imagecodecs.jpeg8_encode(array, level=98, bitspersample=12 if bits > 8 else 8))


def dct_stream(
    *, marker: str, ids: bytes = b"\1\2\3", subsampling: str = "444"
) -> tuple[bytes, Array]:
    """A JPEG whose three components are 145, 160, 100, with the marks asked for; and these samples."""
    samples = np.empty((16, 16, 3), np.uint8)
    samples[...] = (145, 160, 100)
    data = bytes(
        imagecodecs.jpeg8_encode(
            samples, level=100, colorspace="YCBCR", outcolorspace="YCBCR", subsampling=subsampling
        )
    )
    position, kept = 2, [data[:2]]
    while data[position + 1] != 0xDA:  # drops JFIF and Adobe, renames the components
        stop = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        segment = bytearray(data[position:stop])
        if segment[1] == 0xC0:
            for k in range(3):
                segment[10 + 3 * k] = ids[k]
        if segment[1] not in (0xE0, 0xEE):
            kept.append(bytes(segment))
        position = stop
    scan = bytearray(data[position:])
    for k in range(3):
        scan[5 + 2 * k] = ids[k]
    extra = {
        "": b"",
        "jfif": b"\xff\xe0\x00\x10JFIF\0\1\1\0\0\1\0\1\0\0",
        "adobe0": b"\xff\xee\x00\x0eAdobe\0\x64\0\0\0\0\0",
        "adobe1": b"\xff\xee\x00\x0eAdobe\0\x64\0\0\0\0\1",
    }[marker]
    return kept[0] + extra + b"".join(kept[1:]) + bytes(scan), samples


def jpeg_ls(array: Array, bits: int) -> bytes:
    """Lossless."""
    return bytes(imagecodecs.jpegls_encode(array))


def jpeg_ls_planes(array: Array, bits: int) -> bytes:
    """Lossless colour in interleave mode none: a frame header of all components, and a scan of each."""
    scans = []
    for k in range(array.shape[2]):
        plane = jpeg_ls(np.ascontiguousarray(array[..., k]), bits)
        start = plane.index(b"\xff\xda")
        scan = bytearray(plane[start:-2])  # without EOI
        scan[5] = k + 1
        scans.append(bytes(scan))
        head = plane[: plane.index(b"\xff\xf7")]
    rows, columns, count = array.shape
    precision = 8 if array.dtype.itemsize == 1 else 16
    components = b"".join(bytes((k + 1, 0x11, 0)) for k in range(count))
    frame = struct.pack(">HHBHHB", 0xFFF7, 8 + 3 * count, precision, rows, columns, count)
    return head + frame + components + b"".join(scans) + b"\xff\xd9"


def jpeg_2000(array: Array, bits: int) -> bytes:
    """Reversible code stream without boxes."""
    return bytes(
        imagecodecs.jpeg2k_encode(
            array, level=0, codecformat="j2k", bitspersample=bits, reversible=True
        )
    )


def htj2k(array: Array, bits: int) -> bytes:
    """Reversible."""
    return bytes(imagecodecs.htj2k_encode(array, reversible=True))


def jpeg_xl(array: Array, bits: int) -> bytes:
    """Lossless."""
    return bytes(imagecodecs.jpegxl_encode(array, lossless=True, bitspersample=bits))


LOSSLESS: dict[str, Callable[[Array, int], bytes]] = {
    EXPLICIT_VR_LITTLE_ENDIAN: native,
    ENCAPSULATED_UNCOMPRESSED: native,
    DEFLATED_IMAGE_FRAME: deflated,
    RLE_LOSSLESS: rle,
    JPEG_LOSSLESS_SV1: jpeg_lossless,
    JPEG_LS_LOSSLESS: jpeg_ls,
    JPEG_2000_LOSSLESS: jpeg_2000,
    HTJ2K_LOSSLESS: htj2k,
    JPEG_XL_LOSSLESS: jpeg_xl,
}
SIGNED_STREAMS = frozenset({JPEG_2000_LOSSLESS, HTJ2K_LOSSLESS})


def encode(
    array: Array, syntax: str, bits: int, *, signed: bool = False
) -> tuple[bytes, ImagePixel]:
    """A lossless frame of `array` and its header."""
    source = array
    if syntax not in SIGNED_STREAMS and syntax != EXPLICIT_VR_LITTLE_ENDIAN:
        source = unsigned(array, bits)
    return LOSSLESS[syntax](source, bits), pixel_of(array, syntax, bits, signed=signed)


def picture(
    shape: tuple[int, ...], bits: int, *, signed: bool = False, seed: int = 0
) -> npt.NDArray[np.generic]:
    """A slope with noise over the whole range of `bits`, its extremes included."""
    generator = np.random.default_rng(seed)
    low = -(1 << bits - 1) if signed else 0
    top = (1 << bits) - 1
    slope = np.add.outer(np.arange(shape[0]), np.arange(shape[1])) * (top / (shape[0] + shape[1]))
    values = slope.reshape(*shape[:2], *(1,) * (len(shape) - 2)) + generator.normal(
        0, top / 50, shape
    )
    clipped = np.clip(np.rint(values), 0, top).astype(np.int64)
    clipped.reshape(-1)[:2] = (0, top)[: clipped.size]
    return (clipped + low).astype(f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}")
