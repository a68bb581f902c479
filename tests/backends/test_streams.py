"""What process a code stream is of, whatever its transfer syntax says, and that it is decoded as that."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dicomtorch.backends.base import BACKENDS, get_backend
from dicomtorch.backends.streams import SYNTAXES, other_process, stream_process
from dicomtorch.errors import DecodeError
from dicomtorch.model.syntaxes import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    HTJ2K_LOSSLESS,
    JPEG_2000_LOSSLESS,
    JPEG_BASELINE,
    JPEG_EXTENDED,
    JPEG_LOSSLESS_SV1,
    JPEG_LS_LOSSLESS,
    JPEG_XL_LOSSLESS,
    RLE_LOSSLESS,
)
from tests.long import fuzz_segments
from tests.support import streams_by_encoders as encoders
from tests.support.requirements import require

pytest.importorskip("imagecodecs")

PROCESSES = {
    JPEG_BASELINE: "JPEG",
    JPEG_EXTENDED: "JPEG",
    JPEG_LOSSLESS_SV1: "JPEG Lossless",
    JPEG_LS_LOSSLESS: "JPEG-LS",
    JPEG_2000_LOSSLESS: "JPEG 2000",
    HTJ2K_LOSSLESS: "HTJ2K",
    JPEG_XL_LOSSLESS: "JPEG XL",
}
GRAY = encoders.picture((48, 64), 8)


def stream_of(syntax: str, bits: int = 8) -> bytes:
    if syntax in (JPEG_BASELINE, JPEG_EXTENDED):
        return encoders.jpeg_dct(encoders.picture((48, 64), bits), bits)
    return encoders.LOSSLESS[syntax](encoders.picture((48, 64), bits), bits)


@pytest.mark.parametrize(("syntax", "process"), PROCESSES.items())
def test_a_stream_says_its_process(syntax: str, process: str) -> None:
    data = stream_of(syntax, 12 if syntax == JPEG_EXTENDED else 8)
    assert stream_process(data) == process
    assert stream_process(memoryview(data)) == process
    assert stream_process(data[: len(data) // 2]) == process
    assert syntax in SYNTAXES[process]
    assert other_process(data, syntax) == ""
    assert other_process(data, RLE_LOSSLESS) == process


def test_fill_bytes_and_boxes_are_passed_over() -> None:
    assert stream_process(b"\xff\xff" + stream_of(JPEG_BASELINE)) == "JPEG"
    box = b"\0\0\0\x0cjP  \r\n\x87\n"
    jp2 = box + b"\0\0\0\0jp2c" + stream_of(JPEG_2000_LOSSLESS)
    assert stream_process(jp2) == "JPEG 2000"


@pytest.mark.parametrize("data", [b"", b"\xff", b"\xff\xd8", b"\0\0\0\x0cjP  ", b"\1\0\0\0", b"\xff\x4f"])  # fmt: skip
def test_what_says_nothing_is_of_no_process(data: bytes) -> None:
    assert stream_process(data) in ("", "JPEG 2000")
    assert other_process(data, JPEG_2000_LOSSLESS) == ""


def test_native_and_rle_streams_are_of_no_process() -> None:
    assert stream_process(encoders.rle(GRAY, 8)) == ""
    assert other_process(encoders.rle(GRAY, 8), RLE_LOSSLESS) == ""


# --- Decoding ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("labelled", [JPEG_LOSSLESS_SV1, JPEG_2000_LOSSLESS, RLE_LOSSLESS])
def test_a_stream_of_another_process_is_decoded_as_what_it_is(
    name: str, labelled: str, caplog: pytest.LogCaptureFixture
) -> None:
    require(name)
    backend = get_backend(name)
    decoded = 0
    for syntax in PROCESSES:
        bits = 12 if syntax == JPEG_EXTENDED else 8
        image = encoders.picture((48, 64), bits)
        data = stream_of(syntax, bits)
        right = encoders.pixel_of(image, syntax, bits)
        if not backend.supports(right) and syntax != labelled:
            with pytest.raises(
                DecodeError, match=r"TransferSyntaxUID says .* does not decode|none that"
            ):
                backend.decode(data, replace(right, transfer_syntax_uid=labelled))
        if not backend.supports(right):
            continue
        expected = backend.decode(data, right)
        with caplog.at_level("WARNING", "dicomtorch"):
            result = backend.decode(data, replace(right, transfer_syntax_uid=labelled))
        np.testing.assert_array_equal(result, expected)
        decoded += 1
    assert decoded >= 2


def test_another_process_is_told_once_and_its_samples_must_have_the_bits_of_the_header(
    caplog: pytest.LogCaptureFixture,
) -> None:
    backend = get_backend("imagecodecs")
    data = stream_of(JPEG_BASELINE)
    pixel = replace(
        encoders.pixel_of(GRAY, JPEG_LS_LOSSLESS, 7), photometric_interpretation="MONOCHROME1"
    )
    with caplog.at_level("WARNING", "dicomtorch"):
        backend.decode(data, pixel)
        backend.decode(data, pixel)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) <= 1
    assert all("code stream is JPEG; it is decoded as what it is" in text for text in told)
    with pytest.raises(DecodeError, match=r"JPEG of 8 bits.*BitsStored 12 of 16"):
        backend.decode(data, encoders.pixel_of(GRAY.astype(np.uint16), JPEG_LS_LOSSLESS, 12))
    with pytest.raises(DecodeError, match="49"):
        backend.decode(data, replace(pixel, rows=49))


def test_native_pixel_data_are_never_taken_for_a_stream() -> None:
    image = np.full((4, 4), 0xD8FF, np.uint16)
    pixel = encoders.pixel_of(image, EXPLICIT_VR_LITTLE_ENDIAN, 16)
    np.testing.assert_array_equal(get_backend("imagecodecs").decode(image.tobytes(), pixel), image)


# --- JPEG-LS with a scan for each component ---------------------------------------------------


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("tag", ["RGB", "YBR_FULL"])
def test_jpeg_ls_in_planes(name: str, bits: int, tag: str) -> None:
    require(name)
    backend = get_backend(name)
    image = encoders.picture((24, 40, 3), bits)
    pixel = encoders.pixel_of(image, JPEG_LS_LOSSLESS, bits)
    pixel = replace(pixel, photometric_interpretation=tag)
    if not backend.supports(pixel):
        pytest.skip(f"{name} says that it does not decode this")
    interleaved = backend.decode(encoders.jpeg_ls(image, bits), pixel)
    planes = encoders.jpeg_ls_planes(image, bits)
    np.testing.assert_array_equal(backend.decode(planes, pixel), interleaved)
    out = np.empty(pixel.shape, pixel.stored_dtype)
    result = backend.decode(planes, pixel, out)
    np.testing.assert_array_equal(result, interleaved)
    assert result.flags.c_contiguous
    if tag == "RGB":
        np.testing.assert_array_equal(result, image)


def test_every_scan_of_jpeg_ls_in_planes_is_looked_at() -> None:
    image = encoders.picture((24, 40, 3), 8)
    data = encoders.jpeg_ls_planes(image, 8)
    pixel = encoders.pixel_of(image, JPEG_LS_LOSSLESS, 8)
    last = data.rindex(b"\xff\xda")
    backend = get_backend("imagecodecs")
    for spoiled, message in (
        (data[: last + 7] + b"\xff" + data[last + 8 :], "NEAR 255"),
        (data[: last + 8] + b"\x03" + data[last + 9 :], "interleave mode 3"),
        (data[: last + 4] + b"\x02" + data[last + 5 :], "2 components"),
        (data[:last] + b"\xff\xd9", "2 scans"),
    ):
        with pytest.raises(DecodeError, match=message):
            backend.decode(spoiled, pixel)


@pytest.mark.parametrize("name", [name for name in BACKENDS if name != "imagecodecs"])
def test_what_another_backend_decodes_auto_decodes_too(name: str) -> None:
    """Every kind of stream that the encoders here write, in gray and colour, as it is and as planes."""
    require(name)
    other, preferred = get_backend(name), get_backend("imagecodecs")
    compared = 0
    for shape in ((24, 40), (24, 40, 3)):
        for bits in (8, 12, 16):
            image = encoders.picture(shape, bits)
            frames = [encoders.encode(image, syntax, bits) for syntax in encoders.LOSSLESS]
            if len(shape) == 3:
                planes = encoders.jpeg_ls_planes(image, bits)
                frames.append((planes, encoders.pixel_of(image, JPEG_LS_LOSSLESS, bits)))
            for data, pixel in frames:
                if not other.supports(pixel):
                    continue
                expected = other.decode(data, pixel)
                np.testing.assert_array_equal(preferred.decode(data, pixel), expected)
                compared += 1
    assert compared > 10


# --- HTJ2K whose components have blocks of different sizes -----------------------------------------


@pytest.mark.parametrize("exponents", [(2, 2), (3, 4), (4, 2), (2, 3)])
def test_htj2k_with_blocks_of_another_size_for_a_component(exponents: tuple[int, int]) -> None:
    """OpenJPH writes beyond its memory then; a sub-band of 16 x 16 is one block with all these sizes."""
    image = encoders.picture((16, 16, 3), 8)
    data = fuzz_segments.with_component_segments(encoders.htj2k(image, 8))
    pixel = encoders.pixel_of(image, HTJ2K_LOSSLESS, 8)
    backend = get_backend("imagecodecs")
    np.testing.assert_array_equal(backend.decode(data, pixel), image)
    at = data.index(fuzz_segments.COC) + 7
    data = data[:at] + bytes(exponents) + data[at + 2 :]
    np.testing.assert_array_equal(backend.decode(data, pixel), image)
