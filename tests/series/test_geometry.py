"""Slices in space, against the formulas of PS3.3 C.7.6.2.1.1."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dicomtorch.errors import GeometryError
from dicomtorch.series.geometry import (
    affine_lps,
    arrange,
    patient_to_voxel,
    projections,
    scaled,
    shifted,
    slice_normal,
    to_ras,
    voxel_to_patient,
)

AXIAL = (1, 0, 0, 0, 1, 0)
SAGITTAL = (0, 1, 0, 0, 0, -1)
OBLIQUE = (0.8, 0.6, 0, -0.36, 0.48, 0.8)


@pytest.mark.parametrize(
    ("orientation", "normal"),
    [(AXIAL, (0, 0, 1)), (SAGITTAL, (-1, 0, 0)), (OBLIQUE, (0.48, -0.64, 0.6))],
)
def test_normal_is_row_cross_column(orientation: Any, normal: Any) -> None:
    np.testing.assert_allclose(slice_normal(orientation), normal, atol=1e-12)
    np.testing.assert_allclose(projections([np.array(normal) * 7.5], orientation), [7.5])


@pytest.mark.parametrize(
    "orientation", [(1, 0, 0, 1, 0, 0), (2, 0, 0, 0, 1, 0), (math.nan,) * 6, (1, 0, 0, 0.1, 1, 0)]
)
def test_what_is_no_orientation(orientation: Any) -> None:
    with pytest.raises(GeometryError, match=r"\(0020,0037\)"):
        slice_normal(orientation)


def test_affine_is_the_formula_of_the_standard() -> None:
    """C.7.6.2.1.1: P = S + X * di * column index + Y * dj * row index."""
    affine = affine_lps((10, 20, 30), OBLIQUE, (0.5, 0.7), (0.96, -1.28, 1.2))
    d, h, w = 4, 3, 5
    row, column = np.array(OBLIQUE).reshape(2, 3)
    expected = np.array((10, 20, 30)) + row * 0.7 * w + column * 0.5 * h
    expected = expected + d * 2 * np.array((0.48, -0.64, 0.6))
    np.testing.assert_allclose(voxel_to_patient((d, h, w), affine), expected)
    np.testing.assert_allclose(to_ras(affine)[:3, 3], (-10, -20, 30))
    np.testing.assert_allclose(to_ras(to_ras(affine)), affine)
    np.testing.assert_allclose(voxel_to_patient((0, 0, 0), shifted(affine, (d, h, w))), expected)


def test_rounded_directions_are_unit_vectors() -> None:
    """0.71 for the square root of 1/2 would make pixels larger than Pixel Spacing says."""
    affine = affine_lps((0, 0, 0), (0.71, 0.71, 0, -0.71, 0.71, 0), (0.5, 0.7), (0, 0, 2))
    np.testing.assert_allclose(np.linalg.norm(affine[:3, 1:3], axis=0), (0.5, 0.7))
    np.testing.assert_allclose(affine[:3, 2], 0.7 * np.sqrt([0.5, 0.5, 0]))


def test_scaled_moves_the_centre_of_the_first_voxel() -> None:
    affine = affine_lps((0, 0, 0), AXIAL, (1, 1), (0, 0, 1))
    half = scaled(affine, (1, 2, 2), (0, 0.5, 0.5))
    np.testing.assert_allclose(voxel_to_patient((0, 0, 0), half), (0.5, 0.5, 0))
    np.testing.assert_allclose(voxel_to_patient((0, 1, 0), half), (0.5, 2.5, 0))


finite = st.floats(-500, 500)


@given(st.lists(st.tuples(finite, finite, finite), min_size=1, max_size=8), st.integers(0, 2))
def test_there_and_back(points: list[tuple[float, float, float]], extra: int) -> None:
    affine = affine_lps((-120, 80, 5), OBLIQUE, (0.7, 0.8), (0.5, -0.2, 2.5))
    array = np.array(points).reshape(len(points), *(1,) * extra, 3)
    back = voxel_to_patient(patient_to_voxel(array, affine), affine)
    assert back.shape == array.shape
    np.testing.assert_allclose(back, array, atol=1e-9)
    # One affine for each.
    several = np.stack([shifted(affine, (k, 0, 0)) for k in range(len(points))])
    voxels = patient_to_voxel(array, torch.from_numpy(several))
    np.testing.assert_allclose(voxel_to_patient(voxels, several), array, atol=1e-9)
    each = [patient_to_voxel(one, of) for one, of in zip(array, several, strict=True)]
    np.testing.assert_allclose(voxels, each, atol=1e-9)


def test_an_affine_without_inverse() -> None:
    with pytest.raises(GeometryError, match="no inverse"):
        patient_to_voxel((0, 0, 0), np.zeros((4, 4)))


def along(normal: Any, distances: Any) -> np.ndarray[Any, Any]:
    return np.asarray((-50.0, 20, 300) + np.array(distances)[:, None] * np.array(normal))


def arranged(distances: Any, orientation: Any = OBLIQUE) -> Any:
    return arrange(along(slice_normal(orientation), distances), orientation, (0.7, 0.7))


@given(st.permutations(range(9)))
def test_any_order_is_put_right(order: list[int]) -> None:
    found = arranged([2.5 * k for k in order])
    assert [order[i] for i in found.order] == list(range(9))
    assert found.is_regular
    assert found.spacing == pytest.approx(2.5)
    assert found.error == pytest.approx(0, abs=1e-9)
    assert found.tilt == 0


def test_gaps() -> None:
    found = arranged([0, 1.25, 2.5, 6.25, 7.5, 10])
    assert [(gap.after, gap.missing) for gap in found.gaps] == [(2, 2), (4, 1)]
    assert found.gaps[0].millimetres == pytest.approx(3.75)
    assert (found.repeated, found.unequal) == ((), ())
    assert not found.is_regular
    # Equal spacing would be 2 mm: the fourth slice would be at 6, the third at 4.
    assert found.error == pytest.approx(1.5)


def test_repeats_are_no_gaps() -> None:
    found = arranged([0, 1, 1.0000001, 2, 3])
    assert found.repeated == (2,)
    assert found.gaps == ()
    assert not found.is_regular


def test_unequal_spacing() -> None:
    found = arranged([0, 1, 2.2, 3, 4])
    assert (found.gaps, found.unequal) == ((), (2,))
    assert found.error == pytest.approx(0.2)


@pytest.mark.parametrize("spacing", [0.625, 1.25, 3.27, 5.0])
def test_positions_with_one_decimal_are_regular(spacing: float) -> None:
    places = np.round(-300 + spacing * np.arange(200), 1)
    found = arrange([(0, 0, z) for z in places], AXIAL, (0.7, 0.7))
    assert found.is_regular
    assert found.spacing == pytest.approx(spacing, abs=1e-3)


def test_a_tilted_gantry_is_a_shear() -> None:
    """Slices upright, the table moves along z: 15 degrees between way and normal."""
    tilt = math.radians(15)
    orientation = (1, 0, 0, 0, math.cos(tilt), math.sin(tilt))
    places = [(-100, -100, 5 * k / math.cos(tilt)) for k in range(20)]
    found = arrange(places, orientation, (0.5, 0.5))
    assert found.is_regular
    assert found.tilt == pytest.approx(15)
    assert found.spacing == pytest.approx(5)  # between planes
    affine = affine_lps(places[0], orientation, (0.5, 0.5), found.step)
    np.testing.assert_allclose(voxel_to_patient((19, 0, 0), affine), places[19])


def test_rounded_positions_are_no_tilt() -> None:
    normal = slice_normal(OBLIQUE)
    places = np.round(along(normal, 3.0 * np.arange(30)), 1)
    assert arrange(places, OBLIQUE, (0.9, 0.9)).tilt == 0


def test_a_single_slice_has_no_spacing() -> None:
    found = arranged([3])
    assert math.isnan(found.spacing)
    assert found.is_regular
