"""Codecs that can decode less than a whole frame: the low-pass bands of wavelets, and scaled DCT.

JPEG 2000 and HTJ2K: ISO/IEC 15444-1 annex F. What the samples of a low-pass band mean: the first lies on the first
pixel, not in the middle of a block; each level of the reversible 5/3 wavelet adds half a unit, from its two floors.
"""

from __future__ import annotations

import inspect
import threading
from functools import cache
from typing import Any

import numpy as np

from dicomtorch.backends import codecs, color
from dicomtorch.backends.base import Array, Buffer, say_once
from dicomtorch.backends.jpeg import JPEGStream
from dicomtorch.backends.jpeg2000 import J2KStream
from dicomtorch.backends.reduced import block_means, reduced_shape
from dicomtorch.errors import DecodeError, MissingDependencyError, import_optional
from dicomtorch.model.frame import Reduced
from dicomtorch.model.image import ImagePixel
from dicomtorch.model.syntaxes import HTJ2K_FAMILY, JPEG_2000_FAMILY, JPEG_BASELINE, JPEG_EXTENDED

SYNTAXES = HTJ2K_FAMILY | JPEG_2000_FAMILY | {JPEG_BASELINE, JPEG_EXTENDED}
"""Those of which some streams can be decoded at less than their resolution."""

_WIDE = 0x97  # Ssiz of signed samples of 24 bits


def decode_j2k(data: Buffer, pixel: ImagePixel, stream: J2KStream, levels: int) -> Reduced | None:
    """The low-pass band of a grayscale frame, `None` where stream or library cannot.

    Raises:
        DecodeError: The stream is damaged.
    """
    bits = stream.precision
    if (
        stream.components != 1
        or stream.levels < levels
        or not stream.at_origin
        # What would be masked, shifted or sign-extended are bits of pixels, not of means.
        or bits != pixel.bits_stored
        or bits > 16
        or pixel.high_bit != bits - 1
        or stream.signed != (pixel.pixel_representation == 1)
    ):
        return None
    codestream = memoryview(data)[stream.start : stream.stop]
    shape = reduced_shape(pixel, levels)
    if stream.high_throughput:
        if not (stream.reversible and stream.equal_blocks):
            return None
        samples = _htj2k(codestream, shape, stream, levels)
    elif skips_resolutions():
        word = f"{'i' if stream.signed else 'u'}{1 if bits <= 8 else 2}"
        target = np.empty(shape, word)
        samples = codecs.decode_jpeg2k(codestream, target, stream, skipres=levels)
    else:
        say_once(
            "decode='reduced': this imagecodecs decodes JPEG 2000 whole; 2026.10.10 and later, which need Python 3.12, "
            "decode a part of it"
        )
        return None
    half = 1 << bits - 1
    low, high = (-half, half - 1) if stream.signed else (0, 2 * half - 1)
    numbers = samples.astype(np.float32)
    if stream.reversible:
        numbers -= np.float32(0.5 * levels)
    np.clip(numbers, low, high, out=numbers)
    return Reduced(numbers, 1 << levels, 0.0)


def has_scaled_dct() -> bool:
    """Whether there is a library that scales 8-bit JPEG while it decodes."""
    return _simplejpeg() is not None


@cache
def skips_resolutions() -> bool:
    """Whether this imagecodecs decodes JPEG 2000 at less than its resolution, as from 2026.10.10 on."""
    return "skipres" in inspect.signature(codecs.library().jpeg2k_decode).parameters


class _Room(threading.local):
    """Memory of each thread for a copy of a code stream: fresh pages for every frame take longer than the copy."""

    def __init__(self) -> None:
        self._memory = bytearray()

    def copy(self, codestream: memoryview) -> memoryview:
        """The same bytes, which may be written to until the next copy."""
        if len(self._memory) < len(codestream):
            self._memory = bytearray(len(codestream))
        view = memoryview(self._memory)[: len(codestream)]
        view[:] = codestream
        return view


_room = _Room()


def _htj2k(codestream: memoryview, shape: tuple[int, ...], stream: J2KStream, levels: int) -> Array:
    """The band overshoots, and OpenJPH does not clamp it: it is decoded as if its samples had 24 bits and a sign."""
    wide = _room.copy(codestream)
    wide[42] = _WIDE
    samples = codecs.decode_htj2k(wide, np.empty(shape, np.int32), skipres=levels)
    if not stream.signed:
        samples += 1 << stream.precision - 1
    return samples


def decode_jpeg(data: Buffer, pixel: ImagePixel, stream: JPEGStream, levels: int) -> Reduced | None:
    """A frame of 8 bits through the scaled DCT of libjpeg-turbo, `None` where stream or library cannot.

    Raises:
        DecodeError: The stream is damaged.
    """
    if (
        stream.process not in (0xC0, 0xC1, 0xC2)
        or (stream.precision, pixel.bits_stored, pixel.high_bit) != (8, 8, 7)
        or pixel.pixel_representation
        or stream.components not in (1, 3)
        or (stream.components == 3 and not color.dct_is_ybr(stream, pixel))
    ):
        return None
    library = _simplejpeg()
    if library is None:
        return None
    # An eighth is biased on some pictures, because libjpeg rounds coefficients: means of a quarter are not.
    shape = reduced_shape(pixel, min(levels, 2))
    source = bytes(memoryview(data)[stream.start :])
    try:
        *_, chroma = library.decode_jpeg_header(source)
        # Of other samplings the chroma is scaled in another way than the luminance.
        if stream.components == 3 and chroma not in ("444", "420"):
            return None
        space = "GRAY" if stream.components == 1 else "RGB"
        result: Array = library.decode_jpeg(source, space, min_height=shape[0], min_width=shape[1])
    except ValueError as error:
        raise DecodeError(f"the code stream is damaged: simplejpeg: {error}") from error
    result = result.reshape(*result.shape[:2]) if stream.components == 1 else result
    if result.shape != shape:
        return None
    factor = 1 << levels
    samples = block_means(result, 1).samples if levels == 3 else result.astype(np.float32)
    return Reduced(samples, factor, (factor - 1) / 2)


@cache
def _simplejpeg() -> Any:
    try:
        return import_optional("simplejpeg", "reduced")
    except MissingDependencyError:
        return None
