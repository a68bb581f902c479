"""Frozen value types, named after the modules and macros of PS3.3 that they come from.

Nothing here reads, decodes or computes: these are the values that the layers hand to each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from dicomtorch.errors import OptionError

Values = Literal["stored", "modality", "real_world", "suvbw", "display"]
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
# Of 100 to 106 there is a fragmentable form each.
VIDEO = frozenset(
    f"1.2.840.10008.1.2.4.{number}{fragmentable}"
    for number in range(100, 109)
    for fragmentable in ("", ".1")
    if not fragmentable or number <= 106
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


Window = None | int | str | tuple[float, float]


class Windows(tuple[Window, ...]):
    """One window for each channel; a type of its own, since (40, 400) is one window and [0, 1] are two."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Windows) and tuple.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash((Windows, *self))

    def __repr__(self) -> str:
        return repr(list(self))


CT_PRESETS: dict[str, tuple[float, float]] = {
    "brain": (40, 80),
    "subdural": (75, 215),
    "stroke": (40, 40),
    "temporal_bone": (600, 2800),
    "bone": (400, 1800),
    "neck": (40, 375),
    "angio": (300, 600),
    "lung": (-600, 1500),
    "mediastinum": (50, 350),
    "soft_tissue": (50, 400),
    "abdomen": (50, 400),
    "liver": (30, 150),
    "spine": (50, 250),
}
"""(center, width) in Hounsfield units, as commonly used for reading CT."""

VALUES: tuple[str, ...] = ("stored", "modality", "real_world", "suvbw", "display")
NORMALIZATIONS: tuple[str, ...] = ("minmax", "zscore", "percentile")
INTEGER_DTYPES: tuple[str, ...] = ("uint8", "int8", "int16", "int32", "int64")
FLOAT_DTYPES: tuple[str, ...] = ("float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True, slots=True)
class PixelOptions:
    """What a user asks of the pixels; refuses combinations without a meaning.

    Attributes:
        values: "stored", "modality", "real_world", "suvbw" or "display".
        window: `None` for the file's own, an int for its k-th window, (center, width) in modality values, the name of
            one of `CT_PRESETS`, "series", or a list of these for one channel each. Kept as `Windows` if it is a list.
            (center, width) is LINEAR where modality values are whole numbers, else LINEAR_EXACT.
        padding: "keep", "fill" or the number that padded pixels get. In display padded pixels are 0 and after
            `normalize` they are 0, unless a number is given; "fill" gives them the lowest value that is not padding.
        normalize: `None`, "minmax", "zscore", "percentile" or (mean, standard deviation), on modality values.
        color: "auto", "rgb" or "gray".
        size: `None` or (rows, columns).
        dtype: Name of the NumPy/torch type of the tensor, `None` for the default.

    Raises:
        OptionError: An option is not one of these, or two contradict each other.
    """

    values: Values = "display"
    window: Window | Sequence[Window] = None
    padding: Literal["keep", "fill"] | float = "keep"
    normalize: str | tuple[float, float] | None = None
    color: Literal["auto", "rgb", "gray"] = "auto"
    size: tuple[int, int] | None = None
    dtype: str | None = None

    def __post_init__(self) -> None:
        _one_of("values", self.values, VALUES)
        _one_of("color", self.color, ("auto", "rgb", "gray"))
        for name, value in (
            ("window", _window_option(self.window)),
            ("padding", _padding_option(self.padding)),
            ("normalize", _normalize_option(self.normalize)),
            ("size", _size_option(self.size)),
            ("dtype", _dtype_option(self.dtype)),
        ):
            object.__setattr__(self, name, value)
        self._refuse_contradictions()

    @property
    def windows(self) -> tuple[Window, ...]:
        """One window for each channel of a grayscale image."""
        return tuple(self.window) if isinstance(self.window, Windows) else (self.window,)  # type: ignore[return-value]

    def _refuse_contradictions(self) -> None:
        if self.window is not None and self.values != "display":
            raise OptionError(
                f"window={self.window!r} has no meaning with values={self.values!r}; windows apply to "
                "values='display' only"
            )
        if self.normalize is not None and self.values in ("stored", "display"):
            raise OptionError(
                f"normalize={self.normalize!r} acts on modality values, not on values={self.values!r}; "
                "use values='modality' (or 'real_world', 'suvbw') with it"
            )
        if self.color != "auto" and self.values == "stored":
            raise OptionError(
                f"color={self.color!r} has no meaning with values='stored', which are what the file holds; "
                "use values='display' or color='auto'"
            )
        if self.color == "rgb" and len(self.windows) > 1:
            raise OptionError(
                f"color='rgb' and {len(self.windows)} windows both decide the number of channels; give one of them"
            )
        computed = self.values == "display" or self.normalize is not None
        if self.dtype in INTEGER_DTYPES and computed:
            raise OptionError(
                f"dtype={self.dtype!r} cannot hold the fractions of values={self.values!r}"
                f"{'' if self.normalize is None else f' after normalize={self.normalize!r}'}; "
                f"expected one of {', '.join(map(repr, FLOAT_DTYPES))}"
            )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def _one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in allowed:
        raise OptionError(f"{name}={value!r} is not one of {', '.join(map(repr, allowed))}")


def _window_option(window: object) -> Window | Windows:
    pair = isinstance(window, tuple) and len(window) == 2 and all(map(_is_number, window))
    if isinstance(window, Windows) or (isinstance(window, (list, tuple)) and not pair):
        if not window:
            raise OptionError("window=[] asks for no channel at all; give at least one window")
        return Windows(_one_window(one) for one in window)
    return _one_window(window)


def _one_window(window: object) -> Window:
    if window is None or window == "series":
        return window
    if isinstance(window, str):
        name = window.strip().lower().replace(" ", "_").replace("-", "_")
        if name not in CT_PRESETS:
            raise OptionError(
                f"window={window!r} is no preset; choose 'series' or one of {', '.join(map(repr, CT_PRESETS))}, "
                "or give (center, width)"
            )
        return name
    if isinstance(window, (int, np.integer)) and not isinstance(window, bool):
        if window < 0:
            raise OptionError(f"window={window} is negative; the file's windows count from 0")
        return int(window)
    if isinstance(window, (list, tuple)) and len(window) == 2 and all(map(_is_number, window)):
        center, width = float(window[0]), float(window[1])
        if not (math.isfinite(center) and math.isfinite(width) and width > 0):
            raise OptionError(f"window={window!r} needs a finite center and a width above 0")
        return (center, width)
    raise OptionError(
        f"window={window!r} is not understood; expected None, an int, (center, width), a preset's name, "
        "'series', or a list of these"
    )


def _padding_option(padding: object) -> Any:
    if padding in ("keep", "fill"):
        return padding
    if not _is_number(padding):
        raise OptionError(f"padding={padding!r} is not 'keep', 'fill' or a number")
    return float(padding)  # type: ignore[arg-type]


def _normalize_option(normalize: object) -> str | tuple[float, float] | None:
    if normalize is None or isinstance(normalize, str):
        if normalize is not None:
            _one_of("normalize", normalize, NORMALIZATIONS)
        return normalize
    if (
        not isinstance(normalize, (list, tuple))
        or len(normalize) != 2
        or not all(map(_is_number, normalize))
    ):
        raise OptionError(
            f"normalize={normalize!r} is not None, {', '.join(map(repr, NORMALIZATIONS))} or (mean, standard deviation)"
        )
    mean, deviation = map(float, normalize)
    if not (math.isfinite(mean) and math.isfinite(deviation) and deviation > 0):
        raise OptionError(f"normalize={normalize!r} needs a finite mean and a deviation above 0")
    return (mean, deviation)


def _size_option(size: object) -> tuple[int, int] | None:
    if size is None:
        return None
    if (
        not isinstance(size, (list, tuple))
        or len(size) != 2
        or not all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) for n in size)
        or min(size) < 1
    ):
        raise OptionError(f"size={size!r} is not (rows, columns) in whole pixels above 0")
    return (int(size[0]), int(size[1]))


def _dtype_option(dtype: object) -> str | None:
    if dtype is None:
        return None
    name = dtype.__name__ if isinstance(dtype, type) else str(dtype).removeprefix("torch.")
    if name not in (*INTEGER_DTYPES, *FLOAT_DTYPES):
        raise OptionError(
            f"dtype={dtype!r} is not one of {', '.join(map(repr, (*INTEGER_DTYPES, *FLOAT_DTYPES)))}"
        )
    return name


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
        duplicates: Files with frames whose SOPInstanceUID an earlier file has.
    """

    findings: tuple[FileFinding, ...] = ()
    read: int = 0
    reused: int = 0
    removed: int = 0
    seconds: float = 0.0
    duplicates: int = 0

    @cached_property
    def counts(self) -> dict[str, int]:
        """Files per class, every class present."""
        counts = dict.fromkeys(FILE_CLASSES, 0)
        for finding in self.findings:
            counts[finding.file_class] += 1
        return counts
