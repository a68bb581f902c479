"""The masks of one image from the planes that lie on it."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dicomtorch.errors import GeometryError
from dicomtorch.masks.assigning import Assigned
from dicomtorch.masks.coded_names import LabelMap
from dicomtorch.masks.contours import read_points
from dicomtorch.masks.layers import Layer, united
from dicomtorch.masks.objects import EXCLUSIVE, Source
from dicomtorch.masks.placing import Images, Ints
from dicomtorch.masks.polygons import Path, Runs, fill
from dicomtorch.masks.segmentations import SegmentationReader, segment_numbers
from dicomtorch.series.geometry import slice_normal

_logger = logging.getLogger("dicomtorch")

Array = npt.NDArray[Any]

_MOST_RUNS = 1 << 24  # numbers that runs of contours may take in one process, 128 MB
_MOST_COMPARED = 32  # contours of one structure in one plane that are compared for crossings


class Painter:
    """Makes masks; picklable, and safe to use from several threads.

    Args:
        images: What masks are made for.
        sources: The objects.
        planes: Which plane makes which label of which image.
        labels: The labels.
        path: Whether pixels on a contour belong to it.
        threshold: What a fraction must reach to be 1.
        left_out: (object, code of the series) -> labels that are taken from elsewhere.
    """

    def __init__(
        self,
        images: Images,
        sources: Sequence[Source],
        planes: Assigned,
        labels: LabelMap,
        path: Path,
        threshold: float,
        left_out: dict[tuple[int, int], set[int]],
    ) -> None:
        self._images = images
        self._sources = list(sources)
        self._planes = planes
        self._labels = labels
        self._path: Path = path
        self._threshold = threshold
        self._left_out = left_out
        self._first = np.searchsorted(planes.row, np.arange(len(images.index) + 1))
        self._segmentations = SegmentationReader(sources[0].index) if sources else None
        self._renew()

    def _renew(self) -> None:
        self._runs: OrderedDict[int, list[tuple[int, Runs]]] = OrderedDict()
        self._held = 0
        self._told: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_runs", "_held", "_told")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._renew()

    def is_covered(self, row: int) -> bool:
        """Whether a plane of some object lies on an image."""
        return bool(self._first[row + 1] > self._first[row])

    def layers(self, row: int, *, fractions: bool = False) -> list[Layer]:
        """The labels on an image, each once, in the order of labels.

        Raises:
            DicomTorchError: An object cannot be read, or is damaged.
        """
        shape = (int(self._images.shape[row, 0]), int(self._images.shape[row, 1]))
        here = slice(int(self._first[row]), int(self._first[row + 1]))
        found: list[Layer] = []
        source = self._planes.source[here]
        for number in np.unique(source).tolist():
            some = np.flatnonzero(source == number) + here.start
            if not self._sources[number].is_contours:
                found += self._of_frames(row, number, some, shape, fractions)
        if any(self._sources[n].is_contours for n in np.unique(source).tolist()):
            found += [Layer(label, runs) for label, runs in self.runs(row) if len(runs.line)]
        return united(found, shape)

    def _of_frames(
        self, row: int, number: int, some: Ints, shape: tuple[int, int], fractions: bool
    ) -> list[Layer]:
        """Labels from the frames of a SEG."""
        source, planes = self._sources[number], self._planes
        assert self._segmentations is not None
        wanted = planes.plane[some].tolist()
        bits = self._segmentations.positions(source, wanted)
        if bits:
            own = self._segmentations.shape(source)
            return [
                Layer(
                    int(planes.label[k]),
                    _moved(flat, own, int(planes.down[k]), int(planes.right[k]), shape),
                )
                for k, flat in zip(some.tolist(), bits, strict=True)
            ]
        frames = self._segmentations.stored(source, wanted)
        places = zip(some.tolist(), frames, strict=True)
        if source.found.kind == "labelmap":
            series = int(self._images.series.codes[row])
            return [
                layer
                for k, frame in places
                for layer in self._of_labelmap(
                    _on_image(
                        frame,
                        int(planes.down[k]),
                        int(planes.right[k]),
                        shape,
                        source.found.background,
                    ),
                    source,
                    self._left_out.get((number, series), set()),
                )
            ]
        result = []
        for k, frame in places:
            placed = _on_image(frame, int(planes.down[k]), int(planes.right[k]), shape, 0)
            if source.found.segmentation_type == "FRACTIONAL":
                share = placed.astype(np.float32) / np.float32(source.found.maximum_fractional)
                pixels: Array = share if fractions else share >= self._threshold
            else:
                pixels = placed.view(np.bool_) if placed.dtype == np.uint8 else placed != 0
            result.append(Layer(int(planes.label[k]), pixels))
        return result

    def _of_labelmap(self, frame: Array, source: Source, left_out: set[int]) -> list[Layer]:
        numbers = segment_numbers(frame, source)
        present = set(np.unique(numbers).tolist())
        result = []
        for segment in source.found.segments:
            label = self._labels.position(segment)
            wanted = label >= 0 and label not in left_out
            if wanted and segment.number in present and segment.number != source.found.background:
                result.append(Layer(label, numbers == segment.number))
        return result

    def runs(self, row: int) -> list[tuple[int, Runs]]:
        """The labels that contours make on an image; kept, so that the next epoch only paints.

        Raises:
            GeometryError: A contour is not in the plane of the image.
            DicomTorchError: It cannot be read.
        """
        kept = self._runs.get(row)
        if kept is None:
            kept = self._filled(row)
            self._runs[row] = kept
            self._held += 3 * sum(len(runs.line) for _, runs in kept)
            while self._held > _MOST_RUNS and len(self._runs) > 1:
                _, gone = self._runs.popitem(last=False)
                self._held -= 3 * sum(len(runs.line) for _, runs in gone)
        return kept

    def _filled(self, row: int) -> list[tuple[int, Runs]]:
        here = slice(int(self._first[row]), int(self._first[row + 1]))
        points: list[Array] = []
        structures: list[
            int
        ] = []  # one for each segment of each object: contours of it are one set
        keys: dict[tuple[int, int], int] = {}
        labels: list[int] = []
        for number in np.unique(self._planes.source[here]).tolist():
            source = self._sources[number]
            if not source.is_contours:
                continue
            some = np.flatnonzero(self._planes.source[here] == number) + here.start
            contours = self._planes.plane[some]
            for contour, label, found in zip(
                contours.tolist(),
                self._planes.label[some].tolist(),
                self._in_plane(row, source, contours),
                strict=True,
            ):
                key = (number, int(source.found.contour_segment[contour]))
                if key not in keys:
                    labels.append(label)
                structure = keys.setdefault(key, len(keys))
                is_exclusive = source.found.contour_type[contour] == EXCLUSIVE
                if not is_exclusive and _is_there(found, structure, points, structures):
                    self._tell(
                        f"masks: {source.name}: a contour of ROI "
                        f"{source.found.segments[key[1]].number} is there twice; it counts once"
                    )
                    continue
                points.append(found)
                structures.append(structure)
        if not points:
            return []
        return self._fill(row, points, structures, labels)

    def _fill(
        self, row: int, points: list[Array], structures: list[int], labels: list[int]
    ) -> list[tuple[int, Runs]]:
        rows, columns = self._images.shape[row].tolist()
        spacing = (float(self._images.spacing[row, 0]), float(self._images.spacing[row, 1]))
        counts = np.array([len(each) for each in points], np.int64)
        planes = np.array(structures, np.int64)
        whole = fill(
            np.concatenate(points),
            counts,
            planes,
            (rows, columns),
            spacing=spacing,
            path=self._path,
        )
        self._tell_crossings(points, planes, (rows, columns))
        ends = np.searchsorted(whole.line, np.arange(len(labels) + 1) * rows)
        result = []
        for k, label in enumerate(labels):
            part = slice(int(ends[k]), int(ends[k + 1]))
            result.append(
                (label, Runs(whole.line[part] - k * rows, whole.first[part], whole.end[part]))
            )
        return result

    def _in_plane(self, row: int, source: Source, contours: Ints) -> list[Array]:
        """Contours in coordinates of the image's pixels, (column, row); centres are whole numbers."""
        found = read_points(source, contours.tolist())
        orientation = self._images.orientation[row].reshape(2, 3)
        axes = orientation / np.linalg.norm(orientation, axis=1, keepdims=True)
        spacing = self._images.spacing[row]
        normal = slice_normal(orientation)
        step = np.array([spacing[1], spacing[0]])
        origin = self._images.origin[row]
        limit = max(0.1, 0.2 * float(self._images.thickness[row]))
        counts = np.array([len(points) for points in found])
        starts = np.cumsum(counts) - counts
        whole = np.concatenate(found)
        height = whole @ normal
        spread = np.maximum.reduceat(height, starts) - np.minimum.reduceat(height, starts)
        if (spread > limit).any():
            worst = int(spread.argmax())
            segment = source.found.segments[int(source.found.contour_segment[contours[worst]])]
            raise GeometryError(
                f"masks: {source.name}: a contour of ROI {segment.number} is not in the plane of the image "
                f"(orientation {orientation.ravel().tolist()}): its points lie {spread[worst]:.3g} mm apart along the "
                f"normal; contours were drawn on a series of another orientation"
            )
        return np.split((whole - origin) @ (axes / step[:, None]).T, starts[1:])

    def _tell_crossings(
        self, points: list[Array], structures: Ints, shape: tuple[int, int]
    ) -> None:
        """A notice where contours cross instead of nesting: a union would have more pixels."""
        for structure in np.unique(structures).tolist():
            own = [points[k] for k in np.flatnonzero(structures == structure).tolist()]
            if not 1 < len(own) <= _MOST_COMPARED:
                continue
            low = np.array([p.min(0) for p in own])
            high = np.array([p.max(0) for p in own])
            touch = (low[:, None] <= high[None]).all(2) & (low[None] <= high[:, None]).all(2)
            inside = (low[:, None] >= low[None]).all(2) & (high[:, None] <= high[None]).all(2)
            for a, b in np.argwhere(np.triu(touch & ~inside & ~inside.T, 1)).tolist():
                lost = _common(own[a], own[b], shape)
                if lost:
                    self._tell(
                        f"masks: contours of one ROI cross, and {lost} pixels that both have are left out, as the "
                        f"standard's exclusive or says; a union would have them"
                    )

    def _tell(self, notice: str) -> None:
        if notice not in self._told:
            self._told.add(notice)
            _logger.warning("%s", notice)

    def counts(self, row: int, labels: int) -> Ints:
        """(K,), pixels of each label on an image; bits are counted and runs measured where that is enough."""
        result = np.zeros(labels, np.int64)
        here = slice(int(self._first[row]), int(self._first[row + 1]))
        source, label = self._planes.source[here], self._planes.label[here]
        number = int(source[0]) if len(source) else -1
        simple = number >= 0 and (source == number).all() and len(np.unique(label)) == len(label)
        found = self._sources[number] if simple else None
        if (
            found is None
            or found.found.segmentation_type != "BINARY"
            or not self._is_whole(row, here)
        ):
            for layer in self.layers(row):
                result[layer.label] = layer.area
            return result
        assert self._segmentations is not None
        result[label] = self._segmentations.counts(found, self._planes.plane[here].tolist())
        return result

    def _is_whole(self, row: int, here: slice) -> bool:
        """Whether the frames on an image are exactly as large as it."""
        source = self._sources[int(self._planes.source[here.start])]
        sizes = [
            np.asarray(source.index.values(name, source.positions[self._planes.plane[here]]))
            for name in ("Rows", "Columns")
        ]
        same = (np.stack(sizes, 1) == self._images.shape[row]).all()
        return bool(
            same and not self._planes.down[here].any() and not self._planes.right[here].any()
        )


def _on_image(frame: Array, down: int, right: int, shape: tuple[int, int], outside: int) -> Array:
    """A frame at its place on an image; what is beyond the image is cut off."""
    if not down and not right and frame.shape == shape:
        return frame
    result = np.full(shape, outside, frame.dtype)
    top, left = max(down, 0), max(right, 0)
    bottom, end = min(down + frame.shape[0], shape[0]), min(right + frame.shape[1], shape[1])
    if top < bottom and left < end:
        part = frame[top - down : bottom - down, left - right : end - right]
        result[top:bottom, left:end] = part
    return result


def _moved(
    flat: Array, own: tuple[int, int], down: int, right: int, shape: tuple[int, int]
) -> Array:
    """Flat positions in a frame as those on the image that it lies on; what is beyond the image is cut off."""
    if not down and not right and own == shape:
        return flat
    row, column = np.divmod(flat, own[1])
    row, column = row + down, column + right
    inside = (row >= 0) & (row < shape[0]) & (column >= 0) & (column < shape[1])
    return np.asarray(row[inside] * shape[1] + column[inside])


def _is_there(found: Array, structure: int, points: list[Array], structures: list[int]) -> bool:
    return any(
        other == structure and np.array_equal(found, each)
        for each, other in zip(points, structures, strict=True)
    )


def _common(a: Array, b: Array, shape: tuple[int, int]) -> int:
    """Pixels that two contours have in common, 0 if one is inside the other."""
    masks = np.zeros((2, *shape), np.bool_)
    fill(
        np.concatenate([a, b]),
        np.array([len(a), len(b)]),
        np.array([0, 1]),
        shape,
        path="half-open",
    ).paint(masks)
    both = int((masks[0] & masks[1]).sum())
    return 0 if both in (int(masks[0].sum()), int(masks[1].sum())) else both
