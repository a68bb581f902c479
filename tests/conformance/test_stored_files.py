"""Stored values, colour and encapsulation, each case as a file: from bytes on disk over the index to the tensor.

PS3.5 section 8 and annex A.4 (encoding, encapsulation), PS3.3 C.7.6.3 (image pixel, photometric interpretation).
"""

from __future__ import annotations

import errno
import os
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
)

from dicomtorch import DicomFrames, FrameReader, scan
from dicomtorch.backends.base import BACKENDS, get_backend
from dicomtorch.errors import DecodeError, DicomTorchError, EncapsulationError, StorageError
from dicomtorch.model.frame import SPAN_RULES
from dicomtorch.model.report import ScanReport
from dicomtorch.model.syntaxes import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    DEFLATED_IMAGE_FRAME,
    ENCAPSULATED_UNCOMPRESSED,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    HTJ2K_FAMILY,
    IMPLICIT_VR_LITTLE_ENDIAN,
    JPEG_2000,
    JPEG_2000_FAMILY,
    JPEG_2000_LOSSLESS,
    JPEG_BASELINE,
    JPEG_LOSSLESS_FAMILY,
    JPEG_LOSSLESS_SV1,
    JPEG_LS_FAMILY,
    JPEG_LS_LOSSLESS,
    JPEG_XL_LOSSLESS,
    NATIVE,
    RLE_LOSSLESS,
)
from dicomtorch.reader.cache import FrameCache
from dicomtorch.reader.windows import read_windows
from dicomtorch.storage import local as storage
from tests.support import streams_by_encoders as streams
from tests.support.phantoms import close, every_way, image, write

BE = ExplicitVRBigEndian
RGB: dict[str, Any] = {
    "SamplesPerPixel": 3,
    "PhotometricInterpretation": "RGB",
    "PlanarConfiguration": 0,
}


def stored_of(path: Path) -> np.ndarray[Any, Any]:
    """Stored values of all frames: as the index and a reader give them, after every way has given the same."""
    found = every_way(path, values="stored")
    reader = FrameReader(found.index)
    single = np.stack([reader.read_stored(k) for k in range(len(found.index))])
    channels_last = np.moveaxis(found.images, 1, -1)
    np.testing.assert_array_equal(channels_last.reshape(single.shape), single)
    return single


# --- 6. Stored values ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "about", "expected"),
    [
        pytest.param(b"\xc7\xab", (16, 12, 15, 0), [2748], id="B1"),
        pytest.param(b"\xc7\xab", (16, 12, 15, 1), [-1348], id="B1 signed"),
        pytest.param(b"\x23\xf1", (16, 12, 11, 0), [291], id="B2"),
        pytest.param(b"\xff\x0f\xff\xf7\x00\x08", (16, 12, 11, 1), [-1, 2047, -2048], id="B3"),
        pytest.param(b"\xff\0", (8, 7, 6, 0), [127], id="B4"),
        pytest.param(b"\xff\0", (8, 7, 6, 1), [-1], id="B4 signed"),
        pytest.param(b"\xff" * 4, (32, 32, 31, 0), [4294967295], id="B5"),
        pytest.param(b"\xff" * 4, (32, 32, 31, 1), [-1], id="B5 signed"),
        pytest.param(b"\xbc\x3a\x12\0", (12, 12, 11, 0), [2748, 291], id="B9"),
    ],
)
@pytest.mark.parametrize(
    "syntax", [EXPLICIT_VR_LITTLE_ENDIAN, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian]
)
def test_bits(
    tmp_path: Path, data: bytes, about: tuple[int, ...], expected: list[int], syntax: str
) -> None:
    allocated, bits, high, signed = about
    dataset = image(
        np.zeros(len(expected), "u2"),
        syntax,
        BitsAllocated=allocated,
        BitsStored=bits,
        PixelRepresentation=signed,
        PixelData=data,
    )
    dataset.HighBit = high
    path = write(dataset, tmp_path / "case.dcm")
    assert stored_of(path).reshape(-1).tolist() == expected
    index, _ = scan(path)
    columns = ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")
    assert tuple(index.column(name)[0] for name in columns) == about
    assert index.column("TransferSyntaxUID")[0] == syntax


def test_b5_is_int64(tmp_path: Path) -> None:
    dataset = image(np.array([0xFFFFFFFF], "u4"))
    frames = DicomFrames(write(dataset, tmp_path / "case.dcm"), values="stored")
    assert str(frames[0][0].dtype) == "torch.int64"


def big_endian(data: bytes, shape: tuple[int, ...], bits: int, vr: str, **more: Any) -> Dataset:
    dataset = image(np.zeros(shape, "u1"), BE, BitsAllocated=bits, BitsStored=bits, **more)
    dataset.HighBit, dataset.PixelData = bits - 1, data
    dataset["PixelData"].VR = vr
    return dataset


@pytest.mark.parametrize(
    ("data", "shape", "bits", "vr", "expected"),
    [
        pytest.param(b"\x0e\xe8\x00\x13", (1, 1), 32, "OW", [1249000], id="B6"),
        pytest.param(b"\2\1\4\3", (1, 4), 8, "OW", [1, 2, 3, 4], id="B7 OW"),
        pytest.param(b"\1\2\3\4", (1, 4), 8, "OB", [1, 2, 3, 4], id="B7 OB"),
        pytest.param(b"\2\1\4\3\6\5", (2, 1, 3), 8, "OW", range(1, 7), id="B7 two frames"),
        pytest.param(b"\2\1\4\3\0\5", (5, 1, 1), 8, "OW", range(1, 6), id="B7 five frames"),
        pytest.param(b"\1\2\3\4\5\0", (5, 1, 1), 8, "OB", range(1, 6), id="B7 OB five frames"),
        # B9 in words: frame 1 begins at bit 8 of the second.
        pytest.param(
            bytes.fromhex("3abc 6512 6954"),
            (2, 1, 2),
            12,
            "OW",
            [0xABC, 0x123, 0x465, 0x695],
            id="B9",
        ),
        # B8 in words: frame 1 begins at bit 9 of the first.
        pytest.param(
            b"\xff\x55\x00\x03", (2, 3, 3), 1, "OW", [1, 0, 1, 0, 1, 0, 1, 0, 1] + [1] * 9, id="B8"
        ),
    ],
)
def test_explicit_big_endian(
    tmp_path: Path, data: bytes, shape: Any, bits: int, vr: str, expected: Sequence[int]
) -> None:
    path = write(big_endian(data, shape, bits, vr), tmp_path / "case.dcm")
    assert stored_of(path).reshape(-1).tolist() == list(expected)
    index, _ = scan(path)
    assert index.column("pixel_data_vr")[0] == vr
    for backend in BACKENDS:
        if get_backend(backend).supports(index.image_pixel(0)):
            reader = FrameReader(index, backend)
            found = np.stack([reader.read_stored(k) for k in range(len(index))])
            assert found.reshape(-1).tolist() == list(expected), backend


@settings(max_examples=25)
@given(
    bits=st.sampled_from([1, 8]),
    rows=st.integers(1, 5),
    columns=st.integers(1, 5),
    frames=st.integers(1, 5),
    samples=st.sampled_from([1, 3]),
    seed=st.integers(0, 99),
)
def test_big_endian_words_hold_frames_of_any_size(
    tmp_path_factory: pytest.TempPathFactory,
    bits: int,
    rows: int,
    columns: int,
    frames: int,
    samples: int,
    seed: int,
) -> None:
    samples = 1 if bits == 1 else samples
    shape = (frames, rows, columns) + ((3,) if samples == 3 else ())
    cells = np.random.default_rng(seed).integers(0, 1 << bits, shape).astype("u1")
    flat = np.packbits(cells.reshape(-1), bitorder="little") if bits == 1 else cells.reshape(-1)
    words = np.pad(flat, (0, flat.size % 2)).reshape(-1, 2)[:, ::-1]
    more = RGB if samples == 3 else {}
    dataset = big_endian(words.tobytes(), shape[:3], bits, "OW", **more)
    path = write(dataset, tmp_path_factory.mktemp("words") / "case.dcm")
    np.testing.assert_array_equal(stored_of(path), cells)


def test_big_endian_words_that_are_cut_off(tmp_path: Path) -> None:
    path = write(big_endian(b"\2\1\4\3\6\5", (2, 1, 3), 8, "OW"), tmp_path / "case.dcm")
    path.write_bytes(path.read_bytes()[:-1])
    index, report = scan(path)
    assert len(index) == 1
    assert "2 frames claimed, 1 found" in report.findings[0].reason


def test_b8_bits_run_on_over_bytes(tmp_path: Path) -> None:
    dataset = image(
        np.zeros((2, 3, 3), "u1"), BitsAllocated=1, BitsStored=1, PixelData=b"\x55\xff\x03\x00"
    )
    path = write(dataset, tmp_path / "case.dcm")
    assert stored_of(path).reshape(-1).tolist() == [1, 0, 1, 0, 1, 0, 1, 0, 1] + [1] * 9
    index, _ = scan(path)
    assert [index.column("offset")[1] - index.column("offset")[0], index.column("bit_offset")[1]] == [1, 1]  # fmt: skip


@pytest.mark.parametrize("syntax", [RLE_LOSSLESS, DEFLATED_IMAGE_FRAME])
def test_b10_bits_of_compressed_frames(tmp_path: Path, syntax: str) -> None:
    bits = np.random.default_rng(1).integers(0, 2, (3, 5, 7)).astype("u1")
    packed = [np.packbits(frame.reshape(-1), bitorder="little").tobytes() for frame in bits]
    if syntax == RLE_LOSSLESS:
        header = struct.pack("<16I", 1, 64, *[0] * 14)
        data = [header + bytes(imagecodecs.packbits_encode(one)) for one in packed]
    else:
        data = [zlib.compress(one, wbits=-15) for one in packed]
    dataset = image(np.zeros((3, 5, 7), "u1"), syntax, BitsAllocated=1, BitsStored=1)
    path = write(with_items(dataset, [pad(one) for one in data]), tmp_path / "case.dcm")
    np.testing.assert_array_equal(stored_of(path), bits)


@pytest.mark.parametrize("kind", ["rle", "deflate", "j2k"])
def test_b10_samples(samples: Path, kind: str) -> None:
    native, compressed = (
        scan(next(samples.rglob(f"liver_nonbyte_aligned{name}.dcm")))[0]
        for name in ("", f"_{kind}")
    )
    assert len(native) == len(compressed) == 3
    for k in range(3):
        np.testing.assert_array_equal(
            FrameReader(compressed).read_stored(k), FrameReader(native).read_stored(k)
        )
    if kind == "rle":
        assert -(-native.image_pixel(0).native_bits // 8) == 32_513


def test_b5_and_j1_samples(samples: Path) -> None:
    index, _ = scan(next(samples.rglob("SC_rgb_32bit.dcm")))
    assert FrameReader(index).read_stored(0).max() == 4294967295
    index, _ = scan(next(samples.rglob("TOSHIBA_J2K_SIZ1_PixRep0.dcm")))
    stored = FrameReader(index).read_stored(0)
    assert stored.dtype == np.int16
    assert (stored.min(), stored.max()) == (-2048, 1717)
    close(stored.mean(), -861.318058)
    frames = DicomFrames(index, values="stored")
    np.testing.assert_array_equal(frames[[0]][0][0, 0], stored)


def test_j6_sample(samples: Path) -> None:
    index, _ = scan(next(samples.rglob("multiframe.dcm")))
    with pytest.raises(DecodeError, match=r"frame 139 .*121.*55|frame 139 .*55.*121") as caught:
        FrameReader(index).read_stored(index.find(frame=139))
    assert "Rows 240" in str(caught.value)


def pad(data: bytes) -> bytes:
    return data + b"\0" * (len(data) % 2)


def with_items(
    dataset: Dataset, fragments: Sequence[bytes], table: Sequence[int] = (), end: bool = True
) -> Dataset:
    """The data set with these items behind this Basic Offset Table, byte by byte."""
    parts = [struct.pack(f"<{len(table)}I", *table), *fragments]
    items = b"".join(struct.pack("<II", 0xE000FFFE, len(part)) + part for part in parts)
    # pydicom appends the delimiter itself.
    dataset.PixelData = items
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return dataset


def single(
    tmp_path: Path, syntax: str, stream: bytes, shape: tuple[int, ...], bits: int, **more: Any
) -> Path:
    """A file of one compressed frame."""
    dtype = f"u{1 if bits <= 8 and more.get('BitsAllocated') != 16 else 2}"
    dataset = image(np.zeros(shape[:2], dtype), syntax, BitsStored=bits, **more)
    return write(with_items(dataset, [pad(stream)]), tmp_path / "case.dcm")


@pytest.mark.parametrize(
    ("stream_bits", "bits", "signed", "value", "expected"),
    [
        pytest.param(13, 13, 1, 6192, -2000, id="J2"),
        pytest.param(16, 12, 1, 0x0FFF, -1, id="J3"),
        pytest.param(16, 12, 1, 0xFFFF, -1, id="J3 all bits"),
        pytest.param(16, 12, 0, 0xF123, 291, id="J4"),
    ],
)
def test_bits_of_streams(
    tmp_path: Path, stream_bits: int, bits: int, signed: int, value: int, expected: int
) -> None:
    stream = streams.jpeg_2000(np.full((8, 8), value, "u2"), stream_bits)
    path = single(tmp_path, JPEG_2000_LOSSLESS, stream, (8, 8), bits, PixelRepresentation=signed)
    assert np.unique(stored_of(path)).tolist() == [expected]


def test_j1_the_sign_of_the_stream(tmp_path: Path) -> None:
    values = np.array([[-2000, 1700], [0, -1]], "i2").repeat(4, 0).repeat(4, 1)
    stream = streams.jpeg_2000(values, 16)
    path = single(tmp_path, JPEG_2000_LOSSLESS, stream, (8, 8), 16)
    np.testing.assert_array_equal(stored_of(path)[0], values)


def test_j5_overshoot_of_lossy_streams_is_clamped(tmp_path: Path) -> None:
    stream = imagecodecs.jpeg2k_encode(
        np.full((8, 8), 4097, "u2"), level=60, codecformat="j2k", bitspersample=16
    )
    path = single(tmp_path, JPEG_2000, bytes(stream), (8, 8), 12)
    assert np.unique(stored_of(path)).tolist() == [4095]


def test_j6_streams_of_another_size(tmp_path: Path) -> None:
    stream = streams.jpeg_2000(np.zeros((55, 121), "u2"), 16)
    path = single(tmp_path, JPEG_2000_LOSSLESS, stream, (24, 24), 16)
    frames = DicomFrames(scan(path)[0])
    for ask in (0, [0]):
        with pytest.raises(DecodeError, match=r"55 rows, 121 columns.*Rows 24.*Columns 24"):
            frames[ask]


# --- 7. Colour -----------------------------------------------------------------------------------------


def color(tmp_path: Path, data: bytes, shape: tuple[int, ...], tag: str, **more: Any) -> Path:
    attributes = {**RGB, "PhotometricInterpretation": tag, "PixelData": data, **more}
    return write(image(np.zeros(shape, "u1"), **attributes), tmp_path / "case.dcm")


def test_c1_ybr_full(tmp_path: Path) -> None:
    data = bytes((76, 85, 255, 149, 43, 21, 29, 255, 107, 128, 128, 128))
    path = color(tmp_path, data, (2, 2), "YBR_FULL")
    expected = [[254, 0, 0], [0, 255, 0], [0, 0, 254], [128, 128, 128]]
    assert stored_of(path).reshape(-1, 3).tolist() == expected
    found = every_way(path)
    close(found.images[0], np.array(expected).T / 255)
    assert found.index.column("PhotometricInterpretation")[0] == "YBR_FULL"


def test_c2_c3_subsampled_native_colour(tmp_path: Path) -> None:
    path = color(tmp_path, bytes((76, 150, 85, 255)), (1, 2), "YBR_FULL_422")
    full = color(tmp_path / "full", bytes((76, 85, 255, 150, 85, 255)), (1, 2), "YBR_FULL")
    np.testing.assert_array_equal(stored_of(path), stored_of(full))
    data = bytes((16, 235, 128, 128, 81, 81, 90, 240))
    path = color(tmp_path, data, (1, 4), "YBR_PARTIAL_422")
    expected = [[0, 0, 0], [255, 255, 255], [254, 0, 0], [254, 0, 0]]
    assert stored_of(path).reshape(-1, 3).tolist() == expected


@pytest.mark.parametrize("planar", [0, 1])
@pytest.mark.parametrize("syntax", [EXPLICIT_VR_LITTLE_ENDIAN, ENCAPSULATED_UNCOMPRESSED])
def test_planes(tmp_path: Path, planar: int, syntax: str) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (2, 3, 5, 3)).astype("u1")
    data = [(np.moveaxis(frame, -1, 0) if planar else frame).tobytes() for frame in pixels]
    dataset = image(np.zeros((2, 3, 5), "u1"), syntax, **{**RGB, "PlanarConfiguration": planar})
    if syntax == ENCAPSULATED_UNCOMPRESSED:
        with_items(dataset, [pad(one) for one in data])
    else:
        dataset.PixelData = b"".join(data)
    np.testing.assert_array_equal(stored_of(write(dataset, tmp_path / "case.dcm")), pixels)


@pytest.mark.parametrize(
    ("marks", "tag", "converted"),
    [
        pytest.param({"marker": "", "subsampling": "420"}, "RGB", True, id="C4"),
        pytest.param({"marker": ""}, "RGB", False, id="C5"),
        pytest.param({"marker": "", "ids": b"RGB"}, "YBR_FULL", False, id="C6 ids"),
        pytest.param({"marker": "adobe0"}, "YBR_FULL", False, id="C6 Adobe"),
        pytest.param({"marker": "jfif"}, "RGB", True, id="C7"),
    ],
)
def test_marks_of_jpeg(tmp_path: Path, marks: dict[str, Any], tag: str, converted: bool) -> None:
    stream, values = streams.dct_stream(**marks)
    more = {**RGB, "PhotometricInterpretation": tag}
    path = single(tmp_path, JPEG_BASELINE, stream, (16, 16), 8, **more)
    y, cb, cr = (float(v) for v in values[0, 0])
    red, blue = y + 1.402 * (cr - 128), y + 1.772 * (cb - 128)
    rgb = [red, (y - 0.299 * red - 0.114 * blue) / 0.587, blue] if converted else [y, cb, cr]
    assert np.abs(stored_of(path) - np.array(rgb)).max() <= 2.5


@pytest.mark.parametrize("tag", ["RGB", "YBR_FULL"])
@pytest.mark.parametrize("syntax", [JPEG_LOSSLESS_SV1, JPEG_LS_LOSSLESS, RLE_LOSSLESS])
def test_c8_lossless_streams_follow_the_tag(tmp_path: Path, tag: str, syntax: str) -> None:
    values = np.tile(np.array([149, 43, 21], "u1"), (6, 8, 1))
    stream, _ = streams.encode(values, syntax, 8)
    if syntax == JPEG_LOSSLESS_SV1:
        stream = stream[:2] + b"\xff\xe0\x00\x10JFIF\0\1\1\0\0\1\0\1\0\0" + stream[2:]
    more = {**RGB, "PhotometricInterpretation": tag}
    path = single(tmp_path, syntax, stream, (6, 8), 8, **more)
    expected = [0, 255, 0] if tag == "YBR_FULL" else [149, 43, 21]
    assert np.unique(stored_of(path).reshape(-1, 3), axis=0).tolist() == [expected]


@pytest.mark.parametrize(
    ("transform", "tag", "converted"),
    [
        (True, "RGB", False),
        (True, "YBR_RCT", False),
        (False, "YBR_RCT", False),
        (False, "YBR_FULL", True),
    ],
)
def test_c9_component_transform(tmp_path: Path, transform: bool, tag: str, converted: bool) -> None:
    values = np.tile(np.array([149, 43, 21], "u1"), (16, 16, 1))
    stream = imagecodecs.jpeg2k_encode(
        values, level=0, codecformat="j2k", reversible=True, mct=transform
    )
    more = {**RGB, "PhotometricInterpretation": tag}
    path = single(tmp_path, JPEG_2000_LOSSLESS, bytes(stream), (16, 16), 8, **more)
    expected = [0, 255, 0] if converted else [149, 43, 21]
    assert np.unique(stored_of(path).reshape(-1, 3), axis=0).tolist() == [expected]


def test_c10_windows_do_not_apply_to_colour(tmp_path: Path) -> None:
    found = every_way(
        color(tmp_path, bytes((255, 0, 51)), (1, 1), "RGB", WindowCenter=128, WindowWidth=10)
    )
    close(found.flat, [1, 0, 0.2])
    assert found.meta[0]["voi"] == "full"
    data = np.array([1278, 4095, 0], "<u2").tobytes()
    path = color(tmp_path, data, (1, 1), "RGB", BitsAllocated=16, BitsStored=12, HighBit=11)
    close(every_way(path).flat, [0.312088, 1, 0])


def test_c10_samples(samples: Path) -> None:
    for name, bits in (("I_000007.dcm", 8), ("SIEMENS-MR-RGB-16Bits.dcm", 0)):
        index, _ = scan(next(samples.rglob(name)))
        pixel = index.image_pixel(0)
        stored = FrameReader(index).read_stored(0)
        shown = DicomFrames(index)[0][0].numpy()
        close(np.moveaxis(shown, 0, -1), stored / (2 ** (bits or pixel.bits_stored) - 1))


def test_c4_c7_samples(samples: Path) -> None:
    index, _ = scan(next(samples.rglob("SC_rgb_jpeg_lossy_gdcm.dcm")))
    stored = FrameReader(index).read_stored(0)
    for at, rgb in {5: (254, 0, 0), 25: (0, 255, 1), 45: (0, 0, 254), 95: (255, 255, 255)}.items():
        assert np.abs(stored[at, 50].astype(int) - rgb).max() <= 2, at
    index, _ = scan(next(samples.rglob("GH195.dcm")))
    stored = FrameReader(index).read_stored(0).reshape(-1)
    assert abs(int(stored[5588]) - 198) <= 2
    assert abs(int(stored[58937]) - 152) <= 2


def test_c11_gray(tmp_path: Path) -> None:
    path = color(tmp_path, bytes((255, 0, 0, 0, 255, 0, 0, 0, 255)), (1, 3), "RGB")
    close(every_way(path, color="gray").flat, [0.299, 0.587, 0.114])


def palette(
    stored: Any, entries: Sequence[Sequence[int]], first: int = 0, bits: int = 16, **more: Any
) -> Dataset:
    dataset = image(
        np.array(stored, more.pop("dtype", "u1")),
        **{"PhotometricInterpretation": "PALETTE COLOR", **more},
    )
    for name, values in zip(("Red", "Green", "Blue"), entries, strict=True):
        prefix = f"{name}PaletteColorLookupTable"
        dataset.add_new(f"{prefix}Descriptor", "US", [len(values), first, bits])
        setattr(dataset, f"{prefix}Data", np.array(values, "<u2").tobytes())
    return dataset


@pytest.mark.parametrize(
    ("entries", "red"),
    [
        pytest.param([[0xFF00, 0x7D00], [0, 0], [0, 0]], [1, 0.490196], id="C12"),
        pytest.param([[0x9696, 0xFFFF], [0, 0], [0, 0]], [0.588235, 1], id="C13"),
    ],
)
def test_palettes(tmp_path: Path, entries: Any, red: list[float]) -> None:
    found = every_way(write(palette([0, 1], entries), tmp_path / "case.dcm"))
    close(found.images[0, 0], red)
    assert found.images.shape == (1, 3, 1, 2)
    assert found.index.column("palette")[0] >= 0
    assert stored_of(tmp_path / "case.dcm").reshape(-1).tolist() == [0, 1]


def test_c14_edges_of_a_palette(tmp_path: Path) -> None:
    dataset = palette([9, 10, 12, 13], [[1, 2, 3]] * 3, first=10, bits=8)
    found = every_way(write(dataset, tmp_path / "case.dcm"))
    close(found.images[0, 0] * 255, [1, 1, 3, 3])


def test_c15_segmented_palette(tmp_path: Path) -> None:
    dataset = palette(range(5), [[0] * 5] * 3)
    for name in ("Red", "Green", "Blue"):
        delattr(dataset, f"{name}PaletteColorLookupTableData")
        segments = np.array([0, 1, 0, 1, 4, 65280], "<u2").tobytes()
        setattr(dataset, f"Segmented{name}PaletteColorLookupTableData", segments)
    found = every_way(write(dataset, tmp_path / "case.dcm"))
    close(found.images[0, 0] * 65535, [0, 16320, 32640, 48960, 65280], 0.01)


@pytest.mark.parametrize("presentation", ["MIXED", "COLOR"])
@pytest.mark.parametrize("windowed", [True, False])
def test_c16_supplemental_palette(tmp_path: Path, presentation: str, windowed: bool) -> None:
    more: dict[str, Any] = {"WindowCenter": 50.5, "WindowWidth": 101} if windowed else {}
    dataset = palette(
        [0, 50, 100, 4096, 4097],
        [[65535, 0], [0, 65535], [0, 0]],
        first=4096,
        dtype="u2",
        PhotometricInterpretation="MONOCHROME2",
        PixelPresentation=presentation,
        **more,
    )
    path = write(dataset, tmp_path / "case.dcm")
    # Without a VOI the gray values have the range of the gray values.
    for options in ({}, {"window": "series"}):
        found = every_way(path, **options)
        close(found.images[0, :, 0], [[0, 0.5, 1, 1, 0], [0, 0.5, 1, 0, 1], [0, 0.5, 1, 0, 0]])


# --- 9. Encapsulation ----------------------------------------------------------------------------------

PIXELS = [np.full((4, 6), 17 + 40 * k, "u1") for k in range(4)]
FRAMES = [pad(streams.jpeg_lossless(frame, 8)) for frame in PIXELS]


def encapsulated_file(
    path: Path,
    fragments: Sequence[bytes],
    frames: int | None,
    table: Sequence[int] = (),
    syntax: str = JPEG_LOSSLESS_SV1,
) -> Path:
    dataset = image(np.zeros((4, 6), "u1"), syntax)
    if frames is not None:
        dataset.NumberOfFrames = frames
    return write(with_items(dataset, fragments, table), path)


def halves(frame: bytes) -> list[bytes]:
    middle = len(frame) // 4 * 2
    return [frame[:middle], frame[middle:]]


def app1(content: bytes) -> bytes:
    return b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content


THUMBNAIL = b"\xff\xd8" + b"thumb!" + b"\xff\xd9"
WITH_THUMBNAIL = FRAMES[0][:2] + app1(THUMBNAIL) + FRAMES[0][2:]
AFTER_THUMBNAIL = WITH_THUMBNAIL.index(b"\xff\xd9") + 2
BEFORE_THUMBNAIL = WITH_THUMBNAIL.index(THUMBNAIL)


@pytest.mark.parametrize(
    ("fragments", "claimed", "table", "shown", "rule"),
    [
        pytest.param([*halves(FRAMES[0]), FRAMES[1]], 2, (), [0, 1], "markers", id="X1"),
        pytest.param(
            [*halves(FRAMES[0] + b"\0\0\xa2\x8a\x28\xa2"), FRAMES[1]],
            2,
            (),
            [0, 1],
            "markers",
            id="X2",
        ),
        pytest.param(
            [
                *halves(pad(b"\xff" + FRAMES[0].rstrip(b"\0")[:-2] + b"\xff\xff\xd9")),
                b"\xff\xff" + FRAMES[1],
            ],
            2,
            (),
            [0, 1],
            "markers",
            id="X3",
        ),
        pytest.param(
            [WITH_THUMBNAIL[:AFTER_THUMBNAIL], WITH_THUMBNAIL[AFTER_THUMBNAIL:]],
            1,
            (),
            [0],
            "single_frame",
            id="X4",
        ),
        pytest.param(
            [WITH_THUMBNAIL[:BEFORE_THUMBNAIL], WITH_THUMBNAIL[BEFORE_THUMBNAIL:], FRAMES[1]],
            2,
            (),
            [0, 1],
            "markers",
            id="X5",
        ),
        pytest.param(FRAMES[:3], 3, (), [0, 1, 2], "one_fragment_per_frame", id="one each"),
        pytest.param(halves(FRAMES[0]), 1, (), [0], "single_frame", id="all of one"),
        pytest.param(halves(FRAMES[0]), None, (), [0], "single_frame", id="all of one, absent"),
    ],
)
def test_fragments(
    tmp_path: Path, fragments: Any, claimed: Any, table: Any, shown: list[int], rule: str
) -> None:
    path = encapsulated_file(tmp_path / "case.dcm", fragments, claimed, table)
    np.testing.assert_array_equal(stored_of(path), [PIXELS[k] for k in shown])
    index, _ = scan(path)
    assert {SPAN_RULES[k] for k in index.column("span_rule")} == {rule}


@pytest.mark.parametrize("syntax", [RLE_LOSSLESS, JPEG_XL_LOSSLESS, DEFLATED_IMAGE_FRAME])
def test_x6_syntaxes_without_markers(tmp_path: Path, syntax: str) -> None:
    encoded = [pad(streams.encode(pixels, syntax, 8)[0]) for pixels in PIXELS]
    bad = encapsulated_file(
        tmp_path / "bad" / "x.dcm", [*halves(encoded[0]), encoded[1]], 2, (), syntax
    )
    index, report = scan(bad)
    assert len(index) == 0
    assert report.findings[0].file_class == "unreadable"
    assert "NumberOfFrames is 2" in report.findings[0].reason
    good = encapsulated_file(tmp_path / "good.dcm", encoded[:2], 2, (), syntax)
    np.testing.assert_array_equal(stored_of(good), PIXELS[:2])


def starts(fragments: Sequence[bytes]) -> list[int]:
    return [sum(len(part) + 8 for part in fragments[:k]) for k in range(len(fragments))]


@pytest.mark.parametrize(
    "table",
    [
        lambda s: [0, s[1] + 4, s[2]],
        lambda s: [0, s[2], s[1]],
        lambda s: [8, s[1], s[2]],
        lambda s: [0],
        lambda s: [0, s[1], 1 << 20],
    ],
    ids=["inside a fragment", "not ascending", "first not 0", "1 entry", "beyond"],
)
def test_x7_tables_that_are_rejected(tmp_path: Path, table: Any) -> None:
    entries = table(starts(FRAMES[:3]))
    path = encapsulated_file(tmp_path / "case.dcm", FRAMES[:3], 3, entries)
    np.testing.assert_array_equal(stored_of(path), PIXELS[:3])
    index, report = scan(path)
    assert "Basic Offset Table rejected" in report.findings[0].reason
    assert SPAN_RULES[index.column("span_rule")[0]] == "one_fragment_per_frame"


@pytest.mark.parametrize("claimed", [None, 1])
def test_x8_one_frame_claimed(tmp_path: Path, claimed: int | None) -> None:
    path = encapsulated_file(tmp_path / "case.dcm", FRAMES[:3], claimed)
    np.testing.assert_array_equal(stored_of(path), PIXELS[:1])
    _, report = scan(path)
    assert "1 frame claimed, 3 found" in report.findings[0].reason


def test_x9_more_images_than_frames(tmp_path: Path) -> None:
    path = encapsulated_file(tmp_path / "case.dcm", [*halves(FRAMES[0]), *FRAMES[1:4]], 3)
    index, report = scan(path)
    assert len(index) == 0
    finding = report.findings[0]
    assert finding.file_class == "unreadable"
    assert "NumberOfFrames is 3" in finding.reason
    assert "4 frames" in finding.reason


def test_x10_extended_offset_table(tmp_path: Path) -> None:
    odd = [frame if len(frame) % 2 else frame[:-2] + b"\xff\xff\xd9" for frame in FRAMES[:2]]
    assert all(len(frame) % 2 for frame in odd)
    dataset = image(np.zeros((2, 4, 6), "u1"), JPEG_LOSSLESS_SV1)
    fragments = [pad(frame) for frame in odd]
    with_items(dataset, fragments)
    dataset.ExtendedOffsetTable = struct.pack("<2Q", *starts(fragments))
    dataset.ExtendedOffsetTableLengths = struct.pack("<2Q", *map(len, odd))
    path = write(dataset, tmp_path / "case.dcm")
    np.testing.assert_array_equal(stored_of(path), PIXELS[:2])
    index, _ = scan(path)
    assert index.column("true_length").tolist() == list(map(len, odd))
    assert index.column("length").tolist() == [len(part) + 8 for part in fragments]
    assert SPAN_RULES[index.column("span_rule")[0]] == "extended_offset_table"
    assert FrameReader(index).read_encoded(1) == odd[1]


@pytest.mark.parametrize(("missing", "count"), [(8, 3), (10, 2)])
@pytest.mark.parametrize("table", [True, False])
def test_x11_the_end_is_missing(tmp_path: Path, missing: int, count: int, table: bool) -> None:
    entries = starts(FRAMES[:3]) if table else ()
    path = encapsulated_file(tmp_path / "case.dcm", FRAMES[:3], 3, entries)
    path.write_bytes(path.read_bytes()[:-missing])
    np.testing.assert_array_equal(stored_of(path), PIXELS[:count])
    index, report = scan(path)
    assert index.files["claimed_frames"][0] == 3
    if count < 3:
        assert "3 frames claimed, 2 found" in report.findings[0].reason


def test_x12_items_that_do_not_tile_the_span(tmp_path: Path) -> None:
    path = encapsulated_file(tmp_path / "case.dcm", FRAMES[:2], 2)
    index, _ = scan(path)
    info = path.stat()
    data = bytearray(path.read_bytes())
    at = int(index.column("offset")[1])
    data[at + 4] += 2
    path.write_bytes(data)
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    frames = DicomFrames(index)
    assert frames[0][0].shape == (1, 4, 6)
    with pytest.raises(EncapsulationError, match=r"frame 1.*do not tile"):
        frames[1]
    with pytest.raises(EncapsulationError, match=r"frame 1"):
        frames[[0, 1]]


# --- What is encoded comes out to the bit --------------------------------------------------------------

ENCODINGS = (
    *streams.LOSSLESS,
    EXPLICIT_VR_BIG_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
)
decoded: dict[str, int] = dict.fromkeys(BACKENDS, 0)


def encoded_file(
    path: Path, pixels: np.ndarray[Any, Any], syntax: str, bits: int, signed: bool, split: Any
) -> Path:
    """A file of `pixels` (frames, rows, columns[, 3]); `split` is (offset table, fragments a frame)."""
    samples = RGB if pixels.ndim == 4 else {}
    dataset = image(np.zeros(pixels.shape[:3], pixels.dtype), syntax, BitsStored=bits, **samples)
    dataset.PixelRepresentation = int(signed)
    if syntax in NATIVE:
        order = ">" if syntax == EXPLICIT_VR_BIG_ENDIAN else "<"
        dataset.PixelData = pad(pixels.astype(pixels.dtype.newbyteorder(order)).tobytes())
        dataset["PixelData"].VR = "OB" if pixels.dtype.itemsize == 1 else "OW"
        return write(dataset, path)
    frames = [streams.encode(frame, syntax, bits, signed=signed)[0] for frame in pixels]
    table, fragments = split[0], max(1, min(split[1], *(len(frame) // 2 for frame in frames)))
    if table == "extended":
        data, offsets, lengths = encapsulate_extended([pad(frame) for frame in frames])
        dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths = offsets, lengths
        dataset.PixelData = data
    else:
        dataset.PixelData = encapsulate(
            frames, fragments_per_frame=fragments, has_bot=table == "basic"
        )
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return write(dataset, path)


@settings(max_examples=120)
@given(data=st.data())
def test_what_is_written_is_read_to_the_bit_by_every_backend(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    draw = data.draw
    syntax = draw(st.sampled_from(sorted(ENCODINGS)))
    bits, signed = draw(st.integers(8, 16)), draw(st.booleans())
    shape = (draw(st.integers(1, 33)), draw(st.integers(1, 33)))
    if draw(st.booleans()):
        shape, signed = (*shape, 3), False  # type: ignore[assignment]
    count = draw(st.integers(1, 5))
    table = draw(st.sampled_from(["none", "basic", "extended"]))
    # Without a table only marked syntaxes may have several fragments a frame.
    marked = syntax in JPEG_LOSSLESS_FAMILY | JPEG_LS_FAMILY | JPEG_2000_FAMILY | HTJ2K_FAMILY  # fmt: skip
    several = table == "basic" or marked or count == 1
    fragments = draw(st.integers(1, 3)) if several else 1
    pixels = np.stack(
        [
            streams.picture(shape, bits, signed=signed, seed=draw(st.integers(0, 99)))
            for _ in range(count)
        ]
    )
    path = tmp_path_factory.mktemp("written") / "case.dcm"
    index, report = scan(encoded_file(path, pixels, syntax, bits, signed, (table, fragments)))
    assert len(index) == count, report.findings[0].reason
    pixel = index.image_pixel(0)
    assert (pixel.bits_stored, pixel.pixel_representation) == (bits, int(signed))
    for name in BACKENDS:
        if not get_backend(name).supports(pixel):
            assert name != "imagecodecs"
            continue
        frames = DicomFrames(index, backend=name, values="stored")
        batch = np.moveaxis(frames[list(range(count))][0].numpy(), 1, -1)
        np.testing.assert_array_equal(batch.reshape(pixels.shape), pixels, err_msg=name)
        decoded[name] += count


def test_every_backend_took_part() -> None:
    for name in BACKENDS:
        if name != "simpleitk" or get_backend(name).supports(
            streams.pixel_of(PIXELS[0], EXPLICIT_VR_LITTLE_ENDIAN, 8)
        ):
            assert decoded[name] > 50, decoded


# --- What the report says ------------------------------------------------------------------------------


def finding(path: Path) -> str:
    report: ScanReport = scan(path)[1]
    return report.findings[0].reason


def test_claimed_and_found_are_in_the_report(tmp_path: Path) -> None:
    native = write(image(np.zeros((3, 2, 2), "u2")), tmp_path / "native.dcm")
    native.write_bytes(native.read_bytes()[:-9])
    assert "3 frames claimed, 1 found" in finding(native)
    index, _ = scan(native)
    assert index.files["claimed_frames"][0] == 3
    assert index.files["frames"][0] == 1
    long = write(image(np.zeros((3, 2, 2), "u2"), NumberOfFrames=2), tmp_path / "long.dcm")
    assert "2 frames claimed, 3 found" in finding(long)
    excess = image(np.zeros((2, 2), "u2"))
    excess.PixelData += b"\0" * 4
    assert "4 bytes follow the last frame" in finding(write(excess, tmp_path / "excess.dcm"))
    single_ = encapsulated_file(tmp_path / "single.dcm", FRAMES[:1], 3)
    reason = finding(single_)
    assert "NumberOfFrames is 3" in reason
    assert DicomFrames(native).report.findings[0].reason.count("claimed") == 1


def test_errors_name_file_and_frame(tmp_path: Path) -> None:
    broken = [FRAMES[0], FRAMES[1][: len(FRAMES[1]) // 2], FRAMES[2]]
    path = encapsulated_file(tmp_path / "case.dcm", [pad(part) for part in broken], 3)
    frames = DicomFrames(path, on_error="raise")
    for ask in (1, [0, 1, 2]):
        with pytest.raises(DicomTorchError, match=r"case\.dcm, frame 1 \(index 1\)"):
            frames[ask]
    replacing = DicomFrames(path, on_error="replace", values="stored")
    with pytest.warns(UserWarning, match="replaced by frame 2"):
        batch, meta = replacing[[0, 1, 2]]
    assert batch[:, 0, 0, 0].tolist() == [17, 97, 97]
    assert meta["index"].tolist() == [0, 2, 2]
    assert replacing.failures[0].index == 1


def test_a_deflated_file_without_group_length(tmp_path: Path) -> None:
    stored = np.arange(6, dtype="u2").reshape(2, 3)
    path = write(image(stored, DeflatedExplicitVRLittleEndian), tmp_path / "case.dcm")
    data = path.read_bytes()
    assert data[132:140] == b"\2\0\0\0UL\4\0"
    path.write_bytes(data[:132] + data[144:])
    np.testing.assert_array_equal(stored_of(path)[0], stored)


WAYS_TO_FRAME_1: dict[str, Callable[[DicomFrames, FrameReader], object]] = {
    "one": lambda frames, _: frames[1],
    "batch": lambda frames, _: frames[[1, 0]],
    "together": lambda _, reader: reader.read_together([1, 0]),
    "stored": lambda _, reader: reader.read_stored(1),
    "encoded": lambda _, reader: reader.read_encoded(1),
    "part": lambda _, reader: read_windows(reader, [1], [(0, 0, 1, 2)], torch.empty(1, 1, 1, 2)),
}


@pytest.mark.parametrize("way", WAYS_TO_FRAME_1)
@pytest.mark.parametrize(
    "syntax", [IMPLICIT_VR_LITTLE_ENDIAN, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, JPEG_LOSSLESS_SV1]
)
@pytest.mark.parametrize("is_cached", [False, True])
def test_what_the_system_refuses_is_a_storage_error_that_names_the_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, syntax: str, way: str, is_cached: bool
) -> None:
    pixels = np.arange(12, dtype="u2").reshape(2, 2, 3)
    if syntax == JPEG_LOSSLESS_SV1:
        path = encoded_file(tmp_path / "case.dcm", pixels, syntax, 16, False, ("none", 1))
    else:
        path = write(image(pixels, UID(syntax)), tmp_path / "case.dcm")
    folder = tmp_path / "cache" if is_cached else None
    frames = DicomFrames(path, cache=folder)
    reader = FrameReader(frames.index, cache=FrameCache(folder) if folder else None)

    def refused(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    for name in ("_pread", "_read_into"):
        monkeypatch.setattr(storage, name, refused)
    with pytest.raises(StorageError, match=r"case\.dcm, frame 1 .*EIO"):
        WAYS_TO_FRAME_1[way](frames, reader)
    monkeypatch.undo()
    WAYS_TO_FRAME_1[way](frames, reader)  # what was refused once is no longer so
