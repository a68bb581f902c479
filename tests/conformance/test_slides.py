"""Slides beside other libraries: values by wsidicom and highdicom, and real files."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.pixels.utils import pixel_array

from dicomtorch import DicomSlides, DicomTiles
from dicomtorch.errors import GeometryError
from tests.support.phantoms import write
from tests.support.requirements import require, samples_folder
from tests.support.slide_phantoms import JPEG, level, tissue, write_slide

SLIDES = (
    "DIAGNijmegen__rse-panimg/tests/resources/dicom_wsi/full_no_bot/full_no_bot.dcm",
    "DIAGNijmegen__rse-panimg/tests/resources/dicom_wsi/full_with_bot/full_with_bot.dcm",
    "DIAGNijmegen__rse-panimg/tests/resources/dicom_wsi/sparse_no_bot/sparse_no_bot.dcm",
    "DIAGNijmegen__rse-panimg/tests/resources/dicom_wsi/sparse_with_bot/sparse_with_bot.dcm",
    "GoogleCloudPlatform__EZ-WSI-DICOMweb/ez_wsi_dicomweb/testdata/multiframe_camelyon_challenge_image.dcm",
    "ImagingDataCommons__highdicom/data/test_files/sm_image_grayscale.dcm",
    "ImagingDataCommons__highdicom/data/test_files/sm_image_jpegls_nobot.dcm",
)


@pytest.fixture(params=SLIDES, ids=lambda name: Path(name).stem)
def sample(request: pytest.FixtureRequest) -> Path:
    require("samples")
    folder = samples_folder()
    assert folder is not None
    return folder / str(request.param)


def frame_of(path: Path, number: int) -> Any:
    """One tile by highdicom, or by pydicom where highdicom does not open the file."""
    if "highdicom" in str(path):
        return highdicom.imread(path).get_frame(number + 1, apply_icc_profile=False)
    return pixel_array(path, index=number)


def by_frames(path: Path) -> Any:
    """The total pixel matrix of a file with all its tiles."""
    dataset = dcmread(path, stop_before_pixels=True)
    rows, columns = dataset.TotalPixelMatrixRows, dataset.TotalPixelMatrixColumns
    across = -(-columns // dataset.Columns)
    frames = [frame_of(path, k) for k in range(int(dataset.NumberOfFrames))]
    matrix = np.zeros((rows, columns, *frames[0].shape[2:]), frames[0].dtype)
    for k, frame in enumerate(frames):
        row, column = k // across * dataset.Rows, k % across * dataset.Columns
        part = matrix[row : row + dataset.Rows, column : column + dataset.Columns]
        part[:] = frame[: part.shape[0], : part.shape[1]]
    return matrix


@pytest.mark.filterwarnings("ignore")
def test_real_files_are_their_frames_side_by_side(sample: Path) -> None:
    (slide,) = DicomSlides(sample)
    (found,) = slide.levels
    image, mask = slide.region(0, 0, 0, found.rows, found.columns)
    matrix = by_frames(sample)
    assert mask.all()
    picture = image.permute(1, 2, 0).numpy()
    if "grayscale" in sample.name:
        picture = picture[..., 0]
    difference = np.abs(picture.astype(int) - matrix.astype(int))
    # Decoders of JPEG differ by rounding, and by how they spread chroma.
    is_jpeg = dcmread(sample, stop_before_pixels=True).file_meta.TransferSyntaxUID.startswith(
        "1.2.840.10008.1.2.4.50"
    )
    assert difference.max() <= (3 if is_jpeg else 0)
    tiles = DicomTiles(sample, found.tile)
    assert len(tiles) == found.tile_rows * found.tile_columns
    assert all(0 < meta["coverage"] <= 1 for _, meta in tiles)


def test_real_files_lie_where_highdicom_says(sample: Path) -> None:
    (slide,) = DicomSlides(sample)
    dataset = dcmread(sample, stop_before_pixels=True)
    rows, columns = np.array([0, 5, 49]), np.array([0, 17, 31])
    if "TotalPixelMatrixOriginSequence" not in dataset:
        with pytest.raises(GeometryError, match="TotalPixelMatrixOriginSequence is absent"):
            slide.to_slide(0, rows, columns)
        return
    origin = dataset.TotalPixelMatrixOriginSequence[0]
    place = [origin.XOffsetInSlideCoordinateSystem, origin.YOffsetInSlideCoordinateSystem, 0.0]
    measures = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    transform = highdicom.spatial.PixelToReferenceTransformer(
        [float(n) for n in place],
        [float(n) for n in dataset.ImageOrientationSlide],
        [float(n) for n in measures.PixelSpacing],
    )
    expected = transform(np.stack([columns, rows], 1))[:, :2]
    assert np.abs(np.stack(slide.to_slide(0, rows, columns), 1) - expected).max() < 1e-6


@pytest.fixture
def wsidicom() -> Any:
    require("wsidicom")
    return importlib.import_module("wsidicom")


@pytest.mark.parametrize("options", [{}, JPEG], ids=["native", "jpeg"])
def test_every_level_is_that_of_wsidicom(tmp_path: Path, wsidicom: Any, options: Any) -> None:
    write_slide(tmp_path, 150, 110, 32, **options)
    (slide,) = DicomSlides(tmp_path)
    rng = np.random.default_rng(0)
    with wsidicom.WsiDicom.open(tmp_path) as other:
        levels = sorted(other.levels, key=lambda each: -each.size.width)
        assert [(each.size.height, each.size.width) for each in levels] == [
            (each.rows, each.columns) for each in slide.levels
        ]
        for found, theirs in zip(slide.levels, levels, strict=True):
            assert found.spacing == pytest.approx(
                (theirs.mpp.height / 1000, theirs.mpp.width / 1000)
            )
            for _ in range(10):
                rows, columns = (
                    int(rng.integers(1, found.rows)),
                    int(rng.integers(1, found.columns)),
                )
                row = int(rng.integers(0, found.rows - rows + 1))
                column = int(rng.integers(0, found.columns - columns + 1))
                image, mask = slide.region(found, row, column, rows, columns)
                expected = other.read_region(
                    (column, row), theirs.level, (columns, rows), as_array=True
                )
                assert mask.all()
                assert np.array_equal(image.permute(1, 2, 0).numpy(), expected)


def test_absent_tiles_are_those_of_wsidicom(tmp_path: Path, wsidicom: Any) -> None:
    pixels = tissue(64, 64)
    write(level(pixels, places=[(0, 0), (16, 32), (48, 48)]), tmp_path / "level.dcm")
    (slide,) = DicomSlides(tmp_path)
    with wsidicom.WsiDicom.open(tmp_path) as other:
        expected = other.read_region((0, 0), 0, (64, 64), as_array=True)
    image, _ = slide.region(0, 0, 0, 64, 64)
    assert np.array_equal(image.permute(1, 2, 0).numpy(), expected)


def test_optical_paths_are_those_of_wsidicom(tmp_path: Path, wsidicom: Any) -> None:
    pixels = tissue(48, 32)
    write(level(np.stack([pixels, 255 - pixels])), tmp_path / "level.dcm")
    slides = DicomSlides(tmp_path)
    with wsidicom.WsiDicom.open(tmp_path) as other:
        for slide in slides:
            expected = other.read_region(
                (3, 5), 0, (20, 30), path=slide.optical_path, as_array=True
            )
            image, _ = slide.region(0, 5, 3, 30, 20)
            assert np.array_equal(image.permute(1, 2, 0).numpy(), expected)
