"""What doctor says of masks, each on files made for it; names of structures are in none of it."""

from __future__ import annotations

import numpy as np

from dicomtorch import scan
from dicomtorch.reports.mask_checks import of_masks
from tests.support.mask_phantoms import object_like, segmentation, series, square, structures
from tests.support.phantoms import write


def remarks(folder):
    index, _ = scan(folder)
    found = of_masks(index)
    assert not any("Miller" in remark.text for remark in found)
    return {remark.check: remark for remark in found}


def block():
    pixels = np.zeros((12, 16), np.uint8)
    pixels[2:6, 3:9] = 1
    return pixels


def test_nothing_without_masks_or_with_masks_in_order(tmp_path):
    slices = series(tmp_path, 3)
    assert remarks(tmp_path) == {}
    segmentation(tmp_path / "seg.dcm", slices, [(1, 0, block())], names=["one"])
    assert remarks(tmp_path) == {}


def test_segments_that_match_no_image_with_the_reason(tmp_path):
    slices = series(tmp_path, 3)
    segmentation(
        tmp_path / "a.dcm", slices, [(1, 0, block())], names=["Miller"], StudyInstanceUID="1.2"
    )
    structures(tmp_path / "b.dcm", slices, [("Miller", [])])
    found = remarks(tmp_path)["masks_nowhere"]
    assert found.level == "warning"
    assert "2 segments of masks make no pixel" in found.text
    assert "1: no image of its study" in found.text
    assert "1: no contours" in found.text
    assert "0/1, 1/1" in found.text


def test_objects_that_nothing_is_made_of(tmp_path):
    slices = series(tmp_path, 1)
    surface = object_like(slices[0], "1.2.840.10008.5.1.4.1.1.66.5", "SEG", "surface")
    write(surface, tmp_path / "surface.dcm")
    text = remarks(tmp_path)["masks_nowhere"].text
    assert text == (
        "1 segment of masks makes no pixel (1: a Surface Segmentation holds surfaces, no pixels)"
    )


def test_contours_between_slices_and_what_is_odd(tmp_path):
    slices = series(tmp_path, 6, spacing=2.0)
    off = [(u, v, 2.6) for u, v in square(1.5, 4.5)]
    structures(tmp_path / "b.dcm", slices, [("Miller", [off])])
    assert "lies between slices" in remarks(tmp_path)["masks_off"].text
    rois = [("Miller", [(k, square(1.5, 4.5)) for k in (0, 2, 4)])]
    structures(tmp_path / "b.dcm", slices, rois)
    assert "farther apart than the slices" in remarks(tmp_path)["masks_odd"].text


def test_pixels_of_several_labels_and_names_written_differently(tmp_path):
    slices = series(tmp_path, 2)
    frames = [(1, 0, block()), (2, 0, block())]
    segmentation(tmp_path / "a.dcm", slices, frames, names=["Left Miller", "other"])
    structures(tmp_path / "b.dcm", slices, [("left  miller", [(1, square(1, 3))])])
    found = remarks(tmp_path)
    assert "1 of 2 frames looked at have pixels of several labels" in found["masks_overlap"].text
    assert found["masks_names"].text.endswith("object/number 0/1 and 1/1")


def test_damage_is_a_problem(tmp_path):
    slices = series(tmp_path, 2)

    def edit(dataset):
        dataset.SegmentationType = "LABELED"

    segmentation(tmp_path / "a.dcm", slices, [(1, 0, block())], names=["Miller"], edit=edit)
    found = remarks(tmp_path)["masks_damaged"]
    assert found.level == "problem"
    assert "SegmentationType" in found.text
    assert str(tmp_path) not in found.text  # the file is named beside it, or not at all
    assert len(found.files) == 1
