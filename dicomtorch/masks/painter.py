"""The masks of one image from the planes that lie on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dicomtorch.masks.assigning import Assignment, OnImages
from dicomtorch.masks.bits import Bits
from dicomtorch.masks.coded_names import LabelMap
from dicomtorch.masks.contour_painter import ContourPainter
from dicomtorch.masks.layers import Layer, MaskOutput, Overlap, united
from dicomtorch.masks.objects import Source
from dicomtorch.masks.placing import Images, Ints
from dicomtorch.masks.plane_painter import PlanePainter
from dicomtorch.masks.polygons import Path
from dicomtorch.masks.segmentations import SegmentationReader, segment_numbers
from dicomtorch.reader.cache import FrameCache
from dicomtorch.reader.choice import Isolation

Array = npt.NDArray[Any]


class Painter:
    """Makes masks; picklable, and safe to use from several threads.

    Args:
        images: What masks are made for.
        sources: The objects.
        found: Which plane makes which label of which image.
        labels: The labels.
        path: Whether pixels on a contour belong to it.
        threshold: What a fraction must reach to be 1.
        cache: Where runs of contours are kept on disk.
        isolation: How frames of objects are decoded, see `ChosenBackends`.
    """

    def __init__(
        self,
        images: Images,
        sources: Sequence[Source],
        found: Assignment,
        labels: LabelMap,
        path: Path,
        threshold: float,
        cache: FrameCache | None = None,
        isolation: Isolation = None,
    ) -> None:
        on = self._on = OnImages.of(images, sources, found.planes)
        self._images, self._sources, self._planes = on.images, on.sources, on.planes
        self._labels = labels
        self._threshold = threshold
        self._left_out = found.left_out
        self._segmentations = SegmentationReader(sources[0].index, isolation) if sources else None
        self._contours = ContourPainter(on, path, cache)
        self._frames = PlanePainter(on, len(labels))
        self._numbers = np.array(labels.numbers, np.int64)

    def is_covered(self, row: int) -> bool:
        """Whether a plane of some object lies on an image."""
        here = self._on.on(row)
        return bool(here.start < here.stop)

    def layers(self, row: int, *, fractions: bool = False) -> list[Layer]:
        """The labels on an image, each once, in the order of labels.

        Raises:
            DicomTorchError: An object cannot be read, or is damaged.
        """
        shape: tuple[int, int] = tuple(self._images.shape[row].tolist())
        here = self._on.on(row)
        source = self._planes.source[here]
        numbers = sorted(set(source.tolist()))
        found: list[Layer] = []
        for number in numbers:
            if not self._sources[number].is_contours:
                some = here if len(numbers) == 1 else np.flatnonzero(source == number) + here.start
                found += self._of_frames(row, number, some, shape, fractions)
        if any(self._sources[n].is_contours for n in numbers):
            found += self._contours.layers(row)
        return united(found, shape)

    def paint(self, row: int, out: Array, output: MaskOutput, overlap: Overlap) -> Ints | None:
        """Paints the mask of an image at once, where compiled kernels can.

        Args:
            row: Of the image.
            out: (1 or K, rows, columns), each channel C-contiguous.
            output: What a mask is.
            overlap: What a pixel of two labels gets in a label map.

        Returns:
            (K,), pixels of each label; `None` if it is to be painted from `layers`.
        """
        if out.dtype != np.uint8 or output == "fraction":
            return None
        whole = output == "labels"
        areas = self._frames.paint(row, out, self._numbers if whole else None, overlap != "last")
        if areas is None or not whole or overlap != "raise":
            return areas
        return areas if np.count_nonzero(out) == areas.sum() else None

    def _of_frames(
        self, row: int, number: int, some: Ints | slice, shape: tuple[int, int], fractions: bool
    ) -> list[Layer]:
        """Labels from the frames of a SEG."""
        source, planes = self._sources[number], self._planes
        assert self._segmentations is not None
        wanted, labels, downs, rights = (
            values[some].tolist()
            for values in (planes.plane, planes.label, planes.down, planes.right)
        )
        bits = self._segmentations.bits(source, wanted)
        if bits:
            own = self._segmentations.shape(source)
            return [
                Layer(label, _moved(each, own, down, right, shape))
                for each, label, down, right in zip(bits, labels, downs, rights, strict=True)
            ]
        found: list[Layer] = []
        outside = source.found.background if source.found.kind == "labelmap" else 0
        frames = self._segmentations.stored(source, wanted)
        for frame, label, down, right in zip(frames, labels, downs, rights, strict=True):
            placed = _on_image(frame, down, right, shape, outside)
            if source.found.kind == "labelmap":
                series = int(self._images.series.codes[row])
                left_out = self._left_out.get((number, series), set())
                found += self._of_labelmap(placed, source, left_out)
            else:
                found.append(Layer(label, self._pixels(placed, source, fractions)))
        return found

    def _pixels(self, placed: Array, source: Source, fractions: bool) -> Array:
        """A frame of one segment as fractions, or as the pixels that have it."""
        if source.found.segmentation_type != "FRACTIONAL":
            return placed.view(np.bool_) if placed.dtype == np.uint8 else placed != 0
        share = placed.astype(np.float32) / np.float32(source.found.maximum_fractional)
        return share if fractions else share >= self._threshold

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

    def counts(self, row: int, labels: int) -> Ints:
        """(K,), pixels of each label on an image; bits are counted and runs measured where that is enough."""
        result = np.zeros(labels, np.int64)
        here = self._on.on(row)
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
    found: Array | Bits, own: tuple[int, int], down: int, right: int, shape: tuple[int, int]
) -> Array | Bits:
    """Pixels of a frame as those of the image that it lies on; what is beyond the image is cut off."""
    if not down and not right and own == shape:
        return found
    flat = found.flat() if isinstance(found, Bits) else found
    row, column = np.divmod(flat, own[1])
    row, column = row + down, column + right
    inside = (row >= 0) & (row < shape[0]) & (column >= 0) & (column < shape[1])
    return np.asarray(row[inside] * shape[1] + column[inside])
