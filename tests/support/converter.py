"""dcm2niix as an oracle: what it makes of a folder, and comparisons with it in world coordinates."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

Floats = npt.NDArray[np.float64]


class Converted(NamedTuple):
    """A file of the converter.

    Attributes:
        voxels: (x, y, z, t), as they are stored.
        affine: To RAS.
        b_values: (t,), s/mm2; `None` without diffusion.
        directions: (t, 3), patient coordinates (LPS), zeros where there is none; `None` without diffusion.
    """

    voxels: Any
    affine: Floats
    b_values: Floats | None
    directions: Floats | None


def read_nifti(path: Path) -> Converted:
    """A NIfTI file with the .bval and .bvec beside it."""
    nibabel = pytest.importorskip("nibabel")
    image: Any = nibabel.load(path)
    voxels, affine = np.asarray(image.dataobj), np.asarray(image.affine)
    voxels = voxels.reshape(*voxels.shape, 1)[..., :1] if voxels.ndim == 3 else voxels
    if not path.with_suffix(".bval").exists():
        return Converted(voxels, affine, None, None)
    b_values = np.atleast_1d(np.loadtxt(path.with_suffix(".bval")))
    vectors = np.loadtxt(path.with_suffix(".bvec")).reshape(3, -1).T
    return Converted(voxels, affine, b_values, patient_directions(vectors, affine))


def converted(source: Path, output: Path) -> list[Converted]:
    """What dcm2niix makes of a folder, in the order of its names; skips where it is not installed."""
    beside = Path(sys.executable).parent
    program = shutil.which("dcm2niix", path=beside) or shutil.which("dcm2niix")
    if program is None:
        pytest.skip("dcm2niix is not installed")
    output.mkdir(parents=True, exist_ok=True)
    options = ["-f", "made", "-z", "n", "-b", "n", "-o", str(output)]
    subprocess.run([program, *options, str(source)], check=True, capture_output=True)
    return [read_nifti(path) for path in sorted(output.glob("*.nii"))]


def patient_directions(vectors: Floats, affine: Floats) -> Floats:
    """FSL's directions, in image axes with the sign of x by the handedness, in patient coordinates (LPS)."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    if np.linalg.det(axes) > 0:
        vectors = vectors * np.array([-1, 1, 1])
    return np.asarray((vectors @ axes.T) * np.array([-1, -1, 1]))


def turned_to(order: Floats, voxels: Any, affine: Floats) -> tuple[Any, Floats]:
    """Voxels (x, y, z, t) with their axes in the order and the directions of another affine."""
    turn = np.linalg.inv(order[:3, :3]) @ affine[:3, :3]
    axes = np.abs(turn).argmax(axis=0)  # axis k of these voxels is axis axes[k] there
    assert sorted(axes) == [0, 1, 2]
    for k in range(3):
        if turn[axes[k], k] < 0:
            voxels = np.flip(voxels, k)
            affine = affine.copy()
            affine[:3, 3] += affine[:3, k] * (voxels.shape[k] - 1)
            affine[:3, k] *= -1
    back = np.argsort(axes)
    return np.transpose(voxels, (*back, 3)), affine[:, [*back, 3]]


def corners(affine: Floats, shape: tuple[int, ...]) -> Floats:
    """(8, 3), millimetres of the corners of a grid."""
    grid = np.array([(*corner, 1) for corner in np.ndindex(2, 2, 2)], np.float64)
    grid[:, :3] *= np.array(shape[:3]) - 1
    return np.asarray((grid @ affine.T)[:, :3])


def compare(image: Any, meta: dict[str, Any], expected: Converted) -> None:
    """A sample (T, 1, D, H, W) of a series has the voxels of the converter, in its order, at the same places.

    Args:
        image: Stored values.
        meta: Of the sample.
        expected: What the converter made.
    """
    ours = np.transpose(image[:, 0].numpy(), (3, 2, 1, 0))  # T D H W -> x y z t
    # Our affine takes (slice, row, column), that of NIfTI (column, row, slice).
    affine = meta["affine_ras"].numpy()[:, [2, 1, 0, 3]]
    voxels, affine = turned_to(expected.affine, ours, affine)
    np.testing.assert_allclose(
        corners(affine, voxels.shape), corners(expected.affine, expected.voxels.shape), atol=0.01
    )
    np.testing.assert_array_equal(voxels, expected.voxels)


def compare_diffusion(meta: dict[str, Any], expected: Converted) -> None:
    """b-values and directions of a sample are the converter's; nan stands for no direction."""
    assert expected.b_values is not None
    assert expected.directions is not None
    np.testing.assert_allclose(meta["b_values"], expected.b_values, rtol=1e-5)
    directions = meta["gradient_directions"].numpy()
    np.testing.assert_allclose(np.nan_to_num(directions), expected.directions, atol=2e-4)
    np.testing.assert_array_equal(np.isnan(directions).all(axis=1), expected.b_values < 50)
