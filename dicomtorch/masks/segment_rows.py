"""The rows of the tables of a `MaskIndex`: segments, ROIs, groups of shapes, points, and what is not used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dicomtorch.masks.assigning import Assignment, rows_meant
from dicomtorch.masks.coded_names import LabelMap
from dicomtorch.masks.contours import read_points
from dicomtorch.masks.objects import Source, is_background
from dicomtorch.masks.placing import Images
from dicomtorch.masks.shape_index import ShapeIndex
from dicomtorch.model.mask_object import GEOMETRIC_TYPES, Segment

_NO_LABEL = "no label asks for it"

Row = dict[str, Any]


def object_rows(
    images: Images, found: Sequence[Source], labels: LabelMap, assignment: Assignment
) -> list[Row]:
    """A row for each segment and ROI of objects."""
    rows: list[Row] = []
    for source in found:
        reason = rows_meant(images, source)[1]
        for k, segment in enumerate(source.found.segments):
            if is_background(source.found, segment):
                continue
            counts = assignment.counts.get((source.number, k), (len(source.planes_of([k])), 0))
            why = assignment.reasons.get((source.number, k), "") or reason
            rows.append(_about(source) | _row(source.found.kind, segment, labels, counts, why))
    return rows


def shape_rows(shapes: ShapeIndex) -> list[Row]:
    """A row for each name that shapes have."""
    return [
        {"object": -1, "series": "", "SOPInstanceUID": "", "time": ""}
        | _row("shapes", segment, shapes.labels, counts, "" if counts[1] else "no image has them")
        for segment, counts in zip(shapes.segments, shapes.counts, strict=True)
        if segment.name
    ]


def other_rows(others: Sequence[Source]) -> list[Row]:
    """A row for each object that is not used."""
    return [
        _about(source)
        | {"object": -1, "kind": "other", "number": 0, "name": "", "type": "", "code": ""}
        | {"label": 0, "planes": 0, "on_images": 0, "reason": source.found.problem}
        for source in others
    ]


def _about(source: Source) -> Row:
    return {
        "object": source.number,
        "series": source.found.series_uid,
        "SOPInstanceUID": source.found.sop_instance_uid,
        "time": source.found.time,
    }


def _row(
    kind: str, segment: Segment, labels: LabelMap, counts: tuple[int, int], reason: str
) -> Row:
    label = labels.position(segment)
    return {
        "kind": kind,
        "number": segment.number,
        "name": segment.name,
        "type": segment.type.meaning if segment.type else segment.interpreted_type,
        "code": f"{segment.type.scheme} {segment.type.value}" if segment.type else "",
        "label": labels.numbers[label] if label >= 0 else 0,
        "planes": counts[0],
        "on_images": counts[1],
        "reason": reason or ("" if label >= 0 else _NO_LABEL),
    }


def point_rows(found: Sequence[Source], labels: LabelMap) -> list[Row]:
    """A row for each point of ROIs that mark places.

    Raises:
        DicomTorchError: An object cannot be read.
    """
    rows: list[Row] = []
    kind = GEOMETRIC_TYPES.index("POINT")
    for source in found:
        marks = np.flatnonzero(source.found.contour_type == kind)
        if not len(marks):
            continue
        for contour, places in zip(marks, read_points(source, marks.tolist()), strict=True):
            segment = source.found.segments[int(source.found.contour_segment[contour])]
            label = labels.position(segment)
            about = {
                "object": source.number,
                "number": segment.number,
                "label": labels.numbers[label] if label >= 0 else 0,
            }
            rows += [about | dict(zip("xyz", point, strict=True)) for point in places.tolist()]
    return rows
