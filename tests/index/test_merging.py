"""Columns put together are what lists put together are, and what is alike takes the memory of one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomtorch.index.columns import Packed, Texts
from dicomtorch.index.merging import Picked, concatenate, is_repeated, repeated, shrunk

TEXTS = st.lists(st.sampled_from(["", "a", "b", "ab", "\u00fc", "c"]), max_size=12)


def as_list(data: Any) -> list[Any]:
    return list(data) if isinstance(data, Texts | Packed) else np.asarray(data).tolist()


def columns(values: list[str]) -> list[Any]:
    numbers = np.array([float(len(value)) for value in values])
    return [
        Texts.of(values),
        Packed.of(value.encode() for value in values),
        numbers,
        np.stack([numbers, -numbers], axis=1) if values else np.zeros((0, 2)),
        np.array([len(value) for value in values], np.int32),
    ]


@given(TEXTS, TEXTS, st.data())
def test_rows_of_two_tables(first: list[str], second: list[str], data: st.DataObject) -> None:
    total = len(first) + len(second)
    rows = data.draw(st.lists(st.integers(0, total - 1), max_size=20) if total else st.just([]))
    picked = Picked(len(first), np.array(rows, np.int64))
    for one, other in zip(columns(first), columns(second), strict=True):
        for mine in (one, shrunk(one)):
            both = as_list(one) + as_list(other)
            found = picked.of({"column": mine}, {"column": other})["column"]
            assert as_list(found) == [both[row] for row in rows]
            if isinstance(found, Texts):
                assert set(found.values) <= {both[row].encode() for row in rows} | {b""}


@given(st.lists(TEXTS, min_size=1, max_size=4))
def test_columns_one_after_the_other(lists: list[list[str]]) -> None:
    for parts in zip(*map(columns, lists), strict=True):
        expected = [value for part in parts for value in as_list(part)]
        for mine in (list(parts), [shrunk(part) for part in parts]):
            found = concatenate(mine)
            assert as_list(found) == expected
            if isinstance(found, Texts) and len(mine) > 1:
                assert sorted(found.values) == sorted({value.encode() for value in expected})


@pytest.mark.parametrize("value", [np.nan, 0.0, -0.0, 3.5])
def test_what_is_alike_takes_the_memory_of_one(value: float) -> None:
    column = np.full((5, 3), value)
    small = shrunk(column)
    assert isinstance(small, np.ndarray)
    assert is_repeated(small)
    np.testing.assert_array_equal(small.view("u8"), column.view("u8"))
    both = concatenate([small, shrunk(column[:2])])
    assert isinstance(both, np.ndarray)
    assert is_repeated(both)
    assert both.shape == (7, 3)
    assert not is_repeated(concatenate([small, np.full((2, 3), 7.0)]))  # type: ignore[arg-type]


def test_zeros_of_two_signs_are_not_alike() -> None:
    column = np.array([0.0, -0.0])
    assert shrunk(column) is column
    mixed = concatenate([repeated(np.array([0.0]), 2), repeated(np.array([-0.0]), 2)])
    assert isinstance(mixed, np.ndarray)
    assert np.signbit(mixed).tolist() == [False, False, True, True]


def test_texts_of_rows_are_those_of_each_row() -> None:
    few = Texts.of(["a", "", "b", "ü", "b"])
    many = Texts.of(str(number) for number in range(10_000))  # more than are remembered
    for texts in (few, many):
        rows = np.random.default_rng(0).integers(0, len(texts), 9000)
        for chosen in (rows[:3], rows, rows[:0], rows):
            assert texts.values_of(chosen) == [texts[row] for row in chosen.tolist()]
