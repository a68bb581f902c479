"""The benchmark of large frames runs, and pictures decoded small are within their bars. Nothing is timed here."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks import large


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("large")
    arguments = ["--scale", "0.2", "--repeats", "1", "--boxes", "2000"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(large, "ROUND_SECONDS", 0.0)
        places = ["--data", str(folder), "--output", str(folder / "large.json")]
        assert large.main([*arguments, *places]) == 0
    text = (folder / "large.json").read_text()
    assert str(folder) not in text
    found: dict[str, list[dict[str, Any]]] = json.loads(text)
    return found


def test_pictures_are_within_their_bars(results: dict[str, list[dict[str, Any]]]) -> None:
    """Noise and level against decoding everything, in levels of 255."""
    rows = results["reduced"]
    assert {(row["phantom"], row["syntax"]) for row in rows} == {
        (phantom, syntax) for phantom in large.PHANTOMS for syntax in large.SYNTAXES
    }
    for row in rows:
        assert row["factor"] == 4
        assert abs(row["bias"]) <= 0.05
        most = 0.7 if row["phantom"] == "radiograph" else 0.25 if row["syntax"] == "jpeg" else 0.15
        assert 0 < row["rms"] <= most


def test_the_other_parts(results: dict[str, list[dict[str, Any]]]) -> None:
    assert {row["what"] for row in results["crops"]} >= {"DicomCrops", "DicomPatches"}
    assert [row["boxes"] for row in results["boxes"]] == [1000, 2000]
    (alone,) = results["alone"]
    assert alone["one_core_ms"] > 0
