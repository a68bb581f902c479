"""`python -m benchmarks.masks` runs, compares, and says what is kept."""

from __future__ import annotations

import json
import sys

from benchmarks import masks
from tests.support.requirements import require


def test_it_runs_on_few_small_slices(tmp_path, capsys):
    require("highdicom")
    arguments = ["--data", tmp_path, "--slices", 14, "--size", 64, "--repeats", 1]
    output = tmp_path / "masks.json"
    assert masks.main([str(a) for a in [*arguments, "--output", output, "--rt-utils", ""]]) == 0
    text = capsys.readouterr().out
    assert "rt-utils is not measured: name an interpreter" in text
    names = [row["name"] for row in json.loads(output.read_text())["rows"]]
    for words in (
        "scan of the file",
        "times as fast as highdicom",
        "SEG, 20 segments",
        "first time",
    ):
        assert any(words in name for name in names), words
    # An interpreter without rt-utils: said, and the row left out.
    assert masks.main([str(a) for a in [*arguments, "--rt-utils", sys.executable]]) == 0
    assert "rt-utils fails, not measured: ModuleNotFoundError" in capsys.readouterr().out


def test_a_row_says_whether_its_bar_is_kept():
    assert masks.Row("a", 21.0, "x", 20).line().endswith(">= 20: yes")
    assert masks.Row("a", 0.4, "ms", 0.35).line().endswith("<= 0.35: NO")
    assert "=" not in masks.Row("a", 1.0).line()
