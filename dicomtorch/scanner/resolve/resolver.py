"""From a header to rows of the index: which value holds for which frame.

A value is taken from the per-frame functional group, else the shared one, else the main data set; keywords of `tags=`
too. What is absent, empty or malformed is missing in the row; what is malformed or odd is in `Resolved.notices`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from dicomtorch.dicom.elements import Group, Header, texts
from dicomtorch.dicom.memory import HeaderMemory
from dicomtorch.dicom.tags import private_tags
from dicomtorch.model.frame import LookupTable, RealWorldValueMap
from dicomtorch.model.image import ImagePixel
from dicomtorch.model.limits import LIMITS, Limits
from dicomtorch.model.schema import FRAME_COLUMNS, IMAGE_PIXEL, Column, Kind
from dicomtorch.scanner.resolve.conversions import TAGS, Context, keywords, tags_of
from dicomtorch.scanner.resolve.diffusion import DIFFUSION_TAGS, resolve_diffusion
from dicomtorch.scanner.resolve.geometry import GEOMETRY_TAGS, resolve_geometry
from dicomtorch.scanner.resolve.groups import Frames, without_items
from dicomtorch.scanner.resolve.image import (
    IMAGE_PIXEL_TAGS,
    read_image_pixel,
    read_number_of_frames,
)
from dicomtorch.scanner.resolve.memory import SeriesMemory
from dicomtorch.scanner.resolve.mosaic import resolve_mosaic
from dicomtorch.scanner.resolve.values import VALUE_TAGS, resolve_values

_MOST_REMEMBERED: Final = 4096


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
        columns: Name of a column -> one value for all frames, or a list with one for each. Absent: missing.
        lookups: What the `*_lut`, `palette` and `real_world_value_map` columns number.
        notices: What was odd.
    """

    columns: dict[str, Any]
    lookups: list[LookupTable | RealWorldValueMap] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


_TOP: Final = keywords("""
    SOPInstanceUID SeriesInstanceUID StudyInstanceUID FrameOfReferenceUID SOPClassUID PatientID
    IssuerOfPatientID Modality ImageType ComplexImageComponent ConvolutionKernel ContrastBolusAgent
    BurnedInAnnotation RecognizableVisualFeatures RescaleType Units PresentationLUTShape
    PixelPresentation SegmentationType RescaleSlope RescaleIntercept DoseGridScaling SliceThickness
    SpacingBetweenSlices FrameTime TriggerTime EchoTime DiffusionBValue KVP
    DiffusionGradientOrientation EchoNumbers InversionTime FlipAngle FrameReferenceTime DataType
    NominalPercentageOfCardiacPhase NominalPercentageOfRespiratoryPhase MaximumFractionalValue
    InstanceNumber AcquisitionNumber TemporalPositionIndex ImagePositionPatient
    ImageOrientationPatient PixelSpacing
    DimensionOrganizationType TotalPixelMatrixRows TotalPixelMatrixColumns ImageOrientationSlide
    ImagedVolumeWidth ImagedVolumeHeight PyramidUID ContainerIdentifier SpecimenLabelInImage
    RecommendedAbsentPixelCIELabValue ConcatenationUID InConcatenationNumber
    InConcatenationTotalNumber ConcatenationFrameOffsetNumber
""")
_TOP_KINDS: Final = {
    TAGS["AcquisitionTime"]: ("AcquisitionTime", "seconds"),
    TAGS["ContentTime"]: ("ContentTime", "seconds"),
    **{TAGS[keyword]: (keyword, FRAME_COLUMNS[keyword].kind) for keyword in _TOP},
}
"""Attributes of the main data set that are columns as they are: tag -> column, kind."""

# Sequences of which a file has at most one, and their attributes; "a=b" fills column a with attribute b.
_MACROS: Final = tuple(
    (
        keywords(sequences),
        tuple((k.partition("=")[0], k.rpartition("=")[2]) for k in keywords(text)),
    )
    for sequences, text in (
        ("PixelMeasuresSequence", "PixelSpacing SliceThickness SpacingBetweenSlices"),
        ("PlanePositionSequence", "ImagePositionPatient"),
        ("PlaneOrientationSequence", "ImageOrientationPatient"),
        ("PixelValueTransformationSequence", "RescaleSlope RescaleIntercept RescaleType"),
        (
            "FrameContentSequence",
            "StackID InStackPositionNumber TemporalPositionIndex DimensionIndexValues "
            "AcquisitionNumber=FrameAcquisitionNumber",
        ),
        ("MREchoSequence", "EchoTime=EffectiveEchoTime"),
        ("MRDiffusionSequence", "DiffusionBValue"),
        ("MRModifierSequence", "InversionTime=InversionTimes"),
        ("MRTimingAndRelatedParametersSequence", "FlipAngle"),
        ("RespiratorySynchronizationSequence", "NominalPercentageOfRespiratoryPhase"),
        ("ImageDataTypeSequence", "DataType"),
        (
            "CardiacSynchronizationSequence",
            "NominalPercentageOfCardiacPhase TriggerTime=NominalCardiacTriggerDelayTime",
        ),
        ("MRImageFrameTypeSequence", "ImageType=FrameType ComplexImageComponent"),
        (
            "CTImageFrameTypeSequence PETFrameTypeSequence XAXRFFrameCharacteristicsSequence "
            "WholeSlideMicroscopyImageFrameTypeSequence",
            "ImageType=FrameType",
        ),
        ("CTReconstructionSequence", "ConvolutionKernel"),
        ("CTXRayDetailsSequence", "KVP"),
        ("SegmentIdentificationSequence", "SegmentNumber=ReferencedSegmentNumber"),
        ("OpticalPathIdentificationSequence", "OpticalPathIdentifier"),
        (
            "PlanePositionSlideSequence",
            "tile_column=ColumnPositionInTotalImagePixelMatrix "
            "tile_row=RowPositionInTotalImagePixelMatrix ZOffsetInSlideCoordinateSystem",
        ),
    )
)

_OF_PLACE: Final = frozenset(
    ("PixelMeasuresSequence", "PlanePositionSequence", "PlaneOrientationSequence")
)
"""Macros of which a frame's item may lack what the shared one says, though no file should have both."""

WANTED: Final = (
    frozenset((*IMAGE_PIXEL_TAGS, *_TOP_KINDS))
    | tags_of(
        keywords("""
            SpecificCharacterSet NumberOfFrames TemporalPositionIdentifier ExtendedOffsetTable
            ExtendedOffsetTableLengths SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence
            DerivationImageSequence SourceImageSequence ReferencedSOPInstanceUID
        """),
        *(sequences for sequences, _ in _MACROS),
        *([keyword for _, keyword in attributes] for _, attributes in _MACROS),
    )
    | VALUE_TAGS
    | GEOMETRY_TAGS
    | DIFFUSION_TAGS
)
"""The tags that resolving needs."""


@lru_cache(maxsize=16)
def _wanted(*more: frozenset[int]) -> frozenset[int]:
    """One object for each set of tags, which is faster to look up than its equal."""
    return WANTED.union(*more)


class Resolver:
    """Resolves the headers of a scan.

    Args:
        tags: Further columns, by keyword.
        extra: Further tags to read.
        limits: What an image may cost.

    Attributes:
        wanted: The tags that a header must have been read with.
        wanted_of_large: The same of a header for which `needs_large`.
        memory: What the headers have in common.
        series_memory: What their images have in common.
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
        self.wanted = _wanted(frozenset(extra), frozenset(tag.tag for tag in self.tags.values()))
        self.wanted_of_large = _wanted(self.wanted, private_tags(large=True))
        self.memory = HeaderMemory(self.wanted, limits)
        own = {keyword: (tag.tag, tag.kind, tag.vr) for keyword, tag in self.tags.items()}
        self.series_memory = SeriesMemory(own, WANTED)
        self._missing = {k: Column(k, tag.kind).missing for k, tag in self.tags.items()}
        self._contexts: dict[Any, Context] = {}
        self._pixels: dict[Any, tuple[ImagePixel, list[str]]] = {}

    def image_pixel(self, header: Header, notices: list[str]) -> ImagePixel:
        """The Image Pixel Module of a header with pixel data; `notices` gets a line for what was odd.

        Raises:
            HeaderError: Something is missing, contradictory, or beyond a limit.
        """
        element = header.pixel_data
        assert element is not None
        elements = header.elements
        encoding = (header.transfer_syntax_uid, header.big_endian, element.tag, element.vr)
        key = (encoding, *(without_items(elements.get(tag)) for tag in IMAGE_PIXEL_TAGS))
        found = self._pixels.get(key)
        if found is None:
            told: list[str] = []
            found = read_image_pixel(header, told, self.limits), told
            if len(self._pixels) >= _MOST_REMEMBERED:
                self._pixels.clear()
            self._pixels[key] = found
        notices.extend(found[1])
        return found[0]

    def number_of_frames(self, header: Header, notices: list[str]) -> int:
        """(0028,0008) Number of Frames as stated, -1 if it is absent.

        Raises:
            HeaderError: It is no integer, negative, or beyond a limit.
        """
        return read_number_of_frames(header, notices, self.limits)

    def resolve(self, header: Header, pixel: ImagePixel, count: int) -> Resolved:
        """The columns of the `count` frames of a file, except where they are in it.

        Raises:
            HeaderError: A value that all values of the image depend on is malformed.
        """
        context = self.context(header)
        frames = Frames(header.elements, pixel, count, context, self._missing.__getitem__)
        _main_data_set(frames)
        _functional_groups(frames)
        resolve_values(frames)
        resolve_geometry(frames)
        resolve_diffusion(frames)
        resolve_mosaic(frames)
        for keyword, tag in self.tags.items():
            _user_column(frames, keyword, tag)
        return Resolved(frames.columns, frames.lookups, list(dict.fromkeys(frames.notices)))

    def context(self, header: Header) -> Context:
        """What converts the values of a header."""
        element = without_items(header.elements.get(TAGS["SpecificCharacterSet"]))
        key = (header.big_endian, None if element is None else element[1])
        context = self._contexts.get(key)
        if context is None:
            context = Context(header.big_endian, "\\".join(texts(element)))
            if len(self._contexts) >= _MOST_REMEMBERED:
                self._contexts.clear()
            self._contexts[key] = context
        return context


def _main_data_set(frames: Frames) -> None:
    columns, convert, notices = frames.columns, frames.context.convert, frames.notices
    kind_of = _TOP_KINDS.get
    for tag, element in frames.top.items():
        found = kind_of(tag)
        if found is not None:
            value = convert(tag, found[1], element, notices)
            if value is not None:
                columns[found[0]] = value
    pixel = frames.pixel
    columns.update(
        zip(
            IMAGE_PIXEL,
            (
                pixel.transfer_syntax_uid,
                pixel.rows,
                pixel.columns,
                pixel.samples_per_pixel,
                pixel.photometric_interpretation,
                pixel.bits_allocated,
                pixel.bits_stored,
                pixel.high_bit,
                pixel.pixel_representation,
                pixel.planar_configuration,
                pixel.pixel_data_vr,
            ),
            strict=True,
        )
    )
    if "TemporalPositionIndex" not in columns:
        frames.put("TemporalPositionIndex", frames.get("TemporalPositionIdentifier", "int32"))


def _functional_groups(frames: Frames) -> None:
    if not frames.per_frame and not frames.shared:
        return
    for sequences, attributes in _MACROS:
        macro = frames.macro(*sequences, complete=sequences[0] in _OF_PLACE)
        if macro is not None:
            for name, keyword in attributes:
                frames.fill(name, TAGS[keyword], FRAME_COLUMNS[name].kind, macro)
    macro = frames.macro("DerivationImageSequence")
    if isinstance(macro, dict):
        frames.put("ReferencedSOPInstanceUID", _sources(frames, macro))
    elif macro is not None:
        frames.spread(
            "ReferencedSOPInstanceUID", [_sources(frames, group or {}) for group in macro]
        )


def _sources(frames: Frames, derivation: Group) -> str:
    """The images that a frame was derived from, joined with a backslash."""
    items = frames.items("SourceImageSequence", derivation)
    uids = [frames.get("ReferencedSOPInstanceUID", "text", item) for item in items]
    return "\\".join(dict.fromkeys(uid for uid in uids if uid))


def _user_column(frames: Frames, keyword: str, tag: Tag) -> None:
    element = frames.top.get(tag.tag)
    if element is not None:
        known = (tag.vr, element[1]) if element[0] in ("", "UN") else element
        frames.put(keyword, frames.context.convert(tag.tag, tag.kind, known, frames.notices))
    sequence = _sequence_with(frames, tag.tag)
    macro = None if sequence is None else frames.macro(sequence)
    if macro is not None:
        frames.fill(keyword, tag.tag, tag.kind, macro)


def _sequence_with(frames: Frames, tag: int) -> int | None:
    """The macro that has an attribute, in the first frame's or the shared functional group."""
    for group in (*frames.per_frame[:1], frames.shared):
        for sequence, (vr, items) in group.items():
            if vr == "SQ" and items and tag in items[0]:
                return sequence
    return None
