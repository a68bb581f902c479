"""The source pane: stored values of a frame, and what the page needs to make modality and display values of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from dicomtorch.errors import DicomTorchError, PixelValueError
from dicomtorch.index.burned_in import burned_in
from dicomtorch.model.options import PixelOptions
from dicomtorch.model.shown import shown
from dicomtorch.pixels.formulas import evaluate, modality, padding_mask, with_range
from dicomtorch.pixels.plan import Plan
from dicomtorch.pixels.statistics import modality_span
from dicomtorch.pixels.voi import Mapping, ranged, values_are_whole
from dicomtorch.reader.reader import FrameReader
from dicomtorch.viewer.answer import Answer, NotThereError, of_array
from dicomtorch.viewer.looked import Opened

Array = npt.NDArray[Any]
Part = tuple[int, int, int, int]

THUMBNAIL = 96
_TABLE_BITS = 16  # integers of so many bits are looked up in tables of all their values
_WORDS = ("stated", "often", "recognizable", "slide label")


class Sources:
    """Answers for frames of the index as the files have them.

    Args:
        opened: What is looked at.
    """

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._reader = opened.reader.with_options(PixelOptions())
        self._burned = np.stack(burned_in(opened.index))

    def source(self, position: int, step: int = 1, part: Part | None = None) -> Answer:
        """Stored values (rows, columns) or (rows, columns, 3).

        Args:
            position: In the index.
            step: Every so many rows and columns, for what is larger than any screen.
            part: First and last row and column but one, of a part; `None` for all.

        Raises:
            DicomTorchError: It cannot be read.
        """
        stored = self._reader.read_stored(position)
        info = self._info(position, stored)
        if info["colour"] == "display":
            stored = self._colours(position)
        if part is not None:
            top, bottom, left, right = part
            stored = stored[top:bottom, left:right]
            if not stored.size:
                raise NotThereError(f"there is no such part of {info['rows']} x {info['columns']}")
        if step > 1:
            stored = stored[::step, ::step]
        return of_array(_small(stored), step=step, **info)

    def table(self, position: int) -> Answer:
        """float32 (1 + channels, values): modality and display values of every stored value of its type.

        Raises:
            DicomTorchError: There are none, or no display values.
        """
        plan, channels = self._plan(position, None)
        kind = _type_of(plan)
        if kind is None:
            raise NotThereError("these values have no table")
        bits = np.arange(1 << (8 * kind.itemsize)).astype(f"u{kind.itemsize}")
        stored = np.sort(bits.view(kind))
        values = modality(plan, stored) if not plan.frame.pixel.is_palette else stored
        if any(mapping.kind == "range" for mapping in channels):
            channels = (Mapping("constant"),)  # the page has the range of the frame, which decides
        shown_values = evaluate(plan, channels, stored)
        rows = np.concatenate([np.asarray(values, np.float64)[None], shown_values])
        return of_array(rows.astype(np.float32), first=int(stored[0]))

    def thumbnail(self, position: int) -> Answer:
        """Display values as uint8, (rows, columns) or (rows, columns, 3), its longer edge at most `THUMBNAIL`.

        Raises:
            DicomTorchError: The frame cannot be read.
        """
        pixel = self._opened.index.image_pixel(position)
        scale = min(1.0, THUMBNAIL / max(pixel.rows, pixel.columns))
        size = (max(1, round(pixel.rows * scale)), max(1, round(pixel.columns * scale)))
        small = self._opened.reader.with_options(PixelOptions(size=size))
        return of_array(_levels(_read(small, position)))

    def burned_in(self, position: int) -> str:
        """Why the pixels of a frame may say who it is; "" if nothing says so."""
        words = (word for word, mask in zip(_WORDS, self._burned, strict=True) if mask[position])
        return next(words, "")

    @property
    def any_burned_in(self) -> int:
        """Frames whose pixels may say who it is."""
        return int(np.count_nonzero(self._burned.any(axis=0)))

    def _plan(self, position: int, stored: Array | None) -> tuple[Plan, tuple[Mapping, ...]]:
        """How display values are made of a frame, ranges measured where its pixels are given."""
        (conversion,) = self._reader.conversions([position])
        plan = conversion.plan
        channels = with_range(plan, conversion.shared)
        if stored is not None and any(mapping.kind == "range" for mapping in channels):
            span = modality_span(stored, plan)
            channels = tuple(
                ranged(one, span, one.voi.voi or "frame") if one.kind == "range" else one
                for one in channels
            )
        return plan, channels

    def _info(self, position: int, stored: Array) -> dict[str, Any]:
        index = self._opened.index
        values = index.frame_values(position)
        at = np.array([position])
        spacing = index.gather("PixelSpacing", at)[0]
        said: dict[str, Any] = {
            "rows": values.pixel.rows,
            "columns": values.pixel.columns,
            "modality": shown("Modality", values.modality),
            "spacing": list(spacing) if min(spacing) > 0 else None,
            "burned": self.burned_in(position),
            "units": _units(values.rescale_type, values.modality),
            "colour": "",
        }
        try:
            plan, channels = self._plan(position, stored)
        except PixelValueError as error:
            # What has no display values is shown from its lowest to its highest stored value, and why is said.
            return said | {"note": str(error.__cause__ or error), "map": None, "slope": 1}
        if stored.ndim == 3:
            plain_bytes = stored.dtype == np.uint8 and values.pixel.bits_stored == 8
            return said | {"colour": "stored" if plain_bytes else "display", "slope": 1}
        (mapping,) = channels or (Mapping("constant"),)
        kind = _type_of(plan)
        if kind is None and (plan.palette or not plan.is_affine or mapping.kind == "table"):
            return said | {"colour": "display", "slope": 1}
        looked_up = bool(plan.palette) or mapping.kind == "table"
        return said | {
            "colour": "table" if plan.palette else "",
            "table": self._table_key(position) if looked_up or plan.table is not None else None,
            "map": _mapping(mapping),
            "slope": plan.slope,
            "intercept": plan.intercept,
            "affine": plan.is_affine,
            "inverted": plan.inverted,
            "padding": _padding(stored, plan),
            "background": plan.background,
            "whole": values_are_whole(values),
            "voi": mapping.voi.voi,
            "center": mapping.voi.window_center,
            "width": mapping.voi.window_width,
            "windows": [list(window) for window in values.windows],
        }

    def _table_key(self, position: int) -> int:
        """Equal for frames that have one table."""
        found: int = self._opened.index.gather("frame_values", np.array([position]))[0]
        return found

    def _colours(self, position: int) -> Array:
        return _levels(_read(self._reader, position))


def _read(reader: FrameReader, position: int) -> Array:
    """Display values (C, H, W)."""
    (frame,) = reader.read_many([position])
    if isinstance(frame, DicomTorchError):
        raise frame
    image: Array = frame.image.numpy()
    return image


def _levels(image: Array) -> Array:
    """(C, H, W) in [0, 1] as uint8, (H, W) or (H, W, 3)."""
    if not 0 <= float(image.min()) <= float(image.max()) <= 1:  # label maps
        low, high = float(image.min()), float(image.max())
        image = (image - low) / max(high - low, 1e-30)
    levels = np.rint(image * 255).astype(np.uint8)
    return levels[0] if len(levels) == 1 else np.moveaxis(levels, 0, -1)


def _type_of(plan: Plan) -> np.dtype[Any] | None:
    """The type of stored values that a table can have an entry for each of; `None` of others."""
    pixel = plan.frame.pixel
    if pixel.is_float or pixel.bits_allocated > _TABLE_BITS or pixel.samples_per_pixel > 1:
        return None
    size = 1 if pixel.bits_allocated <= 8 else 2
    return np.dtype(f"{'i' if pixel.pixel_representation else 'u'}{size}")


def _small(stored: Array) -> Array:
    """Values as the page takes them: float64 becomes float32, wide integers int32 or float64."""
    if stored.dtype == np.float64 or (stored.dtype.kind in "iu" and stored.dtype.itemsize > 4):
        return stored.astype(np.float32)
    return stored.astype(np.uint8) if stored.dtype.kind == "b" else stored


def _mapping(mapping: Mapping) -> dict[str, Any]:
    bounds = (mapping.low, mapping.high)
    low, high = (bound if math.isfinite(bound) else None for bound in bounds)
    return {
        "kind": mapping.kind,
        "scale": mapping.scale,
        "offset": mapping.offset,
        "low": low,
        "high": high,
    }


def _padding(stored: Array, plan: Plan) -> list[float] | None:
    """The range of stored values that are padding, where this frame has some that are painted."""
    if plan.padding is None or plan.background is None:
        return None
    mask = padding_mask(stored, plan.padding)
    return list(plan.padding) if mask is not None and mask.any() else None


def _units(rescale_type: str, modality_name: str) -> str:
    if rescale_type == "HU" or (modality_name == "CT" and not rescale_type):
        return "HU"
    said = shown("RescaleType", rescale_type) if rescale_type else ""
    return "" if said.startswith("(") or said == "US" else said  # US: unspecified
