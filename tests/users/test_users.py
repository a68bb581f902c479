"""What people write first: each script runs, is short, and does what a longer one with pydicom does."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.support.phantoms import ct, write
from tests.support.programs import run_program
from tests.support.requirements import require
from tests.support.torchvision_beside import torchvision_beside

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SCRIPTS = {
    "student": ("one", "picture"),
    "competitor": ("folder", "table"),
    "monai_user": ("folder",),
    "torchio_user": ("series",),
    "lightning_user": ("folder",),
    "server": ("server",),
    "notebook": ("folder", "picture"),
    "torchvision_user": ("folder", "table"),
    "albumentations_user": ("folder",),
    "plain_loop": ("folder",),
}
NEEDS = {
    "monai_user": "monai",
    "torchio_user": "torchio",
    "lightning_user": "lightning",
    "torchvision_user": "torchvision",
    "albumentations_user": "albumentations",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Four patients of four slices each, a table of labels, and a server with files of other kinds."""
    root = tmp_path_factory.mktemp("users")
    rng = np.random.default_rng(0)
    rows = []
    for patient in range(4):
        for k in range(4):
            pixels = rng.integers(-1000, 1500, (40, 48)).astype(np.int16)
            about = {"PatientID": f"patient-{patient}", "SeriesInstanceUID": f"1.2.{patient}"}
            dataset = ct(pixels, 4 * patient + k, StudyInstanceUID=f"1.3.{patient}", **about)
            dataset.ImagePositionPatient = [-20.0, 15.0, 2.5 * k]
            stem = f"image-{patient}-{k}"
            write(dataset, root / "images" / f"p{patient}" / f"{stem}.dcm")
            rows.append({"image_id": stem, "label": (patient + k) % 2})
    with (root / "labels.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, ["image_id", "label"])
        table.writeheader()
        table.writerows(rows)
    server = root / "server"
    for k in range(3):
        write(ct(np.full((8, 8), k, np.int16), k), server / f"{k}.dcm")
    (server / "notes.txt").write_text("nothing of DICOM in it, " * 20)
    whole = (server / "0.dcm").read_bytes()
    (server / "cut.dcm").write_bytes(whole[:-40])
    return {
        "one": root / "images" / "p0" / "image-0-0.dcm",
        "folder": root / "images",
        "series": root / "images" / "p0",
        "table": root / "labels.csv",
        "server": server,
        "picture": root / "picture.png",
    }


def run(script: Path, arguments: list[Path], cache: Path, beside: Sequence[Path] = ()) -> list[str]:
    done = run_program(
        script,
        *arguments,
        cwd=cache,
        path=[ROOT, *beside],
        seconds=240,
        MPLBACKEND="agg",
        XDG_CACHE_HOME=str(cache),
        NO_ALBUMENTATIONS_UPDATE="1",
        OMP_NUM_THREADS="1",
    )
    assert "ambiguous collection" not in done.stderr
    return (
        sorted(done.stdout.splitlines()) if "lightning" in script.name else done.stdout.splitlines()
    )


def lines(script: Path) -> int:
    """Lines of code; those that are empty, and what the script says of itself, do not count."""
    text = script.read_text(encoding="utf-8")
    return sum(bool(line.strip()) for line in text.splitlines()) - 1


@pytest.mark.timeout(500)
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_is_short_and_does_what_a_longer_one_does(
    name: str, data: dict[str, Path], tmp_path: Path
) -> None:
    ours, theirs = HERE / f"{name}.py", HERE / "with_pydicom" / f"{name}.py"
    assert lines(ours) <= 30
    assert lines(ours) < lines(theirs)
    if name in NEEDS and name != "torchvision_user":
        require(NEEDS[name])
    beside = torchvision_beside(tmp_path) if name == "torchvision_user" else []
    arguments = [data[key] for key in SCRIPTS[name]]
    expected = run(theirs, arguments, tmp_path, beside)
    assert expected
    assert run(ours, arguments, tmp_path, beside) == expected
