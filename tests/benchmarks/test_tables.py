"""Tables of README and documentation are those of `benchmarks/results`."""

from __future__ import annotations

import json

import pytest

from benchmarks import record, report, tables
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


def test_figures_in_the_text_are_those_that_were_kept():
    sentences = tables.load("earlier")["sentences"]
    assert len(sentences) > 3
    for page, sentence in sentences:
        assert sentence in " ".join((tables.ROOT / page).read_text(encoding="utf-8").split()), (
            sentence
        )


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
