"""One conformance suite that every backend runs, each on what it says it can do."""

from __future__ import annotations

import hashlib
import json
import math
import os
import pickle
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomtorch.backends import color
from dicomtorch.backends.base import BACKENDS, Backend, choose_backend, get_backend, say_once
from dicomtorch.errors import DecodeError, DicomTorchError, OptionError, UnsupportedError
from dicomtorch.model.image import ImagePixel
from dicomtorch.model.syntaxes import (
    DEFLATED_IMAGE_FRAME,
    ENCAPSULATED_UNCOMPRESSED,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    HTJ2K_LOSSLESS,
    JPEG_2000,
    JPEG_2000_LOSSLESS,
    JPEG_BASELINE,
    JPEG_LOSSLESS_SV1,
    JPEG_LS_LOSSLESS,
    NATIVE,
    RLE_LOSSLESS,
)
from tests.long import fuzz_backends, fuzz_segments
from tests.support import frames_by_pydicom, streams_by_encoders
from tests.support.requirements import require, samples_folder

imagecodecs = pytest.importorskip("imagecodecs")

REPOSITORY = Path(__file__).parents[2]
LIBRARIES = {"imagecodecs": "imagecodecs", "pydicom": "pydicom", "simpleitk": "simpleitk"}


@pytest.fixture(params=list(BACKENDS))
def backend(request: pytest.FixtureRequest) -> Backend:
    require(LIBRARIES[request.param])
    return get_backend(request.param)


def words(*numbers: int, dtype: str = "<u2") -> bytes:
    return np.array(numbers, dtype).tobytes()


def gray(rows: int, columns: int, **more: Any) -> ImagePixel:
    return ImagePixel(more.pop("syntax", EXPLICIT_VR_LITTLE_ENDIAN), rows, columns, **more)


def colored(rows: int, columns: int, photometric: str = "RGB", **more: Any) -> ImagePixel:
    header = {"bits_allocated": 8, "bits_stored": 8, "high_bit": 7, "pixel_data_vr": "OB", **more}
    syntax = header.pop("syntax", EXPLICIT_VR_LITTLE_ENDIAN)
    return ImagePixel(syntax, rows, columns, 3, photometric, **header)


def decode(backend: Backend, data: bytes, pixel: ImagePixel) -> np.ndarray[Any, Any]:
    """Decodes with and without `out`, and checks what the contract promises of the result."""
    if not backend.supports(pixel):
        pytest.skip(f"{backend.name} says that it does not decode this")
    result = backend.decode(data, pixel)
    out = np.full(pixel.shape, 77, pixel.stored_dtype)
    again = backend.decode(memoryview(bytearray(data)), pixel, out)
    np.testing.assert_array_equal(result, again)
    for array in (result, again):
        assert array.shape == pixel.shape
        assert array.flags.c_contiguous
        assert array.dtype.isnative
    assert result.dtype == again.dtype
    return result


# --- Stored values: bits, sign, byte order ------------------------------------------------------------

BITS = [
    # (bytes, BitsAllocated, BitsStored, HighBit, PixelRepresentation, expected)
    pytest.param(words(0xABC7), 16, 12, 15, 0, [2748], id="B1 high bit 15, unsigned"),
    pytest.param(words(0xABC7), 16, 12, 15, 1, [-1348], id="B1 high bit 15, signed"),
    pytest.param(words(0xF123), 16, 12, 11, 0, [291], id="B2 an overlay in the unused bits"),
    pytest.param(words(0x0FFF, 0xF7FF, 0x0800), 16, 12, 11, 1, [-1, 2047, -2048], id="B3 signed"),
    pytest.param(b"\xff", 8, 7, 6, 0, [127], id="B4 unsigned"),
    pytest.param(b"\xff", 8, 7, 6, 1, [-1], id="B4 signed"),
    pytest.param(b"\xff" * 4, 32, 32, 31, 0, [4294967295], id="B5 unsigned"),
    pytest.param(b"\xff" * 4, 32, 32, 31, 1, [-1], id="B5 signed"),
    pytest.param(words(0x00FF, 0x8001), 16, 8, 7, 1, [-1, 1], id="8 bits in a word"),
    pytest.param(words(0x1234), 16, 4, 7, 0, [3], id="4 bits in the middle of a word"),
    pytest.param(b"\xbc\x3a\x12", 12, 12, 11, 0, [0xABC, 0x123], id="B9 12-bit packed"),
    pytest.param(b"\xbc\x3a\x12\xff\x0f", 12, 12, 11, 1, [-1348, 0x123, -1], id="12-bit, odd"),
    pytest.param(b"\x55\x01", 1, 1, 0, 0, [1, 0, 1, 0, 1, 0, 1, 0, 1], id="B8 1 bit"),
    pytest.param(b"\xff" * 8, 64, 64, 63, 0, [2**64 - 1], id="64 bits"),
]


@pytest.mark.parametrize(("data", "allocated", "stored", "high", "signed", "expected"), BITS)
def test_native_bits(
    backend: Backend,
    data: bytes,
    allocated: int,
    stored: int,
    high: int,
    signed: int,
    expected: list[int],
) -> None:
    pixel = gray(
        1,
        len(expected),
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=high,
        pixel_representation=signed,
        pixel_data_vr="OB" if allocated <= 8 else "OW",
    )
    result = decode(backend, data, pixel)
    assert result.dtype == pixel.stored_dtype
    assert result.tolist() == [expected]


@pytest.mark.parametrize(
    ("data", "allocated", "vr", "expected"),
    [
        pytest.param("0EE80013", 32, "OW", [1249000], id="B6 OW has the low word first"),
        pytest.param("02010403", 8, "OW", [1, 2, 3, 4], id="B7 OW"),
        pytest.param("01020304", 8, "OB", [1, 2, 3, 4], id="B7 OB"),
        pytest.param("01020304", 16, "OW", [0x0102, 0x0304], id="16 bits"),
        pytest.param("00020103", 8, "OW", [2, 0, 3], id="an odd number of pixels, padded"),
        pytest.param("0055", 1, "OW", [1, 0, 1, 0, 1, 0, 1, 0], id="1 bit OW"),
    ],
)
def test_explicit_big_endian(
    backend: Backend, data: str, allocated: int, vr: Any, expected: list[int]
) -> None:
    pixel = gray(
        1,
        len(expected),
        syntax=EXPLICIT_VR_BIG_ENDIAN,
        bits_allocated=allocated,
        bits_stored=allocated,
        high_bit=allocated - 1,
        pixel_data_vr=vr,
    )
    assert decode(backend, bytes.fromhex(data), pixel).tolist() == [expected]


@pytest.mark.parametrize("syntax", [EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN])
@pytest.mark.parametrize(("vr", "code"), [("OF", "f4"), ("OD", "f8")])
def test_float_pixel_data(backend: Backend, syntax: str, vr: Any, code: str) -> None:
    numbers = np.array([[0.5, -1e30, np.inf]], code)
    bits = 8 * numbers.dtype.itemsize
    pixel = gray(
        1,
        3,
        syntax=syntax,
        bits_allocated=bits,
        bits_stored=bits,
        high_bit=bits - 1,
        pixel_data_vr=vr,
    )
    order = ">" if syntax == EXPLICIT_VR_BIG_ENDIAN else "<"
    result = decode(backend, numbers.astype(order + code).tobytes(), pixel)
    assert result.dtype == numbers.dtype
    np.testing.assert_array_equal(result, numbers)


def test_padding_after_a_native_frame_is_ignored_and_missing_bytes_are_not(
    backend: Backend,
) -> None:
    pixel = gray(1, 3, bits_allocated=8, bits_stored=8, high_bit=7, pixel_data_vr="OB")
    assert decode(backend, b"\1\2\3\0", pixel).tolist() == [[1, 2, 3]]
    with pytest.raises(DecodeError, match="2 bytes, expected 3"):
        backend.decode(b"\1\2", pixel)


def test_native_values_are_a_view_where_every_bit_counts() -> None:
    data = bytearray(words(1, 2, 3, 4))
    result = get_backend("imagecodecs").decode(data, gray(2, 2))
    data[0] = 9
    assert result[0, 0] == 9


@pytest.mark.parametrize("planar", [0, 1])
@pytest.mark.parametrize(
    "syntax", [EXPLICIT_VR_LITTLE_ENDIAN, ENCAPSULATED_UNCOMPRESSED, DEFLATED_IMAGE_FRAME]
)
def test_planar_configuration(backend: Backend, syntax: str, planar: int) -> None:
    image = streams_by_encoders.picture((4, 6, 3), 8)
    pixel = colored(4, 6, syntax=syntax, planar_configuration=planar)
    data = (np.moveaxis(image, -1, 0) if planar else image).tobytes()
    if syntax == DEFLATED_IMAGE_FRAME:
        engine = zlib.compressobj(wbits=-15)
        data = engine.compress(data) + engine.flush()
    np.testing.assert_array_equal(decode(backend, data, pixel), image)


def test_deflated_frames_end_at_the_size_of_the_frame() -> None:
    pixel = gray(8, 8, syntax=DEFLATED_IMAGE_FRAME)
    engine = zlib.compressobj(wbits=-15)
    bomb = engine.compress(b"\0" * (64 << 20)) + engine.flush()
    assert get_backend("imagecodecs").decode(bomb, pixel).shape == (8, 8)
    with pytest.raises(DecodeError, match=r"damaged|gives"):
        get_backend("imagecodecs").decode(bomb[:4], pixel)


# --- Colour ------------------------------------------------------------


def test_c1_ybr_full(backend: Backend) -> None:
    data = bytes((76, 85, 255, 149, 43, 21, 29, 255, 107, 128, 128, 128))
    result = decode(backend, data, colored(2, 2, "YBR_FULL"))
    assert result.reshape(-1, 3).tolist() == [
        [254, 0, 0],
        [0, 255, 0],
        [0, 0, 254],
        [128, 128, 128],
    ]


def test_ybr_full_is_rounded_to_nearest() -> None:
    """All 8-bit colours of a grid, against the formula of PS3.3 C.7.6.3.1.2 in exact fractions."""
    from fractions import Fraction as F

    levels = range(0, 256, 15)
    samples = [(y, b, r) for y in levels for b in levels for r in levels]
    expected = []
    for y, b, r in samples:
        red = y + F(1402, 1000) * (r - 128)
        blue = y + F(1772, 1000) * (b - 128)
        green = (y - F(299, 1000) * red - F(114, 1000) * blue) / F(587, 1000)
        expected.append(
            [min(max(math.floor(value + F(1, 2)), 0), 255) for value in (red, green, blue)]
        )
    result = color.ybr_to_rgb(np.array(samples, np.uint8), 8)
    np.testing.assert_array_equal(result, expected)


def test_c2_native_ybr_full_422(backend: Backend) -> None:
    expected = color.ybr_to_rgb(np.array([[(76, 85, 255), (150, 85, 255)]], np.uint8), 8)
    result = decode(backend, bytes((76, 150, 85, 255)), colored(1, 2, "YBR_FULL_422"))
    np.testing.assert_array_equal(result, expected)
    with pytest.raises(DecodeError, match="even number of columns"):
        get_backend("imagecodecs").decode(bytes(6), colored(1, 3, "YBR_FULL_422"))


def test_c3_native_ybr_partial_422(backend: Backend) -> None:
    result = decode(
        backend, bytes((16, 235, 128, 128, 81, 81, 90, 240)), colored(2, 2, "YBR_PARTIAL_422")
    )
    assert result[0].tolist() == [[0, 0, 0], [255, 255, 255]]
    assert result[1].tolist() == [[254, 0, 0], [254, 0, 0]]


@pytest.mark.parametrize(
    ("marks", "tag", "converted"),
    [
        pytest.param({"marker": "", "subsampling": "420"}, "RGB", True, id="C4 subsampled"),
        pytest.param({"marker": ""}, "RGB", False, id="C5 the tag says RGB"),
        pytest.param({"marker": ""}, "YBR_FULL_422", True, id="the tag says YBR"),
        pytest.param({"marker": "", "ids": b"RGB"}, "YBR_FULL", False, id="C6 components R, G, B"),
        pytest.param({"marker": "adobe0"}, "YBR_FULL", False, id="C6 Adobe transform 0"),
        pytest.param({"marker": "adobe1"}, "RGB", True, id="Adobe transform 1"),
        pytest.param({"marker": "jfif"}, "RGB", True, id="C7 JFIF"),
    ],
)
def test_color_of_dct_jpeg(
    backend: Backend, marks: dict[str, Any], tag: str, converted: bool
) -> None:
    data, samples = streams_by_encoders.dct_stream(**marks)
    result = decode(backend, data, colored(16, 16, tag, syntax=JPEG_BASELINE))
    expected = color.ybr_to_rgb(samples, 8) if converted else samples
    assert np.abs(result.astype(int) - expected).max() <= 2


@pytest.mark.parametrize("syntax", [JPEG_LOSSLESS_SV1, JPEG_LS_LOSSLESS, RLE_LOSSLESS])
@pytest.mark.parametrize("tag", ["RGB", "YBR_FULL"])
def test_c8_the_tag_decides_for_lossless_streams(backend: Backend, syntax: str, tag: str) -> None:
    image = streams_by_encoders.picture((9, 12, 3), 8)
    data, pixel = streams_by_encoders.encode(image, syntax, 8)
    if syntax == JPEG_LOSSLESS_SV1:
        assert data[2:4] != b"\xff\xe0"
        data = data[:2] + b"\xff\xe0\x00\x10JFIF\0\1\1\0\0\1\0\1\0\0" + data[2:]
    expected = image if tag == "RGB" else color.ybr_to_rgb(image, 8)
    np.testing.assert_array_equal(
        decode(backend, data, replace(pixel, photometric_interpretation=tag)), expected
    )


@pytest.mark.parametrize("mct", [True, False])
@pytest.mark.parametrize("tag", ["RGB", "YBR_RCT", "YBR_FULL"])
def test_c9_the_component_transform_decides_for_jpeg_2000(
    backend: Backend, mct: bool, tag: str
) -> None:
    image = streams_by_encoders.picture((32, 48, 3), 8)
    data = bytes(
        imagecodecs.jpeg2k_encode(image, level=0, codecformat="j2k", reversible=True, mct=mct)
    )
    expected = color.ybr_to_rgb(image, 8) if tag == "YBR_FULL" and not mct else image
    pixel = colored(32, 48, tag, syntax=JPEG_2000_LOSSLESS)
    np.testing.assert_array_equal(decode(backend, data, pixel), expected)


def test_c9_a_component_transform_that_is_not_there_is_noted_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    image = streams_by_encoders.picture((32, 48, 3), 8)
    data = bytes(imagecodecs.jpeg2k_encode(image, level=0, codecformat="j2k", mct=False))
    say_once.cache_clear()
    with caplog.at_level("WARNING", "dicomtorch"):
        for tag in ("YBR_ICT", "RGB", "YBR_ICT"):
            get_backend("imagecodecs").decode(data, colored(32, 48, tag, syntax=JPEG_2000))
    (record,) = caplog.records
    assert "YBR_ICT" in record.getMessage()
    assert "no component transform" in record.getMessage()


# --- Compressed streams ------------------------------------------------------------


@settings(max_examples=60)
@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 40),
    samples=st.sampled_from([1, 3]),
    bits=st.integers(8, 16),
    signed=st.booleans(),
    seed=st.integers(0, 999),
    syntax=st.sampled_from(sorted(streams_by_encoders.LOSSLESS)),
)
def test_what_is_encoded_is_decoded_to_the_bit_by_every_backend(
    rows: int, columns: int, samples: int, bits: int, signed: bool, seed: int, syntax: str
) -> None:
    shape = (rows, columns) if samples == 1 else (rows, columns, samples)
    if rows * columns < 2:
        columns += 1
        shape = (rows, columns, *shape[2:])
    image = streams_by_encoders.picture(shape, bits, signed=signed, seed=seed)
    data, pixel = streams_by_encoders.encode(image, syntax, bits, signed=signed)
    able = [backend for backend in map(get_backend, BACKENDS) if backend.supports(pixel)]
    assert "imagecodecs" in [backend.name for backend in able]
    for backend in able:
        result = backend.decode(data, pixel)
        assert result.dtype == image.dtype, backend
        np.testing.assert_array_equal(result, image, err_msg=backend.name)


def test_j1_a_signed_stream_stays_signed(backend: Backend) -> None:
    image = streams_by_encoders.picture((32, 32), 16, signed=True)
    data = bytes(imagecodecs.jpeg2k_encode(image, level=0, codecformat="j2k", reversible=True))
    pixel = gray(32, 32, syntax=JPEG_2000_LOSSLESS, pixel_representation=0)
    result = backend.decode(data, pixel) if backend.supports(pixel) else image
    assert result.dtype == np.int16
    np.testing.assert_array_equal(result, image)


def test_j2_an_unsigned_stream_gets_the_sign_of_the_header(backend: Backend) -> None:
    stream = np.full((32, 32), 6192, np.uint16)
    data = bytes(
        imagecodecs.jpeg2k_encode(
            stream, level=0, codecformat="j2k", bitspersample=13, reversible=True
        )
    )
    pixel = gray(
        32, 32, syntax=JPEG_2000_LOSSLESS, bits_stored=13, high_bit=12, pixel_representation=1
    )
    assert (decode(backend, data, pixel) == -2000).all()


@pytest.mark.parametrize("syntax", [JPEG_LOSSLESS_SV1, JPEG_2000_LOSSLESS, JPEG_LS_LOSSLESS])
def test_j3_j4_bits_beyond_bits_stored_of_lossless_streams_are_dropped(
    backend: Backend, syntax: str
) -> None:
    image = np.full((32, 32), 0xF123, np.uint16)
    image[1], image[2] = 0xFFFF, 0x0FFF
    data, pixel = streams_by_encoders.encode(image, syntax, 16)
    pixel = replace(pixel, bits_stored=12, high_bit=11)
    result = decode(backend, data, pixel)
    assert (result[3] == 291).all()
    signed = decode(backend, data, replace(pixel, pixel_representation=1))
    assert (signed[1] == -1).all()
    assert (signed[2] == -1).all()


def test_j5_overshoot_of_lossy_streams_is_clamped(backend: Backend) -> None:
    image = np.full((64, 64), 5000, np.uint16)
    data = bytes(imagecodecs.jpeg2k_encode(image, level=60, codecformat="j2k", reversible=False))
    pixel = gray(64, 64, syntax=JPEG_2000, bits_stored=12, high_bit=11)
    assert (decode(backend, data, pixel) == 4095).all()


@pytest.mark.parametrize("syntax", [JPEG_2000, JPEG_2000_LOSSLESS])
def test_jp2_boxes_are_unwrapped(backend: Backend, syntax: str) -> None:
    image = streams_by_encoders.picture((40, 24), 12)
    data = bytes(
        imagecodecs.jpeg2k_encode(
            image, level=0, codecformat="jp2", bitspersample=12, reversible=True
        )
    )
    assert data[4:8] == b"jP  "
    pixel = streams_by_encoders.pixel_of(image, syntax, 12)
    np.testing.assert_array_equal(decode(backend, data, pixel), image)


def test_rle_that_ends_as_some_encoders_end_it() -> None:
    """PS3.5 G.3.2: decoding stops when all bytes are there."""
    image = streams_by_encoders.picture((9, 7), 8)
    data, pixel = streams_by_encoders.encode(image, RLE_LOSSLESS, 8)
    plain = data[:64] + bytes(imagecodecs.packbits_encode(image.tobytes()))
    for tail in (b"\x20", b"\x00", b"\x80", b"\x80\x80", b"\xff\x07"):
        np.testing.assert_array_equal(get_backend("imagecodecs").decode(plain + tail, pixel), image)
    with pytest.raises(DecodeError, match="segment 0"):
        get_backend("imagecodecs").decode(plain[:-3], pixel)


def test_b10_one_bit_rle_is_packed() -> None:
    bits = (np.arange(3 * 7) % 3 == 0).reshape(3, 7).astype(np.uint8)
    packed = np.packbits(bits.reshape(-1), bitorder="little").tobytes()
    data = words(1, 64, *[0] * 14, dtype="<u4") + bytes(imagecodecs.packbits_encode(packed))
    pixel = gray(3, 7, syntax=RLE_LOSSLESS, bits_allocated=1, bits_stored=1, high_bit=0)
    np.testing.assert_array_equal(get_backend("imagecodecs").decode(data, pixel), bits)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("family", sorted(fuzz_backends.FAMILIES))
def test_truncated_frames_are_refused_within_10_ms(family: str) -> None:
    backend = get_backend("imagecodecs")
    for data, pixel in fuzz_backends.own_frames(family):
        times = []
        for cut in (0, 1, 30, len(data) // 2, len(data) * 9 // 10, len(data) - 3):
            start = time.process_time()
            with pytest.raises(DecodeError):
                backend.decode(data[:cut], pixel)
            times.append(time.process_time() - start)
        assert sorted(times)[-2] < 0.01, pixel  # one may have met a busy machine


@pytest.mark.parametrize("syntax", [RLE_LOSSLESS, JPEG_LS_LOSSLESS, JPEG_2000_LOSSLESS])
def test_frames_that_lack_their_last_bytes_are_refused_by_every_backend(
    backend: Backend, syntax: str
) -> None:
    image = streams_by_encoders.picture((64, 64), 12)
    data, pixel = streams_by_encoders.encode(image, syntax, 12)
    np.testing.assert_array_equal(decode(backend, data, pixel), image)
    for missing in (3, 10, 40):
        with pytest.raises(DecodeError):
            backend.decode(data[:-missing], pixel)


def test_rle_that_was_cut_is_refused_by_its_last_segment(backend: Backend) -> None:
    """Before the segments that are whole are decoded or counted, which takes ten times as long."""
    image = streams_by_encoders.picture((1200, 1200, 3), 8)
    data, pixel = streams_by_encoders.encode(image, RLE_LOSSLESS, 8)
    cut = data[:-40]

    def refuse() -> None:
        with pytest.raises(DecodeError, match="RLE segment 2 "):
            backend.decode(cut, pixel)

    part = 1.0 if backend.name == "imagecodecs" else 0.25
    assert fastest(refuse) < part * fastest(lambda: backend.decode(data, pixel))


def fastest(work: Callable[[], object]) -> float:
    times = []
    for _ in range(4):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def test_truncated_jpeg_ls_of_usual_size_is_refused_at_once() -> None:
    image = streams_by_encoders.picture((512, 512), 12)
    data, pixel = streams_by_encoders.encode(image, JPEG_LS_LOSSLESS, 12)
    start = time.process_time()
    with pytest.raises(DecodeError):
        get_backend("imagecodecs").decode(data[: len(data) // 2], pixel)
    assert time.process_time() - start < 0.5  # without an end marker CharLS takes seconds


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_htj2k_that_stops_in_the_middle_is_an_error() -> None:
    image = streams_by_encoders.picture((64, 48), 12)
    data, pixel = streams_by_encoders.encode(image, HTJ2K_LOSSLESS, 12)
    start = data.index(b"\xff\x93") + 2
    refused = 0
    for at in range(start, len(data) - 2, 37):
        broken = data[:at] + b"\xff" * 12 + data[at + 12 :]
        try:
            get_backend("imagecodecs").decode(broken, pixel)
        except DecodeError:
            refused += 1
    assert refused


# --- The contract ------------------------------------------------------------


def test_backends_are_picklable_and_say_who_they_are(backend: Backend) -> None:
    assert pickle.loads(pickle.dumps(backend)).name == backend.name
    assert isinstance(backend, Backend)
    assert backend.name in BACKENDS
    assert not backend.supports(gray(4, 4, syntax="1.2.840.10008.1.2.4.102"))
    assert not backend.supports(gray(4, 4, bits_stored=12, high_bit=10))


def test_backends_are_thread_safe(backend: Backend) -> None:
    cases = []
    for seed, bits in enumerate((8, 12, 16, 8)):
        image = streams_by_encoders.picture((40 + seed, 30), bits, seed=seed)
        for syntax in (RLE_LOSSLESS, JPEG_2000_LOSSLESS, JPEG_LS_LOSSLESS):
            data, pixel = streams_by_encoders.encode(image, syntax, bits)
            if backend.supports(pixel):
                cases.append((data, pixel, image))
    problems: list[object] = []

    def work(offset: int) -> None:
        for k in range(len(cases)):
            data, pixel, image = cases[(k + offset) % len(cases)]
            try:
                np.testing.assert_array_equal(backend.decode(data, pixel), image)
            except Exception as error:
                problems.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cases
    assert problems == []


def test_what_no_backend_decodes_is_named() -> None:
    with pytest.raises(UnsupportedError, match="MPEG-4 AVC"):
        choose_backend("auto", gray(4, 4, syntax="1.2.840.10008.1.2.4.102"))
    with pytest.raises(OptionError, match="known"):
        get_backend("gdcm")


def test_modules_are_imported_without_their_libraries() -> None:
    code = (
        "import sys\n"
        "for name in ('imagecodecs', 'pydicom', 'SimpleITK', 'torch'):\n"
        "    sys.modules[name] = None\n"
        "import dicomtorch.backends.imagecodecs, dicomtorch.backends.pydicom, dicomtorch.backends.simpleitk\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, cwd=REPOSITORY)


def test_pydicom_never_reaches_gdcm(monkeypatch: pytest.MonkeyPatch) -> None:
    from dicomtorch.backends import pydicom as module

    assert all("gdcm" not in plugins for plugins in module._PLUGINS.values())

    class PanicException(BaseException):
        pass

    class Decoder:
        def as_array(self, *_: object, **__: object) -> None:
            raise PanicException("index out of bounds")

    monkeypatch.setattr(module, "_decoder", lambda _: Decoder())
    data, pixel = streams_by_encoders.encode(
        streams_by_encoders.picture((4, 4), 8), RLE_LOSSLESS, 8
    )
    with pytest.raises(DecodeError, match="out of bounds"):
        module._run(data, pixel, "pylibjpeg")


# --- Real samples ------------------------------------------------------------

_INVALID_SCAN = "its sequential scan header has Se = 0 where ISO/IEC 10918-1 table B.3 wants 63; libjpeg refuses it"
EXCEPTIONS = {
    ("pylibjpeg", "pydicom__pydicom/src/pydicom/data/test_files/JPEG-lossy.dcm"): _INVALID_SCAN,
    ("pylibjpeg", "robyoung__dicom-test-files/data/WG04/JPLY/MR1_JPLY"): _INVALID_SCAN,
    ("pylibjpeg", "robyoung__dicom-test-files/data/WG04/JPLY/RG3_JPLY"): _INVALID_SCAN,
    ("pillow", "pydicom__pydicom/src/pydicom/data/test_files/GDCMJ2K_TextGBR.dcm"): (
        "each of its tiles has six tile-parts where TNsot says five; Pillow refuses it, the other decoders read it"
    ),
}
"""Frames with a reference that a plug-in of pydicom does not decode although it decodes the kind."""

WITHOUT_PIXELS_TO_DECODE = {
    "fo-dicom__fo-dicom/Tests/FO-DICOM.Tests/Test_Data/genFile.dcm": "SOI at byte 0",  # native words labelled as JPEG
    "orthanc-mirrors__orthanc-tests/Database/2026-05-26-oob-monochrome-65535.dcm": "pixels_per_frame",
    # FE FF DD E0 was written over Rsiz and half of Xsiz, on purpose; OpenJPEG, Pillow and SimpleITK refuse it, too.
    "pydicom__pydicom/src/pydicom/data/test_files/JPEG2000-embedded-sequence-delimiter.dcm": "SIZ",
    "pydicom__pydicom/src/pydicom/data/test_files/MR_truncated.dcm": "8130 bytes, expected 8192",
    "pydicom__pylibjpeg-data/ljdata/ds/JPEG2000Lossless/966.dcm": "tile-part",  # a COM marker after the tile
}


def references() -> dict[str, Any]:
    folder = samples_folder()
    if folder is None:
        return {}
    golden: dict[str, Any] = json.loads((folder / "golden.json").read_text())
    return {name: entry for name, entry in golden.items() if "frames" in entry}


def difference(result: np.ndarray[Any, Any], reference: dict[str, Any], pixel: ImagePixel) -> int:
    """Largest difference from a reference: 0 if the hash agrees, else over its points and its mean."""
    assert list(result.shape) == reference["shape"]
    digest = hashlib.sha256(result.astype("<i8").astype("<i4").tobytes()).hexdigest()
    if digest == reference["sha256"]:
        return 0
    flat = result.reshape(-1).astype(np.int64)
    worst = max(abs(int(flat[int(at)]) - int(value)) for at, value in reference["points"])
    return max(worst, int(np.ceil(abs(float(flat.mean()) - reference["mean"]))), 1)


@pytest.mark.parametrize("name", sorted(references()) or [pytest.param("", id="none")])
def test_samples_have_the_values_of_their_references(name: str) -> None:
    require("samples")
    folder, entry = samples_folder(), references_of(name)
    assert folder is not None
    ds = frames_by_pydicom.read(folder / name)
    pixel = frames_by_pydicom.image_pixel(ds)
    wrong = entry.get("must_fail", {})
    frames = frames_by_pydicom.frames(ds, {int(key) for key in (*entry["frames"], *wrong)})
    # A reference that was converted from YCbCr may differ by 2 between correct decoders.
    lossy, ybr = not entry["exact"], "YBR" in pixel.photometric_interpretation
    tolerance = entry["spread"] + 2 if lossy else 2 if ybr else 0
    able = [backend for backend in map(get_backend, BACKENDS) if backend.supports(pixel)]
    assert "imagecodecs" in [backend.name for backend in able]
    for backend in able:
        if backend.name == "pydicom" and (plugin_of(pixel), name) in EXCEPTIONS:
            with pytest.raises(DecodeError):
                backend.decode(frames[0], pixel)
            continue
        for key, reference in entry["frames"].items():
            result = decode(backend, frames[int(key)], pixel)
            assert difference(result, reference, pixel) <= tolerance, (backend.name, key)
        for key in wrong:
            with pytest.raises(DecodeError, match="rows"):
                backend.decode(frames[int(key)], pixel)


def plugin_of(pixel: ImagePixel) -> str:
    """The plug-in of pydicom that decodes `pixel`."""
    from dicomtorch.backends import pydicom as module

    return "" if pixel.transfer_syntax_uid in NATIVE else module._plugin(pixel)


_REFERENCES = references()


def references_of(name: str) -> dict[str, Any]:
    entry: dict[str, Any] = _REFERENCES[name]
    return entry


@pytest.mark.parametrize("name", sorted(WITHOUT_PIXELS_TO_DECODE))
def test_samples_without_an_image_are_refused(name: str) -> None:
    require("samples")
    folder = samples_folder()
    assert folder is not None
    ds = frames_by_pydicom.read(folder / name)
    pixel = frames_by_pydicom.image_pixel(ds)
    data = frames_by_pydicom.frames(ds, {0})[0]
    start = time.process_time()
    with pytest.raises(DecodeError, match=WITHOUT_PIXELS_TO_DECODE[name]):
        get_backend("imagecodecs").decode(data, pixel)
    assert time.process_time() - start < 1


_ORTHANC = "orthanc-mirrors__orthanc-tests/history-2b7423ff"


def test_samples_of_kinds_that_only_imagecodecs_decodes() -> None:
    """JPEG XL recompression and 12-bit packed words have no other decoder here: ranges that a viewer shows."""
    require("samples")
    folder = samples_folder()
    assert folder is not None
    backend = get_backend("imagecodecs")
    for name, shape, top in (
        ("dcm4che__dcm4che/dcm4che-test-data/src/main/resources/will-jxl.dcm", (708, 1016, 3), 255),
        (
            f"{_ORTHANC}/Database/TransferSyntaxes/1.2.840.10008.1.2.dcm",
            (256, 256),
            266,
        ),
    ):
        ds = frames_by_pydicom.read(folder / name)
        result = backend.decode(
            frames_by_pydicom.frames(ds, {0})[0], frames_by_pydicom.image_pixel(ds)
        )
        assert result.shape == shape
        assert (int(result.min()), int(result.max())) == (0, top)


# --- Fuzz ------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("family", sorted(fuzz_backends.FAMILIES))
@pytest.mark.parametrize("name", list(BACKENDS))
def test_mutated_frames_neither_kill_nor_hang_nor_surprise(
    name: str, family: str, tmp_path: Path
) -> None:
    """DICOMTORCH_FUZZ_SECONDS=60 gives each family a minute instead of a moment, with every backend."""
    seconds = float(os.environ.get("DICOMTORCH_FUZZ_SECONDS", "0"))
    if name != "imagecodecs":
        require(LIBRARIES[name])
        if not seconds:
            pytest.skip("DICOMTORCH_FUZZ_SECONDS is not set")
        if (name, family) == ("simpleitk", "jpeg_ls"):
            seconds = min(seconds, 30)  # then GDCM has kept 1 GB of the frames that it refused
    seconds = seconds or 0.7
    seed = int(os.environ.get("DICOMTORCH_FUZZ_SEED", "1"))
    with (tmp_path / "progress").open("w+b") as progress:
        progress.write(b"\0" * 8)
        progress.flush()
        command = [
            sys.executable,
            "-m",
            "tests.long.fuzz_backends",
            "--family",
            family,
            "--backend",
            name,
            "--seconds",
            str(seconds),
        ]
        command += ["--seed", str(seed), "--progress", str(progress.fileno())]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        try:
            done = subprocess.run(
                command,
                cwd=REPOSITORY,
                env=environment,
                capture_output=True,
                text=True,
                timeout=seconds + 60,
                pass_fds=[progress.fileno()],
                check=False,
            )
            outcome, errors = str(done.returncode), done.stderr[-2000:]
        except subprocess.TimeoutExpired:
            outcome, errors = "hangs", ""
        progress.seek(0)
        number = int.from_bytes(progress.read(8), "little")
    repeat = f"python -m tests.long.fuzz_backends --backend {name} --family {family} --seed {seed} --only {number}"
    assert outcome == "0", (
        f"exit status {outcome} at mutation {number}; repeat with: {repeat}\n{errors}"
    )


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", ["imagecodecs", "pydicom"])
def test_changed_segments_of_jpeg_2000_kill_no_process(name: str) -> None:
    """DICOMTORCH_FUZZ_SECONDS=600 gives it ten minutes instead of a moment."""
    require(LIBRARIES[name])
    seconds = float(os.environ.get("DICOMTORCH_FUZZ_SECONDS", "0")) or 6
    counts, deaths = fuzz_segments.parent(name, seconds, seed=7)
    assert deaths == []
    assert counts["decoded"] > 0
    assert counts["refused"] > 0


def test_the_fuzz_loop_finds_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    class Careless:
        name = "careless"

        def supports(self, pixel: ImagePixel) -> bool:
            return True

        def decode(
            self, data: bytes, pixel: ImagePixel, out: object = None
        ) -> np.ndarray[Any, Any]:
            if len(data) % 2:
                raise IndexError("out of range")
            raise DicomTorchError("damaged")

    monkeypatch.setattr(fuzz_backends, "get_backend", lambda _: Careless())
    monkeypatch.setattr(fuzz_backends, "limit_memory", lambda: None)
    assert "IndexError" in fuzz_backends.run("rle", "careless", 5, 0, -1, -1)
