"""What belongs to one frame: where its bytes are, and what turns its stored values into others."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from dicomtorch._forks import lazy
from dicomtorch.model.image import ImagePixel

SpanRule = Literal[
    "native",
    "single_frame",
    "extended_offset_table",
    "basic_offset_table",
    "one_fragment_per_frame",
    "markers",
]
SPAN_RULES: tuple[SpanRule, ...] = (
    "native",
    "single_frame",
    "extended_offset_table",
    "basic_offset_table",
    "one_fragment_per_frame",
    "markers",
)


class FrameSpan(NamedTuple):
    """Where the bytes of one frame are: one positioned read.

    Attributes:
        offset: First byte in the file (in the inflated data set if the transfer syntax is deflated). For an
            encapsulated frame: the item tag of its first fragment.
        length: Bytes to read: for an encapsulated frame all its items, headers included.
        fragments: Items in the span; 0 for native data, -1 if an offset table made counting them unnecessary.
        bit_offset: The bit of the first byte at which a native frame begins (0 to 7), of the first 16-bit word where
            pixels are packed into big endian words (0 to 15).
        true_length: Length from the Extended Offset Table without padding; -1 if unknown.
    """

    offset: int
    length: int
    fragments: int = 0
    bit_offset: int = 0
    true_length: int = -1


@dataclass(frozen=True, eq=False)
class FrameSpans:
    """The frames of one Pixel Data element, in order; arrays have one entry a frame.

    Attributes:
        offset: int64. First byte in the file: of the frame, or of the item tag of its first fragment.
        length: int64. Bytes to read, item headers included.
        fragments: int32. Items in the span, 0 for native data, -1 where a table made counting unnecessary.
        bit_offset: int8. The bit of the first byte, of the first word in Explicit Big Endian OW, at which a native
            frame begins.
        true_length: int64. Length from the Extended Offset Table without padding; -1 if unknown.
        rule: What told the frames apart.
        found: Frames that the element holds; differs from the frames here where more are there than claimed.
        photometric_interpretation: The one that the length bears out: YBR_FULL where the header says YBR_FULL_422 but
            no chroma sample is missing; else as in the header.
        notices: What was odd: tables rejected and why, claimed against found, excess bytes, truncation.
    """

    offset: npt.NDArray[np.int64]
    length: npt.NDArray[np.int64]
    fragments: npt.NDArray[np.int32]
    bit_offset: npt.NDArray[np.int8]
    true_length: npt.NDArray[np.int64]
    rule: SpanRule
    found: int
    photometric_interpretation: str = ""
    notices: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.offset)

    def span(self, frame: int) -> FrameSpan:
        """The span of one frame."""
        return FrameSpan(
            int(self.offset[frame]),
            int(self.length[frame]),
            int(self.fragments[frame]),
            int(self.bit_offset[frame]),
            int(self.true_length[frame]),
        )


@dataclass(frozen=True, eq=False)
class LookupTable:
    """A Modality LUT, VOI LUT or palette (PS3.3 C.11.1.1, C.11.2.1.1, C.7.6.3.1.5), expanded.

    Attributes:
        first_mapped: Value that maps to the first entry, its sign already resolved.
        bits: Bits per entry as the descriptor states them.
        data: The entries, 1-D, uint16 (float64 in a real world value map).
    """

    first_mapped: int
    bits: int
    data: npt.NDArray[np.generic]

    @lazy
    def maximum(self) -> float:
        """2^bits - 1, or the smallest 2^n - 1 that holds the largest entry if a vendor wrote too few bits."""
        top = int(self.data.max()) if self.data.size else 0
        return float((1 << max(self.bits, top.bit_length(), 1)) - 1)


@dataclass(frozen=True, slots=True)
class RealWorldValueMap:
    """Real World Value Mapping Item (PS3.3 C.7.6.16.2.11); applies to stored values.

    Attributes:
        first: First stored value that the map covers.
        last: Last stored value that it covers.
        slope: Slope; nan if `data` is used.
        intercept: Intercept; nan if `data` is used.
        units: Code value of the Measurement Units Code Sequence.
        data: LUT Data (0040,9212), or `None`.
    """

    first: float
    last: float
    slope: float = math.nan
    intercept: float = math.nan
    units: str = ""
    data: npt.NDArray[np.float64] | None = field(default=None, compare=False)


VOILUTFunction = str


@dataclass(frozen=True, slots=True)
class FrameValues:
    """What turns the stored values of one frame into others, already resolved per-frame, shared, top level.

    Absent numbers are nan, absent text is "", absent tables are `None` or ().

    Attributes:
        pixel: The Image Pixel Module.
        modality: (0008,0060).
        sop_class_uid: (0008,0016).
        rescale_slope: (0028,1053).
        rescale_intercept: (0028,1052).
        rescale_type: (0028,1054).
        modality_lut: Item of the Modality LUT Sequence; it wins over the slope.
        windows: (center, width) pairs, in file order.
        voi_lut_function: (0028,1056): "", LINEAR, LINEAR_EXACT, SIGMOID, or what the file says.
        voi_luts: Items of the VOI LUT Sequence that are not empty.
        presentation_lut_shape: (2050,0020).
        palette: Red, green and blue, or ().
        pixel_presentation: (0008,9205), for supplemental palettes.
        padding: Inclusive (low, high) of the stored values that are padding, or `None`.
        real_world_value_map: The first map, or `None`.
        segmentation_type: (0062,0001): BINARY, FRACTIONAL, LABELMAP.
        maximum_fractional_value: (0062,000E), -1 if absent.
        dose_grid_scaling: (3004,000E).
        suv_factor: Modality values times this are SUVbw, nan if unknown.
        suv_problem: Why there is no factor: the keyword to blame and a reason.
    """

    pixel: ImagePixel
    modality: str = ""
    sop_class_uid: str = ""
    rescale_slope: float = math.nan
    rescale_intercept: float = math.nan
    rescale_type: str = ""
    modality_lut: LookupTable | None = None
    windows: tuple[tuple[float, float], ...] = ()
    voi_lut_function: VOILUTFunction = ""
    voi_luts: tuple[LookupTable, ...] = ()
    presentation_lut_shape: str = ""
    palette: tuple[LookupTable, ...] = ()
    pixel_presentation: str = ""
    padding: tuple[float, float] | None = None
    real_world_value_map: RealWorldValueMap | None = None
    segmentation_type: str = ""
    maximum_fractional_value: int = -1
    dose_grid_scaling: float = math.nan
    suv_factor: float = math.nan
    suv_problem: str = ""


@dataclass(frozen=True, slots=True)
class AppliedVOI:
    """How one frame became display values; goes into `meta`.

    Attributes:
        voi: "user", "lut", "file", "full", "frame", "dose", "sample", "series", "label", or "" where no VOI is applied.
        window_center: Of the window used, in modality values; nan for a LUT and where none was used.
        window_width: The same.
    """

    voi: str = ""
    window_center: float = math.nan
    window_width: float = math.nan


class Reduced(NamedTuple):
    """Stored values of a frame at less than its resolution.

    Attributes:
        samples: float32, (rows, columns) or (rows, columns, samples) divided by `factor` and rounded up.
        factor: Pixels of the frame from one sample to the next, 2, 4 or 8.
        offset: Where the first sample lies, in pixels of the frame from the centre of its first pixel: 0 for the
            low-pass band of a wavelet, (factor - 1) / 2 for means of blocks.
    """

    samples: npt.NDArray[np.float32]
    factor: int
    offset: float
