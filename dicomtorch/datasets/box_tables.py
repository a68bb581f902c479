"""Tables with a row for each box or point of a frame."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dicomtorch.errors import OptionError
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.index.joins import read_table, refuse_repeated
from dicomtorch.masks.shape_placing import files, instances
from dicomtorch.masks.shape_tables import (
    CORNERS,
    KEYS,
    SIZES,
    Listed,
    numbers_of,
    read_csv,
    read_shapes,
)
from dicomtorch.series.geometry import Floats, Ints

NAMES = (*KEYS, "frame", *CORNERS, *SIZES)
"""Columns that say where boxes and points are."""


def read_boxes(table: Any, columns: Mapping[str, str]) -> pa.Table:
    """A table of boxes or points.

    Args:
        table: A table, the path of a CSV or COCO file, or what `read_annotations` gives, of which the boxes are taken.
        columns: What its columns are called where that is not one of `NAMES`: {"xmin": "x0"}.

    Raises:
        OptionError: It is no table, or lacks a column that `columns` names.
        SourceError: There is no such file.
    """
    is_path = isinstance(table, str) or hasattr(table, "__fspath__")
    if is_path and os.fspath(table).lower().endswith(".json"):
        given = _rows_of(read_shapes(table))
    elif is_path:
        given = read_csv(os.fspath(table), {columns.get(name, name) for name in KEYS})
    else:
        given = read_table(table, ())
        if "graphic_type" in given.column_names:
            given = _rows_of(read_shapes(given))
    absent = [old for old in columns.values() if old not in given.column_names]
    if absent:
        raise OptionError(
            f"the table has no column {', '.join(absent)}; it has {', '.join(given.column_names)}"
        )
    names = {old: new for new, old in columns.items()}
    renamed = given.rename_columns([names.get(name, name) for name in given.column_names])
    refuse_repeated(renamed, list(NAMES))
    return renamed


def _rows_of(listed: Listed) -> pa.Table:
    """A row for each box of shapes."""
    boxed = np.flatnonzero(listed.shapes.boxed)
    shapes = listed.shapes.take(boxed)
    boxes = shapes.boxes()
    return pa.table(
        {
            listed.key: pa.array([listed.keys[k] for k in boxed.tolist()], pa.string()),
            "frame": pa.array(
                [None if k < 0 else k for k in listed.frames[boxed].tolist()], pa.int64()
            ),
            **{name: boxes[:, k] for k, name in enumerate(CORNERS)},
            "label": pa.array([listed.segments[k].name for k in shapes.segment], pa.string()),
        }
    )


def key_of(table: pa.Table) -> str:
    """The column that says what image a row is of.

    Raises:
        OptionError: There is none.
    """
    key = next((name for name in KEYS if name in table.column_names), None)
    if key is None:
        raise OptionError(
            f"a table of boxes or points needs a column {', '.join(KEYS[:-1])} or {KEYS[-1]}; it has "
            f"{', '.join(table.column_names)}"
        )
    return key


def frames_of(images: FrameIndex, table: pa.Table) -> Ints:
    """Position of the frame of each row, -1 for none.

    Raises:
        OptionError: Nothing says which image or frame is meant.
    """
    key = key_of(table)
    texts = table.column(key).cast(pa.string()).fill_null("")
    encoded = pc.utf8_trim_whitespace(texts).combine_chunks().dictionary_encode()
    names = encoded.dictionary.to_pylist()
    numbers = np.asarray(encoded.indices.to_numpy(zero_copy_only=False), np.int64)
    of_rows, wanted = (instances if key == "SOPInstanceUID" else files)(images, names)
    asked = wanted[numbers] if len(names) else numbers
    stated = np.full(len(numbers), np.nan)
    if "frame" in table.column_names:
        stated = numbers_of(table, "frame")
        is_number = np.isfinite(stated)
        if (
            not (is_number | np.isnan(stated)).all()
            or ((stated < 0) | (stated != np.floor(stated)))[is_number].any()
        ):
            raise OptionError("the column 'frame' holds something else than whole numbers from 0")
    own = np.asarray(images.column("frame"), np.int64)
    unclear = int((np.isnan(stated) & np.isin(asked, of_rows[own > 0])).sum())
    if unclear:
        raise OptionError(
            f"{unclear} rows of the table name images of several frames and no frame; add a column frame, counted "
            "from 0"
        )
    frames = np.nan_to_num(stated).astype(np.int64)
    many = int(own.max(initial=0)) + 1
    known = of_rows * many + own
    order = np.argsort(known, kind="stable")  # of two frames that are called alike the first
    there = (asked >= 0) & (frames < many)
    sought = np.where(there, asked * many + frames, -1)
    found = np.minimum(np.searchsorted(known[order], sought), max(len(order) - 1, 0))
    positions: Ints = order[found]
    return np.where(there & (known[positions] == sought), positions, -1)


def boxes_of(table: pa.Table) -> tuple[Floats, bool]:
    """(n, 4): left, top, right, bottom of each row, and whether rows are points, whose boxes have no size.

    Raises:
        OptionError: It lacks columns or numbers, or a box ends before it begins.
    """
    names = set(table.column_names)
    are_points = False
    if names.issuperset(CORNERS):
        boxes = _columns(table, CORNERS)
    elif names.issuperset(SIZES):
        boxes = _columns(table, SIZES)
        boxes[:, 2:] += boxes[:, :2]
    elif names.issuperset(SIZES[:2]):
        boxes, are_points = np.tile(_columns(table, SIZES[:2]), 2), True
    else:
        raise OptionError(
            f"a table of boxes or points needs {', '.join(CORNERS)}, or {', '.join(SIZES)}, or x, y; it has "
            f"{', '.join(sorted(names))}"
        )
    bad = np.flatnonzero(~np.isfinite(boxes).all(1) | (boxes[:, :2] > boxes[:, 2:]).any(1))
    if len(bad):
        raise OptionError(
            f"row {bad[0]} (from 0) of the table and {len(bad) - 1} others lack a number, or end before they begin"
        )
    return boxes, are_points


def _columns(table: pa.Table, names: tuple[str, ...]) -> npt.NDArray[np.float64]:
    return np.stack([numbers_of(table, name) for name in names], 1)
