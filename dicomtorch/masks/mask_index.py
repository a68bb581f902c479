"""`MaskIndex`: which pixels of which image are what, from the objects beside the images."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dicomtorch.errors import DicomTorchError, FrameIndexError, OptionError, printable
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.masks.assigning import (
    Assignment,
    Between,
    Choose,
    PlacingOptions,
    assign,
    rows_meant,
)
from dicomtorch.masks.coded_names import LabelMap, LabelOption, label_map
from dicomtorch.masks.contours import read_points
from dicomtorch.masks.gridded import GridFiles, SegmentGrids, files_of
from dicomtorch.masks.layers import Layer, MaskOutput, Overlap, paint
from dicomtorch.masks.objects import Source, all_segments, is_background, sources
from dicomtorch.masks.painter import Painter
from dicomtorch.masks.placing import Images, Ints, Place
from dicomtorch.masks.polygons import Path
from dicomtorch.masks.tables import CENTERS, POINTS, SEGMENTS
from dicomtorch.model.mask_object import GEOMETRIC_TYPES

_logger = logging.getLogger("dicomtorch")

KINDS = {
    "seg": frozenset({"seg", "labelmap"}),
    "rtstruct": frozenset({"rtstruct"}),
    "all": frozenset({"seg", "labelmap", "rtstruct"}),
}


class MaskIndex:
    """The labels that SEG, RTSTRUCT, NIfTI or NRRD give the frames of an index.

    Made once, from what the scan kept; pixels are read when they are asked for. Picklable, and safe to use from several
    threads.

    Args:
        images: Frames that masks are made for; `position` below is a position in it.
        source: An index of the tree with the mask objects, of which all are considered; `None`: the tree of `images`.
        labels: {pattern or Code: number}, a list of names, or `None` for all names found, sorted.
        kind: "seg", "rtstruct" or "all".
        files: SeriesInstanceUID -> NIfTI or NRRD file, or a table with the columns series and path, instead of objects.
        place: "auto": by position, narrowed by reference; "reference": by reference alone; "position".
        between: Contours between slices: "raise", "nearest" (within half the spacing), or "drop".
        choose: Several objects that give one label for one series: "raise", "latest", "all", or a function.
        resample: `None`: another grid is an error; "nearest": labels are sampled at the image's pixels.
        overlap: Pixels of two labels in a label map: "raise", "first" or "last" in the order of labels.
        path: Pixel centres on a contour: "in" as the standard has it, or "half-open".
        threshold: What a fraction must reach to be 1.

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
        kind: Literal["seg", "rtstruct", "all"] = "all",
        files: Any = None,
        place: Place = "auto",
        between: Between = "raise",
        choose: Choose = "raise",
        resample: Literal["nearest"] | None = None,
        overlap: Overlap = "raise",
        path: Path = "in",
        threshold: float = 0.5,
    ) -> None:
        _check_options(kind, place, between, choose, resample, overlap, path, threshold)
        self.images = images
        self._overlap: Overlap = overlap
        self._images = Images(images)
        self._sources: list[Source] = []
        self._files: GridFiles | None = None
        self._areas: npt.NDArray[np.int64] | None = None
        if files is not None:
            self._open_files(files, labels, resample == "nearest")
            return
        self._sources = sources(images if source is None else source, KINDS[kind])
        about = [s for s in self._sources if len(rows_meant(self._images, s)[0])]
        self.labels: LabelMap = label_map(labels, all_segments(about or self._sources))
        options = PlacingOptions(place, between, choose, resample == "nearest")
        self._assignment: Assignment = assign(self._images, self._sources, self.labels, options)
        self.notices: list[str] = self._assignment.notices
        for notice in self.notices:
            _logger.warning("%s", notice)
        parts = self._assignment
        self._painter: Painter | None = Painter(
            self._images, self._sources, parts.planes, self.labels, path, threshold, parts.left_out
        )
        self._grids = SegmentGrids(self._images, self._sources, parts.resampled, self.labels)

    def _open_files(self, files: Any, labels: LabelOption, resamples: bool) -> None:
        if not isinstance(labels, Mapping) or not all(isinstance(key, str) for key in labels):
            raise OptionError(
                "masks in NIfTI or NRRD files hold numbers without names; say what they are: "
                'labels={"liver": 1, "tumour": 2}'
            )
        names, numbers = tuple(map(str, labels)), tuple(labels.values())
        if len(set(numbers)) < len(numbers):
            raise OptionError("labels of NIfTI or NRRD files must have different numbers")
        self.labels = LabelMap(names, numbers, names, numbers)
        self._files = GridFiles(self._images, files_of(files), self.labels, resamples)
        known = np.zeros((len(self._images.series.values), len(names)), np.bool_)
        known[self._files.series] = True
        self._assignment = Assignment(
            assign(self._images, [], self.labels, PlacingOptions()).planes, known
        )
        self.notices = []
        self._painter = None
        self._grids = SegmentGrids(self._images, [], {}, self.labels)

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        covered = int(np.count_nonzero(self.covered()))
        return (
            f"MaskIndex({len(self.labels)} labels from {len(self._sources)} objects, "
            f"{covered:,} of {len(self):,} frames have a plane)"
        )

    # What there is

    def shape(self, position: int) -> tuple[int, int]:
        """(rows, columns) of a frame."""
        rows, columns = self._images.shape[position].tolist()
        return rows, columns

    def is_covered(self, position: int) -> bool:
        """Whether a plane of an object lies on a frame; see `covered`."""
        if self._painter is None or self._assignment.resampled:
            return bool(self.known(position).any())
        return self._painter.is_covered(position)

    def known(self, position: int) -> npt.NDArray[np.bool_]:
        """(K,), for each label whether an object of the frame's series has it: whether it was looked for."""
        return np.asarray(self._assignment.known[self._images.series.codes[position]])

    def labelled(self) -> npt.NDArray[np.bool_]:
        """For each frame whether its series has any object with a wanted label."""
        return np.asarray(np.any(self._assignment.known, axis=1))[self._images.series.codes]

    def covered(self) -> npt.NDArray[np.bool_]:
        """For each frame whether a plane of an object lies on it; of files in volumes whether its series has one."""
        if self._files is not None or self._assignment.resampled:
            return self.labelled()
        result = np.zeros(len(self), np.bool_)
        result[self._assignment.planes.row] = True
        return result

    def objects(self, position: int) -> tuple[str, ...]:
        """SOPInstanceUIDs of the objects whose planes lie on a frame."""
        planes = self._assignment.planes
        low, high = np.searchsorted(planes.row, [position, position + 1])
        numbers = np.unique(planes.source[low:high]).tolist()
        return tuple(self._sources[n].found.sop_instance_uid for n in numbers)

    def table(self) -> pa.Table:
        """A row for each segment and ROI, wanted or not: name, code, label, object, planes, and why it has no pixels.

        Names are free text that may name a person: they are here and nowhere else.
        """
        rows: list[dict[str, Any]] = []
        for source in self._sources:
            reason = rows_meant(self._images, source)[1]
            for k, segment in enumerate(source.found.segments):
                if is_background(source.found, segment):
                    continue
                label = self.labels.position(segment)
                planes, lie = self._assignment.counts.get(
                    (source.number, k), (len(source.planes_of([k])), 0)
                )
                why = self._assignment.reasons.get((source.number, k), "")
                rows.append(
                    {
                        "object": source.number,
                        "kind": source.found.kind,
                        "number": segment.number,
                        "name": segment.name,
                        "type": segment.type.meaning if segment.type else segment.interpreted_type,
                        "code": f"{segment.type.scheme} {segment.type.value}"
                        if segment.type
                        else "",
                        "label": self.labels.numbers[label] if label >= 0 else 0,
                        "planes": planes,
                        "on_images": lie,
                        "reason": why or reason or ("" if label >= 0 else "no label asks for it"),
                        "series": source.found.series_uid,
                        "SOPInstanceUID": source.found.sop_instance_uid,
                        "time": source.found.time,
                    }
                )
        return pa.Table.from_pylist(rows, schema=SEGMENTS)

    def reasons(self) -> str:
        """Why segments make no pixel, in words without names, with their number."""
        counts: Counter[str] = Counter(
            reason for reason in self.table().column("reason").to_pylist() if reason
        )
        listed = [f"{count} segments: {reason}" for reason, count in counts.most_common(3)]
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
        if self._painter is not None and not self._assignment.resampled:
            with _Context(self, position):
                return self._painter.counts(position, len(self.labels))
        counts = np.zeros(len(self.labels), np.int64)
        for layer in self.layers(position):
            counts[layer.label] = layer.area
        return counts

    def has(self, label: str | int) -> npt.NDArray[np.bool_]:
        """For each frame whether it has a pixel of a label; `BalancedSampler(frames, by=masks.has("liver"))`.

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
        columns = int(self._images.shape[position, 1])
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

        Raises:
            DicomTorchError: An object cannot be read.
        """
        rows: list[dict[str, Any]] = []
        kind = GEOMETRIC_TYPES.index("POINT")
        for source in self._sources:
            marks = np.flatnonzero(source.found.contour_type == kind)
            if not len(marks):
                continue
            found = read_points(source, marks.tolist())
            for contour, places in zip(marks, found, strict=True):
                segment = source.found.segments[int(source.found.contour_segment[contour])]
                label = self.labels.position(segment)
                rows += [
                    {
                        "object": source.number,
                        "number": segment.number,
                        "label": self.labels.numbers[label] if label >= 0 else 0,
                        **dict(zip("xyz", point, strict=True)),
                    }
                    for point in places.tolist()
                ]
        return pa.Table.from_pylist(rows, schema=POINTS)

    # Pixels

    def layers(self, position: int, *, fractions: bool = False) -> list[Layer]:
        """The labels on a frame, each once, in the order of labels.

        Raises:
            DicomTorchError: An object cannot be read, or is damaged; the message names the frame.
        """
        if not 0 <= position < len(self):
            raise FrameIndexError(f"frame {position} is outside the index, which has {len(self)}")
        with _Context(self, position):
            if self._files is not None:
                return self._files.layers(position) or []
            assert self._painter is not None
            found = self._painter.layers(position, fractions=fractions)
            more = self._grids.layers(position) if self._assignment.resampled else None
            return [*found, *more] if more else found

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
            out: What to write it to, C-contiguous.

        Raises:
            DicomTorchError: It cannot be made; the message names the frame.
        """
        rows, columns = self._images.shape[position].tolist()
        if out is None:
            out = np.empty((self.channels(output), rows, columns), self.dtype(output))
        layers = self.layers(position, fractions=output == "fraction")
        with _Context(self, position):
            areas = paint(layers, out, output, self.labels, self._overlap)
        return out, areas

    def channels(self, output: MaskOutput) -> int:
        """Channels of a mask."""
        return 1 if output == "labels" else len(self.labels)

    def dtype(self, output: MaskOutput) -> np.dtype[np.generic]:
        """Type of a mask: one for the dataset."""
        if output == "fraction":
            return np.dtype(np.float32)
        return self.labels.dtype if output == "labels" else np.dtype(np.uint8)


class _Context:
    """Errors in it name the frame whose mask was being made."""

    def __init__(self, masks: MaskIndex, position: int) -> None:
        self._masks = masks
        self._position = position

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if not isinstance(error, DicomTorchError):
            return
        images, position = self._masks.images, self._position
        frame = images.gather("frame", np.array([position]))[0]
        place = images.gather("ImagePositionPatient", np.array([position]))[0]
        at = f" at {', '.join(f'{x:g}' for x in place)} mm" if all(x == x for x in place) else ""
        named = type(error)(
            f"mask of {printable(images.path(position))}, frame {frame} (index {position}){at}: {error}"
        )
        raise named from error


def _check_options(
    kind: Any,
    place: Any,
    between: Any,
    choose: Any,
    resample: Any,
    overlap: Any,
    path: Any,
    threshold: Any,
) -> None:
    allowed = {
        "kind": (kind, tuple(KINDS)),
        "place": (place, ("auto", "reference", "position")),
        "between": (between, ("raise", "nearest", "drop")),
        "choose": ("all" if callable(choose) else choose, ("raise", "latest", "all")),
        "resample": (resample, (None, "nearest")),
        "overlap": (overlap, ("raise", "first", "last")),
        "path": (path, ("in", "half-open")),
    }
    for name, (value, values) in allowed.items():
        if value not in values:
            raise OptionError(
                f"{name} must be one of {', '.join(map(repr, values))}; got {value!r}"
            )
    if not 0 < threshold <= 1:
        raise OptionError(f"threshold must be above 0 and at most 1; got {threshold!r}")
