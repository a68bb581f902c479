"""`Limits` given to a scan hold for reading and decoding too, and stand between a claim and its memory."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydicom.pixels.encoders.base import get_encoder
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless

from dicomtorch import DicomFrames, FrameIndex, scan
from dicomtorch.errors import DecodeError, HeaderError
from dicomtorch.model.limits import LIMITS, Limits
from dicomtorch.reader.reader import FrameReader
from tests.support.phantoms import ct, ct_pixels, encapsulated, write

LARGE = replace(LIMITS, pixels_per_frame=1 << 29, decoded_bytes_per_frame=1 << 31)


def sparse(path: Path, side: int) -> Path:
    """An uncompressed file of `side` x `side` zeros of which the disk holds next to nothing; its last pixel is 7."""
    dataset = ct(ct_pixels())
    dataset.PixelData = b""
    write(dataset, path)
    content = bytearray(path.read_bytes())
    for tag, value in (
        (b"\x28\x00\x10\x00US\x02\x00", side),
        (b"\x28\x00\x11\x00US\x02\x00", side),
    ):
        at = content.index(tag) + 8
        content[at : at + 2] = value.to_bytes(2, "little")
    at = content.index(b"\xe0\x7f\x10\x00OW") + 8
    content[at : at + 4] = (side * side * 2).to_bytes(4, "little")
    path.write_bytes(content[: at + 4])
    with open(path, "r+b") as file:
        file.truncate(at + 4 + side * side * 2 - 2)
        file.seek(0, 2)
        file.write(b"\7\0")
    return path


def test_a_frame_that_a_scan_admitted_is_read(tmp_path: Path) -> None:
    path = sparse(tmp_path / "large.dcm", 17_000)  # 289 million pixels
    refused, report = scan(path)
    assert len(refused) == 0
    assert "Limits.pixels_per_frame" in report.findings[0].reason
    index, _ = scan(path, limits=LARGE)
    image, _ = DicomFrames(index, values="stored")[0]
    assert image.shape == (1, 17_000, 17_000)
    assert int(image[0, -1, -1]) == 7
    assert int(image[0, 0, 0]) == 0


@pytest.mark.parametrize("way", ["memory", "folder", "pickle"])
def test_an_index_keeps_the_limits_of_its_scan(tmp_path: Path, way: str) -> None:
    write(ct(ct_pixels()), tmp_path / "files" / "one.dcm")
    index, _ = scan(tmp_path / "files", limits=LARGE)
    if way == "folder":
        index.save(tmp_path / "index")
        index = FrameIndex.load(tmp_path / "index")
    if way == "pickle":
        index = pickle.loads(pickle.dumps(index))
    assert index.limits == LARGE
    assert index.select([0]).limits == LARGE
    assert scan(tmp_path / "files", index=index, limits=LARGE)[0] is index
    again, report = scan(tmp_path / "files", index=index)
    assert again.limits == LIMITS
    assert report.read == 1


def test_limits_hold_for_encoded_frames(tmp_path: Path) -> None:
    array = np.zeros((64, 64), np.uint8)
    stream = get_encoder(RLELossless).encode(
        array,
        rows=64,
        columns=64,
        samples_per_pixel=1,
        number_of_frames=1,
        bits_allocated=8,
        bits_stored=8,
        pixel_representation=0,
        photometric_interpretation="MONOCHROME2",
        encoding_plugin="pydicom",
    )
    dataset = ct(ct_pixels())
    dataset.Rows = dataset.Columns = 64
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.PixelRepresentation = 0
    write(encapsulated(dataset, [stream], RLELossless), tmp_path / "one.dcm")
    index, _ = scan(tmp_path)
    assert FrameReader(index).read_stored(0).shape == (64, 64)
    with pytest.raises(DecodeError, match=r"one\.dcm.*Limits\.pixels_per_frame"):
        FrameReader(limited(index, replace(LIMITS, pixels_per_frame=100))).read_stored(0)
    assert FrameReader(index).read_stored(0).shape == (64, 64)


def test_limits_hold_for_inflated_data_sets(tmp_path: Path) -> None:
    dataset = ct(ct_pixels())
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    write(dataset, tmp_path / "one.dcm")
    index, _ = scan(tmp_path)
    with pytest.raises(OSError, match=r"one\.dcm.*Limits\.inflated_bytes"):
        FrameReader(limited(index, replace(LIMITS, inflated_bytes=600))).read_stored(0)
    np.testing.assert_array_equal(FrameReader(index).read_stored(0), ct_pixels())


def test_nothing_is_allocated_for_a_claim_beyond_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(ct(ct_pixels()), tmp_path / "one.dcm")
    frames = FrameReader(limited(scan(tmp_path)[0], replace(LIMITS, pixels_per_frame=100)))

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("allocated before the limit was looked at")

    with monkeypatch.context() as patched:
        patched.setattr(torch, "empty", refuse)
        patched.setattr("dicomtorch.reader.reader.new_batch", refuse)
        (result,) = frames.read_many([0])
    assert isinstance(result, DecodeError)
    assert "Limits.pixels_per_frame" in str(result)


def limited(index: FrameIndex, limits: Limits) -> FrameIndex:
    return FrameIndex(replace(index._generation, limits=limits))


def test_memory_that_runs_out_in_a_header_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dicomtorch.dicom.elements import Header
    from dicomtorch.dicom.fallback import header_from_pydicom

    def fail(*_: Any, **__: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr("pydicom.filereader.read_dataset", fail)
    with pytest.raises(MemoryError):
        header_from_pydicom(
            lambda offset, length: b"",
            0,
            0,
            frozenset(),
            Header(""),
            True,
            LIMITS,
            cause=HeaderError("x"),
        )
