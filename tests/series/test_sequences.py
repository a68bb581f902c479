"""Which frames follow each other in time: from attributes of files that the tests write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from dicomtorch import scan
from dicomtorch.series.sequences import time_sequences
from tests.support.phantoms import ct, write

PIXELS = np.zeros((4, 4), np.uint8)


def slices(folder: Path, rows: list[dict[str, Any]]) -> Any:
    """One file per row of attributes, named so that the order of files says nothing."""
    shuffled = np.random.default_rng(0).permutation(len(rows))
    for name, k in zip(shuffled, range(len(rows)), strict=True):
        write(ct(PIXELS, k, **rows[k]), folder / f"{name:03d}.dcm")
    return scan(folder)[0]


def found(index: Any) -> list[tuple[list[int], list[float]]]:
    """Instance numbers (or frames of a file) and times of each sequence."""
    runs = time_sequences(index)
    assert sorted(runs.order) == list(range(len(index)))
    assert runs.lengths.sum() == len(index)
    assert (runs.lengths > 0).all()
    numbers = np.asarray(index.column("InstanceNumber")) * 100 + np.asarray(index.column("frame"))
    return sorted(
        (numbers[runs.order[a:b]].tolist(), runs.times[a:b].tolist())
        for a, b in zip(runs.starts[:-1], runs.starts[1:], strict=True)
    )


def multi_frame(count: int, **attributes: Any) -> Dataset:
    dataset = ct(np.zeros((count, 4, 4), np.uint8), **attributes)
    del dataset.ImagePositionPatient, dataset.ImageOrientationPatient
    return dataset


def test_a_cine_loop_is_a_sequence(tmp_path):
    write(multi_frame(4, FrameTime=40), tmp_path / "a.dcm")
    write(multi_frame(3, InstanceNumber=2), tmp_path / "b.dcm")
    (a, times), (b, unknown) = found(scan(tmp_path)[0])
    assert (a, times) == ([100, 101, 102, 103], [0, 40, 80, 120])
    assert b == [200, 201, 202]
    assert np.isnan(unknown).all()


def test_frame_time_vector_gives_uneven_times(tmp_path):
    write(
        multi_frame(3, FrameTimeVector=[0, 10, 25], FrameIncrementPointer=0x00181065),
        tmp_path / "a.dcm",
    )
    assert found(scan(tmp_path)[0]) == [([100, 101, 102], [0, 10, 35])]


@pytest.mark.parametrize("keyword", ["PatientID", "StudyInstanceUID"])
def test_patients_and_studies_are_not_mixed_where_series_have_one_uid(tmp_path, keyword):
    rows = [
        {
            keyword: f"7.{k % 2}",
            "AcquisitionTime": f"1200{k:02d}",
            "ImagePositionPatient": [0, 0, 0],
        }
        for k in range(4)
    ]
    assert found(slices(tmp_path, rows)) == [([100, 300], [0, 2000]), ([200, 400], [0, 2000])]


def test_a_selection_of_a_cine_loop(tmp_path):
    write(multi_frame(6, FrameTime=10), tmp_path / "a.dcm")
    index = scan(tmp_path)[0].select([5, 1, 3])
    assert found(index) == [([101, 103, 105], [0, 20, 40])]


@pytest.mark.parametrize(
    ("attributes", "times"),
    [
        ([{"AcquisitionTime": f"1200{s:02d}.5"} for s in (10, 12, 15)], [0, 2000, 5000]),
        ([{"AcquisitionTime": t} for t in ("235959", "000001", "000003")], [0, 2000, 4000]),
        ([{"TriggerTime": t} for t in (5, 25, 65)], [0, 20, 60]),
        ([{"TemporalPositionIdentifier": t} for t in (1, 2, 3)], [np.nan] * 3),
        (
            [{"TemporalPositionIdentifier": t, "AcquisitionTime": f"1200{s}"} for t, s in ((1, 10), (2, 11), (3, 19))],
            [0, 1000, 9000],
        ),
    ],
)  # fmt: skip
def test_a_series_that_shows_one_place_over_time(tmp_path, attributes, times):
    rows = [{**each, "ImagePositionPatient": [0, 0, z]} for z in (0.0, 2.5) for each in attributes]
    (first, first_times), (second, second_times) = found(slices(tmp_path, rows))
    assert first == [100, 200, 300]
    assert second == [400, 500, 600]
    np.testing.assert_allclose([first_times, second_times], [times, times])


@pytest.mark.parametrize(
    "differing",
    [
        {"ImagePositionPatient": [[0, 0, 0], [0, 0, 5]]},  # an ordinary series of slices
        {"SeriesInstanceUID": ["1.2.1", "1.2.2"]},
        {"EchoTime": [10, 80]},
        {"ImageType": [["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"]]},
        {"AcquisitionTime": ["120000", "120000"]},  # nothing tells which came first
        {"AcquisitionTime": [None, "120000"]},
        {"ImageOrientationPatient": [[1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0, -1]]},
        {"ImagePositionPatient": [None, None]},  # nothing tells that they show one place
    ],
)
def test_frames_that_are_no_sequence(tmp_path, differing):
    rows = [
        {
            "AcquisitionTime": f"12000{k}",
            "ImagePositionPatient": [0, 0, 0],
            **{name: values[k] for name, values in differing.items()},
        }
        for k in range(2)
    ]
    assert found(slices(tmp_path, rows)) == [([100], [0]), ([200], [0])]


def enhanced(positions: list[float], temporal: list[int]) -> Dataset:
    dataset = multi_frame(len(positions))
    dataset.PerFrameFunctionalGroupsSequence = Sequence()
    for z, t in zip(positions, temporal, strict=True):
        item, place, content, plane = Dataset(), Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient = [0, 0, z]
        plane.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        content.TemporalPositionIndex = t
        item.PlanePositionSequence = [place]
        item.PlaneOrientationSequence = [plane]
        item.FrameContentSequence = [content]
        dataset.PerFrameFunctionalGroupsSequence.append(item)
    return dataset


def test_places_in_one_file(tmp_path):
    write(enhanced([0, 0, 0, 5, 5, 5], [3, 1, 2, 1, 2, 3]), tmp_path / "a.dcm")
    runs = [run for run, _ in found(scan(tmp_path)[0])]
    assert runs == [[101, 102, 100], [103, 104, 105]]


def test_a_file_that_comes_to_no_place_twice_is_run_through(tmp_path):
    write(enhanced([0, 5, 10], [1, 1, 1]), tmp_path / "a.dcm")
    assert [run for run, _ in found(scan(tmp_path)[0])] == [[100, 101, 102]]


def test_nothing(tmp_path):
    write(ct(PIXELS), tmp_path / "a.dcm")
    assert len(time_sequences(scan(tmp_path)[0].select([]))) == 0


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixed")
    for k in range(6):
        write(multi_frame(k + 1, InstanceNumber=k, FrameTime=10), folder / f"cine{k}.dcm")
    slices(
        folder,
        [
            {"AcquisitionTime": f"1200{t:02d}", "ImagePositionPatient": [0, 0, z]}
            for z in range(4)
            for t in range(5)
        ],
    )
    return scan(folder)[0]


@given(data=st.data())
def test_any_selection_is_partitioned(mixed, data):
    rows = data.draw(st.permutations(range(len(mixed))))[: data.draw(st.integers(1, len(mixed)))]
    index = mixed.select(rows)
    runs = time_sequences(index)
    assert sorted(runs.order) == list(range(len(index)))
    for a, b in zip(runs.starts[:-1], runs.starts[1:], strict=True):
        assert runs.times[a] == 0
        assert (np.diff(runs.times[a:b]) > 0).all()
        whole = time_sequences(mixed)
        place = np.argsort(whole.order)
        assert (np.diff(place[np.asarray(rows)[runs.order[a:b]]]) > 0).all()
