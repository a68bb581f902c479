"""Every block of code of docs/how-to/integrations.md runs as it stands, on a folder of series with masks."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from tests.support.mask_phantoms import segmentation, series
from tests.support.programs import run_program
from tests.support.requirements import require
from tests.support.rooms import REPOSITORY
from tests.support.torchvision_beside import torchvision_beside

(PAGE,) = (REPOSITORY / "docs").rglob("integrations.md")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
WORDS = {
    "torchvision": "to_tv_tensors(",
    "monai": "SupervisedTrainer(",
    "torchio": "to_subjects(",
    "lightning": "DicomDataModule(",
    "datasets": "to_hf(",
    "ray": "frames_to_ray(",
    "dask": "from_map(",
    "webdataset": "WebDataset(",
    "streaming": "MDSWriter(",
    "litdata": "litdata.optimize(",
}
"""Library -> what the block for it calls."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `ct/`, four patients of four slices, masks of three."""
    root = tmp_path_factory.mktemp("recipes")
    for patient in range(4):
        of = root / "ct" / str(patient)
        slices = series(
            of, 4, (24, 32), PatientID=f"p{patient}", SeriesInstanceUID=f"1.2.3.{patient}",
            StudyInstanceUID=f"1.2.4.{patient}", FrameOfReferenceUID=f"1.2.5.{patient}", SliceThickness="2.5",
        )  # fmt: skip
        mask = np.zeros((24, 32), np.uint8)
        mask[4:12, 6:20] = 1
        if patient:
            planes = [(1, k, mask) for k in range(4)]
            segmentation(of / "seg.dcm", slices, planes, names=["liver"])
    return root


def blocks_of(library: str) -> list[str]:
    return [str(block) for block in BLOCKS if WORDS[library] in block]


def test_every_block_is_run() -> None:
    assert sorted(block for library in WORDS for block in blocks_of(library)) == sorted(BLOCKS)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("library", WORDS)
def test_a_recipe_runs(library: str, folder: Path, tmp_path: Path) -> None:
    if library == "torchvision":
        beside = torchvision_beside(tmp_path)
    else:
        require(library)
        beside = []
    script = folder / f"recipe_{library}.py"
    (block,) = blocks_of(library)
    script.write_text(block, encoding="utf-8")
    run_program(
        script,
        cwd=folder,
        path=[REPOSITORY, *beside],
        seconds=280,
        XDG_CACHE_HOME=str(tmp_path),
        OMP_NUM_THREADS="1",
        HF_HUB_OFFLINE="1",
    )
