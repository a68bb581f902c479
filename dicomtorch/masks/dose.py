"""RT Dose on the pixels of images (PS3.3 C.8.8.3): trilinear, in grays where the file says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dicomtorch._forks import ForkedLock
from dicomtorch.errors import GeometryError, OptionError
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.masks.grids import Grid
from dicomtorch.masks.placing import Images
from dicomtorch.model.options import PixelOptions
from dicomtorch.reader.choice import Isolation
from dicomtorch.reader.reader import FrameReader
from dicomtorch.series.geometry import affine_lps, slice_normal
from dicomtorch.series.stacks import Stack

RT_DOSE = "1.2.840.10008.5.1.4.1.1.481.2"

Floats = npt.NDArray[np.float64]


class DoseSlice(NamedTuple):
    """The dose on one image.

    Attributes:
        values: (rows, columns) float32, 0 outside of the dose grid.
        inside: (rows, columns), which pixels lie inside of it.
    """

    values: npt.NDArray[np.float32]
    inside: npt.NDArray[np.bool_]


class DoseGrids:
    """Dose beside images; picklable, and safe to use from several threads.

    Args:
        images: What the dose is asked for.
        source: An index of the tree with the dose files; all of them are considered.
        isolation: How they are decoded, see `ChosenBackends`.

    Raises:
        OptionError: A frame of reference has several dose files, or there is none for any image.
    """

    def __init__(self, images: FrameIndex, source: FrameIndex, isolation: Isolation = None) -> None:
        self._images, self._isolation = Images(images), isolation
        whole = source.whole()
        rows = np.flatnonzero(whole.where(SOPClassUID=RT_DOSE))
        self._doses = whole.select(rows)
        spaces: Any = self._doses.column("FrameOfReferenceUID")
        files = np.asarray(self._doses.column("file"))
        self._frames: dict[str, npt.NDArray[np.int64]] = {}
        for space in dict.fromkeys(spaces.tolist()):
            mine = np.flatnonzero(spaces == space)
            count = len(np.unique(files[mine]))
            if count > 1:
                raise OptionError(
                    f"{count} dose files share one FrameOfReferenceUID; give the one that is meant as source"
                )
            self._frames[space] = mine
        if not set(self._frames) & set(self._images.frame_of_reference.tolist()):
            raise OptionError("no dose file has the FrameOfReferenceUID of one of the images")
        self._renew()

    def _renew(self) -> None:
        self._lock = ForkedLock()
        self._grids: dict[str, Stacked] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_lock", "_grids")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._renew()

    def on(self, position: int) -> DoseSlice:
        """The dose on an image: values as DoseGridScaling makes them, in the file's DoseUnits.

        Raises:
            GeometryError: The image has no place, or its space has no dose, or planes of the dose are not parallel.
            DicomTorchError: The dose cannot be read.
        """
        images = self._images
        geometry = (images.origin[position], images.orientation[position], images.spacing[position])
        shape = (int(images.shape[position, 0]), int(images.shape[position, 1]))
        return self.at(position, *geometry, shape)

    def units(self, position: int) -> str:
        """Unit of the dose in the space of an image: "GY", or "RELATIVE"."""
        rows = self._frames[self._images.frame_of_reference[position]]
        return str(self._doses.gather("Units", rows[:1])[0])

    def at(
        self,
        position: int,
        origin: Floats,
        orientation: Floats,
        spacing: Floats,
        shape: tuple[int, int],
    ) -> DoseSlice:
        """The same on other pixels in the space of an image.

        Args:
            position: Of the image.
            origin: (3,), of the first pixel.
            orientation: (6,).
            spacing: (2,): between rows, between columns.
            shape: (rows, columns).
        """
        geometry = (origin, orientation, spacing)
        space = self._images.frame_of_reference[position]
        if space not in self._frames or not all(np.isfinite(part).all() for part in geometry):
            raise GeometryError(
                f"frame {position} has no position, or no dose in its FrameOfReferenceUID"
            )
        with self._lock:
            stacked = self._grids.get(space)
            if stacked is None:
                stacked = self._grids[space] = _stacked(
                    self._doses, self._frames[space], self._isolation
                )
        return stacked.on(*geometry, shape)


class Stacked:
    """Planes of one dose file, in the order of their heights, which need not be equally far apart.

    Args:
        grid: With the planes one apart along its first axis.
        heights: (D,), millimetres of the planes along the normal from the first.
        normal: (3,), of the planes.
    """

    def __init__(self, grid: Grid, heights: Floats, normal: Floats) -> None:
        self._grid = grid
        self._heights = heights
        self._normal = normal

    def on(
        self, origin: Floats, orientation: Floats, spacing: Floats, shape: tuple[int, int]
    ) -> DoseSlice:
        """The dose at the pixel centres of an image."""
        at = self._grid.at(self._grid.on_image(origin, orientation, spacing), shape)
        # The grid has a millimetre from plane to plane; where planes are follows from their heights.
        outside = (at[0] < self._heights[0] - 1e-6) | (at[0] > self._heights[-1] + 1e-6)
        at[0] = np.interp(at[0], self._heights, np.arange(len(self._heights)))
        values, inside = self._grid.linear(at)
        inside &= ~outside
        return DoseSlice(np.where(inside, values, 0).astype(np.float32), inside)


def _stacked(doses: FrameIndex, rows: npt.NDArray[np.int64], isolation: Isolation) -> Stacked:
    origins = np.asarray(doses.values("ImagePositionPatient", rows), np.float64)
    orientations = np.asarray(doses.values("ImageOrientationPatient", rows), np.float64)
    spacing = np.asarray(doses.values("PixelSpacing", rows), np.float64)[0]
    if not np.isfinite(origins).all() or np.abs(orientations - orientations[0]).max() > 1e-4:
        raise GeometryError("planes of the dose have no place, or are not parallel")
    normal = slice_normal(orientations[0])
    heights = origins @ normal
    order = np.argsort(heights, kind="stable")
    heights = heights[order]
    if len(heights) > 1 and np.diff(heights).min() <= 0:
        raise GeometryError("two planes of the dose lie at one place")
    options = PixelOptions(values="modality")
    reader = FrameReader(doses.select(rows[order]), options=options, isolation=isolation)
    planes = [reader.read_stored(k) for k in range(len(order))]
    scaling = np.asarray(doses.values("DoseGridScaling", rows[order]), np.float64)
    values = np.stack(planes).astype(np.float64) * scaling[:, None, None]
    first = origins[order[0]]
    affine = affine_lps(first, orientations[0], spacing, normal)
    return Stacked(Grid(values, affine), heights - heights[0], normal)


def without_dose(index: FrameIndex) -> FrameIndex:
    """The frames that are no dose."""
    return index.select(~index.where(SOPClassUID=RT_DOSE))


def dose_of(
    grids: DoseGrids,
    stack: Stack,
    positions: Sequence[int],
    affine: Floats,
    shape: tuple[int, ...],
) -> dict[str, Any]:
    """The dose on a volume, as `meta` has it.

    Args:
        grids: The dose.
        stack: The slices.
        positions: Of the slices.
        affine: (4, 4), of the volume, which may have been resized.
        shape: (D, H, W), of the volume.

    Raises:
        DicomTorchError: It cannot be had.
    """
    spacing = np.linalg.norm(affine[:3, 1:3], axis=0)
    moved = affine[:3, 3] - stack.affine[:3, 3]
    slices = [
        grids.at(position, origin + moved, stack.orientation, spacing, (shape[1], shape[2]))
        for position, origin in zip(positions, stack.origins, strict=True)
    ]
    values = np.stack([each.values for each in slices])[None]
    inside = np.stack([each.inside for each in slices])
    valid: list[int] = []
    for axis in range(3):
        others = tuple(k for k in range(3) if k != axis)
        some = np.flatnonzero(inside.any(axis=others))
        valid += [int(some[0]), int(some[-1]) + 1] if len(some) else [0, 0]
    return {
        "dose": values,
        "dose_valid": tuple(valid),
        "DoseUnits": grids.units(positions[0]),
    }
