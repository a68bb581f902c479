"""What a code stream claims must equal the header before native code sees it.

Native decoders crash, hang, leak or allocate without bound on streams that a glance at their headers would refuse.
`check` is that glance: pure Python, a few microseconds a frame. It gives what the stream says, because the colour and
the sign of the values follow from it.
"""

from __future__ import annotations

from dataclasses import replace

from dicomtorch.backends import streams
from dicomtorch.backends.base import Backend, Buffer, decoding, say_once
from dicomtorch.backends.jpegxl import JXLStream
from dicomtorch.backends.rle import packbits_length, rle_segments
from dicomtorch.backends.streams import Stream
from dicomtorch.errors import DecodeError
from dicomtorch.model.image import ImagePixel
from dicomtorch.model.limits import Limits
from dicomtorch.model.shown import named_uid, shown
from dicomtorch.model.syntaxes import (
    DEFLATED_IMAGE_FRAME,
    ENCAPSULATED_UNCOMPRESSED,
    KNOWN_SYNTAXES,
    NATIVE,
    RLE_LOSSLESS,
)

_FLAT = NATIVE | {ENCAPSULATED_UNCOMPRESSED}


def rle_segment_count(pixel: ImagePixel) -> int:
    """Segments of an RLE frame (PS3.5 G.4); a 1-bit image has one, whose bits are packed (PS3.5 8.2.2)."""
    return pixel.samples_per_pixel * -(-pixel.bits_allocated // 8)


def check(data: Buffer, pixel: ImagePixel, limits: Limits | None = None) -> Stream | None:
    """Refuses a frame that no decoder should be given.

    Args:
        data: The code stream of one frame.
        pixel: What the header of the file says.
        limits: What a frame may cost; `None`: what the scan of the file that is decoded just now admitted.

    Returns:
        What the stream says of itself; `None` for syntaxes that have no stream header of their own. It may be of
        another process than the transfer syntax says: see `as_streamed`.

    Raises:
        DecodeError: The stream is damaged, truncated, beyond a limit, or disagrees with `pixel`.
    """
    limits = limits or decoding.limits
    check_claim(pixel, limits)
    syntax = pixel.transfer_syntax_uid
    if syntax in _FLAT:
        expected = (pixel.native_bits + 7) // 8
        if len(data) < expected:
            raise DecodeError(
                f"(7FE0,0010) PixelData: the frame has {len(data)} bytes, expected {expected} for "
                f"{_describe(pixel)}; the file is truncated"
            )
        return None
    if syntax == DEFLATED_IMAGE_FRAME:
        return None  # inflated up to the size that the header gives, in `stored.inflate`
    if syntax == RLE_LOSSLESS and not streams.stream_process(data):
        rle_segments(data, rle_segment_count(pixel))
        return None
    if syntax not in KNOWN_SYNTAXES:
        raise DecodeError(f"transfer syntax {named_uid(syntax)} is none that this package decodes")
    stream = streams.parse(data, syntax, limits.tiles)
    components = pixel.samples_per_pixel if isinstance(stream, JXLStream) else stream.components
    _check_image(stream.rows, stream.columns, components, pixel)
    return stream


def as_streamed(pixel: ImagePixel, stream: Stream, backend: Backend) -> ImagePixel:
    """`pixel` with the transfer syntax that its code stream is really in.

    A stream of another process than its label is decoded as what it is, with a notice, if its samples have the bits
    that the header needs; their size and number were compared by `check`.

    Args:
        pixel: What the header of the file says.
        stream: What `check` gave.
        backend: Is to decode it.

    Raises:
        DecodeError: They have not, or the backend does not decode that process.
    """
    process = streams.process_of(stream)
    if pixel.transfer_syntax_uid in streams.SYNTAXES[process]:
        return pixel
    labelled = (
        f"transfer syntax {named_uid(pixel.transfer_syntax_uid)}, but a code stream is {process}"
    )
    if not pixel.bits_stored <= (stream.precision or pixel.bits_stored) <= pixel.bits_allocated:
        raise DecodeError(
            f"(0002,0010) TransferSyntaxUID says {labelled} of {stream.precision} bits; with (0028,0101) BitsStored "
            f"{pixel.bits_stored} of {pixel.bits_allocated} it belongs to another image or is damaged"
        )
    syntax = streams.syntax_of(stream, pixel.transfer_syntax_uid)
    streamed = replace(pixel, transfer_syntax_uid=syntax)
    if not backend.supports(streamed):
        raise DecodeError(
            f"(0002,0010) TransferSyntaxUID says {labelled}, which backend {backend.name!r} does not decode; "
            "try backend='auto'"
        )
    say_once(f"(0002,0010) TransferSyntaxUID says {labelled}; it is decoded as what it is")
    return streamed


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
        f"{shown('PhotometricInterpretation', pixel.photometric_interpretation)}"
    )


def check_claim(pixel: ImagePixel, limits: Limits) -> None:
    """Refuses what a header claims before anything is allocated for it.

    Raises:
        DecodeError: It is beyond a limit, which the message names.
    """
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
