"""Volumes on other grids: another spacing, axes near those of the patient, no shear, equal steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from dicomtorch.datasets.axes import is_orientation, orientation_of, turned, turns
from dicomtorch.errors import OptionError, import_optional
from dicomtorch.series.geometry import Floats, projections, scaled, slice_normal, to_ras
from dicomtorch.series.stacks import Stack

Keep = Literal["keep", "resample"]
Shape = tuple[int, int, int]

_SAME = 1e-6  # relative, of a spacing
_NOTHING = np.eye(4)


@dataclass(frozen=True)
class Regrid:
    """Which grid volumes shall be on; see `DicomVolumes`.

    Raises:
        OptionError: An option means nothing.
    """

    spacing: Sequence[float] | None = None
    orientation: str | None = None
    tilt: Keep = "keep"
    uneven: Keep = "keep"

    def __post_init__(self) -> None:
        for name in ("tilt", "uneven"):
            if getattr(self, name) not in ("keep", "resample"):
                raise OptionError(
                    f'{name} must be "keep" or "resample"; got {getattr(self, name)!r}'
                )
        if self.spacing is not None and not _are_lengths(self.spacing):
            raise OptionError(
                f"spacing must be three positive numbers, millimetres between slices, rows and columns; got "
                f"{self.spacing!r}"
            )
        if self.orientation is not None and not is_orientation(self.orientation):
            raise OptionError(
                f'orientation must have one of each of R or L, A or P, S or I, as "RAS" does; got {self.orientation!r}'
            )

    @property
    def resamples(self) -> bool:
        """Whether voxels may be others than those of the files."""
        return self.spacing is not None or "resample" in (self.tilt, self.uneven)

    @property
    def is_asked(self) -> bool:
        """Whether anything is."""
        return self.resamples or self.orientation is not None

    def check(self, size: tuple[int, int] | None, *, dose: bool) -> None:
        """Whether it goes with other options.

        Raises:
            OptionError: It does not.
        """
        if self.resamples and size is not None:
            raise OptionError(
                "size= and spacing=, tilt= and uneven= both say where voxels are; use spacing= alone"
            )
        if self.is_asked and dose:
            raise OptionError(
                "dose= is on the voxels of the files; leave out spacing, orientation, tilt and uneven"
            )

    def grid(self, stack: Stack, shape: Shape, affine: Floats) -> Grid:
        """The grid of the volume of a stack.

        Args:
            stack: The slices.
            shape: (D, H, W), of the volume as it is read.
            affine: (4, 4), of the same.
        """
        asked = self._asked_of(stack)
        heights = None
        if asked and not stack.report.is_regular:
            heights = heights_of(stack)
        matrix, size = _NOTHING, shape
        if asked:
            matrix, size = self._resampled(stack, shape, affine, heights)
        changed = np.abs(matrix - _NOTHING).max() > _SAME or size != shape or heights is not None
        names = asked if changed else ()
        made = affine @ matrix if names else affine
        axes: tuple[int, ...] = (0, 1, 2)
        flips: tuple[int, ...] = ()
        if self.orientation is not None:
            axes, flips = turns(made, self.orientation)
        return Grid(
            files=shape,
            size=size,
            matrix=matrix,
            axes=axes,
            flips=flips,
            heights=heights if names else None,
            affine=turned(made, size, axes, flips),
            spacing=tuple(spacing_of(made)[axis] for axis in axes),
            tilt=0.0 if "tilt" in names else stack.report.tilt,
            position_error=beside_line(stack, heights)
            if names and heights is not None
            else stack.report.position_error,
            resampled=names,
        )

    def _asked_of(self, stack: Stack) -> tuple[str, ...]:
        """Which options change the voxels of a stack."""
        several = len(stack) > 1
        asked = {
            "spacing": self.spacing is not None,
            "tilt": several and self.tilt == "resample" and stack.report.tilt > 0,
            "uneven": several and self.uneven == "resample" and not stack.report.is_regular,
        }
        return tuple(name for name, is_so in asked.items() if is_so)

    def _resampled(
        self, stack: Stack, shape: Shape, affine: Floats, heights: Floats | None
    ) -> tuple[Floats, Shape]:
        """(matrix from new voxels to those of the volume, new shape).

        New voxels lie between the centres of the old ones and in the middle of them, so that nothing is extrapolated.
        """
        base = np.eye(4)  # from old voxels without the shear to old voxels
        low, high = np.zeros(3), np.array(shape, np.float64) - 1
        if self.tilt == "resample" and stack.report.tilt:
            straight = affine.copy()
            normal = slice_normal(stack.orientation)
            straight[:3, 0] = normal * (affine[:3, 0] @ normal)
            base[:3, :3] = np.linalg.solve(affine[:3, :3], straight[:3, :3])
            aside = -base[1:3, 0] * (shape[0] - 1)
            low[1:] += np.floor(np.minimum(aside, 0) + _SAME)
            high[1:] += np.ceil(np.maximum(aside, 0) - _SAME)
        own = np.array(spacing_of(affine))
        factors = np.ones(3) if self.spacing is None else np.array(self.spacing, np.float64) / own
        if self.spacing is None and self.uneven == "resample" and heights is not None:
            factors[0] = float(np.median(np.diff(heights)))
            factors[0] = high[0] / max(round(high[0] / factors[0]), 1)
        if shape[0] == 1:
            factors[0] = 1.0
        factors[np.abs(factors - 1) < _SAME] = 1.0
        counts = np.floor((high - low) / factors + _SAME)
        start = low + (high - low - counts * factors) / 2
        rows, columns = int(counts[1]) + 1, int(counts[2]) + 1
        return scaled(base, factors, start), (int(counts[0]) + 1, rows, columns)


@dataclass(frozen=True, eq=False)
class Grid:
    """Where the voxels of a volume are, and the way between them and those of its files.

    Attributes:
        files: (D, H, W) of the volume as it is read.
        size: The same of the resampled one.
        matrix: (4, 4), from its voxels to those that were read.
        axes: For each axis of the tensor which of (slice, row, column) it is.
        flips: Axes of the tensor that run the other way.
        heights: (D,), where irregular slices are, in mean steps.
        affine: (4, 4), of the tensor, to LPS.
        spacing: Of its axes, in millimetres.
        tilt: Degrees of shear that are left.
        position_error: Most millimetres that a slice was from where it was taken to be.
        resampled: Options that made other voxels of those of the files.
    """

    files: Shape
    size: Shape
    matrix: Floats
    axes: tuple[int, ...]
    flips: tuple[int, ...]
    heights: Floats | None
    affine: Floats
    spacing: tuple[float, ...]
    tilt: float
    position_error: float
    resampled: tuple[str, ...]

    @property
    def shape(self) -> Shape:
        """Of the tensor, without channels."""
        slices, rows, columns = (self.size[axis] for axis in self.axes)
        return slices, rows, columns

    def meta(self) -> dict[str, Any]:
        """What `meta` says of it."""
        return {
            "affine": torch.from_numpy(self.affine),
            "affine_ras": torch.from_numpy(to_ras(self.affine)),
            "spacing": self.spacing,
            "tilt": self.tilt,
            "position_error": self.position_error,
            "orientation": orientation_of(self.affine),
            "resampled": ", ".join(self.resampled),
        }

    def of_files(
        self, volume: Tensor, *, nearest: bool = False, heights: Floats | None = None
    ) -> Tensor:
        """A volume that was read on this grid.

        Args:
            volume: (..., D, H, W) of `files`.
            nearest: Whether each voxel takes the value of the nearest one, as masks need; else linear, and the lowest
                value of the volume where there are no slices.
            heights: Of its slices, where they are not `heights`.

        Returns:
            (..., *shape).

        Raises:
            MissingDependencyError: SimpleITK is not installed.
        """
        if self.resampled:
            flat, matrix = volume.reshape(-1, *self.files), self.matrix
            outside = 0.0 if nearest else lowest(volume)
            if self.heights is not None:
                at = matrix[0, 0] * np.arange(self.size[0]) + matrix[0, 3]
                known = self.heights if heights is None else heights
                flat = between(flat, np.interp(at, known, np.arange(len(known))), nearest=nearest)
                matrix = self._in_planes()
            flat = resample(flat, matrix, self.size, nearest=nearest, outside=outside)
            volume = flat.reshape(*volume.shape[:-3], *self.size)
        volume = volume.permute(*range(volume.ndim - 3), *(volume.ndim - 3 + k for k in self.axes))
        return volume.flip([k - 3 for k in self.flips]) if self.flips else volume

    def to_files(self, prediction: Tensor) -> Tensor:
        """What was made on this grid on the voxels that were read, by nearest neighbour.

        Args:
            prediction: (..., *shape).

        Returns:
            (..., D, H, W) of `files`.
        """
        if self.flips:
            prediction = prediction.flip([k - 3 for k in self.flips])
        front = prediction.ndim - 3
        back = np.argsort(self.axes).tolist()
        prediction = prediction.permute(*range(front), *(front + k for k in back))
        if not self.resampled:
            return prediction
        flat = prediction.reshape(-1, *self.size)
        if self.heights is None:
            flat = resample(flat, _inverse(self.matrix), self.files, nearest=True)
        else:
            shape = (self.size[0], *self.files[1:])
            flat = resample(flat, _inverse(self._in_planes()), shape, nearest=True)
            places = (self.heights - self.matrix[0, 3]) / self.matrix[0, 0]
            flat = between(flat, places, nearest=True)
        return flat.reshape(*prediction.shape[:-3], *self.files)

    def _in_planes(self) -> Floats:
        """The matrix for slices that are already where they shall be."""
        matrix = self.matrix.copy()
        matrix[0] = (1, 0, 0, 0)
        return matrix


def resample(
    volumes: Tensor, matrix: Floats, shape: Shape, *, nearest: bool, outside: float = 0.0
) -> Tensor:
    """Volumes at other places, by SimpleITK.

    Args:
        volumes: (N, D, H, W).
        matrix: (4, 4), from the new voxel indices to those of `volumes`.
        shape: Of a new volume.
        nearest: Whether values are those of the nearest voxel; else linear, whole numbers rounded.
        outside: The value beyond half a voxel outside of the volume.

    Returns:
        (N, *shape), of the same type.

    Raises:
        MissingDependencyError: SimpleITK is not installed.
    """
    if shape == tuple(volumes.shape[1:]) and np.abs(matrix - _NOTHING).max() <= _SAME:
        return volumes
    sitk: Any = import_optional("SimpleITK", "all")
    transform = sitk.AffineTransform(3)  # in (column, row, slice)
    transform.SetMatrix(matrix[:3, :3][::-1, ::-1].ravel().tolist())
    transform.SetTranslation(matrix[:3, 3][::-1].tolist())
    work = sitk.ResampleImageFilter()
    work.SetNumberOfThreads(1)  # its pool of threads does not live on in forked workers
    work.SetTransform(transform)
    work.SetInterpolator(sitk.sitkNearestNeighbor if nearest else sitk.sitkLinear)
    work.SetSize([int(count) for count in shape[::-1]])
    work.SetOutputSpacing((1.0, 1.0, 1.0))
    work.SetOutputOrigin((0.0, 0.0, 0.0))
    work.SetOutputDirection((1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
    work.SetDefaultPixelValue(outside)
    kind = _kind_for(volumes.dtype, nearest=nearest)
    out = torch.empty((len(volumes), *shape), dtype=volumes.dtype)
    for volume, target in zip(volumes, out, strict=True):
        image = sitk.GetImageFromArray(volume.to(kind).contiguous().numpy())
        made = torch.from_numpy(sitk.GetArrayFromImage(work.Execute(image)))
        target.copy_(_in_kind(made, volumes.dtype))
    return out


def between(volumes: Tensor, at: Floats, *, nearest: bool) -> Tensor:
    """The slices at places between those of (N, D, H, W): linear, or the nearest ones."""
    last = volumes.shape[1] - 1
    at = np.clip(at, 0, last)
    if nearest:
        return volumes.index_select(1, torch.from_numpy(np.floor(at + 0.5).astype(np.int64)))
    below = np.minimum(np.floor(at), max(last - 1, 0)).astype(np.int64)
    kind = _kind_for(volumes.dtype, nearest=False)
    out = torch.empty((len(volumes), len(at), *volumes.shape[2:]), dtype=volumes.dtype)
    for k, (first, weight) in enumerate(zip(below.tolist(), (at - below).tolist(), strict=True)):
        plane = volumes[:, first].to(kind)
        if weight:
            plane = torch.lerp(plane, volumes[:, first + 1].to(kind), weight)
        out[:, k] = _in_kind(plane, volumes.dtype)
    return out


def _kind_for(dtype: torch.dtype, *, nearest: bool) -> torch.dtype:
    """What values are computed in."""
    if dtype == torch.float64:
        return dtype
    if dtype.is_floating_point:
        return torch.float32
    if nearest:
        return torch.uint8 if dtype == torch.bool else dtype
    return torch.float32 if dtype.itemsize <= 2 else torch.float64


def _in_kind(made: Tensor, dtype: torch.dtype) -> Tensor:
    rounds = made.is_floating_point() and not dtype.is_floating_point
    return (made.round() if rounds else made).to(dtype)


def _inverse(matrix: Floats) -> Floats:
    return np.asarray(np.linalg.inv(matrix), np.float64)


def lowest(volume: Tensor) -> float:
    """The least finite value."""
    values = volume.to(_kind_for(volume.dtype, nearest=False))
    known = values[torch.isfinite(values)]
    return float(known.min()) if known.numel() else 0.0


def heights_of(stack: Stack) -> Floats:
    """(D,), how far slices are from the first, in mean steps."""
    along = projections(stack.origins, stack.orientation)
    return np.asarray((along - along[0]) / (along[-1] - along[0]) * (len(along) - 1))


def beside_line(stack: Stack, heights: Floats | None) -> float:
    """Most millimetres that slices are beside the line from the first to the last."""
    if heights is None:
        return stack.report.position_error
    line = stack.affine[:3, 3] + heights[:, None] * stack.affine[:3, 0]
    return float(np.linalg.norm(stack.origins - line, axis=1).max())


def spacing_of(affine: Floats) -> tuple[float, float, float]:
    """Millimetres between planes along the normal, which is not the length of a sheared step, rows and columns."""
    normal = np.cross(affine[:3, 2], affine[:3, 1])
    normal /= np.linalg.norm(normal)
    rows, columns = np.linalg.norm(affine[:3, 1:3], axis=0).tolist()
    return (float(affine[:3, 0] @ normal), rows, columns)


def _are_lengths(given: Any) -> bool:
    try:
        numbers = [float(number) for number in given]
    except (TypeError, ValueError):
        return False
    return len(numbers) == 3 and all(math.isfinite(number) and number > 0 for number in numbers)
