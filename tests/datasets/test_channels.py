"""Several series as channels of one sample, against the values that the test wrote."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from dicomtorch import DicomVolumes, FrameLoader, scan
from dicomtorch.errors import GeometryError, OptionError, SourceError
from tests.support.mask_phantoms import segmentation
from tests.support.mask_phantoms import series as slices_for_masks
from tests.support.phantoms import ct, write
from tests.support.requirements import require

ASKED: dict[str, Any] = {
    "t1": {"SeriesDescription": "T1"},
    "t2": {"SeriesDescription": ["T2", "T2 thin"]},
}


def ramp(scale: float, at: Any) -> Any:
    """A linear function of the place in millimetres."""
    return np.rint(scale * (10 * at[..., 2] + 5 * at[..., 0] + 20 * at[..., 1]))


def series(
    folder: Path,
    study: int,
    name: str,
    *,
    scale: float = 1,
    count: int = 4,
    step: float = 2,
    start: float = 0,
    pixel: float = 1,
    size: int = 12,
    **attributes: Any,
) -> None:
    for k in range(count):
        rows, columns = np.mgrid[:size, :size] * pixel
        at = np.stack([columns, rows, np.full_like(rows, start + k * step)], axis=-1)
        dataset = ct(ramp(scale, at).astype(np.int16), k, RescaleIntercept=0, RescaleSlope=1)
        dataset.StudyInstanceUID = f"1.2.{study}"
        dataset.SeriesInstanceUID = f"1.2.{study}.{len(name)}.{round(10 * step)}"
        dataset.SOPInstanceUID = f"{dataset.SeriesInstanceUID}.{k + 1}"
        dataset.SeriesDescription = name
        dataset.ImagePositionPatient = [0, 0, start + k * step]
        dataset.PixelSpacing = [pixel, pixel]
        for key, value in attributes.items():
            setattr(dataset, key, value)
        write(dataset, folder / f"{study}-{name}-{k}.dcm")


def test_series_are_channels_on_one_grid(tmp_path: Path) -> None:
    for study in (1, 2):
        series(tmp_path, study, "T1")
        series(tmp_path, study, "T2 thin", scale=-2)
        series(tmp_path, study, "localizer of no use", step=5)
    volumes = DicomVolumes(tmp_path, channels=ASKED, values="modality")
    assert len(volumes) == 2
    image, meta = volumes[1]
    assert image.shape == volumes.shape(1) == (2, 4, 12, 12)
    assert torch.equal(image[1], -2 * image[0])
    assert image[0, 3, 2, 5] == 60 + 25 + 40
    assert meta["channels"] == ("t1", "t2")
    assert meta["channel_series"] == ("1.2.2.2.20", "1.2.2.7.20")
    assert meta["channel_resampled"] == (0, 0)
    assert meta["same_frame_of_reference"] == 1
    assert meta["SeriesInstanceUID"] == "1.2.2.2.20"
    assert len(meta["frames"]) == 4
    assert "SeriesDescription" not in meta
    assert volumes.incomplete == ()
    assert volumes.find(SOPInstanceUID="1.2.1.7.20.2") == 0


def test_the_order_of_channels_is_that_of_the_argument(tmp_path: Path) -> None:
    series(tmp_path, 1, "T1")
    series(tmp_path, 1, "T2", scale=3, step=2.0000001)
    image, _ = DicomVolumes(
        tmp_path, channels={"b": ASKED["t2"], "a": ASKED["t1"]}, values="stored"
    )[0]
    assert torch.equal(image[0], 3 * image[1])


def test_parts_of_an_index_and_another_column(tmp_path: Path) -> None:
    for study in (1, 2):
        series(tmp_path, study, "T1", PatientID=f"P{study}")
        series(tmp_path, study + 10, "T2", scale=2, PatientID=f"P{study}")
    index, _ = scan(tmp_path, tags=["SeriesDescription"])
    channels = {
        "t1": index.filter(SeriesDescription="T1"),
        "t2": index.filter(SeriesDescription="T2"),
    }
    volumes = DicomVolumes(index, channels=channels, by="patient", values="stored")
    assert len(volumes) == 2
    for image, _ in volumes:
        assert torch.equal(image[1], 2 * image[0])
    untagged, _ = scan(tmp_path)
    image, meta = DicomVolumes(untagged, channels=ASKED, by="patient", values="stored")[0]
    assert torch.equal(image[1], 2 * image[0])
    assert "SeriesDescription" not in meta
    other, _ = scan(tmp_path / "1-T1-0.dcm")
    with pytest.raises(OptionError, match="not a part of the source"):
        DicomVolumes(index, channels={"t1": other})


def test_other_grids_are_refused_or_resampled(tmp_path: Path) -> None:
    require("SimpleITK")
    series(tmp_path, 1, "T1")
    series(tmp_path, 1, "T2 thin", count=9, step=1, start=-1, pixel=0.5, size=25, scale=2)
    with pytest.raises(
        GeometryError,
        match=r"'t1' is on the grid 4 x 12 x 12 of 2 x 1 x 1 mm.*'t2' on 9 x 25 x 25 of.*regrid=True",
    ):
        DicomVolumes(tmp_path, channels=ASKED)
    image, meta = DicomVolumes(tmp_path, channels=ASKED, regrid=True, values="modality")[0]
    assert image.shape == (2, 4, 12, 12)
    assert meta["channel_resampled"] == (0, 1)
    np.testing.assert_allclose(image[1], 2 * image[0], atol=1e-3)
    both = DicomVolumes(
        tmp_path,
        channels=ASKED,
        regrid=True,
        values="modality",
        spacing=(1, 2, 2),
        orientation="RAS",
    )
    image, meta = both[0]
    assert image.shape == both.shape(0)
    grid = np.stack([*np.indices(image.shape[1:]), np.ones(image.shape[1:])], axis=-1)
    at = (grid @ meta["affine"].numpy().T)[..., :3]
    linear = 10 * at[..., 2] + 5 * at[..., 0] + 20 * at[..., 1]
    np.testing.assert_allclose(image[0], linear, atol=1e-3)
    np.testing.assert_allclose(image[1], 2 * linear, atol=1e-3)


def test_what_lacks_a_channel_is_said(tmp_path: Path) -> None:
    series(tmp_path, 1, "T1")
    series(tmp_path, 1, "T2")
    series(tmp_path, 2, "T1")
    series(tmp_path, 3, "T1")
    series(tmp_path, 3, "T2")
    series(tmp_path, 3, "T2 thin")
    with pytest.warns(UserWarning, match="2 of 3 values of StudyInstanceUID are no sample"):
        volumes = DicomVolumes(tmp_path, channels=ASKED)
    assert len(volumes) == 1
    assert {one.value: one.reason.partition(",")[0] for one in volumes.incomplete} == {
        "1.2.2": "no volume of channel 't2'",
        "1.2.3": "2 volumes of channel 't2'",
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept = DicomVolumes(tmp_path, channels=ASKED, on_gap="keep")
    assert kept.incomplete == volumes.incomplete


@pytest.mark.parametrize("workers", [0, 2])
def test_batches(tmp_path: Path, workers: int) -> None:
    for study in (1, 2, 3):
        series(tmp_path, study, "T1")
        series(tmp_path, study, "T2", scale=2, step=2.04, count=4)
    require("SimpleITK")
    volumes = DicomVolumes(tmp_path, channels=ASKED, regrid=True)
    images, meta = next(iter(DataLoader(volumes, batch_size=3, num_workers=workers)))
    assert images.shape == (3, 2, 4, 12, 12)
    assert meta["channels"] == [("t1", "t2")] * 3
    assert meta["channel_resampled"].tolist() == [[0, 1]] * 3
    assert torch.equal(images[2], volumes[2][0])
    threads, _ = next(iter(FrameLoader(volumes, batch_size=3)))
    assert torch.equal(threads, images)


def test_masks_are_those_of_the_first_channel(tmp_path: Path) -> None:
    slices = slices_for_masks(tmp_path, 6, (12, 16))
    mask = np.zeros((12, 16), np.uint8)
    mask[2:6, 3:9] = 1
    segmentation(tmp_path / "seg.dcm", slices, [(1, k, mask) for k in (1, 2)], names=["liver"])
    first = {"SeriesInstanceUID": str(slices[0].SeriesInstanceUID)}
    volumes = DicomVolumes(tmp_path, channels={"a": first, "b": first}, masks=True)
    image, areas, meta = volumes[0]
    assert (image.shape, areas.shape) == ((2, 6, 12, 16), (1, 6, 12, 16))
    assert torch.equal(image[0], image[1])
    assert meta["mask_area"] == (48,)
    assert volumes.to_grid(0, areas).shape == (1, 6, 12, 16)


def test_channels_without_objects_beside_masks(tmp_path: Path) -> None:
    """The objects are of the first series; that the other has none is said, as everywhere."""
    slices = slices_for_masks(tmp_path, 6, (12, 16))
    mask = np.zeros((12, 16), np.uint8)
    mask[2:6, 3:9] = 1
    segmentation(tmp_path / "seg.dcm", slices, [(1, k, mask) for k in (1, 2)], names=["liver"])
    for k, one in enumerate(slices):
        one.SeriesInstanceUID, one.SOPInstanceUID = "1.2.3", f"1.2.3.{k}"
        one.FrameOfReferenceUID = "1.2.4"
        write(one, tmp_path / f"other{k}.dcm")
    index, _ = scan(tmp_path)
    second = index.filter(SeriesInstanceUID="1.2.3")
    images = index.images()
    channels = {"a": images.select(~images.where(SeriesInstanceUID="1.2.3")), "b": second}
    with pytest.raises(OptionError, match="have no object"):
        DicomVolumes(index, channels=channels, masks=True)
    volumes = DicomVolumes(index, channels=channels, masks=True, unlabelled="zero")
    image, areas, meta = volumes[0]
    assert image.shape == (2, 6, 12, 16)
    assert int(areas.sum()) == 48
    assert meta["mask_area"] == (48,)
    assert meta["same_frame_of_reference"] == 0


def test_options(tmp_path: Path) -> None:
    series(tmp_path, 1, "T1")
    with pytest.raises(OptionError, match="channels must be names"):
        DicomVolumes(tmp_path, channels={})
    with pytest.raises(OptionError, match="channels must be names"):
        DicomVolumes(tmp_path, channels={"t1": "T1"})
    with pytest.raises(OptionError, match="no frame is of channel 't2'"):
        DicomVolumes(tmp_path, channels=ASKED)
    with pytest.raises(OptionError, match="group"):
        DicomVolumes(tmp_path, channels=ASKED, group="series")
    series(tmp_path, 2, "T2")
    with (
        pytest.warns(UserWarning, match="2 of 2"),
        pytest.raises(SourceError, match="one volume of each"),
    ):
        DicomVolumes(tmp_path, channels=ASKED)
