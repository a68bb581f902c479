"""No tensor holds NaN or infinity that the pixels did not hold, whatever finite numbers the header has."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomtorch.errors import PixelValueError
from dicomtorch.model.frame import FrameValues, LookupTable, RealWorldValueMap
from dicomtorch.model.image import ImagePixel, PixelDataVR
from dicomtorch.model.options import PixelOptions
from dicomtorch.pixels import frame as pixels
from dicomtorch.pixels.batch import Conversion, convert_together
from dicomtorch.pixels.plan import make_plan

TS = "1.2.840.10008.1.2.1"
STORED = np.array([[0, 1, 2], [100, 4000, 65_535]], np.uint16)
SIGNED = np.array([[0, 1, -2], [100, -4000, 32_767]], np.int16)
FLOATS = np.array([[0, 1e-40, -2], [100, 3e38, -3e38]], np.float32)
EXTREME = (0.0, 5e-324, 1e-320, 1e-310, 1e-45, 1e-38, 1e-20, 1.0, 1e20, 1e38, 1e39, 1e300, 1.7e308)
WAYS: list[dict[str, Any]] = [
    {"values": "modality"},
    {"values": "modality", "dtype": "float64"},
    {"values": "modality", "normalize": "zscore"},
    {"values": "modality", "normalize": "minmax"},
    {"values": "modality", "normalize": "percentile"},
    {"values": "modality", "size": (3, 3)},
    {"values": "display"},
    {"values": "display", "window": (40.0, 400.0)},
    {"values": "display", "size": (5, 4)},
]


def described(array: np.ndarray, **about: Any) -> FrameValues:
    bits = 8 * array.dtype.itemsize
    signed = int(array.dtype.kind == "i")
    kinds: dict[str, PixelDataVR] = {"f4": "OF", "f8": "OD"}
    vr = kinds.get(array.dtype.str[1:], "OW")
    rows, columns = array.shape
    pixel = ImagePixel(
        TS,
        rows,
        columns,
        bits_allocated=bits,
        bits_stored=bits,
        high_bit=bits - 1,
        pixel_representation=signed,
        pixel_data_vr=vr,
    )
    return FrameValues(pixel, **about)


def check(array: np.ndarray, about: FrameValues, **options: Any) -> str:
    """The message where the frame is refused, else "" of a tensor of finite numbers."""
    chosen = PixelOptions(**options)
    try:
        image, _ = pixels.apply(array, about, chosen)
    except PixelValueError as error:
        return str(error)
    assert torch.isfinite(image).all(), (about, options, image)
    if chosen.values == "display":
        assert image.min() >= 0
        assert image.max() <= 1
    if chosen.size is None and chosen.dtype is None and array.dtype.kind != "f":
        try:
            together, _ = convert_together(
                torch.from_numpy(array.astype(np.int32))[None, None],
                [Conversion(make_plan(about, chosen))],
            )
        except PixelValueError as error:
            return str(error)
        assert torch.isfinite(together).all(), (about, options, together)
    return ""


def signs(*numbers: float) -> list[float]:
    return [*numbers, *(-number for number in numbers)]


@pytest.mark.parametrize("options", WAYS, ids=str)
@pytest.mark.parametrize("array", [STORED, SIGNED, FLOATS], ids=["u2", "i2", "f4"])
def test_extreme_slopes_and_intercepts(array: np.ndarray, options: dict[str, Any]) -> None:
    for slope, intercept in itertools.product(signs(*EXTREME), signs(*EXTREME)):
        told = check(
            array, described(array, rescale_slope=slope, rescale_intercept=intercept), **options
        )
        if told and "beyond float" not in told:
            assert f"RescaleSlope is {slope:g}" in told or "window=" in told
            assert f"RescaleIntercept is {intercept:g}" in told or "window=" in told


@pytest.mark.parametrize("function", ["", "LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("array", [STORED, FLOATS], ids=["u2", "f4"])
@pytest.mark.parametrize("interpretation", ["MONOCHROME1", "MONOCHROME2"])
def test_extreme_windows(array: np.ndarray, function: str, interpretation: str) -> None:
    for center, width in itertools.product(signs(*EXTREME), EXTREME[1:]):
        about = described(array, windows=((center, width),), voi_lut_function=function)
        assert check(array, about, values="display") == ""
        told = check(array, about, values="display", window=(center, width))
        assert not told or told.startswith(
            f"window=({center!r}, {width!r}) gives no finite numbers"
        )
        told = check(array, about, values="display", window=0)
        assert not told or f"WindowWidth is {width:g}" in told


def test_a_window_that_cannot_be_computed_with_is_as_absent_with_a_notice() -> None:
    about = described(STORED, windows=((40.0, 1e-320), (100.0, 200.0)))
    plan = make_plan(about, PixelOptions(values="display"))
    (mapping,) = plan.channels
    assert (mapping.voi.window_center, mapping.voi.window_width) == (100.0, 200.0)
    assert any("WindowWidth 9.99989e-321" in notice for notice in plan.notices)


@pytest.mark.parametrize("scaling", EXTREME[1:])
@pytest.mark.parametrize("options", WAYS[:8], ids=str)
def test_extreme_dose(scaling: float, options: dict[str, Any]) -> None:
    about = described(STORED, modality="RTDOSE", dose_grid_scaling=scaling)
    told = check(STORED, about, **options)
    assert not told or f"DoseGridScaling is {scaling:g}" in told or "window=" in told


@pytest.mark.parametrize("dtype", [None, "float64"])
def test_extreme_real_world_values(dtype: str | None) -> None:
    for slope, intercept in itertools.product(signs(*EXTREME), signs(*EXTREME)):
        mapping = RealWorldValueMap(0, 65_535, slope, intercept)
        about = described(STORED, real_world_value_map=mapping)
        told = check(STORED, about, values="real_world", dtype=dtype)
        assert not told or f"RealWorldValueSlope is {slope:g}" in told


@pytest.mark.parametrize("entry", [np.nan, np.inf, 1e39])
def test_a_real_world_table_has_finite_entries(entry: float) -> None:
    table = np.arange(65_536, dtype=np.float64)
    table[7] = entry
    about = described(STORED, real_world_value_map=RealWorldValueMap(0, 65_535, data=table))
    told = check(STORED, about, values="real_world")
    assert "(0040,9212) RealWorldValueLUTData has 1 of 65536 entries" in told
    told = check(STORED, about, values="real_world", dtype="float64")
    assert (told == "") == (entry == 1e39)


@pytest.mark.parametrize("factor", EXTREME[1:])
def test_extreme_suv_factors(factor: float) -> None:
    about = described(STORED, modality="PT", suv_factor=factor, rescale_slope=2.0)
    told = check(STORED, about, values="suvbw")
    assert not told or "RescaleSlope is 2" in told


@pytest.mark.parametrize("padding", signs(*EXTREME))
@pytest.mark.parametrize("options", [{"padding": "fill"}, {"padding": "keep"}, {"padding": -1.0}], ids=str)  # fmt: skip
@pytest.mark.parametrize("values", ["modality", "display"])
def test_extreme_padding(padding: float, options: dict[str, Any], values: Any) -> None:
    for array in (STORED, FLOATS):
        about = described(array, padding=(padding, 0.0))
        image, _ = pixels.apply(array, about, PixelOptions(values=values, **options))
        assert torch.isfinite(image).all()


def test_floating_point_pixels_of_the_whole_range_of_float64() -> None:
    array = np.array([[-1.7e308, 0.0, 1.7e308]])
    about = described(array)
    image, _ = pixels.apply(array, about, PixelOptions(values="display"))
    np.testing.assert_allclose(image[0, 0].numpy(), [0, 0.5, 1], atol=1e-6)
    with pytest.raises(PixelValueError, match="beyond float32"):
        pixels.apply(array, about, PixelOptions(values="modality"))


def test_statistics_of_numbers_whose_squares_float32_does_not_hold() -> None:
    for unit in (1e-25, 1e-30, 1e25, 1e30):
        array = (np.array([[1, 2, 3, 4]]) * unit).astype(np.float32)
        image, _ = pixels.apply(
            array, described(array), PixelOptions(values="modality", normalize="zscore")
        )
        expected = (np.arange(1, 5) - 2.5) / np.std(np.arange(1, 5))
        np.testing.assert_allclose(image[0, 0].numpy(), expected, rtol=1e-5)


@given(
    slope=st.floats(allow_nan=False, allow_infinity=False),
    intercept=st.floats(allow_nan=False, allow_infinity=False),
    center=st.floats(allow_nan=False, allow_infinity=False),
    width=st.floats(min_value=0, exclude_min=True, allow_infinity=False),
    way=st.sampled_from(WAYS),
    inverted=st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_any_finite_header_gives_finite_values_or_a_message(
    slope: float, intercept: float, center: float, width: float, way: dict[str, Any], inverted: bool
) -> None:
    about = described(
        STORED, rescale_slope=slope, rescale_intercept=intercept, windows=((center, width),)
    )
    check(STORED, about, **way)


# --- [0, 1] is a promise --------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(7, 9), (64, 48), (300, 200), (33, 512)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_display_of_another_size_stays_within_0_and_1(size: tuple[int, int], dtype: str) -> None:
    array = np.full((257, 193), 65_535, np.uint16)
    array[::3, ::5] = 0
    array[100:200, 50:150] = 65_535
    about = described(array, windows=((32_768.0, 65_536.0),))
    image, _ = pixels.apply(array, about, PixelOptions(values="display", size=size, dtype=dtype))
    assert image.max() <= 1
    assert image.min() >= 0


def test_padding_that_the_user_gave_is_not_moved_into_0_and_1() -> None:
    array = np.full((64, 32), 65_535, np.uint16)
    about = described(array, windows=((32_768.0, 65_536.0),))
    image, _ = pixels.apply(array, about, PixelOptions(values="display", size=(64, 64), padding=-2))
    assert image[0, :, 0].tolist() == [-2] * 64
    assert image.max() == 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gray_of_white_is_1(dtype: str) -> None:
    array = np.full((8, 8, 3), 255, np.uint8)
    pixel = ImagePixel(TS, 8, 8, 3, "RGB", bits_allocated=8, bits_stored=8, high_bit=7)
    options = PixelOptions(values="display", color="gray", dtype=dtype)
    image, _ = pixels.apply(array, FrameValues(pixel), options)
    assert image.max() <= 1
    assert image.min() > 1 - 1e-6


def test_a_lookup_table_has_finite_entries_for_every_number() -> None:
    table = LookupTable(-32_768, 16, np.arange(65_536, dtype=np.uint16))
    for slope in (1e-38, 1e30):
        about = described(SIGNED, rescale_slope=slope, voi_luts=(table,))
        assert check(SIGNED, about, values="display") == ""
