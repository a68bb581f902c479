"""What type checkers make of a script of a user, and that values have the types that they are told."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dicomtorch import (
    DicomClips,
    DicomCrops,
    DicomFrames,
    DicomPatches,
    DicomTiles,
    DicomVolumes,
    FrameMeta,
)
from tests.support.mask_phantoms import segmentation
from tests.support.mask_phantoms import series as mask_series
from tests.support.meta_types import GROUPS, TYPE_OF, misfits, misfits_in_batch
from tests.support.phantoms import ct, ct_pixels, write, write_series
from tests.support.requirements import require
from tests.support.slide_phantoms import write_slide

REPOSITORY = Path(__file__).parents[2]
MARK = "  # -> "

SCRIPT = """\
import torch

from dicomtorch import BatchMeta, DicomClips, DicomCrops, DicomFrames, DicomVolumes, FrameLoader, FrameMeta
from dicomtorch import DicomPatches, DicomSlides, DicomTiles


def flipped(image: torch.Tensor) -> torch.Tensor:
    return image.flip(-1)


def count(batch: tuple[torch.Tensor, BatchMeta]) -> int:
    return len(batch[0])


frames = DicomFrames("x", tags=["PatientSex"], window="series", size=(8, 8), context=1)
image, meta = frames[0]
reveal_type(image)  # -> Tensor
reveal_type(meta)  # -> FrameMeta
reveal_type(meta["index"])  # -> int
reveal_type(meta["SOPInstanceUID"])  # -> str
reveal_type(meta["SliceThickness"])  # -> float
reveal_type(meta["PixelSpacing"])  # -> tuple[float, float]
reveal_type(meta["ImagePositionPatient"])  # -> tuple[float, float, float]
reveal_type(meta["PatientSex"])  # -> Any
meta["PixelSpacing"] + 1  # -> error
meta[0]  # -> error
frames["0"]  # -> error
DicomFrames("x", wondow="series")  # -> error
meta["weight"] = 2.5
reveal_type({**meta})  # -> dict[str, Any]
reveal_type(dict(meta))  # -> dict[str, Any]

images, batch = frames[[0, 1]]
reveal_type(images)  # -> Tensor
reveal_type(batch)  # -> BatchMeta
reveal_type(batch["index"])  # -> Tensor
reveal_type(batch["PixelSpacing"])  # -> Tensor
reveal_type(batch["SOPInstanceUID"])  # -> list[str]
reveal_type(batch["PatientSex"])  # -> Any
reveal_type(frames[0:3])  # -> tuple[Tensor, BatchMeta]
reveal_type(frames[torch.tensor(3)])  # -> Any
reveal_type(frames.to_values(images, batch, values="modality"))  # -> tuple[Tensor, BatchMeta]
reveal_type(frames.to_values(image, meta, values="modality"))  # -> tuple[Tensor, FrameMeta]

for images, batch in FrameLoader(frames, 4, shuffle=True):
    reveal_type(images)  # -> Tensor
    reveal_type(batch["Rows"])  # -> Tensor
    reveal_type(batch["Modality"])  # -> list[str]
late = FrameLoader(frames, 4, batch_transform=count)
reveal_type(next(iter(late)))  # -> int
collated = FrameLoader(frames, 4, collate_fn=count)
reveal_type(next(iter(collated)))  # -> int
reveal_type(next(iter(FrameLoader([1, 2, 3], 4))))  # -> Any
FrameLoader(frames, 4, shufle=True)  # -> error
for sample in frames:
    reveal_type(sample)  # -> tuple[Tensor, FrameMeta]

masked = DicomFrames("x", masks=True, labels=["liver"])
reveal_type(masked[0])  # -> tuple[Tensor, Tensor, FrameMeta]
reveal_type(masked[:4])  # -> tuple[Tensor, Tensor, BatchMeta]
for images, masks, batch in FrameLoader(masked, 4):
    reveal_type(masks)  # -> Tensor
    reveal_type(batch["mask_area"])  # -> Tensor
reveal_type(DicomFrames("x", masks=None)[0])  # -> tuple[Tensor, FrameMeta]
reveal_type(DicomFrames("x", transform=flipped)[0])  # -> Any
reveal_type(DicomFrames("x", sample_transform=lambda image, meta: image)[0])  # -> Any
reveal_type(DicomFrames("x", target="label")[0])  # -> Any
reveal_type(DicomFrames("x", masks=True, target="label")[0])  # -> Any
reveal_type(DicomFrames("x", boxes="boxes.csv")[0])  # -> Any

volumes = DicomVolumes("x", on_gap="keep", values="modality")
volume, meta = volumes[0]
reveal_type(volume)  # -> Tensor
reveal_type(meta["affine"])  # -> Tensor
reveal_type(meta["spacing"])  # -> tuple[float, float, float]
reveal_type(meta["SOPInstanceUIDs"])  # -> tuple[str, ...]
reveal_type(volumes[0:1])  # -> tuple[Tensor, BatchMeta]
reveal_type(DicomVolumes("x", masks="seg")[0])  # -> tuple[Tensor, Tensor, FrameMeta]
for images, batch in FrameLoader(volumes, 1):
    reveal_type(batch["affine"])  # -> Tensor

clips = DicomClips("x", 16, stride=2, clips="random")
reveal_type(clips[0])  # -> tuple[Tensor, FrameMeta]
reveal_type(clips[0, 3])  # -> tuple[Tensor, FrameMeta]
reveal_type(clips[[0, 1]])  # -> tuple[Tensor, BatchMeta]
reveal_type(clips[0][1]["times"])  # -> tuple[float, ...]

crops = DicomCrops("x", "candidates.csv", size=(32, 48, 48), border="shift")
reveal_type(crops[0])  # -> tuple[Tensor, FrameMeta]
reveal_type(crops[0][1]["center"])  # -> tuple[float, float, float]
reveal_type(crops[:2][1]["candidate"])  # -> Tensor
parts = DicomCrops("x", "boxes.csv", (512, 512))
reveal_type(parts[0])  # -> tuple[Tensor, FrameMeta]
reveal_type(parts[0][1]["window"])  # -> tuple[int, int, int, int]
reveal_type(DicomCrops("x", "boxes.csv", None, masks=True)[0])  # -> tuple[Tensor, Tensor, FrameMeta]
patches = DicomPatches("x", (512, 512), per_frame=8, foreground=0.5, seed=1)
reveal_type(patches[0])  # -> tuple[Tensor, FrameMeta]
reveal_type(patches[:2][1]["foreground"])  # -> Tensor
reveal_type(DicomPatches("x", (8, 8), masks=True)[0])  # -> tuple[Tensor, Tensor, FrameMeta]
reveal_type(DicomVolumes("x", size=(8, 8), decode="reduced")[0])  # -> tuple[Tensor, FrameMeta]
reveal_type(DicomCrops("x", {}, (1, 1, 1), transform=flipped)[0])  # -> Any

slides = DicomSlides("x")
reveal_type(slides[0].region(0, 0, 0, 5, 5).mask)  # -> Tensor
reveal_type(slides[0:2])  # -> DicomSlides
tiles = DicomTiles(slides, 256, mpp=0.5, tissue=0.5)
reveal_type(tiles[0])  # -> tuple[Tensor, FrameMeta]
reveal_type(tiles[:4])  # -> tuple[Tensor, BatchMeta]
reveal_type(tiles[0][1]["inside"])  # -> tuple[int, int]
reveal_type(tiles[0][1]["x_mm"])  # -> float
reveal_type(DicomTiles(slides, masks=True)[0])  # -> tuple[Tensor, Tensor, FrameMeta]
reveal_type(DicomTiles("x", transform=flipped)[0])  # -> Any
DicomTiles("x", strid=3)  # -> error


def step(batch: tuple[torch.Tensor, BatchMeta], frames: DicomFrames, loader: FrameLoader) -> FrameMeta:
    reveal_type(batch[1]["index"])  # -> Tensor
    reveal_type(frames[0][1]["Modality"])  # -> str
    return batch[1]
"""


def expected() -> dict[int, str]:
    lines = enumerate(SCRIPT.splitlines(), 1)
    return {number: line.split(MARK)[1] for number, line in lines if MARK in line}


def short(revealed: str) -> str:
    """A type without the modules of its classes."""
    return re.sub(r"(?<![\w.])(?:\w+\.)+(?=\w)", "", revealed)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "of_a_user.py"
    path.write_text(SCRIPT, encoding="utf-8")
    return path


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_mypy(script: Path, pytestconfig: pytest.Config) -> None:
    require("mypy")
    # A cache of its own: `make lint` may be at work.
    kept = getattr(pytestconfig, "cache", None)
    cache = kept.mkdir("mypy_of_users") if kept else script.parent / "cache"
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--config-file",
        str(REPOSITORY / "pyproject.toml"),
    ]
    done = subprocess.run(
        [*command, "--cache-dir", str(cache), "--no-pretty", str(script)],
        cwd=REPOSITORY,
        env={**os.environ, "MYPYPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=380,
    )
    found: dict[int, str] = {}
    for line in done.stdout.splitlines():
        told = re.match(rf".*{script.name}:(\d+): (\w+): (.*)", line)
        if told is None:
            assert ": error: " not in line, line
        elif told[2] == "error":
            found[int(told[1])] = "error"
        elif revealed := re.match(r'Revealed type is "(.*)"', told[3]):
            found[int(told[1])] = short(revealed[1])
    assert found == expected(), done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_pyright(script: Path) -> None:
    require("basedpyright")
    settings = {
        "include": [script.name],
        "extraPaths": [str(REPOSITORY)],
        "typeCheckingMode": "standard",
        "reportUnusedExpression": False,
    }
    (script.parent / "pyrightconfig.json").write_text(json.dumps(settings), encoding="utf-8")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "basedpyright",
            "-p",
            ".",
            "--outputjson",
            "--pythonpath",
            sys.executable,
        ],
        cwd=script.parent,
        capture_output=True,
        text=True,
        timeout=380,
    )
    found: dict[int, str] = {}
    for told in json.loads(done.stdout)["generalDiagnostics"]:
        line = told["range"]["start"]["line"] + 1
        if told["severity"] == "information":
            found[line] = short(re.sub(r'^Type of ".*" is "(.*)"$', r"\1", told["message"]))
        else:
            found[line] = told["severity"]
    assert found == expected(), done.stdout + done.stderr


def samples(folder: Path) -> Iterator[tuple[FrameMeta, Any]]:
    """Metadata of one sample and of a batch, of every dataset."""
    write_series(folder / "ct", 6)
    frames = DicomFrames(folder / "ct", paths=True, seed=3, size=(8, 8))
    yield frames[0][1], frames[[0, 1]][1]
    volumes = DicomVolumes(folder / "ct")
    yield volumes[0][1], volumes[:][1]
    table = {
        "SeriesInstanceUID": [volumes[0][1]["SeriesInstanceUID"]],
        "x": [4],
        "y": [4],
        "z": [2],
    }
    crops = DicomCrops(folder / "ct", table, (2, 4, 4), coordinates="voxel")
    yield crops[0][1], crops[:][1]
    boxes = {"SOPInstanceUID": [frames[0][1]["SOPInstanceUID"]], "x": [4], "y": [4]}
    parts = DicomCrops(folder / "ct", boxes, (4, 4))
    yield parts[0][1], parts[:][1]
    patches = DicomPatches(folder / "ct", (4, 4), foreground=0.5)
    yield patches[0][1], patches[:2][1]
    cine = ct(np.stack([ct_pixels(k) for k in range(5)]), FrameTime="40")
    write(cine, folder / "cine" / "0.dcm")
    clips = DicomClips(folder / "cine", 2)
    yield clips[0][1], clips[:2][1]
    write_slide(folder / "slide", 32, 32)
    tiles = DicomTiles(folder / "slide", 16)
    yield tiles[0][1], tiles[:][1]
    slices = mask_series(folder / "masks", 2)
    mask = np.ones((12, 16), np.uint8)
    segmentation(folder / "masks" / "seg.dcm", slices, [(1, 0, mask)], names=["a"])
    masked = DicomFrames(folder / "masks", masks=True)
    yield masked[0][2], masked[:][2]


@pytest.mark.filterwarnings("ignore")
def test_values_have_the_types_that_checkers_are_told(tmp_path: Path) -> None:
    met = {"mosaic", "dose", "dose_valid", "DoseUnits"}  # of files that other tests make
    for meta, batch in samples(tmp_path):
        assert misfits(meta) == []
        assert misfits_in_batch(batch) == []
        assert {*batch} <= {*meta}
        met |= meta.keys()
    assert met == TYPE_OF.keys()
    assert sum(map(len, GROUPS.values())) == len(TYPE_OF)  # no key has two types
