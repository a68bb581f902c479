"""Samples of several frames: one mapping for all."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from dicomtorch.errors import PixelValueError
from dicomtorch.model.frame import FrameValues, LookupTable
from dicomtorch.model.image import ImagePixel
from dicomtorch.pixels.voi import common_window

PIXEL = ImagePixel("1.2.840.10008.1.2.1", 2, 2)


def frames(*attributes: dict[str, Any]) -> list[FrameValues]:
    return [FrameValues(PIXEL, **one) for one in attributes]


def window(center: float, width: float, function: str = "") -> dict[str, Any]:
    return {"windows": ((center, width),), "voi_lut_function": function}


def table(*entries: int) -> LookupTable:
    return LookupTable(100, 8, np.array(entries, np.uint16))


@pytest.mark.parametrize(
    "alike",
    [
        [window(40, 400)] * 3,
        [window(40, 400), window(40, 400, "LINEAR")],
        [{**window(40, 400), "rescale_slope": 2.0}, window(40, 400)],
        [window(40, 400, "SIGMOID")] * 2,
        [{"voi_luts": (table(1, 2),)}, {"voi_luts": (table(1, 2),)}],
        [{"segmentation_type": "LABELMAP"}] * 2,
    ],
)
def test_frames_that_agree_keep_their_own(alike: list[dict[str, Any]]) -> None:
    shared = common_window(frames(*alike))
    assert shared is not None
    assert math.isnan(shared.low)
    assert math.isnan(shared.high)
    assert shared.voi == "series"


@pytest.mark.parametrize(
    ("different", "low", "high"),
    [
        # LINEAR: c - 0.5 -+ (w - 1) / 2.
        ([window(40, 401), window(140, 201)], -160.5, 239.5),
        ([window(0.5, 101), window(1000.5, 101)], -50, 1050),
        # LINEAR_EXACT and SIGMOID: c -+ w / 2.
        ([window(40, 400, "LINEAR_EXACT"), window(50, 400, "SIGMOID")], -160, 250),
        ([window(0.5, 101), {"voi_luts": (table(0, 5, 9),)}], -50, 102),
        ([window(10, 1), window(20, 1)], 9.5, 19.5),
    ],
)
def test_frames_that_differ_are_covered(different: Any, low: float, high: float) -> None:
    shared = common_window(frames(*different), voi="sample")
    assert shared is not None
    assert shared.low == pytest.approx(low)
    assert shared.high == pytest.approx(high)
    assert shared.voi == "sample"


def test_one_frame_without_a_voi_makes_all_be_measured() -> None:
    assert common_window(frames(window(40, 400), {})) is None
    assert common_window(frames(window(40, 400), {"windows": ((40.0, 0.0),)})) is None
    assert common_window(frames({"modality": "RTDOSE", "dose_grid_scaling": 1.0})) is None


def test_the_kth_window() -> None:
    one = {"windows": ((40.0, 400.0), (0.5, 11.0))}
    other = {"windows": ((50.0, 400.0), (10.5, 11.0))}
    shared = common_window(frames(one, other), 1)
    assert shared is not None
    assert shared.low == pytest.approx(-5)
    assert shared.high == pytest.approx(15)
    with pytest.raises(PixelValueError, match=r"\(0028,1050\)"):
        common_window(frames(one, window(40, 400)), 1)


def test_colour_has_no_window() -> None:
    color = FrameValues(ImagePixel("1", 2, 2, 3, "RGB", 8, 8, 7), windows=((1.0, 2.0),))
    shared = common_window([color])
    assert shared is not None
    assert math.isnan(shared.low)
