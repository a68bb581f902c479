"""Slides: tiles and regions with fill and mask, levels by resolution, what is said of mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicomtorch import (
    DicomSlides,
    DicomTorchError,
    FrameIndexError,
    FrameNotFoundError,
    GeometryError,
)
from dicomtorch.datasets.glass import srgb_of_cielab
from dicomtorch.errors import OptionError, SourceError, StaleIndexError
from tests.support.phantoms import write, write_series
from tests.support.slide_phantoms import halved, level, tissue, write_slide

ROWS, COLUMNS = 100, 76


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[DicomSlides, Any]:
    folder = tmp_path_factory.mktemp("slide")
    pixels = write_slide(folder, ROWS, COLUMNS)
    return DicomSlides(folder), pixels


def one(folder: Path, pixels: Any, **attributes: Any) -> Any:
    write(level(pixels, **attributes), folder / "level.dcm")
    return DicomSlides(folder)[0]


def picture(image: torch.Tensor) -> Any:
    return image.permute(1, 2, 0).numpy()


def test_a_tile_is_the_pixels_of_its_frame(whole: Any) -> None:
    slides, pixels = whole
    image, mask = slides[0].tile(0, 2, 3)
    assert image.dtype == torch.uint8
    assert np.array_equal(picture(image), pixels[32:48, 48:64])
    assert mask.shape == (16, 16)
    assert mask.all()


def test_what_writers_put_beyond_the_matrix_is_not_there(whole: Any) -> None:
    slides, pixels = whole
    image, mask = slides[0].tile(0, 6, 4)  # of the tile there are 4 rows and 12 columns
    assert np.array_equal(picture(image)[:4, :12], pixels[96:, 64:])
    assert (image[:, 4:] == 255).all()
    assert (image[:, :, 12:] == 255).all()
    assert mask[:4, :12].all()
    assert mask.sum() == 4 * 12


def at(pixels: Any, row: int, column: int, rows: int, columns: int, fill: int) -> tuple[Any, Any]:
    """A region by NumPy, and its mask."""
    image = np.full((rows, columns, 3), fill, np.uint8)
    mask = np.zeros((rows, columns), bool)
    top, left = max(row, 0), max(column, 0)
    bottom, right = min(row + rows, pixels.shape[0]), min(column + columns, pixels.shape[1])
    image[top - row : bottom - row, left - column : right - column] = pixels[top:bottom, left:right]
    mask[top - row : bottom - row, left - column : right - column] = True
    return image, mask


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.integers(0, 2),
    st.tuples(st.integers(-20, 110), st.integers(-20, 90), st.integers(1, 60), st.integers(1, 60)),
)
def test_regions_are_the_pixels_of_the_matrix(whole: Any, number: int, box: Any) -> None:
    slides, pixels = whole
    pixels = halved(pixels, number)
    row, column, rows, columns = box
    inside = -rows < row < pixels.shape[0] and -columns < column < pixels.shape[1]
    if not inside:
        with pytest.raises(
            FrameIndexError, match=f"level {number} has .* pixels; .* have none of them"
        ):
            slides[0].region(number, *box)
        return
    image, mask = slides[0].region(number, *box)
    expected, there = at(pixels, row, column, rows, columns, 255)
    assert np.array_equal(picture(image), expected)
    assert np.array_equal(mask.numpy(), there)


def test_absent_tiles_are_filled_and_said(tmp_path: Path) -> None:
    pixels = tissue(48, 48)
    slide = one(tmp_path, pixels, places=[(0, 0), (16, 16), (32, 0)])
    image, mask = slide.region(0, 0, 0, 48, 48)
    there = np.zeros((48, 48), bool)
    there[:16, :16] = there[16:32, 16:32] = there[32:, :16] = True
    assert np.array_equal(mask.numpy(), there)
    assert np.array_equal(picture(image)[there], pixels[there])
    assert (picture(image)[~there] == 255).all()
    image, mask = slide.tile(0, 1, 0)
    assert not mask.any()
    assert (image == 255).all()
    image, _ = slide.region(0, 0, 0, 48, 48, fill=(1, 2, 3))
    assert np.array_equal(picture(image)[~there], np.broadcast_to([1, 2, 3], (((~there).sum()), 3)))
    image, _ = slide.region(0, 0, 0, 48, 48, fill=7)
    assert (picture(image)[~there] == 7).all()


def test_unaligned_tiles_lie_over_each_other_in_their_order(tmp_path: Path) -> None:
    pixels = tissue(48, 48)
    places = [(0, 0), (10, 5), (20, 30), (10, 21)]
    dataset = level(pixels, places=places)
    frames = np.frombuffer(dataset.PixelData, np.uint8).reshape(4, 16, 16, 3).copy()
    frames[1] = 255 - frames[1]  # so that it matters which one is above
    dataset.PixelData = frames.tobytes()
    write(dataset, tmp_path / "level.dcm")
    slide = DicomSlides(tmp_path)[0]
    expected, there = np.full((48, 48, 3), 255, np.uint8), np.zeros((48, 48), bool)
    for (r, c), frame in zip(places, frames, strict=True):
        expected[r : r + 16, c : c + 16] = frame[: 48 - r, : 48 - c]
        there[r : r + 16, c : c + 16] = True
    image, mask = slide.region(0, 0, 0, 48, 48)
    assert np.array_equal(picture(image), expected)
    assert np.array_equal(mask.numpy(), there)
    image, mask = slide.region(0, 10, 5, 16, 16)
    assert np.array_equal(picture(image), expected[10:26, 5:21])
    assert mask.all()


def test_the_recommended_color_stands_for_what_is_absent(tmp_path: Path) -> None:
    lab = [round(0.5 * 65535), round((40 + 128) / 255 * 65535), round((-20 + 128) / 255 * 65535)]
    slide = one(tmp_path, tissue(32, 32), places=[(0, 0)], RecommendedAbsentPixelCIELabValue=lab)
    image, _ = slide.tile(0, 1, 1)
    expected = np.rint(srgb_of_cielab(lab) * 255)
    assert (picture(image) == expected).all()


def test_cielab_is_that_of_a_profile_connection_space() -> None:
    """By LittleCMS, whose Lab is relative to D50 as that of PS3.3 is."""
    cms = pytest.importorskip("PIL.ImageCms")
    from PIL import Image

    way = cms.buildTransform(
        cms.createProfile("LAB"), cms.createProfile("sRGB"), "LAB", "RGB", renderingIntent=1
    )
    for lightness, a, b in (
        (255, 0, 0),
        (0, 0, 0),
        (128, 0, 0),
        (200, 20, -15),
        (120, -30, 30),
        (60, 25, 25),
    ):
        lab = Image.new("LAB", (1, 1), (lightness, a + 128, b + 128))
        expected = cms.applyTransform(lab, way).getpixel((0, 0))
        encoded = [lightness * 257, (a + 128) * 257, (b + 128) * 257]
        assert np.abs(srgb_of_cielab(encoded) * 255 - expected).max() < 1.5


def test_gray_slides_are_dark_where_nothing_is(tmp_path: Path) -> None:
    pixels = tissue(32, 32)[..., 0]
    slide = one(tmp_path, pixels, places=[(0, 0)])
    image, mask = slide.region(0, 0, 0, 32, 32)
    assert image.shape == (1, 32, 32)
    assert np.array_equal(image[0, :16, :16].numpy(), pixels[:16, :16])
    assert (image[0][~mask] == 0).all()


def test_other_values_than_stored_ones(tmp_path: Path) -> None:
    pixels = tissue(32, 32)
    write(level(pixels, places=[(0, 0)]), tmp_path / "level.dcm")
    image, mask = DicomSlides(tmp_path, values="display")[0].region(0, 0, 0, 32, 32)
    assert image.dtype == torch.float32
    assert torch.allclose(
        image[:, mask],
        torch.from_numpy(pixels[:16, :16] / 255).float().permute(2, 0, 1).reshape(3, -1),
    )
    assert (image[:, ~mask] == 1).all()
    mean, std = (0.5, 0.4, 0.3), (0.1, 0.2, 0.3)
    other, _ = DicomSlides(tmp_path, normalize=(mean, std))[0].region(0, 0, 0, 32, 32)
    expected = (image - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    assert torch.allclose(other, expected, atol=1e-5)
    gray, _ = DicomSlides(tmp_path, values="display", color="gray")[0].region(0, 0, 0, 32, 32)
    assert gray.shape == (1, 32, 32)
    assert (gray[:, ~mask] == 1).all()
    half, _ = DicomSlides(tmp_path, values="display", dtype="bfloat16")[0].region(0, 0, 0, 32, 32)
    assert torch.equal(half, image.bfloat16())


def test_levels_by_resolution(whole: Any) -> None:
    slide = whole[0][0]
    assert [slide.level(mpp=mpp).number for mpp in (0.49, 0.5, 0.9, 1.0, 1.5, 2.0, 50)] == [
        0,
        0,
        0,
        1,
        1,
        2,
        2,
    ]
    assert slide.level(-1).number == 2
    assert slide.level(mpp=0.98, exact=True).number == 1
    with pytest.raises(GeometryError, match=r"no level within 5 % of 1.5 .* it has 0.5, 1, 2"):
        slide.level(mpp=1.5, exact=True)
    with pytest.raises(GeometryError, match=r"no level as fine as 0.25 .* it has 0.5, 1, 2"):
        slide.level(mpp=0.25)


def test_millimetres_both_ways(whole: Any) -> None:
    slide = whole[0][0]
    x, y = slide.to_slide(1, 10, 20)
    assert (x, y) == pytest.approx((21.5 - 10 * 0.001, 40.25 - 20 * 0.001))
    assert slide.to_pixels(0, x, y) == pytest.approx((20, 40))
    assert slide.to_pixels(slide.levels[2], x, y) == pytest.approx((5, 10))


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda s: s.tile(3, 0, 0), FrameIndexError, "level 3 is outside .* 3 levels"),
        (
            lambda s: s.tile(0, 7, 0),
            FrameIndexError,
            "level 0 has 7 x 5 tiles, rows 0 to 6 and columns 0 to 4; got row 7",
        ),
        (lambda s: s.tile(0, 0, -1), FrameIndexError, "columns 0 to 4; got column -1"),
        (lambda s: s.tile(0, 0.5, 1), OptionError, "tile row must be a whole number; got 0.5"),
        (lambda s: s.region(0, 0, 0, 0, 5), OptionError, "1 to 268,435,456 pixels; got 0 x 5"),
        (lambda s: s.region(0, 0, 0, 1 << 15, 1 << 15), OptionError, "from a coarser level"),
        (lambda s: s.region(0, "a", 0, 1, 1), OptionError, "row must be a whole number"),
        (lambda s: s.region(0, 0, 0, 4, 4, fill="red"), OptionError, "fill must be"),
        (lambda s: s.region(0, 0, 0, 4, 4, fill=(1, 2)), OptionError, "2 numbers, .* 3 channels"),
        (lambda s: s.level(), OptionError, "by its number, or by mpp="),
        (lambda s: s.level(0, mpp=1), OptionError, "one of them"),
        (lambda s: s.level(mpp=0), OptionError, "above 0; got 0"),
        (lambda s: s.level(mpp="x"), OptionError, "above 0; got 'x'"),
        (lambda s: s.level("x"), OptionError, "levels are asked for by an integer"),
    ],
)
def test_mistakes_are_called_so(whole: Any, call: Any, error: Any, said: str) -> None:
    with pytest.raises(error, match=said):
        call(whole[0][0])


def test_slides_without_spacing_have_levels_by_number(tmp_path: Path) -> None:
    dataset = level(tissue(32, 32))
    del dataset.SharedFunctionalGroupsSequence
    write(dataset, tmp_path / "level.dcm")
    slide = DicomSlides(tmp_path)[0]
    assert slide.tile(0, 0, 0).mask.all()
    with pytest.raises(GeometryError, match="PixelSpacing is absent"):
        slide.level(mpp=1)


def test_what_a_folder_of_slides_holds(tmp_path: Path) -> None:
    for k in range(3):
        own: dict[str, Any] = {
            "SeriesInstanceUID": f"1.3.{k}",
            "FrameOfReferenceUID": f"1.4.{k}",
            "PatientID": f"p{k}",
            "StudyInstanceUID": f"1.5.{k}",
        }
        write_slide(tmp_path / str(k), 40, 40, levels=2, **own)
    slides = DicomSlides(tmp_path)
    # Files of three folders have the same SOPInstanceUIDs, so the first of each counts.
    assert len(slides) == 1
    slides = DicomSlides(tmp_path, duplicates="keep")
    assert len(slides) == 3
    assert [slide.number for slide in slides] == [0, 1, 2]
    assert slides.find(PatientID="p1") == 1
    with pytest.raises(FrameNotFoundError, match="3 slides of 3 match Modality"):
        slides.find(Modality="SM")
    part = slides[[2, 0]]
    assert isinstance(part, DicomSlides)
    assert [part.index.column("PatientID")[int(s.levels[0].positions[0])] for s in part] == [
        "p2",
        "p0",
    ]
    assert len(slides[1:]) == 2
    with pytest.raises(FrameIndexError, match="slide 3 is outside"):
        slides[3]
    train, rest = slides.index.kfold(3)[0]
    assert (
        len(DicomSlides(train, duplicates="keep")) + len(DicomSlides(rest, duplicates="keep")) == 3
    )
    assert "3 slides, 6 levels" in repr(slides)
    assert slides.report.counts["image"] == 6
    assert "<table" in slides._repr_html_()


def test_images_that_are_no_slides_are_called_so(tmp_path: Path) -> None:
    write_series(tmp_path, 2)
    with pytest.raises(SourceError, match="none of 2 frames is a tile of a slide"):
        DicomSlides(tmp_path)


def test_statistics_of_single_tiles_are_refused(tmp_path: Path) -> None:
    write_slide(tmp_path, 32, 32, levels=1)
    with pytest.raises(OptionError, match="tiles of one slide would not fit together"):
        DicomSlides(tmp_path, normalize="zscore")


def test_a_damaged_tile_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    from tests.support.slide_phantoms import JPEG

    write_slide(tmp_path, 64, 64, 32, levels=1, **JPEG)
    path = tmp_path / "level1.dcm"
    data = bytearray(path.read_bytes())
    second = data.index(b"\xff\xd8\xff", data.index(b"\xff\xd8\xff") + 3)
    data[second : second + 3] = b"\0\0\0"
    path.write_bytes(data)
    slide = DicomSlides(tmp_path)[0]
    assert slide.tile(0, 0, 0).mask.all()
    with pytest.raises(DicomTorchError, match=r"level1\.dcm, frame 1 \(index 1\)"):
        slide.region(0, 0, 0, 64, 64)
    path.unlink()
    with pytest.raises(StaleIndexError, match=r"level1\.dcm"):
        slide.tile(0, 0, 0)
