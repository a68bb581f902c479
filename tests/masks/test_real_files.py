"""Masks of public files: highdicom and recorded numbers as oracles, and twins of files that are not at hand."""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest

from dicomtorch import MaskIndex, scan
from dicomtorch.model.mask_object import KINDS, RT_STRUCTURE_SET
from tests.support.mask_phantoms import item, segmentation, series, slide, square, structures
from tests.support.requirements import require, samples_folder

HIGHDICOM = "ImagingDataCommons__highdicom/data/test_files"


def sample(name: str) -> Path:
    require("samples")
    folder = samples_folder()
    assert folder is not None
    path = folder / name
    if not path.exists():
        pytest.skip(f"{name} is not among the samples")
    return path


def bundled(name: str) -> Path:
    from pydicom.data import get_testdata_file

    path = get_testdata_file(name)
    if path is None:
        pytest.skip(f"{name} is not bundled with pydicom")
    return Path(str(path))


def images_and_masks(folder, **options):
    index, _ = scan(folder)
    chosen = ~np.isin(index.column("SOPClassUID").tolist(), list(KINDS))
    return MaskIndex(index.select(chosen), index, **options)


def ct2(tmp_path: Path) -> None:
    folder = bundled("DICOMDIR").parent / "77654033" / "CT2"
    if not folder.is_dir():
        pytest.skip("pydicom comes without its folder CT2")
    for path in folder.iterdir():
        shutil.copy(path, tmp_path / path.name)


@pytest.mark.parametrize("name", ["seg_image_ct_binary.dcm", "seg_image_ct_binary_fractional.dcm"])
def test_binary_and_fractional_segments_of_a_ct(tmp_path, name):
    ct2(tmp_path)
    shutil.copy(sample(f"{HIGHDICOM}/{name}"), tmp_path / "seg.dcm")
    masks = images_and_masks(tmp_path)
    names = [Path(os.fsdecode(masks.images.path(k))).name for k in range(len(masks))]
    found = dict(zip(names, masks.areas()[:, 0].tolist(), strict=True))
    assert found == {"17106": 0, "17136": 127, "17166": 256, "17196": 255}
    fractions = np.unique(np.stack([masks.mask(k, "fraction")[0] for k in range(len(masks))]))
    assert fractions.tolist() == [0.0, 1.0]


def test_segment_of_a_single_slice(tmp_path):
    shutil.copy(bundled("CT_small.dcm"), tmp_path / "ct.dcm")
    shutil.copy(sample(f"{HIGHDICOM}/seg_image_ct_binary_single_frame.dcm"), tmp_path / "seg.dcm")
    assert images_and_masks(tmp_path).areas().tolist() == [[1832]]


def segmentations() -> list[Path]:
    folder = samples_folder()
    if folder is None:
        return []
    names = ("*seg*.dcm", "liver*.dcm")
    return sorted({path for name in names for path in folder.rglob(name)})


@pytest.mark.parametrize("path", segmentations(), ids=lambda path: path.name)
def test_every_segmentation_is_what_highdicom_reads(path, tmp_path):
    require("highdicom")
    import highdicom as hd
    import pydicom

    from dicomtorch.masks.objects import sources
    from dicomtorch.masks.segmentations import SegmentationReader

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = hd.seg.Segmentation.from_dataset(pydicom.dcmread(path))
            theirs = expected.pixel_array
    except Exception:
        pytest.skip("highdicom does not take it")
    shutil.copy(path, tmp_path / "seg.dcm")
    index, _ = scan(tmp_path)
    (source,) = sources(index, frozenset(KINDS.values()))
    frames = SegmentationReader(source.index).stored(source, range(len(source.positions)))
    pixels = np.stack(frames)
    theirs = theirs.reshape(-1, *pixels.shape[1:])[: len(pixels)]
    np.testing.assert_array_equal(pixels, theirs)
    numbers = [segment.segment_number for segment in expected.SegmentSequence]
    assert [segment.number for segment in source.found.segments] == numbers
    assert [s.name for s in source.found.segments] == [
        segment.segment_label for segment in expected.SegmentSequence
    ]


def like(
    path: Path, folder: Path, planes: list[tuple[str, list[float]]], shape, spacing, orientation
):
    """Images that lie where an object says its images lie."""
    import pydicom

    dataset = pydicom.dcmread(path, stop_before_pixels=True)
    slices = series(
        folder,
        len(planes),
        shape,
        SOPInstanceUID=lambda k: planes[k][0],
        ImagePositionPatient=lambda k: planes[k][1],
        StudyInstanceUID=dataset.StudyInstanceUID,
        PatientID=dataset.PatientID,
        PixelSpacing=spacing,
        ImageOrientationPatient=orientation,
        FrameOfReferenceUID=dataset.get("FrameOfReferenceUID", "1.2.3"),
    )
    shutil.copy(path, folder / "object.dcm")
    return dataset, slices


def test_liver_with_frames_that_begin_inside_bytes(tmp_path):
    path = sample("pydicom__pydicom-data/data_store/data/liver_nonbyte_aligned.dcm")
    import pydicom

    whole = pydicom.dcmread(path)
    shared = whole.SharedFunctionalGroupsSequence[0]
    planes = [
        (
            group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID,
            list(group.PlanePositionSequence[0].ImagePositionPatient),
        )
        for group in whole.PerFrameFunctionalGroupsSequence
    ]
    spacing = list(shared.PixelMeasuresSequence[0].PixelSpacing)
    orientation = list(shared.PlaneOrientationSequence[0].ImageOrientationPatient)
    like(path, tmp_path, planes, (whole.Rows, whole.Columns), spacing, orientation)
    masks = images_and_masks(tmp_path)
    bits = np.unpackbits(np.frombuffer(whole.PixelData, np.uint8), bitorder="little")
    size = whole.Rows * whole.Columns
    expected = [int(bits[k * size : (k + 1) * size].sum()) for k in range(len(planes))]
    assert masks.areas()[:, 0].tolist() == expected
    assert sum(expected) > 0


def test_structures_of_a_real_plan(tmp_path):
    """BODY of a public RTSTRUCT on an image like its own: shapely has the same area within the path rule."""
    require("shapely")
    import pydicom
    import shapely

    path = sample("dicompyler__dicompyler-core/tests/testdata/example_data/rtss.dcm")
    dataset = pydicom.dcmread(path)
    origin, spacing = [-297.07, -445.57, -122.44], 1.1719
    uid = dataset.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
    series_uid = uid.RTReferencedSeriesSequence[0].SeriesInstanceUID
    space = dataset.StructureSetROISequence[0].ReferencedFrameOfReferenceUID
    slices = series(
        tmp_path,
        1,
        (512, 512),
        ImagePositionPatient=origin,
        PixelSpacing=[spacing, spacing],
        StudyInstanceUID=dataset.StudyInstanceUID,
        SeriesInstanceUID=series_uid,
        PatientID=dataset.PatientID,
        FrameOfReferenceUID=space,
        SliceThickness=3,
    )
    shutil.copy(path, tmp_path / "rtss.dcm")
    options = {"labels": {"body": 1, "areola": 2}}
    masks = images_and_masks(tmp_path, **options)
    half_open = images_and_masks(tmp_path, path="half-open", **options)
    contours = [
        np.array(contour.ContourData, float).reshape(-1, 3)
        for roi in dataset.ROIContourSequence
        if roi.ReferencedROINumber == 1
        for contour in roi.ContourSequence
        if abs(float(contour.ContourData[2]) - origin[2]) < 0.1
    ]
    assert len(contours) == 3
    columns, rows = np.meshgrid(np.arange(512), np.arange(512))
    inside = np.zeros((512, 512), bool)
    near = np.zeros((512, 512), bool)
    for points in contours:
        polygon = shapely.Polygon((points[:, :2] - origin[:2]) / spacing)
        centres = shapely.points(columns.ravel(), rows.ravel())
        shapely.prepare(polygon)
        inside ^= shapely.contains(polygon, centres).reshape(512, 512)
        edge = polygon.exterior
        near |= (shapely.distance(edge, centres) <= 0.01 / spacing).reshape(512, 512)
    np.testing.assert_array_equal(masks.mask(0)[0][0] == 1, inside | near)
    ours = half_open.mask(0)[0][0] == 1
    assert abs(int(ours.sum()) - int(inside.sum())) <= near.sum()
    assert masks.known(0).tolist() == [True, True]
    assert masks.areas()[0, 1] == 0  # an ROI without a contour sequence
    assert len(slices) == 1


def test_space_differs_in_nothing_but_its_uid(tmp_path):
    """A twin of a public structure set: square with a hole, another space than its CT, one of two slices."""
    slices = series(tmp_path, 2, (64, 64))
    rois = [("ROI-1", [(0, square(10.5, 50.5)), (0, square(20.5, 33.5))])]
    structures(tmp_path / "rt.dcm", slices, rois, space="1.2.3.4.5")
    for path in ("in", "half-open"):
        masks = images_and_masks(tmp_path, path=path)
        assert masks.areas()[:, 0].tolist() == [40 * 40 - 13 * 13, 0]
        assert masks.covered().tolist() == [True, False]
        assert len(masks.notices) == 1


def test_overlapping_segments_of_three_slices(tmp_path):
    """A twin of a public SEG: five segments, seven frames, image files in the other direction."""
    slices = series(
        tmp_path, 3, (20, 20), spacing=1.0, ImagePositionPatient=lambda k: [0, 0, -126.69 - k]
    )
    generator = np.random.default_rng(5)
    blocks = [(generator.random((20, 20)) < 0.4).astype(np.uint8) for _ in range(7)]
    at = [(3, 2), (4, 2), (5, 2), (1, 1), (2, 1), (3, 1), (3, 0)]
    frames = [(number, where, block) for (number, where), block in zip(at, blocks, strict=True)]
    names = [f"s{k}" for k in range(1, 6)]
    segmentation(tmp_path / "seg.dcm", slices, frames, names=names)
    masks = images_and_masks(tmp_path)
    channels = np.stack([masks.mask(k, "channels")[0] for k in range(3)])
    expected = np.zeros_like(channels)
    for number, where, block in frames:
        expected[where, number - 1] = block
    np.testing.assert_array_equal(channels, expected)
    shared = int((expected[1].sum(0) > 1).sum())
    with pytest.raises(
        Exception, match=rf"at 0, 0, -127\.69 mm: {shared} pixels belong to several"
    ):
        masks.mask(1)
    first = images_and_masks(tmp_path, overlap="first").mask(1)[0][0]
    last = images_and_masks(tmp_path, overlap="last").mask(1)[0][0]
    in_order = np.argmax(expected[1] > 0, 0) + 1
    np.testing.assert_array_equal(first, np.where(expected[1].any(0), in_order, 0))
    behind = 5 - np.argmax(expected[1][::-1] > 0, 0)
    np.testing.assert_array_equal(last, np.where(expected[1].any(0), behind, 0))


def test_segments_of_tiles_are_cut_and_joined(tmp_path):
    """A slide of 50 x 50 pixels in tiles of 10 x 10, segmented in tiles of 20 x 20, without references."""
    generator = np.random.default_rng(2)
    whole = (generator.random((50, 50)) < 0.1).astype(np.uint8)
    whole[10:20, 10:20] = 0
    slide(tmp_path, 10)

    def tiled(dataset):
        del dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence
        for group, (column, row) in zip(
            dataset.PerFrameFunctionalGroupsSequence, corners, strict=True
        ):
            del group.PlanePositionSequence
            group.PlanePositionSlideSequence = [
                item(
                    ColumnPositionInTotalImagePixelMatrix=column + 1,
                    RowPositionInTotalImagePixelMatrix=row + 1,
                    XOffsetInSlideCoordinateSystem=0,
                    YOffsetInSlideCoordinateSystem=0,
                    ZOffsetInSlideCoordinateSystem=0,
                )
            ]
        dataset.TotalPixelMatrixColumns = dataset.TotalPixelMatrixRows = 50
        dataset.ImageOrientationSlide = [0, 1, 0, 1, 0, 0]

    corners = [(c, r) for r in range(0, 50, 20) for c in range(0, 50, 20)]
    padded = np.zeros((60, 60), np.uint8)
    padded[:50, :50] = whole
    frames = [(1, (0, 0, 0), padded[r : r + 20, c : c + 20]) for c, r in corners]
    import pydicom

    like = pydicom.dcmread(tmp_path / "slide.dcm")
    like.ImageOrientationPatient, like.PixelSpacing = [1, 0, 0, 0, 1, 0], [0.001, 0.001]
    segmentation(tmp_path / "seg.dcm", [like], frames, names=["dot"], edit=tiled)
    masks = images_and_masks(tmp_path)
    assert len(masks) == 25
    joined = np.zeros((50, 50), np.uint8)
    for k in range(25):
        row, column = 10 * (k // 5), 10 * (k % 5)
        joined[row : row + 10, column : column + 10] = masks.mask(k)[0][0]
    np.testing.assert_array_equal(joined, whole)
    assert masks.has("dot").sum() == 24
    assert masks.areas().sum() == whole.sum()


# --- NIfTI and NRRD ---------------------------------------------------------------------------------


def grid_of_ct(tmp_path, depth=32):
    slices = series(
        tmp_path,
        depth,
        (330, 120),
        PixelSpacing=[0.8, 0.8],
        ImagePositionPatient=lambda k: [-204.4, -204.4, -100 + 2.0 * k],
    )
    generator = np.random.default_rng(1)
    return slices, generator.integers(0, 3, (depth, 330, 120)).astype(np.uint8)


@pytest.mark.parametrize("flips", [(), (0,), (1, 2), (0, 1, 2)])
def test_nifti_is_turned_to_the_image(tmp_path, flips):
    require("nibabel")
    import nibabel

    slices, voxels = grid_of_ct(tmp_path)
    affine = np.diag([-0.8, -0.8, 2.0, 1.0])
    affine[:3, 3] = 204.4, 204.4, -100  # of voxel (column, row, slice), RAS
    data = voxels.transpose(2, 1, 0)
    for axis in flips:
        data = np.flip(data, axis)
        affine[:3, 3] += affine[:3, axis] * (data.shape[axis] - 1)
        affine[:3, axis] *= -1
    nibabel.save(nibabel.Nifti1Image(data, affine), tmp_path / "mask.nii.gz")
    index, _ = scan(tmp_path)
    uid = slices[0].SeriesInstanceUID
    masks = MaskIndex(index, files={uid: tmp_path / "mask.nii.gz"}, labels={"a": 1, "b": 2})
    found = np.stack([masks.mask(k)[0][0] for k in (0, 7, 31)])
    np.testing.assert_array_equal(found, voxels[[0, 7, 31]])
    if flips == (
        1,
        2,
    ):  # a voxel by hand, of axes (x to the right, y up, z) as many writers have them
        assert masks.mask(30)[0][0][311, 100] == voxels[30, 311, 100]
    table = {"series": [uid], "path": [str(tmp_path / "mask.nii.gz")]}
    again = MaskIndex(index, files=table, labels={"b": 2})
    assert again.mask(7)[1].tolist() == [int((voxels[7] == 2).sum())]
    assert again.covered().all()


def test_nrrd_by_simpleitk_and_another_grid(tmp_path):
    import SimpleITK

    from dicomtorch.errors import GeometryError

    slices, voxels = grid_of_ct(tmp_path, 4)
    image = SimpleITK.GetImageFromArray(voxels)
    image.SetSpacing((0.8, 0.8, 2.0))
    image.SetOrigin((-204.4, -204.4, -100.0))
    SimpleITK.WriteImage(image, str(tmp_path / "m.nrrd"))
    index, _ = scan(tmp_path)
    uid = slices[0].SeriesInstanceUID
    labels = {"a": 1, "b": 2}
    masks = MaskIndex(index, files={uid: tmp_path / "m.nrrd"}, labels=labels)
    np.testing.assert_array_equal(np.stack([masks.mask(k)[0][0] for k in range(4)]), voxels)
    image.SetOrigin((-204.1, -204.4, -100.0))
    SimpleITK.WriteImage(image, str(tmp_path / "m.nrrd"))
    with pytest.raises(GeometryError, match=r"corners are 0\.375 voxels off"):
        MaskIndex(index, files={uid: tmp_path / "m.nrrd"}, labels=labels).mask(0)
    sampled = MaskIndex(index, files={uid: tmp_path / "m.nrrd"}, labels=labels, resample="nearest")
    np.testing.assert_array_equal(sampled.mask(1)[0][0], voxels[1])


def test_files_that_say_not_enough_are_refused(tmp_path):
    import SimpleITK

    from dicomtorch.errors import GeometryError, OptionError, PixelValueError, SourceError

    slices, voxels = grid_of_ct(tmp_path, 2)
    index, _ = scan(tmp_path)
    uid = slices[0].SeriesInstanceUID
    labels = {"a": 1}

    def refused(error, message, path, **options):
        with pytest.raises(error, match=message):
            MaskIndex(index, files={uid: path}, labels=options.get("labels", labels)).mask(0)

    refused(SourceError, "there is no file", tmp_path / "absent.nii")
    header = b"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 2 2 2\nencoding: raw\n\n" + b"\0" * 8
    (tmp_path / "m.nrrd").write_bytes(header)
    refused(GeometryError, "no space field", tmp_path / "m.nrrd")
    image = SimpleITK.GetImageFromArray(voxels.astype(np.float32) + 0.5)
    SimpleITK.WriteImage(image, str(tmp_path / "f.nrrd"))
    refused(PixelValueError, "holds fractions", tmp_path / "f.nrrd")
    (tmp_path / "broken.nii").write_bytes(b"\1" * 500)
    refused(PixelValueError, "cannot be read", tmp_path / "broken.nii")
    with pytest.raises(OptionError, match="numbers without names"):
        MaskIndex(index, files={uid: tmp_path / "m.nrrd"})
    with pytest.raises(OptionError, match="none of the 1 series"):
        MaskIndex(index, files={"1.2.3": tmp_path / "m.nrrd"}, labels=labels)
    with pytest.raises(OptionError, match="columns series and path"):
        MaskIndex(index, files={"x": [1]}, labels=labels)


def test_structure_sets_are_named_as_what_they_are():
    assert KINDS[RT_STRUCTURE_SET] == "rtstruct"
