"""The pixel functions beyond the worked numbers: types, shapes, padding, sizes, statistics, and that all ways agree."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_rescale, apply_windowing

from dicomtorch.errors import OptionError, PixelValueError
from dicomtorch.model.frame import AppliedVOI, FrameValues, LookupTable
from dicomtorch.model.image import ImagePixel
from dicomtorch.model.options import PixelOptions
from dicomtorch.pixels import dtypes, resize, statistics
from dicomtorch.pixels import frame as pixels
from dicomtorch.pixels.formulas import evaluate
from dicomtorch.pixels.plan import make_plan, num_channels, output_shape
from dicomtorch.pixels.voi import SharedRange

TS = "1.2.840.10008.1.2.1"
INTEGERS = ("u1", "i1", "u2", "i2", "u4", "i4", "i8")


def image_pixel(array: np.ndarray, **about: Any) -> ImagePixel:
    bits = 8 * array.dtype.itemsize
    defaults: dict[str, Any] = {
        "rows": array.shape[0],
        "columns": array.shape[1],
        "bits_allocated": bits,
        "bits_stored": bits,
        "pixel_representation": int(array.dtype.kind == "i"),
    }
    if array.dtype.kind == "f":
        defaults["pixel_data_vr"] = "OF" if bits == 32 else "OD"
    if array.ndim == 3:
        defaults |= {"samples_per_pixel": array.shape[2], "photometric_interpretation": "RGB"}
    return ImagePixel(TS, **(defaults | about))


def frame(array: np.ndarray, *, pixel: dict[str, Any] | None = None, **values: Any) -> FrameValues:
    return FrameValues(image_pixel(array, **(pixel or {})), **values)


def noise(dtype: str = "i2", shape: tuple[int, ...] = (64, 48), seed: int = 0) -> np.ndarray:
    kind = np.dtype(dtype)
    random = np.random.default_rng(seed)
    if kind.kind == "f":
        return random.normal(0, 1000, shape).astype(kind)
    info = np.iinfo(kind)
    return random.integers(info.min, info.max, shape, kind, endpoint=True)


def apply(array: np.ndarray, about: FrameValues, /, **options: Any) -> Any:
    image, _ = pixels.apply(array, about, PixelOptions(**options))
    return image.numpy()


# --- Beyond float32, and between whole numbers -----------------------------------------------------------


@pytest.mark.parametrize("unit", [1e-300, 1e-42, 1.0, 1e39, 1e300])
def test_display_of_values_that_float32_does_not_hold(unit: float) -> None:
    array = np.array([[0, 0.25, 0.5, 1]]) * unit
    np.testing.assert_allclose(apply(array, frame(array))[0], array / unit, atol=1e-6)


@pytest.mark.parametrize(
    "about",
    [
        {"rescale_slope": 1e-3},
        {"modality": "RTDOSE", "dose_grid_scaling": 1e-3},
        {"rescale_slope": 1e-3, "rescale_type": "HU"},
    ],
)
def test_a_users_window_is_as_wide_as_it_says_where_values_are_no_whole_numbers(
    about: dict[str, Any],
) -> None:
    array = np.array([[1000, 1500, 2000, 3000]], np.uint16)
    result = apply(array, frame(array, **about), window=(2, 2))
    np.testing.assert_allclose(result[0, 0], [0, 0.25, 0.5, 1], atol=1e-6)
    floats = (array / 1000).astype(np.float32)
    result = apply(floats, frame(floats), window=(2, 2))
    np.testing.assert_allclose(result[0, 0], [0, 0.25, 0.5, 1], atol=1e-6)
    # C.11.2.1.2 where they are: below c - 0.5 - (w - 1) / 2 black, above c - 0.5 + (w - 1) / 2 white.
    result = apply(array, frame(array), window=(1500.5, 1001))
    np.testing.assert_allclose(result[0, 0], [0.0, 0.5, 1, 1], atol=1e-6)


def test_a_signed_stream_in_an_unsigned_header_never_wraps() -> None:
    array = np.array([[-128, -1, 0, 127]], np.int8)
    about = frame(array, pixel={"pixel_representation": 0})
    assert dtypes.output_dtype([about.pixel], PixelOptions("stored")) == torch.uint8
    with pytest.raises(PixelValueError, match=r"int8, -128 to 127.*torch\.uint8.*dtype="):
        apply(array, about, values="stored")
    np.testing.assert_array_equal(apply(array, about, values="stored", dtype="int16")[0], array)
    np.testing.assert_array_equal(apply(array, about, values="modality")[0], array)


@pytest.mark.parametrize("shared", [None, SharedRange(math.nan, math.nan)])
def test_a_signed_stream_in_an_unsigned_header_is_shown_by_the_range_that_it_has(
    shared: SharedRange | None,
) -> None:
    array = np.array([[-128, -1, 0, 127]], np.int8)
    about = frame(array, pixel={"pixel_representation": 0})
    shown, voi = pixels.apply(array, about, PixelOptions(), shared=shared)
    expected = (array + 128.0) / 255
    np.testing.assert_allclose(shown[0], expected, atol=1e-6)
    assert (voi.window_center, voi.window_width) == (0, 256)
    inverted = frame(
        array, pixel={"pixel_representation": 0, "photometric_interpretation": "MONOCHROME1"}
    )
    np.testing.assert_allclose(apply(array, inverted)[0], 1 - expected, atol=1e-6)
    as_signed = frame(array, pixel={"pixel_representation": 1})
    np.testing.assert_allclose(apply(array, as_signed)[0], expected, atol=1e-6)


def test_indices_of_a_palette_are_not_mixed_when_resized() -> None:
    array = np.repeat(np.array([[0, 0, 200, 200]], np.uint8), 4, 0)
    table = LookupTable(0, 8, np.arange(256, dtype=np.uint16))
    pixel = {"photometric_interpretation": "PALETTE COLOR"}
    about = frame(array, pixel=pixel, palette=(table,) * 3)
    indices = apply(array, about, values="modality", size=(8, 8))
    assert np.unique(indices).tolist() == [0, 200]
    assert len(np.unique(apply(array, about, size=(8, 8)))) > 2  # colours are


# --- All ways agree, and agree with pydicom ------------------------------------------------------------


@given(
    dtype=st.sampled_from(("u1", "i1", "u2", "i2", "i4", "f4", "f8")),
    slope=st.sampled_from((1.0, 2.0, -1.0, 0.25, 3.774114, 1e-3, 0.0, -0.01)),
    intercept=st.sampled_from((0.0, -1024.0, 0.5, 12345.678, -32768.0)),
    center=st.floats(-40_000, 40_000),
    width=st.floats(2, 70_000),
    function=st.sampled_from(("", "LINEAR_EXACT", "SIGMOID")),
    inverted=st.booleans(),
    seed=st.integers(0, 5),
)
def test_every_way_equals_the_formula_in_float64(
    dtype: str,
    slope: float,
    intercept: float,
    center: float,
    width: float,
    function: str,
    inverted: bool,
    seed: int,
) -> None:
    array = noise(dtype, (256, 257), seed)  # more pixels than there are values of 16 bits
    values = frame(
        array,
        pixel={"photometric_interpretation": "MONOCHROME1" if inverted else "MONOCHROME2"},
        rescale_slope=slope,
        rescale_intercept=intercept,
        windows=((center, width),),
        voi_lut_function=function,
    )
    x = array.astype(np.float64) * slope + intercept
    if function == "SIGMOID":
        expected = 1 / (1 + np.exp(np.minimum(-4 * (x - center) / width, 700)))
    elif function == "LINEAR_EXACT":
        expected = np.clip((x - center) / width + 0.5, 0, 1)
    else:
        expected = np.clip((x - (center - 0.5)) / (width - 1) + 0.5, 0, 1)
    expected = 1 - expected if inverted else expected
    options = PixelOptions()
    plan = make_plan(values, options)
    np.testing.assert_allclose(evaluate(plan, plan.channels, array)[0], expected, atol=1e-9)
    for _ in range(2):
        image, _ = pixels.apply(array, values, options, plan=plan)
        np.testing.assert_allclose(image[0].numpy(), expected, atol=1e-6)
    double = pixels.apply(array, values, PixelOptions(dtype="float64"))[0].numpy()
    np.testing.assert_allclose(double[0], expected, atol=1e-9)
    modality = apply(array, values, values="modality")[0]
    # Where slope and intercept cancel, what is left has the digits of float32 at the intercept, at most of 4.
    cancelled = 2.4e-7 * min(abs(intercept), 4) + 1e-9 * abs(intercept)
    np.testing.assert_allclose(modality, x, rtol=3e-7, atol=cancelled)


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2"])
@pytest.mark.parametrize("interpretation", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_against_pydicom(dtype: str, interpretation: str, function: str) -> None:
    array = noise(dtype)
    ds = Dataset()
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.BitsStored = 8 * array.dtype.itemsize
    ds.PixelRepresentation = int(array.dtype.kind == "i")
    ds.RescaleSlope, ds.RescaleIntercept = 2, -10
    ds.WindowCenter, ds.WindowWidth, ds.VOILUTFunction = 60, 150, function
    x = apply_rescale(array, ds)
    with np.errstate(over="ignore"):
        shown = apply_windowing(x, ds)
    # pydicom scales to the range of rescaled values.
    low = np.iinfo(array.dtype).min * 2 - 10
    high = np.iinfo(array.dtype).max * 2 - 10
    expected = (shown - low) / (high - low)
    values = frame(
        array,
        pixel={"photometric_interpretation": interpretation},
        rescale_slope=2.0,
        rescale_intercept=-10.0,
        windows=((60.0, 150.0),),
        voi_lut_function=function,
    )
    np.testing.assert_array_equal(apply(array, values, values="modality")[0], x)
    expected = 1 - expected if interpretation == "MONOCHROME1" else expected
    np.testing.assert_allclose(apply(array, values)[0], expected, atol=1e-6)


def test_narrow_windows_far_from_0_keep_their_digits() -> None:
    array = np.arange(30_000, 30_100, dtype=np.uint16).reshape(10, 10)
    values = frame(array, windows=((30_050.0, 11.0),))
    x = array.astype(np.float64)
    expected = np.clip((x - 30_049.5) / 10 + 0.5, 0, 1)
    np.testing.assert_allclose(apply(array, values)[0], expected, atol=2e-7)


def test_large_images_are_converted_in_blocks() -> None:
    array = noise("i2", (2000, 700))
    values = frame(array, windows=((0.0, 65536.0),))
    expected = np.clip((array + 0.5) / 65535 + 0.5, 0, 1)
    np.testing.assert_allclose(apply(array, values)[0], expected, atol=1e-6)


@pytest.mark.parametrize("dtype", ["u2", "i4", "u4", "i8"])
def test_integers_of_32_bits_go_through_float64(dtype: str) -> None:
    array = np.array([[0, 1, 2, 3]]).astype(dtype) + np.array(
        0 if dtype == "u2" else 2**31 - 8, dtype
    )
    start = float(array[0, 0])
    values = frame(array, rescale_slope=0.5, windows=(((start + 1.5) / 2 + 0.5, 2.5),))
    y = apply(array, values)[0, 0]
    np.testing.assert_allclose(y, [0, 1 / 3, 2 / 3, 1], atol=1e-6)


# --- Presets, shared ranges, several windows -----------------------------------------------------------


def test_presets_are_for_hounsfield_units() -> None:
    array = np.array([[0, 40, 80]], np.int16)
    accepted: list[dict[str, Any]] = [{"modality": "CT"}, {"rescale_type": "HU"}]
    for attributes in accepted:
        image, voi = pixels.apply(array, frame(array, **attributes), PixelOptions(window="brain"))
        np.testing.assert_allclose(
            image[0, 0], np.clip((array[0] - 39.5) / 79 + 0.5, 0, 1), atol=1e-6
        )
        assert voi == AppliedVOI("user", 40, 80)
    refused: list[dict[str, Any]] = [
        {"modality": "MR"},
        {},
        {"modality": "CT", "rescale_type": "US"},
    ]
    for attributes in refused:
        with pytest.raises(
            PixelValueError, match=r"window='brain' is in Hounsfield units.*\(0028,1054\)"
        ):
            apply(array, frame(array, **attributes), window="brain")


def test_several_windows_are_channels() -> None:
    array = noise()
    values = frame(array, modality="CT", windows=((0.0, 100.0), (50.0, 200.0)))
    options = PixelOptions(window=["lung", (40, 400), None, 1])
    image, voi = pixels.apply(array, values, options)
    assert output_shape(values, options) == image.shape == (4, 64, 48)
    for channel, window in zip(image.numpy(), options.windows, strict=True):
        np.testing.assert_array_equal(channel, apply(array, values, window=window)[0])
    assert voi.window_center == -600
    color = noise("u1", (4, 5, 3))
    with pytest.raises(PixelValueError, match=r"\(0028,0004\).*several windows"):
        num_channels(frame(color), options)


def test_a_shared_range_replaces_what_the_frames_say_but_not_the_user() -> None:
    array = np.array([[0, 50, 100, 200]], np.int16)
    values = frame(array, windows=((40.0, 400.0),))
    shared = SharedRange(0, 200, "series")
    image, voi = pixels.apply(array, values, PixelOptions(window="series"), shared=shared)
    np.testing.assert_allclose(image[0, 0], [0, 0.25, 0.5, 1])
    assert voi == AppliedVOI("series", 100.5, 201)
    inverted = dataclasses.replace(
        values, pixel=image_pixel(array, photometric_interpretation="MONOCHROME1")
    )
    image, _ = pixels.apply(array, inverted, PixelOptions(), shared=shared)
    np.testing.assert_allclose(image[0, 0], [1, 0.75, 0.5, 0])
    user, voi = pixels.apply(array, values, PixelOptions(window=(40, 400)), shared=shared)
    np.testing.assert_array_equal(user, apply(array, values, window=(40, 400)))
    assert voi.voi == "user"
    own = SharedRange(math.nan, math.nan, "series")
    image, voi = pixels.apply(array, values, PixelOptions(window="series"), shared=own)
    np.testing.assert_array_equal(image, apply(array, values))
    assert voi == AppliedVOI("series", 40, 400)
    each, _ = pixels.apply(
        array, values, PixelOptions(window=[None, (40, 400), None]), shared=[shared, shared, None]
    )
    np.testing.assert_allclose(each[0, 0], [0, 0.25, 0.5, 1])
    np.testing.assert_array_equal(each[1], each[2])


@pytest.mark.parametrize("several", [True, False])
def test_colour_takes_no_shared_range(several: bool) -> None:
    one = SharedRange(0, 10)
    table = LookupTable(0, 8, np.arange(256, dtype=np.uint16))
    indices = noise("u1")
    interpretation = {"photometric_interpretation": "PALETTE COLOR"}
    color = noise("u1", (4, 5, 3))
    for array, values in (
        (indices, frame(indices, pixel=interpretation, palette=(table,) * 3)),
        (color, frame(color)),
    ):
        image, voi = pixels.apply(array, values, PixelOptions(), shared=[one] if several else one)
        np.testing.assert_array_equal(image, apply(array, values))
        assert voi.voi == "full"


def test_the_range_of_several_frames_is_the_range_of_their_ranges() -> None:
    array = np.array([[-2000, 5, 9]], np.int16)
    values = frame(array, rescale_slope=-2.0, rescale_intercept=1.0, padding=(-2000.0, -2000.0))
    assert statistics.frame_range(array, values) == (-17, -9)
    assert statistics.frame_range(
        array[:, :1], frame(array[:, :1], padding=(-2000.0, -2000.0))
    ) == (
        math.inf,
        -math.inf,
    )
    floats = np.array([[math.nan, -1.5, math.inf, 2]], np.float32)
    assert statistics.frame_range(floats, frame(floats)) == (-1.5, 2)
    table = LookupTable(0, 16, np.array([9, 1, 5], np.uint16))
    small = np.array([[0, 1, 2]], np.uint8)
    assert statistics.frame_range(small, frame(small, modality_lut=table)) == (1, 9)
    # Nothing to measure at all: black, in every polarity.
    empty = SharedRange(math.inf, -math.inf)
    assert not pixels.apply(array, values, PixelOptions(), shared=empty)[0].any()


# --- Types ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kinds", "dtype"),
    [
        ([(8, 0)], torch.uint8),
        ([(1, 0)], torch.uint8),
        ([(8, 1)], torch.int16),
        ([(12, 0)], torch.int16),
        ([(15, 0), (16, 1), (8, 0)], torch.int16),
        ([(16, 0)], torch.int32),
        ([(32, 0)], torch.int64),
        ([(32, 1)], torch.int32),
        ([(63, 0)], torch.int64),
        ([("OF", 0)], torch.float32),
        ([("OF", 0), (16, 0)], torch.float32),
        ([("OF", 0), (32, 0)], torch.float64),
        ([("OD", 0), (8, 0)], torch.float64),
        ([], torch.uint8),
    ],
)
def test_one_type_for_all_stored_values(kinds: list[tuple[Any, int]], dtype: torch.dtype) -> None:
    described = [
        ImagePixel(TS, 1, 1, bits_stored=bits, pixel_representation=sign)
        if isinstance(bits, int)
        else ImagePixel(TS, 1, 1, pixel_data_vr=bits)
        for bits, sign in kinds
    ]
    assert dtypes.output_dtype(described, PixelOptions("stored")) == dtype
    assert dtypes.output_dtype(described, PixelOptions("modality")) == torch.float32
    assert dtypes.output_dtype(described, PixelOptions(dtype="float16")) == torch.float16


def test_types_that_hold_nothing_of_it_are_refused() -> None:
    sixteen = ImagePixel(TS, 1, 1)
    with pytest.raises(OptionError, match=r"dtype='int16'.*\(0028,0101\) BitsStored 16"):
        dtypes.output_dtype([sixteen], PixelOptions("stored", dtype="int16"))
    with pytest.raises(OptionError, match="dtype='float16'"):
        dtypes.output_dtype([sixteen], PixelOptions("stored", dtype="float16"))
    assert dtypes.output_dtype([sixteen], PixelOptions("stored", dtype="float32")) == torch.float32
    wide = ImagePixel(TS, 1, 1, bits_stored=64)
    with pytest.raises(OptionError, match=r"no one type.*64"):
        dtypes.output_dtype([wide], PixelOptions("stored"))


@pytest.mark.parametrize("dtype", [*INTEGERS, "f4", "f8"])
def test_stored_values_are_not_changed(dtype: str) -> None:
    for shape in ((5, 7), (5, 7, 3)):
        array = noise(dtype, shape)
        values = frame(array)
        out, voi = pixels.apply(array, values, PixelOptions("stored"))
        expected = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
        np.testing.assert_array_equal(out.numpy(), expected)
        np.testing.assert_equal(dataclasses.astuple(voi), ("", math.nan, math.nan))
        assert out.dtype not in (torch.uint16, torch.uint32)


def test_streams_that_say_more_than_the_header() -> None:
    array = np.array([[-5, 100]], np.int16)
    values = FrameValues(ImagePixel(TS, 1, 2, bits_stored=12))
    assert pixels.apply(array, values, PixelOptions("stored"))[0].tolist() == [[[-5, 100]]]
    narrow = FrameValues(ImagePixel(TS, 1, 2, bits_allocated=8, bits_stored=8))
    with pytest.raises(PixelValueError, match=r"int16, -5 to 100.*torch.uint8"):
        pixels.apply(array, narrow, PixelOptions("stored"))
    assert pixels.apply(abs(array), narrow, PixelOptions("stored"))[0].tolist() == [[[5, 100]]]


def test_whole_modality_values_as_integers() -> None:
    array = np.array([[0, 1024, 3000]], np.uint16)
    values = frame(array, rescale_slope=1.0, rescale_intercept=-1024.0)
    image, _ = pixels.apply(array, values, PixelOptions("modality", dtype="int16"))
    assert image.dtype == torch.int16
    assert image.tolist() == [[[-1024, 0, 1976]]]
    with pytest.raises(PixelValueError, match=r"modality values.*torch.uint8"):
        apply(array, values, values="modality", dtype="uint8")
    with pytest.raises(PixelValueError, match=r"torch.int16"):
        apply(
            array, dataclasses.replace(values, rescale_slope=0.3), values="modality", dtype="int16"
        )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_float_types(dtype: str) -> None:
    array = noise()
    values = frame(array, windows=((0.0, 1000.0),))
    image, _ = pixels.apply(array, values, PixelOptions(dtype=dtype))
    assert image.dtype == getattr(torch, dtype)
    np.testing.assert_allclose(image.double().numpy(), apply(array, values), atol=4e-3)


def test_overflow_is_an_error() -> None:
    array = np.array([[70000]], np.int32)
    with pytest.raises(PixelValueError, match=r"torch.float16"):
        apply(array, frame(array), values="modality", dtype="float16")
    large = np.array([[1e300, 1.0]])
    with pytest.raises(PixelValueError, match=r"beyond float32.*dtype='float64'"):
        apply(large, frame(large), values="modality")
    assert apply(large, frame(large), values="modality", dtype="float64").tolist() == [[[1e300, 1]]]
    assert apply(large, frame(large, windows=((0.0, 10.0),))).tolist() == [
        [[1, np.float32(1.5 / 9 + 0.5)]]
    ]
    with pytest.raises(PixelValueError, match=r"torch.float32"):
        pixels.apply(large, frame(large), PixelOptions("stored"), torch.empty(1, 1, 2))


def test_shapes_that_disagree() -> None:
    array = noise()
    with pytest.raises(PixelValueError, match=r"\(64, 48\).*\(0028,0010\) Rows.*\(64, 40\)"):
        apply(array, frame(array[:, :40]))
    with pytest.raises(PixelValueError, match=r"out has shape \(1, 64, 40\)"):
        pixels.apply(array, frame(array), PixelOptions(), torch.empty(1, 64, 40))


@pytest.mark.parametrize(
    "options", [{}, {"values": "modality"}, {"color": "rgb"}, {"size": (32, 32)}]
)
def test_out_may_be_any_part_of_a_batch(options: dict[str, Any]) -> None:
    array = noise()
    values = frame(array, windows=((0.0, 1000.0),))
    expected = apply(array, values, **options)
    batch = torch.full((3, *expected.shape), -7.0)
    image, _ = pixels.apply(array, values, PixelOptions(**options), batch[1])
    assert image.data_ptr() == batch[1].data_ptr()
    np.testing.assert_array_equal(batch[1], expected)
    assert (batch[[0, 2]] == -7).all()
    apart = torch.full((*expected.shape, 2), -7.0)
    pixels.apply(array, values, PixelOptions(**options), apart[..., 0])
    np.testing.assert_array_equal(apart[..., 0], expected)
    assert (apart[..., 1] == -7).all()


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "f4"])
def test_stored_values_stay_as_they_are(dtype: str) -> None:
    array = noise(dtype)
    before = array.copy()
    values = frame(array, padding=(0.0, 5.0), windows=((0.0, 10.0),))
    for options in (
        {},
        {"values": "modality", "padding": "fill"},
        {"values": "stored", "padding": 1},
    ):
        apply(array, values, **options)
        np.testing.assert_array_equal(array, before)


def test_arrays_that_are_not_contiguous_or_writable() -> None:
    array = noise("i2", (64, 96))[:, ::2]
    values = frame(array, windows=((0.0, 1000.0),), voi_lut_function="SIGMOID")
    expected = apply(array.copy(), values)
    np.testing.assert_array_equal(apply(array, values), expected)
    frozen = np.frombuffer(array.tobytes(), np.int16).reshape(array.shape)
    np.testing.assert_array_equal(apply(frozen, values), expected)


# --- Colour ---------------------------------------------------------------------------------------------


def test_channels() -> None:
    gray, color = frame(noise()), frame(noise("u1", (4, 5, 3)))
    palette = frame(noise("u1"), pixel={"photometric_interpretation": "PALETTE COLOR"})
    expected = {
        "stored auto": (1, 3, 1),
        "modality auto": (1, 3, 1),
        "modality gray": (1, 1, None),
        "modality rgb": (3, 3, None),
        "display auto": (1, 3, 3),
        "display gray": (1, 1, 1),
        "display rgb": (3, 3, 3),
    }
    for name, channels in expected.items():
        kind, color_option = name.split()
        options = PixelOptions(kind, color=color_option)  # type: ignore[arg-type]
        for values, count in zip((gray, color, palette), channels, strict=True):
            if count is None:
                with pytest.raises(PixelValueError, match="PALETTE COLOR"):
                    num_channels(values, options)
            else:
                assert num_channels(values, options) == count, name


def test_gray_as_rgb_and_rgb_as_gray() -> None:
    array = noise()
    values = frame(array, windows=((0.0, 1000.0),))
    np.testing.assert_array_equal(
        apply(array, values, color="rgb"), np.tile(apply(array, values), (3, 1, 1))
    )
    color = noise("u1", (4, 5, 3))
    luma = color @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(apply(color, frame(color), color="gray")[0], luma / 255, atol=1e-6)
    np.testing.assert_allclose(
        apply(color, frame(color), values="modality", color="gray")[0], luma, rtol=1e-6
    )
    np.testing.assert_array_equal(
        apply(color, frame(color), values="modality"), color.transpose(2, 0, 1)
    )


def test_four_samples_have_stored_values_only() -> None:
    array = noise("u1", (4, 5, 4))
    values = frame(array, pixel={"photometric_interpretation": "CMYK"})
    np.testing.assert_array_equal(apply(array, values, values="stored"), array.transpose(2, 0, 1))
    with pytest.raises(PixelValueError, match=r"\(0028,0002\) SamplesPerPixel is 4.*CMYK"):
        apply(array, values)


def test_palettes_have_indices_and_colours() -> None:
    array = np.array([[0, 1]], np.uint8)
    pixel = {"photometric_interpretation": "PALETTE COLOR"}
    values = frame(array, pixel=pixel, padding=(0.0, 0.0))
    assert apply(array, values, values="stored").tolist() == [[[0, 1]]]
    assert apply(array, values, values="modality").tolist() == [[[0, 1]]]
    with pytest.raises(PixelValueError, match=r"\(0028,1201\)"):
        apply(array, values)


def test_pixel_presentation_without_a_palette_is_gray_with_a_notice() -> None:
    values = frame(noise(), pixel_presentation="COLOR")
    (notice,) = make_plan(values, PixelOptions()).notices
    assert "(0008,9205)" in notice
    assert num_channels(values, PixelOptions()) == 1


# --- Padding --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"values": "modality"}, [-3000, -1000, 0, 1000]),
        ({"values": "modality", "padding": "fill"}, [-1000, -1000, 0, 1000]),
        ({"values": "modality", "padding": -5}, [-5, -1000, 0, 1000]),
        ({"values": "stored"}, [-2000, 0, 1000, 2000]),
        ({"values": "stored", "padding": "fill"}, [0, 0, 1000, 2000]),
        ({"values": "stored", "padding": 7}, [7, 0, 1000, 2000]),
        ({"values": "display"}, [0, 0, 0.5, 1]),
        ({"values": "display", "padding": "fill"}, [0, 0, 0.5, 1]),
        ({"values": "display", "padding": 0.25}, [0.25, 0, 0.5, 1]),
        ({"values": "modality", "normalize": "minmax"}, [0, 0, 0.5, 1]),
        ({"values": "modality", "normalize": (1000, 1000), "padding": "fill"}, [0, -2, -1, 0]),
        ({"values": "modality", "normalize": "minmax", "padding": -1}, [-1, 0, 0.5, 1]),
    ],
)
def test_what_padded_pixels_get(options: dict[str, Any], expected: list[float]) -> None:
    array = np.array([[-2000, 0, 1000, 2000]], np.int16)
    values = frame(array, padding=(-2000.0, -2000.0), rescale_intercept=-1000.0)
    np.testing.assert_allclose(apply(array, values, **options)[0, 0], expected, atol=1e-6)


def test_padding_that_is_not_there_or_everywhere() -> None:
    array = np.array([[1, 2]], np.uint8)
    np.testing.assert_array_equal(
        apply(array, frame(array, padding=(63536.0, 63536.0)), values="modality"), [[[1, 2]]]
    )
    np.testing.assert_array_equal(
        apply(array, frame(array, padding=(1.5, 1.7)), values="modality", padding=9), [[[1, 2]]]
    )
    full = frame(array, padding=(0.0, 255.0))
    for options in (
        {},
        {"values": "modality", "padding": "fill"},
        {"values": "modality", "normalize": "zscore"},
    ):
        assert not apply(array, full, **options).any()


def test_padding_must_be_a_stored_value() -> None:
    array = np.array([[1, 2]], np.uint8)
    with pytest.raises(PixelValueError, match=r"padding=-1000 is no value of uint8"):
        apply(array, frame(array, padding=(1.0, 1.0)), values="stored", padding=-1000)
    floats = np.array([[1, 2]], np.float32)
    filled = apply(floats, frame(floats, padding=(1.0, 1.0)), values="stored", padding=math.nan)
    np.testing.assert_array_equal(filled, [[[math.nan, 2]]])


# --- Normalisation --------------------------------------------------------------------------------------


def test_normalisations() -> None:
    x = noise("i2").astype(np.float64)
    np.testing.assert_allclose(statistics.normalized(x, "zscore"), (x - x.mean()) / x.std())
    np.testing.assert_allclose(
        statistics.normalized(x, "minmax"), (x - x.min()) / (x.max() - x.min())
    )
    np.testing.assert_allclose(statistics.normalized(x, (3.0, 2.0)), (x - 3) / 2)
    low, high = np.percentile(x, [1, 99])
    np.testing.assert_allclose(
        statistics.normalized(x, "percentile"), np.clip((x - low) / (high - low), 0, 1)
    )


@pytest.mark.parametrize("how", ["zscore", "minmax", "percentile", (0.0, 1.0)])
def test_normalisation_leaves_out_padding_and_what_is_no_number(how: Any) -> None:
    x = noise("f4")
    mask = np.zeros(x.shape, np.bool_)
    mask[:10] = True
    dirty = x.copy()
    dirty[:10] = 1e9
    dirty[20, :3] = math.nan, math.inf, -math.inf
    counted = ~mask
    counted[20, :3] = False
    expected = np.zeros_like(x)
    expected[counted] = statistics.normalized(x[counted], how)
    np.testing.assert_allclose(statistics.normalized(dirty, how, mask), expected, atol=1e-6)


def test_normalisation_of_constants_and_of_nothing() -> None:
    for how in ("zscore", "minmax", "percentile"):
        assert not statistics.normalized(np.full((3, 3), 7.0), how).any()
        assert not statistics.normalized(np.full((3, 3), math.nan), how).any()
    large = np.array([1e7, 1e7 + 1, 1e7 + 2], np.float32)
    np.testing.assert_allclose(
        statistics.normalized(large, "zscore"), [-1.224745, 0, 1.224745], atol=1e-6
    )


# --- SUV ------------------------------------------------------------------------------------------------


def test_suv() -> None:
    array = np.array([[0, 2500]], np.int16)
    values = frame(array, modality="PT", rescale_slope=2.0, rescale_intercept=0.0)
    with_factor = dataclasses.replace(values, suv_factor=2.7633668e-4)
    np.testing.assert_allclose(
        apply(array, with_factor, values="suvbw")[0, 0], [0, 1.381683], atol=1e-6
    )
    problem = dataclasses.replace(values, suv_problem="PatientWeight is absent")
    with pytest.raises(PixelValueError, match="PatientWeight is absent"):
        apply(array, problem, values="suvbw")
    with pytest.raises(PixelValueError, match="Modality is 'PT'"):
        apply(array, values, values="suvbw")


# --- Sizes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "size", "expected"),
    [
        ((64, 48), (32, 32), (0.5, 0, 4, 32, 24)),
        ((48, 64), (32, 32), (0.5, 4, 0, 24, 32)),
        ((10, 10), (20, 31), (2.0, 0, 5, 20, 20)),
        ((1000, 3), (10, 10), (0.01, 0, 4, 10, 1)),
        ((7, 5), (7, 5), (1.0, 0, 0, 7, 5)),
    ],
)
def test_where_a_resized_image_lies(shape: Any, size: Any, expected: Any) -> None:
    where = resize.resized(shape[0], shape[1], size)
    assert where == (*expected, 1)


def test_size_keeps_the_aspect_and_pads() -> None:
    array = np.full((64, 48), 500, np.int16)
    values = frame(array, windows=((500.0, 11.0),), rescale_intercept=0.0)
    image = apply(array, values, size=(32, 32))
    assert image.shape == (1, 32, 32)
    np.testing.assert_allclose(image[0, :, 4:28], 0.55, atol=1e-6)
    assert not image[0, :, :4].any()
    assert not image[0, :, 28:].any()
    np.testing.assert_allclose(
        apply(array, values, size=(32, 32), values="modality"), 500, atol=1e-3
    )
    assert apply(array, values, size=(32, 32), values="modality", padding=-9)[0, 0, 0] == -9
    normalized = apply(array, values, size=(32, 32), values="modality", normalize=(400, 100))
    np.testing.assert_allclose(normalized[0, 0, [0, 16]], [0, 1], atol=1e-6)
    missing = apply(
        noise("f4", (4, 2)) * np.float32(math.nan),
        frame(noise("f4", (4, 2))),
        size=(4, 4),
        values="modality",
    )
    assert missing[0, 0, 0] == 0


def test_shrinking_is_antialiased() -> None:
    checks = np.indices((64, 64)).sum(0).astype(np.uint8) % 2
    image = apply(checks, frame(checks, pixel={"bits_stored": 1}), size=(16, 16))
    np.testing.assert_allclose(image[0, 2:-2, 2:-2], 0.5, atol=0.02)


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_labels_and_stored_values_are_resized_by_nearest_neighbour(kind: str) -> None:
    labels = np.array([[0, 1], [1, 0]], np.uint8) * (1 if kind == "BINARY" else 5)
    values = frame(labels, modality="SEG", segmentation_type=kind)
    expected = np.kron(labels, np.ones((2, 2)))
    np.testing.assert_array_equal(apply(labels, values, size=(4, 4))[0], expected)
    stored, _ = pixels.apply(labels, frame(labels), PixelOptions("stored", size=(4, 6)))
    assert stored.dtype == torch.uint8
    np.testing.assert_array_equal(stored[0, :, 1:5], expected)
    assert not stored[0, :, [0, 5]].any()
    np.testing.assert_array_equal(apply(np.kron(labels, np.ones((3, 3), np.uint8)), frame(np.zeros((6, 6), np.uint8)),
                                        values="stored", size=(2, 2))[0], labels)  # fmt: skip
