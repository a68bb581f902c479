"""What is done to the stored values of a frame, decided once per `FrameValues`.

PS3.3 C.11.1 (Modality LUT), C.7.6.3.1 (photometric interpretation, palettes), C.7.5.1.1.2 (padding), C.7.6.16.2.11
(real world values), C.7.6.19 (supplemental palettes), C.8.8.3 (dose). A `Plan` has numbers and tables only, so the same
plan serves one frame and a whole batch; what it says is done in `formulas`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy.typing as npt

from dicomtorch._forks import lazy
from dicomtorch.errors import PixelValueError
from dicomtorch.model.frame import AppliedVOI, FrameValues, LookupTable, RealWorldValueMap
from dicomtorch.model.options import PixelOptions
from dicomtorch.model.shown import shown
from dicomtorch.pixels import finite
from dicomtorch.pixels.voi import (
    Mapping,
    Range,
    is_color,
    is_dose,
    is_supplemental,
    rescale,
    voi_mapping,
)

Array = npt.NDArray[Any]

IDENTITY = Mapping("linear")
_SURELY = 1e-3  # beyond a bound of [0, 1] by more than float32 arithmetic can be wrong


@dataclass(frozen=True, eq=False)
class Plan:
    """What is done to the stored values of every frame with the same `FrameValues`.

    Attributes:
        frame: What it was made of.
        options: What it was made of.
        channels: One mapping for each channel computed from modality values; () for palette images.
        slope: x = slope * (stored value, or entry of `table`) + intercept.
        intercept: See `slope`; both give dose in its Units (Gy, or relative ones) and SUVbw where that is asked for.
        table: The Modality LUT.
        real_world: Taken in place of `table`, `slope` and `intercept`.
        palette: Red, green and blue, of a palette image or supplemental.
        padding: Inclusive range of stored values that are padding, `None` if none are.
        background: What padded pixels get; `None` to leave them, nan for the lowest value that is not padding.
        inverted: Whether results y become 1 - y.
        statistics: Center and width of `normalize`, of the sample that the frame belongs to; `None` for its own.
        lowest: Of that sample, for padding="fill" and the borders that `size` makes; `None` for the frame's own.
        notices: What was odd, for one warning each.
        tables: Results of `evaluate` for every stored value, by type: filled by the pixel functions.
    """

    frame: FrameValues
    options: PixelOptions
    channels: tuple[Mapping, ...] = (IDENTITY,)
    slope: float = 1.0
    intercept: float = 0.0
    table: LookupTable | None = None
    real_world: RealWorldValueMap | None = None
    palette: tuple[LookupTable, ...] = ()
    padding: Range | None = None
    background: float | None = None
    inverted: bool = False
    statistics: tuple[float, float] | None = None
    lowest: float | None = None
    notices: tuple[str, ...] = ()
    tables: dict[str, Array] = field(default_factory=dict, repr=False)

    @property
    def is_affine(self) -> bool:
        """Whether stored values become modality values by slope and intercept alone."""
        return self.table is None and self.real_world is None and not self.palette

    @lazy
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the tensor."""
        return output_shape(self.frame, self.options)

    @lazy
    def linear(self) -> tuple[float, float, float, float] | None:
        """(scale, offset, low, high) if clip(stored * scale + offset, low, high) of one channel of integers is all."""
        options = self.options
        if (
            options.values == "stored"
            or not self.shape[0] == self.frame.pixel.samples_per_pixel == len(self.channels) == 1
            or self.channels[0].kind != "linear"
            or not self.is_affine
            or self.frame.pixel.is_float
            or self.paints
            or options.normalize is not None
            or options.size is not None
        ):
            return None
        (mapping,) = self.channels
        return (*self.folded(mapping), mapping.low, mapping.high)

    @lazy
    def paints(self) -> bool:
        """Whether padded pixels have to be given a value: not if the mapping gives them that value anyway."""
        background = self.background
        if background is None or self.padding is None or not self.is_affine or not self.channels:
            return background is not None
        for mapping in self.channels:
            if mapping.kind != "linear" or background not in (mapping.low, mapping.high):
                return True
            scale, offset = self.folded(mapping)
            ends = [scale * end + offset for end in self.padding]
            below = background == mapping.low and max(ends) < mapping.low - _SURELY
            above = background == mapping.high and min(ends) > mapping.high + _SURELY
            if not (below or above):
                return True
        return False

    def folded(self, mapping: Mapping) -> tuple[float, float]:
        """(scale, offset) from stored values straight to the result of a linear mapping, polarity included.

        Folded in float64 from the window in modality values: converting center and width to stored units first
        would move the half unit of C.11.2.1.2.1 by the slope.
        """
        scale, offset = self.slope * mapping.scale, self.intercept * mapping.scale + mapping.offset
        return (-scale, 1 - offset) if self.inverted else (scale, offset)


def check(frame: FrameValues, options: PixelOptions) -> None:
    """Refuses options that this frame has no meaning for.

    Raises:
        PixelValueError: With the attribute that stands against it.
    """
    pixel = frame.pixel
    if options.values == "stored":
        return
    if pixel.samples_per_pixel not in (1, 3):
        photometric = shown("PhotometricInterpretation", pixel.photometric_interpretation)
        raise PixelValueError(
            f"(0028,0002) SamplesPerPixel is {pixel.samples_per_pixel} with PhotometricInterpretation "
            f"{photometric!r}: {options.values} values are defined for 1 and 3 samples; "
            "use values='stored'"
        )
    if pixel.samples_per_pixel == 3 and options.values in ("real_world", "suvbw"):
        raise PixelValueError(
            f"(0028,0002) SamplesPerPixel is 3: colour has no {options.values} values; use values='display'"
        )
    if len(options.windows) > 1 and is_color(frame):
        photometric = shown("PhotometricInterpretation", pixel.photometric_interpretation)
        raise PixelValueError(
            f"(0028,0004) PhotometricInterpretation is {photometric!r}: several windows make "
            "channels of grayscale images only; give one window, or leave colour frames out"
        )
    if pixel.is_palette and options.values != "display" and options.color != "auto":
        raise PixelValueError(
            f"(0028,0004) PhotometricInterpretation is 'PALETTE COLOR': {options.values} values are indices, "
            f"which color={options.color!r} cannot be made of; use values='display'"
        )


def num_channels(frame: FrameValues, options: PixelOptions) -> int:
    """Channels of the tensor.

    Raises:
        PixelValueError: The options have no meaning for this frame.
    """
    check(frame, options)
    if options.values == "stored":
        return frame.pixel.samples_per_pixel
    if options.color == "rgb":
        return 3
    if options.values == "display" and is_color(frame):
        return 1 if options.color == "gray" else 3
    if options.color == "gray":
        return len(options.windows)
    return max(frame.pixel.samples_per_pixel, len(options.windows))


def output_shape(frame: FrameValues, options: PixelOptions) -> tuple[int, int, int]:
    """(C, H, W) of the tensor of a frame.

    Raises:
        PixelValueError: The options have no meaning for this frame.
    """
    rows, columns = options.size or (frame.pixel.rows, frame.pixel.columns)
    return (num_channels(frame, options), rows, columns)


def make_plan(frame: FrameValues, options: PixelOptions) -> Plan:
    """Decides everything that does not depend on pixels.

    Raises:
        PixelValueError: The values asked for cannot be made of this frame's attributes.
    """
    check(frame, options)
    monochrome = not is_color(frame) or is_supplemental(frame)
    padding = frame.padding if monochrome else None
    background = None if padding is None else _background(options)
    base = Plan(frame, options, padding=padding, background=background)
    if options.values == "stored":
        return base
    if options.values == "real_world":
        if frame.real_world_value_map is None:
            raise PixelValueError(
                "(0040,9096) RealWorldValueMappingSequence is absent: this frame has no real world values; "
                "use values='modality'"
            )
        finite.check_real_world(frame, options.dtype)
        return replace(base, real_world=frame.real_world_value_map)
    if not monochrome:
        return _color_plan(base)
    notices: list[str] = []
    base = _with_modality(base, notices)
    if options.values == "display":
        _check_consistency(frame, notices)
        channels = tuple(voi_mapping(frame, window, notices) for window in options.windows)
        base = replace(
            base,
            channels=channels,
            palette=frame.palette if is_supplemental(frame) else (),
            inverted=frame.pixel.photometric_interpretation == "MONOCHROME1",
        )
    return replace(base, notices=tuple(dict.fromkeys(notices)))


def _background(options: PixelOptions) -> float | None:
    if not isinstance(options.padding, str):
        return options.padding
    if options.values == "display" or options.normalize is not None:
        return 0.0
    return math.nan if options.padding == "fill" else None


def _color_plan(base: Plan) -> Plan:
    pixel = base.frame.pixel
    if base.options.values != "display":
        return base
    if pixel.is_palette:
        if len(base.frame.palette) != 3:
            raise PixelValueError(
                "(0028,1201) RedPaletteColorLookupTableData and its like are absent: the indices of this "
                "PALETTE COLOR frame have no colours; use values='stored'"
            )
        return replace(base, palette=base.frame.palette, channels=())
    white = 1.0 if pixel.is_float else float((1 << pixel.bits_stored) - 1)
    full = Mapping("linear", 1 / white, 0.0, 0.0, 1.0, voi=AppliedVOI("full"), fixed=True)
    return replace(base, channels=(full,))


def _with_modality(base: Plan, notices: list[str]) -> Plan:
    """Adds what turns stored values into modality values (dose in the units of the file, SUVbw if asked for)."""
    frame = base.frame
    slope, intercept = rescale(frame)
    table = frame.modality_lut
    if table is not None:
        if not math.isnan(frame.rescale_slope):
            notices.append(
                "(0028,3000) ModalityLUTSequence and (0028,1053) RescaleSlope are both present; the LUT is used"
            )
        slope, intercept = 1.0, 0.0
    if is_dose(frame):
        if math.isnan(frame.dose_grid_scaling):
            raise PixelValueError(
                "(3004,000E) DoseGridScaling is absent: the dose of this frame is unknown; use values='stored'"
            )
        slope, intercept, table = frame.dose_grid_scaling, 0.0, None
    if base.options.values == "suvbw":
        if math.isnan(frame.suv_factor):
            reason = frame.suv_problem or f"Modality is {shown('Modality', frame.modality)!r}"
            raise PixelValueError(
                f"this frame has no SUV: {reason}; use values='modality', or leave such frames out"
            )
        slope, intercept = slope * frame.suv_factor, intercept * frame.suv_factor
    if table is None:
        finite.check_rescale(frame, base.options, slope, intercept)
    return replace(base, slope=slope, intercept=intercept, table=table)


def _check_consistency(frame: FrameValues, notices: list[str]) -> None:
    shape = frame.presentation_lut_shape
    interpretation = frame.pixel.photometric_interpretation
    expected = "INVERSE" if interpretation == "MONOCHROME1" else "IDENTITY"
    if shape in ("INVERSE", "IDENTITY") and shape != expected:
        photometric = shown("PhotometricInterpretation", interpretation)
        notices.append(
            f"(2050,0020) PresentationLUTShape is {shape!r} with PhotometricInterpretation {photometric!r}; "
            "polarity follows the latter"
        )
    if frame.pixel_presentation in ("MIXED", "COLOR") and not frame.palette:
        notices.append(
            f"(0008,9205) PixelPresentation is {frame.pixel_presentation!r} but there is no palette; shown in gray"
        )
