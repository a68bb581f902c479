"""`read_parts`: rectangles of frames as the frames have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydicom.data import get_testdata_file

from dicomtorch import FrameReader, PixelOptions, scan
from dicomtorch.errors import DecodeError, DicomTorchError
from dicomtorch.model.syntaxes import (
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    RLE_LOSSLESS,
)
from dicomtorch.reader.parts import Part, read_parts, will_need_parts
from dicomtorch.reader.reader import Frame
from dicomtorch.reader.rows import reads_rows
from dicomtorch.storage.base import ByteRange
from tests.support import streams_by_encoders as encoders
from tests.support.kernel_jobs import without
from tests.support.phantoms import encapsulated, image, write
from tests.support.requirements import require

Array = np.ndarray[Any, Any]
SHAPE = (40, 50)


def pixels_of(k: int, dtype: Any = np.uint16) -> Array:
    return np.random.default_rng(k).integers(0, 250, SHAPE).astype(dtype)


def reader_of(folder: Path, **options: Any) -> FrameReader:
    return FrameReader(scan(folder)[0], options=PixelOptions(**{"values": "stored", **options}))


def fresh(reader: FrameReader, parts: list[Part]) -> list[torch.Tensor]:
    return [torch.empty((1, part.rows, part.columns), dtype=reader.dtype) for part in parts]


def test_parts_come_in_the_order_asked_for(tmp_path: Path) -> None:
    for k in range(3):
        dataset = image(pixels_of(k), SOPInstanceUID=f"1.2.{k}")
        if k == 1:
            stream = encoders.LOSSLESS[RLE_LOSSLESS](pixels_of(k), 16)
            dataset = encapsulated(dataset, [stream], RLE_LOSSLESS)
        write(dataset, tmp_path / f"{k}.dcm")
    reader = reader_of(tmp_path)
    chance = np.random.default_rng(0)
    parts = []
    for k in range(30):
        top, left = chance.integers(0, (35, 45)).tolist()
        rows, columns = chance.integers(1, (SHAPE[0] - top + 1, SHAPE[1] - left + 1)).tolist()
        parts.append(Part(k % 3, top, left, rows, columns))
    for threads in (1, 3):
        out = fresh(reader, parts)
        found = read_parts(reader, parts, out, num_threads=threads)
        for part, frame, target in zip(parts, found, out, strict=True):
            assert not isinstance(frame, DicomTorchError)
            assert frame.image is target
            expected = pixels_of(part.position)[
                part.top : part.top + part.rows, part.left : part.left + part.columns
            ]
            np.testing.assert_array_equal(target[0].numpy(), expected)
    assert read_parts(reader, [], []) == []


KINDS: dict[str, dict[str, Any]] = {
    "stored": {"values": "stored"},
    "display": {"values": "display"},
    "modality": {"values": "modality"},
    "normalized": {"values": "modality", "normalize": (3.0, 7.0)},
    "rgb": {"values": "display", "color": "rgb"},
}


@pytest.mark.filterwarnings("ignore")  # files that are odd in some other way
@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", ["bundled", "samples"])
def test_parts_of_files_of_all_kinds_are_what_their_frames_have_there(
    where: str,
    kind: str,
    compiled: bool,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not compiled:
        without(monkeypatch)
    index, _ = scan(request.getfixturevalue(where))
    reader = FrameReader(index, options=PixelOptions(**KINDS[kind]))
    groups = index.values("frame_values", np.arange(len(index)))
    positions = np.unique(np.asarray(groups), return_index=True)[1].tolist()
    chance, by_rows = np.random.default_rng(len(kind)), 0
    for position in positions:
        pixel = index.image_pixel(position)
        if pixel.rows * pixel.columns > 1 << 19:
            continue
        (frame,) = reader.read_many([position])
        if isinstance(frame, Frame):
            by_rows += reads_rows(index.locate([position])[0], pixel)
            check_parts(reader, position, frame, (pixel.rows, pixel.columns), chance)
    assert by_rows > 20


def check_parts(
    reader: FrameReader,
    position: int,
    frame: Frame,
    shape: tuple[int, int],
    chance: np.random.Generator,
) -> None:
    parts = [Part(position, 0, 0, *shape)]
    for _ in range(3):
        top, left = chance.integers(0, shape).tolist()
        size = chance.integers(1, (shape[0] - top + 1, shape[1] - left + 1)).tolist()
        parts.append(Part(position, top, left, *size))
    channels = len(frame.image)
    out = [torch.empty((channels, p.rows, p.columns), dtype=reader.dtype) for p in parts]
    for part, target, found in zip(parts, out, read_parts(reader, parts, out), strict=True):
        assert isinstance(found, Frame), found
        expected = frame.image[:, *part.slices]
        assert torch.equal(expected.nan_to_num(), target.nan_to_num()), part
        assert found.voi == frame.voi, part


def test_an_error_is_of_its_frame_alone(tmp_path: Path) -> None:
    write(image(pixels_of(0), SOPInstanceUID="1.2.0"), tmp_path / "0.dcm")
    damaged = encapsulated(image(pixels_of(1), SOPInstanceUID="1.2.1"), [b"\0" * 80], RLE_LOSSLESS)
    write(damaged, tmp_path / "1.dcm")
    reader = reader_of(tmp_path)
    parts = [Part(1, 0, 0, 2, 2), Part(0, 0, 0, 2, 2), Part(1, 3, 3, 2, 2)]
    first, second, third = read_parts(reader, parts, fresh(reader, parts))
    assert not isinstance(second, DicomTorchError)
    for error in (first, third):
        assert isinstance(error, DecodeError)
        assert "1.dcm, frame 0 (index 1)" in str(error)


CASES: dict[str, tuple[dict[str, Any], bool]] = {
    "16 bits": ({}, True),
    "big endian": ({"TransferSyntaxUID": EXPLICIT_VR_BIG_ENDIAN}, True),
    "8 bits": ({"bits": 8}, True),
    "8 bits in big endian words": ({"TransferSyntaxUID": EXPLICIT_VR_BIG_ENDIAN, "bits": 8}, False),
}


@pytest.mark.parametrize("name", CASES)
def test_which_frames_are_read_by_rows(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    attributes, by_rows = CASES[name]
    width = attributes.get("bits", 16) // 8
    syntax = attributes.get("TransferSyntaxUID", EXPLICIT_VR_LITTLE_ENDIAN)
    pixels = pixels_of(0, f"u{width}")
    dataset = image(pixels, SOPInstanceUID="1.2.0")
    dataset.file_meta.TransferSyntaxUID = syntax
    if syntax == EXPLICIT_VR_BIG_ENDIAN:
        dataset.PixelData = pixels.astype("u2" if width == 2 else "u1").tobytes()
        words = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
        dataset.PixelData = words
        dataset["PixelData"].VR = "OW"
    write(dataset, tmp_path / "0.dcm")
    reader = reader_of(tmp_path)
    (where,) = reader.index.locate([0])
    pixel = reader.index.image_pixel(0)
    assert reads_rows(where, pixel) == by_rows
    parts = [Part(0, 7, 5, 4, 11)]
    out = fresh(reader, parts)
    read_parts(reader, parts, out)
    np.testing.assert_array_equal(out[0][0].numpy(), pixels[7:11, 5:16])
    asked: list[ByteRange] = []
    monkeypatch.setattr(reader.fetcher.storage, "will_need", asked.extend)
    will_need_parts(reader, [*parts, *parts])
    (wanted,) = set(asked)
    row = SHAPE[1] * width
    start, length = where.span[:2]
    expected = (start + 7 * row, 4 * row) if by_rows else (start, length)
    assert (wanted.offset, wanted.length) == expected


@pytest.mark.parametrize("name", ["JPEG2000.dcm", "CT_small.dcm"])
def test_parts_that_are_kept_are_not_asked_for_again(tmp_path: Path, name: str) -> None:
    require("fsspec")
    require("obstore")
    import fsspec

    data = Path(str(get_testdata_file(name))).read_bytes()
    fsspec.filesystem("memory").pipe(f"/parts-{name}/a.dcm", data)
    index, _ = scan(f"memory://parts-{name}", storage_options={"range_cache": str(tmp_path)})
    reader = FrameReader(index, options=PixelOptions(values="stored"))
    storage: Any = reader.fetcher.storage
    out = [torch.empty((1, 16, 16), dtype=reader.dtype)]
    seen = []
    for _ in range(3):
        before = storage.requests
        (frame,) = read_parts(reader, [Part(0, 0, 0, 16, 16)], out)
        assert isinstance(frame, Frame)
        seen.append(storage.requests - before)
    assert seen == [1, 0, 0]
    assert storage._ahead._held == 0
