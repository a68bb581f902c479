"""Volumes of time series, and slices that lie beside each other in one frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from torch.utils.data import DataLoader

from dicomtorch import DicomCrops, DicomFrames, DicomVolumes, scan
from dicomtorch.errors import GeometryError, OptionError, SourceError
from dicomtorch.storage.local import LocalFile
from tests.support.csa import csa_header
from tests.support.meta_types import misfits
from tests.support.phantoms import ct, ct_pixels, encapsulated, write


def time_series(folder: Path, times: int = 3, count: int = 4, **attributes: Any) -> None:
    """Volume t, slice k: `ct_pixels(10 t + k)`; names run against time."""
    for t in range(times):
        for k in range(count):
            dataset = ct(ct_pixels(10 * t + k), 10 * t + k, ImagePositionPatient=[0, 0, 3 * k])
            dataset.TemporalPositionIdentifier = t + 1
            dataset.AcquisitionTime = f"1010{10 + 2 * t}.5"
            dataset.EchoTime = 4.5
            for name, value in attributes.items():
                setattr(dataset, name, value)
            write(dataset, folder / f"{9 - t}-{k}.dcm")


def test_a_series_is_one_sample(tmp_path: Path) -> None:
    time_series(tmp_path)
    volumes = DicomVolumes(tmp_path, group="series", values="stored")
    assert len(volumes) == 1
    image, meta = volumes[0]
    assert image.shape == volumes.shape(0) == (3, 1, 4, 24, 32)
    for t in range(3):
        for k in range(4):
            np.testing.assert_array_equal(image[t, 0, k], ct_pixels(10 * t + k))
    assert list(meta["times"]) == [0, 2000, 4000]
    assert meta["separated_by"] == "TemporalPositionIndex"
    assert list(meta["echo_times"]) == [4.5] * 3
    assert np.isnan(meta["b_values"]).all()
    assert meta["gradient_directions"].shape == (3, 3)
    assert (meta["series_index"], meta["volume_index"], meta["volume_count"]) == (0, 0, 3)
    assert meta["frame_of_reference"] == "PATIENT"
    assert len(meta["frames"]) == 12
    assert repr(volumes) == "DicomVolumes(1 series of 3 volumes, 12 slices)"
    assert volumes.find(InstanceNumber=11) == 0


def test_volumes_of_a_series_alone_say_which_they_are(tmp_path: Path) -> None:
    time_series(tmp_path / "a")
    time_series(tmp_path / "b", times=2, SeriesInstanceUID="1.2.3")
    volumes = DicomVolumes(tmp_path)
    said = [(m["series_index"], m["volume_index"], m["volume_count"]) for _, m in volumes]
    assert sorted(said) == [(0, 0, 3), (0, 1, 3), (0, 2, 3), (1, 0, 2), (1, 1, 2)]
    assert [meta["times"] for _, meta in volumes] == [(0,), (2000,), (4000,), (0,), (2000,)]


def test_one_mapping_to_display_for_a_series(tmp_path: Path) -> None:
    time_series(tmp_path)
    image, meta = DicomVolumes(tmp_path, group="series", window=None)[0]
    assert image.shape == (3, 1, 4, 24, 32)
    flat = np.concatenate([ct_pixels(10 * t + k).ravel() for t in range(3) for k in range(4)])
    assert (float(image.min()), float(image.max())) == (0, 1)
    index = np.unravel_index(flat.argmax(), (3, 4, 24, 32))
    assert image[index[0], 0, index[1], index[2], index[3]] == 1
    assert meta["WindowWidth"] > 0


def test_volumes_of_other_grids_are_alone(tmp_path: Path) -> None:
    time_series(tmp_path, times=2)
    for k in range(3):
        dataset = ct(ct_pixels(90 + k), 90 + k, ImagePositionPatient=[50, 0, 3 * k])
        dataset.TemporalPositionIdentifier = 3
        write(dataset, tmp_path / f"z{k}.dcm")
    volumes = DicomVolumes(tmp_path, group="series", on_gap="keep")
    assert [volume.shape[:3] for volume, _ in volumes] == [(1, 1, 4), (1, 1, 4), (1, 1, 3)]
    assert [meta["volume_index"] for _, meta in volumes] == [0, 1, 2]


def test_batches_of_series(tmp_path: Path) -> None:
    time_series(tmp_path / "a")
    time_series(tmp_path / "b", SeriesInstanceUID="1.2.3")
    images, meta = next(iter(DataLoader(DicomVolumes(tmp_path, group="series"), batch_size=2)))
    assert images.shape == (2, 3, 1, 4, 24, 32)
    assert meta["times"].shape == (2, 3)
    assert meta["gradient_directions"].shape == (2, 3, 3)
    assert meta["separated_by"] == ["TemporalPositionIndex"] * 2


def test_options(tmp_path: Path) -> None:
    time_series(tmp_path)
    with pytest.raises(OptionError, match="group"):
        DicomVolumes(tmp_path, group="patient")  # type: ignore[call-overload]
    with pytest.raises(OptionError, match="mosaic"):
        DicomVolumes(tmp_path, mosaic="tiles")  # type: ignore[call-overload]


def test_single_slices(tmp_path: Path) -> None:
    write(ct(ct_pixels(1), 1, SpacingBetweenSlices=4, SeriesInstanceUID="1.1"), tmp_path / "a.dcm")
    for k in range(2):
        write(ct(ct_pixels(2 + k), 2 + k, ImagePositionPatient=[0, 0, 7]), tmp_path / f"b{k}.dcm")
    with pytest.raises(SourceError, match="a single place"):
        DicomVolumes(tmp_path)
    volumes = DicomVolumes(tmp_path, single_slices=True, values="stored")
    assert [tuple(volume.shape) for volume, _ in volumes] == [(1, 1, 24, 32)] * 3
    volume, meta = volumes[0]
    np.testing.assert_array_equal(volume[0, 0], ct_pixels(1))
    np.testing.assert_allclose(meta["affine"][:3, 0], [0, 0, 4])
    assert meta["spacing"][0] == pytest.approx(4)


# Sheets

SIDE, COUNT = 72, 5
PIXELS = np.arange(216 * 216, dtype=np.uint16).reshape(216, 216)


def sheet(t: int = 0, **attributes: Any) -> Dataset:
    """A Siemens mosaic of 5 slices 72 x 72."""
    dataset = ct(
        PIXELS + np.uint16(t), t, Modality="MR", SOPInstanceUID=generate_uid(),
        ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"], ImagePositionPatient=[-100, -90, 10],
        PixelSpacing=[2, 2], SpacingBetweenSlices=4, AcquisitionTime=f"10101{t}",
    )  # fmt: skip
    block = dataset.private_block(0x19, "SIEMENS MR HEADER", create=True)
    block.add_new(0x0A, "US", COUNT)
    header = csa_header(SliceNormalVector=[0, 0, 1])
    dataset.private_block(0x29, "SIEMENS CSA HEADER", create=True).add_new(0x10, "OB", header)
    for name, value in attributes.items():
        setattr(dataset, name, value)
    return dataset


def tile(k: int) -> Any:
    top, left = k // 3 * SIDE, k % 3 * SIDE
    return PIXELS[top : top + SIDE, left : left + SIDE]


def sheets(folder: Path, times: int = 3) -> None:
    for t in range(times):
        write(sheet(t), folder / f"{t}.dcm")


def test_slices_of_a_sheet(tmp_path: Path) -> None:
    write(sheet(), tmp_path / "0.dcm")
    volumes = DicomVolumes(tmp_path, values="stored")
    volume, meta = volumes[0]
    assert volume.shape == volumes.shape(0) == (1, COUNT, SIDE, SIDE)
    for k in range(COUNT):
        np.testing.assert_array_equal(volume[0, k], tile(k))
    assert volume[0, 2, 10, 20] == PIXELS[10, 2 * SIDE + 20]
    # The corner is that of a tile with the sheet's centre.
    first = [-100 + SIDE * 2, -90 + SIDE * 2, 10]
    np.testing.assert_allclose(meta["ImagePositionPatient"], first)
    np.testing.assert_allclose(
        meta["affine"] @ torch.tensor([2.0, 10, 20, 1]).double(), [*np.add(first, [40, 20, 8]), 1]
    )
    assert (meta["Rows"], meta["Columns"]) == (SIDE, SIDE)
    assert meta["frames"] == (0,) * COUNT
    with pytest.raises(SourceError, match='mosaic="sheet"'):
        DicomVolumes(tmp_path, mosaic="sheet")
    frame, frame_meta = DicomFrames(tmp_path, values="stored")[0]
    np.testing.assert_array_equal(frame[0], PIXELS)
    assert frame_meta["mosaic"] == COUNT
    assert misfits(frame_meta) == []
    assert np.isnan(frame_meta["ImagePositionPatient"]).all()


def test_sheets_over_time(tmp_path: Path) -> None:
    sheets(tmp_path)
    image, meta = DicomVolumes(tmp_path, group="series", values="stored")[0]
    assert image.shape == (3, 1, COUNT, SIDE, SIDE)
    for t in range(3):
        np.testing.assert_array_equal(image[t, 0, 4], tile(4) + t)
    assert meta["times"] == (0, 1000, 2000)


@pytest.mark.parametrize(
    "options",
    [{}, {"values": "modality"}, {"size": (36, 36)}, {"values": "modality", "normalize": "zscore"}],
)
def test_sheets_with_options_are_as_volumes_of_files(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    """The same slices, once in a sheet and once in files of their own."""
    write(sheet(RescaleSlope=2, RescaleIntercept=-7), tmp_path / "sheet" / "0.dcm")
    for k in range(COUNT):
        dataset = ct(
            np.ascontiguousarray(tile(k)), k, Modality="MR", PixelSpacing=[2, 2], RescaleSlope=2, RescaleIntercept=-7,
            ImagePositionPatient=[44, 54, 10 + 4 * k],
        )  # fmt: skip
        write(dataset, tmp_path / "files" / f"{k}.dcm")
    ours, meta = DicomVolumes(tmp_path / "sheet", **options)[0]
    expected, expected_meta = DicomVolumes(tmp_path / "files", **options)[0]
    torch.testing.assert_close(ours, expected, rtol=0, atol=0)
    torch.testing.assert_close(meta["affine"], expected_meta["affine"])


def test_an_encapsulated_sheet(tmp_path: Path) -> None:
    import imagecodecs

    stream = imagecodecs.jpeg2k_encode(PIXELS, reversible=True, codecformat="j2k")
    write(encapsulated(sheet(), [bytes(stream)]), tmp_path / "0.dcm")
    volume, _ = DicomVolumes(tmp_path, values="stored")[0]
    for k in range(COUNT):
        np.testing.assert_array_equal(volume[0, k], tile(k))


def candidates(**columns: list[Any]) -> dict[str, list[Any]]:
    return {"SeriesInstanceUID": [ct(ct_pixels()).SeriesInstanceUID], **columns}


def test_a_crop_of_a_sheet_reads_the_rows_of_its_tiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(sheet(), tmp_path / "0.dcm")
    table = candidates(x=[44.0 + 2 * 30], y=[54.0 + 2 * 20], z=[10.0 + 4])
    crops = DicomCrops(tmp_path, table, (1, 9, 9), values="stored")
    read: list[int] = []
    original = LocalFile.read_exactly

    def counted(self: Any, offset: int, length: int, *rest: Any) -> Any:
        read.append(length)
        return original(self, offset, length, *rest)

    monkeypatch.setattr(LocalFile, "read_exactly", counted)
    crop, meta = crops[0]
    assert sum(read) == SIDE * 216 * 2  # the first row of tiles, of three
    np.testing.assert_array_equal(crop[0, 0], tile(1)[20 - 4 : 20 + 5, 30 - 4 : 30 + 5])
    assert meta["frames"] == (0,)


# Crops in a series of several volumes


def test_a_crop_names_its_volume(tmp_path: Path) -> None:
    time_series(tmp_path)
    place: dict[str, list[Any]] = {"x": [8.0], "y": [7.0], "z": [6.0]}
    with pytest.raises(GeometryError, match=r"3 volumes.*volume_index.*TemporalPositionIndex"):
        DicomCrops(tmp_path, candidates(**place), (1, 3, 3))
    for column in ({"volume_index": [1]}, {"TemporalPositionIndex": [2]}):
        crops = DicomCrops(tmp_path, candidates(**place, **column), (1, 3, 3), values="stored")
        np.testing.assert_array_equal(crops[0][0][0, 0], ct_pixels(12)[9:12, 9:12])
        assert crops[0][1][next(iter(column))] == next(iter(column.values()))[0]
    voxel: dict[str, list[Any]] = {"x": [10], "y": [10], "z": [2], "volume_index": [2]}
    crops = DicomCrops(
        tmp_path, candidates(**voxel), (1, 3, 3), values="stored", coordinates="voxel"
    )
    np.testing.assert_array_equal(crops[0][0][0, 0], ct_pixels(22)[9:12, 9:12])
    with pytest.raises(GeometryError, match="volume_index 3"):
        DicomCrops(tmp_path, candidates(**place, volume_index=[3]), (1, 3, 3))


def test_the_nearer_of_two_stacks_at_their_seam(tmp_path: Path) -> None:
    """Two stations of 3 mm, whose slices lie 2 mm beside each other at the seam."""
    for station in range(2):
        for k in range(5):
            dataset = ct(ct_pixels(10 * station + k), 10 * station + k)
            dataset.ImagePositionPatient = [0, 0, 3 * k + 14.5 * station]
            dataset.AcquisitionNumber = station + 1
            write(dataset, tmp_path / f"{station}{k}.dcm")
    index, _ = scan(tmp_path)
    for z, expected in ((12.9, 4), (13.4, 10)):
        crops = DicomCrops(index, candidates(x=[8.0], y=[7.0], z=[z]), (1, 3, 3), values="stored")
        np.testing.assert_array_equal(crops[0][0][0, 0], ct_pixels(expected)[9:12, 9:12])
