"""Real series against the volumes that dcm2niix makes of them: voxels, affines, order of time, b-values, directions."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from dicomtorch import DicomVolumes, scan
from dicomtorch.datasets.frames import DicomFrames
from dicomtorch.reports import checks
from dicomtorch.series.search import stacks
from tests.support.converter import compare, compare_diffusion, converted, read_nifti, turned_to
from tests.support.requirements import require, series_folder


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


def the_series(path: Path) -> tuple[Any, dict[str, Any]]:
    volumes = DicomVolumes(path, group="series", values="stored", refresh=True)
    (sample,) = volumes
    return sample[0], sample[1]


@pytest.mark.parametrize("reference", REFERENCES, ids=named)
def test_voxels_affine_and_order_of_time(folder: Path, reference: Reference) -> None:
    image, meta = the_series(folder / reference.series)
    assert meta["separated_by"] == reference.told_by
    compare(image, meta, read_nifti(folder / f"{reference.volume}.nii"))


@pytest.mark.parametrize("reference", DIFFUSION, ids=named)
def test_b_values_and_directions(folder: Path, reference: Reference) -> None:
    _, meta = the_series(folder / reference.series)
    compare_diffusion(meta, read_nifti(folder / f"{reference.volume}.nii"))


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
    (expected,) = converted(folder / reference.series, tmp_path)
    compare(*the_series(folder / reference.series), expected)


@pytest.mark.parametrize("reference", REFERENCES, ids=named)
def test_a_volume_as_nifti(folder: Path, reference: Reference, tmp_path: Path) -> None:
    """The recipe of docs/how-to/volumes.md gives the voxels and the affine of the converter."""
    text = (Path(__file__).parents[2] / "docs" / "how-to" / "volumes.md").read_text()
    (recipe,) = [
        block for block in re.findall(r"```python\n(.*?)```", text, re.S) if "nibabel" in block
    ]
    volume, meta = DicomVolumes(folder / reference.series, values="stored")[0]
    names = {"volume": volume, "meta": meta}
    exec(recipe.replace("volume.nii.gz", str(tmp_path / "volume.nii.gz")), names)
    saved = read_nifti(tmp_path / "volume.nii.gz")
    expected = read_nifti(folder / f"{reference.volume}.nii")
    voxels, affine = turned_to(expected.affine, saved.voxels, saved.affine)
    np.testing.assert_array_equal(voxels[..., 0], expected.voxels[..., 0])
    np.testing.assert_allclose(affine, expected.affine, atol=1e-3)
