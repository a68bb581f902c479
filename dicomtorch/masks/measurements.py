"""Structured reports of TID 1500 as columns: the regions of measurement groups, what was found there, and its values.

PS3.16 TID 1410, 1411 and 1501; PS3.3 C.18.6 and C.18.9 for coordinates.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydicom.dataset import Dataset

from dicomtorch.errors import PixelValueError
from dicomtorch.masks.bulk_annotations import named
from dicomtorch.masks.shape_placing import ANY_FRAME
from dicomtorch.masks.shapes import points_of

_GROUP = "DCM 125007"
_FINDING, _TRACKING_ID, _TRACKING_UID = "DCM 121071", "DCM 112039", "DCM 112040"
_SITES = frozenset(("SCT 363698007", "SRT G-C0E3"))
_PURPOSE = "DCM 130400"
_POINTS = {  # (fewest, most) points of each graphic type, 0 for no limit
    "POINT": (1, 1),
    "MULTIPOINT": (1, 0),
    "POLYLINE": (2, 0),
    "POLYGON": (3, 0),
    "CIRCLE": (2, 2),
    "ELLIPSE": (4, 4),
    "ELLIPSOID": (6, 6),
}
_DEEPEST = 64  # levels of content


def measurement_groups(dataset: Dataset) -> list[dict[str, Any]]:
    """The columns of a table of `ANNOTATIONS`: a row for each region, and one for a group without any.

    Raises:
        PixelValueError: The report is of another template, or damaged.
    """
    groups = [item for item, _ in _walk(dataset) if _concept(item) == _GROUP]
    if not groups:
        raise PixelValueError(
            "the report has no measurement group (125007, DCM), so that it is none of TID 1500; leave the file out"
        )
    rows = [row for number, group in enumerate(groups, 1) for row in _rows(number, group)]
    names = ("group", *_ABOUT, *_REGION, "segmentation", "segment", "measurements")
    return [{name: [row[name] for row in rows] for name in names}]


_ABOUT = ("name", "code", "site", "site_code", "tracking_id", "tracking_uid", "purpose")
_REGION = (
    *("graphic_type", "space", "frame_of_reference"),
    *("SOPInstanceUID", "frame", "points"),
)


def _walk(item: Dataset) -> Iterator[tuple[Dataset, Dataset]]:
    """All items of the content below one, each with the one above it, in the order of the file."""
    stack = [(child, item, 1) for child in reversed(item.get("ContentSequence") or [])]
    while stack:
        child, parent, depth = stack.pop()
        if depth > _DEEPEST:
            raise PixelValueError(f"its content is more than {_DEEPEST} levels deep")
        yield child, parent
        below = reversed(child.get("ContentSequence") or [])
        stack += [(each, child, depth + 1) for each in below]


def _concept(item: Dataset) -> str:
    names = item.get("ConceptNameCodeSequence")
    return named(names[0]) if names else ""


def _coded(item: Dataset) -> tuple[str, str]:
    """(meaning, code) of the value of an item."""
    values = item.get("ConceptCodeSequence")
    return (str(values[0].get("CodeMeaning", "")), named(values[0])) if values else ("", "")


def _rows(number: int, group: Dataset) -> list[dict[str, Any]]:
    about: dict[str, Any] = dict.fromkeys(_ABOUT, "")
    about |= {"group": number, "segmentation": "", "segment": 0, "measurements": []}
    regions: list[dict[str, Any]] = []
    for item, parent in _walk(group):
        kind, concept = str(item.get("ValueType", "")), _concept(item)
        if kind == "CODE" and concept == _FINDING:
            about["name"], about["code"] = _coded(item)
        elif kind == "CODE" and concept in _SITES:
            about["site"], about["site_code"] = _coded(item)
        elif kind == "CODE" and concept == _PURPOSE:
            about["purpose"] = _coded(item)[1]
        elif kind == "TEXT" and concept == _TRACKING_ID:
            about["tracking_id"] = str(item.get("TextValue", ""))
        elif kind == "UIDREF" and concept == _TRACKING_UID:
            about["tracking_uid"] = str(item.get("UID", ""))
        elif kind == "NUM":
            about["measurements"] += _measured(item)
        elif kind == "IMAGE" and parent.get("ValueType") != "SCOORD":
            _name_segment(item, about)
        elif kind in ("SCOORD", "SCOORD3D"):
            regions += _regions(number, item)
    about["name"] = about["name"] or about["tracking_id"]
    return [about | region for region in regions or [dict.fromkeys(_REGION, "") | _NOWHERE]]


_NOWHERE = {"frame": ANY_FRAME, "points": []}


def _measured(item: Dataset) -> list[dict[str, Any]]:
    values = item.get("MeasuredValueSequence") or []
    names = item.get("ConceptNameCodeSequence") or [Dataset()]
    return [
        {
            "name": str(names[0].get("CodeMeaning", "")),
            "code": named(names[0]),
            "value": float(value.NumericValue),
            "unit": str(
                (value.get("MeasurementUnitsCodeSequence") or [Dataset()])[0].get("CodeValue", "")
            ),
        }
        for value in values
    ]


def _name_segment(item: Dataset, about: dict[str, Any]) -> None:
    """A group may point to a segment of a SEG in place of a region of its own."""
    for image in item.get("ReferencedSOPSequence") or []:
        numbers = image.get("ReferencedSegmentNumber")
        if numbers is not None:
            first = numbers if isinstance(numbers, int) else next(iter(numbers), 0)
            about["segmentation"] = str(image.get("ReferencedSOPInstanceUID", ""))
            about["segment"] = int(first)


def _regions(number: int, item: Dataset) -> list[dict[str, Any]]:
    """A row for each image that a region is drawn on, and each of its frames."""
    kind = str(item.get("GraphicType", ""))
    in_space = item.get("ValueType") == "SCOORD3D"
    where = f"measurement group {number}: (0070,0022) GraphicData"
    points = points_of(item.get("GraphicData") or [], 3 if in_space else 2, where)
    fewest, most = _POINTS.get(kind, (0, -1))
    if len(points) < fewest or 0 < most < len(points) or most < 0:
        raise PixelValueError(
            f"measurement group {number}: (0070,0023) GraphicType {kind if kind in _POINTS else '(unknown)'} cannot "
            f"have the {len(points)} points of (0070,0022) GraphicData"
        )
    row: dict[str, Any] = {"graphic_type": kind, "points": points.reshape(-1).tolist()}
    if in_space:
        space = str(item.get("ReferencedFrameOfReferenceUID", ""))
        return [
            row
            | {
                "space": "patient",
                "frame_of_reference": space,
                "SOPInstanceUID": "",
                "frame": ANY_FRAME,
            }
        ]
    rows = []
    for image in _images(item):
        frames = image.get("ReferencedFrameNumber")
        whole = item.get("PixelOriginInterpretation", "") == "VOLUME" or frames is None
        listed = (
            [ANY_FRAME]
            if whole
            else [int(n) - 1 for n in ([frames] if isinstance(frames, int | str) else frames)]
        )
        uid = str(image.get("ReferencedSOPInstanceUID", ""))
        space = "matrix" if item.get("PixelOriginInterpretation", "") == "VOLUME" else "image"
        rows += [
            row | {"space": space, "frame_of_reference": "", "SOPInstanceUID": uid, "frame": frame}
            for frame in listed
        ]
    return rows


def _images(item: Dataset) -> list[Dataset]:
    """What a region is drawn on: its own image, or the one named by what it belongs to."""
    return [
        image
        for child in item.get("ContentSequence") or []
        if child.get("ValueType") == "IMAGE"
        for image in child.get("ReferencedSOPSequence") or []
    ]
