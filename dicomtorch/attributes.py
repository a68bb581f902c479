"""Frozen value types, named after the modules and macros of PS3.3 that they come from.

Nothing here reads, decodes or computes: these are the values that the layers hand to each other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from dicomtorch.errors import OptionError

Values = Literal["stored", "modality", "real_world", "display"]
PixelDataVR = Literal["OB", "OW", "OF", "OD"]

IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
EXPLICIT_VR_BIG_ENDIAN = "1.2.840.10008.1.2.2"
DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1.99"
ENCAPSULATED_UNCOMPRESSED = "1.2.840.10008.1.2.1.98"
DEFLATED_IMAGE_FRAME = "1.2.840.10008.1.2.8.1"
RLE_LOSSLESS = "1.2.840.10008.1.2.5"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
JPEG_SPECTRAL_SELECTION = "1.2.840.10008.1.2.4.53"
JPEG_FULL_PROGRESSION = "1.2.840.10008.1.2.4.55"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.57"
JPEG_LOSSLESS_SV1 = "1.2.840.10008.1.2.4.70"
JPEG_LS_LOSSLESS = "1.2.840.10008.1.2.4.80"
JPEG_LS_NEAR_LOSSLESS = "1.2.840.10008.1.2.4.81"
JPEG_2000_LOSSLESS = "1.2.840.10008.1.2.4.90"
JPEG_2000 = "1.2.840.10008.1.2.4.91"
JPEG_XL_LOSSLESS = "1.2.840.10008.1.2.4.110"
JPEG_XL_RECOMPRESSION = "1.2.840.10008.1.2.4.111"
JPEG_XL = "1.2.840.10008.1.2.4.112"
HTJ2K_LOSSLESS = "1.2.840.10008.1.2.4.201"
HTJ2K_LOSSLESS_RPCL = "1.2.840.10008.1.2.4.202"
HTJ2K = "1.2.840.10008.1.2.4.203"

NATIVE = frozenset(
    {
        IMPLICIT_VR_LITTLE_ENDIAN,
        EXPLICIT_VR_LITTLE_ENDIAN,
        EXPLICIT_VR_BIG_ENDIAN,
        DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    }
)
JPEG_DCT = frozenset({JPEG_BASELINE, JPEG_EXTENDED, JPEG_SPECTRAL_SELECTION, JPEG_FULL_PROGRESSION})
JPEG_LOSSLESS_FAMILY = frozenset({JPEG_LOSSLESS, JPEG_LOSSLESS_SV1})
JPEG_LS_FAMILY = frozenset({JPEG_LS_LOSSLESS, JPEG_LS_NEAR_LOSSLESS})
JPEG_2000_FAMILY = frozenset({JPEG_2000_LOSSLESS, JPEG_2000})
HTJ2K_FAMILY = frozenset({HTJ2K_LOSSLESS, HTJ2K_LOSSLESS_RPCL, HTJ2K})
JPEG_XL_FAMILY = frozenset({JPEG_XL_LOSSLESS, JPEG_XL_RECOMPRESSION, JPEG_XL})
VIDEO = frozenset(
    f"1.2.840.10008.1.2.4.{number}"
    for number in (
        ["100", "100.1", "101", "101.1", "102", "102.1", "103", "103.1", "104", "104.1", "105", "105.1", "106", "106.1", "107", "108"]
    )
)
LOSSY = frozenset(
    JPEG_DCT | {JPEG_LS_NEAR_LOSSLESS, JPEG_2000, HTJ2K, JPEG_XL, JPEG_XL_RECOMPRESSION}
)
"""Syntaxes whose stream may be lossy; only the stream says whether it is."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What damaged or hostile input may cost; every error that comes of one names its field."""

    header_bytes: int = 64 << 20
    elements: int = 2_000_000
    items: int = 2_000_000
    depth: int = 64
    text_bytes: int = 64 << 10
    frames_per_file: int = 2_000_000
    pixels_per_frame: int = 1 << 28
    samples_per_pixel: int = 4
    decoded_bytes_per_frame: int = 1 << 30
    inflated_bytes: int = 4 << 30
    inflated_ratio: int = 1_100
    tiles: int = 65_535
    header_seconds: float = 1.0
    header_seconds_per_16_mib: float = 1.0

    def fragments(self, number_of_frames: int) -> int:
        """The most fragments that `number_of_frames` frames may have."""
        return number_of_frames * 64 + 4_096


LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class ImagePixel:
    """How the bytes of a frame become stored values: Image Pixel Module (PS3.3 C.7.6.3) and Transfer Syntax.

    Attributes:
        transfer_syntax_uid: The transfer syntax that the pixel data are really in.
        rows: Height in pixels.
        columns: Width in pixels.
        samples_per_pixel: 1, 3 or 4.
        photometric_interpretation: As in the file, stripped.
        bits_allocated: 1, 8, 12, 16, 32 or 64.
        bits_stored: Bits that carry the value.
        high_bit: Position of the value's highest bit.
        pixel_representation: 0 for unsigned, 1 for two's complement.
        planar_configuration: 0 for R1G1B1R2..., 1 for R1R2...G1...
        pixel_data_vr: OB or OW for Pixel Data, OF for Float, OD for Double Float Pixel Data. It decides how Explicit
            Big Endian bytes are ordered (PS3.5 section 8.1.1).
    """

    transfer_syntax_uid: str
    rows: int
    columns: int
    samples_per_pixel: int = 1
    photometric_interpretation: str = "MONOCHROME2"
    bits_allocated: int = 16
    bits_stored: int = 16
    high_bit: int = 15
    pixel_representation: int = 0
    planar_configuration: int = 0
    pixel_data_vr: PixelDataVR = "OW"

    @property
    def is_float(self) -> bool:
        """Whether the element is Float or Double Float Pixel Data."""
        return self.pixel_data_vr in ("OF", "OD")

    @property
    def is_palette(self) -> bool:
        """Whether stored values are indices into a palette."""
        return self.photometric_interpretation == "PALETTE COLOR"

    @property
    def is_encapsulated(self) -> bool:
        """Whether Pixel Data is a sequence of items."""
        return self.transfer_syntax_uid not in NATIVE

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the stored values: (rows, columns), or (rows, columns, samples) if samples > 1."""
        if self.samples_per_pixel == 1:
            return (self.rows, self.columns)
        return (self.rows, self.columns, self.samples_per_pixel)

    @property
    def stored_dtype(self) -> np.dtype[np.generic]:
        """The smallest NumPy type that holds every stored value that the header admits."""
        if self.is_float:
            return np.dtype(np.float32 if self.pixel_data_vr == "OF" else np.float64)
        for bits in (8, 16, 32, 64):
            if self.bits_stored <= bits:
                return np.dtype(f"{'i' if self.pixel_representation else 'u'}{bits // 8}")
        raise OptionError(f"(0028,0101) BitsStored is {self.bits_stored}; at most 64 are possible")

    @property
    def native_bits(self) -> int:
        """Bits of one frame in a native (not encapsulated) element, without padding.

        YBR_FULL_422 and YBR_PARTIAL_422 carry two samples a pixel (PS3.3 C.7.6.3.1.2).
        """
        samples = self.samples_per_pixel
        if samples == 3 and self.photometric_interpretation in ("YBR_FULL_422", "YBR_PARTIAL_422"):
            samples = 2
        return self.rows * self.columns * samples * self.bits_allocated


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


@dataclass(frozen=True, slots=True)
class FrameSpan:
    """Where the bytes of one frame are: one positioned read.

    Attributes:
        offset: First byte in the file (in the inflated data set if the transfer syntax is deflated). For an
            encapsulated frame: the item tag of its first fragment.
        length: Bytes to read: for an encapsulated frame all its items, headers included.
        fragments: Items in the span; 0 for native data.
        bit_offset: For 1-bit native frames, the bit of the first byte at which the frame begins (0 to 7).
        true_length: Length from the Extended Offset Table without padding; -1 if unknown.
    """

    offset: int
    length: int
    fragments: int = 0
    bit_offset: int = 0
    true_length: int = -1


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

    @cached_property
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


Window = None | int | str | tuple[float, float]


@dataclass(frozen=True, slots=True)
class PixelOptions:
    """What a user asks of the pixels; refuses combinations without a meaning.

    Attributes:
        values: "stored", "modality", "real_world" or "display".
        window: `None` for the file's own, an int for its k-th window, (center, width) in modality values, a preset's
            name, "series", or a tuple of these for one channel each.
        padding: "keep", "fill" or the number that padded pixels get.
        normalize: `None`, "minmax", "zscore", "percentile" or (mean, standard deviation).
        color: "auto", "rgb" or "gray".
        size: `None` or (rows, columns).
        dtype: Name of the NumPy/torch type of the tensor, `None` for the default.
    """

    values: Values = "display"
    window: Window | tuple[Window, ...] = None
    padding: Literal["keep", "fill"] | float = "keep"
    normalize: str | tuple[float, float] | None = None
    color: Literal["auto", "rgb", "gray"] = "auto"
    size: tuple[int, int] | None = None
    dtype: str | None = None


@dataclass(frozen=True, slots=True)
class AppliedVOI:
    """How one frame became display values; goes into `meta`.

    Attributes:
        voi: "user", "lut", "file", "full", "frame", "sample", "series", "label", or "" where no VOI is applied.
        window_center: Of the window used, in modality values; nan for a LUT and where none was used.
        window_width: The same.
    """

    voi: str = ""
    window_center: float = math.nan
    window_width: float = math.nan


FILE_CLASSES = ("image", "no_pixels", "unsupported", "not_dicom", "unreadable")
FileClass = Literal["image", "no_pixels", "unsupported", "not_dicom", "unreadable"]


@dataclass(frozen=True, slots=True)
class FileFinding:
    """One file in a report.

    Attributes:
        path: As bytes of the file system.
        file_class: One of `FILE_CLASSES`: "image" has rows; "no_pixels" is DICOM without an image; "unsupported" is an
            image that nothing decodes by design (video); "not_dicom" was passed over; "unreadable" is damaged.
        reason: One line, without identifiers; for "image" a notice about what was odd, or "".
    """

    path: bytes
    file_class: FileClass
    reason: str = ""


@dataclass(frozen=True)
class ScanReport:
    """What a scan met.

    Attributes:
        findings: One per file, in scan order.
        read: Files whose header was read in this scan.
        reused: Files that were taken over from the index given.
        removed: Files of the index given that are no longer there.
        seconds: Wall time.
    """

    findings: tuple[FileFinding, ...] = ()
    read: int = 0
    reused: int = 0
    removed: int = 0
    seconds: float = 0.0

    @cached_property
    def counts(self) -> dict[str, int]:
        """Files per class, every class present."""
        counts = dict.fromkeys(FILE_CLASSES, 0)
        for finding in self.findings:
            counts[finding.file_class] += 1
        return counts
