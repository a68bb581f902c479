"""Lines of CSV: what Arrow writes of the same table, and what Python's own reader finds in them."""

from __future__ import annotations

import csv
import io
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import csv as arrow_csv

from dicomtorch.index.csv_text import write_csv

TEXTS = [
    "",
    "a",
    'say "x"',
    "a,b",
    "two\nlines",
    "=1+1",
    "-1",
    "+",
    "@x",
    "\tx",
    "ä\u20ac",
    "'",
    " ",
]
NUMBERS = [0.0, -0.0, 1.0, 1.5, -2.25, 1e300, 1e-7, 0.1, np.nan, np.inf, -np.inf, 12345678.9, 1 / 3]
TABLES = st.integers(1, 12).flatmap(
    lambda count: st.fixed_dictionaries(
        {
            "file": st.lists(st.integers(-(2**31), 2**31 - 1), min_size=count, max_size=count),
            "bits": st.lists(st.integers(-128, 127), min_size=count, max_size=count),
            "offset": st.lists(st.integers(-1, 2**62), min_size=count, max_size=count),
            "number": st.lists(st.sampled_from(NUMBERS), min_size=count, max_size=count),
            "any": st.lists(st.floats(), min_size=count, max_size=count),
            "text": st.lists(st.sampled_from(TEXTS), min_size=count, max_size=count),
            "path": st.lists(
                st.text(st.characters(exclude_categories=["Cs"])), min_size=count, max_size=count
            ),
            "place": st.lists(
                st.tuples(*[st.sampled_from(NUMBERS)] * 3), min_size=count, max_size=count
            ),
        }
    )
)


def table_of(columns: dict[str, list[Any]]) -> pa.Table:
    """With the types that tables of an index have."""
    place = np.array(columns["place"], np.float64).reshape(-1)
    return pa.table(
        {
            "file": pa.array(columns["file"], pa.int32()),
            "bits": pa.array(columns["bits"], pa.int8()),
            "offset": pa.array(columns["offset"], pa.int64()),
            "number": pa.array(columns["number"], pa.float64()),
            "any": pa.array(columns["any"], pa.float64()),
            "text": pa.array(columns["text"], pa.large_string()).dictionary_encode(),
            "path": pa.array(columns["path"], pa.large_string()),
            "place": pa.FixedSizeListArray.from_arrays(pa.array(place), 3),
        }
    )


def harmless(text: str) -> str:
    return f"'{text}" if text[:1] in tuple("=+@\t\r\n-") else text


def written(*tables: pa.Table) -> bytes:
    file = io.BytesIO()
    write_csv(iter(tables), file)
    return file.getvalue()


def by_arrow(columns: dict[str, list[Any]]) -> bytes:
    """The same text, value by value, by Arrow's writer."""
    flat = table_of(columns)
    for name in ("text", "path"):
        texts = pa.array([harmless(text) for text in columns[name]], pa.large_string())
        flat = flat.set_column(flat.column_names.index(name), name, texts)
    joined = ["\\".join(repr(float(number)) for number in place) for place in columns["place"]]
    flat = flat.set_column(flat.column_names.index("place"), "place", pa.array(joined))
    file = io.BytesIO()
    arrow_csv.write_csv(flat, file)
    return file.getvalue()


@given(TABLES)
def test_lines_are_those_of_arrow(columns: dict[str, list[Any]]) -> None:
    table = table_of(columns)
    assert written(table) == by_arrow(columns)
    half = len(table) // 2
    assert written(table.slice(0, half), table.slice(half)) == by_arrow(columns)


@given(TABLES)
def test_all_rows_alike(columns: dict[str, list[Any]]) -> None:
    """What is the same throughout is written once for all rows."""
    alike = {name: values[:1] * len(values) for name, values in columns.items()}
    assert written(table_of(alike)) == by_arrow(alike)


def test_text_comes_back() -> None:
    columns: dict[str, Any] = {
        "one": pa.array(TEXTS, pa.large_string()),
        'a "name"': pa.array(TEXTS, pa.large_string()).dictionary_encode(),
    }
    rows = list(csv.reader(io.StringIO(written(pa.table(columns)).decode(), newline="")))
    assert rows == [["one", 'a "name"'], *[[harmless(text)] * 2 for text in TEXTS]]


def test_without_rows_there_is_a_header() -> None:
    table = pa.table({"one": pa.array([], pa.int32()), "two": pa.array([], pa.large_string())})
    assert written(table) == b'"one","two"\n'
    assert written(table, table) == b'"one","two"\n'


def test_nulls_are_nothing() -> None:
    texts, numbers = ["a", None, "", None, 'b"'], [1.5, None, 2.0, 3.0, None]
    columns = {
        "text": pa.array(texts, pa.large_string()),
        "encoded": pa.array(texts, pa.large_string()).dictionary_encode(),
        "number": pa.array(numbers),
        "whole": pa.array([None, 1, 2, 3, 4], pa.int32()),
        "none": pa.array([None] * 5, pa.large_string()),
    }
    file = io.BytesIO()
    arrow_csv.write_csv(pa.table(columns | {"encoded": columns["text"]}), file)
    assert written(pa.table(columns)) == file.getvalue()


@pytest.mark.parametrize("count", [1, 3])
def test_truth_values_are_words(count: int) -> None:
    assert (
        written(pa.table({"x": [True, False, True][:count]})).split()
        == [*(b'"x"', b"true", b"false", b"true")][: count + 1]
    )
