"""Dose on images: by hand from the values of a file that comes with pydicom, and of files that the tests write."""

from __future__ import annotations

import pickle
import shutil

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file

from dicomtorch import scan
from dicomtorch.errors import GeometryError, OptionError
from dicomtorch.masks.dose import RT_DOSE, DoseGrids
from tests.support.mask_phantoms import SPACE, series
from tests.support.meta_types import misfits, misfits_in_batch
from tests.support.phantoms import ct, write


def dose_file(folder, offsets, values=None, space=SPACE, name="dose.dcm", origin=(0, 0, 0)):
    """A dose grid whose value is linear in x, y and z."""
    x, y = np.meshgrid(np.arange(6.0) * 2, np.arange(5.0) * 2)
    planes = (
        [100 + x + 3 * y + 10 * offset for offset in sorted(offsets)] if values is None else values
    )
    order = np.argsort(np.argsort(offsets))
    pixels = np.stack([planes[k] for k in order]).astype(np.uint16)
    dataset = ct(
        pixels,
        90,
        Modality="RTDOSE",
        SOPClassUID=RT_DOSE,
        FrameOfReferenceUID=space,
        ImagePositionPatient=list(origin),
        PixelSpacing=[2, 2],
        DoseGridScaling=0.5,
        DoseUnits="GY",
        DoseType="PHYSICAL",
        DoseSummationType="PLAN",
        GridFrameOffsetVector=[float(o) for o in offsets],
        FrameIncrementPointer=0x3004000C,
        PixelRepresentation=0,
    )
    dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.UID(RT_DOSE)
    for keyword in ("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth"):
        del dataset[keyword]
    write(dataset, folder / name)


def grids(folder):
    index, _ = scan(folder)
    return DoseGrids(index.filter(Modality="CT"), index)


@pytest.mark.parametrize("offsets", [[0, 2, 5], [0, -2, -5]])
def test_planes_need_not_be_equally_far_apart(tmp_path, offsets):
    low = min(offsets)
    series(tmp_path, 4, (8, 9), ImagePositionPatient=lambda k: [1, 1, low + 1.5 * k])
    dose_file(tmp_path, offsets)
    dose = pickle.loads(pickle.dumps(grids(tmp_path)))
    x, y = np.meshgrid(1 + np.arange(9.0), 1 + np.arange(8.0))
    for k in range(4):
        found = dose.on(k)
        inside = np.broadcast_to((x <= 10) & (y <= 8) & (1.5 * k <= 5), x.shape)
        np.testing.assert_array_equal(found.inside, inside)
        expected = 0.5 * (100 + x + 3 * y + 10 * (low + 1.5 * k))
        np.testing.assert_allclose(found.values, np.where(inside, expected, 0), rtol=1e-6)


def test_a_relative_dose_of_a_public_kind(tmp_path):
    path = get_testdata_file("rtdose.dcm")
    dataset = pydicom.dcmread(path)
    values = dataset.pixel_array * float(dataset.DoseGridScaling)
    origin = np.array(dataset.ImagePositionPatient, float)
    row = np.array(dataset.ImageOrientationPatient[:3], float)
    column = np.array(dataset.ImageOrientationPatient[3:], float)
    between_rows, between_columns = map(float, dataset.PixelSpacing)
    step = float(dataset.GridFrameOffsetVector[1]) * np.cross(row, column)
    places = [
        origin,
        origin + 0.5 * (row * between_columns + column * between_rows + step),
        origin + 0.5 * step,
        origin - row * between_columns,
    ]
    expected = [
        values[0, 0, 0],
        values[:2, :2, :2].mean(),
        values[:2, 0, 0].mean(),
        0.0,
    ]
    series(
        tmp_path,
        4,
        (1, 1),
        ImagePositionPatient=lambda k: [round(float(x), 6) for x in places[k]],
        ImageOrientationPatient=list(dataset.ImageOrientationPatient),
        FrameOfReferenceUID=dataset.FrameOfReferenceUID,
    )
    shutil.copy(path, tmp_path / "dose.dcm")
    dose = grids(tmp_path)
    found = [float(dose.on(k).values[0, 0]) for k in range(4)]
    assert found == pytest.approx(expected, abs=1e-5)
    assert found == pytest.approx([1.249, 1.220375, 1.2485, 0], abs=5e-4)


def test_which_dose_is_meant_must_be_clear(tmp_path):
    series(tmp_path, 2, (4, 4))
    with pytest.raises(OptionError, match="no dose file has the FrameOfReferenceUID"):
        grids(tmp_path)
    dose_file(tmp_path, [0, 2])
    dose_file(tmp_path, [0, 2], name="other.dcm")
    with pytest.raises(OptionError, match="2 dose files share one FrameOfReferenceUID"):
        grids(tmp_path)


def test_an_image_in_another_space_has_no_dose(tmp_path):
    series(tmp_path, 2, (4, 4), FrameOfReferenceUID=lambda k: SPACE if k else "1.2.3")
    dose_file(tmp_path, [0, 2])
    dose = grids(tmp_path)
    with pytest.raises(GeometryError, match="no dose in its FrameOfReferenceUID"):
        dose.on(0)
    assert dose.on(1).inside.any()


def test_volumes_have_their_dose_in_meta(tmp_path):
    from torch.utils.data import DataLoader

    from dicomtorch import DicomVolumes

    series(tmp_path, 4, (8, 9), ImagePositionPatient=lambda k: [1, 1, 1.5 * k])
    dose_file(tmp_path, [0, 2, 5])
    volumes = DicomVolumes(tmp_path, dose=True, values="modality")
    assert len(volumes) == 1
    _, meta = volumes[0]
    alone = grids(tmp_path)
    np.testing.assert_array_equal(
        meta["dose"][0].numpy(), np.stack([alone.on(k).values for k in range(4)])
    )
    assert meta["dose_valid"] == (0, 4, 0, 8, 0, 9)
    assert meta["DoseUnits"] == "GY"
    assert misfits(meta) == []
    _, batch = next(iter(DataLoader(volumes, batch_size=1)))
    assert batch["dose"].shape == (1, 1, 4, 8, 9)
    assert misfits_in_batch(batch) == []
    _, half = DicomVolumes(tmp_path, dose=True, values="modality", size=(4, 9))[0]
    voxels = np.moveaxis(np.indices(half["dose"].shape[1:]), 0, -1)
    places = voxels @ half["affine"][:3, :3].numpy().T + half["affine"][:3, 3].numpy()
    x, y, z = np.moveaxis(places, -1, 0)
    inside = (x >= 0) & (x <= 10) & (y >= 0) & (y <= 8) & (z <= 5)
    expected = np.where(inside, 0.5 * (100 + x + 3 * y + 10 * z), 0)
    np.testing.assert_allclose(half["dose"][0].numpy(), expected, rtol=1e-6)
