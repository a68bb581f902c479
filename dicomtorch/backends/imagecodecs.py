"""Decoding with imagecodecs: every still-image transfer syntax, straight into the caller's array, without the GIL.

Of its decoders `jpeg_decode`, `ljpeg_decode`, `jpegsof3_decode` and `dicomrle_decode` are never used: damaged streams
make them end the process.
"""

from __future__ import annotations

import importlib.util
from functools import cache

import numpy as np

from dicomtorch.backends import codecs, color, guard, low_pass, stored
from dicomtorch.backends.base import Array, Buffer
from dicomtorch.backends.jpeg import JPEGStream
from dicomtorch.backends.jpeg2000 import J2KStream
from dicomtorch.backends.jpegxl import JXLStream
from dicomtorch.backends.rle import rle_segments
from dicomtorch.errors import DecodeError
from dicomtorch.model.frame import Reduced
from dicomtorch.model.image import ImagePixel
from dicomtorch.model.samples import new_samples
from dicomtorch.model.syntaxes import (
    DEFLATED_IMAGE_FRAME,
    ENCAPSULATED_UNCOMPRESSED,
    HTJ2K_FAMILY,
    JPEG_2000_FAMILY,
    JPEG_DCT,
    JPEG_LOSSLESS_FAMILY,
    JPEG_LS_FAMILY,
    JPEG_XL_FAMILY,
    JPEG_XL_LOSSLESS,
    LOSSY,
    NATIVE,
    RLE_LOSSLESS,
)

_CODECS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(NATIVE | {ENCAPSULATED_UNCOMPRESSED, DEFLATED_IMAGE_FRAME}, ()),
    RLE_LOSSLESS: ("PACKBITS",),
    **dict.fromkeys(JPEG_DCT | JPEG_LOSSLESS_FAMILY, ("JPEG8",)),
    **dict.fromkeys(JPEG_LS_FAMILY, ("JPEGLS",)),
    **dict.fromkeys(JPEG_2000_FAMILY, ("JPEG2K",)),
    **dict.fromkeys(HTJ2K_FAMILY, ("HTJ2K", "JPEG2K")),
    **dict.fromkeys(JPEG_XL_FAMILY, ("JPEGXL",)),
}
_BITS: dict[str, tuple[int, ...]] = {
    # BitsAllocated that a syntax is used with (PS3.5 8.2.1 to 8.2.4); the rest takes all.
    **dict.fromkeys(JPEG_DCT | JPEG_LOSSLESS_FAMILY | JPEG_LS_FAMILY | JPEG_XL_FAMILY, (8, 16)),
    **dict.fromkeys(JPEG_2000_FAMILY | HTJ2K_FAMILY, (1, 8, 16, 32)),
    RLE_LOSSLESS: (1, 8, 16, 32, 64),
}
_RLE_SLACK = 256
"""Bytes by which a segment may give more than its plane: the last run of some encoders overshoots."""


@cache
def _installed() -> bool:
    return importlib.util.find_spec("imagecodecs") is not None


@cache
def _missing_codecs(syntax: str) -> tuple[str, ...]:
    return tuple(
        codec for codec in _CODECS[syntax] if not getattr(codecs.library(), codec).available
    )


def _knows(pixel: ImagePixel) -> bool:
    """Whether imagecodecs with all its codecs decodes frames described so."""
    syntax = pixel.transfer_syntax_uid
    if syntax not in _CODECS or stored.unsupported_reason(pixel):
        return False
    return pixel.bits_allocated in _BITS.get(syntax, (pixel.bits_allocated,))


class ImagecodecsBackend:
    """Decodes with imagecodecs. Has no state: safe in threads and in pickles."""

    name = "imagecodecs"

    def prepare(self) -> None:
        """Imports imagecodecs with the codecs that are used here."""
        for syntax in _CODECS:
            _missing_codecs(syntax)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def supports(self, pixel: ImagePixel) -> bool:
        """Whether frames described so can be decoded here and now."""
        return _knows(pixel) and _installed() and not _missing_codecs(pixel.transfer_syntax_uid)

    def missing(self, pixel: ImagePixel) -> str:
        """What to install so that frames described so can be decoded; "" if nothing is missing or would help."""
        if not _knows(pixel) or self.supports(pixel):
            return ""
        if not _installed():
            return "pip install imagecodecs"
        codecs = ", ".join(_missing_codecs(pixel.transfer_syntax_uid))
        return f"an imagecodecs that was built with {codecs}, as the one on PyPI is"

    def decode(self, data: Buffer, pixel: ImagePixel, out: Array | None = None) -> Array:
        """Decodes one frame.

        Of native data the result is a view of `data` where every bit counts: read-only if `data` is.

        Raises:
            DecodeError: The stream is damaged, or disagrees with `pixel`.
        """
        if not pixel.is_encapsulated:
            plain = stored.plain(data, pixel)
            if plain is not None:
                return plain
        stream = guard.check(data, pixel)
        if stream is None:
            if pixel.transfer_syntax_uid == RLE_LOSSLESS:
                return _decode_rle(data, pixel, out)
            return stored.decode_flat(data, pixel, out)
        pixel = guard.as_streamed(pixel, stream, self)
        if isinstance(stream, JPEGStream):
            decode = _decode_jpegls if stream.process == 0xF7 else _decode_jpeg
            return decode(memoryview(data)[stream.start :], pixel, stream, out)
        if isinstance(stream, J2KStream):
            return _decode_j2k(data, pixel, stream, out)
        return _decode_jxl(data, pixel, stream, out)

    def decode_reduced(self, data: Buffer, pixel: ImagePixel, levels: int) -> Reduced | None:
        """Decodes a frame at 1 / 2^levels of its resolution, `None` where stream or library cannot (see `low_pass`).

        Raises:
            DecodeError: The stream is damaged, or disagrees with `pixel`.
        """
        if pixel.transfer_syntax_uid not in low_pass.SYNTAXES:
            return None
        stream = guard.check(data, pixel)
        if stream is None:
            return None
        pixel = guard.as_streamed(pixel, stream, self)
        if isinstance(stream, J2KStream):
            return low_pass.decode_j2k(data, pixel, stream, levels)
        if isinstance(stream, JPEGStream):
            return low_pass.decode_jpeg(data, pixel, stream, levels)
        return None


BACKEND = ImagecodecsBackend()


def _target(pixel: ImagePixel, dtype: str, out: Array | None) -> Array:
    """`out` seen as `dtype` if the codec can write there, else a new array."""
    wanted = np.dtype(dtype)
    if (
        out is not None
        and out.shape == pixel.shape
        and out.dtype.kind in "iu"
        and out.dtype.itemsize == wanted.itemsize
        and out.flags.c_contiguous
    ):
        return out if out.dtype == wanted else out.view(wanted)
    return new_samples(pixel.shape, wanted)


def _decode_jpeg(data: Buffer, pixel: ImagePixel, stream: JPEGStream, out: Array | None) -> Array:
    target = _target(pixel, "u1" if stream.precision <= 8 else "u2", out)
    source = None
    if pixel.samples_per_pixel == 3:
        ybr = not stream.lossless and color.dct_is_ybr(stream, pixel)
        source = "YCBCR" if ybr else "RGB"
    elif pixel.samples_per_pixel == 4:
        source = "CMYK"
    result = codecs.call(
        "jpeg8_decode",
        data,
        colorspace=source,
        outcolorspace="RGB" if source == "YCBCR" else source,
        out=target,
    )
    if stream.lossless:
        stored.bounded(result, stream.precision, signed=False, lossless=True)
        if pixel.samples_per_pixel == 3:
            result = color.lossless_to_rgb(result, stream, pixel)
    return stored.finish(
        result, pixel, precision=stream.precision, signed=False, lossless=stream.lossless, out=out
    )


def _decode_jpegls(data: Buffer, pixel: ImagePixel, stream: JPEGStream, out: Array | None) -> Array:
    dtype = "u1" if stream.precision <= 8 else "u2"
    if stream.planar:  # CharLS gives one component after the other
        target = np.empty((stream.components, stream.rows, stream.columns), dtype)
    else:
        target = _target(pixel, dtype, out)
    if bytes(data[-2:]) != b"\xff\xd9":
        data = bytes(data) + b"\xff\xd9"  # CharLS takes seconds to find that a stream has no end
    result = codecs.call("jpegls_decode", data, out=target)
    stored.bounded(result, stream.precision, signed=False, lossless=True)
    if stream.planar:
        result = np.moveaxis(target, 0, -1)
    if pixel.samples_per_pixel == 3:
        result = color.lossless_to_rgb(result, stream, pixel)
    return stored.finish(
        result, pixel, precision=stream.precision, signed=False, lossless=stream.lossless, out=out
    )


def _decode_j2k(data: Buffer, pixel: ImagePixel, stream: J2KStream, out: Array | None) -> Array:
    size = 1 if stream.precision <= 8 else 2 if stream.precision <= 16 else 4
    target = _target(pixel, f"{'i' if stream.signed else 'u'}{size}", out)
    codestream = memoryview(data)[stream.start : stream.stop]
    if stream.high_throughput and stream.equal_blocks:
        lossless = stream.reversible and pixel.transfer_syntax_uid not in LOSSY
        one_wavelet = stream.reversible or stream.irreversible
        if stream.precision in (8, 16) and one_wavelet and not lossless:
            result = _decode_htj2k_with_room(codestream, pixel, stream)
        else:
            result = codecs.decode_htj2k(codestream, target)
            result = stored.bounded(
                result, stream.precision, signed=stream.signed, lossless=lossless
            )
    else:  # OpenJPH writes beyond its memory where components have blocks of another size
        result = codecs.decode_jpeg2k(codestream, target, stream)
    return stored.finish(
        color.j2k_to_rgb(result, stream, pixel),
        pixel,
        precision=stream.precision,
        signed=stream.signed,
        lossless=stream.reversible,
        out=out,
    )


def _decode_htj2k_with_room(codestream: memoryview, pixel: ImagePixel, stream: J2KStream) -> Array:
    """Decodes lossy samples of 8 or 16 bits as if they had more, and clamps them.

    OpenJPH clamps to 2^precision, which is one too many, and not at all after the 5/3 wavelet: in a word that has just
    the bits of the stream, white comes out as black. If SIZ says more bits, samples of the 9/7 wavelet are scaled by
    them; those of the 5/3 wavelet stay as they are, but for the middle of an unsigned range, which is added to them.
    """
    bits = stream.precision
    more, word = (6, "i2") if bits == 8 else (8, "i4")
    wide = bytearray(codestream)
    for component in range(stream.components):
        wide[42 + 3 * component] += more  # Ssiz
    room = np.empty(pixel.shape, word if stream.signed else f"u{word[1]}")
    samples = codecs.decode_htj2k(memoryview(wide), room).view(word)
    half = 1 << bits - 1
    if stream.irreversible:
        samples += 1 << more - 1
        samples >>= more
    elif not stream.signed:
        samples -= (half << more) - half
    low, high = (-half, half - 1) if stream.signed else (0, 2 * half - 1)
    clamped: Array = np.clip(samples, low, high)
    return clamped.astype(f"{'i' if stream.signed else 'u'}{bits // 8}")


def _decode_jxl(data: Buffer, pixel: ImagePixel, stream: JXLStream, out: Array | None) -> Array:
    """Decodes; that a stream was cut shows only where it ends, and so costs as much as decoding what is there."""
    precision = stream.precision or pixel.bits_stored
    target = _target(pixel, "u1" if precision <= 8 else "u2", out)
    result = codecs.call("jpegxl_decode", data, numthreads=1, out=target)
    lossless = pixel.transfer_syntax_uid == JPEG_XL_LOSSLESS
    return stored.finish(
        result, pixel, precision=precision, signed=False, lossless=lossless, out=out
    )


# --- RLE ----------------------------------------------------------------------


def _decode_rle(data: Buffer, pixel: ImagePixel, out: Array | None) -> Array:
    """RLE (PS3.5 annex G): a segment per byte of a sample, the most significant first, sample after sample."""
    count = guard.rle_segment_count(pixel)
    segments = rle_segments(data, count)
    view = memoryview(data)
    pixels = pixel.rows * pixel.columns
    length = (pixels + 7) // 8 if pixel.bits_allocated == 1 else pixels
    direct = count == 1 and pixel.bits_allocated == 8 and out is not None
    if (
        direct
        and out is not None
        and out.dtype.itemsize == 1
        and out.size == pixels
        and out.flags.c_contiguous
    ):
        planes = out.view(np.uint8).reshape(1, length)
    else:
        planes = np.empty((count, length), np.uint8)
    for number, (start, stop) in enumerate(segments):
        _unpack(view[start:stop], planes[number], number, start)
    if pixel.bits_allocated == 1:
        return (
            np.unpackbits(planes[0], count=pixels, bitorder="little")
            .view(pixel.stored_dtype)
            .reshape(pixel.shape)
        )
    samples = stored.align(_join_bytes(planes, pixel), pixel, out)
    if pixel.samples_per_pixel == 1:
        return samples.reshape(pixel.shape)
    interleaved = np.moveaxis(samples.reshape(-1, pixel.rows, pixel.columns), 0, -1)
    if pixel.samples_per_pixel == 3:
        interleaved = color.tag_to_rgb(interleaved, pixel)
    return stored.deliver(interleaved, out)


def _join_bytes(planes: Array, pixel: ImagePixel) -> Array:
    """Words of BitsAllocated from their bytes, flat, sample after sample."""
    width = pixel.bits_allocated // 8
    if width == 1:
        return planes.reshape(-1)
    by_sample = planes.reshape(pixel.samples_per_pixel, width, -1)
    word = np.dtype(f"u{width}")
    words = by_sample[:, 0].astype(word)
    for byte in range(1, width):
        words <<= word.type(8)
        words |= by_sample[:, byte]
    return words.reshape(-1)


def _unpack(segment: memoryview, plane: Array, number: int, offset: int) -> None:
    """Fills `plane` from one PackBits segment, whose output must be exactly as long.

    A decoder stops when it has all bytes (PS3.5 G.3.2), so neither a pad byte that is not zero nor a last run that
    overshoots is damage.
    """
    packbits = codecs.library().packbits_decode
    problem: Exception
    try:
        if len(packbits(segment, out=plane)) == plane.size:
            return
        problem = ValueError("too few bytes")
    except RuntimeError as error:
        problem = error
    roomy = np.empty(plane.size + _RLE_SLACK, np.uint8)
    for candidate in (segment, segment[:-1]):
        try:
            got = packbits(candidate, out=roomy)
        except (RuntimeError, ValueError) as error:
            problem = error
            continue
        if len(got) >= plane.size:
            plane[:] = roomy[: plane.size]
            return
        problem = ValueError(f"it gives {len(got)} bytes")
    raise DecodeError(
        f"RLE segment {number} at byte {offset} of the frame is damaged: {problem}; expected {plane.size} bytes"
    ) from problem
