"""From modality values to display: the first rule that applies.

PS3.3 C.11.2.1 (VOI LUT, windows and their functions), C.8.20.2 (segmentation), C.8.8.3 (dose).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from dicomtorch.errors import PixelValueError
from dicomtorch.model.frame import AppliedVOI, FrameValues, LookupTable
from dicomtorch.model.options import CT_PRESETS, Window
from dicomtorch.model.shown import shown

Range = tuple[float, float]

RT_DOSE_STORAGE = "1.2.840.10008.5.1.4.1.1.481.2"


@dataclass(frozen=True, slots=True)
class SharedRange:
    """One mapping for several frames: those of a sample, of a series, of a dose grid.

    Attributes:
        low: Modality value that becomes 0; nan if each frame's own mapping is the common one.
        high: Modality value that becomes 1.
        voi: What goes into `meta`.
    """

    low: float
    high: float
    voi: str = "sample"


@dataclass(frozen=True, slots=True)
class Mapping:
    """How one channel comes from modality values x.

    Attributes:
        kind: "linear": x * scale + offset, clamped to (low, high). "sigmoid": the logistic function of
            x * scale + offset. "step": whether x > offset. "table": `table` at x, divided by its maximum.
            "range": still to be given a range, by `ranged`. "constant": `offset`.
        scale: See `kind`.
        offset: See `kind`.
        low: Lowest result; for "range" the start of the range if it is finite, whatever the pixels.
        high: Highest result.
        table: The VOI LUT.
        voi: What goes into `meta`.
        fixed: The user or the kind of image decides, so that frames of one sample agree anyway.
    """

    kind: Literal["linear", "sigmoid", "step", "table", "range", "constant"]
    scale: float = 1.0
    offset: float = 0.0
    low: float = -math.inf
    high: float = math.inf
    table: LookupTable | None = None
    voi: AppliedVOI = AppliedVOI()  # noqa: RUF009 - it is frozen
    fixed: bool = False

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for mappings that give equal values."""
        table = self.table
        return (self.kind, self.scale, self.offset, self.low, self.high) + (
            () if table is None else (table.first_mapped, table.maximum, table.data.tobytes())
        )

    @property
    def range(self) -> Range:
        """The modality values between which the result changes."""
        if self.table is not None:
            first = float(self.table.first_mapped)
            return (first, first + self.table.data.size - 1)
        if self.kind == "linear":
            return (-self.offset / self.scale, (1 - self.offset) / self.scale)
        if self.kind == "step":
            return (self.offset, self.offset)
        center, width = self.voi.window_center, self.voi.window_width
        return (center - width / 2, center + width / 2)


def is_dose(frame: FrameValues) -> bool:
    """Whether the frame is of an RT Dose."""
    return frame.modality == "RTDOSE" or frame.sop_class_uid == RT_DOSE_STORAGE


def is_supplemental(frame: FrameValues) -> bool:
    """Whether some gray values are shown in the colours of a palette (PS3.3 C.7.6.19)."""
    return (
        frame.pixel_presentation in ("MIXED", "COLOR")
        and frame.pixel.samples_per_pixel == 1
        and not frame.pixel.is_palette
        and bool(frame.palette)
    )


def is_color(frame: FrameValues) -> bool:
    """Whether display is RGB."""
    pixel = frame.pixel
    return pixel.samples_per_pixel > 1 or pixel.is_palette or is_supplemental(frame)


def has_voi(frame: FrameValues) -> bool:
    """Whether display depends on a VOI, which several frames can have in common: not for colour and segmentations."""
    gray = not is_color(frame) or is_supplemental(frame)
    return gray and frame.segmentation_type not in ("BINARY", "FRACTIONAL", "LABELMAP")


def rescale(frame: FrameValues) -> tuple[float, float]:
    """Slope and intercept of the file, 1 and 0 where absent."""
    slope, intercept = frame.rescale_slope, frame.rescale_intercept
    return (1.0 if math.isnan(slope) else slope, 0.0 if math.isnan(intercept) else intercept)


# --- From modality to display: the first rule that applies ----------------------------------------


def voi_mapping(frame: FrameValues, window: Window, notices: list[str]) -> Mapping:
    """The mapping to display that a frame and one window of the options ask for.

    Args:
        frame: The frame.
        window: See `PixelOptions.window`, one of them.
        notices: Gets what was odd.

    Raises:
        PixelValueError: There is no k-th window, the VOI LUT Function is unknown, a preset does not apply.
    """
    if isinstance(window, tuple):
        return _users_window(frame, window, notices)
    if isinstance(window, int):
        return _kth_window(frame, window, notices)
    if window is not None and window != "series":
        _check_hounsfield(frame, window)
        return _users_window(frame, CT_PRESETS[window], notices)
    label = _segmentation(frame)
    if label is not None:
        return label
    if is_dose(frame):
        return Mapping("range", low=0.0)
    if frame.voi_luts:
        return _table(frame.voi_luts[0], notices)
    for pair in frame.windows:
        if _is_valid(frame, pair, notices):
            return _windowed(frame, pair, frame.voi_lut_function or "LINEAR", "file", notices)
    pixel = frame.pixel
    rescaled = frame.modality_lut is not None or rescale(frame) != (1.0, 0.0)
    if pixel.bits_stored <= 8 and not pixel.is_float and not rescaled:
        low = -(1 << (pixel.bits_stored - 1)) if pixel.pixel_representation else 0
        return ranged(Mapping("range"), (low, low + (1 << pixel.bits_stored) - 1), "full")
    return Mapping("range")


def _users_window(frame: FrameValues, window: Range, notices: list[str]) -> Mapping:
    """LINEAR counts whole numbers: on others, as Gy are, its width less 1 would not be what was asked for."""
    if not _is_finite(frame, window):
        raise PixelValueError(
            f"window={window} gives no finite numbers with the values of this frame; give one in their units"
        )
    whole = values_are_whole(frame) and window[1] >= 1
    function = "LINEAR" if whole else "LINEAR_EXACT"
    return replace(_windowed(frame, window, function, "user", notices), fixed=True)


def _check_hounsfield(frame: FrameValues, preset: str) -> None:
    if frame.rescale_type == "HU" or (frame.modality == "CT" and not frame.rescale_type):
        return
    modality = shown("Modality", frame.modality)
    rescale_type = shown("RescaleType", frame.rescale_type)
    raise PixelValueError(
        f"window={preset!r} is in Hounsfield units, but (0008,0060) Modality is {modality!r} and "
        f"(0028,1054) RescaleType is {rescale_type!r}; give (center, width) in the units of this frame"
    )


def _segmentation(frame: FrameValues) -> Mapping | None:
    if frame.segmentation_type == "BINARY":
        return Mapping("linear", 1.0, 0.0, 0.0, 1.0, voi=AppliedVOI("label"), fixed=True)
    if frame.segmentation_type == "LABELMAP":
        return Mapping("linear", voi=AppliedVOI("label"), fixed=True)
    if frame.segmentation_type == "FRACTIONAL":
        if frame.maximum_fractional_value <= 0:
            raise PixelValueError(
                "(0062,000E) MaximumFractionalValue is absent or 0: the fractions of this segmentation are unknown; "
                "use values='stored'"
            )
        scale = 1 / frame.maximum_fractional_value
        return Mapping("linear", scale, 0.0, 0.0, 1.0, voi=AppliedVOI("full"), fixed=True)
    return None


def _kth_window(frame: FrameValues, k: int, notices: list[str]) -> Mapping:
    count = len(frame.windows)
    if k >= count:
        raise PixelValueError(
            f"(0028,1050) WindowCenter has {count} values: there is no window={k}; "
            "use window=None, (center, width), or leave such frames out"
        )
    if not _is_valid(frame, frame.windows[k], notices):
        center, width = frame.windows[k]
        raise PixelValueError(
            f"(0028,1050) WindowCenter is {center:g} and (0028,1051) WindowWidth is {width:g} in window={k}; expected "
            "a width above 0 and numbers that values can be computed with"
        )
    function = frame.voi_lut_function or "LINEAR"
    return _windowed(frame, frame.windows[k], function, "file", notices)


def _is_valid(frame: FrameValues, window: Range, notices: list[str]) -> bool:
    center, width = window
    if not (math.isfinite(center) and math.isfinite(width)):
        return False
    if width <= 0:
        notices.append(f"(0028,1051) WindowWidth is {width:g}; expected above 0, taken as absent")
        return False
    if not _is_finite(frame, window):
        notices.append(
            f"(0028,1050) WindowCenter {center:g} with (0028,1051) WindowWidth {width:g} gives no finite numbers; "
            "taken as absent"
        )
        return False
    return True


def _is_finite(frame: FrameValues, window: Range) -> bool:
    """Whether a window of a width above 0 has finite coefficients, whatever its function."""
    center, width = window
    slope, intercept = map(abs, rescale(frame))
    # 4 / width is the steepest of all; a subnormal width has no inverse.
    steepest = 4 / width if width >= sys.float_info.min * 4 else math.inf
    return math.isfinite(steepest * max(slope, abs(center) + intercept + 1))


def _windowed(
    frame: FrameValues, window: Range, function: str, voi: str, notices: list[str]
) -> Mapping:
    """C.11.2.1.2 and C.11.2.1.3."""
    center, width = window
    applied = AppliedVOI(voi, float(center), float(width))
    if function == "LINEAR":
        if width < 1 or (width == 1 and not values_are_whole(frame)):
            notices.append(
                f"(0028,1051) WindowWidth is {width:g} with VOI LUT Function LINEAR, which cannot show it; "
                "taken as LINEAR_EXACT"
            )
        elif width == 1:
            return Mapping("step", 1.0, center - 0.5, 0.0, 1.0, voi=applied)
        else:
            scale = 1 / (width - 1)
            return Mapping("linear", scale, 0.5 - (center - 0.5) * scale, 0.0, 1.0, voi=applied)
    elif function == "SIGMOID":
        return Mapping("sigmoid", 4 / width, -4 * center / width, 0.0, 1.0, voi=applied)
    elif function != "LINEAR_EXACT":
        said = shown("VOILUTFunction", function)
        raise PixelValueError(
            f"(0028,1056) VOILUTFunction is {said!r}; expected LINEAR, LINEAR_EXACT or SIGMOID. "
            "Give window=(center, width), or use values='modality'"
        )
    return Mapping("linear", 1 / width, 0.5 - center / width, 0.0, 1.0, voi=applied)


def values_are_whole(frame: FrameValues) -> bool:
    """Whether modality values differ by whole numbers."""
    if frame.pixel.is_float:
        return False
    if is_dose(frame):
        return frame.dose_grid_scaling.is_integer()
    return frame.modality_lut is not None or float(rescale(frame)[0]).is_integer()


def _table(table: LookupTable, notices: list[str]) -> Mapping:
    if table.maximum > (1 << table.bits) - 1:
        notices.append(
            f"(0028,3002) LUTDescriptor states {table.bits} bits, fewer than the largest entry of the VOI LUT "
            f"{int(table.data.max())} needs; scaled by {table.maximum:g}"
        )
    return Mapping("table", low=0.0, high=1.0, table=table, voi=AppliedVOI("lut"))


def ranged(mapping: Mapping, span: Range, voi: str) -> Mapping:
    """The linear mapping of a range to [0, 1]; the window is the one of the note in C.11.2.1.2.

    A range without extent, or without a finite value, gives 0 everywhere.
    """
    low, high = span
    if mapping.kind == "range" and math.isfinite(mapping.low):
        low = mapping.low
    if not (math.isfinite(low) and math.isfinite(high)):
        return Mapping("constant", voi=AppliedVOI(voi))
    applied = AppliedVOI(voi, (low + high + 1) / 2, high - low + 1)
    # Between numbers that hardly differ from 0, or that are next to each other, there is nothing to show.
    if high - low < sys.float_info.min * 4:
        return Mapping("constant", voi=applied)
    scale = 0.5 / (high / 2 - low / 2)  # the difference itself may be beyond float64
    return Mapping("linear", scale, -low * scale, 0.0, 1.0, voi=applied)


def common_window(
    frames: Iterable[FrameValues], window: Window = None, voi: str = "series"
) -> SharedRange | None:
    """What several frames have in common, so that they can be shown alike.

    Args:
        frames: The frames.
        window: What the options ask for, in one channel.
        voi: What goes into `meta`.

    Returns:
        If the mapping of each frame alone is the same for all, a range of nan, which keeps it. Else the modality
        values that cover the VOI of all of them. `None` if a frame has no VOI, so that the pixels of all frames must
        be measured.

    Raises:
        PixelValueError: As `voi_mapping`.
    """
    mappings: dict[tuple[object, ...], Mapping] = {}
    for frame in frames:
        if has_voi(frame):
            mapping = voi_mapping(frame, window, [])
            mappings.setdefault(mapping.key, mapping)
    if any(mapping.kind == "range" for mapping in mappings.values()):
        return None
    if len(mappings) <= 1:
        return SharedRange(math.nan, math.nan, voi)
    ranges = [mapping.range for mapping in mappings.values()]
    return SharedRange(min(low for low, _ in ranges), max(high for _, high in ranges), voi)
