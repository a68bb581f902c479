"""The recipes of docs/how-to/masks.md: a mask that nothing resampled comes back as it was, through NIfTI and SEG."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dicomtorch import DicomVolumes, MaskIndex, scan
from tests.support.mask_phantoms import segmentation, series
from tests.support.requirements import require

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "masks.md").read_text(encoding="utf-8")


def recipe(word: str) -> str:
    """The block of code of the page that has a word."""
    (block,) = [b for b in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if word in b]
    return str(block)


@pytest.fixture
def case(tmp_path, monkeypatch):
    """(volumes, prediction, folder): a prediction on an oblique series."""
    turn = np.deg2rad(25)
    slices = series(
        tmp_path / "ct",
        5,
        (14, 18),
        PixelSpacing=[0.7, 0.9],
        ImageOrientationPatient=[float(np.cos(turn)), float(np.sin(turn)), 0, 0, 0, -1],
        ImagePositionPatient=lambda k: [
            round(-20 + 3 * k * -float(np.sin(turn)), 5),
            round(8 + 3 * k * float(np.cos(turn)), 5),
            40,
        ],
        PatientName="",
        PatientBirthDate="",
        StudyDate="20240101",
        StudyTime="120000",
        StudyID="1",
        AccessionNumber="",
        ReferringPhysicianName="",
    )
    some = np.zeros((14, 18), np.uint8)
    some[3:6, 4:9] = 1
    segmentation(tmp_path / "ct" / "seg.dcm", slices, [(1, 2, some)], names=["liver"])
    volumes = DicomVolumes(tmp_path / "ct", masks=True)
    generator = torch.Generator().manual_seed(0)
    prediction = (torch.rand(volumes[0][1].shape[1:], generator=generator) < 0.3).to(torch.uint8)
    monkeypatch.chdir(tmp_path)
    return volumes, prediction, tmp_path


def run(words: list[str], volumes: Any, prediction: Any) -> None:
    scope: dict[str, Any] = {"volumes": volumes, "prediction": prediction}
    for word in words:
        exec(recipe(word), scope)


def test_nifti(case):
    require("nibabel")
    volumes, prediction, folder = case
    run(["to_grid", "Nifti1Image"], volumes, prediction)
    uid = volumes.index.column("SeriesInstanceUID")[0]
    masks = MaskIndex(volumes.index, files={uid: folder / "prediction.nii.gz"}, labels={"liver": 1})
    order = volumes.stacks[0].positions.tolist()
    found = np.stack([masks.mask(k)[0][0] for k in order])
    np.testing.assert_array_equal(found, prediction.numpy())


def test_seg(case):
    require("highdicom")
    volumes, prediction, folder = case
    run(["to_grid", "hd.seg.Segmentation("], volumes, prediction)
    masks = MaskIndex(volumes.index, scan(folder / "prediction.dcm")[0], labels=["liver"])
    order = volumes.stacks[0].positions.tolist()
    found = np.stack([masks.mask(k)[0][0] for k in order])
    np.testing.assert_array_equal(found, prediction.numpy())
