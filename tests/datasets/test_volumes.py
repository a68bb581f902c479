"""`DicomVolumes`, against the pixels and positions that the test wrote."""

from __future__ import annotations

import math
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from dicomtorch import DicomVolumes, FrameLoader, patient_to_voxel, scan
from dicomtorch.errors import DecodeError, FrameIndexError, GeometryError, OptionError, SourceError
from tests.support.phantoms import ct, ct_pixels, encapsulated, write

ORDER = (3, 0, 4, 1, 2)


def series(folder: Path, count: int = 5, uid: str = "1.2.3", **attributes: Any) -> Path:
    for number, k in enumerate(np.random.default_rng(3).permutation(count).tolist()):
        dataset = ct(
            ct_pixels(k), k, SeriesInstanceUID=uid, SOPInstanceUID=f"{uid}.{k}", **attributes
        )
        write(dataset, folder / f"{number:03d}.dcm")
    return folder


def hounsfield(count: int = 5) -> np.ndarray[Any, Any]:
    return np.stack([ct_pixels(k) for k in range(count)]).astype(np.float32)


def test_a_volume_and_what_is_said_of_it(tmp_path: Path) -> None:
    volumes = DicomVolumes(series(tmp_path), values="modality")
    assert len(volumes) == 1
    volume, meta = volumes[0]
    assert (volume.shape, volume.dtype) == ((1, 5, 24, 32), torch.float32)
    np.testing.assert_array_equal(volume[0].numpy(), hounsfield())
    expected = np.array([[0, 0, 0.8, 0], [0, 0.7, 0, 0], [2.5, 0, 0, 0], [0, 0, 0, 1.0]])
    np.testing.assert_allclose(meta["affine"].numpy(), expected)
    np.testing.assert_allclose(meta["affine_ras"].numpy(), np.diag([-1, -1, 1, 1]) @ expected)
    assert meta["affine"].dtype == torch.float64
    assert meta["spacing"] == pytest.approx((2.5, 0.7, 0.8))
    assert meta["SOPInstanceUIDs"] == tuple(f"1.2.3.{k}" for k in range(5))
    uids = volumes.index.column("SOPInstanceUID")
    assert [uids[k] for k in meta["frames"]] == list(meta["SOPInstanceUIDs"])
    assert (meta["index"], meta["requested_index"]) == (0, 0)
    assert [meta["tilt"], meta["position_error"]] == [0.0, pytest.approx(0)]
    # In common, or missing.
    assert (meta["SeriesInstanceUID"], meta["Modality"], meta["PixelSpacing"]) == (
        "1.2.3",
        "CT",
        (0.7, 0.8),
    )
    assert (meta["SOPInstanceUID"], meta["InstanceNumber"]) == ("", -1)
    assert math.isnan(meta["FrameTime"])
    assert list(meta["ImagePositionPatient"]) == [0, 0, 0]
    np.testing.assert_allclose(patient_to_voxel((1.6, 2.1, 5), meta["affine"]), (2, 3, 2))
    assert repr(volumes) == "DicomVolumes(1 volume, 5 slices)"


def test_rescale_of_each_slice(tmp_path: Path) -> None:
    for k in range(3):
        dataset = ct(ct_pixels(k), k, RescaleSlope=1 + k, RescaleIntercept=-10 * k, Modality="PT")
        write(dataset, tmp_path / f"{k}.dcm")
    volume, meta = DicomVolumes(tmp_path, values="modality")[0]
    expected = [ct_pixels(k).astype(np.float32) * (1 + k) - 10 * k for k in range(3)]
    np.testing.assert_array_equal(volume[0].numpy(), expected)
    assert math.isnan(meta["RescaleSlope"])


def test_one_mapping_for_all_slices(tmp_path: Path) -> None:
    for k, (center, width) in enumerate(((40, 400), (600, 2800))):
        dataset = ct(np.full((4, 4), 100, np.int16), k, WindowCenter=center, WindowWidth=width)
        write(dataset, tmp_path / f"{k}.dcm")
    volume, meta = DicomVolumes(tmp_path)[0]
    np.testing.assert_allclose(volume.numpy(), 900 / 2799, atol=1e-6)
    assert meta["voi"] == "sample"


def test_several_channels_and_stored_values(tmp_path: Path) -> None:
    series(tmp_path)
    volume, _ = DicomVolumes(tmp_path, window=[(-600, 1500), (40, 400)])[0]
    assert volume.shape == (2, 5, 24, 32)
    for channel, (center, width) in zip(volume.numpy(), ((-600, 1500), (40, 400)), strict=True):
        y = (hounsfield() - (center - 0.5)) / (width - 1) + 0.5
        np.testing.assert_allclose(channel, np.clip(y, 0, 1), atol=1e-6)
    stored, _ = DicomVolumes(tmp_path, values="stored")[0]
    assert stored.dtype == torch.int16
    np.testing.assert_array_equal(stored[0].numpy(), hounsfield())


@pytest.mark.parametrize("size", [(12, 16), (48, 48), (24, 32), (10, 50)])
def test_the_affine_is_that_of_the_resized_tensor(tmp_path: Path, size: tuple[int, int]) -> None:
    """A bright spot is found at the same place, however the image was resized."""
    for k in range(3):
        y, x = np.mgrid[:24, :32]
        spot = 1000 * np.exp(-((y - 14) ** 2 + (x - 20) ** 2) / 18)
        write(ct(spot.astype(np.int16), k), tmp_path / f"{k}.dcm")
    volume, meta = DicomVolumes(tmp_path, values="modality", size=size, padding=0)[0]
    weights = volume[0, 1].double() * (volume[0, 1] > 20)
    rows, columns = torch.meshgrid(*(torch.arange(n).double() for n in size), indexing="ij")
    total = weights.sum()
    found = (1.0, float((weights * rows).sum() / total), float((weights * columns).sum() / total))
    place = meta["affine"].numpy() @ (*found, 1)
    np.testing.assert_allclose(place[:3], (20 * 0.8, 14 * 0.7, 2.5), atol=0.12)
    scale = min(size[0] / 24, size[1] / 32)
    assert meta["spacing"] == pytest.approx((2.5, 0.7 / scale, 0.8 / scale), rel=0.05)
    assert meta["resized"][0] == pytest.approx(scale)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches(tmp_path: Path, workers: int) -> None:
    for number in range(4):
        series(tmp_path / str(number), uid=f"1.2.{number}")
    volumes = DicomVolumes(tmp_path, values="modality", tags=["PatientSex"])
    loader = DataLoader(volumes, batch_size=2, num_workers=workers)
    batches = list(loader)
    for images, meta in batches:
        assert images.shape == (2, 1, 5, 24, 32)
        np.testing.assert_array_equal(images[1, 0].numpy(), hounsfield())
        assert meta["affine"].shape == (2, 4, 4)
        assert meta["frames"].shape == (2, 5)
        assert meta["SOPInstanceUIDs"][1][4].endswith(".4")
        assert meta["spacing"].shape == (2, 3)
        assert meta["PatientSex"] == ["F", "F"]
    assert [k for _, meta in batches for k in meta["index"].tolist()] == [0, 1, 2, 3]
    images, meta = volumes[1:3]
    assert images.shape == (2, 1, 5, 24, 32)
    assert meta["index"].tolist() == [1, 2]
    threads = list(FrameLoader(volumes, batch_size=2))
    assert torch.equal(threads[1][0], batches[1][0])


def test_volumes_of_different_sizes(tmp_path: Path) -> None:
    series(tmp_path / "a", 5, "1.2.1")
    series(tmp_path / "b", 6, "1.2.2")
    volumes = DicomVolumes(tmp_path)
    assert volumes.shape(0) == (1, 5, 24, 32)
    assert volumes.shape(-1) == (1, 6, 24, 32)
    with pytest.raises(OptionError, match="shape"):
        volumes[[0, 1]]
    listed = next(iter(DataLoader(volumes, batch_size=2, collate_fn=list)))
    assert [image.shape[1] for image, _ in listed] == [5, 6]


def test_positions(tmp_path: Path) -> None:
    volumes = DicomVolumes(series(tmp_path))
    assert volumes[-1][1]["index"] == 0
    assert volumes[np.int64(0)][1]["index"] == 0
    with pytest.raises(FrameIndexError, match="volume 1"):
        volumes[1]
    with pytest.raises(OptionError, match="str"):
        volumes["a"]  # type: ignore[index]
    with pytest.raises(OptionError, match="empty"):
        volumes[[]]


def test_pickled(tmp_path: Path) -> None:
    volumes = DicomVolumes(series(tmp_path), values="modality")
    again = pickle.loads(pickle.dumps(volumes))
    assert torch.equal(again[0][0], volumes[0][0])


def test_a_transform_gets_the_volume(tmp_path: Path) -> None:
    volumes = DicomVolumes(series(tmp_path), transform=lambda volume: volume.mean(dim=1))
    images, _ = volumes[[0]]
    assert images.shape == (1, 1, 24, 32)


def test_gaps_raise_unless_told_otherwise(tmp_path: Path) -> None:
    series(tmp_path, 6)
    index, _ = scan(tmp_path)
    index = index.select(np.asarray(index.column("InstanceNumber")) != 3)
    with pytest.raises(GeometryError, match=r"1 missing between"):
        DicomVolumes(index)
    with pytest.warns(UserWarning, match=r"1 missing between"):
        volumes = DicomVolumes(index, on_gap="warn", values="modality")
    volume, meta = volumes[0]
    np.testing.assert_array_equal(volume[0].numpy(), np.delete(hounsfield(6), 2, axis=0))
    assert meta["position_error"] > 1


def test_no_volume(tmp_path: Path) -> None:
    write(ct(np.stack([ct_pixels(k) for k in range(3)]), Modality="US"), tmp_path / "cine.dcm")
    with pytest.raises(SourceError, match="no volume among 3 frames: 3: ultrasound"):
        DicomVolumes(tmp_path)


def test_a_tilted_gantry_is_in_the_affine(tmp_path: Path) -> None:
    tilt = math.radians(20)
    orientation = [1, 0, 0, 0, math.cos(tilt), math.sin(tilt)]
    for k in range(4):
        dataset = ct(ct_pixels(k), k, ImagePositionPatient=[-5, -6, 4 * k])
        dataset.ImageOrientationPatient = [f"{number:.8f}" for number in orientation]
        write(dataset, tmp_path / f"{k}.dcm")
    _, meta = DicomVolumes(tmp_path)[0]
    assert meta["tilt"] == pytest.approx(20, abs=1e-4)
    assert meta["spacing"] == pytest.approx((4 * math.cos(tilt), 0.7, 0.8), abs=1e-6)
    corner = meta["affine"].numpy() @ (3, 10, 0, 1)
    np.testing.assert_allclose(
        corner[:3], (-5, -6 + 7 * math.cos(tilt), 12 + 7 * math.sin(tilt)), atol=1e-6
    )


def damaged(tmp_path: Path) -> Path:
    for number in range(3):
        series(tmp_path / str(number), uid=f"1.2.{number}")
    broken = encapsulated(
        ct(ct_pixels(0), 0, SeriesInstanceUID="1.2.1"), [b"\xff\x4f\xff\x51" + bytes(60)]
    )
    broken.SOPInstanceUID = "1.2.1.0"
    for path in (tmp_path / "1").iterdir():
        if b"1.2.1.0\0" in path.read_bytes():
            write(broken, path)
    return tmp_path


def test_a_volume_that_cannot_be_read(tmp_path: Path) -> None:
    folder = damaged(tmp_path)
    with pytest.raises(DecodeError, match=r"1/.*dcm, frame 0"):
        DicomVolumes(folder)[1]
    volumes = DicomVolumes(folder, on_error="replace")
    with pytest.warns(UserWarning, match="Volume 1 was replaced by volume 2"):
        _, meta = volumes[1]
    assert (meta["index"], meta["requested_index"]) == (2, 1)
    images, meta = volumes[[0, 1]]
    assert meta["index"].tolist() == [0, 2]
    assert torch.equal(images[1], volumes[2][0])
    assert [failure.index for failure in volumes.failures] == [1, 1]


def test_reading_says_nothing(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        DicomVolumes(series(tmp_path))[0]
