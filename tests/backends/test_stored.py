"""From what a codec gives to stored values: position, sign and range of the bits, damage, colour."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dicomtorch.backends import color, stored
from dicomtorch.backends.base import BACKENDS, Backend, get_backend
from dicomtorch.errors import DecodeError
from dicomtorch.model.image import ImagePixel
from dicomtorch.model.syntaxes import (
    HTJ2K,
    HTJ2K_LOSSLESS,
    JPEG_2000,
    JPEG_2000_LOSSLESS,
    JPEG_BASELINE,
    JPEG_LOSSLESS_SV1,
    JPEG_LS_LOSSLESS,
    JPEG_XL_LOSSLESS,
    RLE_LOSSLESS,
)
from tests.support import streams_by_encoders as encoders
from tests.support.requirements import require

imagecodecs = pytest.importorskip("imagecodecs")

Array = np.ndarray[Any, Any]


@pytest.fixture(params=list(BACKENDS))
def backend(request: pytest.FixtureRequest) -> Backend:
    require(request.param)
    return get_backend(request.param)


def decode(backend: Backend, data: bytes, pixel: ImagePixel) -> Array:
    """The same with and without `out`."""
    if not backend.supports(pixel):
        pytest.skip(f"{backend.name} says that it does not decode this")
    result = backend.decode(data, pixel)
    again = backend.decode(data, pixel, np.full(pixel.shape, 77, pixel.stored_dtype))
    np.testing.assert_array_equal(result, again)
    assert result.dtype == again.dtype
    return result


# --- Overshoot ------------------------------------------------------------------------------


@pytest.mark.parametrize("sample", [4098, 4124, 65_535])
def test_overshoot_of_the_5_3_wavelet_in_a_lossy_syntax_is_clamped(
    backend: Backend, sample: int
) -> None:
    image = np.full((32, 32), sample, np.uint16)
    data = encoders.jpeg_2000(image, 16)
    pixel = encoders.pixel_of(image, JPEG_2000, 12)
    assert (decode(backend, data, pixel) == 4095).all()
    masked = replace(pixel, transfer_syntax_uid=JPEG_2000_LOSSLESS)
    assert (decode(backend, data, masked) == sample & 4095).all()


@pytest.mark.parametrize(("sample", "expected"), [(2050, 2047), (-2052, -2048), (-7, -7)])
def test_signed_overshoot_of_the_5_3_wavelet_is_clamped(
    backend: Backend, sample: int, expected: int
) -> None:
    image = np.full((32, 32), sample, np.int16)
    data = encoders.jpeg_2000(image, 16)
    pixel = encoders.pixel_of(image, JPEG_2000, 12, signed=True)
    assert (decode(backend, data, pixel) == expected).all()


@pytest.mark.parametrize(
    ("word", "expected"),
    [(5, 5), (0x0FFB, -5), (0xFFFB, -5), (4100, -1), (0xF7F0, -2048), (0x0801, -2047)],
)
def test_signed_words_in_a_lossy_stream_without_sign(
    backend: Backend, word: int, expected: int
) -> None:
    """A negative number is a word of 12 bits, or one whose sign goes on to the highest bit."""
    image = np.full((32, 32), word, np.uint16)
    data = encoders.jpeg_2000(image, 16)
    pixel = encoders.pixel_of(image, JPEG_2000, 12, signed=True)
    assert (decode(backend, data, pixel) == expected).all()


@pytest.mark.parametrize("dtype", ["u1", "u2", "i1", "i2"])
@pytest.mark.parametrize("channels", [1, 3])
def test_white_of_lossy_htj2k_stays_white(dtype: str, channels: int) -> None:
    """OpenJPH clamps to one more than the samples have bits for; that was black."""
    if channels == 3 and dtype[0] == "i":
        pytest.skip("colour is unsigned")
    info = np.iinfo(dtype)
    low, middle = info.min, info.max - (info.max - info.min) // 2
    chance = np.random.default_rng(0).random((96, 80, channels)) < 0.5
    image = np.where(chance, info.max, middle).astype(dtype)
    image = image[..., 0] if channels == 1 else image
    data = bytes(imagecodecs.htj2k_encode(image, reversible=False, level=0.01))
    pixel = encoders.pixel_of(image, HTJ2K, info.bits, signed=dtype[0] == "i")
    result = decode(get_backend("imagecodecs"), data, pixel)
    assert result.dtype == image.dtype
    difference = np.abs(result.astype(np.int64) - image)
    assert difference.max() < (info.max - low) / 20


def ssiz(data: bytes, bits: int) -> bytes:
    """A JPEG 2000 stream of one component that says it has `bits` bits."""
    at = data.index(b"\xff\x51") + 40
    return data[:at] + bytes(((data[at] & 128) | bits - 1,)) + data[at + 1 :]


@pytest.mark.parametrize(("sample", "expected"), [(4095, 4095), (4098, 4095), (-3, 0)])
def test_overshoot_of_htj2k_beyond_the_bits_of_its_stream(sample: int, expected: int) -> None:
    """The 5/3 wavelet, which OpenJPH does not clamp at all: 12 bits in a word of 16."""
    image = np.full((32, 32), sample - 2048, np.int16)
    image[0] = 0
    data = bytearray(ssiz(encoders.htj2k(image, 16), 12))
    data[data.index(b"\xff\x51") + 40] &= 127  # unsigned: the middle is added
    pixel = encoders.pixel_of(image.view(np.uint16), HTJ2K, 12)
    result = decode(get_backend("imagecodecs"), bytes(data), pixel)
    assert (result[1:] == expected).all()
    if sample == expected:
        return
    with pytest.raises(DecodeError, match="the stream has 12 bits"):
        get_backend("imagecodecs").decode(
            bytes(data), replace(pixel, transfer_syntax_uid=HTJ2K_LOSSLESS)
        )


@pytest.mark.parametrize(("sample", "expected"), [(255, 255), (300, 255), (-9, 0), (100, 100)])
def test_overshoot_of_lossy_htj2k_of_8_bits_with_the_5_3_wavelet(
    sample: int, expected: int
) -> None:
    image = np.full((32, 32), sample - 128, np.int16)
    data = bytearray(ssiz(encoders.htj2k(image, 16), 8))
    data[data.index(b"\xff\x51") + 40] &= 127
    pixel = encoders.pixel_of(np.zeros((32, 32), np.uint8), HTJ2K, 8)
    result = decode(get_backend("imagecodecs"), bytes(data), pixel)
    assert result.dtype == np.uint8
    assert (result == expected).all()


# --- Left-justified samples -----------------------------------------------------------------

JUSTIFIED = [
    *(JPEG_LOSSLESS_SV1, JPEG_LS_LOSSLESS, JPEG_2000_LOSSLESS),
    *(HTJ2K_LOSSLESS, JPEG_XL_LOSSLESS, RLE_LOSSLESS),
]


@pytest.mark.parametrize("syntax", JUSTIFIED)
@pytest.mark.parametrize("signed", [False, True])
def test_left_justified_samples_are_shifted(backend: Backend, syntax: str, signed: bool) -> None:
    """BitsAllocated 16, BitsStored 12, HighBit 15 (PS3.5 8.1.1), as DCMTK writes them."""
    numbers = [1, 2047, -2048, -1] if signed else [1, 2048, 4095, 0]
    image = np.repeat(np.array(numbers, np.int16).reshape(-1, 1), 64, 1).repeat(16, 0)
    words = (image << 4).view(np.uint16) | 0xA  # the other bits may hold anything
    pixel = replace(encoders.pixel_of(words, syntax, 12, signed=signed), high_bit=15)
    result = decode(backend, encoders.LOSSLESS[syntax](words, 16), pixel)
    np.testing.assert_array_equal(result, image)


def test_left_justified_samples_of_a_signed_stream_are_shifted(backend: Backend) -> None:
    image = np.repeat(np.array([1, 2047, -2048, -1], np.int16).reshape(-1, 1), 64, 1)
    pixel = replace(encoders.pixel_of(image, JPEG_2000_LOSSLESS, 12, signed=True), high_bit=15)
    data = encoders.jpeg_2000(image << 4, 16)
    np.testing.assert_array_equal(decode(backend, data, pixel), image)


@pytest.mark.parametrize("syntax", [JPEG_LOSSLESS_SV1, JPEG_2000_LOSSLESS])
def test_samples_of_a_stream_that_has_no_high_bits_are_as_they_are(
    backend: Backend, syntax: str
) -> None:
    image = encoders.picture((32, 32), 12)
    data, pixel = encoders.encode(image, syntax, 12)
    result = decode(backend, data, replace(pixel, high_bit=15))
    np.testing.assert_array_equal(result, image)


def test_left_justified_samples_of_a_lossy_stream_are_shifted_and_clamped(backend: Backend) -> None:
    image = np.full((32, 32), 3000 << 4, np.uint16)
    pixel = replace(encoders.pixel_of(image, JPEG_2000, 12), high_bit=15)
    assert (decode(backend, encoders.jpeg_2000(image, 16), pixel) == 3000).all()


# --- Damage ---------------------------------------------------------------------------------


def test_a_lossless_stream_with_values_beyond_its_bits_is_damaged() -> None:
    """The differences of JPEG Lossless run on where one of them is wrong."""
    backend = get_backend("imagecodecs")
    image = encoders.picture((64, 64), 12)
    data, pixel = encoders.encode(image, JPEG_LOSSLESS_SV1, 12)
    # What a stream of 16 bits has beyond 12, in a stream that says 12.
    large = encoders.jpeg_lossless(np.bitwise_or(image, 0xF000, dtype=np.uint16), 16)
    at = large.index(b"\xff\xc3") + 4
    with pytest.raises(DecodeError, match=r"damaged.*the stream has 12 bits"):
        backend.decode(large[:at] + b"\x0c" + large[at + 1 :], pixel)
    np.testing.assert_array_equal(backend.decode(data, pixel), image)


@pytest.mark.parametrize("signed", [False, True])
def test_bounds_of_samples(signed: bool) -> None:
    low, high = (-8, 7) if signed else (0, 15)
    dtype = np.int8 if signed else np.uint8
    inside = np.array([[low, high]], dtype)
    assert stored.bounded(inside, 4, signed=signed, lossless=True) is inside
    assert stored.bounded(inside, 8, signed=signed, lossless=True) is inside
    for outside in (high + 1, low - 1):
        samples = np.array([[0, outside]]).astype(dtype)
        with pytest.raises(DecodeError, match="the stream has 4 bits"):
            stored.bounded(samples, 4, signed=signed, lossless=True)
        clamped = stored.bounded(samples, 4, signed=signed, lossless=False)
        assert clamped.tolist() == [[0, high if outside > high else low]]
        assert clamped.dtype == dtype


# --- Colour ---------------------------------------------------------------------------------


def marked_rgb(data: bytes, how: str) -> bytes:
    """A lossless JPEG stream of three components that says it is RGB."""
    if how == "adobe":
        return data[:2] + b"\xff\xee\x00\x0eAdobe\0\x64\0\0\0\0\0" + data[2:]
    sof, sos = data.index(b"\xff\xc3"), data.index(b"\xff\xda")
    frame = bytearray(data)
    for k, name in enumerate(b"RGB"):
        frame[sof + 10 + 3 * k] = name
        frame[sos + 5 + 2 * k] = name
    return bytes(frame)


@pytest.mark.parametrize("how", ["ids", "adobe"])
@pytest.mark.parametrize("tag", ["YBR_FULL_422", "YBR_FULL_420"])
def test_lossless_jpeg_that_says_it_is_rgb_has_no_subsampled_chroma(
    backend: Backend, how: str, tag: str, caplog: pytest.LogCaptureFixture
) -> None:
    image = encoders.picture((32, 48, 3), 8)
    data, pixel = encoders.encode(image, JPEG_LOSSLESS_SV1, 8)
    data = marked_rgb(strip_marks(data), how)
    pixel = replace(pixel, photometric_interpretation=tag)
    with caplog.at_level("WARNING", "dicomtorch"):
        np.testing.assert_array_equal(decode(backend, data, pixel), image)
    converted = decode(backend, data, replace(pixel, photometric_interpretation="YBR_FULL"))
    np.testing.assert_array_equal(converted, color.ybr_to_rgb(image, 8))
    unmarked = decode(backend, strip_marks(encoders.jpeg_lossless(image, 8)), pixel)
    np.testing.assert_array_equal(unmarked, color.ybr_to_rgb(image, 8))


def strip_marks(data: bytes) -> bytes:
    """Without JFIF and Adobe, and with component identifiers 1, 2, 3."""
    position, kept = 2, [data[:2]]
    while data[position + 1] != 0xDA:
        stop = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        segment = bytearray(data[position:stop])
        if segment[1] == 0xC3:
            for k in range(3):
                segment[10 + 3 * k] = k + 1
        if segment[1] not in (0xE0, 0xEE):
            kept.append(bytes(segment))
        position = stop
    scan = bytearray(data[position:])
    for k in range(3):
        scan[5 + 2 * k] = k + 1
    return b"".join(kept) + bytes(scan)


def test_a_dct_stream_says_itself_what_its_colours_are(backend: Backend) -> None:
    """The rule for lossless streams is theirs alone."""
    data, samples = encoders.dct_stream(marker="", subsampling="422")
    pixel = encoders.pixel_of(samples, JPEG_BASELINE, 8, photometric_interpretation="YBR_FULL_422")
    expected = color.ybr_to_rgb(samples, 8).astype(int)
    assert np.abs(decode(backend, data, pixel).astype(int) - expected).max() <= 2
