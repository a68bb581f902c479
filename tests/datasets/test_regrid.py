"""Volumes on other grids, against a linear function of the place that the test wrote into the files."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch.utils.data import DataLoader

from dicomtorch import DicomVolumes, FrameLoader
from dicomtorch.errors import GeometryError, OptionError
from tests.support.mask_phantoms import segmentation
from tests.support.mask_phantoms import series as slices_for_masks
from tests.support.phantoms import ct, write
from tests.support.requirements import require

ROWS, COLUMNS = 14, 18
AXIAL = ((1.0, 0, 0), (0, 1.0, 0))
OBLIQUE = ((0.8, 0.6, 0), (-0.48, 0.64, 0.6))
EVERY = [
    "".join(s) for p in itertools.permutations(("RL", "AP", "SI")) for s in itertools.product(*p)
]


def ramp(at: Any) -> Any:
    """A linear function of the voxel (slice, row, column) of the files."""
    return 40 * at[..., 0] + 4 * at[..., 1] - 3 * at[..., 2] + 100


def written(
    folder: Path,
    heights: Any = range(6),
    *,
    directions: Any = AXIAL,
    aside: Any = (0, 0),
    step: float = 3.0,
    **attributes: Any,
) -> npt.NDArray[np.float64]:
    """Slices at multiples of a step, each moved aside in its plane; the affine of voxel (slice, row, column) to LPS."""
    row, column = np.array(directions, np.float64)
    affine = np.eye(4)
    affine[:3, 0] = np.cross(row, column) * step + row * aside[1] + column * aside[0]
    affine[:3, 1], affine[:3, 2] = column * 0.7, row * 0.8
    affine[:3, 3] = (-20, 10, 5)
    rows, columns = np.mgrid[:ROWS, :COLUMNS]
    for k, height in enumerate(heights):
        at = np.stack([np.full_like(rows, 0) + float(height), rows, columns], axis=-1)
        place = affine @ (height, 0, 0, 1)
        dataset = ct(np.rint(ramp(at)).astype(np.int16), k, RescaleIntercept=0, RescaleSlope=1)
        dataset.ImagePositionPatient = [f"{number:.10g}"[:16] for number in place[:3]]
        dataset.ImageOrientationPatient = [float(number) for number in (*row, *column)]
        dataset.PixelSpacing = [0.7, 0.8]
        for name, value in attributes.items():
            setattr(dataset, name, value)
        write(dataset, folder / f"{k:02d}.dcm")
    return affine


def at_files(meta: Any, shape: Any, affine: Any) -> Any:
    """For each voxel of a tensor the voxel of the files that is at the place that its affine says."""
    grid = np.stack([*np.indices(shape), np.ones(shape)], axis=-1)
    return (grid @ (np.linalg.inv(affine) @ meta["affine"].numpy()).T)[..., :3]


@pytest.mark.parametrize("directions", [AXIAL, OBLIQUE], ids=["axial", "oblique"])
@pytest.mark.parametrize("spacing", [(1, 1, 1), (2.5, 0.7, 1.1), (7, 3.3, 0.4), (100, 100, 100)])
def test_a_ramp_is_where_the_affine_says(tmp_path: Path, directions: Any, spacing: Any) -> None:
    require("SimpleITK")
    affine = written(tmp_path, directions=directions)
    volumes = DicomVolumes(tmp_path, values="modality", spacing=spacing)
    volume, meta = volumes[0]
    assert volume.shape == volumes.shape(0)
    at = at_files(meta, volume.shape[1:], affine)
    np.testing.assert_allclose(volume[0].numpy(), ramp(at), atol=1e-3)
    lengths = np.linalg.norm(meta["affine"].numpy()[:3, :3], axis=0)
    np.testing.assert_allclose(lengths, spacing, rtol=1e-9)
    np.testing.assert_allclose(meta["spacing"], spacing, rtol=1e-9)
    np.testing.assert_allclose(meta["affine_ras"], np.diag([-1, -1, 1, 1]) @ meta["affine"].numpy())
    assert meta["resampled"] == "spacing"
    # Inside of the centres of the files' voxels, and in the middle of them.
    whole = np.array([6, ROWS, COLUMNS]) - 1
    low, high = at.reshape(-1, 3).min(axis=0), at.reshape(-1, 3).max(axis=0)
    np.testing.assert_allclose(low, whole - high, atol=1e-6)
    assert (low > -1e-6).all()
    assert (low < np.array(spacing) / (3, 0.7, 0.8) / 2 + 1e-6).all() or spacing[0] == 100


def test_a_spacing_that_is_that_of_the_files_changes_nothing(tmp_path: Path) -> None:
    written(tmp_path)
    as_read = DicomVolumes(tmp_path, values="modality")[0]
    volume, meta = DicomVolumes(tmp_path, values="modality", spacing=(3, 0.7, 0.8))[0]
    assert torch.equal(volume, as_read[0])
    assert meta["resampled"] == ""
    np.testing.assert_array_equal(meta["affine"], as_read[1]["affine"])


def test_whole_numbers_are_rounded(tmp_path: Path) -> None:
    require("SimpleITK")
    affine = written(tmp_path)
    volume, meta = DicomVolumes(tmp_path, values="stored", spacing=(1.3, 0.5, 0.5))[0]
    assert volume.dtype == torch.int16
    expected = ramp(at_files(meta, volume.shape[1:], affine))
    np.testing.assert_allclose(volume[0].numpy(), expected, atol=0.501)


@pytest.mark.parametrize("directions", [AXIAL, OBLIQUE], ids=["axial", "oblique"])
def test_every_orientation_is_that_of_nibabel(tmp_path: Path, directions: Any) -> None:
    require("nibabel")
    import nibabel
    from nibabel import orientations

    written(tmp_path, directions=directions)
    whole, as_read = DicomVolumes(tmp_path, values="modality")[0]
    affine = as_read["affine_ras"].numpy()
    have = orientations.io_orientation(affine)
    assert len(EVERY) == 48
    for code in EVERY:
        volume, meta = DicomVolumes(tmp_path, values="modality", orientation=code, refresh=False)[0]
        turn = orientations.ornt_transform(have, orientations.axcodes2ornt(code))
        expected = orientations.apply_orientation(whole[0].numpy(), turn)
        np.testing.assert_array_equal(volume[0].numpy(), expected)
        moved = affine @ orientations.inv_ornt_aff(turn, whole.shape[1:])
        np.testing.assert_allclose(meta["affine_ras"].numpy(), moved, atol=1e-9)
        assert "".join(nibabel.aff2axcodes(meta["affine_ras"].numpy())) == code
        assert meta["orientation"] == code
        assert meta["resampled"] == ""
        zooms = nibabel.affines.voxel_sizes(meta["affine_ras"].numpy())
        np.testing.assert_allclose(meta["spacing"], zooms)
    image = nibabel.Nifti1Image(whole[0].numpy(), affine)
    volume, meta = DicomVolumes(tmp_path, values="modality", orientation="RAS")[0]
    closest: Any = nibabel.as_closest_canonical(image)
    np.testing.assert_array_equal(volume[0].numpy(), np.asarray(closest.dataobj))
    np.testing.assert_allclose(meta["affine_ras"].numpy(), closest.affine)


def test_nearest_axes_are_those_of_nibabel_for_any_rotation() -> None:
    require("nibabel")
    import nibabel

    from dicomtorch.datasets.axes import orientation_of

    generator = np.random.default_rng(5)
    for _ in range(300):
        turn, _ = np.linalg.qr(generator.normal(size=(3, 3)))
        affine = np.eye(4)
        affine[:3, :3] = turn * generator.uniform(0.3, 6, 3)
        expected = "".join(nibabel.aff2axcodes(affine))
        assert orientation_of(np.diag([-1, -1, 1, 1]) @ affine) == expected


@pytest.mark.parametrize("aside", [(1.4, 0), (-0.9, 0), (0.5, 0.8), (0.4, -1.1)])
@pytest.mark.parametrize("spacing", [None, (2, 1, 1)])
def test_a_tilt_is_taken_out(tmp_path: Path, aside: Any, spacing: Any) -> None:
    require("SimpleITK")
    affine = written(tmp_path, aside=aside, directions=OBLIQUE)
    kept = DicomVolumes(tmp_path, values="modality", orientation=None, tilt="keep")[0][1]
    assert kept["tilt"] > 5
    volume, meta = DicomVolumes(tmp_path, values="modality", tilt="resample", spacing=spacing)[0]
    directions = meta["affine"].numpy()[:3, :3]
    directions = directions / np.linalg.norm(directions, axis=0)
    np.testing.assert_allclose(directions.T @ directions, np.eye(3), atol=1e-7)
    assert meta["tilt"] == 0
    assert meta["resampled"] == ("tilt" if spacing is None else "spacing, tilt")
    np.testing.assert_allclose(meta["spacing"], spacing or (3, 0.7, 0.8), rtol=1e-7)
    at = at_files(meta, volume.shape[1:], affine)
    most = np.array([6, ROWS, COLUMNS]) - 1
    inside = ((at >= -1e-6) & (at <= most + 1e-6)).all(axis=-1)
    outside = ((at < -0.51) | (at > most + 0.51)).any(axis=-1)
    assert inside.sum() > 0.4 * inside.size
    np.testing.assert_allclose(volume[0].numpy()[inside], ramp(at)[inside], atol=1e-3)
    lowest = float(DicomVolumes(tmp_path, values="modality")[0][0].min())
    assert outside.any()
    assert (volume[0].numpy()[outside] == lowest).all()
    # Every voxel of the files lies in the box.
    corners = np.array([(*k, 1) for k in itertools.product(*((0, n) for n in most))], np.float64)
    there = corners @ (np.linalg.inv(meta["affine"].numpy()) @ affine).T
    assert (there[:, :3] > -0.5 - 1e-6).all()
    assert (there[:, :3] < np.array(volume.shape[1:]) - 0.5 + 1e-6).all()


def test_a_tilt_and_a_spacing_keep_the_shear_unless_asked(tmp_path: Path) -> None:
    require("SimpleITK")
    affine = written(tmp_path, aside=(1.4, 0))
    volume, meta = DicomVolumes(tmp_path, values="modality", spacing=(1, 1, 1))[0]
    expected = ramp(at_files(meta, volume.shape[1:], affine))
    np.testing.assert_allclose(volume[0].numpy(), expected, atol=1e-3)
    assert meta["tilt"] > 5
    np.testing.assert_allclose(meta["spacing"], (1, 1, 1), rtol=1e-7)


UNEVEN = (0, 0.8, 2, 2.9, 4.1, 5)


@pytest.mark.parametrize("aside", [(0, 0), (1.2, 0.4)])
def test_unequal_steps_are_made_equal(tmp_path: Path, aside: Any) -> None:
    require("SimpleITK")
    affine = written(tmp_path, UNEVEN, aside=aside)
    with pytest.raises(GeometryError, match="unequal spacing"):
        DicomVolumes(tmp_path)
    volume, meta = DicomVolumes(tmp_path, values="modality", uneven="resample")[0]
    at = at_files(meta, volume.shape[1:], affine)
    np.testing.assert_allclose(volume[0].numpy(), ramp(at), atol=1e-3)
    np.testing.assert_allclose(at[[0, -1], 0, 0, 0], (0, 5), atol=1e-6)
    assert volume.shape[1] == 7  # 15 mm in steps of about 2.7 mm, the median
    assert meta["position_error"] < 1e-6
    assert meta["resampled"] == "uneven"
    both = DicomVolumes(
        tmp_path, values="modality", uneven="resample", tilt="resample", spacing=(0.9, 1, 1)
    )
    volume, meta = both[0]
    at = at_files(meta, volume.shape[1:], affine)
    inside = ((at >= 0) & (at <= np.array([5, ROWS - 1, COLUMNS - 1]))).all(axis=-1)
    np.testing.assert_allclose(volume[0].numpy()[inside], ramp(at)[inside], atol=2e-3)
    assert meta["tilt"] == 0


def test_missing_slices_are_still_a_problem(tmp_path: Path) -> None:
    affine = written(tmp_path, (0, 1, 2, 5, 6, 7))
    with pytest.raises(GeometryError, match="2 missing"):
        DicomVolumes(tmp_path, uneven="resample")
    with pytest.warns(UserWarning, match="2 missing"):
        volumes = DicomVolumes(tmp_path, values="modality", uneven="resample", on_gap="warn")
    volume, meta = volumes[0]
    assert volume.shape[1] == 8
    expected = ramp(at_files(meta, volume.shape[1:], affine))
    np.testing.assert_allclose(volume[0].numpy(), expected, atol=1e-3)


def test_regular_volumes_need_no_resampling(tmp_path: Path) -> None:
    written(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        volume, meta = DicomVolumes(tmp_path, tilt="resample", uneven="resample")[0]
    assert torch.equal(volume, DicomVolumes(tmp_path)[0][0])
    assert meta["resampled"] == ""


GRIDS: list[dict[str, Any]] = [
    {"spacing": (1.1, 0.5, 0.6)},
    {"orientation": "RAS"},
    {"orientation": "IAR", "size": (9, 9)},
    {"spacing": (1.5, 0.35, 0.4), "orientation": "LSP", "tilt": "resample"},
    {"uneven": "resample", "tilt": "resample", "orientation": "PIR"},
]


@pytest.mark.parametrize("options", GRIDS, ids=str)
def test_a_prediction_goes_back_to_the_voxels_of_the_files(tmp_path: Path, options: Any) -> None:
    """A map of regions that is larger than the voxels; what differs lies at its borders."""
    require("SimpleITK")
    heights = UNEVEN if "uneven" in options else range(6)
    affine = written(tmp_path, heights, aside=(0.9, 0) if "tilt" in options else (0, 0))
    volumes = DicomVolumes(tmp_path, **options)
    volume, meta = volumes[0]
    at = at_files(meta, volume.shape[1:], affine)

    def regions(places: Any) -> Any:
        return (places[..., 0] > 2.4) + 2 * (places[..., 1] > 6.4) + 4 * (places[..., 2] > 8.4) + 1

    prediction = torch.from_numpy(regions(at).astype(np.int64))
    back = volumes.to_grid(0, torch.stack([prediction, -prediction]))
    assert back.shape == (2, 6, ROWS, COLUMNS)
    assert back.dtype == torch.int64
    grid = np.moveaxis(np.indices((6, ROWS, COLUMNS)).astype(np.float64), 0, -1)
    grid[..., 0] = np.array(list(heights))[:, None, None]
    expected = regions(grid)
    near = 0.6 * np.array([1, 1, 1]) + (0, 1, 1) * np.array("size" in options)
    clear = (np.abs(grid - (2.4, 6.4, 8.4)) > near).all(axis=-1)
    assert clear.mean() > 0.4
    np.testing.assert_array_equal(back[0].numpy()[clear], expected[clear])
    assert torch.equal(back[1], -back[0])
    with pytest.raises(OptionError, match="prediction is"):
        volumes.to_grid(0, prediction[..., 1:])


def test_masks_go_along_by_the_nearest_voxel(tmp_path: Path) -> None:
    require("SimpleITK")
    slices = slices_for_masks(tmp_path, 6, (12, 16))
    mask = np.zeros((12, 16), np.uint8)
    mask[2:6, 3:9] = 1
    segmentation(tmp_path / "seg.dcm", slices, [(1, k, mask) for k in (1, 2, 3)], names=["liver"])
    options: dict[str, Any] = {"masks": True, "labels": {"liver": 7}, "values": "stored"}
    whole, areas, as_read = DicomVolumes(tmp_path, **options)[0]
    spacing = tuple(number / 2 for number in as_read["spacing"])
    image, fine, meta = DicomVolumes(tmp_path, spacing=spacing, orientation="RAS", **options)[0]
    assert fine.shape[1:] == image.shape[1:]
    assert (whole.shape, set(fine.unique().tolist())) == (areas.shape, {0, 7})
    assert meta["mask_area"] == (int((fine == 7).sum()),)
    at = np.rint(at_files(meta, fine.shape[1:], as_read["affine"].numpy()) + 1e-6).astype(int)
    np.testing.assert_array_equal(fine[0].numpy(), areas[0].numpy()[tuple(np.moveaxis(at, -1, 0))])
    volumes = DicomVolumes(tmp_path, spacing=spacing, orientation="RAS", **options)
    assert torch.equal(volumes.to_grid(0, fine), areas)


def test_label_maps_are_not_mixed(tmp_path: Path) -> None:
    require("SimpleITK")
    slices = slices_for_masks(tmp_path / "ct", 6, (12, 16))
    mask = np.zeros((12, 16), np.uint8)
    mask[2:6, 3:9] = 1
    segmentation(tmp_path / "s" / "seg.dcm", slices, [(1, k, mask) for k in range(6)])
    volume, _ = DicomVolumes(tmp_path / "s", values="modality", spacing=(0.7, 0.3, 0.3))[0]
    assert set(volume.unique().tolist()) == {0, 1}


@pytest.mark.parametrize("workers", [0, 2])
def test_batches(tmp_path: Path, workers: int) -> None:
    require("SimpleITK")
    for number in range(3):
        written(tmp_path / str(number), SeriesInstanceUID=f"1.2.{number}")
    volumes = DicomVolumes(tmp_path, spacing=(2, 1, 1), orientation="RAS")
    (images, meta) = next(iter(DataLoader(volumes, batch_size=3, num_workers=workers)))
    assert images.shape == (3, *volumes.shape(0))
    assert torch.equal(images[1], volumes[1][0])
    assert meta["resampled"] == ["spacing"] * 3
    assert meta["orientation"] == ["RAS"] * 3
    assert meta["affine"].shape == (3, 4, 4)
    threads, _ = next(iter(FrameLoader(volumes, batch_size=3)))
    assert torch.equal(threads, images)


def test_a_series_of_volumes(tmp_path: Path) -> None:
    require("SimpleITK")
    for t in range(2):
        affine = written(tmp_path / str(t), TemporalPositionIdentifier=t + 1)
    volume, meta = DicomVolumes(
        tmp_path, group="series", values="modality", spacing=(2, 1, 1), orientation="RAS"
    )[0]
    assert volume.shape[:2] == (2, 1)
    expected = ramp(at_files(meta, volume.shape[2:], affine))
    for t in range(2):
        np.testing.assert_allclose(volume[t, 0].numpy(), expected, atol=1e-3)


def test_options(tmp_path: Path) -> None:
    written(tmp_path)
    wrong: list[dict[str, Any]] = [
        {"spacing": (1, 1)},
        {"spacing": (1, 0, 1)},
        {"spacing": 2.0},
        {"orientation": "RAR"},
        {"orientation": "ras"},
        {"tilt": "drop"},
        {"uneven": True},
        {"spacing": (1, 1, 1), "size": (8, 8)},
        {"spacing": (1, 1, 1), "dose": True},
        {"on_gap": "no", "uneven": "resample"},
    ]
    for options in wrong:
        with pytest.raises(OptionError, match=next(iter(options))):
            DicomVolumes(tmp_path, **options)
