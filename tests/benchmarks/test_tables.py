"""Tables of README and documentation are those of `benchmarks/results`."""

from __future__ import annotations

import json
import math
import re
import sys

import pytest

from benchmarks import growth, record, report, tables
from benchmarks.tables import Table

TABLE = Table(
    "Epochs",
    ["", "ct", "rle"],
    [["MONAI", "0.3", "-"], ["pydicom", "1", "1"], ["dicomtorch, x", "8.8", "3.9"]],
)


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A folder with one file of results."""
    kept = {
        "date": "2026-01-02",
        "machine": {"cpu": "a processor", "usable_cores": 2, "system": "Linux"},
        "versions": {"torch": "2.13", "monai": ""},
        "tables": [{"title": TABLE.title, "columns": TABLE.columns, "rows": TABLE.rows}],
    }
    (tmp_path / "some.json").write_text(json.dumps(kept))
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    return tmp_path


def test_pages_and_chart_are_those_of_the_results():
    differing = [
        path.relative_to(tables.ROOT).as_posix()
        for path, text in tables.wanted().items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    assert differing == [], "python -m benchmarks.tables"
    names = {path.relative_to(tables.ROOT).as_posix() for path in tables.pages()}
    assert {"README.md", "benchmarks/README.md", "docs/how-to/loading.md"} <= names


def test_every_file_of_results_says_when_and_on_what():
    for path in sorted(tables.RESULTS.glob("*.json")):
        found = tables.load(path.stem)
        assert found["date"], path.name
        assert found["machine"]["usable_cores"], path.name
        assert found["versions"]["torch"], path.name
        assert found["tables"] or found["printed"], path.name


SENTENCES = [
    (page, sentence)
    for path in sorted(tables.RESULTS.glob("*.json"))
    for page, sentence in tables.load(path.stem).get("sentences", ())
]
FIGURE = re.compile(r"\d[\d.,]* ?(ms|us|s|minutes|hours|days|frames/s|[MG]B/s)\b(?! until)")
NO_SPEED = {"docs/explain/promises.md"}  # limits, and how long programs ran that look for faults


def text_of(page: str) -> str:
    return " ".join((tables.ROOT / page).read_text(encoding="utf-8").split())


def test_figures_in_the_text_are_those_that_were_kept():
    assert len(SENTENCES) > 6
    assert [sentence for page, sentence in SENTENCES if sentence not in text_of(page)] == []


def test_a_figure_of_speed_on_a_page_is_one_that_was_kept():
    """Outside of tables of results and of code; rows of an option say its default."""
    found = []
    for path in (tables.ROOT / "README.md", *sorted((tables.ROOT / "docs").rglob("*.md"))):
        page = path.relative_to(tables.ROOT).as_posix()
        if "generated" in path.parts or page in NO_SPEED:
            continue
        text = tables.BLOCK.sub("", path.read_text(encoding="utf-8"))
        text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        lines = [line for line in text.splitlines() if not line.startswith("| `")]
        text = " ".join(" ".join(lines).split())
        for _, sentence in SENTENCES:
            text = text.replace(sentence, "")
        found += [f"{page}: {text[m.start() - 60 : m.end() + 20]}" for m in FIGURE.finditer(text)]
    assert found == []


def test_tables_that_programs_print_are_found():
    rows = [{"what": "a", "ms": 1.25}, {"what": "b", "ms": 1234.0}]
    printed = f"noise\n{report.plain_table('Times', rows, ('what', 'ms'))}\nWrote results.json\n"
    assert tables.parsed(printed) == [
        Table("Times", ["what", "ms"], [["a", "1.25"], ["b", "1.23e+03"]])
    ]


def test_a_pivot_has_a_row_for_each_library():
    rows = [
        {"library": "x", "syntax": "jpeg_ls", "ms": 1.0},
        {"library": "y", "syntax": "jpeg_ls", "missing": "refused"},
        {"library": "x", "syntax": "rle", "ms": 2.0},
    ]
    (found,) = tables.parsed(report.pivot("Peers", rows, "library", "syntax", "ms"))
    assert found == Table(
        "Peers", ["library", "jpeg ls", "rle"], [["x", "1", "2"], ["y", "-", "-"]]
    )


def test_markdown_comes_back_as_the_table():
    (found,) = tables.parsed(f"### Epochs\n\n{tables.markdown(TABLE)}\n")
    assert found.rows[1:] == TABLE.rows[1:]
    assert found.rows[0] == ["MONAI `LoadImage`", "0.3", "-"]


def test_a_block_is_written_with_its_caption(results):
    mark = "<!-- results: some / Epochs | columns: rle | rows: dicomtorch, x; pydicom -->"
    page = f"a\n{mark}\nold\n<!-- end of results -->\nb"
    text = tables.written(page, "../")
    lines = text.splitlines()
    assert lines[2:6] == [
        "|  | rle |",
        "|---|---|",
        "| **dicomtorch, x** | **3.9** |",
        "| pydicom | 1 |",
    ]
    assert "2026-01-02](../benchmarks/results/some.json)" in text
    assert "monai" not in text
    assert tables.written(text, "../") == text
    assert "2026" not in tables.written(page.replace(" -->\nold", " | no caption -->\nold"))


@pytest.mark.parametrize(
    ("mark", "named"), [("some / Nothing", "Nothing"), ("some / Epochs | columns: gone", "gone")]
)
def test_what_is_not_there_is_named(results, mark, named):
    with pytest.raises(KeyError, match=named):
        tables.written(f"<!-- results: {mark} -->\n<!-- end of results -->")


def test_the_chart_has_a_bar_for_each_number():
    drawn = tables.chart(TABLE)
    assert drawn.count('height="12"') == 5
    assert "MONAI LoadImage" in drawn


def test_programs_that_are_recorded_are_there():
    for command in record.COMMANDS.values():
        name = command[0]
        path = tables.ROOT.joinpath(*name.split("."))
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), name


def test_what_a_program_prints_is_kept(monkeypatch):
    monkeypatch.setitem(record.COMMANDS, "zen", ["this"])
    kept = record.record("zen", [])
    assert kept["command"] == "python -m this"
    assert kept["tables"] == []
    assert "Beautiful is better than ugly." in kept["printed"]


def test_changed_code_is_told_from_the_commit(monkeypatch):
    changed = ["", " M dicomtorch/x.py\n"]
    monkeypatch.setattr(
        record, "_git", lambda what, *_: "abc1234\n" if what == "rev-parse" else changed[-1]
    )
    assert record._commit() == "abc1234-dirty"
    changed.pop()
    assert record._commit() == "abc1234"


def test_arguments_are_for_one_program(capsys):
    for names in ([], ["growth", "scan"]):
        with pytest.raises(SystemExit):
            record.main([*names, "--args", "--rows", "10"])
    assert "--args are for one program" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="memory is that of /proc")
def test_what_growth_measures_happens(tmp_path):
    """A first scan takes the answers of stand-ins, an eviction removes; both check it themselves."""
    for step in (
        "first scan, parent",
        "eviction of a tenth of the frame cache (rows / 10 entries)",
    ):
        growth.STEPS[step](growth.Place(tmp_path, 3000))()


def test_a_peak_that_cannot_be_told_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(growth, "_forget_peak", lambda: False)
    monkeypatch.setitem(growth.STEPS, "nothing", lambda _: lambda: None)
    assert math.isnan(growth.measure("nothing", 10, tmp_path).peak)
