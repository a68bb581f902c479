"""Clips through time series: the frames at one place of the volumes that follow each other."""

from __future__ import annotations

import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import generate_uid

from dicomtorch import DicomClips, FrameIndex
from dicomtorch.errors import GeometryError, OptionError
from dicomtorch.series.sequences import time_sequences
from tests.support.phantoms import ct, file_rows, write

TIMES, PLACES = 3, 5
Told = Callable[[int, int], dict[str, Any]]


def told_by_position(t: int, k: int) -> dict[str, Any]:
    return {"TemporalPositionIdentifier": t + 1, "InstanceNumber": 1}


def told_by_time(t: int, k: int) -> dict[str, Any]:
    return {"AcquisitionTime": f"{120000 + 10 * t + k}.5", "InstanceNumber": 1}


def told_by_number(t: int, k: int) -> dict[str, Any]:
    return {"InstanceNumber": PLACES * t + k + 1}


def write_slice(folder: Path, t: int, k: int, number: int = 0, **attributes: Any) -> Path:
    """All pixels are 10 t + k; 3 mm from place to place, 2 um from time to time."""
    given = {
        "SOPInstanceUID": generate_uid(),
        "ImagePositionPatient": [0, 0, 3 * k + 0.002 * t],
        **attributes,
    }
    path = folder / f"{(7 * (PLACES * t + k) + 3) % 16:02d}-{t}{k}-{number}.dcm"
    write(ct(np.full((6, 8), 10 * t + k, np.uint8), 0, **given), path)
    return path


def write_series(folder: Path, told: Told, without: tuple[tuple[int, int], ...] = ()) -> None:
    for t in range(TIMES):
        for k in range(PLACES):
            if (t, k) not in without:
                write_slice(folder, t, k, **told(t, k))


def clips_of(folder: Path, on_gap: Any = "raise") -> dict[tuple[int, ...], tuple[float, ...]]:
    """What each whole sequence shows -> its times."""
    clips = DicomClips(folder, 1, values="stored", on_gap=on_gap)
    found = {}
    runs = clips.sequences
    for number, (begin, end) in enumerate(zip(runs.starts[:-1], runs.starts[1:], strict=True)):
        shown = tuple(int(clips[number, k][0].max()) for k in range(end - begin))
        found[shown] = tuple(runs.times[begin:end].tolist())
    return found


WHOLE = {(k, 10 + k, 20 + k) for k in range(PLACES)}


@pytest.mark.parametrize("told", [told_by_position, told_by_time, told_by_number])
def test_a_clip_at_each_place(tmp_path: Path, told: Told) -> None:
    write_series(tmp_path, told)
    found = clips_of(tmp_path)
    assert set(found) == WHOLE
    if told is told_by_time:
        assert set(found.values()) == {(0.0, 10_000.0, 20_000.0)}
    else:
        assert np.isnan([*found.values()]).all()


@pytest.mark.parametrize("lost", [2, 0, 4])
def test_a_volume_that_lacks_a_slice(tmp_path: Path, lost: int) -> None:
    write_series(tmp_path, told_by_position, without=((1, lost),))
    with pytest.raises(
        GeometryError, match=r'1 of 5 places are missing.*-1[0-4]-0\.dcm.*on_gap="warn"'
    ):
        clips_of(tmp_path)
    with pytest.warns(UserWarning, match="1 of 5 places are missing") as warned:
        found = clips_of(tmp_path, "warn")
    assert len(warned) == 1
    kept = WHOLE - {(lost, 10 + lost, 20 + lost)} | {(lost, 20 + lost)}
    assert set(found) == kept
    assert set(clips_of(tmp_path, "keep")) == kept


def test_a_volume_of_which_one_slice_is_left(tmp_path: Path) -> None:
    write_series(tmp_path, told_by_position, without=tuple((2, k) for k in range(1, 5)))
    with pytest.raises(GeometryError, match=r"no volume of a time series: .*-20-0\.dcm"):
        clips_of(tmp_path)
    assert set(clips_of(tmp_path, "keep")) == {(k, 10 + k) for k in range(PLACES)} | {(20,)}


def test_a_series_that_nothing_orders(tmp_path: Path) -> None:
    write_series(tmp_path, told_by_number, without=((1, 2),))
    with pytest.raises(GeometryError, match=r"nothing tells apart.*each frame is alone: .*\.dcm"):
        clips_of(tmp_path)
    alone = {(10 * t + k,) for t in range(TIMES) for k in range(PLACES)} - {(12,)}
    assert set(clips_of(tmp_path, "keep")) == alone
    with pytest.raises(OptionError, match="on_gap"):
        clips_of(tmp_path, "ignore")


def test_volumes_that_only_a_frame_of_reference_tells_apart(tmp_path: Path) -> None:
    """File names play no part: which came first is not known."""
    write_series(
        tmp_path, lambda t, k: {"FrameOfReferenceUID": f"1.2.{t + 1}", "InstanceNumber": 1}
    )
    with pytest.raises(GeometryError, match=r"which volumes of a series came first.*\.dcm"):
        clips_of(tmp_path)
    assert {len(shown) for shown in clips_of(tmp_path, "keep")} == {1}


@pytest.mark.parametrize("places", [1, PLACES])
def test_a_copy_of_a_file(tmp_path: Path, places: int) -> None:
    for t in range(TIMES):
        for k in range(places):
            path = write_slice(
                tmp_path, t, k, ImagePositionPatient=[0, 0, 3 * k], **told_by_time(t, k)
            )
            if (t, k) == (1, places - 1):
                copy = shutil.copy(path, tmp_path / "zz-copy.dcm")
    with pytest.raises(GeometryError, match=rf"copies of .*: {re.escape(str(copy))}.*deduplicate"):
        clips_of(tmp_path)
    expected = {(k, 10 + k, 20 + k) for k in range(places)} | {(9 + places,)}
    assert set(clips_of(tmp_path, "keep")) == expected


def test_a_slice_that_fits_no_volume(tmp_path: Path) -> None:
    write_series(tmp_path, told_by_position)
    path = write_slice(
        tmp_path, 3, 0, StackID="other", ImagePositionPatient=[0, 0, 0], StudyInstanceUID="1.2.3"
    )
    with pytest.raises(GeometryError, match=rf"no volume of a time series: {re.escape(str(path))}"):
        clips_of(tmp_path)
    assert set(clips_of(tmp_path, "keep")) == WHOLE | {(30,)}


def test_series_without_time_are_left_alone(tmp_path: Path) -> None:
    """A lost slice, a copy and a foreign slice of a series of one volume are no question of time."""
    for k in (0, 1, 3):
        path = write_slice(tmp_path, 0, k, InstanceNumber=k)
    shutil.copy(path, tmp_path / "copy.dcm")
    write_slice(tmp_path, 1, 0, StudyInstanceUID="1.2.3")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert {len(shown) for shown in clips_of(tmp_path)} == {1}


@pytest.mark.parametrize(
    "kind",
    [
        lambda t: {"EchoTime": 5.0 * (t % 2 + 1)},
        lambda t: {"ImageType": ["ORIGINAL", "PRIMARY", "MP"[t % 2]]},
        lambda t: {"DiffusionBValue": 1000.0 * (t % 2)},
    ],
)
def test_kinds_are_not_mixed(tmp_path: Path, kind: Callable[[int], dict[str, Any]]) -> None:
    for t in range(4):
        for k in range(2):
            attributes = {**told_by_position(t // 2, k), "AcquisitionNumber": t + 1, **kind(t)}
            write_slice(tmp_path, t, k, **attributes)
    assert set(clips_of(tmp_path)) == {(0, 20), (1, 21), (10, 30), (11, 31)}


def test_a_contrast_agent_that_arrives(tmp_path: Path) -> None:
    write_series(
        tmp_path,
        lambda t, k: {**told_by_time(t, k), "ContrastBolusAgent": "AGENT" if t else ""},
    )
    assert set(clips_of(tmp_path)) == WHOLE


def test_other_grids_are_other_clips(tmp_path: Path) -> None:
    """Two stations beside each other, of two times each."""
    for t in range(4):
        for k in range(3):
            write_slice(
                tmp_path,
                t,
                k,
                **told_by_position(t, k),
                ImagePositionPatient=[280 * (t % 2), 0, 3 * k],
            )
    assert set(clips_of(tmp_path)) == {
        (10 * t + k, 20 + 10 * t + k) for t in range(2) for k in range(3)
    }


PLANE: dict[str, Any] = {
    "ImageOrientationPatient": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    "PixelSpacing": (0.5, 0.5),
    "Rows": 64,
    "Columns": 64,
    "Modality": "MR",
    "SeriesInstanceUID": "1.5",
}
TOLD_BY: list[Callable[[int, int, int], dict[str, Any]]] = [
    lambda t, k, n: {"TemporalPositionIndex": t + 1},
    lambda t, k, n: {"AcquisitionTime": 40_000.0 + 60 * t + 0.5 * k},
    lambda t, k, n: {"ContentTime": (86_390.0 + 20 * t) % 86_400},
    lambda t, k, n: {"TriggerTime": 100.0 * t + (7 * k) % 13},
    lambda t, k, n: {"InstanceNumber": t * n + k},
    lambda t, k, n: {"InstanceNumber": k * 100 + t},
]


def index_of(frames: list[dict[str, Any]], order: list[int]) -> FrameIndex:
    rows = [
        file_rows(f"{name:04d}.dcm", k, SOPInstanceUID=f"1.2.{k}", **{**PLANE, **frame})
        for k, (name, frame) in enumerate(zip(order, frames, strict=True))
    ]
    return FrameIndex.build(rows, root=b"/data")


def sequences_of(index: FrameIndex) -> set[tuple[int, ...]]:
    runs = time_sequences(index)
    uids = index.column("SOPInstanceUID")
    numbers = np.array([int(uids[i].split(".")[2]) for i in range(len(index))])
    assert sorted(runs.order.tolist()) == list(range(len(index)))
    return {
        tuple(numbers[runs.order[a:b]].tolist())
        for a, b in zip(runs.starts[:-1], runs.starts[1:], strict=True)
    }


@given(st.data(), st.integers(2, 5), st.integers(2, 7), st.sampled_from(TOLD_BY), st.booleans())
def test_clips_do_not_depend_on_the_order_of_files(
    data: st.DataObject,
    times: int,
    count: int,
    told: Callable[[int, int, int], dict[str, Any]],
    drifts: bool,
) -> None:
    frames = [
        {"ImagePositionPatient": (0.0, 0.0, 3.0 * k + 0.002 * t * drifts), **told(t, k, count)}
        for t in range(times)
        for k in range(count)
    ]
    index = index_of(frames, data.draw(st.permutations(range(len(frames)))))
    assert sequences_of(index) == {tuple(k + count * t for t in range(times)) for k in range(count)}


@given(st.data(), st.integers(2, 4), st.integers(2, 5))
def test_lost_slices_do_not_depend_on_the_order_of_files(
    data: st.DataObject, times: int, count: int
) -> None:
    frames = [
        {"ImagePositionPatient": (0.0, 0.0, 3.0 * k), "TemporalPositionIndex": t + 1}
        for t in range(times)
        for k in range(count)
        if data.draw(st.integers(0, 5))
    ]
    if frames:
        in_order = list(range(len(frames)))
        order = data.draw(st.permutations(in_order))
        assert sequences_of(index_of(frames, order)) == sequences_of(index_of(frames, in_order))


def test_sheets_of_successive_volumes() -> None:
    """A sheet with all slices of a volume is one frame; its tiles say where it lies."""
    layouts = ["2\\2\\0\\0\\0\\0\\0\\3", "2\\2\\0\\0\\9\\0\\0\\12"]
    frames = [
        {
            "mosaic": layouts[k % 2],
            "ImagePositionPatient": (np.nan, np.nan, np.nan),
            "AcquisitionTime": 90.0 - k,
            "Rows": 4,
            "Columns": 4,
        }
        for k in range(6)
    ]
    assert sequences_of(index_of(frames, list(range(6)))) == {(4, 2, 0), (5, 3, 1)}


def test_a_copied_file_that_is_run_through() -> None:
    """Of slices of one volume in one file, twice: both are run through; the copy is in no clip of another."""
    places = [(0.0, 0.0, 3.0 * k) for k in range(4)]
    rows = [
        file_rows(
            f"{k}.dcm", k, 4, **{**PLANE, "SOPInstanceUID": "1.2", "ImagePositionPatient": places}
        )
        for k in range(2)
    ]
    runs = time_sequences(FrameIndex.build(rows, root=b"/data"), "raise")
    assert (runs.order.tolist(), runs.starts.tolist()) == (list(range(8)), [0, 4, 8])


def test_volumes_in_files_of_their_own() -> None:
    """A file with the slices of each time, and one of them twice: a clip at each place, without the copy."""
    places = [(0.0, 0.0, 3.0 * k) for k in range(4)]
    rows = [
        file_rows(
            f"{number}.dcm", number, 4,
            **{**PLANE, "SOPInstanceUID": f"1.{t}", "TemporalPositionIndex": t + 1, "ImagePositionPatient": places},
        )
        for number, t in enumerate((1, 0, 1))
    ]  # fmt: skip
    index = FrameIndex.build(rows, root=b"/data")
    with pytest.raises(GeometryError, match=r"copies of .*/data/2\.dcm.*deduplicate"):
        time_sequences(index, "raise")
    runs = time_sequences(index)
    found = [
        tuple(runs.order[a:b].tolist())
        for a, b in zip(runs.starts[:-1], runs.starts[1:], strict=True)
    ]
    assert set(found) == {(4 + k, k) for k in range(4)} | {(8 + k,) for k in range(4)}


def test_a_loop_among_slices_that_nothing_tells_apart() -> None:
    """A file orders its own frames, whatever else its series has; frames of several files are not told apart."""
    loop = file_rows(
        "loop.dcm", 9, 3, **{**PLANE, "SOPInstanceUID": "1.9"}, ImagePositionPatient=(0.0, 0.0, 0.0)
    )
    slices = [
        file_rows(
            f"{k}.dcm",
            k,
            **{**PLANE, "SOPInstanceUID": f"1.{k}"},
            ImagePositionPatient=(0.0, 0.0, z),
        )
        for k, z in enumerate((0.0, 3.0, 3.0))
    ]
    runs = time_sequences(FrameIndex.build([loop, *slices[:2]], root=b"/data"), "raise")
    assert (runs.order.tolist(), runs.starts.tolist()) == ([0, 1, 2, 3, 4], [0, 1, 2, 5])
    index = FrameIndex.build([loop, *slices], root=b"/data")
    with pytest.raises(
        GeometryError, match=r"each frame is alone: /data/0.dcm, /data/1.dcm, /data/2.dcm"
    ):
        time_sequences(index, "raise")
    assert time_sequences(index).starts.tolist() == [0, 1, 2, 3, 6]
