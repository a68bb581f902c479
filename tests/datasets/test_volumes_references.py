"""Volumes against SimpleITK, highdicom and pydicom: values and places, and who is right where they differ."""

from __future__ import annotations

import math
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from dicomtorch import DicomVolumes, FrameIndex, Stack, scan, stacks
from tests.support.phantoms import ct, ct_pixels, write, write_series
from tests.support.requirements import require

sitk = pytest.importorskip("SimpleITK")

Array = np.ndarray[Any, Any]


@pytest.fixture(params=["bundled", "samples"], scope="module")
def index(request: pytest.FixtureRequest) -> FrameIndex:
    return scan(request.getfixturevalue(request.param))[0]


def regular(index: FrameIndex) -> Iterator[tuple[Stack, list[str]]]:
    """Stacks of an index, and the file of each slice."""
    for stack in stacks(index, on_gap="keep"):
        if stack.report.is_regular:
            yield stack, [index.path(i) for i in stack.positions.tolist()]


def ours(index: FrameIndex, stack: Stack, **options: Any) -> tuple[Array, Array]:
    """Values and affine."""
    (only,) = DicomVolumes(index.select(stack.positions), **{"values": "modality", **options})
    volume, meta = only
    return volume[0].numpy(), meta["affine"].numpy()


def compare(mine: tuple[Array, Array], theirs: tuple[Array, Array], name: str) -> None:
    """Each voxel has the same value at the same place; the slices may be in the opposite order."""
    values, affine = theirs
    if affine[:3, 0] @ mine[1][:3, 0] < 0:
        values, affine = values[::-1], affine.copy()
        affine[:3, 3] += (len(values) - 1) * affine[:3, 0]
        affine[:3, 0] *= -1
    # ITK takes the distance of the first two slices, whose positions are rounded.
    np.testing.assert_allclose(mine[1], affine, atol=1e-3, err_msg=name)
    np.testing.assert_allclose(mine[0], values, atol=1e-3, err_msg=name)


def affine_of(image: Any) -> Array:
    spacing, direction = image.GetSpacing(), np.array(image.GetDirection()).reshape(3, 3)
    affine = np.eye(4)
    for axis, of_itk in enumerate((2, 1, 0)):
        affine[:3, axis] = direction[:, of_itk] * spacing[of_itk]
    affine[:3, 3] = image.GetOrigin()
    return affine


def by_series_reader(paths: list[str], folder: Path) -> tuple[Array, Array]:
    """As SimpleITK's examples do: GDCM finds the series among the files of a folder and orders it."""
    folder.mkdir()
    for number, k in enumerate(np.random.default_rng(0).permutation(len(paths)).tolist()):
        shutil.copy(paths[k], folder / f"{number}.dcm")
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    return sitk.GetArrayFromImage(image), affine_of(image)


def test_series_are_those_of_simpleitk(index: FrameIndex, tmp_path: Path) -> None:
    compared: list[str] = []
    for stack, paths in regular(index):
        if len(set(paths)) == len(paths) and sitk_reads(paths[0]):
            theirs = by_series_reader(paths, tmp_path / str(len(compared)))
            compare(ours(index, stack), theirs, paths[0])
            compared.append(paths[0])
    assert compared


def test_multi_frame_images_are_those_of_simpleitk(index: FrameIndex) -> None:
    compared: list[str] = []
    for stack, paths in regular(index):
        header = pydicom.dcmread(paths[0], stop_before_pixels=True)
        if len(set(paths)) > 1 or not sitk_reads(paths[0]):
            continue
        image = sitk.ReadImage(paths[0])
        values = sitk.GetArrayFromImage(image).astype(np.float64)
        if header.get("SegmentationType") == "BINARY" and header.BitsAllocated == 1:
            # A pixel in a segment is 1 (PS3.3 C.8.20.2.3.1); GDCM widens one bit to 255.
            values /= 255
        if header.Modality == "RTDOSE":
            # Gy are what Dose Grid Scaling gives (C.8.8.3); ITK leaves it to its user.
            values *= float(header.DoseGridScaling)
        mine = ours(index, stack)
        if header.BitsAllocated == 1 and values.size % 8:
            # GDCM leaves the pixels of a last byte that is not whole as its memory was.
            rest = slice(-(values.size % 8), None)
            values.reshape(-1)[rest] = np.asarray(mine[0]).reshape(-1)[rest]
        compare(mine, (values, affine_of(image)), paths[0])
        compared.append(paths[0])
    assert compared


def sitk_reads(path: str) -> bool:
    """Not, for example, deflated and bit-packed JPEG 2000 files."""
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        sitk.ReadImage(path)
    except RuntimeError:
        return False
    return True


def test_volumes_are_those_of_highdicom(samples: Path) -> None:
    """highdicom orders slices against the normal, so that (slice, row, column) is right-handed; places are the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        highdicom = pytest.importorskip("highdicom")
        index, _ = scan(samples)
        compared: list[str] = []
        for stack, paths in regular(index):
            header = pydicom.dcmread(paths[0], stop_before_pixels=True)
            if len(set(paths)) > 1 or "PerFrameFunctionalGroupsSequence" not in header:
                continue
            try:
                if header.Modality == "SEG":
                    theirs = highdicom.seg.segread(paths[0]).get_volume(rescale_fractional=False)
                    values = theirs.array[..., 0]
                else:
                    theirs = highdicom.imread(paths[0]).get_volume(apply_voi_transform=False)
                    values = theirs.array
            except Exception:  # big endian, deflated: whatever it raises for what it does not read
                continue
            compare(ours(index, stack), (values, np.array(theirs.affine)), paths[0])
            compared.append(paths[0])
    assert len(compared) >= 5


def test_every_slice_is_where_its_file_says(index: FrameIndex) -> None:
    """PS3.3 C.7.6.2.1.1, read by pydicom."""
    count = 0
    for stack, paths in regular(index):
        affine = stack.affine
        frames = np.asarray(index.column("frame"))[stack.positions]
        for k, (path, frame) in enumerate(zip(paths, frames.tolist(), strict=True)):
            header = pydicom.dcmread(path, stop_before_pixels=True)
            groups = header.get("PerFrameFunctionalGroupsSequence")
            if groups:
                position = groups[frame].PlanePositionSequence[0].ImagePositionPatient
            elif "GridFrameOffsetVector" in header:
                x, y, z = map(float, header.ImagePositionPatient)
                position = (x, y, z + header.GridFrameOffsetVector[frame])
            else:
                position = header.ImagePositionPatient
            error = np.abs(affine @ (k, 0, 0, 1) - (*map(float, position), 1)).max()
            assert error <= stack.report.position_error + 1e-6
            count += 1
    assert count


def test_gaps_have_the_spacing_of_simpleitk(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "series", 8)
    for k in (3, 4):
        paths[k].unlink()
    index, _ = scan(tmp_path / "series")
    (stack,) = stacks(index, on_gap="keep")
    kept = [str(path) for path in paths if path.exists()]
    compare(ours(index, stack, on_gap="keep"), by_series_reader(kept, tmp_path / "copies"), "gaps")


def test_simpleitk_forgets_the_shear_of_a_tilted_gantry(tmp_path: Path) -> None:
    """Its direction is a rotation, which has no room for one: it puts the last slice beside its place. Values agree."""
    tilt = math.radians(15)
    paths = []
    for k in range(10):
        dataset = ct(ct_pixels(k), k, ImagePositionPatient=[0, 0, 5 * k])
        dataset.ImageOrientationPatient = [
            f"{number:.10f}" for number in (1, 0, 0, 0, math.cos(tilt), math.sin(tilt))
        ]
        paths.append(str(write(dataset, tmp_path / "series" / f"{k}.dcm")))
    index, _ = scan(tmp_path / "series")
    (stack,) = stacks(index)
    values, affine = ours(index, stack)
    theirs, its_affine = by_series_reader(paths, tmp_path / "copies")
    np.testing.assert_array_equal(values, theirs)
    np.testing.assert_allclose((affine @ (9, 0, 0, 1))[:3], (0, 0, 45), atol=1e-6)
    beside = np.linalg.norm((its_affine @ (9, 0, 0, 1))[:3] - (0, 0, 45))
    assert beside > 10


def oblique(folder: Path, count: int = 7) -> list[str]:
    """A regular series of oblique slices in files whose names are in another order, with rescale."""
    row, column = np.array([0.8, 0.6, 0.0]), np.array([-0.48, 0.64, -0.6])
    normal = np.cross(row, column)
    paths = []
    for name, k in enumerate([3, 0, 6, 2, 5, 1, 4][:count]):
        place = np.array([-40.0, 25.0, 10.0]) + 2.5 * k * normal
        dataset = ct(ct_pixels(k), k, ImagePositionPatient=[f"{x:.10f}" for x in place])
        dataset.ImageOrientationPatient = [f"{x:.10f}" for x in (*row, *column)]
        dataset.RescaleSlope, dataset.RescaleIntercept = 2, -1000
        dataset.FrameOfReferenceUID = "1.2.3"
        paths.append(str(write(dataset, folder / f"{name}.dcm")))
    return paths


def test_a_series_of_files_is_that_of_highdicom(tmp_path: Path) -> None:
    highdicom = pytest.importorskip("highdicom")
    paths = oblique(tmp_path)
    index, _ = scan(tmp_path)
    (stack,) = stacks(index)
    theirs = highdicom.get_volume_from_series([pydicom.dcmread(path) for path in paths])
    compare(ours(index, stack), (theirs.array, np.array(theirs.affine)), "series")


def by_monai(folder: Path) -> tuple[Array, Array]:
    """Values (slice, row, column) and their affine to LPS, by MONAI's reader; its axes are (column, row, slice)."""
    require("monai")
    from monai.data.image_reader import PydicomReader

    reader = PydicomReader(affine_lps_to_ras=False)
    values, meta = reader.get_data(reader.read(str(folder)))
    affine = np.asarray(meta["affine"], np.float64)[:, [2, 1, 0, 3]]
    return np.transpose(np.asarray(values), (2, 1, 0)), affine


def test_a_series_of_files_is_that_of_monai(tmp_path: Path) -> None:
    oblique(tmp_path)
    index, _ = scan(tmp_path)
    (stack,) = stacks(index)
    compare(ours(index, stack), by_monai(tmp_path), "series")


def test_monai_knows_nothing_of_times(tmp_path: Path) -> None:
    """It stacks all files of a folder along one axis. (0020,0100) Temporal Position Identifier tells images at one
    place apart (PS3.3 C.7.6.16.2.2 for its enhanced form), and an axis from slice to slice has one step.
    """
    for time in range(2):
        for k in range(4):
            dataset = ct(ct_pixels(10 * time + k), 10 * time + k)
            dataset.ImagePositionPatient = [0, 0, 3 * k]
            dataset.TemporalPositionIdentifier = time + 1
            write(dataset, tmp_path / f"{time}-{k}.dcm")
    index, _ = scan(tmp_path)
    values, _ = by_monai(tmp_path)
    assert len(values) == 8
    assert [len(stack) for stack in stacks(index)] == [4, 4]
    for time, stack in enumerate(stacks(index)):
        volume, affine = ours(index, stack)
        np.testing.assert_array_equal(volume, [ct_pixels(10 * time + k) for k in range(4)])
        assert affine[2, 0] == 3
