"""Labels of images from grids of their own: files beside DICOM, and SEG objects on another grid."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dicomtorch._forks import ForkedLock
from dicomtorch.errors import GeometryError, OptionError, printable
from dicomtorch.index.joins import read_table
from dicomtorch.masks.assigning import Assignment
from dicomtorch.masks.coded_names import LabelMap
from dicomtorch.masks.grids import Grid, off_grid, read_grid
from dicomtorch.masks.layers import Layer
from dicomtorch.masks.objects import Source, is_background
from dicomtorch.masks.placing import Images
from dicomtorch.masks.segmentations import SegmentationReader
from dicomtorch.reader.choice import Isolation
from dicomtorch.series.geometry import affine_lps, slice_normal

_ON_GRID = 0.1  # voxels
_MOST_OPEN = 4  # volumes of labels that one process keeps


class GridFiles:
    """NIfTI and NRRD files of labels, one for a series.

    Args:
        images: What masks are made for.
        files: SeriesInstanceUID -> path.
        labels: The labels; their numbers are those in the files.
        resamples: Whether labels are sampled where a file has another grid.
    """

    def __init__(
        self, images: Images, files: Mapping[str, str], labels: LabelMap, resamples: bool
    ) -> None:
        self._images = images
        self._labels = labels
        self._resamples = resamples
        codes = images.series.codes_of(list(files))
        self._paths = {
            int(code): path
            for code, path in zip(codes.tolist(), files.values(), strict=True)
            if code >= 0
        }
        if not self._paths:
            raise OptionError(
                f"masks: none of the {len(files)} series that masks= names is among the images"
            )
        self._renew()

    def _renew(self) -> None:
        self._lock = ForkedLock()
        self._open: OrderedDict[int, Grid] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_lock", "_open")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._renew()

    @property
    def series(self) -> list[int]:
        """Codes of the series that have a file."""
        return list(self._paths)

    def layers(self, row: int) -> list[Layer] | None:
        """The labels on an image; `None` if its series has no file or the image is outside the grid.

        Raises:
            GeometryError: The grid is another one and nothing says to resample.
            DicomTorchError: The file cannot be read.
        """
        code = int(self._images.series.codes[row])
        path = self._paths.get(code)
        if path is None:
            return None
        grid = self._grid(code, path)
        values = on_image(grid, self._images, row, self._resamples, path)
        if values is None:
            return None
        layers = (Layer(k, values == number) for k, number in enumerate(self._labels.numbers))
        return [layer for layer in layers if layer.area]

    def _grid(self, code: int, path: str) -> Grid:
        with self._lock:
            grid = self._open.get(code)
            if grid is None:
                grid = self._open[code] = read_grid(path)
                if len(self._open) > _MOST_OPEN:
                    self._open.popitem(last=False)
            return grid


class SegmentGrids:
    """SEG objects whose frames lie on another grid than the images, as grids that are sampled.

    Args:
        images: What masks are made for.
        sources: All objects.
        found: Which are sampled for which series, and which labels are taken from elsewhere.
        labels: The labels.
        threshold: What a fraction must reach to be 1.
        isolation: How frames of objects are decoded, see `ChosenBackends`.
    """

    def __init__(
        self,
        images: Images,
        sources: Sequence[Source],
        found: Assignment,
        labels: LabelMap,
        threshold: float,
        isolation: Isolation = None,
    ) -> None:
        self._images = images
        self._isolation = isolation
        self._sources = list(sources)
        self._resampled = dict(found.resampled)
        self._left_out = found.left_out
        self._labels = labels
        self._threshold = threshold
        self._renew()

    def _renew(self) -> None:
        self._lock = ForkedLock()
        self._made: OrderedDict[int, dict[int, Grid]] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_lock", "_made")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._renew()

    def layers(self, row: int) -> list[Layer] | None:
        """The labels on an image, `None` if no object is sampled for its series."""
        series = int(self._images.series.codes[row])
        numbers = self._resampled.get(series)
        if not numbers:
            return None
        found = []
        for number in numbers:
            left_out = self._left_out.get((number, series), set())
            for label, grid in self._grids(number).items():
                if label in left_out:
                    continue
                values = on_image(grid, self._images, row, True, "")
                if values is not None and values.any():
                    found.append(Layer(label, values != 0))
        return found

    def _grids(self, number: int) -> dict[int, Grid]:
        with self._lock:
            made = self._made.get(number)
            if made is None:
                made = self._made[number] = _label_grids(
                    self._sources[number], self._labels, self._threshold, self._isolation
                )
                if len(self._made) > _MOST_OPEN:
                    self._made.popitem(last=False)
            return made


def _label_grids(
    source: Source, labels: LabelMap, threshold: float, isolation: Isolation
) -> dict[int, Grid]:
    """A volume of 0 and 1 for each label of a SEG; planes that are not stored are background.

    Raises:
        GeometryError: Its frames are not parallel and equally spaced.
    """
    at = source.positions
    origins = np.asarray(source.index.values("ImagePositionPatient", at))
    orientations = np.asarray(source.index.values("ImageOrientationPatient", at))
    spacing = np.asarray(source.index.values("PixelSpacing", at))[0]
    height = origins @ slice_normal(orientations[0])
    levels = np.unique(np.round(height, 3))
    step = float(np.diff(levels).min()) if len(levels) > 1 else 1.0
    place = (height - levels[0]) / step
    if (
        np.abs(orientations - orientations[0]).max() > 1e-4
        or np.abs(place - np.rint(place)).max() > 0.05
    ):
        raise GeometryError(
            f"masks: {source.name}: its frames are not parallel and equally spaced, so that they cannot be sampled"
        )
    number = np.rint(place).astype(np.int64)
    first, last = (origins[int(f(height))] for f in (np.argmin, np.argmax))
    along = (last - first) / max(int(number.max()), 1)
    affine = affine_lps(
        first, orientations[0], spacing, along if len(levels) > 1 else slice_normal(orientations[0])
    )
    reader = SegmentationReader(source.index, isolation)
    grids: dict[int, Grid] = {}
    for segment in source.found.segments:
        label = labels.position(segment)
        if label < 0 or is_background(source.found, segment):
            continue
        planes = source.planes_of([source.found.segments.index(segment)])
        for plane, frame in zip(
            planes.tolist(), reader.stored(source, planes.tolist()), strict=True
        ):
            if label not in grids:
                shape = (int(number.max()) + 1, *frame.shape)
                grids[label] = Grid(np.zeros(shape, np.uint8), affine)
            grids[label].values[number[plane]] |= _is_set(frame, source, segment.number, threshold)
    return grids


def _is_set(frame: Any, source: Source, number: int, threshold: float) -> Any:
    if source.found.kind == "labelmap":
        return frame == number
    if source.found.segmentation_type == "FRACTIONAL":
        share = frame.astype(np.float32) / np.float32(source.found.maximum_fractional)
        return share >= threshold
    return frame != 0


def on_image(grid: Grid, images: Images, row: int, resamples: bool, name: str) -> Any:
    """The values of a grid at the pixels of an image, `None` where the image is outside of it.

    Raises:
        GeometryError: The image has no place, or pixels that are not voxels of the grid and `resamples` is false.
    """
    geometry = (images.origin[row], images.orientation[row], images.spacing[row])
    if not all(np.isfinite(part).all() for part in geometry):
        raise GeometryError(
            f"masks: {printable(name.encode(errors='surrogateescape'))} lies in space, and the image has no position"
        )
    shape = (int(images.shape[row, 0]), int(images.shape[row, 1]))
    matrix = grid.on_image(*geometry)
    off = off_grid(matrix, shape)
    if off <= _ON_GRID:
        return _cut(grid, matrix, shape)
    if not resamples:
        own = np.linalg.norm(grid.affine[:3, :3], axis=0).round(4).tolist()
        raise GeometryError(
            f"masks: the voxels of {printable(name.encode(errors='surrogateescape'))} are not those of the images: "
            f"corners are {off:.3g} voxels off (spacing {own} of slices, rows, columns; images "
            f'{geometry[2].tolist()}); resample="nearest" samples labels at the image\'s pixels'
        )
    return grid.nearest(*geometry, shape)


def _cut(grid: Grid, matrix: Any, shape: tuple[int, int]) -> Any:
    """The slice of a grid whose voxels are the pixels of an image, its axes turned as the image's are."""
    axes, start = np.rint(matrix[:, :2]).astype(int), np.rint(matrix[:, 2]).astype(int)
    across = [int(np.flatnonzero(axes[:, k])[0]) for k in (0, 1)]
    (along,) = {0, 1, 2} - set(across)
    if not 0 <= start[along] < grid.values.shape[along]:
        return None
    plane = np.take(grid.values, start[along], axis=along)
    if across[0] > across[1]:
        plane = plane.T
    result = np.zeros(shape, grid.values.dtype)
    picked = []
    for k, axis in enumerate(across):
        index = start[axis] + axes[axis, k] * np.arange(shape[k])
        picked.append((index, (index >= 0) & (index < grid.values.shape[axis])))
    (rows, row_in), (columns, column_in) = picked
    result[np.ix_(row_in, column_in)] = plane[np.ix_(rows[row_in], columns[column_in])]
    return result


def files_of(masks: Any) -> dict[str, str]:
    """SeriesInstanceUID -> path, of a dict or a table with the columns series (or SeriesInstanceUID) and path.

    Raises:
        OptionError: It is no such table, or names a series twice.
    """
    if isinstance(masks, Mapping) and all(
        isinstance(v, str) or hasattr(v, "__fspath__") for v in masks.values()
    ):
        return {str(uid): str(path) for uid, path in masks.items()}
    table = read_table(masks, ())
    names = {name.lower(): name for name in table.column_names}
    series = names.get("series", names.get("seriesinstanceuid"))
    path = names.get("path", names.get("file"))
    if series is None or path is None:
        raise OptionError(
            f"a table of masks needs the columns series and path; it has {', '.join(table.column_names)}"
        )
    uids = [str(uid) for uid in table.column(series).to_pylist()]
    if len(set(uids)) < len(uids):
        raise OptionError("the table of masks names a series twice")
    return dict(zip(uids, map(str, table.column(path).to_pylist()), strict=True))
