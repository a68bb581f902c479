"""The benchmark of volumes runs, checks what it times, and names no place of the machine. It is not timed here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("SimpleITK")

from benchmarks import volumes


def test_measures_volumes_and_crops(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "volumes.json"
    arguments = [
        "--data",
        str(tmp_path / "data"),
        "--slices",
        "6",
        "--size",
        "32",
        "--repeats",
        "2",
    ]
    assert volumes.main([*arguments, "--output", str(output)]) == 0
    results = json.loads(output.read_text())
    for what in ("volume", "crop"):
        assert {"dicomtorch", "SimpleITK"} <= set(results[what])
        assert all(len(row["repeats"]) == 2 for row in results[what].values())
    assert "volume  SimpleITK" in capsys.readouterr().out
    assert str(tmp_path) not in output.read_text()


def test_wrong_values_are_not_timed() -> None:
    with pytest.raises(AssertionError, match="other"):
        volumes.compare(
            {"dicomtorch": lambda: np.zeros(3), "other": lambda: np.array([0, 0, 1.0])}, 1
        )
