"""Which channels are drawn, and how."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dicomtorch.errors import OptionError
from dicomtorch.pictures.channels import drawable


def image(channels: int) -> Any:
    """Channel k is all k."""
    return np.broadcast_to(np.arange(channels)[:, None, None], (channels, 2, 3)).copy()


@pytest.mark.parametrize(
    ("channels", "frames", "windows", "seen", "words"),
    [
        (1, 1, (), [0], ""),
        (2, 1, (), [0, 1], "2 channels side by side"),
        (2, 1, ("a", "b"), [0, 1], "windows a | b"),
        (3, 1, ("a", "b", "c"), [0, 1, 2], "windows a | b | c"),
        (3, 3, (), [1], "the middle one of 3 frames in 3 channels"),
        (5, 5, (), [2], "the middle one of 5 frames in 5 channels"),
        (6, 3, ("a", "b"), [2, 3], "the middle one of 3 frames in 6 channels, windows a | b"),
        (4, 3, (), [0, 1, 2, 3], "4 channels side by side"),
    ],
)
def test_gray(channels: int, frames: int, windows: Any, seen: list[int], words: str) -> None:
    picture, said = drawable(image(channels), frames, windows)
    np.testing.assert_array_equal(picture, np.concatenate(image(channels)[seen], axis=1))
    assert said == words


def test_colour() -> None:
    picture, said = drawable(image(3))
    np.testing.assert_array_equal(picture, np.moveaxis(image(3), 0, -1))
    assert said == ""
    picture, said = drawable(image(9), 3)
    np.testing.assert_array_equal(picture, np.moveaxis(image(9)[3:6], 0, -1))
    assert "middle one of 3" in said


@pytest.mark.parametrize("shape", [(), (3,), (3, 4), (1, 2, 3, 4), (0, 2, 2), (1, 0, 2)])
def test_what_is_no_image(shape: tuple[int, ...]) -> None:
    with pytest.raises(OptionError, match=r"\(C, H, W\)"):
        drawable(np.zeros(shape))
