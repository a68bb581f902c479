"""Levels of slides: where tiles are, and pixels in millimetres and back."""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomtorch import GeometryError, scan
from dicomtorch.series.levels import SlideLevel
from dicomtorch.series.pyramids import pyramids
from tests.support.phantoms import group, write
from tests.support.slide_phantoms import level, tissue

ORIENTATIONS = (
    [0, -1, 0, -1, 0, 0],
    [-1, 0, 0, 0, -1, 0],
    [1, 0, 0, 0, 1, 0],
    [math.cos(0.3), math.sin(0.3), 0, -math.sin(0.3), math.cos(0.3), 0],
)


def made(folder: Path, **attributes: Any) -> SlideLevel:
    pixels = tissue(*attributes.pop("shape", (50, 70)))
    write(level(pixels, **attributes), folder / "level.dcm")
    index, _ = scan(folder)
    (slide,) = pyramids(index)
    return slide.levels[0]


def test_full_tiles_make_a_grid(tmp_path: Path) -> None:
    found = made(tmp_path)
    assert (found.rows, found.columns, found.tile) == (50, 70, (16, 16))
    assert (found.tile_rows, found.tile_columns) == (4, 5)
    assert found.is_aligned
    assert found.grid.tolist() == np.arange(20).reshape(4, 5).tolist()
    assert found.mpp == pytest.approx(0.5)
    assert "50 x 70 pixels of 0.5 micrometres, 20 of 20 tiles of 16 x 16" in repr(found)


def test_absent_tiles_are_minus_one(tmp_path: Path) -> None:
    found = made(tmp_path, places=[(16, 32), (0, 0), (48, 64)])
    expected = np.full((4, 5), -1)
    expected[1, 2], expected[0, 0], expected[3, 4] = 0, 1, 2
    assert found.grid.tolist() == expected.tolist()


def test_unaligned_tiles_have_no_grid(tmp_path: Path) -> None:
    found = made(tmp_path, places=[(0, 0), (5, 20), (30, 3)])
    assert not found.is_aligned
    with pytest.raises(GeometryError, match="do not lie on a grid of 16 x 16"):
        found.grid  # noqa: B018
    assert found.touching(0, 0, 50, 70).tolist() == [0, 1, 2]
    assert found.touching(15, 15, 6, 6).tolist() == [0, 1]
    assert found.touching(16, 36, 4, 4).tolist() == []
    assert found.touching(45, 18, 1, 1).tolist() == [2]


@given(
    st.lists(
        st.tuples(st.integers(0, 49), st.integers(0, 69)), min_size=1, max_size=8, unique=True
    ),
    st.tuples(st.integers(0, 49), st.integers(0, 69), st.integers(1, 40), st.integers(1, 40)),
)
def test_touching_finds_what_shares_a_pixel(
    places: list[tuple[int, int]], part: tuple[int, int, int, int]
) -> None:
    found = SlideLevel(
        0, 50, 70, (16, 16), (1.0, 1.0), (0.0, 0.0), (), np.arange(len(places)), None  # type: ignore[arg-type]
    )  # fmt: skip
    found.__dict__["corners"] = np.array(places)
    row, column, rows, columns = part
    expected = [
        k
        for k, (r, c) in enumerate(places)
        if r < row + rows and row < r + 16 and c < column + columns and column < c + 16
    ]
    assert found.touching(*part).tolist() == expected


def test_two_tiles_at_one_place_name_both_files(tmp_path: Path) -> None:
    found = made(tmp_path, places=[(0, 0), (16, 16), (16, 16)])
    with pytest.raises(
        GeometryError, match=r"level\.dcm, frame 1, and a frame of .* tile row 1, tile column 1"
    ):
        found.grid  # noqa: B018


def test_a_tile_outside_of_the_matrix_is_named(tmp_path: Path) -> None:
    found = made(tmp_path, places=[(0, 0), (64, 16)])
    with pytest.raises(
        GeometryError, match="frame 1, is at row 65, column 17 of a total pixel matrix of 50 x 70"
    ):
        found.corners  # noqa: B018


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_millimetres_are_those_of_highdicom(tmp_path: Path, orientation: list[float]) -> None:
    found = made(tmp_path, ImageOrientationSlide=orientation)
    to_slide = highdicom.spatial.PixelToReferenceTransformer(
        [21.5, 40.25, 0.0], orientation, [0.0005, 0.0005]
    )
    rows, columns = np.array([0, 3, 49, 1000]), np.array([0, 69, 7, 2000])
    x, y = found.to_slide(rows, columns)
    expected = to_slide(np.stack([columns, rows], 1))
    assert np.abs(np.stack([x, y], 1) - expected[:, :2]).max() < 1e-6
    again = found.to_pixels(x, y)
    assert np.abs(np.stack(again) - [rows, columns]).max() < 1e-6
    assert np.ndim(found.to_slide(1, 2)[0]) == 0
    assert found.to_pixels(*found.to_slide(1.25, 2.5)) == pytest.approx((1.25, 2.5), abs=1e-6)


def test_unequal_spacing_goes_with_its_direction(tmp_path: Path) -> None:
    from dataclasses import replace

    found = replace(made(tmp_path), spacing=(0.001, 0.002))
    to_slide = highdicom.spatial.PixelToReferenceTransformer(
        [21.5, 40.25, 0.0], ORIENTATIONS[0], [0.001, 0.002]
    )
    assert found.to_slide(5, 7) == pytest.approx(to_slide(np.array([[7, 5]]))[0, :2], abs=1e-9)


@pytest.mark.parametrize(
    ("absent", "said"),
    [
        ("ImageOrientationSlide", "ImageOrientationSlide is absent"),
        ("TotalPixelMatrixOriginSequence", "TotalPixelMatrixOriginSequence is absent"),
        ("SharedFunctionalGroupsSequence", "PixelSpacing is absent"),
    ],
)
def test_levels_without_a_place_say_what_is_absent(tmp_path: Path, absent: str, said: str) -> None:
    dataset = level(tissue(50, 70))
    delattr(dataset, absent)
    write(dataset, tmp_path / "level.dcm")
    found = pyramids(scan(tmp_path)[0])[0].levels[0]
    with pytest.raises(GeometryError, match=f"level.dcm: .*{said}"):
        found.to_slide(0, 0)
    with pytest.raises(GeometryError, match=said):
        found.to_pixels(0, 0)


def test_an_orientation_that_is_none_has_no_way_back(tmp_path: Path) -> None:
    found = made(tmp_path, ImageOrientationSlide=[0, 0, 1, 0, 1, 0])
    with pytest.raises(GeometryError, match="do not lie in the plane of the slide"):
        found.to_pixels(0, 0)


def test_travels_to_workers_without_what_it_computed(tmp_path: Path) -> None:
    found = made(tmp_path, TotalPixelMatrixOriginSequence=[group(
        XOffsetInSlideCoordinateSystem=1, YOffsetInSlideCoordinateSystem=2)])  # fmt: skip
    assert found.grid.shape == (4, 5)
    other = pickle.loads(pickle.dumps(found))
    assert "grid" not in other.__dict__
    assert np.array_equal(other.grid, found.grid)
    assert other.to_slide(0, 0) == pytest.approx((1, 2))
