"""What a SEG or RTSTRUCT says of its segments, of the images it was made from, and of where its contours are.

PS3.3 A.51 (Segmentation), C.8.20 (Segmentation modules), C.8.8.5 and C.8.8.6 (Structure Set, ROI Contour). A scan keeps
one of these for each such file, as bytes, beside the file's row. Of structured reports and bulk annotations it keeps
which they are; their shapes are read when they are asked for.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from dicomtorch.errors import FrameIndexError

Kind = Literal["seg", "labelmap", "rtstruct", "sr", "ann", "other"]

SEGMENTATION: Final = "1.2.840.10008.5.1.4.1.1.66.4"
LABELMAP_SEGMENTATION: Final = "1.2.840.10008.5.1.4.1.1.66.7"
RT_STRUCTURE_SET: Final = "1.2.840.10008.5.1.4.1.1.481.3"

KINDS: Final[dict[str, Kind]] = {
    SEGMENTATION: "seg",
    LABELMAP_SEGMENTATION: "labelmap",
    RT_STRUCTURE_SET: "rtstruct",
}
"""SOP class -> kind of object, of those that say which pixels are what."""

_CLASSES = "1.2.840.10008.5.1.4.1.1."
BULK_ANNOTATIONS: Final = f"{_CLASSES}91.1"
SHAPES: Final[dict[str, Kind]] = {
    **{f"{_CLASSES}88.{number}": "sr" for number in (22, 33, 34, 35)},
    BULK_ANNOTATIONS: "ann",
}
"""SOP class -> kind of object, of those that hold points and outlines: Enhanced, Comprehensive, Comprehensive 3D and
Extensible SR, Microscopy Bulk Simple Annotations."""

OTHERS: Final[dict[str, str]] = {
    f"{_CLASSES}66.5": "a Surface Segmentation holds surfaces, no pixels",
    f"{_CLASSES}66.8": "a Height Map Segmentation holds depths of borders, no pixels",
    f"{_CLASSES}104.3": "an Encapsulated STL holds a surface, no pixels",
    f"{_CLASSES}104.4": "an Encapsulated OBJ holds a surface, no pixels",
    f"{_CLASSES}481.11": "an RT Segment Annotation names segments of other objects, which are read themselves",
    f"{_CLASSES}88.50": "a Mammography CAD SR is a report of another template than TID 1500",
    f"{_CLASSES}88.65": "a Chest CAD SR is a report of another template than TID 1500",
    f"{_CLASSES}88.69": "a Colon CAD SR is a report of another template than TID 1500",
}
"""SOP class -> why nothing is made of such an object."""

GEOMETRIC_TYPES: Final = (
    *("CLOSED_PLANAR", "CLOSEDPLANAR_XOR", "OPEN_PLANAR", "OPEN_NONPLANAR", "POINT"),
    "",
)
"""Contour Geometric Type (PS3.3 C.8.8.6.1); "" for any other."""


@dataclass(frozen=True, slots=True)
class Code:
    """A coded concept (PS3.3 section 8.8).

    Attributes:
        scheme: Coding Scheme Designator, "SCT" for SNOMED CT.
        value: Code Value.
        meaning: Code Meaning; not compared.
        modifier: Code Value of a modifier that a segment must have too, as of a side; "" for any.
    """

    scheme: str
    value: str
    meaning: str = field(default="", compare=False)
    modifier: str = ""


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment of a SEG, or an ROI of an RTSTRUCT.

    Attributes:
        number: Segment Number or ROI Number.
        name: Segment Label or ROI Name: free text.
        category: Segmented Property Category.
        type: Segmented Property Type.
        modifiers: Segmented Property Type Modifiers, a side for one.
        anatomic_region: Where it is.
        algorithm: Segment Algorithm Type or ROI Generation Algorithm.
        tracking_uid: Names it across objects.
        interpreted_type: RT ROI Interpreted Type, "GTV" or "ORGAN".
        frame_of_reference: Referenced Frame of Reference UID of an ROI, "" where it is that of the object.
    """

    number: int
    name: str
    category: Code | None = None
    type: Code | None = None
    modifiers: tuple[Code, ...] = ()
    anatomic_region: Code | None = None
    algorithm: str = ""
    tracking_uid: str = ""
    interpreted_type: str = ""
    frame_of_reference: str = ""


_INT, _FLOAT = "<i8", "<f8"


@dataclass(frozen=True, eq=False)
class MaskObject:
    """One SEG, RTSTRUCT, structured report, or file of bulk annotations.

    Attributes:
        kind: "seg", "labelmap" or "rtstruct"; "sr" or "ann"; "other" of one that is not used, `problem` says why.
        sop_instance_uid: Its own.
        series_uid: Of its series.
        study_uid: Of its study.
        patient_id: Of its patient.
        frame_of_reference: FrameOfReferenceUID, "" without one.
        time: Structure Set or Content Date and Time, "YYYYMMDDHHMMSS": later sorts higher.
        segmentation_type: "BINARY", "FRACTIONAL" or "LABELMAP", "" of an RTSTRUCT.
        maximum_fractional: Maximum Fractional Value.
        background: Stored value that is no segment, of a labelmap.
        segments: All of them, in the order of the file.
        references: SOPInstanceUIDs of images that the object names, each once.
        referenced_series: SeriesInstanceUIDs that it names.
        problem: What makes it unusable, with the attribute to blame; "" if nothing does.
        frame_reference: (n,), of each frame of a SEG: row of `references`, -1 for none.
        frame_number: (n,), the Referenced Frame Number, from 1, 0 for the whole instance.
        preserved: (n,), whether Spatial Locations Preserved is YES or absent.
        contour_segment: (k,), of each contour of an RTSTRUCT: position in `segments`.
        contour_type: (k,), position in `GEOMETRIC_TYPES`.
        contour_points: (k,), Number of Contour Points.
        contour_offset: (k,), where Contour Data is in the file (in the inflated data set of a deflated one).
        contour_length: (k,), its bytes.
        contour_first: (k, 3), its first point in millimetres; nan where there is none.
        contour_reference: (k,), row of `references`, -1 for none.
        contour_frame: (k,), the Referenced Frame Number, from 1, 0 for the whole instance.
    """

    kind: Kind
    sop_instance_uid: str
    series_uid: str = ""
    study_uid: str = ""
    patient_id: str = ""
    frame_of_reference: str = ""
    time: str = ""
    segmentation_type: str = ""
    maximum_fractional: int = 255
    background: int = 0
    segments: tuple[Segment, ...] = ()
    references: tuple[str, ...] = ()
    referenced_series: tuple[str, ...] = ()
    problem: str = ""
    frame_reference: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    frame_number: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    preserved: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    contour_segment: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    contour_type: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    contour_points: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    contour_offset: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    contour_length: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    contour_first: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 3)))
    contour_reference: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    contour_frame: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    def to_bytes(self) -> bytes:
        """As an index keeps it: the length of a JSON text, the text, and the arrays one after the other."""
        texts: dict[str, Any] = {}
        arrays: list[bytes] = []
        shapes: dict[str, int] = {}
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, np.ndarray):
                shapes[each.name] = len(value)
                arrays.append(value.astype(_FLOAT if value.ndim == 2 else _INT).tobytes())
            elif each.name == "segments":
                texts["segments"] = [asdict(segment) for segment in value]
            else:
                texts[each.name] = value
        head = json.dumps([texts, shapes]).encode()
        head += b" " * (-len(head) % 8)
        return b"".join((len(head).to_bytes(8, "little"), head, *arrays))

    @classmethod
    def from_bytes(cls, data: bytes) -> MaskObject:
        """What `to_bytes` made.

        Raises:
            FrameIndexError: It is something else.
        """
        try:
            start = 8 + int.from_bytes(data[:8], "little")
            texts, shapes = json.loads(data[8:start])
            arrays: dict[str, Any] = {}
            for name, count in shapes.items():
                width = 3 if name == "contour_first" else 1
                kind = _FLOAT if width == 3 else _INT
                values = np.frombuffer(data, kind, count * width, start)
                arrays[name] = values.reshape(count, 3) if width == 3 else values
                start += 8 * count * width
            texts["segments"] = tuple(_segment(each) for each in texts["segments"])
            for name in ("references", "referenced_series"):
                texts[name] = tuple(texts[name])
            return cls(**texts, **arrays)
        except (ValueError, TypeError, KeyError) as error:
            raise FrameIndexError(
                "the index holds an object of masks that cannot be read; scan again to rebuild it"
            ) from error


def _segment(values: dict[str, Any]) -> Segment:
    for name in ("category", "type", "anatomic_region"):
        values[name] = None if values[name] is None else Code(**values[name])
    values["modifiers"] = tuple(Code(**each) for each in values["modifiers"])
    return Segment(**values)
