"""Worked numbers for every rule from stored values to display (PS3.3 C.7.5, C.7.6, C.8, C.11).

Each case runs through every way that the pixel functions have: a small image (the formulas), a large one (the table of
all stored values), integers of 32 bits (float64), a tensor of the caller's, and a plan that was kept.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch

from dicomtorch.errors import PixelValueError
from dicomtorch.model.frame import AppliedVOI, FrameValues, LookupTable, RealWorldValueMap
from dicomtorch.model.image import ImagePixel
from dicomtorch.model.options import PixelOptions
from dicomtorch.pixels import frame as pixels
from dicomtorch.pixels import statistics
from dicomtorch.pixels.plan import make_plan
from dicomtorch.pixels.voi import SharedRange
from dicomtorch.scanner.resolve.lookup import lookup_table

NAN = math.nan
INTERPRETATIONS = ("MONOCHROME1", "MONOCHROME2")


def frame(stored: Any, dtype: str = "i2", **values: Any) -> tuple[np.ndarray, FrameValues]:
    """One row of stored values and the attributes of a frame that holds them."""
    array = np.atleast_2d(np.asarray(stored, dtype))
    kind = array.dtype.kind
    about = {
        "rows": array.shape[0],
        "columns": array.shape[1],
        "bits_allocated": 8 * array.dtype.itemsize,
        "bits_stored": 8 * array.dtype.itemsize,
        "pixel_representation": int(kind == "i"),
        "pixel_data_vr": {"f": "OF" if array.dtype.itemsize == 4 else "OD"}.get(kind, "OW"),
    }
    if array.ndim == 3:
        about |= {"samples_per_pixel": array.shape[2], "photometric_interpretation": "RGB"}
    fields = {field.name for field in dataclasses.fields(ImagePixel)}
    about |= {name: values.pop(name) for name in list(values) if name in fields}
    if "windows" in values:
        values["windows"] = tuple(values["windows"])
    return array, FrameValues(ImagePixel("1.2.840.10008.1.2.1", **about), **values)


def run(
    stored: Any, options: PixelOptions | None = None, dtype: str = "i2", **values: Any
) -> tuple[np.ndarray, AppliedVOI]:
    """(channels, pixels) of one row, after every way has given the same."""
    options = options or PixelOptions()
    array, about = frame(stored, dtype, **values)
    image, voi = pixels.apply(array, about, options)
    small = image.numpy()[:, 0].copy()
    kept = make_plan(about, options)
    out = torch.full_like(image, -7)
    again, _ = pixels.apply(array, about, options, out, plan=kept)
    assert again is out
    np.testing.assert_array_equal(out.numpy()[:, 0], small)

    times = -(-70_000 // array.shape[1])
    many = np.tile(array, (times, 1, 1) if array.ndim == 3 else (times, 1))
    for plan in (kept, kept):
        tall = dataclasses.replace(about, pixel=dataclasses.replace(about.pixel, rows=times))
        large = pixels.apply(many, tall, options, plan=plan)[0].numpy()
        np.testing.assert_allclose(large[:, -1], small, rtol=3e-7, atol=3e-7)
    if array.dtype.kind in "iu" and array.ndim == 2 and options.values != "stored":
        wide, _ = pixels.apply(array.astype(np.int32), about, options)
        np.testing.assert_allclose(wide.numpy()[:, 0], small, rtol=3e-7, atol=3e-7)
    return small, voi


def display(stored: Any, **kwargs: Any) -> Any:
    return run(stored, **kwargs)[0][0]


def modality(stored: Any, **kwargs: Any) -> Any:
    return run(stored, PixelOptions("modality"), **kwargs)[0][0]


def close(actual: Any, expected: Any) -> None:
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6)


def notices(stored: Any, options: PixelOptions | None = None, **values: Any) -> tuple[str, ...]:
    return make_plan(frame(stored, **values)[1], options or PixelOptions()).notices


def lut(first: int, bits: int, entries: list[int]) -> LookupTable:
    return LookupTable(first, bits, np.array(entries, np.uint16))


# --- 1. LINEAR: C.11.2.1.2.1 --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("window", "x", "y"),
    [
        pytest.param(
            (128, 256), [0, 1, 128, 254, 255], np.array([0, 1, 128, 254, 255]) / 255, id="L1"
        ),
        pytest.param(
            (2048, 4096), [0, 2047, 2048, 4095], np.array([0, 2047, 2048, 4095]) / 4095, id="L2"
        ),
        pytest.param(
            (40, 400),
            [-161, -160, -159, 0, 40, 239, 240],
            [0, 0, 0.002506, 0.401003, 0.501253, 1, 1],
            id="L3",
        ),
        pytest.param((10, 2), [8, 9, 10, 11], [0, 0, 1, 1], id="L5"),
    ],
)
def test_linear(window, x, y):
    result, voi = run(x, windows=[window])
    close(result[0], y)
    assert voi == AppliedVOI("file", *map(float, window))


@pytest.mark.parametrize(
    ("x", "intercept", "window", "y"),
    [
        ([9, 10], 0.0, (10, 1), [0, 1]),
        ([9, 10], 0.5, (10, 1), [0, 1]),
        ([9], 0.6, (10, 1), [1]),
        ([9], 0.5, (10, 2), [0.5]),
    ],
)
def test_l4_l5_thresholds_between_whole_numbers(x, intercept, window, y):
    close(display(x, windows=[window], rescale_slope=1.0, rescale_intercept=intercept), y)
    # Polarity keeps the threshold where it is.
    inverted = display(
        x,
        windows=[window],
        rescale_slope=1.0,
        rescale_intercept=intercept,
        photometric_interpretation="MONOCHROME1",
    )
    close(inverted, 1 - np.array(y))


def test_l6_window_is_folded_in_modality_values():
    stored = [265, 313, 314, 794]
    attributes: dict[str, Any] = {
        "rescale_slope": 3.774114,
        "rescale_intercept": 0.000061,
        "windows": [(1000, 2000)],
    }
    x = modality(stored, rescale_slope=3.774114, rescale_intercept=0.000061)
    expected = [1000.140271, 1181.297743, 1185.071857, 2996.646577]
    np.testing.assert_allclose(x, expected, rtol=2e-7)
    y = display(stored, dtype="u2", **attributes)
    close(y, [0.500320, 0.590944, 0.592832, 1])
    # What comes of converting the window to stored units first.
    assert np.abs(y[:3] - [0.501016, 0.591766, 0.593656]).min() > 1e-4


def test_l7_negative_slope():
    attributes: dict[str, Any] = {"rescale_slope": -1.0, "rescale_intercept": 100.0}
    close(modality([0, 50, 100], **attributes), [100, 50, 0])
    close(display([0, 50, 100], windows=[(50, 101)], **attributes), [1, 0.505, 0.005])


@pytest.mark.parametrize("shape", ["", "INVERSE", "IDENTITY"])
def test_l8_l9_monochrome1_is_inverted_once(shape):
    attributes: dict[str, Any] = {
        "windows": [(40, 400)],
        "photometric_interpretation": "MONOCHROME1",
        "presentation_lut_shape": shape,
    }
    close(display([-160, 0, 40, 240], **attributes), [1, 0.598997, 0.498747, 0])
    assert bool(notices([0], **attributes)) == (shape == "IDENTITY")


def test_l10_monochrome1_does_not_depend_on_the_largest_value():
    attributes: dict[str, Any] = {
        "windows": [(0, 4096)],
        "photometric_interpretation": "MONOCHROME1",
        "bits_stored": 12,
    }
    close(display([-2048, 0, 2047], **attributes), [1, 0.499878, 0])
    close(display([-2048, 0], **attributes), [1, 0.499878])


def test_l11_two_windows():
    windows = [(40, 400), (600, 2800)]
    assert run([0], windows=windows)[1] == AppliedVOI("file", 40, 400)
    y, voi = run([0, 600], PixelOptions(window=1), windows=windows)
    assert voi == AppliedVOI("file", 600, 2800)
    close(y[0], (np.array([0, 600]) - 599.5) / 2799 + 0.5)
    with pytest.raises(PixelValueError, match=r"\(0028,1050\).*2 values.*window=2"):
        run([0], PixelOptions(window=2), windows=windows)


def test_l13_empty_numbers_are_absent():
    y, voi = run([100, 150, 300], dtype="u2", windows=[(NAN, NAN)], rescale_slope=NAN)
    close(y[0], [0, 0.25, 1])
    assert voi.voi == "frame"
    assert run([5], windows=[(NAN, 10), (40, 400)])[1] == AppliedVOI("file", 40, 400)


@pytest.mark.parametrize("width", [0.0, -5.0])
@pytest.mark.parametrize("function", ["", "LINEAR_EXACT", "SIGMOID"])
def test_l14_width_of_zero_or_less_is_absent(width, function):
    attributes: dict[str, Any] = {"windows": [(200, width)], "voi_lut_function": function}
    y, voi = run([100, 150, 300], **attributes)
    close(y[0], [0, 0.25, 1])
    assert voi.voi == "frame"
    (notice,) = notices([0], **attributes)
    assert "(0028,1051)" in notice
    assert f"{width:g}" in notice
    with pytest.raises(PixelValueError, match=r"\(0028,1051\)"):
        run([0], PixelOptions(window=0), **attributes)


def test_l15_width_below_one():
    attributes: dict[str, Any] = {
        "windows": [(0.10774013962825, 0.21467775607873)],
        "rescale_slope": 5.6120501942e-06,
        "rescale_intercept": 0.0,
    }
    close(
        display([251, 300, 1333, 38000], dtype="u2", **attributes),
        [0.004692, 0.005973, 0.032978, 0.991517],
    )
    (notice,) = notices([0], **attributes)
    assert "LINEAR_EXACT" in notice


def test_l16_width_of_one_on_fractions():
    x = [0, 0.25, 0.5, 0.75, 1]
    close(display(x, dtype="f4", windows=[(0.5, 1)]), x)
    close(display(x, dtype="f8", windows=[(0.5, 1)]), x)
    close(display([0, 1, 2, 3, 4], rescale_slope=0.25, windows=[(0.5, 1)]), x)
    assert len(notices(x, dtype="f4", windows=[(0.5, 1)])) == 1


# --- 2. LINEAR_EXACT and SIGMOID: C.11.2.1.3 ----------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "window", "x", "y"),
    [
        ("i2", (40, 400), [-160, 0, 40, 239, 240, 241], [0, 0.4, 0.5, 0.9975, 1, 1]),
        ("f4", (0.5, 1), [0, 0.25, 0.5, 0.75, 1], [0, 0.25, 0.5, 0.75, 1]),
        ("f8", (0.0005, 0.001), [0, 0.00025, 0.001], [0, 0.25, 1]),
    ],
    ids=["E1", "E2", "E4"],
)
def test_linear_exact(dtype, window, x, y):
    close(display(x, dtype=dtype, windows=[window], voi_lut_function="LINEAR_EXACT"), y)


def test_e3_linear_exact_inverted():
    attributes: dict[str, Any] = {
        "windows": [(40, 400)],
        "voi_lut_function": "LINEAR_EXACT",
        "photometric_interpretation": "MONOCHROME1",
    }
    close(display([0, 240], **attributes), [0.6, 0])


def test_s1_sigmoid_is_not_clipped():
    x = [0, 1536, 2048, 2304, 2560, 3072, 4095]
    y = [0.000335, 0.119203, 0.5, 0.731059, 0.880797, 0.982014, 0.999663]
    close(display(x, windows=[(2048, 1024)], voi_lut_function="SIGMOID"), y)


def test_s2_sigmoid_of_a_mammogram():
    y = display([2384, 2392, 2216], dtype="u2", windows=[(2653, 900)], voi_lut_function="SIGMOID")
    close(y, [0.232267, 0.238667, 0.125404])


def test_s3_sigmoid_inverted():
    y = display(
        [2304],
        windows=[(2048, 1024)],
        voi_lut_function="SIGMOID",
        photometric_interpretation="MONOCHROME1",
    )
    close(y, [0.268941])


def test_s4_sigmoid_after_rescale():
    y = display(
        [1536],
        windows=[(2048, 1024)],
        voi_lut_function="SIGMOID",
        rescale_slope=2.0,
        rescale_intercept=-1024.0,
    )
    close(y, [0.5])


def test_u1_unknown_function():
    attributes: dict[str, Any] = {"windows": [(40, 400)], "voi_lut_function": "FOO"}
    with pytest.raises(
        PixelValueError,
        match=r"\(0028,1056\) VOILUTFunction is '\(not a value of the standard: VR CS, length 3\)'",
    ):
        run([0], **attributes)
    close(modality([0, 7], **attributes), [0, 7])
    # The user's window is LINEAR, whatever the file says.
    close(run([40], PixelOptions(window=(40, 400)), **attributes)[0], [[0.501253]])


# --- 3. VOI LUT and Modality LUT: C.11.1, C.11.2.1.1 --------------------------------------------------

V1 = lut(10, 8, [0, 64, 128, 255])
V4 = lut(0, 8, [0, 50, 100, 200, 250])


def test_v1_edges_of_a_voi_lut():
    y, voi = run([9, 10, 11, 12, 13, 14, 1000], voi_luts=(V1,))
    close(y[0], [0, 0, 0.250980, 0.501961, 1, 1, 1])
    assert voi.voi == "lut"
    assert math.isnan(voi.window_center)
    assert math.isnan(voi.window_width)


def test_v1_inverted():
    y = display([9, 11, 14], voi_luts=(V1,), photometric_interpretation="MONOCHROME1")
    close(y, [1, 1 - 0.250980, 0])


def test_v2_signed_first_value():
    data = np.array([0, 32768, 65535], "<u2").tobytes()
    table = lookup_table((3, 65534, 16), data, signed_first=True)
    assert table is not None
    close(display([-3, -2, -1, 0, 5], voi_luts=(table,)), [0, 0, 0.500008, 1, 1])


def test_v3_65536_entries():
    table = lookup_table((0, 0, 16), np.arange(65536, dtype="<u2").tobytes())
    assert table is not None
    close(display([0, 32768, 65535], dtype="u2", voi_luts=(table,)), [0, 0.500008, 1])


def test_v4_voi_lut_after_rescale():
    attributes: dict[str, Any] = {
        "rescale_slope": 2.0,
        "rescale_intercept": -10.0,
        "voi_luts": (V4,),
    }
    close(display([5, 6, 7, 9], **attributes), [0, 0.392157, 0.980392, 0.980392])


def test_v5_between_two_entries_the_nearest_half_up():
    close(display([3], rescale_slope=0.5, voi_luts=(V4,)), [0.392157])
    close(display([-1], rescale_slope=0.5, voi_luts=(lut(-1, 8, [0, 255]),)), [1])


def test_v6_lut_and_window():
    attributes: dict[str, Any] = {"voi_luts": (V1,), "windows": [(100, 50)]}
    assert run([11], **attributes)[1].voi == "lut"
    y, voi = run([100], PixelOptions(window=0), **attributes)
    assert voi == AppliedVOI("file", 100, 50)
    close(y, [[0.5 + 0.5 / 49]])


def test_v7_packed_entries():
    for data in (bytes([0, 0x40, 0x80, 0xFF]), bytes([0, 0, 0x40, 0, 0x80, 0, 0xFF, 0])):
        table = lookup_table((4, 10, 8), data)
        assert table is not None
        close(display([9, 11, 12, 13], voi_luts=(table,)), [0, 0.250980, 0.501961, 1])


def test_v8_too_few_bits():
    table = lut(0, 8, [0, 1000, 2000, 4095])
    close(display([0, 1, 2, 3], voi_luts=(table,)), [0, 1000 / 4095, 2000 / 4095, 1])
    (notice,) = notices([0], voi_luts=(table,))
    assert "(0028,3002)" in notice
    assert notices([0], voi_luts=(V1,)) == ()


def test_v10_voi_lut_does_not_reach_white():
    entries = np.zeros(3447, np.uint16)
    entries[[2384 - 625, 2392 - 625, 2216 - 625, 3446]] = [951, 977, 514, 4088]
    y = display([2384, 2392, 2216, 4095], dtype="u2", voi_luts=(LookupTable(625, 12, entries),))
    close(y, [0.232234, 0.238584, 0.125519, 0.998291])


def test_m1_modality_lut_then_window():
    attributes: dict[str, Any] = {"modality_lut": lut(0, 16, [10, 20, 30, 1000])}
    close(modality([0, 1, 2, 3], **attributes), [10, 20, 30, 1000])
    close(display([0, 1, 2, 3], windows=[(20, 21)], **attributes), [0.025, 0.525, 1, 1])


def test_m2_modality_lut_of_negative_values():
    entries = np.zeros(4096, np.uint16)
    entries[[1023 + 2048, -1 + 2048, 2047 + 2048]] = [16388, 32776, 0]
    table = lookup_table((4096, 63488, 16), entries.astype("<u2").tobytes(), signed_first=True)
    assert table is not None
    close(modality([1023, -1, 2047], modality_lut=table), [16388, 32776, 0])


def test_m3_modality_lut_wins_over_rescale():
    attributes: dict[str, Any] = {
        "modality_lut": lut(0, 16, [10, 20]),
        "rescale_slope": 3.0,
        "rescale_intercept": 1.0,
    }
    close(modality([0, 1], **attributes), [10, 20])
    (notice,) = notices([0], PixelOptions("modality"), **attributes)
    assert "(0028,3000)" in notice


# --- 4. No VOI in the file ----------------------------------------------------------------------------


@pytest.mark.parametrize("slope", [NAN, 1.0])
def test_f1_8_bits_have_their_full_range(slope):
    y, voi = run([2, 81, 162], dtype="u1", rescale_slope=slope)
    close(y[0], [0.007843, 0.317647, 0.635294])
    assert voi == AppliedVOI("full", 128, 256)
    close(display([-128, 0, 127], dtype="i1"), [0, 128 / 255, 1])
    close(display([0, 1], dtype="u1", bits_stored=1), [0, 1])


def test_f1_not_after_a_rescale():
    assert run([2, 81, 162], dtype="u1", rescale_slope=2.0)[1].voi == "frame"
    assert run([2, 81, 162], dtype="u1", rescale_intercept=2.0)[1].voi == "frame"


def test_f2_range_of_the_frame():
    y, voi = run([100, 150, 300], dtype="u2")
    close(y[0], [0, 0.25, 1])
    assert voi == AppliedVOI("frame", 200.5, 201)


def test_f3_range_without_padding():
    y, voi = run([-2000, 100, 150, 300], padding=(-2000.0, -2000.0))
    close(y[0], [0, 0, 0.25, 1])
    assert voi == AppliedVOI("frame", 200.5, 201)


@pytest.mark.parametrize("interpretation", INTERPRETATIONS)
@pytest.mark.parametrize("padding", [None, (7.0, 7.0)])
def test_f4_constant_or_all_padding(interpretation, padding):
    y = display([7, 7], padding=padding, photometric_interpretation=interpretation)
    assert y.tolist() == [0, 0]


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_f5_values_that_are_no_numbers(dtype):
    x = [NAN, 1, 3, math.inf]
    close(display(x, dtype=dtype), [0, 0, 1, 1])
    close(display(x, dtype=dtype, windows=[(2, 3)]), [0, 0.25, 1, 1])
    np.testing.assert_array_equal(modality(x, dtype=dtype), np.array(x, np.float32))
    assert display([NAN, NAN], dtype=dtype).tolist() == [0, 0]
    assert display([NAN], dtype=dtype, windows=[(2, 3)], voi_lut_function="SIGMOID").tolist() == [0]


@pytest.mark.parametrize(
    ("slope", "intercept", "window", "x", "y"),
    [
        (1.0, 0.0, (16, 128), [0, 16, 32, 48], [0.377953, 0.503937, 0.629921, 0.755906]),
        (1.0, 100.0, None, [100, 116, 132, 148], [0, 1 / 3, 2 / 3, 1]),
        (2.0, 0.0, None, [0, 32, 64, 96], [0, 1 / 3, 2 / 3, 1]),
        (2.0, 100.0, None, [100, 132, 164, 196], [0, 1 / 3, 2 / 3, 1]),
    ],
)
def test_f6_frames_with_and_without_a_window(slope, intercept, window, x, y):
    attributes: dict[str, Any] = {"rescale_slope": slope, "rescale_intercept": intercept}
    close(modality([0, 16, 32, 48], dtype="u1", **attributes), x)
    windows = [window] if window else []
    result, voi = run([0, 16, 32, 48], dtype="u1", windows=windows, **attributes)
    close(result[0], y)
    assert voi.voi == ("file" if window else "frame")


# --- 5. Padding: C.7.5.1.1.2 --------------------------------------------------------------------------


def test_p1_padding_is_background():
    attributes: dict[str, Any] = {"windows": [(-1500, 3000)], "padding": (-2000.0, -2000.0)}
    close(display([-2000, -1999, -1024], **attributes), [0, 0.333778, 0.658886])
    close(display([-2000], windows=[(-1500, 3000)]), [0.333444])


def test_p3_range_of_padding():
    y = display([0, 15, 30, 31], dtype="u2", windows=[(0, 101)], padding=(0.0, 30.0))
    close(y, [0, 0, 0, 0.5 + 31.5 / 100])


@pytest.mark.parametrize("padding", [(4000.0, 4095.0), (4095.0, 4000.0)])
def test_p4_padding_after_polarity(padding):
    attributes: dict[str, Any] = {
        "windows": [(2048, 4096)],
        "padding": padding,
        "photometric_interpretation": "MONOCHROME1",
    }
    close(display([4095, 4000, 3999, 0], dtype="u2", **attributes), [0, 0, 0.023443, 1])


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_p5_float_padding(dtype):
    padding = float(np.dtype(dtype).type(-1e30))
    for value in (padding, -1e30):
        y, voi = run([-1e30, 1, 2, 3], dtype=dtype, padding=(value, value))
        close(y[0], [0, 0, 0.5, 1])
        assert voi == AppliedVOI("frame", 2.5, 3)


def test_p6_zscore_without_padding():
    stored, padding = [-2000, 0, 10, 20], (-2000.0, -2000.0)
    y = run(stored, PixelOptions("modality", normalize="zscore"), padding=padding)[0][0]
    close(y, [0, -1.224745, 0, 1.224745])
    options = PixelOptions("modality", normalize="zscore", padding=-9)
    close(run(stored, options, padding=padding)[0][0], [-9, -1.224745, 0, 1.224745])


# --- 7. Colour: C.7.6.3.1.2, C.7.6.3.1.5, C.7.9.2, C.7.6.19 --------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "bits", "value", "y"),
    [("u1", 8, 255, 1), ("u1", 8, 128, 128 / 255), ("u2", 12, 1278, 0.312088), ("u2", 12, 4095, 1)],
)
def test_c10_windows_do_not_apply_to_colour(dtype, bits, value, y):
    stored = np.array([[[value, 0, value // 2]]])
    result, voi = run(stored, dtype=dtype, bits_stored=bits, windows=[(128, 100)])
    close(result[:, 0], [y, 0, (value // 2) / (2**bits - 1)])
    assert voi.voi == "full"
    assert math.isnan(voi.window_center)


def test_c11_gray():
    stored = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]])
    y, _ = run(stored, PixelOptions(color="gray"), dtype="u1")
    close(y, [[0.299, 0.587, 0.114, 1]])


def palette(stored: Any, tables: list[LookupTable], **kwargs: Any) -> np.ndarray:
    attributes: dict[str, Any] = {
        "photometric_interpretation": "PALETTE COLOR",
        "palette": tuple(tables),
    }
    return run(stored, kwargs.pop("options", None), **attributes, **kwargs)[0]


def test_c12_palette_in_the_high_bytes():
    tables = [lut(0, 16, [0xFF00, 0x7D00]), lut(0, 16, [0, 0xFF00]), lut(0, 16, [0, 0])]
    close(palette([0, 1], tables, dtype="u1"), [[1, 0.490196], [0, 1], [0, 0]])


def test_c13_palette_of_16_bits():
    tables = [lut(0, 16, [0x9696, 0xFFFF]), lut(0, 16, [0, 0xFF00]), lut(0, 16, [0, 0])]
    close(palette([0, 1], tables, dtype="u1"), [[0.588235, 1], [0, 0xFF00 / 65535], [0, 0]])


def test_palette_of_8_bits():
    tables = [lut(0, 8, [0, 51]), lut(0, 8, [255, 0]), lut(0, 8, [0, 0])]
    close(palette([0, 1], tables, dtype="u1"), [[0, 0.2], [1, 0], [0, 0]])


def test_c14_edges_of_a_palette():
    tables = [lut(10, 8, [1, 2, 3])] * 3
    close(palette([9, 10, 12, 13], tables, dtype="u1")[0] * 255, [1, 1, 3, 3])


def test_c15_segmented_palette():
    segments = np.array([0, 1, 0, 1, 4, 65280], "<u2").tobytes()
    table = lookup_table((5, 0, 16), segments, segmented=True)
    assert table is not None
    y = palette([0, 1, 2, 3, 4], [table] * 3, dtype="u1")
    # Low bytes of 16320 and its multiples are not 0, so white is 65535.
    close(y[2] * 65535, [0, 16320, 32640, 48960, 65280])


@pytest.mark.parametrize("presentation", ["MIXED", "COLOR"])
def test_c16_supplemental_palette(presentation):
    tables = (lut(4096, 16, [65535, 0]), lut(4096, 16, [0, 65535]), lut(4096, 16, [0, 0]))
    attributes: dict[str, Any] = {
        "windows": [(50.5, 101)],
        "pixel_presentation": presentation,
        "palette": tables,
    }
    y, _ = run([50, 100, 4096, 4097, 5000], dtype="u2", **attributes)
    close(y, [[0.5, 1, 1, 0, 0], [0.5, 1, 0, 1, 1], [0.5, 1, 0, 0, 0]])
    gray, _ = run([100, 4096], PixelOptions(color="gray"), dtype="u2", **attributes)
    close(gray, [[1, 0.299]])


# --- 8. Dose, real world values, segmentations ---------------------------------------------------------


@pytest.mark.parametrize("dtype", ["u2", "i4", "i8"])
def test_g6_dose(dtype):
    stored = [0, 12490, 24980]
    attributes: dict[str, Any] = {
        "modality": "RTDOSE",
        "dose_grid_scaling": 1e-4,
        "rescale_slope": 7.0,
    }
    close(modality(stored, dtype=dtype, **attributes), [0, 1.249, 2.498])
    array, about = frame(stored, dtype, **attributes)
    other, _ = frame([0, 24980, 49960], dtype)
    low = min(statistics.frame_range(part, about)[0] for part in (array, other))
    high = max(statistics.frame_range(part, about)[1] for part in (array, other))
    grid = SharedRange(low, high, "sample")
    y, voi = pixels.apply(array, about, PixelOptions(), shared=grid)
    close(y[0, 0], [0, 0.25, 0.5])
    assert (voi.voi, round(voi.window_width, 6)) == ("sample", 5.996)


def test_g6_dose_of_32_bits():
    attributes: dict[str, Any] = {"modality": "RTDOSE", "dose_grid_scaling": 1e-6}
    close(modality([1249000], dtype="i8", bits_stored=32, **attributes), [1.249])


def test_g6_dose_begins_at_0():
    attributes: dict[str, Any] = {"modality": "RTDOSE", "dose_grid_scaling": 1e-6}
    close(display([100, 200], dtype="i4", **attributes), [0.5, 1])
    array, about = frame([100, 200], "i4", **attributes)
    y, _ = pixels.apply(array, about, PixelOptions(), shared=SharedRange(1e-4, 4e-4))
    close(y[0, 0], [0.25, 0.5])


def test_dose_without_scaling():
    with pytest.raises(PixelValueError, match=r"\(3004,000E\)"):
        modality([1], modality="RTDOSE")


def test_g11_real_world_values():
    mapping = RealWorldValueMap(0, 4095, 1.0, -1024.0)
    options = PixelOptions("real_world")
    attributes: dict[str, Any] = {"real_world_value_map": mapping, "rescale_slope": 2.0}
    y, _ = run([0, 4095, 5000], options, dtype="u2", **attributes)
    np.testing.assert_array_equal(y[0], [-1024, 3071, NAN])
    table = RealWorldValueMap(10, 12, data=np.array([0.5, 1.5, -2.5]))
    y, _ = run([9, 10, 11, 12, 13], options, real_world_value_map=table)
    np.testing.assert_array_equal(y[0], [NAN, 0.5, 1.5, -2.5, NAN])
    with pytest.raises(PixelValueError, match=r"\(0040,9096\)"):
        run([0], options)


@pytest.mark.parametrize(
    ("kind", "maximum", "stored", "y"),
    [
        ("FRACTIONAL", 255, 127, 0.498039),
        ("FRACTIONAL", 100, 50, 0.5),
        ("BINARY", -1, 1, 1),
        ("LABELMAP", -1, 5, 5),
    ],
)
@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_g12_segmentations(kind, maximum, stored, y, dtype):
    attributes: dict[str, Any] = {
        "modality": "SEG",
        "segmentation_type": kind,
        "maximum_fractional_value": maximum,
        "bits_stored": 1 if kind == "BINARY" else 8,
    }
    close(display([0, stored], dtype=dtype, **attributes), [0, y])
