"""The benchmark of CUDA devices runs, and says so where there is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import device


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is available")
def test_without_a_device(capsys: pytest.CaptureFixture[str]) -> None:
    assert device.main([]) == 2
    assert "finds no CUDA device" in capsys.readouterr().out


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA is not available")
def test_with_a_device(tmp_path: Path) -> None:
    small = ["--frames", "8", "--size", "64", "--epoch", "64", "--repeats", "1"]
    small += ["--threads", "2", "--workers", "1"]
    where = ["--data", str(tmp_path), "--output", str(tmp_path / "found")]
    assert device.main(small + where) == 0
    found = json.loads((tmp_path / "found").read_text())
    assert all(row["equal"] == row["frames"] > 0 for row in found["values"])
