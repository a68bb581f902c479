"""A row of a generation as the value objects that decoding and conversion take."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dicomtorch.index.generation import Generation
from dicomtorch.model.frame import FrameValues, LookupTable, RealWorldValueMap
from dicomtorch.model.image import ImagePixel
from dicomtorch.model.schema import IMAGE_PIXEL

_MOST_KEPT = 4096  # of each kind; an object is some 500 bytes


class FrameObjects:
    """The value objects of a generation's frames; those that share all of it share the object."""

    def __init__(self, generation: Generation) -> None:
        self._generation = generation
        self._pixels: dict[int, ImagePixel] = {}
        self._values: dict[int, FrameValues] = {}

    def image_pixel(self, row: int) -> ImagePixel:
        """How the bytes of a row's frame become stored values."""
        number = int(self._generation.frames["image_pixel"][row])
        pixel = self._pixels.get(number)
        if pixel is None:
            pixel = image_pixel(self._generation, row)
            _keep(self._pixels, number, pixel)
        return pixel

    def frame_values(self, row: int) -> FrameValues:
        """What turns the stored values of a row's frame into others."""
        number = int(self._generation.frames["frame_values"][row])
        values = self._values.get(number)
        if values is None:
            values = frame_values(self._generation, row, self.image_pixel(row))
            _keep(self._values, number, values)
        return values


def _keep(kept: dict[int, Any], number: int, value: Any) -> None:
    if len(kept) >= _MOST_KEPT:
        kept.clear()
    kept[number] = value


def image_pixel(generation: Generation, row: int) -> ImagePixel:
    """How the bytes of a row's frame become stored values."""
    read: list[Any] = [generation.frames[name][row] for name in IMAGE_PIXEL]
    fields: list[Any] = [value if isinstance(value, str) else int(value) for value in read]
    return ImagePixel(*fields)


def frame_values(generation: Generation, row: int, pixel: ImagePixel) -> FrameValues:
    """What turns the stored values of a row's frame into others."""
    frames = generation.frames

    def number(name: str) -> float:
        return float(frames[name][row])

    def text(name: str) -> str:
        return str(frames[name][row])

    def lookups(name: str, count: int) -> tuple[LookupTable, ...]:
        first = int(frames[name][row])
        found = [_lookup(generation, first + k) for k in range(count)] if first >= 0 else []
        return tuple(table for table in found if isinstance(table, LookupTable))

    world = int(frames["real_world_value_map"][row])
    world_map = _lookup(generation, world) if world >= 0 else None
    return FrameValues(
        pixel=pixel,
        modality=text("Modality"),
        sop_class_uid=text("SOPClassUID"),
        rescale_slope=number("RescaleSlope"),
        rescale_intercept=number("RescaleIntercept"),
        rescale_type=text("RescaleType"),
        modality_lut=next(iter(lookups("modality_lut", 1)), None),
        windows=_windows(text("windows"), number("WindowCenter"), number("WindowWidth")),
        voi_lut_function=text("VOILUTFunction"),
        voi_luts=lookups("voi_lut", int(frames["voi_lut_count"][row])),
        presentation_lut_shape=text("PresentationLUTShape"),
        palette=lookups("palette", 3),
        pixel_presentation=text("PixelPresentation"),
        padding=_padding(number("PixelPaddingValue"), number("PixelPaddingRangeLimit")),
        real_world_value_map=world_map if isinstance(world_map, RealWorldValueMap) else None,
        segmentation_type=text("SegmentationType"),
        maximum_fractional_value=int(frames["MaximumFractionalValue"][row]),
        dose_grid_scaling=number("DoseGridScaling"),
        suv_factor=number("suv_factor"),
        suv_problem=text("suv_problem"),
    )


def _lookup(generation: Generation, row: int) -> LookupTable | RealWorldValueMap:
    table = generation.lookups
    data: bytes = table["data"][row]
    first = float(table["first_mapped"][row])
    if table["kind"][row] == "lut":
        return LookupTable(int(first), int(table["bits"][row]), np.frombuffer(data, "<u2"))
    return RealWorldValueMap(
        first=first,
        last=float(table["last_mapped"][row]),
        slope=float(table["slope"][row]),
        intercept=float(table["intercept"][row]),
        units=table["units"][row],
        data=np.frombuffer(data, "<f8") if data else None,
    )


def _windows(several: str, center: float, width: float) -> tuple[tuple[float, float], ...]:
    if several:
        numbers = [float(part) for part in several.split("\\")]
        return tuple(zip(numbers[::2], numbers[1::2], strict=True))
    return () if math.isnan(center) or math.isnan(width) else ((center, width),)


def _padding(value: float, limit: float) -> tuple[float, float] | None:
    if math.isnan(value):
        return None
    return (value, value) if math.isnan(limit) else (min(value, limit), max(value, limit))
