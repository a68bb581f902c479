"""Which tiles are one slide: levels, series, concatenations, optical paths, focal planes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dicomtorch import FrameIndex, scan
from dicomtorch.series.pyramids import Pyramid, pyramids
from tests.support.phantoms import write
from tests.support.slide_phantoms import (
    every_place,
    halved,
    level,
    sparse_groups,
    tissue,
    write_slide,
)

WHOLE = tissue(64, 48)


def found(folder: Path) -> list[Pyramid]:
    index, _ = scan(folder)
    return pyramids(index)


def sizes(slide: Pyramid) -> list[tuple[int, int]]:
    return [(level.rows, level.columns) for level in slide.levels]


def put(folder: Path, name: str, pixels: Any, number: int, **attributes: Any) -> None:
    write(level(pixels, number=number, **attributes), folder / f"{name}.dcm")


def test_levels_come_finest_first_whatever_their_number(tmp_path: Path) -> None:
    write_slide(tmp_path, 64, 48)  # the coarsest has Instance Number 1
    (slide,) = found(tmp_path)
    assert sizes(slide) == [(64, 48), (32, 24), (16, 12)]
    assert [level.number for level in slide.levels] == [0, 1, 2]
    assert [level.mpp for level in slide.levels] == pytest.approx([0.5, 1.0, 2.0])
    assert (slide.optical_path, slide.focal_plane, slide.notices) == ("0", 0, ())
    assert slide.positions.tolist() == list(range(12 + 4 + 1))


@pytest.mark.parametrize("pyramid", [{}, {"PyramidUID": "1.2.3"}])
def test_levels_of_several_series_are_one_slide(tmp_path: Path, pyramid: dict[str, str]) -> None:
    for k in range(3):
        series = {"SeriesInstanceUID": f"1.2.{k}"}
        put(tmp_path, f"{k}", halved(WHOLE, k), k + 1, spacing=0.0005 * 2**k, **series, **pyramid)
    (slide,) = found(tmp_path)
    assert len(slide.levels) == 3


def test_series_without_a_pyramid_that_repeat_a_level_are_slides_of_their_own(
    tmp_path: Path,
) -> None:
    for series in range(2):
        for k in range(2):
            name = {"SeriesInstanceUID": f"1.2.{series}", "spacing": 0.0005 * 2**k}
            put(tmp_path, f"{series}{k}", halved(WHOLE, k), 10 * series + k, **name)
    slides = found(tmp_path)
    assert [len(slide.levels) for slide in slides] == [2, 2]
    assert [slide.positions.tolist() for slide in slides] == [list(range(16)), list(range(16, 32))]


@pytest.mark.parametrize(
    "keyword", ["FrameOfReferenceUID", "ContainerIdentifier", "StudyInstanceUID"]
)
def test_glasses_are_told_apart(tmp_path: Path, keyword: str) -> None:
    for k in range(2):
        name = {"SeriesInstanceUID": f"1.2.{k}", keyword: f"1.7.{k}"}
        put(tmp_path, f"{k}", halved(WHOLE, k), k + 1, spacing=0.0005 * 2**k, **name)
    assert len(found(tmp_path)) == 2


def test_two_scans_of_one_glass_are_two_slides(tmp_path: Path) -> None:
    from tests.support.phantoms import group

    other = [group(XOffsetInSlideCoordinateSystem=3, YOffsetInSlideCoordinateSystem=9)]
    for k in range(2):
        put(tmp_path, f"a{k}", halved(WHOLE, k), k + 1, spacing=0.0005 * 2**k)
        place = {"TotalPixelMatrixOriginSequence": other, "spacing": 0.0005 * 2**k}
        put(tmp_path, f"b{k}", halved(tissue(80, 60), k), k + 3, **place)
    assert sorted(sizes(slide) for slide in found(tmp_path)) == [
        [(64, 48), (32, 24)],
        [(80, 60), (40, 30)],
    ]


def test_labels_overviews_and_thumbnails_are_no_levels(tmp_path: Path) -> None:
    put(tmp_path, "0", WHOLE, 1)
    for k, flavor in enumerate(("LABEL", "OVERVIEW", "THUMBNAIL")):
        kind = ["ORIGINAL", "PRIMARY", flavor, "NONE"]
        put(tmp_path, flavor, halved(WHOLE, k + 1), k + 2, ImageType=kind)
    (slide,) = found(tmp_path)
    assert sizes(slide) == [(64, 48)]


def concatenation(folder: Path, chosen: list[int], **attributes: Any) -> None:
    """A level of 12 tiles in three parts of which some are written; parts say where they begin."""
    whole = level(WHOLE, number=1)
    size = 16 * 16 * 3
    for k in chosen:
        part = level(WHOLE, number=k + 2, **attributes)
        part.PixelData = whole.PixelData[4 * k * size : 4 * (k + 1) * size]
        part["PixelData"].VR = "OB"
        part.NumberOfFrames = 4
        part.ConcatenationUID = "1.2.3.4.5"
        part.InConcatenationNumber = k + 1
        part.InConcatenationTotalNumber = 3
        part.ConcatenationFrameOffsetNumber = 4 * k
        write(part, folder / f"part{9 - k}.dcm")  # files come in another order


def test_concatenations_are_joined(tmp_path: Path) -> None:
    concatenation(tmp_path, [0, 1, 2])
    (slide,) = found(tmp_path)
    grid = slide.levels[0].grid
    # Frames of the last part come first in the index.
    assert grid.tolist() == [[8, 9, 10], [11, 4, 5], [6, 7, 0], [1, 2, 3]]
    assert slide.notices == ()


def test_parts_of_a_concatenation_that_are_not_there_are_absent_and_told(tmp_path: Path) -> None:
    concatenation(tmp_path, [0, 2])
    (slide,) = found(tmp_path)
    assert (slide.levels[0].grid < 0).sum() == 4
    assert slide.notices == (
        "2 of the 3 parts of a concatenation are there; their tiles are absent",
    )


def test_each_optical_path_is_a_slide(tmp_path: Path) -> None:
    put(tmp_path, "0", np.stack([WHOLE, 255 - WHOLE]), 1)
    put(tmp_path, "1", np.stack([halved(WHOLE), 255 - halved(WHOLE)]), 2, spacing=0.001)
    slides = found(tmp_path)
    assert [slide.optical_path for slide in slides] == ["0", "1"]
    assert [sizes(slide) for slide in slides] == [[(64, 48), (32, 24)]] * 2
    assert slides[1].levels[0].grid[0].tolist() == [12, 13, 14]


def test_each_focal_plane_of_full_tiles_is_a_slide(tmp_path: Path) -> None:
    dataset = level(np.stack([WHOLE, WHOLE]), number=1)
    dataset.OpticalPathSequence = dataset.OpticalPathSequence[:1]
    dataset.TotalPixelMatrixFocalPlanes = 2
    write(dataset, tmp_path / "0.dcm")
    slides = found(tmp_path)
    assert [(slide.optical_path, slide.focal_plane) for slide in slides] == [("0", 0), ("0", 1)]
    assert slides[1].levels[0].grid[0].tolist() == [12, 13, 14]


def sparse(folder: Path, heights: list[tuple[int, int, float]]) -> None:
    dataset = level(WHOLE, places=[(row, column) for row, column, _ in heights])
    groups = [(row, column, height, "0") for row, column, height in heights]
    dataset.PerFrameFunctionalGroupsSequence = sparse_groups(groups)
    write(dataset, folder / "sparse.dcm")


def test_focal_planes_of_sparse_tiles_go_by_height_also_where_tiles_are_absent(
    tmp_path: Path,
) -> None:
    sparse(tmp_path, [(0, 0, 2.0), (0, 0, 0.0), (16, 16, 2.0)])
    slides = found(tmp_path)
    by_plane = {slide.focal_plane: slide.positions.tolist() for slide in slides}
    assert by_plane == {0: [1], 1: [0, 2]}


def test_a_slide_focused_anew_at_every_tile_has_one_plane(tmp_path: Path) -> None:
    places = every_place(WHOLE, 16)
    sparse(tmp_path, [(row, column, 0.1 * k) for k, (row, column) in enumerate(places)])
    (slide,) = found(tmp_path)
    assert len(slide.positions) == 12


def test_copies_of_an_instance_are_slides_of_their_own_and_say_so(tmp_path: Path) -> None:
    put(tmp_path, "0", WHOLE, 1)
    put(tmp_path, "1", WHOLE, 2)
    slides = found(tmp_path)
    assert len(slides) == 2
    assert all("several instances of a series have one level" in s.notices[0] for s in slides)


def test_parts_of_a_selection_are_slides_with_absent_tiles(tmp_path: Path) -> None:
    write_slide(tmp_path, 64, 48)
    index, _ = scan(tmp_path)
    some = index.select([16, 3, 0])
    (slide,) = pyramids(some)
    assert [level.positions.tolist() for level in slide.levels] == [[0], [1], [2]]
    assert slide.levels[0].grid[-1].tolist() == [-1, -1, 0]


def test_other_images_are_no_slides() -> None:
    assert pyramids(FrameIndex.build([], root=b"/")) == []
