"""Ranges, percentiles and normalization of one frame."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from dicomtorch.errors import PixelValueError
from dicomtorch.model.frame import FrameValues
from dicomtorch.model.options import PixelOptions
from dicomtorch.pixels.dtypes import Array
from dicomtorch.pixels.formulas import modality, padding_mask
from dicomtorch.pixels.linear import LARGEST_SCALE, SMALLEST_SCALE
from dicomtorch.pixels.plan import Plan, make_plan
from dicomtorch.pixels.voi import Range, is_supplemental, rescale

PERCENTILES = (1.0, 99.0)


def frame_range(stored: Array, frame: FrameValues) -> Range:
    """Lowest and highest modality value of a frame, without padding and what is not finite.

    Returns:
        (inf, -inf) if nothing is left, so that the range of several frames is the least of the lowest and the greatest
        of the highest.

    Raises:
        PixelValueError: The values are beyond float64.
    """
    return modality_span(stored, make_plan(frame, PixelOptions("modality")))


def modality_span(stored: Array, plan: Plan) -> Range:
    """As `frame_range`, with a plan that is there already."""
    counted = _counted(stored, plan)
    if not counted.size:
        return (math.inf, -math.inf)
    if plan.is_affine:
        ends = np.array([counted.min(), counted.max()])
        ends = modality(plan, ends)
    else:
        ends = modality(plan, np.unique(counted))
    if np.isinf(ends).any():
        slope, intercept = rescale(plan.frame)
        raise PixelValueError(
            f"(0028,1053) RescaleSlope is {slope:g} and (0028,1052) RescaleIntercept is {intercept:g}: values of this "
            "frame are beyond float64; use values='stored'"
        )
    ends = ends[np.isfinite(ends)]
    return (float(ends.min()), float(ends.max())) if ends.size else (math.inf, -math.inf)


def modality_sample(stored: Array, plan: Plan) -> Array:
    """The modality values that enter a statistic, in one row, of the type that tensors have."""
    numbers = modality(plan, _counted(stored, plan).ravel())
    kind = np.float64 if plan.options.dtype == "float64" else np.float32
    return numbers[np.isfinite(numbers)].astype(kind)


def _counted(stored: Array, plan: Plan) -> Array:
    """Stored values that enter a statistic."""
    mask = padding_mask(stored, plan.padding)
    if is_supplemental(plan.frame):
        colored = stored >= plan.frame.palette[0].first_mapped
        mask = colored if mask is None else mask | colored
    counted = stored if mask is None else stored[~mask]
    return counted[np.isfinite(counted)] if stored.dtype.kind == "f" else counted


def normalized(
    image: Array,
    how: str | tuple[float, float],
    mask: npt.NDArray[np.bool_] | None = None,
    known: tuple[float, float] | None = None,
) -> Array:
    """Normalises modality values; for a clip or a volume pass all of it.

    "minmax": to [0, 1]. "zscore": mean 0 and (population) standard deviation 1. "percentile": the 1st to the 99th
    percentile to [0, 1], clamped. (mean, standard deviation): those are subtracted and divided by. A constant image
    gives 0.

    Args:
        image: Modality values of any shape.
        how: See above.
        mask: Where there is padding, of a shape that broadcasts.
        known: `statistics` of the whole sample, if `image` is a part of it.

    Returns:
        Of the type of `image`; 0 where there is padding or what is not finite, which enter no statistic.
    """
    counted = np.isfinite(image)
    if mask is not None:
        counted &= ~mask
    whole = bool(counted.all())
    sample = image if whole else image[counted]
    if not sample.size:
        return np.zeros_like(image)
    center, width = known or statistics(sample, how)
    if width <= 0:
        return np.zeros_like(image)
    if SMALLEST_SCALE < width < LARGEST_SCALE and abs(center) < LARGEST_SCALE:
        result = (sample - center) / width
    else:  # float32 has no room for the difference, or for its inverse
        result = ((sample.astype(np.float64) - center) / width).astype(sample.dtype)
    if how == "percentile":
        np.clip(result, 0.0, 1.0, out=result)
    if whole:
        return result
    image = np.zeros_like(image)
    image[counted] = result
    return image


def statistics(sample: Array, how: str | tuple[float, float]) -> tuple[float, float]:
    """What `normalized` subtracts and divides by; (0, 0) of nothing."""
    if isinstance(how, tuple):
        return how
    if not sample.size:
        return 0.0, 0.0
    if how == "zscore":
        # The mean is taken off first: sums of squares of large values have no digits left for small differences.
        mean = float(sample.mean(dtype=np.float64))
        return mean, float(np.sqrt(np.square(sample - mean, dtype=np.float64).mean()))
    if how == "minmax":
        low, high = float(sample.min()), float(sample.max())
    else:
        low, high = (float(q) for q in np.percentile(sample, PERCENTILES))
    return low, high - low
