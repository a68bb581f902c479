"""Real series against the volumes that dcm2niix makes of them: voxels, affines, order of time, b-values, directions."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

from dicomtorch import DicomVolumes, scan
from dicomtorch.datasets.frames import DicomFrames
from dicomtorch.reports import checks
from dicomtorch.series.search import stacks
from tests.support.requirements import require, series_folder

Floats = npt.NDArray[np.float64]


class Reference(NamedTuple):
    """A series and what the converter makes of it, both below the folder of series."""

    series: str
    volume: str
    told_by: str


REFERENCES = [
    Reference(
        "ge/In/SliceTimingRT/2_epiRT_IntAsc_GD0", "ge/Ref/epiRT_IntAsc_GD0_2", "InstanceNumber"
    ),
    Reference(
        "ge/In/01_Ax_DWI_TENSOR_R2", "ge/Ref/Ax_DWI_TENSOR_R2_1", "DiffusionGradientOrientation"
    ),
    Reference("mosaic/In/ep2d_Asc_2", "mosaic/Ref/2_ep2d_Asc", "SOPInstanceUID"),
    Reference("mosaic/In/cmrr_Int_8", "mosaic/Ref/8_cmrr_Int", "SOPInstanceUID"),
    Reference("uih/In", "uih/Ref/dti_tra_dir16_AP_9_134431", "SOPInstanceUID"),
]
DIFFUSION = [REFERENCES[1], REFERENCES[4]]


@pytest.fixture
def folder() -> Path:
    require("series")
    require("nibabel")
    found = series_folder()
    assert found is not None
    return found


def named(reference: Reference) -> str:
    return Path(reference.series).name


def nifti(path: Path) -> tuple[Any, Floats]:
    """(voxels (x, y, z, t), affine to RAS) of a NIfTI file."""
    import nibabel

    image: Any = nibabel.load(path)
    return np.asarray(image.dataobj), np.asarray(image.affine)


def resampled_to(order: Floats, voxels: Any, affine: Floats) -> tuple[Any, Floats]:
    """Voxels (x, y, z, t) with their axes in the order and the directions of another affine."""
    turn = np.linalg.inv(order[:3, :3]) @ affine[:3, :3]
    axes = np.abs(turn).argmax(axis=0)  # axis k of these voxels is axis axes[k] there
    assert sorted(axes) == [0, 1, 2]
    for k in range(3):
        if turn[axes[k], k] < 0:
            voxels = np.flip(voxels, k)
            affine = affine.copy()
            affine[:3, 3] += affine[:3, k] * (voxels.shape[k] - 1)
            affine[:3, k] *= -1
    back = np.argsort(axes)
    return np.transpose(voxels, (*back, 3)), affine[:, [*back, 3]]


def corners(affine: Floats, shape: tuple[int, ...]) -> Floats:
    grid = np.array([(*corner, 1) for corner in np.ndindex(2, 2, 2)], np.float64)
    grid[:, :3] *= np.array(shape[:3]) - 1
    return np.asarray((grid @ affine.T)[:, :3])


def the_series(path: Path) -> tuple[Any, dict[str, Any]]:
    volumes = DicomVolumes(path, group="series", values="stored", refresh=True)
    (sample,) = volumes
    return sample[0], sample[1]


@pytest.mark.parametrize("reference", REFERENCES, ids=named)
def test_voxels_affine_and_order_of_time(folder: Path, reference: Reference) -> None:
    image, meta = the_series(folder / reference.series)
    expected, affine = nifti(folder / f"{reference.volume}.nii")
    ours = np.transpose(image[:, 0].numpy(), (3, 2, 1, 0))  # T D H W -> x y z t
    # Our affine takes (slice, row, column), that of NIfTI (column, row, slice).
    voxels, ours_affine = resampled_to(affine, ours, meta["affine_ras"].numpy()[:, [2, 1, 0, 3]])
    np.testing.assert_allclose(
        corners(ours_affine, voxels.shape), corners(affine, expected.shape), atol=0.01
    )
    assert meta["separated_by"] == reference.told_by
    np.testing.assert_array_equal(voxels, expected)


def patient_directions(bvec: Floats, affine: Floats) -> Floats:
    """FSL's directions, in image axes with the sign of x by the handedness, in patient coordinates (LPS)."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    if np.linalg.det(axes) > 0:
        bvec = bvec * np.array([-1, 1, 1])
    return np.asarray((bvec @ axes.T) * np.array([-1, -1, 1]))


@pytest.mark.parametrize("reference", DIFFUSION, ids=named)
def test_b_values_and_directions(folder: Path, reference: Reference) -> None:
    _, meta = the_series(folder / reference.series)
    b_values = np.loadtxt(folder / f"{reference.volume}.bval")
    np.testing.assert_allclose(meta["b_values"], b_values, rtol=1e-5)
    _, affine = nifti(folder / f"{reference.volume}.nii")
    expected = patient_directions(np.loadtxt(folder / f"{reference.volume}.bvec").T, affine)
    ours = np.nan_to_num(meta["gradient_directions"].numpy())
    np.testing.assert_allclose(ours, expected, atol=2e-4)
    none = b_values < 50
    assert np.isnan(meta["gradient_directions"].numpy()[none]).all()


@pytest.mark.parametrize("reference", REFERENCES[2:], ids=named)
def test_a_sheet_stays_one_frame(folder: Path, reference: Reference) -> None:
    index, _ = scan(folder / reference.series)
    image, meta = DicomFrames(index, values="stored")[0]
    stack = stacks(index)[0]
    assert meta["mosaic"] == len(stack)
    assert np.isnan(meta["ImagePositionPatient"]).all()
    assert tuple(image.shape[1:]) != stack.shape[1:]
    assert 'mosaic="sheet"' in stacks(index, mosaic="sheet").reasons()
    assert "position" not in {remark.check for remark in checks.of_frames(index, [])}


@pytest.mark.parametrize("reference", REFERENCES, ids=named)
def test_the_converter_that_is_installed(
    folder: Path, reference: Reference, tmp_path: Path
) -> None:
    beside = Path(sys.executable).parent
    program = shutil.which("dcm2niix", path=beside) or shutil.which("dcm2niix")
    if program is None:
        pytest.skip("dcm2niix is not installed")
    options = ["-f", "made", "-z", "n", "-b", "n", "-o"]
    where = [str(tmp_path), str(folder / reference.series)]
    subprocess.run([program, *options, *where], check=True, capture_output=True)
    expected, affine = nifti(tmp_path / "made.nii")
    image, meta = the_series(folder / reference.series)
    ours = np.transpose(image[:, 0].numpy(), (3, 2, 1, 0))
    voxels, ours_affine = resampled_to(affine, ours, meta["affine_ras"].numpy()[:, [2, 1, 0, 3]])
    np.testing.assert_allclose(
        corners(ours_affine, voxels.shape), corners(affine, expected.shape), atol=0.01
    )
    np.testing.assert_array_equal(voxels, expected)


def test_a_volume_as_nifti(folder: Path, tmp_path: Path) -> None:
    """The line of the documentation gives the voxels and the affine of the converter."""
    import nibabel

    reference = REFERENCES[0]
    volume, meta = DicomVolumes(folder / reference.series, values="stored")[0]
    image: Any = nibabel.Nifti1Image(
        volume[0].permute(2, 1, 0).numpy(), meta["affine_ras"].numpy()[:, [2, 1, 0, 3]]
    )
    nibabel.save(image, tmp_path / "volume.nii.gz")
    saved, saved_affine = nifti(tmp_path / "volume.nii.gz")
    expected, affine = nifti(folder / f"{reference.volume}.nii")
    voxels, ours = resampled_to(affine, saved[..., None], saved_affine)
    np.testing.assert_array_equal(voxels[..., 0], expected[..., 0])
    np.testing.assert_allclose(ours, affine, atol=1e-3)
