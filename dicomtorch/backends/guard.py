"""What a code stream claims must equal the header before native code sees it.

Native decoders crash, hang, leak or allocate without bound on streams that a glance at their headers would refuse.
`check` is that glance: pure Python, a few microseconds a frame. It gives what the stream says, because the colour and
the sign of the values follow from it.
"""

from __future__ import annotations

from dicomtorch.backends.jpeg2000 import J2KStream, parse_j2k
from dicomtorch.backends.streams import (
    Buffer,
    JPEGStream,
    JXLStream,
    packbits_length,
    parse_jpeg,
    parse_jxl,
    rle_segments,
)
from dicomtorch.errors import DecodeError
from dicomtorch.model.image import ImagePixel
from dicomtorch.model.limits import LIMITS, Limits
from dicomtorch.model.syntaxes import (
    DEFLATED_IMAGE_FRAME,
    ENCAPSULATED_UNCOMPRESSED,
    HTJ2K_FAMILY,
    JPEG_2000_FAMILY,
    JPEG_DCT,
    JPEG_LOSSLESS_FAMILY,
    JPEG_LS_FAMILY,
    JPEG_XL_FAMILY,
    NATIVE,
    RLE_LOSSLESS,
)

Stream = JPEGStream | J2KStream | JXLStream | None

_JPEG_PROCESSES = {
    **dict.fromkeys(JPEG_DCT, frozenset({0xC0, 0xC1, 0xC2})),
    **dict.fromkeys(JPEG_LOSSLESS_FAMILY, frozenset({0xC3})),
    **dict.fromkeys(JPEG_LS_FAMILY, frozenset({0xF7})),
}
_J2K = JPEG_2000_FAMILY | HTJ2K_FAMILY
_FLAT = NATIVE | {ENCAPSULATED_UNCOMPRESSED}


def rle_segment_count(pixel: ImagePixel) -> int:
    """Segments of an RLE frame (PS3.5 G.4); a 1-bit image has one, whose bits are packed (PS3.5 8.2.2)."""
    return pixel.samples_per_pixel * -(-pixel.bits_allocated // 8)


def check(data: Buffer, pixel: ImagePixel, limits: Limits = LIMITS) -> Stream:
    """Refuses a frame that no decoder should be given.

    Args:
        data: The code stream of one frame.
        pixel: What the header of the file says.
        limits: What a frame may cost.

    Returns:
        What the stream says of itself; `None` for syntaxes that have no stream header of their own.

    Raises:
        DecodeError: The stream is damaged, truncated, beyond a limit, or disagrees with `pixel`.
    """
    _check_size(pixel, limits)
    syntax = pixel.transfer_syntax_uid
    if syntax in _FLAT:
        expected = (pixel.native_bits + 7) // 8
        if len(data) < expected:
            raise DecodeError(
                f"(7FE0,0010) PixelData: the frame has {len(data)} bytes, expected {expected} for "
                f"{_describe(pixel)}; the file is truncated"
            )
        return None
    if syntax == RLE_LOSSLESS:
        rle_segments(data, rle_segment_count(pixel))
        return None
    if syntax == DEFLATED_IMAGE_FRAME:
        return None  # inflated up to the size that the header gives, in `values.inflate`
    if syntax in _JPEG_PROCESSES:
        jpeg = parse_jpeg(data)
        if jpeg.process not in _JPEG_PROCESSES[syntax]:
            raise DecodeError(
                f"SOF marker ff {jpeg.process:02x} does not belong to transfer syntax {syntax}, expected "
                + " or ".join(f"ff {code:02x}" for code in sorted(_JPEG_PROCESSES[syntax]))
            )
        _check_image(jpeg.rows, jpeg.columns, jpeg.components, pixel)
        return jpeg
    if syntax in _J2K:
        j2k = parse_j2k(data, limits.tiles)
        _check_image(j2k.rows, j2k.columns, j2k.components, pixel)
        return j2k
    if syntax in JPEG_XL_FAMILY:
        jxl = parse_jxl(data)
        _check_image(jxl.rows, jxl.columns, pixel.samples_per_pixel, pixel)
        return jxl
    raise DecodeError(f"transfer syntax {syntax} is none that this package decodes")


def check_rle(data: Buffer, pixel: ImagePixel, *, last: bool = False) -> None:
    """Refuses RLE segments that are too short, for decoders that do not, or take long to.

    Args:
        data: A frame that `check` has passed, of at least 8 bits a sample.
        pixel: What the header of the file says.
        last: Count the last segment only, which is the one that a frame lacks the end of if it was cut.

    Raises:
        DecodeError: A segment gives fewer bytes than the image has pixels.
    """
    view, expected = memoryview(data), pixel.rows * pixel.columns
    segments = list(enumerate(rle_segments(data, rle_segment_count(pixel))))[::-1]
    for number, (start, stop) in segments[:1] if last else segments:
        length = packbits_length(view[start:stop], expected)
        if length < expected:
            raise DecodeError(
                f"RLE segment {number} at byte {start} of the frame is damaged: it gives {length} bytes, "
                f"expected {expected}"
            )


def _describe(pixel: ImagePixel) -> str:
    return (
        f"{pixel.rows} x {pixel.columns} pixels, {pixel.samples_per_pixel} samples of {pixel.bits_allocated} bits, "
        f"{pixel.photometric_interpretation}"
    )


def _check_size(pixel: ImagePixel, limits: Limits) -> None:
    pixels = pixel.rows * pixel.columns
    if not 0 < pixels <= limits.pixels_per_frame:
        raise DecodeError(
            f"(0028,0010) Rows {pixel.rows} x (0028,0011) Columns {pixel.columns}: expected 1 to "
            f"{limits.pixels_per_frame} pixels (Limits.pixels_per_frame)"
        )
    if not 0 < pixel.samples_per_pixel <= limits.samples_per_pixel:
        raise DecodeError(
            f"(0028,0002) SamplesPerPixel {pixel.samples_per_pixel}: expected 1 to {limits.samples_per_pixel} "
            "(Limits.samples_per_pixel)"
        )
    if (
        pixels * pixel.samples_per_pixel * ((pixel.bits_allocated + 7) // 8)
        > limits.decoded_bytes_per_frame
    ):
        raise DecodeError(
            f"{_describe(pixel)}: more than {limits.decoded_bytes_per_frame} bytes (Limits.decoded_bytes_per_frame)"
        )


def _check_image(rows: int, columns: int, components: int, pixel: ImagePixel) -> None:
    if (rows, columns, components) != (pixel.rows, pixel.columns, pixel.samples_per_pixel):
        raise DecodeError(
            f"the code stream has {rows} rows, {columns} columns and {components} components, but the header says "
            f"(0028,0010) Rows {pixel.rows}, (0028,0011) Columns {pixel.columns}, (0028,0002) SamplesPerPixel "
            f"{pixel.samples_per_pixel}; the frame belongs to another image or is damaged"
        )
