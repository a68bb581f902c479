"""Tissue on slides: masks of thumbnails, and the share of a place that they cover."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomtorch import DicomSlides, DicomTiles
from dicomtorch.datasets.tissue import otsu_tissue, shares, thumbnail, tissue_level
from dicomtorch.errors import GeometryError, OptionError
from dicomtorch.model.options import PixelOptions
from dicomtorch.series.levels import SlideLevel
from tests.datasets.test_tiles import segmented
from tests.support.phantoms import write
from tests.support.slide_phantoms import halved, level, tissue, write_slide


def of_size(rows: int, columns: int) -> SlideLevel:
    return SlideLevel(
        0, rows, columns, (16, 16), (1.0, 1.0), (0.0, 0.0), (), np.arange(1), None  # type: ignore[arg-type]
    )  # fmt: skip


def display(slide: Any) -> Any:
    return slide.reader.with_options(PixelOptions(values="display"))


def test_saturation_over_the_threshold_is_tissue() -> None:
    """The phantom says which pixels are; grain moves few of them over the threshold."""
    pixels = tissue(200, 200)
    y, x = np.mgrid[:200, :200] / 200
    true = ((y - 0.35) ** 2 + (x - 0.3) ** 2 < 0.22**2) | (
        (y - 0.65) ** 2 + (x - 0.7) ** 2 < 0.22**2
    )
    found = otsu_tissue((pixels / 255).astype(np.float32))
    assert (found != true).mean() < 0.01


def test_the_threshold_is_that_of_opencv() -> None:
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(60, 12, 3000), rng.normal(160, 20, 2000)]).clip(0, 255)
    gray = np.rint(values).astype(np.uint8).reshape(50, 100)
    threshold, _ = cv2.threshold(gray, 0, 255, cv2.THRESH_OTSU)
    found = otsu_tissue((gray / 255).astype(np.float32)[..., None])
    assert (found != (gray > threshold)).mean() < 0.005


def test_glass_alone_has_no_tissue() -> None:
    pixels = np.random.default_rng(0).normal(0.95, 0.008, (80, 80, 3)).astype(np.float32)
    assert otsu_tissue(pixels).mean() < 0.01


@given(
    st.integers(1, 40), st.integers(1, 40), st.integers(-3, 38), st.integers(-3, 38), st.integers(1, 30)
)  # fmt: skip
def test_shares_count_the_pixels_of_a_mask(
    rows: int, columns: int, top: int, left: int, size: int
) -> None:
    mask = np.random.default_rng(rows * 50 + columns).integers(0, 2, (rows, columns))
    part = mask[max(top, 0) : max(top + size, 0), max(left, 0) : max(left + size + 2, 0)]
    got = shares(
        mask.astype(float), of_size(rows, columns), np.array([[top, left]]), size, size + 2
    )
    assert got[0] == pytest.approx(part.mean() if part.size else 0.0)


def test_shares_of_a_mask_of_another_resolution() -> None:
    mask = np.array([[1.0, 0.0], [0.0, 0.0]])
    corners = np.array([[0, 0], [25, 25], [0, 49], [99, 0]])
    got = shares(mask, of_size(100, 100), corners, 50, 50)
    assert got == pytest.approx([1.0, 0.25, 1 / 50, 0.0])


def test_a_thumbnail_is_the_coarsest_level_that_is_no_stamp(tmp_path: Path) -> None:
    pixels = write_slide(tmp_path, 600, 300, 64)
    slide = DicomSlides(tmp_path)[0]
    chosen = tissue_level(slide.levels)
    assert chosen.number == 1
    picture = thumbnail(chosen, display(slide))
    assert np.abs(picture - halved(pixels) / 255).max() < 1e-6


@pytest.mark.parametrize("longest", [100, 64, 37])
def test_a_large_thumbnail_is_means_of_blocks(tmp_path: Path, longest: int) -> None:
    pixels = tissue(150, 90) / 255
    write(level(tissue(150, 90), 32), tmp_path / "level.dcm")
    slide = DicomSlides(tmp_path)[0]
    picture = thumbnail(slide.levels[0], display(slide), longest)
    factor = -(-150 // longest)
    wanted = [
        [pixels[r : r + factor, c : c + factor].mean((0, 1)) for c in range(0, 90, factor)]
        for r in range(0, 150, factor)
    ]
    assert np.abs(picture - np.array(wanted)).max() < 1e-5


def test_tiles_by_their_share_of_tissue(tmp_path: Path) -> None:
    pixels = write_slide(tmp_path, 512, 512, 32)
    everything = DicomTiles(tmp_path, 32, tissue=0)
    assert len(everything) == 256
    coarse = otsu_tissue((halved(pixels) / 255).astype(np.float32))  # level 1 has 256 pixels
    for _, meta in list(everything)[::17]:
        row, column = meta["row"] // 2, meta["column"] // 2
        assert meta["tissue"] == pytest.approx(coarse[row : row + 16, column : column + 16].mean())
    some = DicomTiles(tmp_path, 32, tissue=0.5)
    tissues = np.asarray(everything.index.column("tissue"))
    assert len(some) == (tissues >= 0.5).sum()
    assert 0 < len(some) < 256
    assert min(meta["tissue"] for _, meta in some) >= 0.5


def test_a_function_says_what_is_tissue(tmp_path: Path) -> None:
    write_slide(tmp_path, 512, 512, 32)
    seen = []

    def left(picture: Any) -> Any:
        seen.append(picture)
        return np.arange(picture.shape[1]) < np.full((picture.shape[0], 1), picture.shape[1] // 2)

    found = DicomTiles(tmp_path, 32, tissue=0.5, tissue_mask=left)
    assert {meta["column"] for _, meta in found} == set(range(0, 256, 32))
    assert seen[0].shape == (256, 256, 3)
    assert 0 <= seen[0].min() <= seen[0].max() <= 1
    with pytest.raises(
        OptionError, match=r"one truth value for each pixel, \(256, 256\); it returned \(3,\)"
    ):
        DicomTiles(tmp_path, 32, tissue=0.5, tissue_mask=lambda picture: np.zeros(3))
    with pytest.raises(
        GeometryError, match=r"1 slide has no tile of 32 x 32 pixels, of which 0.5 is tissue"
    ):
        DicomTiles(tmp_path, 32, tissue=0.5, tissue_mask=lambda picture: picture[..., 0] > 2)


@pytest.mark.parametrize("number", [0, 1])
def test_segmentations_say_what_is_tissue(tmp_path: Path, number: int) -> None:
    write_slide(tmp_path, 64, 48)
    mask = np.zeros((64 >> number, 48 >> number), np.uint8)
    mask[: 24 >> number, : 16 >> number] = 1
    segmented(tmp_path, number, mask)
    found = DicomTiles(tmp_path, 16, tissue=0.4, tissue_mask="seg")
    assert [(meta["row"], meta["column"], meta["tissue"]) for _, meta in found] == [
        (0, 0, 1.0),
        (16, 0, 0.5),
    ]


def test_a_slide_that_no_segmentation_is_of_is_named(tmp_path: Path) -> None:
    write_slide(tmp_path, 64, 48)
    mask = np.ones((64, 48), np.uint8)
    segmented(tmp_path, 0, mask)
    other: dict[str, Any] = {
        "FrameOfReferenceUID": "1.44",
        "SeriesInstanceUID": "1.45",
        "SOPInstanceUID": "1.46",
    }
    write(level(tissue(32, 32), number=7, **other), tmp_path / "other.dcm")
    with pytest.raises(
        OptionError, match=r"no segmentation lies on a level of the slide of .*other\.dcm"
    ):
        DicomTiles(tmp_path, 16, tissue=0.4, tissue_mask="seg")
