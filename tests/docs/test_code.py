"""The Python of README, pages and docstrings runs, from the first block of a page to the last, in one namespace."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydicom
import pytest
import torch
from torch.utils.data import DataLoader

import dicomtorch
from tests.docs import world
from tests.support.dicomweb_server import dicomweb_server
from tests.support.programs import run_program
from tests.support.requirements import require

ROOT = Path(__file__).parents[2]
FILES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
ELSEWHERE = {
    "docs/how-to/integrations.md",  # needs other libraries: tests/integrations/test_recipes.py
    "docs/how-to/remote.md",  # needs a store: tests/docs/test_code_remote.py
}
RAY_TRAIN = "TorchTrainer("  # the block with it needs Ray: tests/batches/test_frameworks.py
DICOMWEB = "docs/how-to/dicomweb.md"
PAGES = [path.relative_to(ROOT).as_posix() for path in FILES if "generated" not in path.parts]
BLOCK = re.compile(r"^ *```python\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
GUARD = 'if __name__ == "__main__":'
WITH_CODE = [page for page in PAGES if BLOCK.search((ROOT / page).read_text(encoding="utf-8"))]


def given() -> dict[str, Any]:
    """What a reader has by then: the public names, torch, a network."""
    names = {name: getattr(dicomtorch, name) for name in dicomtorch.__all__}
    return {
        **names,
        "__name__": "page",
        "dicomtorch": dicomtorch,
        "torch": torch,
        "DataLoader": DataLoader,
        "model": lambda images: images.float().flatten(1)[:, :2],
        "unet": lambda images: images[:, :1].expand(-1, 3, -1, -1).float(),
    }


def run_page(page: str, folder: Path, replaced: Mapping[str, str]) -> dict[str, Any]:
    """Runs the blocks of a page one after the other, those of programs as programs; gives the names that are left.

    Args:
        page: Its path below the repository.
        folder: Where it runs.
        replaced: What stands in the page, and what is there.
    """
    text = (ROOT / page).read_text(encoding="utf-8")
    names = {**given(), **world.names(page)}
    for block in BLOCK.finditer(text):
        code = block[1]
        if RAY_TRAIN in code:
            continue
        for word, there in replaced.items():
            code = code.replace(word, there)
        before = "\n" * text.count(
            "\n", 0, block.start(1)
        )  # so that a traceback has the page's line
        if GUARD in code:
            run_block(before + code, folder)
        else:
            exec(compile(before + code, ROOT / page, "exec", dont_inherit=True), names)
    return names


def run_block(code: str, folder: Path) -> None:
    """A block that is a program of its own, with processes that import it."""
    script = folder / "program.py"
    script.write_text(code, encoding="utf-8")
    run_program(script, cwd=folder, path=[ROOT], seconds=100, OMP_NUM_THREADS="1")


REPLACED = {"/new/place": "studies", **({} if torch.cuda.is_available() else {'"cuda"': '"cpu"'})}


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in WITH_CODE if page not in {*ELSEWHERE, DICOMWEB}])
def test_code_of_pages_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    world.write(page, tmp_path)
    run_page(page, tmp_path, REPLACED)


@pytest.mark.slow
def test_code_of_dicomweb_runs(tmp_path, monkeypatch):
    require("urllib3")
    monkeypatch.chdir(tmp_path)
    world.write(DICOMWEB, tmp_path)
    datasets = [pydicom.dcmread(path) for path in sorted((tmp_path / "studies").rglob("*.dcm"))]
    with dicomweb_server(datasets, "Bearer ...") as server:  # the one that the page sends
        address = {"dicomweb+https://pacs.example.org/dicom-web": server.address}
        frames = run_page(DICOMWEB, tmp_path, address)["frames"]
        assert len(frames) == sum(int(one.get("NumberOfFrames", 1)) for one in datasets)
        image, meta = frames[0]
        assert (tuple(image.shape), meta["Modality"]) == ((1, 32, 32), "CT")


def test_no_page_is_left_out():
    """What runs elsewhere has code, and a program is taken for one."""
    assert set(WITH_CODE) >= {*ELSEWHERE, DICOMWEB}
    fences = [page for page in PAGES if "```python" in (ROOT / page).read_text(encoding="utf-8")]
    assert fences == WITH_CODE
    blocks = [block for page in PAGES for block in BLOCK.findall((ROOT / page).read_text("utf-8"))]
    assert sum(RAY_TRAIN in block for block in blocks) == 1


def test_a_program_that_fails_is_found(tmp_path):
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        run_block(f"{GUARD}\n    1 / 0\n", tmp_path)
