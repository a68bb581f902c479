"""Codes: equal rows get equal numbers, compared with Python's tuples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomtorch.index.codes import by_appearance, distinct, firsts, numbered, pieces, plain
from dicomtorch.index.columns import Texts

_FEW = st.integers(-3, 3)
_FAR = st.sampled_from([-(2**62), -1, 0, 5, 2**31, 2**62])
_REAL = st.sampled_from([float("nan"), -0.0, 0.0, 1.5, -2.25, float("inf")])
_ROWS = st.lists(
    st.tuples(_FEW, _FAR, _REAL, st.sampled_from(["", "a", "b"]), st.tuples(_REAL, _REAL)),
    max_size=40,
)


def _columns(rows: list[Any]) -> list[Any]:
    few, far, real, text, pair = zip(*rows, strict=True) if rows else ((),) * 5
    return [
        np.array(few, np.int8),
        np.array(far, np.int64),
        np.array(real, np.float64),
        Texts.of(text),
        np.array(pair, np.float64).reshape(-1, 2),
    ]


def _key(row: Any) -> tuple[Any, ...]:
    few, far, real, text, pair = row
    return few, far, text, *(str(number + 0.0) for number in (real, *pair))


@given(_ROWS)
def test_rows_have_one_number_exactly_where_all_their_columns_agree(rows: list[Any]) -> None:
    codes = numbered(_columns(rows), len(rows))
    keys = [_key(row) for row in rows]
    seen: dict[Any, int] = {}
    ranks = [seen.setdefault(key, len(seen)) for key in keys]
    assert by_appearance(codes).tolist() == ranks
    assert sorted(set(codes.tolist())) == list(range(len(seen)))
    assert firsts(codes).tolist() == [
        keys.index(keys[codes.tolist().index(k)]) for k in range(len(seen))
    ]


@given(st.lists(st.tuples(_FAR, _FEW), max_size=40))
def test_numbers_follow_the_order_of_the_columns(rows: list[tuple[int, int]]) -> None:
    far = np.array([row[0] for row in rows], np.int64)
    few = np.array([row[1] for row in rows], np.int64)
    order = sorted(set(rows))
    assert numbered([far, few], len(rows)).tolist() == [order.index(row) for row in rows]


@given(st.lists(st.integers(0, 5), max_size=40))
def test_pieces_are_the_rows_of_each_number_in_their_order(codes: list[int]) -> None:
    found = [piece.tolist() for piece in pieces(np.array(codes, np.int64))]
    assert found == [[i for i, code in enumerate(codes) if code == k] for k in sorted(set(codes))]
    rows = np.arange(len(codes)) * 10
    named = [piece.tolist() for piece in pieces(np.array(codes, np.int64), rows)]
    assert named == [[10 * i for i in piece] for piece in found]


@pytest.mark.parametrize("columns", [[], [np.zeros(3)], [np.broadcast_to(np.nan, 3)]])
def test_without_a_difference_all_rows_are_one(columns: list[Any]) -> None:
    assert numbered(columns, 3).tolist() == [0, 0, 0]


def test_plain_values_are_codes_of_text_and_numbers_as_they_are() -> None:
    assert plain(Texts.of(["x", "y", "x"])).tolist() == [0, 1, 0]
    assert plain(np.array([5.0, 7.0])).tolist() == [5.0, 7.0]


@pytest.mark.parametrize("values", [["CT"] * 5, ["CT", "CT", "MR"], [""], [], ["a", "b", "a"]])
def test_texts_are_encoded_alike_whatever_holds_them(values: list[str]) -> None:
    for held in (values, tuple(values), iter(values)):
        found = Texts.of(held)
        assert list(found) == values
        assert len(found.values) == len(set(values))
        assert found.codes.dtype == np.int32


@given(st.lists(st.sampled_from("abcdef")), st.lists(st.booleans()))
def test_texts_that_some_row_has_are_numbered_in_the_order_of_their_codes(
    rows: list[str], kept: list[bool]
) -> None:
    texts = Texts.of(rows).take(np.flatnonzero(kept[: len(rows)]))
    number, codes = distinct(texts)
    assert [texts.value(code) for code in codes[number].tolist()] == list(texts)
    assert codes.tolist() == sorted(set(texts.codes.tolist()))
