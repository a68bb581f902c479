"""From a header to rows of the index: which value holds for which frame.

A value is taken from the per-frame functional group, else the shared one, else the main data set (PS3.3 C.7.6.16). A
macro is taken whole from one of them, never merged attribute by attribute. Keywords of `tags=` follow the same order.
What is absent, empty or malformed is missing in the row; malformed values and oddities are told in `Resolved.notices`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import numpy as np

from dicomtorch.attributes import (
    LIMITS,
    ImagePixel,
    Limits,
    LookupTable,
    PixelDataVR,
    RealWorldValueMap,
)
from dicomtorch.errors import HeaderError, PixelValueError
from dicomtorch.header import Element, Group, Header, array, floats, integers, texts
from dicomtorch.lookup import lookup_table
from dicomtorch.schema import FRAME_COLUMNS, Column, Kind
from dicomtorch.suv import PETAttributes, parse_date_time, seconds_of_day, suv_factor
from dicomtorch.tags import KEYWORDS, PRIVATE, VRS, describe, private_tags

_TAG: Final = {keyword: tag for keyword, (tag, _) in KEYWORDS.items()}


@dataclass(frozen=True, slots=True)
class Tag:
    """A keyword of `tags=`.

    Attributes:
        tag: Its tag.
        vr: Its VR in the dictionary.
        kind: Of its column: "float64", "int64" or "text".
    """

    tag: int
    vr: str
    kind: Kind


@dataclass(slots=True)
class Resolved:
    """The rows of one file.

    Attributes:
        columns: Name of a column -> one value for all frames, or a list or array with one for each. Absent: missing.
        lookups: What the `*_lut`, `palette` and `real_world_value_map` columns number.
        notices: What was odd.
    """

    columns: dict[str, Any]
    lookups: list[LookupTable | RealWorldValueMap] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


class _MalformedError(ValueError):
    """A value that is not what its attribute should be; the text says what was expected."""


# Attributes of the main data set whose value is a column as it is: keyword -> kind of conversion.
_TOP: Final[dict[str, str]] = {
    **dict.fromkeys(
        [
            "SOPInstanceUID",
            "SeriesInstanceUID",
            "StudyInstanceUID",
            "FrameOfReferenceUID",
            "SOPClassUID",
            "PatientID",
            "IssuerOfPatientID",
            "Modality",
            "ImageType",
            "ComplexImageComponent",
            "ConvolutionKernel",
            "ContrastBolusAgent",
            "BurnedInAnnotation",
            "RecognizableVisualFeatures",
            "RescaleType",
            "Units",
            "PresentationLUTShape",
            "PixelPresentation",
            "SegmentationType",
        ],
        "text",
    ),
    **dict.fromkeys(
        [
            "RescaleSlope",
            "RescaleIntercept",
            "DoseGridScaling",
            "SliceThickness",
            "SpacingBetweenSlices",
            "FrameTime",
            "TriggerTime",
            "EchoTime",
            "DiffusionBValue",
            "NominalPercentageOfCardiacPhase",
            "KVP",
        ],
        "float64",
    ),
    **dict.fromkeys(
        ["MaximumFractionalValue", "InstanceNumber", "AcquisitionNumber", "TemporalPositionIndex"],
        "int32",
    ),
    "AcquisitionTime": "seconds",
    "ImagePositionPatient": "float64[3]",
    "ImageOrientationPatient": "float64[6]",
    "PixelSpacing": "float64[2]",
}

# Sequences of which a file has at most one -> column, attribute in the macro.
_MACROS: Final[tuple[tuple[tuple[str, ...], tuple[tuple[str, str], ...]], ...]] = (
    (
        ("PixelMeasuresSequence",),
        (
            ("PixelSpacing", "PixelSpacing"),
            ("SliceThickness", "SliceThickness"),
            ("SpacingBetweenSlices", "SpacingBetweenSlices"),
        ),
    ),
    (("PlanePositionSequence",), (("ImagePositionPatient", "ImagePositionPatient"),)),
    (("PlaneOrientationSequence",), (("ImageOrientationPatient", "ImageOrientationPatient"),)),
    (
        ("PixelValueTransformationSequence",),
        (
            ("RescaleSlope", "RescaleSlope"),
            ("RescaleIntercept", "RescaleIntercept"),
            ("RescaleType", "RescaleType"),
        ),
    ),
    (
        ("FrameContentSequence",),
        (
            ("StackID", "StackID"),
            ("InStackPositionNumber", "InStackPositionNumber"),
            ("TemporalPositionIndex", "TemporalPositionIndex"),
            ("DimensionIndexValues", "DimensionIndexValues"),
            ("AcquisitionNumber", "FrameAcquisitionNumber"),
        ),
    ),
    (("MREchoSequence",), (("EchoTime", "EffectiveEchoTime"),)),
    (("MRDiffusionSequence",), (("DiffusionBValue", "DiffusionBValue"),)),
    (
        ("CardiacSynchronizationSequence",),
        (
            ("NominalPercentageOfCardiacPhase", "NominalPercentageOfCardiacPhase"),
            ("TriggerTime", "NominalCardiacTriggerDelayTime"),
        ),
    ),
    (
        ("MRImageFrameTypeSequence",),
        (("ImageType", "FrameType"), ("ComplexImageComponent", "ComplexImageComponent")),
    ),
    (
        (
            "CTImageFrameTypeSequence",
            "PETFrameTypeSequence",
            "WholeSlideMicroscopyImageFrameTypeSequence",
            "XAXRFFrameCharacteristicsSequence",
        ),
        (("ImageType", "FrameType"),),
    ),
    (("CTReconstructionSequence",), (("ConvolutionKernel", "ConvolutionKernel"),)),
    (("CTXRayDetailsSequence",), (("KVP", "KVP"),)),
    (("SegmentIdentificationSequence",), (("SegmentNumber", "ReferencedSegmentNumber"),)),
    (
        ("OpticalPathIdentificationSequence",),
        (("OpticalPathIdentifier", "OpticalPathIdentifier"),),
    ),
    (
        ("PlanePositionSlideSequence",),
        (
            ("tile_column", "ColumnPositionInTotalImagePixelMatrix"),
            ("tile_row", "RowPositionInTotalImagePixelMatrix"),
        ),
    ),
)

_IMAGE_PIXEL_KEYWORDS: Final = (
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PlanarConfiguration",
)
_COLORS: Final = ("Red", "Green", "Blue")
_OTHERS: Final = [
    "SpecificCharacterSet",
    "NumberOfFrames",
    "FrameIncrementPointer",
    "FrameTimeVector",
    "ConcatenationFrameOffsetNumber",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "FloatPixelPaddingValue",
    "DoubleFloatPixelPaddingValue",
    "FloatPixelPaddingRangeLimit",
    "DoubleFloatPixelPaddingRangeLimit",
    "ModalityLUTSequence",
    "LUTDescriptor",
    "LUTData",
    "ModalityLUTType",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "VOILUTSequence",
    "FrameVOILUTSequence",
    "RealWorldValueMappingSequence",
    "RealWorldValueFirstValueMapped",
    "RealWorldValueLastValueMapped",
    "DoubleFloatRealWorldValueFirstValueMapped",
    "DoubleFloatRealWorldValueLastValueMapped",
    "RealWorldValueSlope",
    "RealWorldValueIntercept",
    "RealWorldValueLUTData",
    "MeasurementUnitsCodeSequence",
    "CodeValue",
    "LongCodeValue",
    "DoseUnits",
    "SegmentSequence",
    "SegmentNumber",
    "GridFrameOffsetVector",
    "SliceVector",
    "DetectorInformationSequence",
    "DetectorVector",
    "DimensionOrganizationType",
    "TotalPixelMatrixColumns",
    "TotalPixelMatrixRows",
    "TotalPixelMatrixFocalPlanes",
    "OpticalPathSequence",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "FrameAcquisitionDateTime",
    "DerivationImageSequence",
    "SourceImageSequence",
    "ReferencedSOPInstanceUID",
    "TemporalPositionIdentifier",
    "AcquisitionDateTime",
    "CorrectedImage",
    "DecayCorrection",
    "SUVType",
    "PatientWeight",
    "FrameReferenceTime",
    "ActualFrameDuration",
    "RadiopharmaceuticalInformationSequence",
    "RadiopharmaceuticalStartTime",
    "RadiopharmaceuticalStartDateTime",
    "RadionuclideTotalDose",
    "RadionuclideHalfLife",
    "SeriesDate",
    "SeriesTime",
    "AcquisitionDate",
]

_TIMEZONE: Final = 0x00080201
_CHARACTER_SET: Final = _TAG["SpecificCharacterSet"]
_PER_FRAME: Final = _TAG["PerFrameFunctionalGroupsSequence"]
_SHARED: Final = _TAG["SharedFunctionalGroupsSequence"]
_IMAGE_PIXEL_TAGS: Final = tuple(_TAG[keyword] for keyword in _IMAGE_PIXEL_KEYWORDS)
_TOP_TAGS: Final = {_TAG[keyword]: (keyword, kind) for keyword, kind in _TOP.items()}

WANTED: Final = frozenset(
    {_TIMEZONE, *_IMAGE_PIXEL_TAGS, *_TOP_TAGS, *private_tags()}
    | {_TAG[keyword] for keyword in _OTHERS}
    | {_TAG[name] for sequences, _ in _MACROS for name in sequences}
    | {_TAG[keyword] for _, attributes in _MACROS for _, keyword in attributes}
    | {
        _TAG[f"{color}PaletteColorLookupTable{part}"]
        for color in _COLORS
        for part in ("Descriptor", "Data")
    }
    | {_TAG[f"Segmented{color}PaletteColorLookupTableData"] for color in _COLORS}
)
"""The tags that resolving needs."""

# A malformed one of these must not pass for "absent": every value made from it would be wrong.
_VITAL: Final = frozenset(_TAG[k] for k in ("RescaleSlope", "RescaleIntercept", "DoseGridScaling"))

_BINARY: Final = frozenset(("US", "SS", "UL", "SL", "UV", "SV", "FL", "FD", "AT", "OW"))
_NUMERIC: Final = _BINARY | {"DS", "IS"}
_MOST_REMEMBERED: Final = 1 << 16
_INT32: Final = range(-(1 << 31), 1 << 31)
_NO_GROUP: Final = object()


def _numbers(element: Element, big_endian: bool) -> list[float]:
    """The values of a numeric element, none if it is empty; an empty component of several is nan."""
    vr, value = element
    if vr not in _NUMERIC:
        raise _MalformedError("numbers")
    return floats(element, big_endian) if (vr in _BINARY and value) or value.strip(b" \0\\") else []


def _exactly(numbers: list[Any], width: int) -> list[Any]:
    """`numbers` if they are `width` finite ones, or none."""
    if numbers and (len(numbers) != width or not all(map(_finite, numbers))):
        raise _MalformedError("one number" if width == 1 else f"{width} numbers")
    return numbers


def _finite(number: float | None) -> bool:
    return number is not None and math.isfinite(number)


class _Context:
    """Conversions for one byte order and character set, remembered by the bytes of the value.

    The files of a series have most values in common, so most are converted once.
    """

    def __init__(self, big_endian: bool, character_set: str) -> None:
        self.big_endian = big_endian
        self.character_set = character_set
        self.remembered: dict[Any, Any] = {}

    def remember(self, key: Any, value: Any) -> Any:
        if len(self.remembered) >= _MOST_REMEMBERED:
            self.remembered.clear()
        self.remembered[key] = value
        return value

    def convert(self, tag: int, kind: str, element: Element, notices: list[str]) -> Any:
        """The value as `kind`, `None` if it is empty or malformed."""
        key = (tag, kind, element)
        try:
            value = self.remembered[key]
        except KeyError:
            try:
                value = self._convert(kind, element)
            except _MalformedError as error:
                value = error
            self.remember(key, value)
        except TypeError:  # a sequence where a value should be
            value = _MalformedError("a value")
        if isinstance(value, _MalformedError):
            vr, content = element
            text = f"{describe(tag)} has VR {vr or 'unknown'} and length {len(content)}; expected {value}"
            if tag in _VITAL:
                raise HeaderError(f"{text}, because every value of the image depends on it")
            notices.append(f"{text}; taken as absent")
            return None
        return value

    def _convert(self, kind: str, element: Element) -> Any:
        if kind == "text":
            return self.text(element) or None
        if kind == "seconds":
            seconds = seconds_of_day(self.text(element))
            if math.isnan(seconds) and self.text(element):
                raise _MalformedError("a time of day")
            return None if math.isnan(seconds) else seconds
        if kind == "moment":
            moment = parse_date_time(self.text(element))
            if moment is None and self.text(element):
                raise _MalformedError("a date and time")
            return moment
        numbers = _numbers(element, self.big_endian)
        if kind == "list":
            return tuple(numbers)
        if kind == "float64":
            return next(iter(_exactly(numbers, 1)), None)
        if kind in ("int32", "int64"):
            whole = integers(element, self.big_endian) if numbers else []
            number = next(iter(_exactly(whole, 1)), None)
            if number is not None and kind == "int32" and number not in _INT32:
                raise _MalformedError("an integer of 32 bits")
            return number
        return tuple(_exactly(numbers, int(kind[8:-1]))) or None

    def text(self, element: Element) -> str:
        """The value as text; several are joined with a backslash."""
        if element[0] == "AT":
            return "\\".join(f"{tag:08X}" for tag in integers(element, self.big_endian))
        if element[0] in _BINARY:
            return "\\".join(map(_shortest, _numbers(element, self.big_endian)))
        return "\\".join(texts(element, self.character_set))


def _shortest(number: float) -> str:
    return str(int(number)) if number.is_integer() else repr(number)


class Resolver:
    """Resolves the headers of a scan.

    Args:
        tags: Further columns, by keyword.
        extra: Further tags to read.
        limits: What an image may cost.

    Attributes:
        wanted: The tags that a header must have been read with.
    """

    def __init__(
        self,
        *,
        tags: Mapping[str, Tag] | None = None,
        extra: Iterable[int] = (),
        limits: Limits = LIMITS,
    ) -> None:
        self.tags = dict(tags or {})
        self.limits = limits
        self.wanted = WANTED.union(extra, (tag.tag for tag in self.tags.values()))
        self._missing = {k: Column(k, tag.kind).missing for k, tag in self.tags.items()}
        self._contexts: dict[Any, _Context] = {}
        self._pixels: dict[Any, tuple[ImagePixel, list[str]]] = {}

    def image_pixel(self, header: Header, notices: list[str]) -> ImagePixel:
        """The Image Pixel Module, checked; what is missing and has only one meaning is filled in with a notice.

        Args:
            header: It has pixel data.
            notices: What was odd is appended.

        Raises:
            HeaderError: Something is missing, contradictory, or beyond a limit.
        """
        element = header.pixel_data
        assert element is not None
        elements = header.elements
        key = (
            header.transfer_syntax_uid,
            header.big_endian,
            element.tag,
            element.vr,
            tuple(elements.get(tag) for tag in _IMAGE_PIXEL_TAGS),
        )
        found = self._pixels.get(key)
        if found is None:
            told: list[str] = []
            pixel = _ImagePixelReader(self._context(header), header, told).read()
            _check_limits(pixel, self.limits)
            found = pixel, told
            if len(self._pixels) >= _MOST_REMEMBERED:
                self._pixels.clear()
            self._pixels[key] = found
        notices.extend(found[1])
        return found[0]

    def number_of_frames(self, header: Header, notices: list[str]) -> int:
        """(0028,0008) Number of Frames as stated, -1 if it is absent or empty.

        Raises:
            HeaderError: It is no integer, negative, or beyond a limit.
        """
        tag = _TAG["NumberOfFrames"]
        element = header.elements.get(tag)
        if element is None:
            return -1
        context = self._context(header)
        text = context.text(element)
        if not text:
            return -1
        try:
            number = int(text)
        except ValueError:
            number = -1
        if number < 0 or "_" in text:
            raise HeaderError(f"{describe(tag)} is {text[:16]!r}; expected one integer, 1 or more")
        if number == 0:
            notices.append(f"{describe(tag)} is 0; taken as absent")
            return -1
        if number > self.limits.frames_per_file:
            raise HeaderError(
                f"{describe(tag)} is {number}, more than Limits.frames_per_file = "
                f"{self.limits.frames_per_file}"
            )
        return number

    def text(self, header: Header, keyword: str) -> str:
        """An attribute of the main data set as text, "" if it is absent."""
        element = header.elements.get(_TAG[keyword])
        if element is None or not isinstance(element[1], bytes):
            return ""
        return self._context(header).text(element)

    def numbers(self, header: Header, keyword: str) -> tuple[float, ...]:
        """A numeric attribute of the main data set, () if it is absent or malformed."""
        tag = _TAG[keyword]
        element = header.elements.get(tag)
        if element is None:
            return ()
        found = self._context(header).convert(tag, "list", element, [])
        return () if found is None else tuple(found)

    def resolve(self, header: Header, pixel: ImagePixel, count: int) -> Resolved:
        """The columns of the `count` frames of a file, except where they are in it.

        Raises:
            HeaderError: A value that all others depend on is malformed.
        """
        return _Resolution(self, header, pixel, count, self._context(header)).run()

    def missing(self, name: str) -> Any:
        """What stands for an absent value in a column."""
        column = FRAME_COLUMNS.get(name)
        return self._missing[name] if column is None else column.missing

    def _context(self, header: Header) -> _Context:
        element = header.elements.get(_CHARACTER_SET)
        key = (header.big_endian, None if element is None else element[1])
        context = self._contexts.get(key)
        if context is None:
            names = "\\".join(texts(element))
            context = self._contexts[key] = _Context(header.big_endian, names)
        return context


class _ImagePixelReader:
    """Reads and checks one Image Pixel Module."""

    def __init__(self, context: _Context, header: Header, notices: list[str]) -> None:
        self.context = context
        self.elements = header.elements
        self.header = header
        self.notices = notices

    def integer(self, keyword: str) -> int | None:
        tag = _TAG[keyword]
        element = self.elements.get(tag)
        if element is None:
            return None
        try:
            numbers = _numbers(element, self.context.big_endian)
        except (_MalformedError, AttributeError) as error:
            raise HeaderError(
                f"{describe(tag)} has VR {element[0] or 'unknown'} and length {len(element[1])}; "
                f"expected one integer"
            ) from error
        if not numbers:
            return None
        if len(numbers) != 1 or numbers[0] != numbers[0] // 1:
            values = ", ".join(map(str, numbers[:4]))
            raise HeaderError(f"{describe(tag)} has the values {values}; expected one integer")
        return int(numbers[0])

    def required(self, keyword: str, allowed: Sequence[int] | range) -> int:
        value = self.integer(keyword)
        if value is None:
            raise HeaderError(f"{describe(_TAG[keyword])} is missing, so no frame can be read")
        return self.checked(keyword, value, allowed)

    def checked(self, keyword: str, value: int, allowed: Sequence[int] | range) -> int:
        if value not in allowed:
            text = (
                f"{allowed[0]} to {allowed[-1]}"
                if isinstance(allowed, range)
                else ", ".join(map(str, allowed))
            )
            raise HeaderError(f"{describe(_TAG[keyword])} is {value}; expected {text}")
        return value

    def default(
        self, keyword: str, value: int, allowed: Sequence[int] | range, *, tell: bool
    ) -> int:
        found = self.integer(keyword)
        if found is not None:
            return self.checked(keyword, found, allowed)
        if tell:
            self.notices.append(f"{describe(_TAG[keyword])} is missing; taken as {value}")
        return value

    def read(self) -> ImagePixel:
        vr = self.pixel_data_vr()
        is_float = vr in ("OF", "OD")
        rows = self.required("Rows", range(1, 1 << 16))
        columns = self.required("Columns", range(1, 1 << 16))
        element = self.elements.get(_TAG["PhotometricInterpretation"])
        photometric = self.context.text(element).upper() if element else ""
        colored = photometric.startswith(("RGB", "YBR", "HSV", "ARGB", "CMYK"))
        samples = self.default("SamplesPerPixel", 3 if colored else 1, (1, 3, 4), tell=True)
        if not photometric:
            photometric = "MONOCHROME2" if samples == 1 else "RGB"
            self.notices.append(
                f"{describe(_TAG['PhotometricInterpretation'])} is missing; taken as {photometric}"
            )
        if is_float:
            bits = 32 if vr == "OF" else 64
            allocated = self.default("BitsAllocated", bits, (bits,), tell=True)
            stored, high, signed = allocated, allocated - 1, 0
        else:
            allocated = self.required("BitsAllocated", (1, 8, 12, 16, 32, 64))
            stored = self.default("BitsStored", allocated, range(1, allocated + 1), tell=True)
            high = self.high_bit(allocated, stored)
            signed = self.default("PixelRepresentation", 0, (0, 1), tell=True)
        planar = self.default("PlanarConfiguration", 0, (0, 1), tell=False)
        return ImagePixel(
            transfer_syntax_uid=self.header.transfer_syntax_uid,
            rows=rows,
            columns=columns,
            samples_per_pixel=samples,
            photometric_interpretation=photometric,
            bits_allocated=allocated,
            bits_stored=stored,
            high_bit=high,
            pixel_representation=signed,
            planar_configuration=planar if samples > 1 else 0,
            pixel_data_vr=vr,
        )

    def high_bit(self, allocated: int, stored: int) -> int:
        found = self.integer("HighBit")
        tag = _TAG["HighBit"]
        if found is None:
            self.notices.append(f"{describe(tag)} is missing; taken as {stored - 1}")
            return stored - 1
        if not stored - 1 <= found < allocated:
            self.notices.append(
                f"{describe(tag)} is {found} with {stored} of {allocated} bits stored; "
                f"taken as {stored - 1}"
            )
            return stored - 1
        return found

    def pixel_data_vr(self) -> PixelDataVR:
        element = self.header.pixel_data
        assert element is not None
        if VRS[element.tag] == "OF":
            return "OF"
        if VRS[element.tag] == "OD":
            return "OD"
        return "OW" if element.vr == "OW" else "OB"


def _check_limits(pixel: ImagePixel, limits: Limits) -> None:
    size = f"{describe(_TAG['Rows'])} {pixel.rows} x {describe(_TAG['Columns'])} {pixel.columns}"
    pixels = pixel.rows * pixel.columns
    if pixels > limits.pixels_per_frame:
        raise HeaderError(
            f"{size} are more than Limits.pixels_per_frame = {limits.pixels_per_frame}"
        )
    if pixel.samples_per_pixel > limits.samples_per_pixel:
        raise HeaderError(
            f"{describe(_TAG['SamplesPerPixel'])} is {pixel.samples_per_pixel}, more than "
            f"Limits.samples_per_pixel = {limits.samples_per_pixel}"
        )
    decoded = pixels * pixel.samples_per_pixel * pixel.stored_dtype.itemsize
    if decoded > limits.decoded_bytes_per_frame:
        raise HeaderError(
            f"{size} with {pixel.samples_per_pixel} samples of {pixel.bits_stored} bits are {decoded} "
            f"bytes, more than Limits.decoded_bytes_per_frame = {limits.decoded_bytes_per_frame}"
        )


Macro = Group | list[Group | None] | None
"""A macro's item for all frames, or for each frame (`None`: the main data set), or in none."""


class _Resolution:
    """The work on one file."""

    def __init__(
        self, resolver: Resolver, header: Header, pixel: ImagePixel, count: int, context: _Context
    ) -> None:
        self.resolver = resolver
        self.top = header.elements
        self.pixel = pixel
        self.count = count
        self.context = context
        self.columns: dict[str, Any] = {}
        self.lookups: list[LookupTable | RealWorldValueMap] = []
        self.notices: list[str] = []
        self.per_frame: list[Group] = []
        self.shared: Group = {}
        self.positions: dict[Any, int] = {}

    def run(self) -> Resolved:
        self.main_data_set()
        top = self.top
        if _PER_FRAME in top or _SHARED in top:
            self.functional_groups()
        self.values()
        self.geometry()
        self.times()
        for keyword, tag in self.resolver.tags.items():
            self.user_column(keyword, tag)
        return Resolved(self.columns, self.lookups, list(dict.fromkeys(self.notices)))

    # Where values come from

    def get(self, keyword: str, kind: str, group: Group | None = None) -> Any:
        """One attribute of the main data set or another group, `None` if absent."""
        tag = _TAG[keyword]
        element = (self.top if group is None else group).get(tag)
        if element is None:
            return None
        return self.context.convert(tag, kind, element, self.notices)

    def items(self, keyword: str, group: Group | None = None) -> list[Group]:
        element = (self.top if group is None else group).get(_TAG[keyword])
        return element[1] if element is not None and isinstance(element[1], list) else []

    def main_data_set(self) -> None:
        columns, convert, notices = self.columns, self.context.convert, self.notices
        specification = _TOP_TAGS.get
        for tag, element in self.top.items():
            found = specification(tag)
            if found is not None:
                value = convert(tag, found[1], element, notices)
                if value is not None:
                    columns[found[0]] = value
        pixel = self.pixel
        columns["TransferSyntaxUID"] = pixel.transfer_syntax_uid
        columns["Rows"] = pixel.rows
        columns["Columns"] = pixel.columns
        columns["SamplesPerPixel"] = pixel.samples_per_pixel
        columns["PhotometricInterpretation"] = pixel.photometric_interpretation
        columns["BitsAllocated"] = pixel.bits_allocated
        columns["BitsStored"] = pixel.bits_stored
        columns["HighBit"] = pixel.high_bit
        columns["PixelRepresentation"] = pixel.pixel_representation
        columns["PlanarConfiguration"] = pixel.planar_configuration
        columns["pixel_data_vr"] = pixel.pixel_data_vr
        if "TemporalPositionIndex" not in columns:
            self.put("TemporalPositionIndex", self.get("TemporalPositionIdentifier", "int32"))
        if "AcquisitionTime" not in columns:
            moment = self.get("AcquisitionDateTime", "moment")
            self.put("AcquisitionTime", None if moment is None else _seconds_of(moment))

    def put(self, name: str, value: Any) -> None:
        if value is not None:
            self.columns[name] = value

    def functional_groups(self) -> None:
        items = self.items("PerFrameFunctionalGroupsSequence")
        self.per_frame = items[: self.count]
        self.shared = next(iter(self.items("SharedFunctionalGroupsSequence")), {})
        if items and len(items) != self.count:
            more = len(items) > self.count
            self.notices.append(
                f"{describe(_PER_FRAME)} has {len(items)} items for {_frames(self.count)}; "
                + ("those beyond are ignored" if more else "frames beyond have none")
            )
        for sequences, attributes in _MACROS:
            macro = self.macro(*sequences)
            if macro is not None:
                for name, keyword in attributes:
                    kind = FRAME_COLUMNS[name].kind
                    self.fill(name, _TAG[keyword], kind, macro)
        self.sources()

    def macro(self, *sequences: str) -> Macro:
        """The first of `sequences` that a functional group has."""
        for keyword in sequences:
            macro = self.macro_of(_TAG[keyword])
            if macro is not None:
                return macro
        return None

    def macro_of(self, tag: int) -> Macro:
        shared = _first_item(self.shared.get(tag), None)
        found = [group.get(tag) for group in self.per_frame]
        if any(found):
            groups = [_first_item(element, shared) for element in found]
            return groups + [shared] * (self.count - len(groups))
        return shared

    def fill(self, name: str, tag: int, kind: str, macro: Group | list[Group | None]) -> None:
        """Sets a column from a macro, frame by frame; frames without the macro keep the main data set's value."""
        convert, notices = self.context.convert, self.notices
        if isinstance(macro, dict):
            element = macro.get(tag)
            value = None if element is None else convert(tag, kind, element, notices)
            self.columns.pop(name, None)
            self.put(name, value)
            return
        missing = self.resolver.missing(name)
        elements: list[Any] = [_NO_GROUP if g is None else g.get(tag) for g in macro]
        values: dict[Any, Any] = {None: missing, _NO_GROUP: self.columns.get(name, missing)}
        for element in set(elements) - values.keys():
            value = convert(tag, kind, element, notices)
            values[element] = missing if value is None else value
        self.columns[name] = _spread([values[element] for element in elements])

    def sources(self) -> None:
        """ReferencedSOPInstanceUID: the images that a frame was derived from."""
        macro = self.macro("DerivationImageSequence")
        if isinstance(macro, dict):
            self.put("ReferencedSOPInstanceUID", self.source(macro) or None)
        elif macro is not None:
            uids = [self.source(group) if group is not None else "" for group in macro]
            self.columns["ReferencedSOPInstanceUID"] = _spread(uids)

    def source(self, derivation: Group) -> str:
        items = self.items("SourceImageSequence", derivation)
        uids = [self.get("ReferencedSOPInstanceUID", "text", item) for item in items]
        return "\\".join(dict.fromkeys(filter(None, uids)))

    # Values

    def values(self) -> None:
        columns = self.columns
        if "Units" not in columns:
            self.put("Units", self.get("DoseUnits", "text"))
        self.padding()
        self.modality_lut()
        self.voi()
        if self.pixel.is_palette or columns.get("PixelPresentation") in ("MIXED", "COLOR"):
            self.palette()
        self.real_world_values()
        if columns.get("Modality") == "PT":
            self.suv()

    def padding(self) -> None:
        """Pixel Padding Value has the sign of the pixels whatever its VR says (PS3.3 C.7.5.1.1.2)."""
        prefix = {"OF": "Float", "OD": "DoubleFloat"}.get(self.pixel.pixel_data_vr, "")
        for name in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
            if prefix:
                self.put(name, self.get(prefix + name, "float64"))
            elif _TAG[name] in self.top:
                value = self.get(name, "int64")
                if value is not None:
                    self.columns[name] = float(self.as_stored(value))

    def as_stored(self, value: int) -> int:
        """A US or SS value with the sign of Pixel Representation."""
        value &= 0xFFFF
        return value - 0x10000 if self.pixel.pixel_representation and value >= 0x8000 else value

    def modality_lut(self) -> None:
        items = self.items("ModalityLUTSequence")
        if not items or self.macro("PixelValueTransformationSequence"):
            return
        signed = self.pixel.pixel_representation == 1
        position = self.lut(items[0], signed)
        if position < 0:
            return
        self.columns["modality_lut"] = position
        if "RescaleSlope" in self.columns:
            self.notices.append(
                f"{describe(_TAG['ModalityLUTSequence'])} and {describe(_TAG['RescaleSlope'])} are "
                f"both present; the LUT is used"
            )
        if "RescaleType" not in self.columns:
            self.put("RescaleType", self.get("ModalityLUTType", "text", items[0]))

    def lut(self, item: Group, signed: bool) -> int:
        """Position of the table of a Modality or VOI LUT item in `lookups`, -1 if it is empty."""
        return self.table(item, _TAG["LUTDescriptor"], _TAG["LUTData"], signed)

    def table(
        self,
        group: Group,
        descriptor_tag: int,
        data_tag: int,
        signed: bool,
        segmented: bool = False,
    ) -> int:
        descriptor, data = group.get(descriptor_tag), group.get(data_tag)
        if descriptor is None or data is None:
            return -1
        key = (descriptor, data, signed)
        if key not in self.positions:
            # The descriptor's VR is ambiguous: it is read as words, `signed` decides.
            words = array(("US", descriptor[1]), self.context.big_endian)
            table = lookup_table(
                words.tolist(),
                data[1],
                big_endian=self.context.big_endian,
                signed_first=signed,
                vr=data[0],
                segmented=segmented,
                name=describe(data_tag),
            )
            self.positions[key] = -1 if table is None else self.add(table)
        return self.positions[key]

    def add(self, lookup: LookupTable | RealWorldValueMap) -> int:
        self.lookups.append(lookup)
        return len(self.lookups) - 1

    def voi(self) -> None:
        macro = self.macro("FrameVOILUTSequence")
        if not isinstance(macro, list):
            self.columns.update(self.voi_of(self.top if macro is None else macro))
            return
        known: dict[Any, dict[str, Any]] = {}
        frames = []
        for group in macro:
            source = self.top if group is None else group
            key = _voi_key(source)
            found = known.get(key)
            if found is None:
                found = known[key] = self.voi_of(source)
            frames.append(found)
        names = {name for found in known.values() for name in found}
        for name in names:
            missing = FRAME_COLUMNS[name].missing
            self.columns[name] = _spread([found.get(name, missing) for found in frames])

    def voi_of(self, group: Group) -> dict[str, Any]:
        """The columns of one Frame VOI LUT item, or of the main data set."""
        columns: dict[str, Any] = {}
        function = self.get("VOILUTFunction", "text", group)
        if function is not None:
            columns["VOILUTFunction"] = function
        if _TAG["WindowCenter"] in group and _TAG["WindowWidth"] in group:
            columns.update(self.windows(group, function or "LINEAR"))
        if _TAG["VOILUTSequence"] in group:
            signed = self.modality_can_be_negative()
            items = self.items("VOILUTSequence", group)
            positions = self.voi_luts(items, signed)
            if positions:
                columns["voi_lut"], columns["voi_lut_count"] = positions[0], len(positions)
        return columns

    def voi_luts(self, items: list[Group], signed: bool) -> list[int]:
        """Positions of the tables that are not empty, one after the other."""
        key = ("voi", tuple(map(_lut_key, items)))
        found = self.positions.get(key)
        if found is None:
            first = len(self.lookups)
            for item in items:
                # Each list of tables is stored anew, because it must lie in one piece.
                self.positions.pop((*_lut_key(item), signed), None)
                try:
                    self.lut(item, signed)
                except HeaderError as error:
                    self.notices.append(f"VOI LUT taken as absent: {error}")
            found = self.positions[key] = first
            self.positions[("count", key)] = len(self.lookups) - first
        return list(range(found, found + self.positions[("count", key)]))

    def windows(self, group: Group, function: str) -> dict[str, Any]:
        centers, widths = (
            self.get(keyword, "list", group) or () for keyword in ("WindowCenter", "WindowWidth")
        )
        if centers and widths and len(centers) != len(widths):
            self.notices.append(
                f"{describe(_TAG['WindowCenter'])} has {len(centers)} values and "
                f"{describe(_TAG['WindowWidth'])} has {len(widths)}; those without a partner are ignored"
            )
        pairs = [
            (center, width)
            for center, width in zip(centers, widths, strict=False)
            if math.isfinite(center) and math.isfinite(width)
        ]
        if not pairs:
            return {}
        width_name = describe(_TAG["WindowWidth"])
        for _, width in pairs:
            if width <= 0:
                self.notices.append(f"{width_name} is {width:g}; the window is taken as absent")
            elif width < 1 and function == "LINEAR":
                self.notices.append(
                    f"{width_name} is {width:g}, below 1 with VOILUTFunction LINEAR; taken as LINEAR_EXACT"
                )
        columns: dict[str, Any] = {"WindowCenter": pairs[0][0], "WindowWidth": pairs[0][1]}
        if len(pairs) > 1:
            columns["windows"] = "\\".join(f"{c!r}\\{w!r}" for c, w in pairs)
        return columns

    def modality_can_be_negative(self) -> bool:
        """Whether what goes into the VOI LUT can be below 0 (PS3.3 C.11.2.1.1)."""
        if "modality_lut" in self.columns:
            return False
        pixel = self.pixel
        low, high = 0, (1 << pixel.bits_stored) - 1
        if pixel.pixel_representation:
            low, high = -(1 << pixel.bits_stored - 1), (1 << pixel.bits_stored - 1) - 1
        slopes = np.nan_to_num(np.asarray(self.columns.get("RescaleSlope", 1.0), float), nan=1.0)
        intercepts = np.nan_to_num(np.asarray(self.columns.get("RescaleIntercept", 0.0), float))
        lowest = np.minimum(slopes * low, slopes * high) + intercepts
        return bool(np.min(lowest) < 0)

    def palette(self) -> None:
        """Red, green and blue tables, one after the other."""
        signed = self.pixel.pixel_representation == 1
        positions = []
        for color in _COLORS:
            name = f"{color}PaletteColorLookupTable"
            segmented = _TAG[f"Segmented{name}Data"]
            plain = _TAG[f"{name}Data"]
            is_segmented = plain not in self.top and segmented in self.top
            data = segmented if is_segmented else plain
            self.positions.clear()  # red, green and blue are three tables also where they are equal
            positions.append(
                self.table(self.top, _TAG[f"{name}Descriptor"], data, signed, is_segmented)
            )
        if min(positions) >= 0:
            self.columns["palette"] = positions[0]
        else:
            self.notices.append("the palette of this image is missing, in whole or in part")

    def real_world_values(self) -> None:
        macro = self.macro("RealWorldValueMappingSequence")
        top = next(iter(self.items("RealWorldValueMappingSequence")), None)
        if not isinstance(macro, list):
            group = top if macro is None else macro
            position = -1 if group is None else self.real_world_value_map(group)
            self.put("real_world_value_map", position if position >= 0 else None)
            return
        positions = []
        for group in macro:
            source = top if group is None else group
            positions.append(-1 if source is None else self.real_world_value_map(source))
        self.columns["real_world_value_map"] = _spread(positions)

    def real_world_value_map(self, group: Group) -> int:
        """Position of one map in `lookups`, -1 if the item has none."""
        units_items = self.items("MeasurementUnitsCodeSequence", group)
        units = ""
        if units_items:
            codes = (self.get(k, "text", units_items[0]) for k in ("CodeValue", "LongCodeValue"))
            units = next(filter(None, codes), "")
        data = group.get(_TAG["RealWorldValueLUTData"])
        first, last = (self.mapped(which, group) for which in ("First", "Last"))
        slope = self.get("RealWorldValueSlope", "float64", group)
        intercept = self.get("RealWorldValueIntercept", "float64", group)
        key = ("rwv", first, last, slope, intercept, units, data)
        if key in self.positions:
            return self.positions[key]
        has_table = data is not None and len(data[1]) > 0
        if (
            first is None
            or last is None
            or not (has_table or (slope is not None and intercept is not None))
        ):
            self.notices.append(
                f"{describe(_TAG['RealWorldValueMappingSequence'])} has no range, or neither slope and "
                f"intercept nor a table; taken as absent"
            )
            position = -1
        else:
            table = None
            if has_table:
                table = np.array(floats(data, self.context.big_endian), np.float64)
            position = self.add(
                RealWorldValueMap(
                    first=first,
                    last=last,
                    slope=math.nan if has_table or slope is None else slope,
                    intercept=math.nan if has_table or intercept is None else intercept,
                    units=units,
                    data=table,
                )
            )
        self.positions[key] = position
        return position

    def mapped(self, which: str, group: Group) -> float | None:
        """First or last value mapped, in stored values."""
        value: float | None = self.get(
            f"DoubleFloatRealWorldValue{which}ValueMapped", "float64", group
        )
        if value is not None:
            return value
        number = self.get(f"RealWorldValue{which}ValueMapped", "int64", group)
        return None if number is None else float(self.as_stored(number))

    def suv(self) -> None:
        """PET: the factor to SUVbw, or why there is none."""
        items = self.items("RadiopharmaceuticalInformationSequence")
        drug = items[0] if items else {}

        def text(keyword: str, group: Group | None = None) -> str:
            return self.get(keyword, "text", group) or ""

        def number(keyword: str, group: Group | None = None) -> float:
            value = self.get(keyword, "float64", group)
            return math.nan if value is None else value

        zone = self.top.get(_TIMEZONE)
        pet = PETAttributes(
            units=text("Units"),
            suv_type=text("SUVType"),
            corrected_image=tuple(text("CorrectedImage").split("\\")),
            decay_correction=text("DecayCorrection"),
            patient_weight=number("PatientWeight"),
            radionuclide_total_dose=number("RadionuclideTotalDose", drug),
            radionuclide_half_life=number("RadionuclideHalfLife", drug),
            radiopharmaceutical_start_time=text("RadiopharmaceuticalStartTime", drug),
            radiopharmaceutical_start_date_time=text("RadiopharmaceuticalStartDateTime", drug),
            series_date=text("SeriesDate"),
            series_time=text("SeriesTime"),
            acquisition_date=text("AcquisitionDate"),
            acquisition_time=self.get("AcquisitionTime", "text") or "",
            timezone_offset="" if zone is None else self.context.text(zone),
            frame_reference_time=number("FrameReferenceTime"),
            actual_frame_duration=number("ActualFrameDuration"),
            ge_scan_date_time=self.private("GEPETScanDateTime", "text") or "",
            philips_suv_factor=_or_nan(self.private("PhilipsSUVScaleFactor", "float64")),
            philips_activity_factor=_or_nan(
                self.private("PhilipsActivityConcentrationScaleFactor", "float64")
            ),
        )
        try:
            self.columns["suv_factor"] = suv_factor(pet)
        except PixelValueError as error:
            self.columns["suv_problem"] = str(error)

    def private(self, name: str, kind: str) -> Any:
        """A private attribute, found by its creator (PS3.5 section 7.8.1)."""
        group, creator, number, vr = PRIVATE[name]
        for tag, element in self.top.items():
            if tag >> 16 == group and 0x10 <= tag & 0xFFFF <= 0xFF:
                found = self.top.get(group << 16 | (tag & 0xFF) << 8 | number)
                if found is not None and self.context.text(element) == creator:
                    known = found if found[0] not in ("", "UN") else (vr, found[1])
                    return self.context.convert(tag, kind, known, self.notices)
        return None

    # Geometry

    def geometry(self) -> None:
        modality = self.columns.get("Modality")
        if modality == "NM":
            self.nuclear_medicine()
        elif _TAG["GridFrameOffsetVector"] in self.top:
            self.dose_planes()
        if self.get("DimensionOrganizationType", "text") == "TILED_FULL":
            self.tiles()

    def nuclear_medicine(self) -> None:
        """Position and orientation are in the detector's item; slices have positions in reconstructions only."""
        detectors = self.items("DetectorInformationSequence")
        if len(detectors) == 1:
            for name in ("ImagePositionPatient", "ImageOrientationPatient"):
                if name not in self.columns:
                    self.put(name, self.get(name, FRAME_COLUMNS[name].kind, detectors[0]))
        kinds = str(self.columns.get("ImageType", "")).split("\\")[2:3]
        if self.count == 1 and _TAG["SliceVector"] not in self.top:
            return
        position = self.columns.pop("ImagePositionPatient", None)
        slices = self.get("SliceVector", "list")
        spacing = self.columns.get("SpacingBetweenSlices")
        if (
            kinds
            and kinds[0] in ("RECON TOMO", "RECON GATED TOMO")
            and position
            and slices
            and spacing
        ):
            self.positions_along_normal(
                position, [(number - 1) * spacing for number in slices], "SliceVector"
            )

    def dose_planes(self) -> None:
        """Grid Frame Offset Vector: relative if it begins with 0, else absolute z (PS3.3 C.8.8.3.2)."""
        offsets = self.get("GridFrameOffsetVector", "list")
        position = self.columns.pop("ImagePositionPatient", None)
        orientation = self.columns.get("ImageOrientationPatient")
        if not offsets or position is None or orientation is None:
            return
        if offsets[0] == 0:
            self.positions_along_normal(position, offsets, "GridFrameOffsetVector")
            return
        transverse = all(
            abs(abs(v) - e) < 1e-4 for v, e in zip(orientation, (1, 0, 0, 0, 1, 0), strict=True)
        )
        if abs(offsets[0] - position[2]) > 1e-2 or not transverse:
            self.notices.append(
                f"{describe(_TAG['GridFrameOffsetVector'])} begins neither with 0 nor with the z of "
                f"{describe(_TAG['ImagePositionPatient'])} of transverse planes; positions are left out"
            )
            return
        self.set_positions(
            [(position[0], position[1], z) for z in offsets], "GridFrameOffsetVector"
        )

    def positions_along_normal(
        self, first: tuple[float, ...], offsets: Sequence[float], keyword: str
    ) -> None:
        orientation = self.columns.get("ImageOrientationPatient")
        if orientation is None:
            return
        normal = np.cross(orientation[:3], orientation[3:])
        length = float(np.linalg.norm(normal))
        if not length > 0:
            return
        planes = np.asarray(first) + np.outer(offsets, normal / length)
        self.set_positions([tuple(plane) for plane in planes.tolist()], keyword)

    def set_positions(self, planes: list[tuple[float, ...]], keyword: str) -> None:
        if len(planes) != self.count:
            self.notices.append(
                f"{describe(_TAG[keyword])} has {len(planes)} values for {_frames(self.count)}"
            )
        missing = FRAME_COLUMNS["ImagePositionPatient"].missing
        planes = [p if all(map(math.isfinite, p)) else missing for p in planes[: self.count]]
        self.columns["ImagePositionPatient"] = planes + [missing] * (self.count - len(planes))

    def tiles(self) -> None:
        """TILED_FULL: tiles run along columns, rows, focal planes, then optical paths or segments (C.7.6.17.3)."""
        width = self.get("TotalPixelMatrixColumns", "int32")
        height = self.get("TotalPixelMatrixRows", "int32")
        planes = self.get("TotalPixelMatrixFocalPlanes", "int32") or 1
        if not width or not height:
            self.notices.append(
                f"{describe(_TAG['DimensionOrganizationType'])} is TILED_FULL, but the size of the total "
                f"pixel matrix is missing; tiles have no position"
            )
            return
        pixel = self.pixel
        across, down = -(-width // pixel.columns), -(-height // pixel.rows)
        name, channels = self.channels()
        first = self.get("ConcatenationFrameOffsetNumber", "int32") or 0
        frames = np.arange(first, first + self.count)
        tiles = frames % (across * down)
        outer = frames // (across * down)
        channel = outer // planes
        if len(frames) and channel[-1] >= len(channels):
            self.notices.append(
                f"{self.count} frames are more than {across} x {down} tiles in {planes} focal planes and "
                f"{len(channels)} channels; tiles have no position"
            )
            return
        self.columns["tile_column"] = (tiles % across * pixel.columns + 1).tolist()
        self.columns["tile_row"] = (tiles // across * pixel.rows + 1).tolist()
        if planes > 1:  # the ordinal of the focal plane, as in a stack
            self.columns["InStackPositionNumber"] = (outer % planes + 1).tolist()
        self.columns[name] = _spread([channels[k] for k in channel])

    def channels(self) -> tuple[str, list[Any]]:
        """What tiles are repeated for: the segments of a segmentation, else the optical paths."""
        if self.columns.get("SegmentationType") in ("BINARY", "FRACTIONAL"):
            numbers = [self.get("SegmentNumber", "int32", i) for i in self.items("SegmentSequence")]
            return "SegmentNumber", [-1 if n is None else n for n in numbers] or [-1]
        paths = [
            self.get("OpticalPathIdentifier", "text", i) for i in self.items("OpticalPathSequence")
        ]
        return "OpticalPathIdentifier", [path or "" for path in paths] or [""]

    # Times

    def times(self) -> None:
        """`time`, in ms since the first frame: by Frame Time Vector, Frame Time, or the frames' own date and time."""
        if self.per_frame:
            self.acquisition_times()
        if "time" in self.columns:
            return
        pointer = self.get("FrameIncrementPointer", "text") or ""
        vector = self.get("FrameTimeVector", "list")
        nominal = self.columns.get("FrameTime")
        if nominal is not None and nominal <= 0:
            self.columns.pop("FrameTime")
            nominal = None
        if vector and (nominal is None or "00181063" not in pointer):
            times = (np.cumsum(vector) - vector[0])[: self.count].tolist()
            if len(vector) != self.count:
                self.notices.append(
                    f"{describe(_TAG['FrameTimeVector'])} has {len(vector)} values for {_frames(self.count)}"
                )
            self.columns["time"] = times + [math.nan] * (self.count - len(times))
        elif nominal is not None:
            self.columns["time"] = (np.arange(self.count) * nominal).tolist()

    def acquisition_times(self) -> None:
        macro = self.macro("FrameContentSequence")
        if not isinstance(macro, list):
            return
        tag = _TAG["FrameAcquisitionDateTime"]
        elements = [None if group is None else group.get(tag) for group in macro]
        moments: dict[Any, datetime | None] = {None: None}
        for element in {e for e in elements if e is not None}:
            moments[element] = self.context.convert(tag, "moment", element, self.notices)
        found = [moments[element] for element in elements]
        if not any(found):
            return
        self.columns["AcquisitionTime"] = _spread(
            [math.nan if moment is None else _seconds_of(moment) for moment in found]
        )
        first = found[0]
        if first is not None:
            self.columns["time"] = [
                math.nan if moment is None else (moment - first).total_seconds() * 1000
                for moment in found
            ]

    # Columns of the user

    def user_column(self, keyword: str, tag: Tag) -> None:
        element = self.top.get(tag.tag)
        if element is not None:
            known = element if element[0] not in ("", "UN") else (tag.vr, element[1])
            self.put(keyword, self.context.convert(tag.tag, tag.kind, known, self.notices))
        for group in (*self.per_frame[:1], self.shared):
            for sequence, (vr, items) in group.items():
                if vr == "SQ" and items and tag.tag in items[0]:
                    macro = self.macro_of(sequence)
                    if macro is not None:
                        self.fill(keyword, tag.tag, tag.kind, macro)
                    return


def _first_item(element: Element | None, default: Group | None) -> Group | None:
    if element is not None and element[0] == "SQ" and element[1]:
        item: Group = element[1][0]
        return item
    return default


def _voi_key(group: Group) -> Any:
    luts = group.get(_TAG["VOILUTSequence"])
    tags = (_TAG["WindowCenter"], _TAG["WindowWidth"], _TAG["VOILUTFunction"])
    return (*map(group.get, tags), luts and tuple(map(_lut_key, luts[1])))


def _lut_key(item: Group) -> tuple[Element | None, Element | None]:
    return item.get(_TAG["LUTDescriptor"]), item.get(_TAG["LUTData"])


def _frames(count: int) -> str:
    return "1 frame" if count == 1 else f"{count} frames"


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _seconds_of(moment: datetime) -> float:
    return moment.hour * 3600 + moment.minute * 60 + moment.second + moment.microsecond / 1e6


def _spread(values: list[Any]) -> Any:
    """One value if all are the same, else the list."""
    first = values[0]
    return first if all(value is first or value == first for value in values) else values
