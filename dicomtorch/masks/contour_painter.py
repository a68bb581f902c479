"""The masks that contours make of one image, filled once and kept: in memory, and on disk where there is a cache."""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dicomtorch._forks import ForkedLock
from dicomtorch._version import __version__
from dicomtorch.errors import GeometryError
from dicomtorch.masks.assigning import OnImages
from dicomtorch.masks.bits import WORD, planes_of
from dicomtorch.masks.compiled import painting
from dicomtorch.masks.contours import check_unchanged, read_points
from dicomtorch.masks.layers import Layer, united
from dicomtorch.masks.objects import EXCLUSIVE, Source
from dicomtorch.masks.placing import Ints
from dicomtorch.masks.polygons import ON_PATH, Path, Runs, fill
from dicomtorch.reader.cache import FrameCache
from dicomtorch.series.geometry import slice_normal
from dicomtorch.storage.base import Scratch

_logger = logging.getLogger("dicomtorch")

Array = npt.NDArray[Any]

_MOST_KEPT = 1 << 27  # bytes of filled contours in one process
_EACH_LAYER = 500  # bytes of the objects around them
_MOST_COMPARED = 32  # contours of one structure in one plane that are compared for crossings
_KEPT_VERSION = 1  # of what is kept on disk


class _Structures(NamedTuple):
    """The contours on one image: those of one segment of one object are one set.

    Attributes:
        contours: (object, its contours on the image) each.
        number: (object, segment) -> which set.
        labels: Of each set.
    """

    contours: list[tuple[int, Ints]]
    number: dict[tuple[int, int], int]
    labels: list[int]


class ContourPainter:
    """Fills contours; picklable, and safe to use from several threads.

    Args:
        planes: What lies on which image.
        path: Whether pixels on a contour belong to it.
        cache: Where runs are kept on disk.
    """

    def __init__(self, planes: OnImages, path: Path, cache: FrameCache | None) -> None:
        self._planes = planes
        self._images, self._sources = planes.images, planes.sources
        self._path: Path = path
        self._cache = cache
        self._renew()

    def _renew(self) -> None:
        self._lock = ForkedLock()
        self._kept: OrderedDict[int, list[Layer]] = OrderedDict()
        self._held = 0
        self._told: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        own = ("_lock", "_kept", "_held", "_told")
        return {name: value for name, value in self.__dict__.items() if name not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._renew()

    def layers(self, row: int) -> list[Layer]:
        """The labels that contours make on an image; kept, so that the next epoch only paints.

        Raises:
            GeometryError: A contour is not in the plane of the image.
            StaleIndexError: An object is not the one that was indexed.
            DicomTorchError: It cannot be read.
        """
        kept = self._kept.get(row)
        if kept is None:
            kept = self._made(row)
            with self._lock:
                self._kept[row] = kept
                self._held += _bytes(kept)
                while self._held > _MOST_KEPT and len(self._kept) > 1:
                    self._held -= _bytes(self._kept.popitem(last=False)[1])
        return kept

    def _made(self, row: int) -> list[Layer]:
        shape: tuple[int, int] = tuple(self._images.shape[row].tolist())
        structures = self._structures(row)
        count = len(structures.labels)
        runs = self._runs(row, structures)
        if painting() is not None:
            found: list[Any] = runs.by_plane(count, shape[0])
        elif not shape[0] * shape[1] % WORD:
            found = planes_of(runs, count, shape)
        else:
            found = [runs.flat(shape[1])] if count == 1 else _flat_planes(runs, count, shape)
        pairs = zip(structures.labels, found, strict=True)
        counted = (layer._replace(counted=layer.area) for layer in (Layer(*pair) for pair in pairs))
        layers = [layer for layer in counted if layer.area]
        return united(layers, shape)

    def _structures(self, row: int) -> _Structures:
        here, of = self._planes.on(row), self._planes.planes
        objects, planes, labels = (values[here] for values in (of.source, of.plane, of.label))
        found = _Structures([], {}, [])
        for number in sorted(set(objects.tolist())):
            source = self._sources[number]
            if not source.is_contours:
                continue
            some = objects == number
            contours = planes[some]
            found.contours.append((number, contours))
            segments = source.found.contour_segment[contours].tolist()
            for segment, label in zip(segments, labels[some].tolist(), strict=True):
                if (number, segment) not in found.number:
                    found.number[number, segment] = len(found.labels)
                    found.labels.append(label)
        return found

    def _runs(self, row: int, structures: _Structures) -> Runs:
        """The runs of all structures on an image; their lines count structure after structure."""
        if self._cache is None:
            return self._filled(row, structures)
        key = self._key(row, structures)
        kept = self._cache.read_array(key, Scratch())
        if kept is not None and kept.ndim == 2 and len(kept) == 3:
            for number, _ in structures.contours:
                check_unchanged(self._sources[number])  # as where it is read
            return Runs(*kept.astype(np.int64))
        runs = self._filled(row, structures)
        self._cache.write(key, np.stack(runs).astype(np.int32))
        return runs

    def _key(self, row: int, structures: _Structures) -> bytes:
        """What names the runs on an image: objects and contours, the image's grid, and how they are filled."""
        images = self._images
        digest = hashlib.sha256(
            repr((_KEPT_VERSION, __version__, self._path, ON_PATH, structures.number)).encode()
        )
        for values in (images.origin, images.orientation, images.spacing, images.shape):
            digest.update(np.ascontiguousarray(values[row]).tobytes())
        digest.update(np.float64(images.thickness[row]).tobytes())
        for number, contours in structures.contours:
            source = self._sources[number]
            files: Any = source.index.files
            uid = source.found.sop_instance_uid
            name = files["path"][source.file] if uid else source.path
            digest.update(repr((uid, name, source.identity)).encode() + contours.tobytes())
        return digest.digest()

    def _filled(self, row: int, structures: _Structures) -> Runs:
        points: list[Array] = []
        planes: list[int] = []
        for number, contours in structures.contours:
            source = self._sources[number]
            found = self._in_plane(row, source, contours)
            segments = source.found.contour_segment[contours].tolist()
            kinds = source.found.contour_type[contours].tolist()
            for own, segment, kind in zip(found, segments, kinds, strict=True):
                structure = structures.number[number, segment]
                if kind != EXCLUSIVE and _is_there(own, structure, points, planes):
                    self._tell(
                        f"masks: {source.name}: a contour of ROI {source.found.segments[segment].number} is there "
                        f"twice; it counts once"
                    )
                    continue
                points.append(own)
                planes.append(structure)
        shape: tuple[int, int] = tuple(self._images.shape[row].tolist())
        spacing: tuple[float, float] = tuple(self._images.spacing[row].tolist())
        whole = np.concatenate([np.empty((0, 2)), *points])
        counts = np.array([len(each) for each in points], np.int64)
        of_points = np.array(planes, np.int64)
        self._tell_crossings(points, of_points, shape)
        return fill(whole, counts, of_points, shape, spacing=spacing, path=self._path)

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
        moved = (whole - origin) @ (axes / step[:, None]).T
        ends = (starts + counts).tolist()
        return [moved[start:end] for start, end in zip(starts.tolist(), ends, strict=True)]

    def _tell_crossings(
        self, points: list[Array], structures: Ints, shape: tuple[int, int]
    ) -> None:
        """A notice where contours cross instead of nesting: a union would have more pixels."""
        count = np.bincount(structures, minlength=1)
        for structure in np.flatnonzero((count > 1) & (count <= _MOST_COMPARED)).tolist():
            own = [points[k] for k in np.flatnonzero(structures == structure).tolist()]
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


def _bytes(layers: list[Layer]) -> int:
    """What layers take in memory."""
    total = _EACH_LAYER * (len(layers) + 1)
    for layer in layers:
        pixels: Any = layer.pixels
        parts = pixels if isinstance(pixels, tuple) else (pixels,)
        total += sum(part.nbytes for part in parts if isinstance(part, np.ndarray))
    return total


def _flat_planes(runs: Runs, count: int, shape: tuple[int, int]) -> list[Array]:
    """Flat positions of the pixels of each plane."""
    flat = runs.flat(shape[1])
    size = shape[0] * shape[1]
    ends = np.searchsorted(flat, np.arange(1, count) * size)
    return [part - k * size for k, part in enumerate(np.split(flat, ends))]


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
