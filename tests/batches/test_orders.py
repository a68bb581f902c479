"""The quick ways give what NumPy's plain ones give."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomtorch.batches import orders
from dicomtorch.batches.orders import in_order, searched, starts_of


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)), max_size=12))
@pytest.mark.parametrize("is_sorted", [True, False])
def test_rows_in_order(is_sorted: bool, rows: list[tuple[int, int, int]]) -> None:
    table = np.array(sorted(rows) if is_sorted else rows, np.int64).reshape(-1, 3)
    expected = np.lexsort(table.T[::-1]) if len(table) else np.empty(0, np.int64)
    assert in_order(*table.T).tolist() == expected.tolist()


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=40), st.lists(st.floats(0, 1), max_size=40))
def test_a_search_through_a_table(weights: list[float], where: list[float]) -> None:
    cumulative = np.cumsum(weights)
    drawn = np.array(where) * cumulative[-1]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(orders, "_SMALL", 1)
        found = searched(cumulative, drawn)
    assert found.tolist() == np.searchsorted(cumulative, drawn, side="right").tolist()


@pytest.mark.parametrize("kind", ["even", "skewed", "many zeros"])
def test_a_search_over_many(kind: str) -> None:
    rng = np.random.default_rng(0)
    weights = rng.random(100_000)
    if kind == "skewed":
        weights **= 30
    elif kind == "many zeros":
        weights[rng.random(len(weights)) < 0.99] = 0
    cumulative = np.cumsum(weights)
    drawn = np.concatenate([rng.random(100_000) * cumulative[-1], cumulative[:1000], [0.0]])
    np.testing.assert_array_equal(
        searched(cumulative, drawn), np.searchsorted(cumulative, drawn, side="right")
    )


def test_runs_begin() -> None:
    assert starts_of(np.array([4, 4, 5, 7, 7])).tolist() == [0, 2, 3]
    assert starts_of(np.empty(0, np.int64)).tolist() == []
