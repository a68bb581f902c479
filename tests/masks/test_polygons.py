"""Filled contours against the numbers of the standard's rule, exact rational arithmetic and shapely."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomtorch.errors import GeometryError
from dicomtorch.masks.polygons import NO_RUNS, fill
from tests.support.requirements import require


def square(low, high):
    return [(low, low), (high, low), (high, high), (low, high)]


def filled(contours, shape, path="in", spacing=(1.0, 1.0)):
    points = np.array([p for c in contours for p in c], np.float64).reshape(-1, 2)
    counts = np.array([len(c) for c in contours], np.int64)
    runs = fill(points, counts, np.zeros(len(counts), np.int64), shape, path=path, spacing=spacing)
    image = np.zeros(shape, np.uint8)
    runs.paint(image)
    assert runs.area == image.sum()
    return image


def keyhole(outer, inner, column):
    """A ring as one contour: down a channel of no width to the hole, around it, and back."""
    (a, b), (c, d) = outer, inner
    around = [(column, a), (b, a), (b, b), (a, b), (a, a), (column, a)]
    return [*around, (column, c), (c, c), (c, d), (d, d), (d, c), (column, c)]


circle = [
    (16 + 10.25 * np.cos(k * np.pi / 180), 16 + 10.25 * np.sin(k * np.pi / 180)) for k in range(360)
]


@pytest.mark.parametrize(
    ("contours", "shape", "inside", "half_open"),
    [
        ([square(2, 5)], (8, 8), 16, 9),
        ([square(1.5, 5.5)], (8, 8), 16, 16),
        ([square(0.5, 8.5), square(2.5, 6.5)], (10, 10), 48, 48),
        ([square(1, 8), square(3, 6)], (10, 10), 60, 40),
        ([square(0.5, 10.5), square(2.5, 8.5), square(4.5, 6.5)], (12, 12), 68, 68),
        ([keyhole((0.5, 8.5), (2.5, 6.5), 4.5)], (10, 10), 48, 48),
        ([keyhole((0.5, 8.5), (2.5, 6.5), 4)], (10, 10), 48, 48),
        ([square(1.5, 4.5), square(3, 6)], (8, 8), 20, 10),
        ([[(1, 1), (6, 6), (6, 1), (1, 6)]], (8, 8), 24, 12),
        ([square(-3, 3)], (8, 8), 16, 9),
        ([square(2.1, 2.4)], (8, 8), 0, 0),
        ([circle], (33, 33), 333, 333),
        ([[(2, 2), (5, 2)], [(1, 1)]], (8, 8), 0, 0),
        ([square(1.5, 5.5), square(1.5, 5.5)], (8, 8), 0, 0),
    ],
)
def test_pixels_of_contours(contours, shape, inside, half_open):
    assert filled(contours, shape).sum() == inside
    assert filled(contours, shape, "half-open").sum() == half_open


def test_a_hole_keeps_its_pixels_where_a_channel_meets_them():
    ring = filled([square(0.5, 8.5), square(2.5, 6.5)], (10, 10))
    np.testing.assert_array_equal(filled([keyhole((0.5, 8.5), (2.5, 6.5), 4.5)], (10, 10)), ring)
    np.testing.assert_array_equal(filled([keyhole((0.5, 8.5), (2.5, 6.5), 4)], (10, 10)), ring)
    assert ring[3:7, 3:7].sum() == 0


def exact(contours, shape, *, on_path):
    """Even-odd and the path in rational arithmetic, pixel by pixel."""
    image = np.zeros(shape, np.uint8)
    polygons = [[(Fraction(x), Fraction(y)) for x, y in c] for c in contours if len(c) >= 3]
    edges = [(p, q) for c in polygons for p, q in zip(c, c[1:] + c[:1], strict=True)]
    for row in range(shape[0]):
        for column in range(shape[1]):
            odd = on = False
            for (x0, y0), (x1, y1) in edges:
                if min(y0, y1) <= row < max(y0, y1):
                    odd ^= x0 + (row - y0) * (x1 - x0) / (y1 - y0) <= column
                cross = (x1 - x0) * (row - y0) - (y1 - y0) * (column - x0)
                between = min(x0, x1) <= column <= max(x0, x1) and min(y0, y1) <= row <= max(y0, y1)
                on |= cross == 0 and between
            image[row, column] = odd or (on_path and on)
    return image


@st.composite
def polygon_sets(draw):
    step = draw(st.sampled_from([1, 2, 4, 8]))
    # Beyond the image on each side: vertices outside count.
    number = st.integers(-2 * step, 15 * step).map(lambda n: n / step)
    contours = draw(
        st.lists(
            st.lists(st.tuples(number, number), min_size=1, max_size=9), min_size=1, max_size=4
        )
    )
    shape = draw(st.tuples(st.integers(1, 14), st.integers(1, 14)))
    return contours, shape


@settings(max_examples=120, deadline=None)
@given(polygon_sets())
def test_equal_to_rational_arithmetic(case):
    contours, shape = case
    spacing = EXACT
    np.testing.assert_array_equal(
        filled(contours, shape, "half-open", spacing), exact(contours, shape, on_path=False)
    )
    np.testing.assert_array_equal(
        filled(contours, shape, "in", spacing), exact(contours, shape, on_path=True)
    )


# The nearest a centre can be to an edge of vertices on 1/8 pixel without being on it is 1 / (64 * length of the edge),
# which is at most 18 * sqrt(2) pixels: 0.0006. Pixels of 100 mm make the tolerance of 0.01 mm 0.0001 pixels.
EXACT = (100.0, 100.0)
EIGHTHS = 8  # what all vertices and centres are whole numbers of


def exact_in_eighths(contours, shape):
    """(half-open, in): the same as `exact` in whole numbers, fast enough for many sets; see the test below."""
    edges = []
    for contour in contours:
        points = [(round(x * EIGHTHS), round(y * EIGHTHS)) for x, y in contour]
        if len(points) >= 3:
            edges += [(*p, *q) for p, q in zip(points, points[1:] + points[:1], strict=True)]
    rows, columns = (EIGHTHS * axis for axis in np.mgrid[: shape[0], : shape[1]])
    odd, on = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
    for x0, y0, x1, y1 in edges:
        cross = (x1 - x0) * (rows - y0) - (y1 - y0) * (columns - x0)
        # The edge is left of the centre, or through it: divided by a height that may be negative.
        crossed = (rows >= min(y0, y1)) & (rows < max(y0, y1))
        odd ^= crossed & ((cross <= 0) if y1 > y0 else (cross >= 0))
        inside = (columns >= min(x0, x1)) & (columns <= max(x0, x1))
        inside &= (rows >= min(y0, y1)) & (rows <= max(y0, y1))
        on |= (cross == 0) & inside
    return odd, odd | on


def random_polygons(generator):
    """(contours, shape): vertices on 1, 1/2, 1/4 or 1/8 pixel, also beyond the image."""
    step = int(generator.choice([1, 2, 4, 8]))
    rows, columns = generator.integers(1, 15, 2).tolist()
    contours = [
        (generator.integers(-2 * step, 16 * step, (n, 2)) / step).tolist()
        for n in generator.integers(1, 9, generator.integers(1, 5))
    ]
    return contours, (rows, columns)


def test_ten_thousand_random_polygon_sets_equal_exact_arithmetic():
    generator = np.random.default_rng(15)
    wrong = pixels = on_path = 0
    for number in range(10_000):
        contours, shape = random_polygons(generator)
        half_open, with_path = exact_in_eighths(contours, shape)
        for path, expected in (("half-open", half_open), ("in", with_path)):
            wrong += int((filled(contours, shape, path, EXACT) != expected).sum())
        pixels += int(with_path.sum())
        on_path += int((with_path & ~half_open).sum())
        if number % 200 == 0:  # the oracle in whole numbers is the one in fractions
            np.testing.assert_array_equal(with_path, exact(contours, shape, on_path=True))
            np.testing.assert_array_equal(half_open, exact(contours, shape, on_path=False))
    assert wrong == 0
    assert pixels > 150_000
    assert on_path > 8_000


def test_equal_to_shapely_within_the_path_rule():
    require("shapely")
    import shapely

    generator = np.random.default_rng(3)
    rows, columns = np.mgrid[:24, :30]
    centres = shapely.points(columns.ravel(), rows.ravel())
    for _ in range(40):
        angle = np.sort(generator.uniform(0, 2 * np.pi, 24))
        radius = generator.uniform(3, 11, 24)
        star = np.stack([15 + radius * np.cos(angle), 12 + radius * np.sin(angle)], 1)
        polygon = shapely.Polygon(star)
        image = filled([star.tolist()], (24, 30), spacing=(0.8, 0.8))
        inside = shapely.covers(polygon, centres).reshape(24, 30)
        near = shapely.distance(polygon, centres).reshape(24, 30) <= 0.01 / 0.8
        np.testing.assert_array_equal(image.astype(bool), inside | near)


@pytest.mark.parametrize("spacing", [0.9766, 0.7422, 0.4688])
def test_a_mask_traced_through_centres_with_two_decimals_comes_back_whole(spacing):
    mask = filled(
        [[(60 + 40 * np.cos(t), 55 + 45 * np.sin(t)) for t in np.linspace(0, 6.2, 90)]], (120, 120)
    )
    contours = []
    for row in np.flatnonzero(
        mask.any(1)
    ):  # a path along the border: left side down, right side up
        columns = np.flatnonzero(mask[row])
        contours.append((columns[0], columns[-1], row))
    path = [(a, row) for a, _, row in contours] + [(b, row) for _, b, row in reversed(contours)]
    rounded = [(round(-101.37 + u * spacing, 2), round(7.91 + v * spacing, 2)) for u, v in path]
    back = [((x + 101.37) / spacing, (y - 7.91) / spacing) for x, y in rounded]
    again = filled([back], (120, 120), spacing=(spacing, spacing))
    assert not (mask & ~again.astype(bool)).any()


def test_planes_are_filled_apart_and_in_one_go():
    points = np.array(square(1.5, 4.5) + square(2.5, 5.5) + square(0.5, 6.5), np.float64)
    runs = fill(points, np.array([4, 4, 4]), np.array([2, 0, 2]), (8, 8))
    image = np.zeros((3, 8, 8), np.uint8)
    runs.paint(image, 5)
    np.testing.assert_array_equal(image[0], 5 * filled([square(2.5, 5.5)], (8, 8)))
    assert not image[1].any()
    np.testing.assert_array_equal(
        image[2], 5 * filled([square(0.5, 6.5), square(1.5, 4.5)], (8, 8))
    )


def test_boxes_come_from_runs():
    runs = fill(
        np.array([(2, 1), (6, 1), (6, 3), (2, 3)], np.float64), np.array([4]), np.array([0]), (8, 8)
    )
    assert runs.box(8) == (2, 1, 7, 4)
    assert NO_RUNS.box(8) is None


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e308])
def test_coordinates_that_no_image_has_are_refused(bad):
    with pytest.raises(GeometryError, match="no coordinates"):
        filled([[(1, 1), (bad, 2), (3, 3)]], (8, 8))


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf, 1e9])
@pytest.mark.parametrize("path", ["in", "half-open"])
def test_pixels_that_are_not_apart_are_refused(bad, path):
    for spacing in ((bad, 1.0), (1.0, bad)):
        with pytest.raises(GeometryError, match="PixelSpacing"):
            filled([square(1, 4)], (8, 8), path, spacing)


@pytest.mark.parametrize("shape", [(1 << 18, 1), (1 + (1 << 18), 1), (1, 1 + (1 << 18))])
def test_images_of_every_size_are_filled(shape):
    end = max(shape) - 1
    far = [(0, 0), (0, end), (0, end - 9)] if shape[1] == 1 else [(0, 0), (end, 0), (end - 9, 0)]
    assert filled([far], shape).sum() == end + 1


def test_contours_that_cross_more_lines_than_memory_is_for_are_refused():
    zigzag = np.zeros((70_000, 2))
    zigzag[1::2, 1] = 1000
    with pytest.raises(GeometryError, match="lines of pixels"):
        fill(zigzag, np.array([len(zigzag)]), np.array([0]), (1000, 8))
