"""The rules of stacks as properties, over tables of frames that need no files."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.series.search import stacks
from tests.support.phantoms import file_rows

SIDE: dict[str, list[Any]] = {
    "FrameOfReferenceUID": ["1.1", "1.2", "1.3"],
    "ContrastBolusAgent": ["", "A", "B"],
    "KVP": [100.0, 120.0, 119.9],
    "ConvolutionKernel": ["", "B30f", "B70f"],
    "ImageType": ["ORIGINAL\\PRIMARY\\AXIAL", "ORIGINAL\\PRIMARY\\AXIAL\\NORM"],
    "FlipAngle": [5.0, 15.0],
    "InversionTime": [float("nan"), 900.0],
    "SliceThickness": [1.0, 1.0001],
    "EchoNumbers": [-1, 1, 2],
}
"""Attributes of one slice that do not part a regular series of slices, and values of them."""

PLANE: dict[str, Any] = {
    "ImageOrientationPatient": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    "PixelSpacing": (0.5, 0.5),
    "Rows": 64,
    "Columns": 64,
    "Modality": "MR",
    "SeriesInstanceUID": "1.5",
}


def index_of(frames: list[dict[str, Any]], order: list[int]) -> FrameIndex:
    """Frames in files whose names are in `order`; `number` says which frame is in which."""
    rows = [
        file_rows(f"{name:04d}.dcm", k, SOPInstanceUID=f"1.2.{k}", **PLANE, **frame)
        for k, (name, frame) in enumerate(zip(order, frames, strict=True))
    ]
    return FrameIndex.build(rows, root=b"/data")


def sets(index: FrameIndex, **options: Any) -> list[list[int]]:
    """The frames of each stack, in order."""
    uids = index.column("SOPInstanceUID")
    return [
        [int(uids[p].split(".")[2]) for p in s.positions.tolist()] for s in stacks(index, **options)
    ]


@given(st.data(), st.integers(3, 20), st.sampled_from([0.7, 2.5, 5.0]))
def test_side_attributes_part_no_regular_series(
    data: st.DataObject, count: int, step: float
) -> None:
    frames = [
        {
            "ImagePositionPatient": (0.0, 0.0, round(step * k, 4)),
            **{name: data.draw(st.sampled_from(values)) for name, values in SIDE.items()},
        }
        for k in range(count)
    ]
    order = data.draw(st.permutations(range(count)))
    # Numbers that run through the slices: no attribute comes first for one half of them.
    for k, frame in enumerate(frames):
        frame["InstanceNumber"] = k
    assert sets(index_of(frames, order)) == [list(range(count))]


TOLD_BY: list[dict[str, Any]] = [
    {"name": "TemporalPositionIndex", "value": lambda t, k, n: t + 1},
    {"name": "EchoTime", "value": lambda t, k, n: 5.0 * (t + 1)},
    {"name": "AcquisitionNumber", "value": lambda t, k, n: t + 1},
    {"name": "AcquisitionTime", "value": lambda t, k, n: 40_000.0 + 60 * t + 0.5 * k},
    {"name": "ContentTime", "value": lambda t, k, n: (86_390.0 + 20 * t) % 86_400},
    {"name": "FrameReferenceTime", "value": lambda t, k, n: 500.0 * t},
    {"name": "TriggerTime", "value": lambda t, k, n: 100.0 * t + (7 * k) % 13},
    {"name": "InstanceNumber", "value": lambda t, k, n: t * n + k},
    {"name": "InstanceNumber", "value": lambda t, k, n: k * 100 + t},
]


@given(st.data(), st.integers(2, 5), st.integers(2, 7), st.sampled_from(TOLD_BY))
def test_volumes_do_not_depend_on_the_order_of_files(
    data: st.DataObject, times: int, count: int, told: dict[str, Any]
) -> None:
    frames = [
        {
            "ImagePositionPatient": (0.0, 0.0, 3.0 * k),
            told["name"]: told["value"](t, k, count),
        }
        for t in range(times)
        for k in range(count)
    ]
    order = data.draw(st.permutations(range(len(frames))))
    index = index_of(frames, order)
    expected = [list(range(count * t, count * t + count)) for t in range(times)]
    assert sets(index) == expected
    assert {s.separated_by for s in stacks(index)} == {(told["name"],)}


@given(st.data(), st.integers(2, 4), st.integers(2, 4), st.integers(2, 5))
def test_echoes_at_several_times(data: st.DataObject, times: int, echoes: int, count: int) -> None:
    frames = [
        {
            "ImagePositionPatient": (0.0, 0.0, 3.0 * k),
            "TemporalPositionIndex": t + 1,
            "EchoTime": 4.6 * (e + 1),
        }
        for t in range(times)
        for e in range(echoes)
        for k in range(count)
    ]
    index = index_of(frames, data.draw(st.permutations(range(len(frames)))))
    found = sorted(sets(index))
    assert found == [list(range(count * v, count * (v + 1))) for v in range(times * echoes)]


@given(st.data(), st.integers(4, 12), st.floats(-1e-4, 1e-4))
def test_rounded_orientations_and_spacings(data: st.DataObject, count: int, most: float) -> None:
    frames = []
    for k in range(count):
        turn = data.draw(st.floats(-1, 1)) * most
        frames.append(
            {
                "ImagePositionPatient": (0.0, 0.0, 2.0 * k),
                "ImageOrientationPatient": (
                    1.0,
                    0.0,
                    0.0,
                    0.0,
                    float(np.cos(turn)),
                    float(np.sin(turn)),
                ),
            }
        )
    rows = [file_rows(f"{k}.dcm", k, **{**PLANE, **frame}) for k, frame in enumerate(frames)]
    assert [len(s) for s in stacks(FrameIndex.build(rows, root=b"/data"))] == [count]


@given(st.data(), st.integers(3, 8), st.integers(2, 4))
def test_every_frame_is_in_a_stack_or_left_out(data: st.DataObject, count: int, times: int) -> None:
    """Whatever is drawn: no frame is in two stacks, none is lost, and stacks have one frame a place."""
    keys = ("TemporalPositionIndex", "EchoTime", "AcquisitionNumber", "InstanceNumber")
    frames = []
    for _ in range(count * times):
        frame: dict[str, Any] = {
            "ImagePositionPatient": (0.0, 0.0, 3.0 * data.draw(st.integers(0, count - 1)))
        }
        for key in keys:
            number = data.draw(st.integers(1, 3))
            frame[key] = float(number) if key == "EchoTime" else number
        frames.append(frame)
    index = index_of(frames, list(range(len(frames))))
    found = stacks(index, on_gap="keep")
    seen = [p for stack in found for p in stack.positions.tolist()]
    seen += [p for part in found.left_out for p in part.positions.tolist()]
    assert sorted(seen) == list(range(len(frames)))
    for stack in found:
        places = stack.origins[:, 2]
        assert (np.diff(places) > 0).all()
