"""Stacks of one slice, made together."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dicomtorch.index.columns import Texts
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.scanner.scan import scan
from dicomtorch.series import singles
from dicomtorch.series.build import build
from dicomtorch.series.group import Group
from dicomtorch.series.keys import LAST
from dicomtorch.series.parts import Part
from dicomtorch.series.search import stacks
from dicomtorch.series.singles import build_singles
from dicomtorch.series.slices import Slices
from dicomtorch.series.stacks import Stack
from tests.support.phantoms import ct, ct_pixels, write


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> FrameIndex:
    """Slices of several series, sizes and planes, one a localizer."""
    folder = tmp_path_factory.mktemp("singles")
    rng = np.random.default_rng(3)
    for k in range(24):
        turn = rng.uniform(0, 1)
        attributes: dict[str, Any] = {
            "ImagePositionPatient": rng.uniform(-99, 99, 3).round(3).tolist(),
            "ImageOrientationPatient": [np.cos(turn), np.sin(turn), 0, 0, 0, -1],
            "PixelSpacing": [0.5 + k / 10, 0.75],
            "SeriesInstanceUID": f"1.2.3.{k % 7}",
            "AcquisitionTime": f"{(23 + k % 3) % 24:02d}{k:02d}00",
            "InstanceNumber": 40 - k,
        }
        if k % 3:
            attributes["SliceThickness"] = k / 2
        if k % 4 == 1:
            attributes["SpacingBetweenSlices"] = -1.5 * k
        if k == 5:
            attributes["ImageType"] = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        write(ct(ct_pixels(k, 8 + k % 2, 16), k, **attributes), folder / f"{k:02d}.dcm")
    return scan(folder)[0]


def assert_same(one: Stack, other: Stack) -> None:
    for field in dataclasses.fields(Stack):
        first, second = getattr(one, field.name), getattr(other, field.name)
        if isinstance(first, np.ndarray):
            np.testing.assert_allclose(first, second, rtol=4e-16, atol=1e-17, err_msg=field.name)
            assert first.dtype == second.dtype
        else:
            assert first == second, field.name
            assert type(first) is type(second)


@pytest.mark.parametrize("at_once", [1 << 12, 5])
def test_each_is_what_it_is_alone(
    index: FrameIndex, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(singles, "_AT_ONCE", at_once)
    slices = Slices(index)
    rows = np.array([3, 0, 11, 7, 5, 12, 20, 19], np.int64)
    series = np.array([1, 2, 1, 3, 3, 1, 2, 0], np.int64)
    keys = [(), (LAST,), (), ("EchoTime", "vectors"), ("vectors",), ("direction",), (LAST,), ()]
    localizers = {1: np.array([5], np.int64), 9: np.array([6], np.int64)}
    made = build_singles(slices, rows, keys, series, localizers)
    assert len(made) == len(rows)
    for k, stack in enumerate(made):
        group = Group(slices, rows[k : k + 1])
        local = localizers.get(int(series[k]), rows[:0])
        assert_same(stack, build(Part(group, keys[k]), group, rows[:0], local))
        assert stack.report.localizers == tuple(slices.names(local))


def test_tiles_of_a_sheet(tmp_path: Path) -> None:
    """Each with its window."""
    text = "4\\4" + "".join(f"\\0\\0\\{3 * k}" for k in range(4))
    write(ct(ct_pixels(1, 8, 8), 1), tmp_path / "a.dcm")
    write(ct(ct_pixels(2, 8, 8), 2), tmp_path / "b.dcm")
    index = scan(tmp_path)[0]
    index._generation.frames["mosaic"] = Texts.of(["", text])
    slices = Slices(index)
    rows = np.arange(len(slices))
    assert len(rows) == 5
    keys: list[tuple[str, ...]] = [()] * 5
    for k, stack in enumerate(build_singles(slices, rows, keys, rows * 0, {})):
        group = Group(slices, rows[k : k + 1])
        assert_same(stack, build(Part(group, ()), group, rows[:0], rows[:0]))
        assert (stack.windows is None) == (k == 0)


def test_they_are_ordered_by_series_and_time_within_its_day(index: FrameIndex) -> None:
    found = stacks(index, single_slices=True)
    usable = [k for k in range(len(index)) if "LOCALIZER" not in index.column("ImageType")[k]]
    uids, times, numbers = (
        index.column(name) for name in ("SeriesInstanceUID", "AcquisitionTime", "InstanceNumber")
    )
    first = {uid: next(k for k in usable if uids[k] == uid) for uid in set(uids)}

    def key(k: int) -> tuple[float, ...]:
        mine = [times[n] for n in usable if uids[n] == uids[k]]
        over = max(mine) - min(mine) > 43_200
        at = times[k] + 86_400 * (over and times[k] < 43_200)
        return first[uids[k]], at, numbers[k]

    assert [int(stack.positions[0]) for stack in found] == sorted(usable, key=key)
