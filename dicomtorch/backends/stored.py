"""From decoded or native bytes to stored values: bits, sign, byte order, sample order. All that backends share.

PS3.5 section 8 and annex D, PS3.3 C.7.6.3.
"""

from __future__ import annotations

import sys
import zlib
from dataclasses import replace
from functools import lru_cache
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from dicomtorch.backends import color
from dicomtorch.backends.base import Array, Buffer
from dicomtorch.errors import DecodeError
from dicomtorch.model.image import ImagePixel
from dicomtorch.model.limits import LIMITS
from dicomtorch.model.syntaxes import (
    DEFLATED_IMAGE_FRAME,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    LOSSY,
)


def unsupported_reason(pixel: ImagePixel) -> str:
    """Why the values of `pixel` have no meaning in any backend; "" if they have.

    The attributes must agree with each other as PS3.3 C.7.6.3.1.1 and PS3.5 8.1.1 demand.
    """
    if pixel.is_float:
        bits = 32 if pixel.pixel_data_vr == "OF" else 64
        if pixel.bits_allocated != bits or pixel.samples_per_pixel != 1 or pixel.is_encapsulated:
            return f"float pixel data need {bits} bits, one sample and a native transfer syntax"
        return ""
    if pixel.bits_allocated not in (1, 8, 12, 16, 32, 64):
        return f"(0028,0100) BitsAllocated {pixel.bits_allocated} is none of 1, 8, 12, 16, 32, 64"
    if not 0 < pixel.bits_stored <= pixel.bits_allocated:
        return f"(0028,0101) BitsStored {pixel.bits_stored} is not in 1 to BitsAllocated {pixel.bits_allocated}"
    if not pixel.bits_stored - 1 <= pixel.high_bit < pixel.bits_allocated:
        return (
            f"(0028,0102) HighBit {pixel.high_bit} is not in BitsStored - 1 = {pixel.bits_stored - 1} to "
            f"BitsAllocated - 1 = {pixel.bits_allocated - 1}"
        )
    if pixel.samples_per_pixel not in (1, 3, 4):
        return f"(0028,0002) SamplesPerPixel {pixel.samples_per_pixel} is none of 1, 3, 4"
    if pixel.samples_per_pixel > 1 and pixel.bits_allocated not in (8, 16, 32):
        return f"(0028,0100) BitsAllocated {pixel.bits_allocated} is not used for colour"
    return ""


@lru_cache(maxsize=1024)
def _plain_dtype(pixel: ImagePixel) -> np.dtype[Any] | None:
    little = (IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN)
    if (
        pixel.transfer_syntax_uid not in little
        or sys.byteorder != "little"
        or pixel.samples_per_pixel != 1
        or not 0 < pixel.rows * pixel.columns <= LIMITS.pixels_per_frame
        or unsupported_reason(pixel)
    ):
        return None
    same = pixel.is_float or pixel.bits_stored == pixel.bits_allocated in (8, 16, 32, 64)
    return pixel.stored_dtype if same else None


def plain(data: Buffer, pixel: ImagePixel) -> Array | None:
    """The bytes of a native frame seen as its stored values, `None` if more has to be done or said about them."""
    dtype = _plain_dtype(pixel)
    if dtype is None or len(data) < pixel.rows * pixel.columns * dtype.itemsize:
        return None
    samples: Array = np.ndarray(pixel.shape, dtype, data)
    return samples if samples.flags.aligned else None


def inflate(data: Buffer, pixel: ImagePixel) -> bytes:
    """Inflates a frame of Deflated Image Frame Compression (PS3.5 A.4.13): raw deflate, no more than the frame's size.

    Raises:
        DecodeError: The stream is damaged or gives too few bytes.
    """
    expected = (pixel.native_bits + 7) // 8
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = engine.decompress(data, expected)
    except zlib.error as error:
        raise DecodeError(f"the deflated frame is damaged: {error}") from error
    if len(inflated) < expected:
        raise DecodeError(f"the deflated frame gives {len(inflated)} bytes, expected {expected}")
    return inflated


def decode_flat(data: Buffer, pixel: ImagePixel, out: Array | None = None) -> Array:
    """Stored values of a frame whose samples stand one after the other, inflated first where its syntax says so.

    Where every bit counts the result is a view of `data`, read-only if `data` is; else it is `out` or a new array.

    Args:
        data: The bytes, at least as many as `pixel.native_bits` needs; what is beyond is padding.
        pixel: How to read them.
        out: Written to if it fits and a copy has to be made.

    Raises:
        DecodeError: There are too few bytes.
    """
    if pixel.transfer_syntax_uid == DEFLATED_IMAGE_FRAME:
        data = inflate(data, pixel)
    samples = align(_words(data, pixel), pixel, out)
    photometric = pixel.photometric_interpretation
    if pixel.samples_per_pixel == 3 and photometric in ("YBR_FULL_422", "YBR_PARTIAL_422"):
        samples = color.upsample_422(samples, pixel)
    elif pixel.samples_per_pixel > 1 and pixel.planar_configuration == 1:
        samples = np.moveaxis(samples.reshape(-1, pixel.rows, pixel.columns), 0, -1)
    return _finish_color(samples.reshape(pixel.shape), pixel, out)


def finish_flat(words: Array, pixel: ImagePixel, out: Array | None = None) -> Array:
    """Stored values of samples that were neither compressed nor aligned: words of BitsAllocated bits, interleaved.

    Args:
        words: Of shape `pixel.shape`, unsigned or floating point.
        pixel: What they mean.
        out: Written to if it fits and a copy has to be made.
    """
    samples = align(words.reshape(-1), pixel, out)
    return _finish_color(samples.reshape(pixel.shape), pixel, out)


def _finish_color(samples: Array, pixel: ImagePixel, out: Array | None) -> Array:
    if pixel.samples_per_pixel == 3:
        samples = color.tag_to_rgb(samples, pixel)
    return deliver(samples, out)


def as_little_endian(pixel: ImagePixel) -> ImagePixel:
    """The same image in Explicit VR Little Endian."""
    return replace(pixel, transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN)


def deliver(samples: Array, out: Array | None) -> Array:
    """`samples` as a C contiguous array, in `out` if it is of their type and shape."""
    if samples.flags.c_contiguous:
        return samples
    if (
        out is not None
        and out.shape == samples.shape
        and out.dtype == samples.dtype
        and out.flags.c_contiguous
    ):
        np.copyto(out, samples)
        return out
    return np.ascontiguousarray(samples)


def _words(data: Buffer, pixel: ImagePixel) -> Array:
    """The words of BitsAllocated bits, flat, in native byte order, as unsigned or floating point numbers."""
    bits, big = pixel.bits_allocated, pixel.transfer_syntax_uid == EXPLICIT_VR_BIG_ENDIAN
    count = pixel.native_bits // bits
    needed = (pixel.native_bits + 7) // 8
    if pixel.is_float:
        return _number_view(data, f"{'>' if big else '<'}f{bits // 8}", count)
    data = little_endian_words(data, pixel)
    if bits == 1:
        return np.unpackbits(np.frombuffer(data, np.uint8, needed), count=count, bitorder="little")
    if bits == 12:
        return _unpack_12(np.frombuffer(data, np.uint8, needed), count)
    return _number_view(data, f"<u{bits // 8}", count)


def little_endian_words(data: Buffer, pixel: ImagePixel) -> Buffer:
    """The bytes of a native frame as they would be in Explicit VR Little Endian.

    OW is a string of 16-bit words, each big endian in Explicit VR Big Endian; what is packed into them is not
    (PS3.5 6.2, 8.1.1). OB is a string of bytes.
    """
    if pixel.transfer_syntax_uid != EXPLICIT_VR_BIG_ENDIAN:
        return data
    if pixel.bits_allocated <= 8 and pixel.pixel_data_vr == "OB":
        return data
    needed = (pixel.native_bits + 15) // 16
    if len(data) < 2 * needed:
        raise DecodeError(
            f"(7FE0,0010) PixelData OW in Explicit VR Big Endian: the frame has {len(data)} bytes, "
            f"expected {2 * needed}, whole 16-bit words"
        )
    return cast(Buffer, np.frombuffer(data, ">u2", needed).astype("<u2").view(np.uint8).data)


def _number_view(data: Buffer, dtype: str, count: int) -> Array:
    view: Array = np.frombuffer(data, dtype, count)
    native = view.dtype.newbyteorder("=")
    if view.dtype != native or not view.flags.aligned:
        return view.astype(native)
    return view


def _unpack_12(packed: npt.NDArray[np.uint8], count: int) -> npt.NDArray[np.uint16]:
    """Two 12-bit values in three bytes, the first in the low bits (PS3.5 8.1.1, D.1)."""
    padded = np.zeros(-(-count // 2) * 3, np.uint16)
    padded[: packed.size] = packed
    first, middle, last = padded.reshape(-1, 3).T
    samples = np.empty((first.size, 2), np.uint16)
    samples[:, 0] = first | (middle & 0x0F) << 8
    samples[:, 1] = middle >> 4 | last << 4
    return samples.reshape(-1)[:count]


def align(words: Array, pixel: ImagePixel, out: Array | None) -> Array:
    """Shifts by HighBit + 1 - BitsStored, drops the other bits, extends the sign."""
    if pixel.is_float:
        return words
    width, stored = words.dtype.itemsize * 8, pixel.bits_stored
    signed = pixel.pixel_representation == 1
    target = pixel.stored_dtype
    if stored == width or (pixel.bits_allocated == 1 and not signed):
        return words.view(target)
    low = pixel.high_bit + 1 - stored
    flat = None
    if (
        out is not None
        and out.dtype == target
        and out.size == words.size
        and out.flags.c_contiguous
    ):
        flat = out.reshape(-1)
    if signed:
        # The field goes to the top of the word and comes back with its sign.
        result = np.left_shift(words, width - stored - low, dtype=words.dtype).view(
            f"i{width // 8}"
        )
        return _narrow(np.right_shift(result, width - stored, out=result), target, flat)
    mask = words.dtype.type((1 << stored) - 1)
    if low:
        shifted = np.right_shift(words, words.dtype.type(low))
        return _narrow(np.bitwise_and(shifted, mask, out=shifted), target, flat)
    if target == words.dtype:
        masked: Array = np.bitwise_and(words, mask, out=flat)
        return masked
    return _narrow(np.bitwise_and(words, mask), target, flat)


def _narrow(samples: Array, target: np.dtype[Any], flat: Array | None) -> Array:
    if flat is None:
        return samples.astype(target, copy=False)
    np.copyto(flat, samples, casting="unsafe")
    return flat


def finish(
    decoded: Array,
    pixel: ImagePixel,
    *,
    precision: int,
    signed: bool,
    lossless: bool,
    out: Array | None = None,
) -> Array:
    """Stored values from what a codec gave: position of the bits, sign, unused bits, type.

    The stream decides its sign; the header says which bits of an unsigned one are a two's complement number, and where
    they lie if the stream has all bits up to High Bit (PS3.5 8.1.1). Bits beyond BitsStored are dropped in a lossless
    transfer syntax (they may hold an overlay). In a lossy one they are overshoot, whatever wavelet made it: clamped.

    Args:
        decoded: Of shape `pixel.shape`.
        pixel: What the header says, with the transfer syntax that the stream is in.
        precision: Bits of a sample in the stream.
        signed: Whether the stream's samples are signed.
        lossless: Whether it was coded so that it can be lossless; it is if its transfer syntax is, too.
        out: Written to if it has the shape and the type of the result; may share memory with `decoded`.
    """
    stored = pixel.bits_stored
    target = pixel.stored_dtype if not signed else np.dtype(f"i{pixel.stored_dtype.itemsize}")
    low = pixel.high_bit + 1 - stored
    if low and precision > pixel.high_bit:
        decoded = np.right_shift(decoded, decoded.dtype.type(low))
        precision -= low
    as_signed = signed or pixel.pixel_representation == 1
    if precision > stored:
        if not lossless or pixel.transfer_syntax_uid in LOSSY:
            decoded = _clamped(decoded, stored, precision, signed, as_signed)
        elif as_signed:
            decoded = _sign_extended(decoded, stored)
        else:
            decoded = np.bitwise_and(decoded, decoded.dtype.type((1 << stored) - 1))
    elif as_signed and not signed:
        decoded = _sign_extended(decoded, precision)
    if decoded is out and decoded.dtype == target and decoded.flags.c_contiguous:
        return decoded
    if (
        out is not None
        and out.dtype == target
        and out.shape == decoded.shape
        and out.flags.c_contiguous
    ):
        if not _same_memory(out, decoded):
            np.copyto(out, decoded, casting="unsafe")
        return out
    return np.ascontiguousarray(decoded.astype(target, copy=False))


def _sign_extended(decoded: Array, bits: int) -> Array:
    """The low `bits` bits as two's complement numbers."""
    width = decoded.dtype.itemsize * 8
    decoded = decoded.view(f"i{width // 8}")
    if bits >= width:
        return decoded
    shifted = np.left_shift(decoded, width - bits)
    return np.right_shift(shifted, width - bits, out=shifted)


def _clamped(decoded: Array, stored: int, precision: int, signed: bool, as_signed: bool) -> Array:
    """Samples of a lossy stream of more bits than are stored, brought into the range of those.

    A negative number in a stream without sign is a word of `stored` bits, or one whose sign goes on to the highest bit.
    """
    half = 1 << stored - 1
    if signed:
        return np.clip(decoded, -half, half - 1)
    if not as_signed:
        return np.clip(decoded, 0, 2 * half - 1)
    extended = _sign_extended(decoded, precision)
    negative = extended < 0
    words = _sign_extended(np.clip(decoded, 0, 2 * half - 1), stored)
    return np.where(negative, np.maximum(extended, -half), words)


def bounded(decoded: Array, precision: int, *, signed: bool, lossless: bool) -> Array:
    """Samples of a decoder that does not itself keep them to the bits of the stream.

    Args:
        decoded: Samples as the codec gave them.
        precision: Bits of a sample in the stream.
        signed: Whether the stream's samples are signed.
        lossless: Whether a sample beyond these bits is damage; else it is overshoot, and clamped.

    Raises:
        DecodeError: A sample of a lossless stream is beyond.
    """
    width = 8 * decoded.dtype.itemsize
    if precision >= width:
        return decoded
    half = 1 << precision - 1
    low, high = (-half, half - 1) if signed else (0, 2 * half - 1)
    # A negative number in an unsigned word is a large one, so one look at the largest will do there.
    largest, smallest = int(decoded.max()), int(decoded.min()) if signed else 0
    if largest <= high and smallest >= low:
        return decoded
    if lossless:
        sample = largest if largest > high else smallest
        raise DecodeError(
            f"the code stream is damaged: a decoded sample is {sample}, but the stream has {precision} bits, "
            f"{low} to {high}"
        )
    clamped: Array = np.clip(decoded.view(f"i{width // 8}"), low, high)
    return clamped.view(decoded.dtype)


def _same_memory(one: Array, other: Array) -> bool:
    if one.nbytes != other.nbytes or not np.may_share_memory(one, other):
        return False  # nearly always one or the other, and ten times as fast to see
    return bool(
        one.__array_interface__["data"][0] == other.__array_interface__["data"][0]
        and one.dtype == other.dtype
        and one.strides == other.strides
    )
