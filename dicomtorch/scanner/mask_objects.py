"""What a scan keeps of a SEG or RTSTRUCT: segments, references and where contours are, out of the one walk it makes."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from dicomtorch.dicom.elements import Group, Header, floats, integers, texts
from dicomtorch.dicom.tags import describe
from dicomtorch.model.limits import LIMITS, Limits
from dicomtorch.model.mask_object import (
    GEOMETRIC_TYPES,
    KINDS,
    OTHERS,
    SHAPES,
    Code,
    MaskObject,
    Segment,
)
from dicomtorch.scanner.resolve.conversions import TAGS, keywords, tags_of

MASK_TAGS: Final = tags_of(
    keywords("""
        SOPClassUID SOPInstanceUID SeriesInstanceUID StudyInstanceUID PatientID FrameOfReferenceUID
        ContentDate ContentTime StructureSetDate StructureSetTime SegmentationType MaximumFractionalValue
        PixelPaddingValue SegmentSequence SegmentNumber SegmentLabel SegmentAlgorithmType TrackingUID
        SegmentedPropertyCategoryCodeSequence SegmentedPropertyTypeCodeSequence
        SegmentedPropertyTypeModifierCodeSequence AnatomicRegionSequence CodeValue LongCodeValue
        CodingSchemeDesignator CodeMeaning ReferencedSeriesSequence ReferencedInstanceSequence
        ReferencedSOPInstanceUID ReferencedFrameNumber SpatialLocationsPreserved
        SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence DerivationImageSequence
        SourceImageSequence StructureSetROISequence ROINumber ROIName ROIGenerationAlgorithm
        ReferencedFrameOfReferenceUID RTROIObservationsSequence ReferencedROINumber RTROIInterpretedType
        ROIContourSequence ContourSequence ContourGeometricType NumberOfContourPoints ContourData
        ContourImageSequence ReferencedFrameOfReferenceSequence RTReferencedStudySequence
        RTReferencedSeriesSequence
    """)
)
"""The tags that it takes."""


def mask_object(header: Header, frames: int, limits: Limits = LIMITS) -> bytes:
    """What is kept of a file, b"" if it is no object that says which pixels are what.

    Args:
        header: Read with `MASK_TAGS`.
        frames: How many frames it has.
        limits: What its contours may claim.
    """
    values = _Values(header)
    sop_class = values.text(header.elements, "SOPClassUID")
    kind = (
        KINDS.get(sop_class) or SHAPES.get(sop_class) or ("other" if sop_class in OTHERS else None)
    )
    if kind is None:
        return b""
    top, text = header.elements, values.text
    if kind == "rtstruct":
        found = _structures(values, limits)
    elif kind in ("seg", "labelmap"):
        found = _segmentation(values, frames)
    else:
        found = {
            "frame_of_reference": text(top, "FrameOfReferenceUID"),
            "referenced_series": _series(values, [top], "ReferencedSeriesSequence"),
            "problem": OTHERS.get(sop_class, ""),
        }
    date = ("StructureSet" if kind == "rtstruct" else "Content") + "Date"
    moment = (text(top, date) + text(top, date.replace("Date", "Time"))).partition(".")[0]
    return MaskObject(
        kind=kind,
        sop_instance_uid=text(top, "SOPInstanceUID"),
        series_uid=text(top, "SeriesInstanceUID"),
        study_uid=text(top, "StudyInstanceUID"),
        patient_id=text(top, "PatientID"),
        time=moment,
        **found,
    ).to_bytes()


class _Values:
    """Elements of one header as texts, numbers and items."""

    def __init__(self, header: Header) -> None:
        self.top = header.elements
        self.big_endian = header.big_endian
        self._texts: dict[Any, str] = {}
        self._character_set = "\\".join(texts(header.elements.get(TAGS["SpecificCharacterSet"])))

    def text(self, group: Group, keyword: str) -> str:
        """The first value; remembered, because frames name the same images again and again."""
        element = group.get(TAGS[keyword])
        if element is None or not isinstance(element[1], bytes):
            return ""
        known = self._texts.get(element)
        if known is None:
            known = next(iter(texts(element, self._character_set)), "")
            self._texts[element] = known
        return known

    def integer(self, group: Group, keyword: str, default: int = -1) -> int:
        """The first value, `default` if it is absent or no integer."""
        element = group.get(TAGS[keyword])
        if element is None or not isinstance(element[1], bytes):
            return default
        found = integers(element, self.big_endian)
        return default if not found or found[0] is None else found[0]

    def items(self, group: Group, keyword: str) -> list[Group]:
        """The items of a sequence."""
        element = group.get(TAGS[keyword])
        return element[1] if element is not None and element[0] == "SQ" else []

    def code(self, group: Group, keyword: str) -> Code | None:
        """The first concept of a sequence."""
        return next(iter(self.codes(group, keyword)), None)

    def codes(self, group: Group, keyword: str) -> tuple[Code, ...]:
        """The concepts of a sequence."""
        return tuple(
            Code(
                self.text(item, "CodingSchemeDesignator"),
                self.text(item, "CodeValue") or self.text(item, "LongCodeValue"),
                self.text(item, "CodeMeaning"),
            )
            for item in self.items(group, keyword)
        )


class _References:
    """SOPInstanceUIDs that were met, each once."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def add(self, uid: str) -> int:
        return self.numbers.setdefault(uid, len(self.numbers)) if uid else -1


def _series(values: _Values, groups: list[Group], keyword: str) -> tuple[str, ...]:
    uids = [
        values.text(item, "SeriesInstanceUID")
        for group in groups
        for item in values.items(group, keyword)
    ]
    return tuple(dict.fromkeys(uid for uid in uids if uid))


def _repeated(numbers: list[int], keyword: str) -> str:
    """What is wrong with numbers that should name each segment."""
    if any(number < 0 for number in numbers):
        return f"{describe(TAGS[keyword])} is absent or no number in one of {len(numbers)} items"
    if len(set(numbers)) < len(numbers):
        return f"{describe(TAGS[keyword])} is the same in two of {len(numbers)} items"
    return ""


def _segmentation(values: _Values, frames: int) -> dict[str, Any]:
    top = values.top
    segments = tuple(
        Segment(
            number=values.integer(item, "SegmentNumber"),
            name=values.text(item, "SegmentLabel"),
            category=values.code(item, "SegmentedPropertyCategoryCodeSequence"),
            type=(kind := values.code(item, "SegmentedPropertyTypeCodeSequence")),
            modifiers=values.codes(
                _first(values.items(item, "SegmentedPropertyTypeCodeSequence")),
                "SegmentedPropertyTypeModifierCodeSequence",
            )
            if kind
            else (),
            anatomic_region=values.code(item, "AnatomicRegionSequence"),
            algorithm=values.text(item, "SegmentAlgorithmType"),
            tracking_uid=values.text(item, "TrackingUID"),
        )
        for item in values.items(top, "SegmentSequence")
    )
    references = _References()
    series = values.items(top, "ReferencedSeriesSequence")
    for group in series:
        for item in values.items(group, "ReferencedInstanceSequence"):
            references.add(values.text(item, "ReferencedSOPInstanceUID"))
    per_frame = values.items(top, "PerFrameFunctionalGroupsSequence")[:frames]
    shared = _first(values.items(top, "SharedFunctionalGroupsSequence"))
    rows = [_source(values, group, shared, references) for group in per_frame]
    rows += [_source(values, {}, shared, references)] * (frames - len(rows))
    columns = np.array(rows, np.int64).reshape(-1, 3)
    return {
        "frame_of_reference": values.text(top, "FrameOfReferenceUID"),
        "segmentation_type": values.text(top, "SegmentationType"),
        "maximum_fractional": values.integer(top, "MaximumFractionalValue", 255),
        "background": max(values.integer(top, "PixelPaddingValue", 0), 0),
        "segments": segments,
        "references": tuple(references.numbers),
        "referenced_series": _series(values, [top], "ReferencedSeriesSequence"),
        "problem": _repeated([segment.number for segment in segments], "SegmentNumber"),
        **dict(
            zip(("frame_reference", "frame_number", "preserved"), columns.T.copy(), strict=True)
        ),
    }


def _first(items: list[Group]) -> Group:
    return items[0] if items else {}


def _source(
    values: _Values, group: Group, shared: Group, references: _References
) -> tuple[int, int, int]:
    """(row of `references`, frame number, whether locations are preserved) of a frame."""
    derivations = values.items(group, "DerivationImageSequence")
    derivations = derivations or values.items(shared, "DerivationImageSequence")
    sources = values.items(_first(derivations), "SourceImageSequence")
    if len(sources) != 1:  # several: position tells which
        return -1, 0, 1
    source = sources[0]
    number = max(values.integer(source, "ReferencedFrameNumber", 0), 0)
    kept = values.text(source, "SpatialLocationsPreserved") in ("", "YES")
    return references.add(values.text(source, "ReferencedSOPInstanceUID")), number, int(kept)


def _structures(values: _Values, limits: Limits) -> dict[str, Any]:
    top = values.top
    kinds = {
        values.integer(item, "ReferencedROINumber"): values.text(item, "RTROIInterpretedType")
        for item in values.items(top, "RTROIObservationsSequence")
    }
    rois = values.items(top, "StructureSetROISequence")
    segments = tuple(
        Segment(
            number=(number := values.integer(item, "ROINumber")),
            name=values.text(item, "ROIName"),
            algorithm=values.text(item, "ROIGenerationAlgorithm"),
            interpreted_type=kinds.get(number, ""),
            frame_of_reference=values.text(item, "ReferencedFrameOfReferenceUID"),
        )
        for item in rois
    )
    frames_of_reference = values.items(top, "ReferencedFrameOfReferenceSequence")
    studies = [
        study
        for item in frames_of_reference
        for study in values.items(item, "RTReferencedStudySequence")
    ]
    stated = [values.text(item, "ReferencedFrameOfReferenceUID") for item in rois]
    stated += [values.text(item, "FrameOfReferenceUID") for item in frames_of_reference]
    references = _References()
    rows, first, problem = _contours(values, segments, references, limits)
    columns = np.array(rows, np.int64).reshape(-1, 7).T.copy()
    names = ("segment", "type", "points", "offset", "length", "reference", "frame")
    return {
        "frame_of_reference": next((uid for uid in stated if uid), ""),
        "segments": segments,
        "references": tuple(references.numbers),
        "referenced_series": _series(values, studies, "RTReferencedSeriesSequence"),
        "problem": _repeated([segment.number for segment in segments], "ROINumber") or problem,
        "contour_first": np.array(first, np.float64).reshape(-1, 3),
        **{f"contour_{name}": column for name, column in zip(names, columns, strict=True)},
    }


def _contours(
    values: _Values, segments: tuple[Segment, ...], references: _References, limits: Limits
) -> tuple[list[tuple[int, ...]], list[list[float]], str]:
    """A row and the first point of each contour, and what is wrong with one of them."""
    position = {segment.number: k for k, segment in enumerate(segments)}
    rows: list[tuple[int, ...]] = []
    first: list[list[float]] = []
    problem = ""
    for roi in values.items(values.top, "ROIContourSequence"):
        number = values.integer(roi, "ReferencedROINumber")
        segment = position.get(number, -1)
        if segment < 0:
            problem = problem or (
                f"{describe(TAGS['ReferencedROINumber'])} of the contours is {number}, which no item of "
                f"{describe(TAGS['StructureSetROISequence'])} has"
            )
        for contour in values.items(roi, "ContourSequence"):
            points = values.integer(contour, "NumberOfContourPoints", 0)
            offset, length, head = _place(contour)
            if offset < 0 or not 0 <= points <= limits.contour_points:
                problem = problem or _wrong_contour(number, offset, points, limits)
                continue
            image = _first(values.items(contour, "ContourImageSequence"))
            kind = values.text(contour, "ContourGeometricType")
            rows.append(
                (
                    segment,
                    GEOMETRIC_TYPES.index(kind if kind in GEOMETRIC_TYPES else ""),
                    *(points, offset, length),
                    references.add(values.text(image, "ReferencedSOPInstanceUID")),
                    max(values.integer(image, "ReferencedFrameNumber", 0), 0),
                )
            )
            numbers = floats(("DS", head))[:3]
            first.append(numbers if len(numbers) == 3 else [np.nan] * 3)
    return rows, first, problem


def _place(contour: Group) -> tuple[int, int, bytes]:
    """(offset, length, first bytes) of Contour Data; an absent one has length 0, one that was not located offset -1."""
    element = contour.get(TAGS["ContourData"])
    if element is None:
        return 0, 0, b""
    value = element[1]
    if not isinstance(value, tuple):
        return -1, 0, b""
    offset, length, head = value
    return offset, length, head if len(head) == length else head.rpartition(b"\\")[0]


def _wrong_contour(number: int, offset: int, points: int, limits: Limits) -> str:
    if offset < 0:
        return f"{describe(TAGS['ContourData'])} of ROI {number} cannot be located in the damaged header"
    return (
        f"{describe(TAGS['NumberOfContourPoints'])} of ROI {number} is {points}, more than "
        f"Limits.contour_points = {limits.contour_points}; raise the limit if the file is trusted"
    )
