"""`MaskIndex`: which pixels of which image are what, from the objects beside the images."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dicomtorch.errors import OptionError, format_count, have
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.masks.annotations import annotation_table
from dicomtorch.masks.assigning import (
    Assignment,
    Between,
    Choose,
    PlacingOptions,
    assign,
    rows_meant,
)
from dicomtorch.masks.coded_names import LabelMap, LabelOption, grid_labels, label_map
from dicomtorch.masks.gridded import GridFiles, SegmentGrids, files_of
from dicomtorch.masks.layers import Layer, MaskOutput, Overlap, paint, united
from dicomtorch.masks.mask_options import (
    KINDS,
    OUTPUTS,
    SHAPE_KINDS,
    check_options,
    check_target,
    checked_position,
)
from dicomtorch.masks.naming import OfFrame
from dicomtorch.masks.objects import Source, all_segments, sources
from dicomtorch.masks.painter import Painter
from dicomtorch.masks.placing import Images, Ints, Place
from dicomtorch.masks.polygons import Path
from dicomtorch.masks.segment_rows import object_rows, other_rows, point_rows, shape_rows
from dicomtorch.masks.shape_index import ShapeIndex
from dicomtorch.masks.shape_tables import read_shapes
from dicomtorch.masks.tables import CENTERS, POINTS, SEGMENTS
from dicomtorch.reader.cache import FrameCache
from dicomtorch.reader.choice import Isolation

_logger = logging.getLogger("dicomtorch")


class MaskIndex:
    """The labels that SEG, RTSTRUCT, NIfTI or NRRD give the frames of an index.

    Made once, from what the scan kept; pixels are read when they are asked for. Picklable, and safe to use from several
    threads.

    Sources: PS3.3 C.8.20.2.3 (segmentations), C.8.8.6 (contours).

    Args:
        images: Frames that masks are made for; `position` below is a position in it.
        source: An index of the tree with the mask objects; of those that have frames only those count of which frames
            are selected, if any are. `None`: the tree of `images`.
        labels: {pattern or Code: number}, a list of names, or `None` for all names found, sorted.
        kind: "seg", "rtstruct" or "all" of the two; "sr": outlines of structured reports (TID 1500); "ann": of
            Microscopy Bulk Simple Annotations.
        files: SeriesInstanceUID -> NIfTI or NRRD file, or a table with the columns series and path; instead of objects,
            or beside those of `source`.
        shapes: Polygons of a table or COCO file, see `ShapeIndex`; instead of objects.
        only: Absolute path of an object -> SeriesInstanceUIDs that it is taken for alone.
        place: "auto": by position, narrowed by reference; "reference": by reference alone; "position".
        between: Contours between slices: "raise", "nearest" (within half the spacing), or "drop".
        choose: Several objects that give one label for one series: "raise", "latest", "all", or a function.
        resample: `None`: another grid is an error; "nearest": labels are sampled at the image's pixels.
        overlap: Pixels of two labels in a label map: "raise", "first" or "last" in the order of labels.
        path: Pixel centres on a contour: "in" as the standard has it, or "half-open".
        threshold: What a fraction must reach to be 1.
        cache: Where filled contours are kept on disk, so that further processes and runs only paint them.
        isolation: "process": code streams of SEG objects are decoded in child processes, as with `DicomFrames`.

    Attributes:
        images: As given.
        labels: The labels.
        notices: What was odd about the objects, in words without names.

    Raises:
        OptionError: An option means nothing, or several objects give one label.
        GeometryError: Planes lie on another grid or between slices, and no option says what then.
        PixelValueError: An object is damaged.
    """

    def __init__(
        self,
        images: FrameIndex,
        source: FrameIndex | None = None,
        *,
        labels: LabelOption = None,
        kind: Literal["seg", "rtstruct", "all", "sr", "ann"] = "all",
        files: Any = None,
        shapes: Any = None,
        only: Mapping[bytes, Sequence[str]] | None = None,
        place: Place = "auto",
        between: Between = "raise",
        choose: Choose = "raise",
        resample: Literal["nearest"] | None = None,
        overlap: Overlap = "raise",
        path: Path = "in",
        threshold: float = 0.5,
        cache: FrameCache | None = None,
        isolation: Isolation = None,
    ) -> None:
        check_options(kind, place, between, choose, resample, overlap, path, threshold)
        self.images = images
        self._overlap: Overlap = overlap
        self._path: Path = path
        self._images = Images(images)
        self._areas: npt.NDArray[np.int64] | None = None
        self._covered: npt.NDArray[np.bool_] | None = None
        tree = images.whole() if source is None else source
        if kind in ("sr", "ann"):
            shapes = annotation_table(tree, KINDS[kind])
        alone = source is None and (files is not None or shapes is not None)
        self._tree = None if alone else tree
        self._sources: list[Source] = (
            [] if alone or shapes is not None else sources(tree, KINDS[kind], only)
        )
        listed = None if shapes is None else read_shapes(shapes)
        about = [s for s in self._sources if len(rows_meant(self._images, s)[0])]
        segments = all_segments(about or self._sources) + (listed.segments if listed else [])
        self.labels: LabelMap = (
            label_map(labels, segments) if files is None else grid_labels(labels, segments)
        )
        options = PlacingOptions(place, between, choose, resample == "nearest")
        parts = assign(self._images, self._sources, self.labels, options)
        self._assignment: Assignment = parts
        self._painter = Painter(
            self._images, self._sources, parts, self.labels, path, threshold, cache, isolation
        )
        self._grids = SegmentGrids(
            self._images, self._sources, parts, self.labels, threshold, isolation
        )
        self._files = self._grids_of(files, options.resamples)
        self._shapes = (
            None if listed is None else ShapeIndex(self._images, listed, self.labels, filled=True)
        )
        self._known = self._all_known(choose)
        self._is_simple = not (parts.resampled or self._files or self._shapes)
        self.notices: list[str] = parts.notices
        for notice in self.notices:
            _logger.warning("%s", notice)

    def _grids_of(self, files: Any, resamples: bool) -> GridFiles | None:
        if files is None:
            return None
        return GridFiles(self._images, files_of(files), self.labels, resamples)

    def _all_known(self, choose: Choose) -> npt.NDArray[np.bool_]:
        """(series, K): whether anything has the label for a series.

        Raises:
            OptionError: An object and a file give one label for one series.
        """
        known = self._assignment.known.copy()
        if self._files is not None:
            series = self._files.series
            both = known[series].any(0)
            if both.any() and choose != "all":
                number = self.labels.numbers[int(np.flatnonzero(both)[0])]
                raise OptionError(
                    f"masks: an object and a NIfTI or NRRD file give the label {number} for one series; leave one out, "
                    f'or choose="all" takes their union'
                )
            known[series] = True
        return known if self._shapes is None else known | self._shapes.known

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        covered = int(np.count_nonzero(self.covered()))
        return (
            f"MaskIndex({format_count(len(self.labels), 'label')} from {format_count(len(self._sources), 'object')}, "
            f"{have(covered, 'frame', len(self))} a plane)"
        )

    def _at(self, position: int) -> int:
        return checked_position(position, len(self.images))

    # What there is

    def shape(self, position: int) -> tuple[int, int]:
        """(rows, columns) of a frame.

        Raises:
            FrameIndexError: There is no such frame; so in all below.
        """
        rows, columns = self._images.shape[self._at(position)].tolist()
        return rows, columns

    def is_covered(self, position: int) -> bool:
        """Whether a plane of an object lies on a frame; see `covered`."""
        position = self._at(position)
        if self._is_simple:
            return self._painter.is_covered(position)
        return bool(self.covered()[position])

    def known(self, position: int) -> npt.NDArray[np.bool_]:
        """(K,) bool, for each label whether an object of the frame's series has it: whether it was looked for."""
        return np.asarray(self._known[self._images.series.codes[self._at(position)]])

    def labelled(self) -> npt.NDArray[np.bool_]:
        """(frames,) bool: whether the series of a frame has any object with a wanted label."""
        return np.asarray(np.any(self._known, axis=1))[self._images.series.codes]

    def covered(self) -> npt.NDArray[np.bool_]:
        """(frames,) bool: whether a plane of an object lies on a frame; of volume files whether its series has one."""
        if self._covered is None:
            covered = np.zeros(len(self), np.bool_)
            covered[self._assignment.planes.row] = True
            series = [*self._assignment.resampled, *(self._files.series if self._files else ())]
            covered |= np.isin(self._images.series.codes, series)
            if self._shapes is not None:
                covered |= self._shapes.covered()
            self._covered = covered
        return self._covered

    def objects(self, position: int) -> tuple[str, ...]:
        """SOPInstanceUIDs of the objects whose planes lie on a frame."""
        planes, position = self._assignment.planes, self._at(position)
        low, high = np.searchsorted(planes.row, [position, position + 1])
        numbers = np.unique(planes.source[low:high]).tolist()
        return tuple(self._sources[n].found.sop_instance_uid for n in numbers)

    def table(self) -> pa.Table:
        """A row for each segment, ROI and group of shapes, wanted or not, and for each object that is not used.

        Columns: object, kind, number, name, type, code, label, planes (or shapes), those on images, the reason why it
        has no pixels, series, SOPInstanceUID, time. Names are free text that may name a person: they are here and
        nowhere else.
        """
        others = [] if self._tree is None else sources(self._tree, frozenset({"other"}))
        rows = object_rows(self._images, self._sources, self.labels, self._assignment)
        if self._shapes is not None:
            rows += shape_rows(self._shapes)
        return pa.Table.from_pylist([*rows, *other_rows(others)], schema=SEGMENTS)

    def reasons(self) -> str:
        """Why segments make no pixel, in words without names, with their number."""
        counts: Counter[str] = Counter(
            reason for reason in self.table().column("reason").to_pylist() if reason
        )
        listed = [
            f"{format_count(count, 'segment')}: {reason}" for reason, count in counts.most_common(3)
        ]
        if not listed and self._tree is not None and (shaped := sources(self._tree, SHAPE_KINDS)):
            listed = [
                f'{len(shaped)} structured reports and annotations: masks="sr" or "ann" takes them'
            ]
        return f"{'; '.join(listed)}; " if listed else "there is no mask object at all; "

    def areas(self) -> npt.NDArray[np.int64]:
        """(frames, K), pixels of each label on each frame, without decoding an image; made once."""
        if self._areas is None:
            areas = np.zeros((len(self), len(self.labels)), np.int64)
            for position in np.flatnonzero(self.covered()).tolist():
                areas[position] = self._counts(position)
            self._areas = areas
        return self._areas

    def _counts(self, position: int) -> Ints:
        if self._is_simple:
            with OfFrame(self.images, position):
                return self._painter.counts(position, len(self.labels))
        counts = np.zeros(len(self.labels), np.int64)
        for layer in self.layers(position):
            counts[layer.label] = layer.area
        return counts

    def has(self, label: str | int) -> npt.NDArray[np.bool_]:
        """(frames,) bool: whether a frame has a pixel of a label; `BalancedSampler(frames, by=masks.has("liver"))`.

        Args:
            label: Its name or number.
        """
        return np.asarray(self.areas()[:, self.position_of(label)] > 0)

    def position_of(self, label: str | int) -> int:
        """Which channel a label is.

        Raises:
            OptionError: There is no such label.
        """
        found: Sequence[Any] = self.labels.numbers if isinstance(label, int) else self.labels.names
        if label not in found:
            raise OptionError(
                f"there is no label {label!r}; the {len(self.labels)} labels have the numbers "
                f"{', '.join(map(str, self.labels.numbers[:20]))}"
            )
        return found.index(label)

    def boxes(self, position: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Boxes of the labels that a frame has.

        Returns:
            (n, 4): left, top, right, bottom in pixels, 0 being the corner of the first pixel, as torchvision's XYXY;
            and (n,), the numbers of their labels.
        """
        _, columns = self.shape(position)
        boxes, numbers = [], []
        for layer in self.layers(position):
            flat = layer.flat(columns)
            if len(flat):
                row, column = np.divmod(flat, columns)
                boxes.append((column.min(), row.min(), column.max() + 1, row.max() + 1))
                numbers.append(self.labels.numbers[layer.label])
        return np.array(boxes, np.float32).reshape(-1, 4), np.array(numbers, np.int64)

    def centers(self, label: str | int) -> pa.Table:
        """Where a label is: a row for each frame that has it, as `DicomCrops` takes them.

        Args:
            label: Its name or number.

        Returns:
            SeriesInstanceUID; x, y, z in millimetres (LPS) of the pixel of the label that is nearest to its middle; and
            `area`, its pixels on that frame.

        Raises:
            DicomTorchError: A mask cannot be made.
        """
        position_of = self.position_of(label)
        rows: list[dict[str, Any]] = []
        for position in np.flatnonzero(self.has(label)).tolist():
            (layer,) = (one for one in self.layers(position) if one.label == position_of)
            at = np.stack(np.divmod(layer.flat(self.shape(position)[1]), self.shape(position)[1]))
            away = np.linalg.norm(at - at.mean(1, keepdims=True), axis=0)
            x, y, z = self._images.place(position, *at[:, int(away.argmin())].tolist())
            uid = self._images.series[position]
            rows.append({"SeriesInstanceUID": uid, "x": x, "y": y, "z": z, "area": layer.area})
        return pa.Table.from_pylist(rows, schema=CENTERS)

    def points(self) -> pa.Table:
        """Points of ROIs that mark places instead of areas: a row for each, millimetres in LPS.

        Source: PS3.3 C.8.8.6.1 (POINT).

        Raises:
            DicomTorchError: An object cannot be read.
        """
        return pa.Table.from_pylist(point_rows(self._sources, self.labels), schema=POINTS)

    # Pixels

    def layers(self, position: int, *, fractions: bool = False) -> list[Layer]:
        """The labels on a frame, each once, in the order of labels.

        Args:
            position: Of the frame, from 0.
            fractions: Whether fractional segments keep their values, in [0, 1], in place of the threshold.

        Raises:
            FrameIndexError: There is no such frame.
            DicomTorchError: An object cannot be read, or is damaged; the message names the frame.
        """
        position = self._at(position)
        with OfFrame(self.images, position):
            found = self._painter.layers(position, fractions=fractions)
            return (
                found
                if self._is_simple
                else united(found + self._more(position), self.shape(position))
            )

    def _more(self, position: int) -> list[Layer]:
        """The labels on a frame that come from grids and outlines."""
        found = self._grids.layers(position) or [] if self._assignment.resampled else []
        if self._files is not None:
            found = found + (self._files.layers(position) or [])
        if self._shapes is not None:
            found = found + self._shapes.layers(position, self._path)
        return found

    def mask(
        self,
        position: int,
        output: MaskOutput = "labels",
        out: npt.NDArray[Any] | None = None,
    ) -> tuple[npt.NDArray[Any], Ints]:
        """The mask of a frame and the pixels of each label.

        Args:
            position: Of the frame.
            output: "labels": (1, rows, columns) numbers; "channels": (K, rows, columns) uint8, 0 and 1; "fraction": the
                same float32 in [0, 1].
            out: What to write it to, each channel C-contiguous.

        Raises:
            FrameIndexError: There is no such frame.
            OptionError: `out` is no array for this mask.
            DicomTorchError: It cannot be made; the message names the frame.
        """
        position = self._at(position)
        shape = (self.channels(output), *self.shape(position))
        if out is None:
            out = np.empty(shape, self.dtype(output))
        else:
            check_target(out, shape, self.dtype(output))
        if self._is_simple:
            painted = self._painter.paint(position, out, output, self._overlap)
            if painted is not None:
                return out, painted
        layers = self.layers(position, fractions=output == "fraction")
        with OfFrame(self.images, position):
            areas = paint(layers, out, output, self.labels, self._overlap)
        return out, areas

    def channels(self, output: MaskOutput) -> int:
        """Channels of a mask.

        Raises:
            OptionError: `output` is none of those of `mask`.
        """
        if output not in OUTPUTS:
            raise OptionError(
                f"output must be one of {', '.join(map(repr, OUTPUTS))}; got {output!r}"
            )
        return 1 if output == "labels" else len(self.labels)

    def dtype(self, output: MaskOutput) -> np.dtype[np.generic]:
        """Type of a mask: one for the dataset."""
        if output == "fraction":
            return np.dtype(np.float32)
        return self.labels.dtype if output == "labels" else np.dtype(np.uint8)
