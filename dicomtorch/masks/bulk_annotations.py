"""Microscopy Bulk Simple Annotations as columns: groups of points, lines, polygons, ellipses and rectangles.

PS3.3 C.37.1.2. Points are read in one pass over their arrays.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from pydicom.dataset import Dataset

from dicomtorch.errors import PixelValueError
from dicomtorch.masks.shape_placing import ANY_FRAME
from dicomtorch.masks.shapes import Ints, points_of

_EACH = {"POINT": 1, "ELLIPSE": 4, "RECTANGLE": 4}  # points of one annotation


def annotation_groups(dataset: Dataset) -> list[dict[str, Any]]:
    """The columns of a table of `ANNOTATIONS` for each group.

    Raises:
        PixelValueError: A group is damaged; the message has its number and the attribute to blame.
    """
    images = dataset.get("ReferencedImageSequence") or [Dataset()]
    image = images[0]
    frame = int(image.get("ReferencedFrameNumber") or 0) - 1
    if dataset.get("PixelOriginInterpretation", "VOLUME") != "FRAME":
        frame = ANY_FRAME
    in_space = dataset.get("AnnotationCoordinateType", "2D") == "3D"
    about = {
        "space": "patient" if in_space else ("image" if frame >= 0 else "matrix"),
        "frame_of_reference": str(dataset.get("FrameOfReferenceUID", "")),
        "SOPInstanceUID": "" if in_space else str(image.get("ReferencedSOPInstanceUID", "")),
        "frame": frame,
    }
    return [
        about | _group(number, group, in_space)
        for number, group in enumerate(dataset.get("AnnotationGroupSequence") or [], 1)
    ]


def _group(number: int, group: Dataset, in_space: bool) -> dict[str, Any]:
    number = int(group.get("AnnotationGroupNumber", number))
    kind = str(group.get("GraphicType", ""))
    if kind not in {*_EACH, "POLYLINE", "POLYGON"}:
        raise PixelValueError(
            f"group {number}: (0070,0023) GraphicType has {len(kind)} characters and is none of the standard's"
        )
    points, stored = _points(number, group, in_space)
    starts = _starts(number, group, kind, len(points), stored)
    claimed = int(group.get("NumberOfAnnotations", len(starts)))
    if claimed != len(starts):
        raise PixelValueError(
            f"group {number}: (006A,000C) NumberOfAnnotations is {claimed}, and there are {len(starts)}"
        )
    width = points.shape[1]
    offsets = np.append(starts, len(points)) * width
    code = _first(group, "AnnotationPropertyTypeCodeSequence")
    return {
        "group": number,
        "name": str(group.get("AnnotationGroupLabel", "")).strip(),
        "code": named(code),
        "tracking_uid": str(group.get("AnnotationGroupUID", "")),
        "graphic_type": kind,
        "points": pa.ListArray.from_arrays(offsets.astype(np.int32), points.reshape(-1)),
    }


def _points(number: int, group: Dataset, in_space: bool) -> tuple[Any, int]:
    """((n, 2 or 3) points, how many coordinates of each are stored)."""
    data, kind, attribute = (
        group.get("PointCoordinatesData"),
        "<f4",
        "(0066,0016) PointCoordinatesData",
    )
    if data is None:
        data, kind = group.get("DoublePointCoordinatesData"), "<f8"
        attribute = "(0066,0022) DoublePointCoordinatesData"
    if data is None or len(data) % np.dtype(kind).itemsize:
        raise PixelValueError(f"group {number}: {attribute} is absent or cut off")
    height = group.get("CommonZCoordinateValue")
    stored = 3 if in_space and height is None else 2
    points = points_of(np.frombuffer(data, kind), stored, f"group {number}: {attribute}")
    if in_space and height is not None:
        points = np.column_stack([points, np.full(len(points), float(height))])
    return points, stored


def _starts(number: int, group: Dataset, kind: str, count: int, stored: int) -> Ints:
    """Which point each annotation begins with."""
    each = _EACH.get(kind)
    if each is not None:
        if count % each:
            raise PixelValueError(
                f"group {number}: (0066,0016) PointCoordinatesData holds {count} points; {each} for each annotation "
                f"expected"
            )
        return np.arange(0, count, each)
    # The index counts coordinates from 1, not points.
    index = np.frombuffer(group.get("LongPrimitivePointIndexList") or b"", "<u4").astype(np.int64)
    starts, rest = np.divmod(index - 1, stored)
    if (
        not len(starts)
        or starts[0]
        or rest.any()
        or (np.diff(starts) < 1).any()
        or starts[-1] >= count
    ):
        raise PixelValueError(
            f"group {number}: (0066,0040) LongPrimitivePointIndexList is no ascending list of places in {count} points"
        )
    return starts


def _first(group: Dataset, keyword: str) -> Dataset:
    items = group.get(keyword)
    return items[0] if items else Dataset()


def named(code: Dataset) -> str:
    """A coded concept as "SCT 10200004", "" of none."""
    value = code.get("CodeValue") or code.get("LongCodeValue") or ""
    return f"{code.get('CodingSchemeDesignator', '')} {value}" if value else ""
