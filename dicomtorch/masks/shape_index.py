"""Boxes, points and filled outlines of images, from tables, structured reports and bulk annotations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dicomtorch.errors import OptionError
from dicomtorch.masks import shape_placing
from dicomtorch.masks.coded_names import LabelMap, LabelOption, label_map
from dicomtorch.masks.layers import Layer, united
from dicomtorch.masks.placing import Images
from dicomtorch.masks.polygons import Path
from dicomtorch.masks.shape_placing import InSpace, On
from dicomtorch.masks.shape_tables import Listed, read_shapes
from dicomtorch.masks.shapes import (
    ELLIPSE,
    KIND_NAMES,
    POINT,
    POLYGON,
    Ints,
    Shapes,
    runs_of,
)

Boxes = npt.NDArray[np.float32]


class ShapeIndex:
    """The boxes, points and polygons of the frames of an index.

    Coordinates are pixels, 0 being the corner of the first pixel, as in torchvision, COCO and structured reports.

    Args:
        images: The frames.
        table: A table, the path of a CSV file or of a COCO file (".json"), or what `read_annotations` gives. The key of
            a table is SOPInstanceUID, or file_name, file, path or image: a path below the root of the index, a name, or
            a name without its end. `frame` counts from 0, -1 is every frame; an image of one frame needs none, and a
            row for a slide without one is in pixels of its total pixel matrix. Boxes are xmin, ymin, xmax, ymax, or x,
            y, width, height; points are x, y; polygons are the numbers of their points in `polygon` (or
            `segmentation`), as a list or a text. `label` is a text or a whole number. A row without numbers says that
            the image was looked at.
        labels: As in `MaskIndex`: {name, pattern or Code: number}, a list numbered from 1, or `None` for all, sorted.
        filled: Whether they are to be masks, for which boxes without a polygon, and points alone, are refused.

    Attributes:
        images: As given.
        labels: The labels.
        segments: What shapes are of.
        counts: For each of them its shapes, and those that lie on images.
        unused: Shapes that no frame has.

    Raises:
        OptionError: The table lacks a column, holds something else than numbers, or names what is not clear.
        SourceError: There is no such file.
    """

    def __init__(
        self,
        images: Images,
        table: Any,
        labels: LabelOption | LabelMap = None,
        *,
        filled: bool = False,
    ) -> None:
        listed = table if isinstance(table, Listed) else read_shapes(table)
        self.images = images
        self.segments = listed.segments
        self.labels: LabelMap = (
            labels
            if isinstance(labels, LabelMap)
            else label_map(labels, [s for s in listed.segments if s.name])
        )
        by_uid = listed.key == "SOPInstanceUID"
        keys_of = shape_placing.instances if by_uid else shape_placing.files
        of_rows, wanted = keys_of(images.index, listed.keys)
        on = shape_placing.on_frames(images, (of_rows, wanted), listed.frames, listed.shapes)
        shapes, number = listed.shapes, on.shape
        for part, rows, numbers in _in_spaces(images, listed):
            zeros = np.zeros(len(rows), np.int64)
            on = On.joined([on, On(rows, len(shapes) + np.arange(len(rows)), zeros, zeros)])
            shapes, number = Shapes.joined([shapes, part]), np.concatenate([number, numbers])
        self.unused = len(listed.shapes) - len(np.unique(number))
        there, lie = (
            np.bincount(of, minlength=len(listed.segments)).tolist()
            for of in (listed.shapes.segment, listed.shapes.segment[np.unique(number)])
        )
        self.counts = list(zip(there, lie, strict=True))
        label = np.array([self.labels.position(s) for s in listed.segments] or [-1], np.int64)
        self._shapes = replace(shapes, segment=label[shapes.segment])
        wanted_ones = np.flatnonzero(self._shapes.segment[on.shape] >= 0)
        order = wanted_ones[np.argsort(on.row[wanted_ones], kind="stable")]
        self._on = On(*(values[order] for values in on))
        self._first = np.searchsorted(self._on.row, np.arange(len(images.index) + 1))
        self._alone = listed.without_outline
        self.known = np.zeros((len(images.series.values), len(self.labels)), np.bool_)
        self.known[images.series.codes[self._on.row], self._shapes.segment[self._on.shape]] = True
        looked_at = np.isin(of_rows, keys_of(images.index, listed.looked_at)[1])
        self.known[images.series.codes[looked_at]] = True
        if filled:
            self._check_outlines()

    def _check_outlines(self) -> None:
        """Refuses to fill what has no inside.

        Raises:
            OptionError: Some boxes have no polygon, or there is nothing but points and lines.
        """
        if self._alone:
            raise OptionError(
                f"{self._alone} boxes have no polygon, so that they are no masks; boxes= takes them as boxes"
            )
        kinds = set(np.unique(self._shapes.kind[self._on.shape]).tolist())
        if kinds and not kinds & {POLYGON, ELLIPSE}:
            there = ", ".join(KIND_NAMES[kind] for kind in sorted(kinds))
            raise OptionError(
                f"masks need outlines, and there are {there}s alone; points= takes points"
            )

    def covered(self) -> npt.NDArray[np.bool_]:
        """(frames,) bool: whether a shape lies on a frame."""
        return np.diff(self._first) > 0

    def on(self, row: int) -> Shapes:
        """The shapes of a frame, in its pixels; `segment` is the position of their label."""
        part = slice(int(self._first[row]), int(self._first[row + 1]))
        some = self._on.shape[part]
        return self._shapes.take(some).moved(
            np.stack([self._on.left[part], self._on.top[part]], 1).astype(np.float64)
        )

    def boxes(self, row: int) -> tuple[Boxes, Ints]:
        """(n, 4) boxes and (n,) numbers of labels of a frame; none where the table has none."""
        shapes = self.on(row)
        shapes = shapes.take(np.flatnonzero(shapes.boxed))
        boxes, kept = shapes.boxes(), np.ones(len(shapes), np.bool_)
        if self._is_tile(row):  # the rest of a box is on the next tile
            height, width = self.images.shape[row].tolist()
            boxes = np.clip(boxes, 0, [width, height, width, height])
            kept = np.asarray((boxes[:, 2:] > boxes[:, :2]).all(1))
        return boxes[kept].astype(np.float32), self._numbers(shapes.segment[kept])

    def points(self, row: int) -> tuple[Boxes, Ints]:
        """(n, 2) points, (x, y), and (n,) numbers of labels of a frame."""
        shapes = self.on(row)
        shapes = shapes.take(np.flatnonzero(shapes.kind == POINT))
        kept = np.ones(len(shapes), np.bool_)
        if self._is_tile(row):
            inside = (shapes.points >= 0) & (shapes.points < self.images.shape[row][::-1])
            kept = np.asarray(inside.all(1))
        return shapes.points[kept].astype(np.float32), self._numbers(shapes.segment[kept])

    def layers(self, row: int, path: Path) -> list[Layer]:
        """The labels that outlines make on a frame, each once, in the order of labels.

        Raises:
            GeometryError: A vertex is no coordinate.
        """
        shape = (int(self.images.shape[row, 0]), int(self.images.shape[row, 1]))
        runs = runs_of(self.on(row), shape, path)
        return united([Layer(label, each) for label, each in runs if len(each.line)], shape)

    def _is_tile(self, row: int) -> bool:
        return bool((self.images.tile[row] >= 0).all())

    def _numbers(self, labels: Ints) -> Ints:
        return np.array(self.labels.numbers, np.int64)[labels]


def _in_spaces(images: Images, listed: Listed) -> Iterator[tuple[Shapes, Ints, Ints]]:
    """(shapes in pixels, positions of images, numbers) of what lies in each frame of reference."""
    for space in dict.fromkeys(listed.spaces):
        mine = [p for p, s in zip(listed.places, listed.spaces, strict=True) if s == space]
        number = np.array([k for k, _ in mine], np.int64)
        counts = np.array([len(points) for _, points in mine], np.int64)
        points = np.concatenate([points for _, points in mine])
        shapes = replace(listed.shapes.take(number), counts=counts)
        yield shape_placing.in_space(images, space, InSpace(shapes, points, number))
