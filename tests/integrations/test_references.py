"""Volumes as other libraries read them: equal voxels at equal places, on regular series of the real samples."""

from __future__ import annotations

import importlib
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dicomtorch import DicomVolumes, FrameIndex, scan, stacks
from dicomtorch.integrations.monai import to_monai
from dicomtorch.integrations.torchio import to_subjects
from tests.support.requirements import require, samples_folder, series_folder

PLACE = 0.01
"""Millimetres: what files round their directions to makes so much at the far end of an axis."""


def imported(name: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(name)


@pytest.fixture(scope="module")
def regular() -> list[FrameIndex]:
    """Of each stack without gaps, of files of one slice: its frames."""
    require("samples")
    require("series")
    found = []
    for folder in (samples_folder(), series_folder()):
        assert folder is not None
        index = scan(folder)[0].images(duplicates="first")
        for stack in stacks(index, on_gap="keep"):
            chosen = index.select(np.asarray(stack.positions))
            files = {chosen.path(k) for k in range(len(chosen))}
            if len(files) == len(chosen) > 2 and not stack.problems and not stack.separated_by:
                found.append(chosen)
    assert len(found) >= 4
    return found


def linked(index: FrameIndex, folder: Path) -> Path:
    """A folder with the files of an index and nothing else."""
    folder.mkdir()
    for k in range(len(index)):
        shutil.copy(index.path(k), folder / f"{k:03}.dcm")
    return folder


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of MONAI and pydicom, about these files
def test_what_monai_loads(regular: list[FrameIndex], tmp_path: Path) -> None:
    require("monai")
    transforms = imported("monai.transforms")
    canonical = transforms.Orientation("RAS", labels=None)
    for number, index in enumerate(regular):
        folder = linked(index, tmp_path / str(number))
        theirs = transforms.LoadImage(reader="PydicomReader", ensure_channel_first=True)(folder)
        ours = DicomVolumes(index, values="modality", sample_transform=to_monai)[0]["image"]
        np.testing.assert_allclose(sorted(ours.pixdim), sorted(theirs.pixdim), atol=1e-4)
        one, other = canonical(ours), canonical(theirs)
        np.testing.assert_allclose(one.affine, other.affine, atol=PLACE)
        torch.testing.assert_close(
            torch.as_tensor(one), torch.as_tensor(other), rtol=1e-6, atol=1e-3, check_dtype=False
        )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of TorchIO and SimpleITK, about these files
def test_what_torchio_loads(regular: list[FrameIndex], tmp_path: Path) -> None:
    require("torchio")
    torchio = imported("torchio")
    compared = 0
    for number, index in enumerate(regular):
        theirs = torchio.ScalarImage(linked(index, tmp_path / str(number)))
        try:
            theirs.load()
        except FileNotFoundError:  # GDCM finds no series where a UID is not valid
            continue
        compared += 1
        (subject,) = to_subjects(DicomVolumes(index, values="modality"))
        one, other = map(torchio.ToCanonical(), (subject["image"], theirs))
        np.testing.assert_allclose(one.affine, other.affine, atol=PLACE)
        torch.testing.assert_close(
            one.data, other.data.float(), rtol=1e-6, atol=1e-3, check_dtype=False
        )
    assert compared >= 2
