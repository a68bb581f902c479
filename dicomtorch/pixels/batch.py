"""Stored values that are a tensor already -> the values asked for: whole batches, on any device.

What `pixels` does to a frame while it is read, for batches that went through pinned memory or to a device as the small
integers that they are in the file. The same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dicomtorch.errors import OptionError
from dicomtorch.model.frame import AppliedVOI
from dicomtorch.pixels import frame as pixels
from dicomtorch.pixels.dtypes import Array
from dicomtorch.pixels.formulas import evaluate, modality, with_range
from dicomtorch.pixels.linear import coefficients
from dicomtorch.pixels.memory import new_batch
from dicomtorch.pixels.plan import Plan
from dicomtorch.pixels.voi import Mapping, SharedRange, ranged

_EXACT_BITS = 16  # wide integers and floats go through float64, frame by frame
Mappings = tuple[Mapping, ...]


class Conversion(NamedTuple):
    """What is done to one frame of a batch.

    Attributes:
        plan: Made for the values asked for.
        shared: The ranges that its channels have in common with other frames, if any.
    """

    plan: Plan
    shared: SharedRange | Sequence[SharedRange | None] | None = None


def convert(stored: Tensor, frames: Sequence[Conversion]) -> tuple[Tensor, list[AppliedVOI]]:
    """Converts a batch where it lies.

    Args:
        stored: (B, C, H, W), stored values as the files have them, not resized and with their padding.
        frames: What is done to each.

    Returns:
        (B, C', H, W), float32, and how each frame was made display values.

    Raises:
        OptionError: The frames have different numbers of channels then.
        PixelValueError: The values asked for cannot be made of these.
    """
    counts = {frame.plan.shape[0] for frame in frames}
    if len(counts) != 1:
        raise OptionError(
            f"the frames of this batch get {sorted(counts)} channels; make them equal with color="
        )
    if stored.device.type != "cpu":
        return convert_together(stored, frames)
    images = new_batch((len(stored), counts.pop(), *stored.shape[-2:]), torch.float32)
    applied = [
        _by_itself(image, frame, out)
        for image, frame, out in zip(stored, frames, images, strict=True)
    ]
    return images, applied


def convert_together(
    stored: Tensor, frames: Sequence[Conversion]
) -> tuple[Tensor, list[AppliedVOI]]:
    """`convert` with the arithmetic on the device of `stored`, for all frames at once where it is linear."""
    images = stored.new_empty(
        (len(stored), frames[0].plan.shape[0], *stored.shape[-2:]), dtype=torch.float32
    )
    applied = [AppliedVOI()] * len(frames)
    linear: dict[int, _Way] = {}
    for k, (frame, way) in enumerate(zip(frames, _ways(stored, frames), strict=True)):
        if way is None:
            applied[k] = _elsewhere(stored[k], frame, images[k])
            continue
        applied[k] = way.channels[0].voi if way.channels else AppliedVOI("full")
        if way.numbers:
            linear[k] = way
        else:
            values = _looked_up(stored[k], frame.plan, way.channels)
            _paint(stored[k], frame.plan, way.channels, values)
            images[k] = _colored(values[None], frame.plan)[0]
    if linear:
        some = len(linear) < len(frames)
        rows = _sent(np.array(list(linear)), stored.device) if some else slice(None)
        part = stored[rows]
        values = _linear(part, [way.numbers for way in linear.values()])
        for at, (k, way) in enumerate(linear.items()):
            if frames[k].plan.background is not None:
                _paint(part[at], frames[k].plan, way.channels, values[at])
        values = _colored(values, frames[0].plan)
        if not some:
            return values, applied
        images[rows] = values
    return images, applied


class _Way(NamedTuple):
    """How a frame is converted on a device.

    Attributes:
        channels: Their mappings, ranges measured.
        numbers: (origin, scale, offset, low, high) of each channel; none where values are looked up.
    """

    channels: Mappings
    numbers: Sequence[tuple[float, ...]]


def _ways(stored: Tensor, frames: Sequence[Conversion]) -> Iterator[_Way | None]:
    """For each frame; `None` for those that are not for the device. Worked out once for all that share a plan."""
    known: dict[tuple[int, int], _Way | None] = {}
    for image, frame in zip(stored, frames, strict=True):
        kind = (id(frame.plan), id(frame.shared))
        if kind in known:
            yield known[kind]
            continue
        way = _way(image, frame)
        if way is None or all(c.kind != "range" for c in with_range(frame.plan, frame.shared)):
            known[kind] = way
        yield way


def _by_itself(image: Tensor, frame: Conversion, out: Tensor) -> AppliedVOI:
    plan = frame.plan
    planes = image.numpy()
    own = plan.frame.pixel.stored_dtype
    if own.kind in "iu" and own.itemsize <= 2 < planes.dtype.itemsize:
        # A wider type than that of the file would be computed in float64. 16 bits also hold what has another sign than
        # an 8-bit header says.
        planes = planes.astype(own if own.itemsize == 2 else np.int16)
    stored = planes[0] if len(planes) == 1 else planes.transpose(1, 2, 0)
    _, voi = pixels.apply(stored, plan.frame, plan.options, out, shared=frame.shared, plan=plan)
    return voi


def _elsewhere(image: Tensor, frame: Conversion, out: Tensor) -> AppliedVOI:
    values = torch.empty(out.shape, dtype=torch.float32)
    voi = _by_itself(image.cpu(), frame, values)
    out.copy_(values)
    return voi


def _way(image: Tensor, frame: Conversion) -> _Way | None:
    plan = frame.plan
    pixel = plan.frame.pixel
    if pixel.is_float or pixel.bits_stored > _EXACT_BITS or plan.options.normalize is not None:
        return None
    channels = with_range(plan, frame.shared)
    if any(mapping.kind == "range" for mapping in channels):
        if not plan.is_affine:
            return None
        channels = _measured(image, plan, channels)
    if not plan.is_affine or any(c.kind not in ("linear", "constant") for c in channels):
        return _Way(channels, ())
    numbers = [_coefficients(plan, mapping) for mapping in channels]
    found = [one for one in numbers if one is not None]
    return _Way(channels, found) if len(found) == len(numbers) else None


def _measured(image: Tensor, plan: Plan, channels: Mappings) -> Mappings:
    """`channels` with the range of the pixels where one is wanted."""
    mask = _padding(image, plan.padding)
    counted = image if mask is None else image[~mask]
    span = (math.inf, -math.inf)
    if counted.numel():
        ends = modality(plan, torch.stack(torch.aminmax(counted)).cpu().numpy())
        span = (float(ends.min()), float(ends.max()))
    return tuple(
        ranged(mapping, span, mapping.voi.voi or "frame") if mapping.kind == "range" else mapping
        for mapping in channels
    )


def _linear(stored: Tensor, frames: Sequence[Sequence[tuple[float, ...]]]) -> Tensor:
    """clip((stored - origin) * scale + offset, low, high), rounded step by step as on the CPU: the same numbers."""
    numbers = np.array(frames, np.float32)
    table = _sent(numbers, stored.device)
    origin, scale, offset, low, high = table[:, :, None, None].unbind(-1)
    if stored.dtype == torch.float64:
        stored = stored.float()  # or torch would compute in float64
    values = torch.sub(stored, origin).mul_(scale).add_(offset)
    if np.isfinite(numbers[..., 3:]).any():
        torch.clamp(values, low, high, out=values)
    return values


def _sent(numbers: Array, device: torch.device) -> Tensor:
    """A few numbers on their way to a device. A copy that is waited for waits for the batches of other threads too."""
    tensor = torch.from_numpy(numbers)
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def _coefficients(plan: Plan, mapping: Mapping) -> tuple[float, ...] | None:
    """Of a mapping; `None` where the CPU computes in float64."""
    if mapping.kind != "linear":
        return (0.0, 0.0, mapping.offset, -math.inf, math.inf)
    scale, offset = plan.folded(mapping)
    if scale == 0.0:
        return (0.0, 0.0, min(max(offset, mapping.low), mapping.high), -math.inf, math.inf)
    found = coefficients(plan.frame.pixel.stored_dtype, scale, offset)
    return found and (*found, mapping.low, mapping.high)


def _looked_up(image: Tensor, plan: Plan, channels: Mappings) -> Tensor:
    """(channels, H, W) from a table of all values that the frame can have."""
    bits = plan.frame.pixel.bits_stored
    low = -(1 << (bits - 1))  # a signed stream below an unsigned header is taken as what it is
    key = f"from {low}"
    table = plan.tables.get(key) if channels is plan.channels else None
    if table is None:
        every = np.arange(low, 1 << bits, dtype=np.int32)
        table = evaluate(plan, channels, every).astype(np.float32)
        if channels is plan.channels:
            plan.tables[key] = table
    index = (image[0].to(torch.int64) - low).clamp_(0, table.shape[1] - 1)
    return torch.from_numpy(table).to(image.device)[:, index]


def _padding(image: Tensor, padding: tuple[float, float] | None) -> Tensor | None:
    if padding is None:
        return None
    return (image >= math.ceil(min(padding))) & (image <= math.floor(max(padding)))


def _paint(image: Tensor, plan: Plan, channels: Mappings, values: Tensor) -> None:
    """Gives padded pixels their value."""
    background = plan.background
    if background is None or not (plan.paints or channels is not plan.channels):
        return
    mask = _padding(image, plan.padding)
    if mask is None:
        return
    if plan.options.padding == "fill" and math.isnan(background):
        counted = torch.where(mask | ~values.isfinite(), math.inf, values).amin()
        lowest = torch.where(counted.isinf(), 0.0, counted)
        torch.where(mask, lowest, values, out=values)
    else:
        values.masked_fill_(mask, background)


def _colored(values: Tensor, plan: Plan) -> Tensor:
    """(B, C, H, W) with the channels that `color` asks for."""
    wanted = plan.shape[0]
    if plan.options.color == "gray" and values.shape[1] == 3 and wanted == 1:
        gray: Tensor = values[:, :1] * pixels.LUMA[0]
        for k in (1, 2):
            gray += values[:, k : k + 1] * pixels.LUMA[k]
        return gray.clamp_(max=1.0) if plan.options.values == "display" else gray
    return values if values.shape[1] == wanted else values.expand(-1, wanted, -1, -1).contiguous()
