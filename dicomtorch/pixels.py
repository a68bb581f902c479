"""Stored values -> the tensor asked for: the fused pass over the pixels, statistics, sizes and types.

Everything here is pure. `apply` has three ways that give the same values: one multiplication, one addition and one
clamp where that is all there is to it; a table of all stored values where they are at most 16 bits wide; the formulas
in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dicomtorch.attributes import (
    AppliedVOI,
    FrameValues,
    ImagePixel,
    PixelOptions,
)
from dicomtorch.errors import OptionError, PixelValueError
from dicomtorch.pipeline import (
    Plan,
    evaluate,
    make_plan,
    modality,
    num_channels,
    output_shape,
    padding_mask,
    with_range,
)
from dicomtorch.resize import Resized, resize, resize_nearest, resized
from dicomtorch.voi import Mapping, Range, SharedRange, common_window, is_supplemental, ranged

__all__ = [
    "Plan",
    "Resized",
    "SharedRange",
    "apply",
    "common_window",
    "frame_range",
    "normalized",
    "num_channels",
    "output_dtype",
    "output_shape",
    "padding_mask",
    "make_plan",
    "resized",
]

Array = npt.NDArray[Any]

# BT.601, as in PS3.3 C.7.6.3.1.2.
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
PERCENTILES = (1.0, 99.0)

STORED_DTYPES = (
    torch.uint8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.float32,
    torch.float64,
)
# Whole numbers up to here are exact.
EXACT = {
    torch.float16: 1 << 11,
    torch.bfloat16: 1 << 8,
    torch.float32: 1 << 24,
    torch.float64: 1 << 53,
}

# A scaled value far from 0 loses digits when the offset brings it back; beyond this, the origin is moved first.
LARGEST_OFFSET = 4.0
# Pixels are converted in blocks that stay in the cache of one core.
BLOCK = 1 << 18


def output_dtype(pixels: Iterable[ImagePixel], options: PixelOptions) -> torch.dtype:
    """The one type of all tensors of a dataset.

    For "stored" it is the smallest of uint8, int16, int32, int64, float32 and float64 that holds all that the headers
    admit; for everything else float32; the user's if that loses nothing.

    Raises:
        OptionError: No type holds them, or the one asked for does not.
    """
    wanted = None if options.dtype is None else torch_dtype(options.dtype)
    if options.values != "stored":
        return wanted or torch.float32
    distinct = list(pixels)
    if wanted is not None:
        for pixel in distinct:
            if not _holds(wanted, pixel):
                raise OptionError(
                    f"dtype={options.dtype!r} does not hold stored values with (0028,0101) BitsStored "
                    f"{pixel.bits_stored}, PixelRepresentation {pixel.pixel_representation} "
                    f"({pixel.stored_dtype}); use dtype=None, or leave such frames out"
                )
        return wanted
    for dtype in STORED_DTYPES:
        if all(_holds(dtype, pixel) for pixel in distinct):
            return dtype
    raise OptionError(
        "no one type holds all stored values: (0028,0101) BitsStored are "
        f"{sorted({pixel.bits_stored for pixel in distinct})}, of them float: "
        f"{any(pixel.is_float for pixel in distinct)}; use values='modality', or leave some frames out"
    )


def torch_dtype(name: str) -> torch.dtype:
    """The torch type of a name that `PixelOptions` accepts."""
    dtype = getattr(torch, name)
    assert isinstance(dtype, torch.dtype)
    return dtype


def _holds(dtype: torch.dtype, pixel: ImagePixel) -> bool:
    if pixel.is_float:
        # float32 and float64 are the only float types that pixel data have.
        return dtype == torch.float64 or (dtype == torch.float32 and pixel.pixel_data_vr == "OF")
    low = -(1 << (pixel.bits_stored - 1)) if pixel.pixel_representation else 0
    high = low + (1 << pixel.bits_stored) - 1
    return _holds_range(dtype, low, high)


def _holds_range(dtype: torch.dtype, low: int, high: int) -> bool:
    if dtype.is_floating_point:
        return max(-low, high) <= EXACT[dtype]
    info = torch.iinfo(dtype)
    return info.min <= low and high <= info.max


def frame_range(stored: Array, values: FrameValues) -> Range:
    """Lowest and highest modality value of a frame, without padding and what is not finite.

    Returns:
        (inf, -inf) if nothing is left, so that the range of several frames is the least of the lowest and the greatest
        of the highest.
    """
    return modality_span(stored, make_plan(values, PixelOptions("modality")))


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
    if is_supplemental(plan.values):
        colored = stored >= plan.values.palette[0].first_mapped
        mask = colored if mask is None else mask | colored
    counted = stored if mask is None else stored[~mask]
    return counted[np.isfinite(counted)] if stored.dtype.kind == "f" else counted


def apply(
    stored: Array,
    values: FrameValues,
    options: PixelOptions,
    out: Tensor | None = None,
    *,
    shared: SharedRange | Sequence[SharedRange | None] | None = None,
    plan: Plan | None = None,
) -> tuple[Tensor, AppliedVOI]:
    """Makes the tensor of one frame.

    Args:
        stored: Stored values as a backend gives them: (rows, columns) or (rows, columns, samples).
        values: What the frame says about them.
        options: What is asked for.
        out: (C, H, W) on the CPU to write into, of the type of `output_dtype`; `None` for a new tensor.
        shared: One mapping to display for several frames; for each channel one if there are several windows.
        plan: `make_plan(values, options)`, if the caller has kept it.

    Returns:
        The tensor (`out` if given), and how it was made display values: of the first channel.

    Raises:
        PixelValueError: The values asked for cannot be made of this frame, or do not fit the type.
    """
    plan = plan or make_plan(values, options)
    if stored.shape != values.pixel.shape:
        raise PixelValueError(
            f"stored values have shape {stored.shape}; (0028,0010) Rows, (0028,0011) Columns and (0028,0002) "
            f"SamplesPerPixel say {values.pixel.shape}"
        )
    shape = plan.shape if plan.values is values else output_shape(values, options)
    if out is None:
        out = torch.empty(shape, dtype=output_dtype((values.pixel,), options))
    elif out.shape != shape:
        raise PixelValueError(f"out has shape {tuple(out.shape)}; this frame needs {shape}")
    planes = stored[None] if stored.ndim == 2 else stored.transpose(2, 0, 1)
    if (
        shared is None
        and plan.linear
        and out.dtype == torch.float32
        and out.is_contiguous()
        and not _has_other_sign(stored, plan)
    ):
        _linear(planes, out.numpy(), *plan.linear)
        return out, plan.channels[0].voi
    if options.values == "stored":
        _store(planes, plan, out)
        return out, AppliedVOI()
    channels = _ranged_channels(stored, plan, shared)
    _convert(planes, plan, channels, out)
    return out, channels[0].voi if channels else AppliedVOI("full")


def _ranged_channels(
    stored: Array, plan: Plan, shared: SharedRange | Sequence[SharedRange | None] | None
) -> tuple[Mapping, ...]:
    if _has_other_sign(stored, plan):
        plan = _with_sign(plan)
    channels = with_range(plan, shared)
    if all(mapping.kind != "range" for mapping in channels):
        return channels
    span = modality_span(stored, plan)
    return tuple(
        ranged(mapping, span, mapping.voi.voi or "frame") if mapping.kind == "range" else mapping
        for mapping in channels
    )


def _has_other_sign(stored: Array, plan: Plan) -> bool:
    return stored.dtype == np.int8 and not plan.values.pixel.pixel_representation


def _with_sign(plan: Plan) -> Plan:
    """`plan` for a signed stream in an unsigned header, whose full range is another than the header says."""
    half = 1 << (plan.values.pixel.bits_stored - 1)
    full = ranged(Mapping("range"), (-half, half - 1), "full")
    channels = (full if c.voi.voi == "full" and not c.fixed else c for c in plan.channels)
    return replace(plan, channels=tuple(channels))


# --- Stored values ------------------------------------------------------------------------------------


def _store(planes: Array, plan: Plan, out: Tensor) -> None:
    """Copies stored values into the type of the dataset."""
    options = plan.options
    mask = None if plan.background is None else padding_mask(planes, plan.padding)
    if mask is not None:
        planes = planes.copy()
        planes[mask] = _stored_background(planes, mask, plan)
    if options.size is not None:
        planes = resize_nearest(planes, options.size)
    _cast(planes, out, "stored values")


def _stored_background(planes: Array, mask: npt.NDArray[np.bool_], plan: Plan) -> Any:
    given = plan.lowest if isinstance(plan.options.padding, str) else plan.options.padding
    if given is not None:
        with np.errstate(all="ignore"):
            number = np.asarray(given).astype(planes.dtype)
        if number != given and not (math.isnan(given) and np.isnan(number)):
            raise PixelValueError(
                f"padding={given:g} is no value of {planes.dtype}, the type of the stored values of this frame"
            )
        return number
    counted = planes[~mask]
    return counted.min() if counted.size else planes.dtype.type(0)


def _cast(planes: Array, out: Tensor, what: str) -> None:
    """Copies numbers into `out`, or raises if one of them is not a value of its type."""
    dtype = out.dtype
    low: float
    high: float
    if dtype != torch.bfloat16 and np.can_cast(planes.dtype, out.numpy().dtype):
        np.copyto(out.numpy(), planes)
        return
    if planes.dtype.kind in "iu":
        low, high = int(planes.min(initial=0)), int(planes.max(initial=0))
        fits = _holds_range(dtype, int(low), int(high))
    elif dtype.is_floating_point:
        exact = what != "stored values" or dtype == torch.float64 or planes.dtype == np.float32
        finite = np.isfinite(planes)
        largest = float(np.abs(planes[finite]).max(initial=0))
        fits = exact and largest <= torch.finfo(dtype).max
        low, high = -largest, largest
    else:
        low, high = float(planes.min()), float(planes.max())
        fits = bool(np.isfinite(planes).all() and (planes == np.rint(planes)).all())
        fits = fits and _holds_range(dtype, math.floor(low), math.ceil(high))
    if not fits:
        raise PixelValueError(
            f"{what} of this frame ({planes.dtype}, {low:g} to {high:g}) are not all values of {dtype}; "
            "choose another dtype="
        )
    if dtype == torch.bfloat16:
        out.copy_(torch.from_numpy(np.ascontiguousarray(planes, np.float32)))
    else:
        np.copyto(out.numpy(), planes, casting="unsafe")


# --- Computed values ----------------------------------------------------------------------------------


def _convert(planes: Array, plan: Plan, channels: tuple[Mapping, ...], out: Tensor) -> None:
    """Fills `out` with everything but stored values."""
    options = plan.options
    computed = 3 if plan.palette else max(len(planes), len(channels))
    direct = (
        out.dtype in (torch.float32, torch.float64)
        and options.size is None
        and (out.shape[0] >= computed)
        and out.is_contiguous()
    )
    if direct:
        image = out.numpy()
    else:
        kind = np.float64 if out.dtype == torch.float64 else np.float32
        image = np.empty((max(computed, out.shape[0]), *planes.shape[1:]), kind)
    part = image[:computed]
    _fill(planes, plan, channels, part)
    _check_overflow(planes, part)
    if plan.paints or channels is not plan.channels or options.normalize is not None:
        _paint_padding(planes, plan, part)
    if options.color == "gray" and computed == 3 and (len(planes) == 3 or plan.palette):
        image = np.tensordot(LUMA.astype(image.dtype), part, 1)[None]
    elif computed < out.shape[0]:
        image[computed:] = image[:computed]
    if direct:
        return
    if options.size is not None:
        indices = plan.values.pixel.is_palette and not plan.palette
        if indices or plan.values.segmentation_type in ("BINARY", "LABELMAP"):
            image = resize_nearest(image, options.size)
        else:
            image = resize(image, options.size, _surroundings(plan))
    _cast(image, out, f"{options.values} values")


def _surroundings(plan: Plan) -> float | None:
    options = plan.options
    if not isinstance(options.padding, str):
        return options.padding
    # 0 is black in display and the mean or the lowest value after normalisation; elsewhere it may be water.
    return 0.0 if options.values == "display" or options.normalize is not None else plan.lowest


def _fill(planes: Array, plan: Plan, channels: tuple[Mapping, ...], image: Array) -> None:
    if plan.is_affine and all(mapping.kind == "linear" for mapping in channels):
        if len(channels) == 1:
            mapping = channels[0]
            _linear(planes, image, *plan.folded(mapping), mapping.low, mapping.high)
        else:
            for k, mapping in enumerate(channels):
                _linear(planes, image[k : k + 1], *plan.folded(mapping), mapping.low, mapping.high)
        if plan.options.values == "display" and planes.dtype.kind == "f":
            image[np.isnan(image)] = 0.0
        return
    stored = planes[0]
    if stored.dtype.kind in "iu" and stored.dtype.itemsize <= 2:
        table = _table(plan, channels, stored, image.dtype)
        if table is not None:
            index = np.ascontiguousarray(stored).view(f"u{stored.dtype.itemsize}")
            for k in range(len(image)):
                # The table has an entry for every index: "wrap" only saves the test.
                np.take(table[k], index, out=image[k], mode="wrap")
            return
    image[...] = evaluate(plan, channels, stored)


def _table(
    plan: Plan, channels: tuple[Mapping, ...], stored: Array, dtype: np.dtype[Any]
) -> Array | None:
    """Results for every stored value of a type, in the order of their bits read as unsigned.

    Returns:
        (channels, values), or `None` where the image has fewer pixels than there are values.
    """
    key = f"{stored.dtype.str} {dtype.str}"
    kept = channels is plan.channels
    table = plan.tables.get(key) if kept else None
    if table is None and stored.size >= 1 << (8 * stored.dtype.itemsize):
        bits = np.arange(1 << (8 * stored.dtype.itemsize)).astype(f"u{stored.dtype.itemsize}")
        table = evaluate(plan, channels, bits.view(stored.dtype)).astype(dtype)
        if kept:
            plan.tables[key] = table
    return table


Step = tuple[Callable[..., Any], tuple[Any, ...]]


def _linear(
    planes: Array, image: Array, scale: float, offset: float, low: float, high: float
) -> None:
    """Computes clip(planes * scale + offset, low, high), right to some 2e-7 of the larger of 1 and the result."""
    steps = _steps(planes.dtype, image.dtype, scale, offset, low, high)
    if planes.size <= BLOCK:
        _run(planes, image, steps)
        return
    rows = max(1, BLOCK // max(1, planes.shape[0] * planes.shape[2]))
    for start in range(0, planes.shape[1], rows):
        part = np.s_[:, start : start + rows]
        _run(planes[part], image[part], steps)


def _run(planes: Array, image: Array, steps: tuple[Step, ...]) -> None:
    # Few long calls: each gives the interpreter's lock away and has to get it back.
    (begin, operands), *rest = steps
    begin(planes, image, *operands)
    for function, operands in rest:
        function(image, *operands, out=image)


@lru_cache(maxsize=1024)
def _steps(
    stored: np.dtype[Any],
    image: np.dtype[Any],
    scale: float,
    offset: float,
    low: float,
    high: float,
) -> tuple[Step, ...]:
    """The calls that `_linear` is made of: the first one from stored values to the image, the others in place."""
    steps = _scaling(stored, image, scale, offset)
    if low == -math.inf and high == math.inf:
        return steps
    clamped: tuple[Step, ...] = (*steps, (np.ndarray.clip, (image.type(low), image.type(high))))
    if stored.itemsize > 1:
        return clamped
    # 8-bit images that use their full range have nothing to clamp.
    ends = np.array([np.iinfo(stored).min, np.iinfo(stored).max], stored)
    results = np.empty(2, image)
    _run(ends, results, steps)
    return steps if low <= results.min() and results.max() <= high else clamped


def _scaling(
    stored: np.dtype[Any], image: np.dtype[Any], scale: float, offset: float
) -> tuple[Step, ...]:
    if scale == 0.0:
        return ((_constant, (offset,)),)
    small = stored.kind in "iu" and stored.itemsize <= 2
    if image == np.float64 or not small or abs(offset / scale) >= EXACT[torch.float32] / 2:
        return ((_in_float64, (scale, offset)),)
    steps: list[Step] = [(_cast_exactly, ())]
    whole = scale.is_integer() and offset.is_integer() and abs(scale) < 256
    if abs(offset) > LARGEST_OFFSET and not whole:
        # Differences of whole numbers are exact.
        origin = round(-offset / scale)
        steps.append((np.subtract, (np.float32(origin),)))
        offset += origin * scale
    if scale != 1.0:
        steps.append((np.multiply, (np.float32(scale),)))
    if offset != 0.0:
        steps.append((np.add, (np.float32(offset),)))
    return tuple(steps)


def _constant(planes: Array, image: Array, number: float) -> None:
    image.fill(number)


def _cast_exactly(planes: Array, image: Array) -> None:
    np.copyto(image, planes)


def _in_float64(planes: Array, image: Array, scale: float, offset: float) -> None:
    """Only the result is rounded, and neither scale nor value need be one of float32."""
    with np.errstate(over="ignore", invalid="ignore"):
        numbers = np.multiply(planes, scale, dtype=np.float64)
        np.add(numbers, offset, out=image, casting="same_kind")


def _check_overflow(planes: Array, image: Array) -> None:
    """float64 pixel data may hold what float32 cannot; display has clamped it by now."""
    if planes.dtype == np.float64 and image.dtype == np.float32:
        lost = np.isinf(image) & np.isfinite(planes)
        if lost.any():
            raise PixelValueError(
                f"{int(lost.sum())} values of this frame are beyond float32; use dtype='float64'"
            )


def _paint_padding(planes: Array, plan: Plan, image: Array) -> None:
    """Normalises, where asked for, and gives padded pixels their value."""
    options = plan.options
    if plan.background is None and options.normalize is None:
        return
    mask = padding_mask(planes, plan.padding)
    if options.normalize is not None:
        image[...] = normalized(image, options.normalize, mask, plan.statistics)
    if mask is None or plan.background is None:
        return
    background = plan.background
    if options.padding == "fill" and math.isnan(background):
        counted = image[np.isfinite(image) & ~mask]
        own = float(counted.min()) if counted.size else 0.0
        background = own if plan.lowest is None else plan.lowest
    np.copyto(image, background, where=mask)


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
    result = (sample - center) / width
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
        return mean, float(np.sqrt(np.square(sample - mean).mean(dtype=np.float64)))
    if how == "minmax":
        low, high = float(sample.min()), float(sample.max())
    else:
        low, high = (float(q) for q in np.percentile(sample, PERCENTILES))
    return low, high - low
