"""Attributes of the header that give values which no tensor can hold: finite numbers, but far beyond any real one."""

from __future__ import annotations

import numpy as np

from dicomtorch.errors import PixelValueError
from dicomtorch.model.frame import FrameValues, RealWorldValueMap
from dicomtorch.model.image import ImagePixel
from dicomtorch.model.options import PixelOptions
from dicomtorch.pixels.voi import Range, is_dose, rescale

_ROOM = 4.0  # differences and sums of two display values stay finite, too


def stored_range(pixel: ImagePixel) -> Range:
    """The lowest and the highest stored value that a header admits; (-1, 1) for floating point numbers."""
    if pixel.is_float:
        return (-1.0, 1.0)
    low = -(1 << pixel.bits_stored - 1) if pixel.pixel_representation else 0
    return (float(low), float(low + (1 << pixel.bits_stored) - 1))


def check_rescale(
    frame: FrameValues, options: PixelOptions, slope: float, intercept: float
) -> None:
    """Refuses a slope and an intercept whose values the tensor would hold as infinity, as 0, or all as one number.

    Args:
        frame: The frame.
        options: What is asked for: display values are computed in float64, others have the type of the tensor.
        slope: Of the values asked for.
        intercept: The same.

    Raises:
        PixelValueError: With the attribute and what it is.
    """
    own_slope, own_intercept = rescale(frame)
    names = f"(0028,1053) RescaleSlope is {own_slope:g} and (0028,1052) RescaleIntercept is {own_intercept:g}"
    if is_dose(frame):
        names = f"(3004,000E) DoseGridScaling is {frame.dose_grid_scaling:g}"
    if options.values == "suvbw":
        names = f"{names}, with the factor of the SUV"
    display = options.values == "display"
    dtype = "float64" if display or options.dtype == "float64" else "float32"
    _check_linear(names, slope, intercept, stored_range(frame.pixel), dtype)
    if display and slope and intercept + slope == intercept:
        raise PixelValueError(
            f"{names}: all values of this frame would be one number; use values='stored'"
        )


def check_real_world(frame: FrameValues, dtype: str | None) -> None:
    """The same for a Real World Value Map.

    Args:
        frame: The frame, which has one.
        dtype: Of the tensor, `None` for float32.

    Raises:
        PixelValueError: With the attribute and what it is.
    """
    mapping = frame.real_world_value_map
    assert isinstance(mapping, RealWorldValueMap)
    kind = "float64" if dtype == "float64" else "float32"
    if mapping.data is not None:
        largest = np.finfo(kind).max
        beyond = ~(np.abs(np.asarray(mapping.data, np.float64)) <= largest)
        if beyond.any():
            raise PixelValueError(
                f"(0040,9212) RealWorldValueLUTData has {int(beyond.sum())} of {beyond.size} entries that {kind} does "
                "not hold as finite numbers; use values='stored'"
            )
        return
    low, high = stored_range(frame.pixel)
    if not frame.pixel.is_float:
        low, high = max(low, mapping.first), min(high, mapping.last)
    names = (
        f"(0040,9225) RealWorldValueSlope is {mapping.slope:g} and (0040,9224) RealWorldValueIntercept is "
        f"{mapping.intercept:g}"
    )
    _check_linear(names, mapping.slope, mapping.intercept, (low, high), kind)


def _check_linear(names: str, slope: float, intercept: float, span: Range, dtype: str) -> None:
    limits = np.finfo(dtype)
    most = float(limits.max) / _ROOM
    ends = [slope * end + intercept for end in span]
    if slope and abs(slope) < float(limits.smallest_normal):
        what = "would be too small"
    elif not all(abs(end) <= most for end in (slope, intercept, *ends)):
        what = "would be too large"
    else:
        return
    other = "" if dtype == "float64" else " dtype='float64' or"
    raise PixelValueError(
        f"{names}: values of this frame {what} for {dtype}; use{other} values='stored'"
    )
