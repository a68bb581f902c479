"""Each example of the gallery runs, as it does when the documentation is built."""

from __future__ import annotations

import runpy
import sys
import warnings
from pathlib import Path

import pytest

GALLERY = sorted((Path(__file__).parents[2] / "examples").glob("plot_*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("path", GALLERY, ids=lambda path: path.stem)
def test_runs(path, tmp_path, monkeypatch):
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


def test_there_are_examples():
    assert len(GALLERY) >= 10
