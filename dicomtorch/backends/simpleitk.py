"""Decoding with SimpleITK, that is GDCM, from a file of one frame in memory.

SimpleITK reads files and decodes all frames of one. So each frame is wrapped as a DICOM file of its own, which says
what the code stream is and nothing else, least of all a rescale, and is read from memory. GDCM may abort the process on
damaged streams that the guard cannot tell from whole ones, and never gives back the bytes of a JPEG-LS frame that it
refuses: therefore it decodes code streams in processes of its own (`isolated`). It cuts samples to the bits of the
stream, so that it cannot be told whether a damaged one had more. Its JPEG codecs try 8, 12 and 16 bits in turn and say
on the standard error stream which did not fit.
"""

from __future__ import annotations

import importlib.util
import os
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from dicomtorch.backends import color, guard, stored
from dicomtorch.backends.base import Array, Buffer
from dicomtorch.backends.jpeg import JPEGStream
from dicomtorch.backends.jpeg2000 import J2KStream
from dicomtorch.errors import DecodeError, import_optional
from dicomtorch.model.image import ImagePixel
from dicomtorch.model.syntaxes import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    JPEG_2000_FAMILY,
    JPEG_BASELINE,
    JPEG_EXTENDED,
    JPEG_LOSSLESS_FAMILY,
    JPEG_LS_FAMILY,
    NATIVE,
    RLE_LOSSLESS,
)

_ENCAPSULATED = (
    {RLE_LOSSLESS, JPEG_BASELINE, JPEG_EXTENDED}
    | JPEG_LOSSLESS_FAMILY
    | JPEG_LS_FAMILY
    | JPEG_2000_FAMILY
)
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_UID = "2.25.1"


@cache
def _installed() -> bool:
    return importlib.util.find_spec("SimpleITK") is not None


@cache
def _library() -> Any:
    return import_optional("SimpleITK", "all")


def _knows(pixel: ImagePixel) -> bool:
    """What GDCM was seen to decode to the right values."""
    syntax, samples = pixel.transfer_syntax_uid, pixel.samples_per_pixel
    if stored.unsupported_reason(pixel) or pixel.is_float:
        return False
    if pixel.bits_allocated not in (8, 16) or samples not in (1, 3):
        return False
    if syntax in NATIVE:
        # It takes subsampled chroma for whole.
        return pixel.photometric_interpretation not in ("YBR_FULL_422", "YBR_PARTIAL_422")
    if syntax == RLE_LOSSLESS:
        # It puts the bytes of 16-bit colour samples into the wrong order, and refuses frames of fewer than 67 pixels.
        small = pixel.rows * pixel.columns < 128
        return (pixel.bits_allocated == 8 or samples == 1) and not small
    if syntax in JPEG_LS_FAMILY:
        return pixel.bits_stored >= 8  # it refuses fewer
    return syntax in _ENCAPSULATED


class SimpleITKBackend:
    """Decodes with SimpleITK. Has no state: safe in threads and in pickles."""

    name = "simpleitk"
    can_abort = True

    def prepare(self) -> None:
        """Imports SimpleITK."""
        _library()

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def supports(self, pixel: ImagePixel) -> bool:
        """Whether frames described so can be decoded here and now."""
        return _installed() and _knows(pixel)

    def missing(self, pixel: ImagePixel) -> str:
        """What to install so that frames described so can be decoded; "" if nothing is missing or would help."""
        return "pip install SimpleITK" if _knows(pixel) and not _installed() else ""

    def decode(self, data: Buffer, pixel: ImagePixel, out: Array | None = None) -> Array:
        """Decodes one frame.

        Raises:
            DecodeError: The stream is damaged, disagrees with `pixel`, or GDCM cannot read it.
        """
        stream = guard.check(data, pixel)
        if stream is not None:
            pixel = guard.as_streamed(pixel, stream, self)
        if isinstance(stream, JPEGStream):
            return _decode_jpeg(memoryview(data)[stream.start :], pixel, stream, out)
        if isinstance(stream, J2KStream):
            return _decode_j2k(data, pixel, stream, out)
        if pixel.transfer_syntax_uid == RLE_LOSSLESS:
            # It leaves what was in memory where bytes are missing, and says nothing.
            guard.check_rle(data, pixel)
            words = _read(_items(data), pixel, RLE_LOSSLESS, bits=pixel.bits_allocated)
        else:
            words = _decode_native(data, pixel)
        return stored.finish_flat(words, pixel, out)


BACKEND = SimpleITKBackend()


def _decode_native(data: Buffer, pixel: ImagePixel) -> Array:
    little = memoryview(stored.little_endian_words(data, pixel))[: (pixel.native_bits + 7) // 8]
    value = bytes(little) + b"\0" * (len(little) % 2)
    return _read(
        value,
        pixel,
        EXPLICIT_VR_LITTLE_ENDIAN,
        bits=pixel.bits_allocated,
        planar=pixel.planar_configuration,
    )


def _decode_jpeg(data: Buffer, pixel: ImagePixel, stream: JPEGStream, out: Array | None) -> Array:
    dct = not stream.lossless and stream.process != 0xF7
    ybr = dct and pixel.samples_per_pixel == 3 and color.dct_is_ybr(stream, pixel)
    result = _read(
        _items(data),
        pixel,
        pixel.transfer_syntax_uid,
        bits=stream.precision,
        photometric="YBR_FULL" if ybr else "RGB",
    )
    if not dct and pixel.samples_per_pixel == 3:
        result = color.lossless_to_rgb(result, stream, pixel)
    return stored.finish(
        result, pixel, precision=stream.precision, signed=False, lossless=stream.lossless, out=out
    )


def _decode_j2k(data: Buffer, pixel: ImagePixel, stream: J2KStream, out: Array | None) -> Array:
    result = _read(
        _items(memoryview(data)[stream.start : stream.stop]),
        pixel,
        pixel.transfer_syntax_uid,
        bits=stream.precision,
        signed=stream.signed,
    )
    return stored.finish(
        color.j2k_to_rgb(result, stream, pixel),
        pixel,
        precision=stream.precision,
        signed=stream.signed,
        lossless=stream.reversible,
        out=out,
    )


def _read(
    value: bytes,
    pixel: ImagePixel,
    syntax: str,
    *,
    bits: int,
    signed: bool = False,
    photometric: str = "RGB",
    planar: int = 0,
) -> Array:
    """The samples of a one-frame file with `value` as its Pixel Data, in (rows, columns[, samples])."""
    sitk = _library()
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetNumberOfThreads(1)
    if pixel.samples_per_pixel == 1:
        photometric = "MONOCHROME2"
    with _file_of(_one_frame_file(value, pixel, syntax, bits, signed, photometric, planar)) as path:
        reader.SetFileName(path)
        try:
            image = reader.Execute()
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1].replace(path, "the frame")
            raise DecodeError(f"the code stream is damaged: SimpleITK: {reason}") from error
    array: Array = sitk.GetArrayFromImage(image)
    if array.size != np.prod(pixel.shape) or array.dtype.kind not in "iu":
        raise DecodeError(
            f"SimpleITK gave {array.shape} of {array.dtype} for a frame of {pixel.shape}; the stream is damaged"
        )
    return array.reshape(pixel.shape)


@contextmanager
def _file_of(content: bytes) -> Iterator[str]:
    """A path that `content` can be read from: in memory where the system has such files."""
    if hasattr(os, "memfd_create") and Path("/proc/self/fd").is_dir():
        descriptor = os.memfd_create("dicomtorch-frame", os.MFD_CLOEXEC)
        try:
            with os.fdopen(os.dup(descriptor), "wb") as stream:
                stream.write(content)
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "frame.dcm"
            path.write_bytes(content)
            yield str(path)


def _element(tag: int, vr: str, value: bytes | str | int) -> bytes:
    """An element in Explicit VR Little Endian (PS3.5 7.1.2)."""
    if isinstance(value, int):
        value = struct.pack("<H", value)
    elif isinstance(value, str):
        value = value.encode("ascii")
        if len(value) % 2:
            value += b"\0" if vr == "UI" else b" "
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr.encode("ascii"))
    if vr in ("OB", "OW"):
        return head + struct.pack("<2xI", len(value)) + value
    return head + struct.pack("<H", len(value)) + value


def _items(data: Buffer) -> bytes:
    """An empty Basic Offset Table, the frame as one item, and the end (PS3.5 A.4)."""
    padding = b"\0" * (len(data) % 2)
    return b"".join(
        (
            struct.pack("<HHIHHI", 0xFFFE, 0xE000, 0, 0xFFFE, 0xE000, len(data) + len(padding)),
            data,
            padding,
            struct.pack("<HHI", 0xFFFE, 0xE0DD, 0),
        )
    )


def _one_frame_file(
    value: bytes,
    pixel: ImagePixel,
    syntax: str,
    bits: int,
    signed: bool,
    photometric: str,
    planar: int,
) -> bytes:
    """A Part 10 file (PS3.10 7.1) that has what GDCM needs to decode one frame."""
    meta = b"".join(
        (
            _element(0x00020001, "OB", b"\0\1"),
            _element(0x00020002, "UI", _SECONDARY_CAPTURE),
            _element(0x00020003, "UI", _UID),
            _element(0x00020010, "UI", syntax),
            _element(0x00020012, "UI", _UID),
        )
    )
    encapsulated = syntax != EXPLICIT_VR_LITTLE_ENDIAN
    pixels = struct.pack(
        "<HH2s2xI",
        0x7FE0,
        0x0010,
        b"OB" if encapsulated else b"OW",
        0xFFFFFFFF if encapsulated else len(value),
    )
    return b"".join(
        (
            b"\0" * 128 + b"DICM",
            struct.pack("<HH2sHI", 0x0002, 0x0000, b"UL", 4, len(meta)),
            meta,
            _element(0x00080016, "UI", _SECONDARY_CAPTURE),
            _element(0x00080018, "UI", _UID),
            _element(0x00280002, "US", pixel.samples_per_pixel),
            _element(0x00280004, "CS", photometric),
            _element(0x00280006, "US", planar) if pixel.samples_per_pixel > 1 else b"",
            _element(0x00280010, "US", pixel.rows),
            _element(0x00280011, "US", pixel.columns),
            _element(0x00280100, "US", 8 if bits <= 8 else 16),
            _element(0x00280101, "US", bits),
            _element(0x00280102, "US", bits - 1),
            _element(0x00280103, "US", int(signed)),
            pixels,
            value,
        )
    )
