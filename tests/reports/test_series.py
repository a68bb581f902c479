"""What is said of the series of a tree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dicomtorch import scan
from dicomtorch.cli import main as cli
from dicomtorch.cli.options import EXIT_FOUND_PROBLEMS, EXIT_OK
from dicomtorch.reports.doctor import examine
from dicomtorch.reports.doctor import to_json as doctor_json
from dicomtorch.reports.series import describe_series, format_series, to_json
from tests.support.phantoms import ct, ct_pixels, write


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two time points of a series, of which the second is cut short; a series with a gap; a single image."""
    for t in range(2):
        for k in range(4 - 2 * t):
            dataset = ct(ct_pixels(k), 10 * t + k, ImagePositionPatient=[0, 0, 3 * k], KVP=100 + k)
            dataset.TemporalPositionIdentifier = t + 1
            write(dataset, tmp_path / "a" / f"{t}{k}.dcm")
    for k in (0, 1, 3):
        write(ct(ct_pixels(k), 50 + k, SeriesInstanceUID="1.2"), tmp_path / "b" / f"{k}.dcm")
    write(ct(ct_pixels(), 90, SeriesInstanceUID="1.3", Modality="MR"), tmp_path / "c" / "0.dcm")
    return tmp_path


def test_what_each_series_is(tree: Path) -> None:
    index, _ = scan(tree)
    a, b, c = describe_series(index)
    assert [stack.shape[0] for stack in a.volumes] == [4, 2]
    assert (a.frames, a.modality, a.is_one_array) == (6, "CT", False)
    assert a.separated_by == ["TemporalPositionIndex"]
    assert a.differing == ["KVP"]
    assert (b.missing, b.uneven, b.copies) == (1, 0, 0)
    assert (c.volumes, c.left_out) == ([], {"a single place, which is no volume": 1})
    text = format_series([a, b, c], index)
    for part in (
        "a/00.dcm",
        "TemporalPositionIndex",
        "KVP differ",
        "1 missing",
        "several grids",
        "c/0.dcm: 1: a single",
    ):
        assert part in text


def test_json_with_and_without_paths(tree: Path) -> None:
    index, report = scan(tree)
    found = describe_series(index)
    a, b, _ = to_json(found, index)
    assert a["path"] == "a/00.dcm"
    assert a["volumes"][0]["shape"] == [4, 24, 32]
    assert "2 of 4 slices are missing" in a["volumes"][1]["problems"][0]
    assert b["missing_slices"] == 1
    redacted = json.dumps(to_json(found, index, redact_paths=True))
    assert ".dcm" not in redacted
    assert doctor_json(examine(index, report), index)["series"] == to_json(found, index)


def test_the_command(tree: Path, capsys: Any) -> None:
    assert cli.main(["series", str(tree)]) == EXIT_FOUND_PROBLEMS
    assert "separated_by" in capsys.readouterr().out
    assert cli.main(["series", str(tree / "c"), "--json"]) == EXIT_OK
    (one,) = json.loads(capsys.readouterr().out)
    assert one["left_out"] == {"a single place, which is no volume": 1}
    assert cli.main(["series", str(tree), "--redact-paths"]) == EXIT_FOUND_PROBLEMS
    assert ".dcm" not in capsys.readouterr().out


def test_nothing(tmp_path: Path) -> None:
    index, _ = scan(tmp_path)
    assert describe_series(index) == []
    assert format_series([], index) == ""
