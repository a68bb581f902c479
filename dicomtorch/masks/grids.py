"""Masks and doses that lie on a grid of their own: NIfTI and NRRD files, and sampling on the pixels of an image."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dicomtorch.errors import (
    DicomTorchError,
    GeometryError,
    PixelValueError,
    SourceError,
    import_optional,
    printable,
    without_path,
)
from dicomtorch.series.geometry import affine_lps, to_ras

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

_ON_GRID = 0.1  # voxels


@dataclass(frozen=True, eq=False)
class Grid:
    """Values on a grid in patient coordinates.

    Attributes:
        values: (D, H, W).
        affine: (4, 4), from (slice, row, column, 1) to millimetres in LPS.
    """

    values: Array
    affine: Floats

    def on_image(self, origin: Floats, orientation: Floats, spacing: Floats) -> Floats:
        """(3, 3): columns lead from (row, column, 1) of an image to (slice, row, column) of this grid."""
        step = affine_lps(origin, orientation, spacing, (0.0, 0.0, 0.0))
        inverse = np.linalg.inv(self.affine)
        plane = step[:, [1, 2, 3]]
        return np.asarray((inverse @ plane)[:3])

    def nearest(
        self, origin: Floats, orientation: Floats, spacing: Floats, shape: tuple[int, int]
    ) -> Array:
        """The values at the pixel centres of an image, of the nearest voxel; 0 outside."""
        at = self.at(self.on_image(origin, orientation, spacing), shape)
        index = np.floor(at + 0.5).astype(np.int64)
        inside = ((index >= 0) & (index < np.array(self.values.shape)[:, None, None])).all(0)
        result = np.zeros(shape, self.values.dtype)
        result[inside] = self.values[tuple(index[:, inside])]
        return result

    def linear(self, at: Floats) -> tuple[Array, npt.NDArray[np.bool_]]:
        """(values at places, which places are inside the grid); trilinear, 0 outside.

        Args:
            at: (3, rows, columns): slice, row, column, with fractions.
        """
        size = np.array(self.values.shape)[:, None, None]
        inside = ((at >= -1e-6) & (at <= size - 1 + 1e-6)).all(0)
        within = np.clip(at[:, inside], 0, size[:, 0] - 1)
        low = np.minimum(np.floor(within).astype(np.int64), np.maximum(size[:, 0] - 2, 0))
        part = within - low
        total = np.zeros(within.shape[1])
        for corner in np.ndindex(2, 2, 2):
            move = np.array(corner)[:, None]
            weight = np.where(move == 1, part, 1 - part).prod(0)
            total += weight * self.values[tuple(np.minimum(low + move, size[:, 0] - 1))]
        result = np.zeros(at.shape[1:], np.float32)
        result[inside] = total
        return result, np.asarray(inside)

    @staticmethod
    def at(matrix: Floats, shape: tuple[int, int]) -> Floats:
        """(3, rows, columns): where the pixel centres of an image are, by the matrix of `on_image`."""
        rows, columns = np.mgrid[: shape[0], : shape[1]]
        return np.asarray(
            matrix[:, 0, None, None] * rows
            + matrix[:, 1, None, None] * columns
            + matrix[:, 2, None, None]
        )


def off_grid(matrix: Floats, shape: tuple[int, int]) -> float:
    """Voxels that the corners of an image are off the voxels of a grid; inf if its axes are turned or scaled.

    Args:
        matrix: (3, 3), of `Grid.on_image`.
        shape: (rows, columns) of the image.
    """
    axes = np.rint(matrix[:, :2])
    if (np.abs(axes).sum(0) != 1).any() or (np.abs(axes).sum(1) > 1).any():
        return float("inf")
    corners = np.array([(r, c, 1) for r in (0, shape[0] - 1) for c in (0, shape[1] - 1)]).T
    whole = np.column_stack([axes, np.rint(matrix[:, 2])])
    return float(np.abs((matrix - whole) @ corners).max())


_GRIDS = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".hdr", ".img")


def is_grid(name: str) -> bool:
    """Whether a file is called as those that are read as grids are."""
    return name.lower().endswith(_GRIDS)


def read_grid(path: str | os.PathLike[str]) -> Grid:
    """A NIfTI or NRRD file of whole numbers.

    Raises:
        SourceError: There is no such file.
        GeometryError: It does not say where it is in space.
        PixelValueError: It is no volume of whole numbers.
        MissingDependencyError: What reads it is not installed.
    """
    name = os.fspath(path)
    if not os.path.isfile(name):
        raise SourceError(f"masks: there is no file {printable(os.fsencode(name))}")
    try:
        grid = (
            _read_nifti(name) if name.lower().endswith((".nii", ".nii.gz")) else _read_image(name)
        )
    except DicomTorchError:
        raise
    except Exception as error:  # whatever the readers of two libraries raise
        raise PixelValueError(
            f"masks: {printable(os.fsencode(name))} cannot be read ({type(error).__name__})"
        ) from without_path(error)
    values = grid.values
    if values.ndim != 3:
        raise PixelValueError(
            f"masks: {printable(os.fsencode(name))} has {values.ndim} dimensions; 3 expected"
        )
    if values.dtype.kind == "f":
        whole = np.rint(values)
        if not (whole == values).all():
            raise PixelValueError(
                f"masks: {printable(os.fsencode(name))} holds fractions; whole numbers of labels expected"
            )
        values = whole
    if values.size and (values.min() < 0 or values.max() >= 1 << 31):
        raise PixelValueError(
            f"masks: {printable(os.fsencode(name))} holds numbers below 0 or beyond 2147483647"
        )
    return Grid(values.astype(np.int32), grid.affine)


def _read_nifti(name: str) -> Grid:
    nibabel = import_optional("nibabel", "masks")
    image: Any = nibabel.load(name)
    if int(image.header["sform_code"]) <= 0 and int(image.header["qform_code"]) <= 0:
        raise GeometryError(
            f"masks: {printable(os.fsencode(name))} has neither sform_code nor qform_code, so that nothing says where "
            f"it is"
        )
    values = np.asarray(image.dataobj)
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    # (x, y, z) as (slice, row, column): axes the other way round, and RAS to LPS.
    affine = to_ras(np.asarray(image.affine, np.float64))[:, [2, 1, 0, 3]]
    return Grid(values.transpose(2, 1, 0) if values.ndim == 3 else values, affine)


def _read_image(name: str) -> Grid:
    import SimpleITK

    simpleitk: Any = SimpleITK
    reader = simpleitk.ImageFileReader()
    reader.SetFileName(name)
    reader.LoadPrivateTagsOn()
    reader.ReadImageInformation()
    if name.lower().endswith((".nrrd", ".nhdr")) and not _has_space(name):
        raise GeometryError(
            f"masks: {printable(os.fsencode(name))} has no space field, so that nothing says where it is"
        )
    image = reader.Execute()
    directions = np.array(image.GetDirection()).reshape(image.GetDimension(), -1)
    if directions.shape != (3, 3):
        return Grid(simpleitk.GetArrayFromImage(image), np.eye(4))
    affine = np.eye(4)
    affine[:3, :3] = (directions * np.array(image.GetSpacing()))[:, ::-1]
    affine[:3, 3] = image.GetOrigin()
    return Grid(simpleitk.GetArrayFromImage(image), affine)


def _has_space(name: str) -> bool:
    """Whether the header of an NRRD file names the space that its directions are in."""
    with open(name, "rb") as file:
        for line in file.read(1 << 16).split(b"\n"):
            if not line.strip():
                return False
            if line.lower().startswith((b"space:", b"space dimension:")):
                return True
    return False
