"""The benchmark of slides runs, checks what it times, and names no place of the machine. It is not timed here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import slides


def test_measures_tiles_regions_epochs_and_indexing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "slides.json"
    sizes = ["--tiles", "4", "--many", "25", "--calls", "3", "--rounds", "1"]
    arguments = ["--data", str(tmp_path / "data"), *sizes, "--output", str(output)]
    arguments += ["--processes", "2"]
    assert slides.main(arguments) == 0
    results = json.loads(output.read_text())
    assert [set(one) for one in results["epoch"]] == [{"DicomTiles", "DicomFrames"}]
    assert results["index"]["tiles"] == 25
    shown = capsys.readouterr().out
    assert "25 tiles: indexed in" in shown
    assert str(tmp_path) not in output.read_text()
    if "tile" in results:  # where wsidicom is installed
        assert [len(seconds) for one in results["region of 512"] for seconds in one.values()] == [
            3
        ] * 4
        assert "processes" in shown
