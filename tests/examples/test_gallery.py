"""Each example of the gallery runs, as it does when the documentation is built."""

from __future__ import annotations

import re
import runpy
import sys
import warnings
from pathlib import Path

import pytest
import torch

from tests.support.programs import run_program
from tests.support.requirements import require

EXAMPLES = Path(__file__).parents[2] / "examples"
GALLERY = sorted(EXAMPLES.glob("plot_*.py"))
NEEDS = {"plot_11_remote": "obstore", "plot_12_executors": "distributed"}


@pytest.fixture
def one_thread():
    """As in `make docs`: networks as small as these wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.parametrize("path", GALLERY, ids=lambda path: path.stem)
def test_runs(path, tmp_path, monkeypatch, one_thread):
    if path.stem in NEEDS:
        require(NEEDS[path.stem])
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.setattr(sys, "path", [str(path.parent), *sys.path])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*non-interactive, and thus cannot be shown")
        warnings.filterwarnings(
            "ignore", message="__array__ implementation doesn't accept"
        )  # of torch
        runpy.run_path(str(path), run_name="__main__")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_lines_on_ray_run(tmp_path):
    """They stand in a comment, so that building the documentation starts no cluster."""
    require("ray")
    source = (EXAMPLES / "plot_12_executors.py").read_text(encoding="utf-8")
    lines = re.findall(r"^#     (.*)$", source, re.MULTILINE)
    before = ["from make_data import write_ct", "from dicomtorch import scan", "folder = 'made'"]
    after = ["assert len(index) == 96, report", "ray.shutdown()"]
    made = "import pathlib; write_ct(pathlib.Path(folder), patients=4)"
    script = tmp_path / "of_ray.py"
    script.write_text("\n".join([*before, made, *lines, *after]), encoding="utf-8")
    path = (EXAMPLES, EXAMPLES.parent)
    run_program(script, cwd=tmp_path, path=path, seconds=280, OMP_NUM_THREADS="1")
    assert any("RayExecutor(" in line for line in lines)


def test_there_are_examples():
    assert len(GALLERY) >= 12


def test_the_chapter_has_less_than_sixty_lines_of_code():
    source = (EXAMPLES / "plot_08_ct_and_annotations.py").read_text(encoding="utf-8")
    code = source.split('"""')[2]
    lines = [line for line in code.splitlines() if line.strip() and not line.startswith("#")]
    assert len(lines) < 60


def test_what_examples_import_can_be_downloaded_beside_them():
    helpers = {path.stem for path in EXAMPLES.glob("*.py") if not path.name.startswith("plot_")}
    imported = {
        found
        for path in GALLERY
        for found in re.findall(r"^from (\w+) import", path.read_text(encoding="utf-8"), re.M)
        if found in helpers
    }
    page = (EXAMPLES / "README.rst").read_text(encoding="utf-8")
    offered = set(re.findall(r":download:`(\w+)\.py <\.\./\.\./\.\./examples/\1\.py>`", page))
    assert offered == imported
