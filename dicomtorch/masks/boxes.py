"""Boxes of images from tables: CSV, pandas, Arrow, or COCO, by instance UID or by what a file is called."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dicomtorch.errors import OptionError, SourceError, printable
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.index.joins import read_table

Boxes = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int64]

_KEYS = ("SOPInstanceUID", "file_name", "file", "path", "image")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_SIZES = ("x", "y", "width", "height")


class BoxTable:
    """The boxes of the frames of an index.

    Boxes are (left, top, right, bottom) in pixels, 0 being the corner of the first pixel, as in torchvision and COCO.

    Args:
        images: The frames.
        table: A table, the path of a CSV file, or of a COCO file (".json"). Its key is SOPInstanceUID, or file_name,
            file, path or image: a path below the root of the index, a name, or a name without its end. `frame` counts
            from 0; without it rows are of the first frame. Boxes are xmin, ymin, xmax, ymax, or x, y, width, height;
            `label` is a text or a whole number.
        labels: {name: number}, a list of names numbered from 1, or `None` for all, sorted.

    Attributes:
        names: Of the labels, in the order of their numbers.
        numbers: Theirs.
        unused: Rows of the table that no frame has.

    Raises:
        OptionError: The table lacks a column, holds something else than numbers, or names what is not clear.
        SourceError: There is no such file.
    """

    def __init__(
        self,
        images: FrameIndex,
        table: Any,
        labels: Mapping[str, int] | Sequence[str] | None = None,
    ) -> None:
        given = _read(table)
        key = next((name for name in _KEYS if name in given.column_names), None)
        if key is None:
            raise OptionError(
                f"a table of boxes needs a column {', '.join(_KEYS[:-1])} or {_KEYS[-1]}; it has "
                f"{', '.join(given.column_names)}"
            )
        keys = [str(value or "").strip() for value in given.column(key).to_pylist()]
        frame = _numbers(given, "frame") if "frame" in given.column_names else np.zeros(len(keys))
        rows = _rows(images, key, keys, frame.astype(np.int64))
        texts = (
            given.column("label").to_pylist() if "label" in given.column_names else [1] * len(keys)
        )
        self.names, self.numbers, of_rows = _labelled([str(text) for text in texts], labels)
        kept = (rows >= 0) & (of_rows > 0)
        self.unused = int((rows < 0).sum())
        order = np.flatnonzero(kept)[np.argsort(rows[kept], kind="stable")]
        self._boxes: Boxes = _corners(given)[order]
        self._labels: Numbers = of_rows[order]
        self._first = np.searchsorted(rows[order], np.arange(len(images) + 1))

    def of(self, position: int) -> tuple[Boxes, Numbers]:
        """(n, 4) boxes and (n,) numbers of labels of a frame; none where the table has no row."""
        part = slice(int(self._first[position]), int(self._first[position + 1]))
        return self._boxes[part], self._labels[part]


def _read(table: Any) -> pa.Table:
    is_path = isinstance(table, str) or hasattr(table, "__fspath__")
    if not is_path:
        return read_table(table, ())
    name = os.fspath(table)
    if not os.path.isfile(name):
        raise SourceError(f"boxes: there is no file {printable(os.fsencode(name))}")
    if not name.lower().endswith(".json"):
        return read_table(name, ("SOPInstanceUID",) if _has_uid(name) else ())
    try:
        with open(name, encoding="utf-8") as file:
            coco = json.load(file)
        images = {image["id"]: image["file_name"] for image in coco["images"]}
        categories = {category["id"]: category["name"] for category in coco["categories"]}
        rows = [
            {
                "file_name": images[found["image_id"]],
                **dict(zip(_SIZES, map(float, found["bbox"]), strict=True)),
                "label": categories[found["category_id"]],
            }
            for found in coco["annotations"]
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise OptionError(
            f"boxes: {printable(os.fsencode(name))} is no COCO file with images, categories and annotations "
            f"({type(error).__name__})"
        ) from error
    return pa.Table.from_pylist(rows, schema=_COCO)


_COCO = pa.schema(
    [("file_name", pa.string()), *[(n, pa.float64()) for n in _SIZES], ("label", pa.string())]
)


def _has_uid(name: str) -> bool:
    with open(name, encoding="utf-8-sig") as file:
        return "SOPInstanceUID" in file.readline().strip().split(",")


def _numbers(table: pa.Table, name: str) -> npt.NDArray[np.float64]:
    try:
        column = table.column(name).cast(pa.float64()).fill_null(float("nan"))
    except pa.ArrowException as error:
        raise OptionError(
            f"boxes: the column {name!r} holds something else than numbers"
        ) from error
    return np.asarray(column.to_numpy(), np.float64)


def _corners(table: pa.Table) -> Boxes:
    names = set(table.column_names)
    if names.issuperset(_CORNERS):
        boxes = np.stack([_numbers(table, name) for name in _CORNERS], 1)
    elif names.issuperset(_SIZES):
        x, y, width, height = (_numbers(table, name) for name in _SIZES)
        boxes = np.stack([x, y, x + width, y + height], 1)
    else:
        raise OptionError(
            f"a table of boxes needs {', '.join(_CORNERS)}, or {', '.join(_SIZES)}; it has {', '.join(sorted(names))}"
        )
    bad = np.flatnonzero(~np.isfinite(boxes).all(1) | (boxes[:, :2] > boxes[:, 2:]).any(1))
    if len(bad):
        raise OptionError(
            f"boxes: row {bad[0]} (from 0) and {len(bad) - 1} others lack a number, or end before they begin"
        )
    return boxes.astype(np.float32)


def _rows(images: FrameIndex, key: str, keys: list[str], frames: Numbers) -> Numbers:
    """Position of the frame of each row of a table, -1 for none."""
    own = np.asarray(images.column("frame"), np.int64)
    if key == "SOPInstanceUID":
        column = images.column("SOPInstanceUID")
        codes, wanted = np.asarray(column.codes, np.int64), column.codes_of(keys)
    else:
        codes = np.asarray(images.column("file"), np.int64)
        wanted = _files(images, keys)
    at = {
        pair: k
        for k, pair in reversed(list(enumerate(zip(codes.tolist(), own.tolist(), strict=True))))
    }
    pairs = zip(wanted.tolist(), frames.tolist(), strict=True)
    return np.array([at.get(pair, -1) if pair[0] >= 0 else -1 for pair in pairs], np.int64)


def _files(images: FrameIndex, keys: list[str]) -> Numbers:
    """The file that each name means, -1 for none."""
    wanted = set(keys)
    found: dict[str, set[int]] = {}
    paths: Any = images.files["path"]
    for file in np.unique(np.asarray(images.column("file"))).tolist():
        path = PurePosixPath(os.fsdecode(paths[file]).replace(os.sep, "/"))
        for name in {str(path), path.name, path.stem} & wanted:
            found.setdefault(name, set()).add(file)
    several = next((name for name, files in found.items() if len(files) > 1), None)
    if several is not None:
        raise OptionError(
            f"boxes: {len(found[several])} files are called as one row of the table names them; use paths below the "
            f"root, or SOPInstanceUID"
        )
    return np.array([next(iter(found.get(name, {-1}))) for name in keys], np.int64)


def _labelled(
    texts: list[str], labels: Mapping[str, int] | Sequence[str] | None
) -> tuple[tuple[str, ...], tuple[int, ...], Numbers]:
    """(names, their numbers, the number of each row, 0 for none)."""
    if labels is None:
        labels = sorted(set(texts))
    given = labels if isinstance(labels, Mapping) else {n: k for k, n in enumerate(labels, 1)}
    missed = [name for name in given if name not in set(texts)]
    if missed and texts:
        raise OptionError(f"labels: {missed[0]!r} is the label of no row of the table of boxes")
    numbers_given: list[Any] = list(given.values())
    if any(not isinstance(n, int) or n < 1 for n in numbers_given):
        raise OptionError("labels: numbers must be 1 or more, 0 is the background")
    numbers = np.array([given.get(text, 0) for text in texts], np.int64)
    return tuple(given), tuple(given.values()), numbers
