"""Pixels as words of bits: the same as positions and runs, whatever the shape."""

from __future__ import annotations

import numpy as np
import pytest

from dicomtorch.masks.bits import bits_of, planes_of
from dicomtorch.masks.polygons import fill

SHAPES = [(8, 8), (4, 16), (16, 100), (64, 64), (2, 160)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
def test_bits_of_packed_pixels(shape, share):
    pixels = np.random.default_rng(1).random(shape) < share
    packed = np.packbits(pixels.reshape(-1), bitorder="little")
    words = packed.view(np.uint64)
    empty, bits, last = bits_of(np.stack([0 * words, words, 0 * words]))
    for none in (empty, last):
        assert (none.area, len(none.flat())) == (0, 0)
    assert bits.area == pixels.sum()
    np.testing.assert_array_equal(bits.flat(), np.flatnonzero(pixels))
    for dtype, value in ((np.uint8, 7), (np.uint8, 255), (np.int32, 700), (np.float32, 1)):
        for before in (0, 3):
            channel = np.full(shape, before, dtype)
            bits.write(channel, value)
            np.testing.assert_array_equal(channel, np.where(pixels, value, before))


@pytest.mark.parametrize("shape", SHAPES)
def test_bits_of_runs(shape):
    generator = np.random.default_rng(2)
    planes = 5
    contours = [generator.uniform(-3, max(shape) + 3, (6, 2)) for _ in range(planes)]
    contours[3] = np.full((3, 2), -50.0)  # a plane without pixels
    contours[4] = np.array([(-9, -9), (999, -9), (999, 999), (-9, 999)], np.float64)
    runs = fill(
        np.concatenate(contours), np.array([len(c) for c in contours]), np.arange(planes), shape
    )
    expected = np.zeros((planes, *shape), np.uint8)
    runs.paint(expected)
    found = planes_of(runs, planes, shape)
    for plane, bits in zip(expected, found, strict=True):
        assert bits.area == plane.sum()
        np.testing.assert_array_equal(bits.flat(), np.flatnonzero(plane))
        channel = np.full(shape, 9, np.uint8)
        bits.write(channel, 4)
        np.testing.assert_array_equal(channel, np.where(plane, 4, 9))


def test_no_runs_are_no_bits():
    runs = fill(np.empty((0, 2)), np.empty(0, np.int64), np.empty(0, np.int64), (8, 8))
    assert [bits.area for bits in planes_of(runs, 2, (8, 8))] == [0, 0]
