"""Stored values -> the tensor asked for: the fused pass over the pixels, statistics, sizes and types.

Everything here is pure. `apply` has three ways that give the same values: one multiplication, one addition and one
clamp where that is all there is to it; a table of all stored values where they are at most 16 bits wide; the formulas
in float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dicomtorch.errors import PixelValueError
from dicomtorch.model.frame import AppliedVOI, FrameValues, Reduced
from dicomtorch.model.options import PixelOptions
from dicomtorch.pixels.dtypes import Array, holds_range, output_dtype
from dicomtorch.pixels.formulas import evaluate, padding_mask, with_range
from dicomtorch.pixels.linear import fill_linear
from dicomtorch.pixels.plan import Plan, make_plan, output_shape
from dicomtorch.pixels.resize import resize, resize_nearest, resize_reduced
from dicomtorch.pixels.statistics import modality_span, normalized
from dicomtorch.pixels.voi import (
    Mapping,
    SharedRange,
    ranged,
)

# BT.601, as in PS3.3 C.7.6.3.1.2.
LUMA = (0.299, 0.587, 0.114)


def apply(
    stored: Array | Reduced,
    frame: FrameValues,
    options: PixelOptions,
    out: Tensor | None = None,
    *,
    shared: SharedRange | Sequence[SharedRange | None] | None = None,
    plan: Plan | None = None,
) -> tuple[Tensor, AppliedVOI]:
    """Makes the tensor of one frame.

    Args:
        stored: Stored values as a backend gives them, (rows, columns) or (rows, columns, samples); or what was decoded
            of them at less than their resolution, if `reduced.reduction_levels` admits it.
        frame: What the frame says about them.
        options: What is asked for.
        out: (C, H, W) on the CPU to write into, of the type of `output_dtype`; `None` for a new tensor.
        shared: One mapping to display for several frames; for each channel one if there are several windows.
        plan: `make_plan(values, options)`, if the caller has kept it.

    Returns:
        The tensor (`out` if given), and how it was made display values: of the first channel.

    Raises:
        PixelValueError: The values asked for cannot be made of this frame, or do not fit the type.
    """
    plan = plan or make_plan(frame, options)
    if not isinstance(stored, Reduced) and stored.shape != frame.pixel.shape:
        raise PixelValueError(
            f"stored values have shape {stored.shape}; (0028,0010) Rows, (0028,0011) Columns and (0028,0002) "
            f"SamplesPerPixel say {frame.pixel.shape}"
        )
    shape = plan.shape if plan.frame is frame else output_shape(frame, options)
    if out is None:
        out = torch.empty(shape, dtype=output_dtype((frame.pixel,), options))
    elif out.shape != shape:
        raise PixelValueError(f"out has shape {tuple(out.shape)}; this frame needs {shape}")
    samples = stored.samples if isinstance(stored, Reduced) else stored
    planes = samples[None] if samples.ndim == 2 else samples.transpose(2, 0, 1)
    if isinstance(stored, Reduced):
        channels = with_range(plan, shared)
        _convert(planes, plan, channels, out, stored)
        return out, channels[0].voi
    if (
        shared is None
        and plan.linear
        and out.dtype == torch.float32
        and out.is_contiguous()
        and not _has_other_sign(stored, plan)
    ):
        fill_linear(planes, out.numpy(), *plan.linear)
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
    return stored.dtype == np.int8 and not plan.frame.pixel.pixel_representation


def _with_sign(plan: Plan) -> Plan:
    """`plan` for a signed stream in an unsigned header, whose full range is another than the header says."""
    half = 1 << (plan.frame.pixel.bits_stored - 1)
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
        fits = holds_range(dtype, int(low), int(high))
    elif dtype.is_floating_point:
        exact = what != "stored values" or dtype == torch.float64 or planes.dtype == np.float32
        finite = np.isfinite(planes)
        largest = float(np.abs(planes[finite]).max(initial=0))
        fits = exact and largest <= torch.finfo(dtype).max
        low, high = -largest, largest
    else:
        low, high = float(planes.min()), float(planes.max())
        fits = bool(np.isfinite(planes).all() and (planes == np.rint(planes)).all())
        fits = fits and holds_range(dtype, math.floor(low), math.ceil(high))
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


def _convert(
    planes: Array,
    plan: Plan,
    channels: tuple[Mapping, ...],
    out: Tensor,
    reduced: Reduced | None = None,
) -> None:
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
    _fill(planes, plan, channels, part, are_means=reduced is not None)
    if reduced is None:
        _check_overflow(planes, part)
    if plan.paints or channels is not plan.channels or options.normalize is not None:
        _paint_padding(planes, plan, part)
    if options.color == "gray" and computed == 3 and (len(planes) == 3 or plan.palette):
        image = _gray(part)
        if options.values == "display":
            np.minimum(image, 1.0, out=image)  # in some orders the three weights add up to more
    elif computed < out.shape[0]:
        image[computed:] = image[:computed]
    if direct:
        return
    if options.size is not None:
        indices = plan.frame.pixel.is_palette and not plan.palette
        if indices or plan.frame.segmentation_type in ("BINARY", "LABELMAP"):
            image = resize_nearest(image, options.size)
        else:
            around = surroundings(plan)
            if reduced is None:
                image = resize(image, options.size, around)
            else:
                pixel = plan.frame.pixel
                image = resize_reduced(
                    reduced, image, (pixel.rows, pixel.columns), options.size, around
                )
            if span := bounds(plan):
                np.clip(image, *span, out=image)
    _cast(image, out, f"{options.values} values")


def _gray(image: Array) -> Array:
    """(1, H, W): weighted channels, added in their order, so that every machine rounds alike."""
    gray: Array = image[:1] * image.dtype.type(LUMA[0])
    for k in (1, 2):
        gray += image[k : k + 1] * image.dtype.type(LUMA[k])
    return gray


def surroundings(plan: Plan) -> float | None:
    """What surrounds a resized image; `None`: its lowest finite value."""
    options = plan.options
    if not isinstance(options.padding, str):
        return options.padding
    # 0 is black in display and the mean or the lowest value after normalisation; elsewhere it may be water.
    return 0.0 if options.values == "display" or options.normalize is not None else plan.lowest


def bounds(plan: Plan) -> tuple[float, float] | None:
    """Between what a resized image is brought, if anything.

    The weights of a mean do not quite add up to 1; a number that the user gave for padding stays.
    """
    if plan.options.values != "display":
        return None
    given = surroundings(plan) or 0.0
    return min(0.0, given), max(1.0, given)


def _fill(
    planes: Array,
    plan: Plan,
    channels: tuple[Mapping, ...],
    image: Array,
    *,
    are_means: bool = False,
) -> None:
    if plan.is_affine and all(mapping.kind == "linear" for mapping in channels):
        for k, mapping in enumerate(channels):
            part = image if len(channels) == 1 else image[k : k + 1]
            numbers = (*plan.folded(mapping), mapping.low, mapping.high)
            fill_linear(planes, part, *numbers, are_means=are_means)
        if plan.options.values == "display" and planes.dtype.kind == "f" and not are_means:
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


def _check_overflow(planes: Array, image: Array) -> None:
    """Floating point pixel data may give what the tensor does not hold; display has clamped it by now."""
    if planes.dtype.kind == "f":
        lost = np.isinf(image) & np.isfinite(planes)
        if lost.any():
            raise PixelValueError(
                f"{int(lost.sum())} values of this frame are beyond {image.dtype}; "
                "use dtype='float64' or values='stored'"
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
