"""Tables of boxes, points and polygons: CSV, pandas, Arrow, COCO, and what structured reports and annotations hold."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dicomtorch.errors import OptionError, SourceError, printable
from dicomtorch.index.joins import read_table
from dicomtorch.masks.shape_placing import UNSTATED
from dicomtorch.masks.shapes import (
    BOX,
    ELLIPSE,
    LINE,
    POINT,
    POLYGON,
    Ints,
    Shapes,
    circle,
    shapes_of,
)
from dicomtorch.model.mask_object import Code, Segment

KEYS = ("SOPInstanceUID", "file_name", "file", "path", "image")
CORNERS = ("xmin", "ymin", "xmax", "ymax")
SIZES = ("x", "y", "width", "height")
_POLYGONS = ("polygon", "segmentation")
_SEPARATORS = re.compile(r"[\s,;()\[\]]+")

_CLOSED = ("POLYGON", "RECTANGLE")
_BOUNDED_BY = "SCT 75958009"  # Geometric purpose of a region that is no outline but bounds one


class Listed(NamedTuple):
    """The shapes of a table.

    Attributes:
        key: What images are named by: "SOPInstanceUID", or a column with names of files.
        keys: (n,), of each shape; "" of one that lies in space.
        frames: (n,), counted from 0, `ANY_FRAME` or `UNSTATED`.
        shapes: (n,); of those in space without points.
        segments: What the shapes are of.
        looked_at: Keys of images in which all labels were looked for, found or not.
        places: For each shape in space: its number, and its points in millimetres.
        spaces: Their FrameOfReferenceUIDs.
        without_outline: Boxes that have no polygon beside them.
    """

    key: str
    keys: list[str]
    frames: Ints
    shapes: Shapes
    segments: list[Segment]
    looked_at: list[str]
    places: list[tuple[int, npt.NDArray[np.float64]]]
    spaces: list[str]
    without_outline: int


def read_shapes(table: Any) -> Listed:
    """The shapes of a table.

    Args:
        table: A table, the path of a CSV file, or of a COCO file (".json"); see `ShapeIndex`.

    Raises:
        OptionError: The table lacks a column, or holds something else than numbers.
        SourceError: There is no such file.
    """
    if not (isinstance(table, str) or hasattr(table, "__fspath__")):
        given = read_table(table, ())
        return _of_annotations(given) if "graphic_type" in given.column_names else _of_table(given)
    name = os.fspath(table)
    if name.lower().endswith(".json"):
        if not os.path.isfile(name):
            raise SourceError(f"there is no file {printable(os.fsencode(name))}")
        return _of_coco(name)
    return _of_table(read_csv(name, KEYS))


def read_csv(name: str, texts: Collection[str]) -> pa.Table:
    """A CSV file, of which the columns in `texts` are text: "0012" is no number.

    Raises:
        SourceError: There is no such file.
        OptionError: It cannot be read.
    """
    if not os.path.isfile(name):
        raise SourceError(f"there is no file {printable(os.fsencode(name))}")
    with open(name, encoding="utf-8-sig", newline="") as file:
        header = next(csv.reader(file), [])
    return read_table(name, [column for column in header if column in texts])


# --- Tables of a row for each shape ------------------------------------------------------------------


def _of_table(given: pa.Table) -> Listed:
    names = given.column_names
    key = next((name for name in KEYS if name in names), None)
    if key is None:
        raise OptionError(
            f"a table of boxes, points or polygons needs a column {', '.join(KEYS[:-1])} or {KEYS[-1]}; it has "
            f"{', '.join(names)}"
        )
    keys = [str(value or "").strip() for value in given.column(key).to_pylist()]
    frames = np.full(len(keys), UNSTATED)
    if "frame" in names:
        stated = numbers_of(given, "frame")
        frames = np.where(np.isfinite(stated), stated, UNSTATED).astype(np.int64)
    texts = ["1"] * len(keys)
    if "label" in names:
        texts = [str("" if t is None else t).strip() for t in given.column("label").to_pylist()]
    segments, numbers = _named(texts)
    rows, parts, alone = _geometry(given)
    if not parts:
        raise OptionError(
            f"a table of boxes, points or polygons needs {', '.join(CORNERS)}, or {', '.join(SIZES)}, or polygon, or "
            f"x, y; it has {', '.join(sorted(names))}"
        )
    shapes = Shapes.joined(parts)
    shapes = Shapes(numbers[rows], shapes.kind, shapes.points, shapes.counts, shapes.boxed)
    return Listed(
        key, [keys[k] for k in rows.tolist()], frames[rows], shapes, segments, keys, [], [], alone
    )


def _named(texts: Sequence[str]) -> tuple[list[Segment], Ints]:
    """(a segment for each text, which one each row is of)."""
    number: dict[str, int] = {}
    of_rows = np.array([number.setdefault(text, len(number)) for text in texts], np.int64)
    return [Segment(k, text) for k, text in enumerate(number)], of_rows


def _geometry(given: pa.Table) -> tuple[Ints, list[Shapes], int]:
    """(row of each shape, shapes, boxes without a polygon); a row without any number has none."""
    names = set(given.column_names)
    polygon = next((name for name in _POLYGONS if name in names), None)
    rows: list[Ints] = []
    parts: list[Shapes] = []
    outlined = np.zeros(len(given), np.bool_)
    if polygon is not None:
        found = [_points(k, value) for k, value in enumerate(given.column(polygon).to_pylist())]
        which = [k for k, points in enumerate(found) if len(points)]
        outlined[which] = True
        rows.append(np.array(which, np.int64))
        has_box = bool(names.issuperset(CORNERS) or names.issuperset(SIZES))
        drawn = [(POLYGON, found[k]) for k in which]
        parts.append(shapes_of(drawn, which, [not has_box] * len(which)))
    alone = 0
    columns = CORNERS if names.issuperset(CORNERS) else SIZES
    if names.issuperset(columns):
        boxes, which_boxes = _boxes(given, columns)
        alone = int((~outlined[which_boxes]).sum())
        rows.append(which_boxes)
        parts.append(_simple(BOX, boxes.reshape(-1, 2), 2))
    elif polygon is None and names.issuperset("xy"):
        points = np.stack([numbers_of(given, name) for name in "xy"], 1)
        whole = _whole_rows(points)
        rows.append(whole)
        parts.append(_simple(POINT, points[whole], 1))
    return np.concatenate([np.empty(0, np.int64), *rows]), parts, alone


def _simple(kind: int, points: npt.NDArray[np.float64], each: int) -> Shapes:
    count = len(points) // each
    zeros = np.zeros(count, np.int64)
    boxed = np.full(count, kind == BOX)
    return Shapes(zeros, np.full(count, kind), points, np.full(count, each), boxed)


def _boxes(given: pa.Table, columns: Sequence[str]) -> tuple[npt.NDArray[np.float64], Ints]:
    values = np.stack([numbers_of(given, name) for name in columns], 1)
    whole = _whole_rows(values)
    boxes = values[whole]
    if columns == SIZES:
        boxes[:, 2:] += boxes[:, :2]
    bad = np.flatnonzero((boxes[:, :2] > boxes[:, 2:]).any(1))
    if len(bad):
        raise OptionError(
            f"boxes: row {whole[bad[0]]} (from 0) and {len(bad) - 1} others end before they begin"
        )
    return boxes, whole


def _whole_rows(values: npt.NDArray[np.float64]) -> Ints:
    """Rows with all of their numbers; those without any say that an image was looked at."""
    finite = np.isfinite(values)
    part = np.flatnonzero(finite.any(1) & ~finite.all(1))
    if len(part):
        raise OptionError(
            f"row {part[0]} (from 0) of the table and {len(part) - 1} others lack a number"
        )
    return np.flatnonzero(finite.all(1))


def numbers_of(table: pa.Table, name: str) -> npt.NDArray[np.float64]:
    """A column of numbers, nan where there is none.

    Raises:
        OptionError: It holds something else.
    """
    try:
        column = table.column(name).cast(pa.float64()).fill_null(float("nan"))
    except pa.ArrowException as error:
        raise OptionError(f"the column {name!r} holds something else than numbers") from error
    return np.asarray(column.to_numpy(), np.float64)


def _points(row: int, value: Any) -> npt.NDArray[np.float64]:
    """(n, 2) of a text or list of numbers, x and y in turn."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return np.empty((0, 2))
    try:
        if isinstance(value, str):
            value = [float(each) for each in _SEPARATORS.split(value) if each]
        flat = np.asarray(value, np.float64).reshape(-1)
    except (ValueError, TypeError) as error:
        raise OptionError(
            f"the polygon of row {row} (from 0) is no list of numbers, x and y in turn"
        ) from error
    if len(flat) % 2 or not np.isfinite(flat).all() or 0 < len(flat) < 6:
        raise OptionError(
            f"the polygon of row {row} (from 0) has {len(flat)} numbers; x and y of three points or more expected"
        )
    return flat.reshape(-1, 2)


# --- COCO -------------------------------------------------------------------------------------------


def _of_coco(name: str) -> Listed:
    try:
        with open(name, encoding="utf-8") as file:
            coco = json.load(file)
        images = {image["id"]: str(image["file_name"]) for image in coco["images"]}
        categories = {category["id"]: category for category in coco["categories"]}
        rows = [
            (images[found["image_id"]], label, kind, points, boxed)
            for number, found in enumerate(coco["annotations"])
            for label, kind, points, boxed in _annotation(
                number, found, categories[found["category_id"]]
            )
        ]
        alone = sum(not found.get("segmentation") for found in coco["annotations"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, OptionError):
            raise
        raise OptionError(
            f"{printable(os.fsencode(name))} is no COCO file with images, categories and annotations "
            f"({type(error).__name__})"
        ) from error
    segments, numbers = _named([row[1] for row in rows])
    shapes = shapes_of([row[2:4] for row in rows], numbers.tolist(), [row[4] for row in rows])
    keys, looked_at = [row[0] for row in rows], list(images.values())
    frames = np.full(len(keys), UNSTATED)
    return Listed("file_name", keys, frames, shapes, segments, looked_at, [], [], alone)


def _annotation(number: int, found: Any, category: Any) -> list[tuple[str, int, Any, bool]]:
    """(label, kind, points, whether its box counts) of the shapes of one annotation."""
    label = str(category["name"])
    outlines = found.get("segmentation") or []
    if isinstance(outlines, dict):
        raise OptionError(
            f"annotation {number} (from 0) of the COCO file is a run-length mask, which is not read; write polygons "
            f"(segmentation as lists), or the mask as NIfTI"
        )
    polygons = [_points(number, outline) for outline in outlines]
    rows: list[tuple[str, int, Any, bool]] = [(label, POLYGON, each, False) for each in polygons]
    if found.get("bbox"):
        x, y, width, height = map(float, found["bbox"])
        if not min(width, height) >= 0:
            raise OptionError(f"the box of annotation {number} (from 0) ends before it begins")
        rows.append((label, BOX, [(x, y), (x + width, y + height)], True))
    elif polygons:
        points = np.concatenate(polygons)
        rows.append((label, BOX, [points.min(0), points.max(0)], True))
    names = category.get("keypoints", [])
    marks = np.asarray(found.get("keypoints") or [], np.float64).reshape(-1, 3)
    for k, (x, y, seen) in enumerate(marks.tolist()):
        if seen > 0:
            rows.append((str(names[k]) if k < len(names) else label, POINT, [(x, y)], False))
    return rows


# --- Structured reports and annotations ---------------------------------------------------------------


def _of_annotations(given: pa.Table) -> Listed:
    """The shapes of a table of `ANNOTATIONS`."""
    columns = {name: given.column(name).to_pylist() for name in _ANNOTATED}
    points = given.column("points").combine_chunks()
    offsets, values = np.asarray(points.offsets), np.asarray(points.values, np.float64)
    number: dict[tuple[str, str], int] = {}
    pairs = zip(columns["name"], columns["code"], strict=True)
    of_rows = np.array([number.setdefault(pair, len(number)) for pair in pairs], np.int64)
    segments = [Segment(k, name, type=_code(code)) for k, (name, code) in enumerate(number)]
    drawn: list[tuple[int, Any]] = []
    rows: list[int] = []
    places: list[tuple[int, npt.NDArray[np.float64]]] = []
    kinds = zip(columns["graphic_type"], columns["purpose"], columns["space"], strict=True)
    for row, (kind, purpose, space) in enumerate(kinds):
        own = values[offsets[row] : offsets[row + 1]].reshape(-1, 3 if space == "patient" else 2)
        for shape_kind, shape in _drawn(kind, own, purpose):
            if space == "patient":
                places.append((len(drawn), shape))
                shape = np.empty((0, 2))
            drawn.append((shape_kind, shape))
            rows.append(row)
    boxed = [kind in (POLYGON, ELLIPSE, BOX) for kind, _ in drawn]
    shapes = shapes_of(drawn, of_rows[rows].tolist(), boxed)
    frames = np.array(columns["frame"], np.int64)[rows]
    keys = [columns["SOPInstanceUID"][row] for row in rows]
    spaces = [columns["frame_of_reference"][rows[k]] for k, _ in places]
    return Listed("SOPInstanceUID", keys, frames, shapes, segments, [], places, spaces, 0)


_ANNOTATED = (
    *("name", "code", "SOPInstanceUID", "frame", "frame_of_reference"),
    *("space", "graphic_type", "purpose"),
)


def _drawn(kind: str, points: npt.NDArray[np.float64], purpose: str) -> list[tuple[int, Any]]:
    """(kind, points) of the shapes that a graphic type makes; an ellipsoid is in no plane."""
    if purpose == _BOUNDED_BY and points.shape[1] == 2:
        return [(BOX, [points.min(0), points.max(0)])]
    if kind in ("POINT", "MULTIPOINT"):
        return [(POINT, point[None]) for point in points]
    if kind == "CIRCLE":
        return [(ELLIPSE, circle(points[0], points[1]))]
    if kind == "ELLIPSE":
        return [(ELLIPSE, points)]
    if kind not in (*_CLOSED, "POLYLINE"):
        return []
    closed = kind in _CLOSED or (len(points) > 3 and bool((points[0] == points[-1]).all()))
    return [(POLYGON if closed else LINE, points)]


def _code(text: str) -> Code | None:
    scheme, _, value = text.partition(" ")
    return Code(scheme, value) if value else None
