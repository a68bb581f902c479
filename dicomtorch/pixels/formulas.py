"""The formulas from stored values to those asked for, in float64: what every faster way must agree with.

PS3.3 C.11.1 (Modality LUT), C.7.5.1.1.2 (padding), C.7.6.3.1.5 (palettes), C.7.6.16.2.11 (real world values), C.11.2
(VOI LUT and windows).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dicomtorch.model.frame import LookupTable, RealWorldValueMap
from dicomtorch.pixels.plan import Plan
from dicomtorch.pixels.voi import Mapping, Range, SharedRange, ranged

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]


def with_range(
    plan: Plan, shared: SharedRange | Sequence[SharedRange | None] | None
) -> tuple[Mapping, ...]:
    """The channels of a plan, after a range was imposed on those that the user did not fix.

    Args:
        plan: The plan.
        shared: One range for all channels, or one (or `None`) for each.

    Returns:
        The mappings; those that still need the range of the frame are "range".
    """
    if shared is None or plan.options.values != "display" or not plan.channels:
        return plan.channels
    each = [shared] * len(plan.channels) if isinstance(shared, SharedRange) else shared
    return tuple(
        mapping if one is None or mapping.fixed else _shared(mapping, one)
        for mapping, one in zip(plan.channels, each, strict=True)
    )


def _shared(mapping: Mapping, shared: SharedRange) -> Mapping:
    if math.isnan(shared.low):
        return replace(mapping, voi=replace(mapping.voi, voi=shared.voi))
    return ranged(mapping, (shared.low, shared.high), shared.voi)


def padding_mask(stored: Array, padding: Range | None) -> npt.NDArray[np.bool_] | None:
    """Which stored values are padding; `None` if padding is not defined."""
    if padding is None:
        return None
    low, high = min(padding), max(padding)
    if stored.dtype.kind == "f":
        # The bounds have been through float64; in the type of the pixels they are equal to them again.
        with np.errstate(over="ignore"):
            bounds = np.array((low, high)).astype(stored.dtype)
        return np.asarray((stored >= bounds[0]) & (stored <= bounds[1]))
    first, last = math.ceil(low), math.floor(high)
    if first == last:
        return np.asarray(stored == first)
    return np.asarray((stored >= first) & (stored <= last))


def modality(plan: Plan, stored: Array) -> Floats:
    """Modality, real world or SUV values, in float64; nan outside a real world map."""
    numbers = stored.astype(np.float64)
    if plan.real_world is not None:
        return _real_world(plan.real_world, numbers)
    if plan.table is not None:
        numbers = _entries(plan.table, numbers).astype(np.float64)
    if plan.frame.pixel.is_float:
        with np.errstate(
            over="ignore"
        ):  # pixels near the largest number: the caller looks for infinities
            return numbers * plan.slope + plan.intercept
    return numbers * plan.slope + plan.intercept


def _real_world(mapping: RealWorldValueMap, numbers: Floats) -> Floats:
    if mapping.data is not None:
        index = np.clip(np.floor(numbers + 0.5) - mapping.first, 0, mapping.data.size - 1)
        result = np.asarray(mapping.data, np.float64)[np.nan_to_num(index).astype(np.int64)]
    else:
        with np.errstate(over="ignore", invalid="ignore"):  # outside of its range it has no meaning
            result = numbers * mapping.slope + mapping.intercept
    inside = (numbers >= mapping.first) & (numbers <= mapping.last)
    return np.where(inside, result, np.nan)


def _entries(table: LookupTable, numbers: Floats) -> Array:
    """Entries at the nearest whole number, half up; before the first and beyond the last the edges."""
    index = np.floor(numbers + 0.5) - table.first_mapped
    index = np.clip(np.nan_to_num(index, posinf=np.inf, neginf=-np.inf), 0, table.data.size - 1)
    entries: Array = table.data
    return np.asarray(entries[index.astype(np.int64)])


def evaluate(plan: Plan, channels: Sequence[Mapping], stored: Array) -> Floats:
    """What each channel gets for each stored value, before padding, by the formulas, in float64.

    Args:
        plan: The plan.
        channels: Its channels, none of kind "range".
        stored: Stored values of any shape.

    Returns:
        Shape (channels, *stored.shape); 3 channels if there is a palette. What is not a number becomes 0 in display.
    """
    if not channels:
        return _palette(plan.palette, stored)
    values = modality(plan, stored)
    result = np.stack([_mapped(plan, mapping, values) for mapping in channels])
    if plan.options.values == "display":
        result[np.isnan(result)] = 0.0
    if plan.palette:
        first = plan.palette[0].first_mapped
        result = np.where(stored >= first, _palette(plan.palette, stored), result[:1])
    return result


def _mapped(plan: Plan, mapping: Mapping, x: Floats) -> Floats:
    if mapping.kind == "constant":
        return np.full_like(x, mapping.offset)
    if mapping.kind == "table":
        assert mapping.table is not None
        y = _entries(mapping.table, x) / mapping.table.maximum
        y[np.isnan(x)] = np.nan
    elif mapping.kind == "step":
        y = np.where(np.isnan(x), np.nan, x > mapping.offset)
    else:
        with np.errstate(over="ignore", invalid="ignore"):
            y = x * mapping.scale + mapping.offset
            if mapping.kind == "sigmoid":
                y = 1 / (1 + np.exp(-y))
        y = np.clip(y, mapping.low, mapping.high)
    return 1 - y if plan.inverted else y


def _palette(palette: Sequence[LookupTable], stored: Array) -> Floats:
    numbers = stored.astype(np.float64)
    # Many writers put 8-bit entries into the high byte of 16 bits; then white is 0xFF00.
    entries: Array = np.concatenate([table.data for table in palette])
    in_high_byte = entries.max(initial=0) > 0xFF and not (entries & 0xFF).any()
    white = 0xFF00 if in_high_byte else max(table.maximum for table in palette)
    return np.stack([_entries(table, numbers) / white for table in palette])
