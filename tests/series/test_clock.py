"""The order of frames, and their times, from tables that need no files."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.series.clock import milliseconds, ordered
from tests.support.phantoms import file_rows

NAN = float("nan")


def index_of(*frames: dict[str, Any]) -> FrameIndex:
    rows = [file_rows(f"{k}.dcm", k, **frame) for k, frame in enumerate(frames)]
    return FrameIndex.build(rows, root=b"/data")


def in_order(index: FrameIndex, groups: list[int], rank: float = NAN) -> tuple[Any, Any, Any]:
    several = np.zeros(len(index), np.bool_)
    numbers = np.array(groups)
    order, known = ordered(index, numbers, np.full(len(index), rank), several)
    starts = np.append(np.flatnonzero(np.diff(numbers[order], prepend=-1)), len(index))
    times = milliseconds(index, order, starts, several)
    return order.tolist(), known.tolist(), times.tolist()


@pytest.mark.parametrize(
    ("name", "values", "times"),
    [
        ("AcquisitionTime", (1.0, 86_399.0), [0, 2000]),
        ("ContentTime", (12.5, 10.0), [0, 2500]),
        ("FrameReferenceTime", (12.5, 10.0), [0, 2.5]),
        ("TriggerTime", (12.5, 10.0), [0, 2.5]),
    ],
)
def test_one_column(name: str, values: tuple[float, float], times: list[float]) -> None:
    index = index_of(*({name: value} for value in values))
    assert in_order(index, [0, 0]) == ([1, 0], [True, True], times)


def test_each_group_has_its_own_column() -> None:
    """The first has no Trigger Time throughout, the second no Acquisition Time that differs, the third nothing."""
    index = index_of(
        {"AcquisitionTime": 3.0, "TriggerTime": 1.0},
        {"AcquisitionTime": 2.0},
        {"AcquisitionTime": 5.0, "TriggerTime": 9.0},
        {"AcquisitionTime": 5.0, "TriggerTime": 8.0},
        {"AcquisitionTime": 5.0},
        {"AcquisitionTime": 5.0},
    )
    order, known, times = in_order(index, [0, 0, 1, 1, 2, 2])
    assert order[:4] == [1, 0, 3, 2]
    assert known == [True, True, True, True, False, False]
    np.testing.assert_allclose(times, [0, 1000, 0, 1, NAN, NAN])


def test_midnight_is_a_question_of_each_group() -> None:
    index = index_of(*({"AcquisitionTime": t} for t in (86_399.0, 1.0, 3.0, 2.0)))
    assert in_order(index, [0, 0, 1, 1]) == ([0, 1, 3, 2], [True] * 4, [0, 2000, 0, 1000])
