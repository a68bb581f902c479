"""Regular volumes, made together: each is what it is alone, and whatever may be something else is left to the rules."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from benchmarks.index import numbered, synthetic
from dicomtorch.index.columns import Packed, Texts
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.series import regular, search
from dicomtorch.series.search import stacks
from dicomtorch.series.slices import Slices
from dicomtorch.series.stacks import Stack, StackList

Change = Callable[[dict[str, Any], np.random.Generator], object]
PLANE = np.array([1.0, 0.0, 0.0, 0.0, 1.0, 0.0])


def steps(sizes: list[float]) -> Change:
    """Places with these steps between the slices, again and again."""

    def change(series: dict[str, Any], rng: np.random.Generator) -> None:
        count = len(series["place"])
        series["place"][:, 2] = np.cumsum(np.resize(sizes, count))

    return change


def setting(name: str, value: Any) -> Change:
    def change(series: dict[str, Any], rng: np.random.Generator) -> None:
        series[name][len(series[name]) // 2 :] = value

    return change


def turned(series: dict[str, Any], rng: np.random.Generator) -> None:
    """An oblique plane, and slices one after the other along its normal."""
    plane = np.linalg.qr(rng.normal(size=(3, 3)))[0].T
    series["plane"][:] = plane[:2].ravel().round(6)
    along = np.cross(series["plane"][0, :3], series["plane"][0, 3:])
    series["place"][:] = rng.uniform(-99, 99, 3)
    series["place"] += np.arange(len(series["place"]))[:, None] * along * 2.3


def tilted(series: dict[str, Any], rng: np.random.Generator) -> None:
    series["place"][:, 1] = series["place"][:, 2] * 0.2


def shuffled(series: dict[str, Any], rng: np.random.Generator) -> None:
    series["place"][:] = series["place"][rng.permutation(len(series["place"]))]


def plain(series: dict[str, Any], rng: np.random.Generator) -> None:
    """Nothing else."""


REGULAR: dict[str, Change] = {
    "plain": plain,
    "turned": turned,
    "tilted": tilted,
    "shuffled": shuffled,
    "downwards": steps([-2.0]),
    "rounded": steps([1.2, 1.3]),
    "thickness differs": setting("SliceThickness", 5.0),
    "contrast differs": setting("ContrastBolusAgent", 1),
}
OTHER: dict[str, Change] = {
    "gap": steps([2, 2, 2, 6]),
    "unequal": steps([2, 3]),
    "one place": steps([0.0]),
    "places twice": steps([2, 0]),
    "nearer than a tenth of a pixel": steps([0.04]),
    "kernels": setting("ConvolutionKernel", 1),
    "echoes": setting("EchoTime", 30.0),
    "directions": setting("direction", 0.5),
    "plane differs a little": setting("plane", PLANE + 1e-7),
    "pixels differ a little": setting("pixel", 0.7000001),
}
LOST = setting("place", np.nan)


def made(length: int, change: Change, rng: np.random.Generator) -> dict[str, Any]:
    """The columns of one series."""
    series: dict[str, Any] = {
        "place": np.zeros((length, 3)),
        "plane": np.tile(PLANE, (length, 1)),
        "pixel": np.full((length, 2), 0.7),
        "direction": np.full((length, 3), 0.1),
        "SliceThickness": np.full(length, 2.0),
        "EchoTime": np.full(length, 10.0),
        "ConvolutionKernel": np.zeros(length, np.int32),
        "ContrastBolusAgent": np.zeros(length, np.int32),
    }
    series["place"][:, 2] = np.arange(length) * 2.5
    change(series, rng)
    return series


def index_of(lengths: list[int], changes: list[Change], *, seed: int) -> FrameIndex:
    """A series of each change, its slices between those of the others."""
    rng = np.random.default_rng(seed)
    all_series = [made(*one, rng) for one in zip(lengths, changes, strict=True)]
    number = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    mixed = rng.permutation(len(number))
    columns = {
        name: np.concatenate([one[name] for one in all_series])[mixed] for name in all_series[0]
    }
    number = number[mixed]
    generation = synthetic(len(number))
    uids = numbered(b"1.2.3.", len(lengths), 4)
    words = Packed.of([b"A", b"B"])
    same = np.zeros(len(number), np.int32)
    frames = generation.frames | {
        "SeriesInstanceUID": Texts(number, uids),
        "StudyInstanceUID": Texts(same, uids),
        "FrameOfReferenceUID": Texts(same, uids),
        "PatientID": Texts(same, uids),
        "patient": same,
        "Modality": Texts(same, Packed.of([b"MR"])),
        "KVP": np.full(len(number), np.nan),
        "ImagePositionPatient": columns["place"],
        "ImageOrientationPatient": columns["plane"],
        "PixelSpacing": columns["pixel"],
        "DiffusionGradientOrientation": columns["direction"],
        "SliceThickness": columns["SliceThickness"],
        "EchoTime": columns["EchoTime"],
        "ConvolutionKernel": Texts(columns["ConvolutionKernel"], words),
        "ContrastBolusAgent": Texts(columns["ContrastBolusAgent"], words),
    }
    return FrameIndex(dataclasses.replace(generation, frames=frames))


def assert_same(one: StackList, other: StackList) -> None:
    """To the last bit."""
    assert len(one) == len(other)
    assert one.problems == other.problems
    assert [(part.positions.tolist(), part.reason) for part in one.left_out] == [
        (part.positions.tolist(), part.reason) for part in other.left_out
    ]
    for first, second in zip(one, other, strict=True):
        for field in dataclasses.fields(Stack):
            a, b = getattr(first, field.name), getattr(second, field.name)
            assert type(a) is type(b), field.name
            if isinstance(a, np.ndarray):
                np.testing.assert_array_equal(a, b, err_msg=field.name)
                assert a.dtype == b.dtype
            else:
                assert a == b, field.name


def alone(monkeypatch: pytest.MonkeyPatch, index: FrameIndex, **options: Any) -> StackList:
    """Every stack by the rules, one by one."""
    with monkeypatch.context() as patch:
        patch.setattr(search, "build_regular", lambda slices, sets, *_: [None] * len(sets))
        return stacks(index, on_gap="keep", **options)


def together(
    monkeypatch: pytest.MonkeyPatch, index: FrameIndex, **options: Any
) -> tuple[StackList, int]:
    """(what there is now, how many of the stacks were made together)."""
    count = 0

    def counted(*args: Any) -> list[Stack | None]:
        nonlocal count
        found = regular.build_regular(*args)
        count += sum(stack is not None for stack in found)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(search, "build_regular", counted)
        return stacks(index, on_gap="keep", **options), count


@pytest.mark.parametrize("name", REGULAR)
def test_a_regular_volume_is_what_it_is_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = [2, 3, 4, 9, 9, 9, 30, 111]
    index = index_of(lengths, [REGULAR[name]] * len(lengths), seed=1)
    found, count = together(monkeypatch, index)
    assert count == len(found) == len(lengths)
    assert_same(found, alone(monkeypatch, index))


@pytest.mark.parametrize("name", OTHER)
def test_what_may_be_something_else_is_left_to_the_rules(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = [8, 8, 16, 40]
    index = index_of(lengths, [OTHER[name]] * len(lengths), seed=2)
    found, count = together(monkeypatch, index)
    assert count == 0
    assert_same(found, alone(monkeypatch, index))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("at_once", [1 << 15, 50])
def test_a_mixture(at_once: int, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regular, "_AT_ONCE", at_once)
    rng = np.random.default_rng(seed)
    known = [*REGULAR.values(), *OTHER.values(), LOST]
    changes = [known[k] for k in rng.integers(0, len(known), 60)]
    index = index_of(rng.integers(1, 24, 60).tolist(), changes, seed=seed)
    found, count = together(monkeypatch, index)
    assert 0 < count < len(found)
    assert_same(found, alone(monkeypatch, index))
    for options in ({"single_slices": True}, {"split_by": "SliceThickness"}):
        made_together, _ = together(monkeypatch, index, **options)
        assert_same(made_together, alone(monkeypatch, index, **options))


def test_localizers_of_a_series_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    index = index_of([9, 9, 12], [plain, tilted, plain], seed=4)
    kinds = np.zeros(len(index), np.int32)
    kinds[np.asarray(index.column("ImagePositionPatient"))[:, 2].argmax()] = 1  # of the longest
    index._generation.frames["ImageType"] = Texts(
        kinds, Packed.of([b"ORIGINAL\\PRIMARY", b"ORIGINAL\\PRIMARY\\LOCALIZER"])
    )
    found, count = together(monkeypatch, index)
    assert count == len(found) == 3
    assert [len(stack.report.localizers) for stack in found if len(stack) == 11] == [1]
    assert_same(found, alone(monkeypatch, index))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("EchoTime", [1.0, 1.0, np.nan, np.nan, np.nan, 2.0]),
        ("KVP", [0.0, -0.0, 80.0, 80.0, 80.0, np.nan]),
        ("AcquisitionNumber", [3, 3, 3, 4, -1, -1]),
        ("ConvolutionKernel", [0, 0, 1, 1, 0, 1]),
        ("DiffusionGradientOrientation", [0.1, 0.1 + 1e-12, 0.1, 0.2, np.nan, np.nan]),
    ],
)
def test_what_varies_is_what_has_several_codes(name: str, values: list[float]):
    generation = synthetic(len(values))
    column: Any = np.array(values)
    if name == "ConvolutionKernel":
        column = Texts(column.astype(np.int32), Packed.of([b"A", b"B"]))
    elif name == "DiffusionGradientOrientation":
        column = np.stack([column, np.zeros(6), np.zeros(6)], axis=1)
    frames = generation.frames | {name: column}
    slices = Slices(FrameIndex(dataclasses.replace(generation, frames=frames)))
    sets = np.array([[a, b] for a in range(6) for b in range(6)])
    codes = slices.codes(name)
    assert codes is not None
    assert slices.vary(name, sets).tolist() == (codes[sets[:, 0]] != codes[sets[:, 1]]).tolist()
