"""Every limit one below, at, and one above what a file needs: refused by its name, admitted, admitted."""

from __future__ import annotations

import contextlib
import shutil
import struct
import zlib
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

from dicomtorch import FrameIndex, ImagePixel, Limits, scan
from dicomtorch.backends import guard, isolated
from dicomtorch.backends.base import decoding
from dicomtorch.backends.children import children
from dicomtorch.errors import DecodeError, PixelValueError
from dicomtorch.masks.mask_index import MaskIndex
from dicomtorch.model.limits import LIMITS
from dicomtorch.model.syntaxes import JPEG_2000_LOSSLESS
from dicomtorch.reader.reader import FrameReader
from tests.support import mask_phantoms, misbehaving
from tests.support.archives import pack
from tests.support.misbehaving import Misbehaving
from tests.support.phantoms import ct, ct_pixels, encapsulated, write

PAGE = Path(__file__).parents[2] / "docs" / "explain" / "promises.md"


def plain(**attributes: Any) -> Dataset:
    return ct(ct_pixels(), **attributes)


def with_elements(count: int) -> Dataset:
    dataset = plain()
    block = dataset.private_block(0x0009, "TEST", create=True)
    for k in range(count):
        block.add_new(k, "LO", "x")
    return dataset


def nested(depth: int) -> Dataset:
    dataset = plain()
    inner = Dataset()
    for _ in range(depth - 1):
        outer = Dataset()
        outer.RequestAttributesSequence = [inner]
        inner = outer
    dataset.RequestAttributesSequence = [inner]
    return walked(dataset)


def walked(dataset: Dataset) -> Dataset:
    """The same with sequences of undefined length, which nobody can pass over."""

    def visit(inside: Dataset) -> None:
        for element in inside:
            if element.VR == "SQ":
                element.is_undefined_length = True
                for item in element.value:
                    item.is_undefined_length_sequence_item = True
                    visit(item)

    visit(dataset)
    return dataset


def with_items(count: int) -> Dataset:
    dataset = plain()
    dataset.RequestAttributesSequence = [Dataset() for _ in range(count)]
    return walked(dataset)


def frames(count: int) -> Dataset:
    return ct(np.stack([ct_pixels(k) for k in range(count)]))


def colour(_: int) -> Dataset:
    dataset = ct(np.zeros((24, 32), np.uint8))
    dataset.SamplesPerPixel, dataset.PlanarConfiguration = 3, 0
    dataset.PhotometricInterpretation = "RGB"
    dataset.PixelData = bytes(24 * 32 * 3)
    return dataset


def deflated(side: int) -> Dataset:
    dataset = ct(np.zeros((side, side), np.int16))
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    return dataset


def smallest(path: Path, limit: str, most: int) -> int:
    """The smallest value of a limit that admits the file."""
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if admitted(path, limit, middle) else (middle, high)
    return high


def admitted(path: Path, limit: str, value: int) -> bool:
    index, report = scan(path, limits=replace(LIMITS, **{limit: value}))
    if not len(index):
        assert f"Limits.{limit}" in report.findings[0].reason
    return bool(len(index))


CASES: list[tuple[str, Callable[[int], Dataset], int, int, int | None]] = [
    # limit, a file that needs so many, how many, how many more one more of them needs, what it needs in all if known
    ("elements", with_elements, 5, 1, None),
    ("items", with_items, 5, 1, 5),
    ("depth", nested, 5, 1, 5),
    ("header_bytes", lambda n: plain(PatientComments="x" * 2 * n), 50, 2, None),
    ("text_bytes", lambda n: plain(ImageType=["X" * 15] * n), 5, 16, 80),
    ("frames_per_file", frames, 5, 1, 5),
    ("pixels_per_frame", lambda n: ct(ct_pixels(0, n, 10)), 8, 10, 80),
    ("decoded_bytes_per_frame", lambda n: ct(ct_pixels(0, n, 10)), 8, 20, 160),
    ("samples_per_pixel", colour, 3, 0, 3),
]


@pytest.mark.parametrize(
    ("limit", "make", "count", "step", "known"), CASES, ids=lambda x: str(x)[:16]
)
def test_each_limit_one_below_at_and_one_above(
    tmp_path: Path,
    limit: str,
    make: Callable[[int], Dataset],
    count: int,
    step: int,
    known: int | None,
) -> None:
    path = write(make(count), tmp_path / "a.dcm")
    need = smallest(path, limit, 1 << 20)
    assert [admitted(path, limit, need + k) for k in (-1, 0, 1)] == [False, True, True]
    assert known is None or need == known
    if step:
        more = write(make(count + 1), tmp_path / "b.dcm")
        assert not admitted(more, limit, need + step - 1)
        assert admitted(more, limit, need + step)


def inflated_bytes(dataset: Dataset) -> int:
    stream = DicomBytesIO()
    stream.is_little_endian, stream.is_implicit_VR = True, False
    body = Dataset({element.tag: element for element in dataset})
    write_dataset(stream, body)
    return len(stream.getvalue())


def test_inflated_bytes_and_ratio(tmp_path: Path) -> None:
    dataset = deflated(400)
    path = write(dataset, tmp_path / "a.dcm")
    full = inflated_bytes(dataset)

    def read(limit: str, value: int) -> bool:
        # A file of its own each time: what was inflated last is kept.
        copy = shutil.copy(path, tmp_path / f"{limit}{value}.dcm")
        frames = FrameReader(limited(scan(copy)[0], limit, value))
        with contextlib.suppress(OSError):
            return frames.read_stored(0).shape == (400, 400)
        with pytest.raises(OSError, match=f"Limits.{limit}"):
            frames.read_stored(0)
        return False

    assert [read("inflated_bytes", full + k) for k in (-1, 0, 1)] == [False, True, True]
    raw = path.read_bytes()
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    start = next(k for k in range(len(raw)) if _inflates(raw[k:], full))
    compressed = len(raw) - start
    assert len(engine.decompress(raw[start:])) == full
    need = -(-(full - (64 << 10)) // compressed)
    assert [read("inflated_ratio", need + k) for k in (-1, 0, 1)] == [False, True, True]


def _inflates(data: bytes, length: int) -> bool:
    try:
        return len(zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, length + 1)) == length
    except zlib.error:
        return False


def limited(index: FrameIndex, limit: str, value: float) -> FrameIndex:
    changed: dict[str, Any] = {limit: value}
    generation = replace(index._generation, limits=replace(LIMITS, **changed))
    return FrameIndex(generation)


def test_tiles() -> None:
    codecs = pytest.importorskip("imagecodecs")
    data = bytearray(codecs.jpeg2k_encode(ct_pixels(0, 64, 64), level=0, codecformat="j2k"))
    at = data.index(b"\xff\x51") + 22
    data[at : at + 8] = struct.pack(">II", 16, 16)
    pixel = ImagePixel(JPEG_2000_LOSSLESS, 64, 64, pixel_representation=1)
    for value, good in ((15, False), (16, True), (17, True)):
        said = ""
        try:
            guard.check(bytes(data), pixel, replace(LIMITS, tiles=value))
        except DecodeError as error:  # there is a tile part for one tile only
            said = str(error)
        assert ("Limits.tiles" in said) == (not good)


@pytest.mark.parametrize("frames", [1, 3])
def test_fragments(frames: int) -> None:
    assert LIMITS.fragments(frames) == 64 * frames + 4_096


def test_fragments_of_a_file(tmp_path: Path) -> None:
    codecs = pytest.importorskip("imagecodecs")
    pixels = ct_pixels(0, 96, 96)
    stream = bytes(codecs.jpeg2k_encode(pixels, level=0, codecformat="j2k"))
    most = LIMITS.fragments(1)
    for count in (most - 1, most, most + 1):
        parts = [stream[2 * k : 2 * k + 2] for k in range(count - 1)]
        dataset = encapsulated(ct(pixels), [stream])
        rest = stream[2 * (count - 1) :]
        dataset.PixelData = encapsulated_parts([b"", *parts, rest + b"\0" * (len(rest) % 2)])
        path = write(dataset, tmp_path / f"{count}.dcm")
        index, report = scan(path)
        if count <= most:
            assert np.array_equal(FrameReader(index).read_stored(0), pixels)
        else:
            assert not len(index)
            assert "Limits.fragments" in report.findings[0].reason


def encapsulated_parts(parts: list[bytes]) -> bytes:
    """Items, the first of which is the offset table, with the delimiter that ends them."""
    items = [b"\xfe\xff\x00\xe0" + struct.pack("<I", len(part)) + part for part in parts]
    return b"".join(items) + b"\xfe\xff\xdd\xe0\0\0\0\0"


def test_members_and_bytes_of_an_archive(tmp_path: Path) -> None:
    paths = [write(ct(ct_pixels(k), k), tmp_path / "files" / f"{k}.dcm") for k in range(3)]
    archive = pack(tmp_path / "files", tmp_path / "deflated.zip")
    sizes = [path.stat().st_size for path in paths]
    for limit, need in (("archive_members", 3), ("archive_bytes", sum(sizes))):
        for value in (need - 1, need, need + 1):
            index, report = scan(archive, limits=replace(LIMITS, **{limit: value}))
            reasons = " ".join(finding.reason for finding in report.findings)
            assert (len(index) == 3) == (value >= need)
            assert (f"Limits.{limit} = {value}" in reasons) == (value < need)


def test_contour_points(tmp_path: Path) -> None:
    slices = mask_phantoms.series(tmp_path, 1)
    square = mask_phantoms.square(4, 9)
    mask_phantoms.structures(tmp_path / "rt.dcm", slices, [("liver", [(0, square)])])
    for value, good in ((len(square) - 1, False), (len(square), True), (len(square) + 1, True)):
        index, _ = scan(tmp_path, limits=replace(LIMITS, contour_points=value))
        images = index.filter(Modality="CT")
        if good:
            assert MaskIndex(images, index).has("liver").any()
        else:
            with pytest.raises(PixelValueError, match=r"Limits\.contour_points"):
                MaskIndex(images, index)


@pytest.mark.parametrize("allowed", [0.5, 1.0, 1.5])
def test_seconds_of_a_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: float
) -> None:
    path = write(plain(), tmp_path / "a.dcm")
    now = iter([0.0])
    monkeypatch.setattr("dicomtorch.dicom.cursor.time.thread_time", lambda: next(now, 1.0))
    index, report = scan(
        path,
        limits=replace(LIMITS, header_seconds=allowed, header_seconds_per_16_mib=0.0),
    )
    if allowed < 1:
        assert "Limits.header_seconds = 0.5" in report.findings[0].reason
    assert len(index) == (allowed >= 1)


def test_seconds_for_what_is_walked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(plain(), tmp_path / "a.dcm")

    def is_read(allowed: int) -> bool:
        now = iter([0.0])
        with monkeypatch.context() as patch:
            patch.setattr("dicomtorch.dicom.cursor.time.thread_time", lambda: next(now, 1.0))
            limits = replace(LIMITS, header_seconds=0.0, header_seconds_per_16_mib=float(allowed))
            return bool(len(scan(path, limits=limits)[0]))

    low, high = 1, 16 << 20  # seconds for 16 MiB: at the most one for each byte
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_read(middle) else (middle, high)
    assert [is_read(high + k) for k in (-1, 0, 1)] == [False, True, True]


@pytest.mark.parametrize(("mebibytes", "good"), [(63, True), (129, False)])
def test_memory_of_a_frame(mebibytes: int, good: bool) -> None:
    pixel = ImagePixel(JPEG_2000_LOSSLESS, 6, 5)
    children.close()  # what other tests have left in pieces in a child counts as free, and may be of no use
    backend = isolated.isolated(Misbehaving(), pixel, always=True)
    decoding.limits = replace(LIMITS, decode_memory_bytes=96 << 20)
    try:
        data = bytes((misbehaving.ALLOCATE, mebibytes))
        if good:
            assert (backend.decode(data, pixel) == mebibytes).all()
        else:
            with pytest.raises(DecodeError, match=r"Limits\.decode_memory_bytes"):
                backend.decode(data, pixel)
    finally:
        decoding.limits = LIMITS


def test_a_frame_that_is_in_time() -> None:
    """That one which is not ends is in `test_isolated`."""
    pixel = ImagePixel(JPEG_2000_LOSSLESS, 6, 5)
    backend = isolated.isolated(Misbehaving(), pixel, always=True)
    decoding.limits = replace(LIMITS, decode_seconds=30.0)
    try:
        assert (backend.decode(bytes((misbehaving.PAUSE, 5)), pixel) == 5).all()
    finally:
        decoding.limits = LIMITS


def test_the_page_lists_every_limit() -> None:
    page = PAGE.read_text(encoding="utf-8")
    documented = Limits.__doc__ or ""
    for field in fields(Limits):
        assert f"\n| `{field.name}` | " in page, field.name
        assert f"\n        {field.name}: " in documented, field.name
