"""Masks of files that the tests write: where planes land, what a pixel is, and what is refused."""

from __future__ import annotations

import logging
import pickle

import numpy as np
import pytest

from dicomtorch import scan
from dicomtorch.errors import FrameIndexError, GeometryError, OptionError, PixelValueError
from dicomtorch.masks.mask_index import MaskIndex
from dicomtorch.model.mask_object import SEGMENTATION, Code
from tests.support.mask_phantoms import (
    LABELMAP_STORAGE,
    code,
    item,
    segmentation,
    series,
    square,
    structures,
)


def masks_of(folder, **options):
    """The masks of the CT images of a folder."""
    index, _ = scan(folder)
    chosen = ~np.isin(index.column("SOPClassUID").tolist(), [SEGMENTATION, LABELMAP_STORAGE])
    return MaskIndex(index.select(chosen), index, **options)


def volume(masks, output="labels"):
    return np.stack([masks.mask(k, output)[0] for k in range(len(masks))])


def block(shape=(12, 16), rows=slice(2, 6), columns=slice(3, 9)):
    pixels = np.zeros(shape, np.uint8)
    pixels[rows, columns] = 1
    return pixels


# --- SEG --------------------------------------------------------------------------------------------


def test_sparse_overlapping_segments_become_labels_channels_and_areas(tmp_path):
    slices = series(tmp_path)
    one, two = block(), block(rows=slice(4, 9))
    segmentation(tmp_path / "seg.dcm", slices, [(1, 1, one), (2, 1, two), (2, 3, two)])
    masks = masks_of(tmp_path, overlap="first")
    assert masks.labels.names == ("first", "second", "third")
    channels = volume(masks, "channels")
    assert channels.shape == (4, 3, 12, 16)
    np.testing.assert_array_equal(channels[1], [one, two, 0 * one])
    np.testing.assert_array_equal(channels[3], [0 * one, two, 0 * one])
    assert not channels[[0, 2]].any()
    labels = volume(masks)
    np.testing.assert_array_equal(labels[1, 0], np.where(one, 1, 2 * two))
    last = volume(masks_of(tmp_path, overlap="last"))
    np.testing.assert_array_equal(last[1, 0], np.where(two, 2, one))
    np.testing.assert_array_equal(masks.areas(), channels.sum((2, 3)))
    assert masks.has("second").tolist() == [False, True, False, True]
    assert masks.has(2).tolist() == [False, True, False, True]
    with pytest.raises(PixelValueError, match=r"12 pixels belong to several of the labels 1, 2"):
        volume(masks_of(tmp_path))


def test_bits_of_frames_that_begin_inside_a_byte(tmp_path):
    shape = (23, 38)
    slices = series(tmp_path, 3, shape)
    frames = [(1, k, np.random.default_rng(k).integers(0, 2, shape)) for k in range(3)]
    segmentation(tmp_path / "seg.dcm", slices, frames, names=["one"])
    masks = masks_of(tmp_path)
    for k, (_, _, pixels) in enumerate(frames):
        np.testing.assert_array_equal(masks.mask(k)[0][0], pixels)
    assert masks.areas()[:, 0].tolist() == [int(p.sum()) for _, _, p in frames]


def test_empty_stored_frames_are_no_presence(tmp_path):
    slices = series(tmp_path)
    segmentation(
        tmp_path / "seg.dcm", slices, [(1, 0, block()), (1, 1, 0 * block())], names=["one"]
    )
    masks = masks_of(tmp_path)
    assert masks.has("one").tolist() == [True, False, False, False]
    assert masks.covered().tolist() == [True, True, False, False]
    assert masks.known(3).tolist() == [True]


def test_fractions(tmp_path):
    slices = series(tmp_path, 2)
    pixels = np.zeros((12, 16), np.uint8)
    pixels[0, :4] = 0, 127, 128, 255
    segmentation(tmp_path / "seg.dcm", slices, [(1, 0, pixels)], names=["one"], kind="FRACTIONAL")
    masks = masks_of(tmp_path)
    np.testing.assert_array_equal(
        masks.mask(0, "fraction")[0][0, 0, :4], np.float32([0, 127, 128, 255]) / np.float32(255)
    )
    assert masks.mask(0)[0][0, 0, :4].tolist() == [0, 0, 1, 1]
    assert masks_of(tmp_path, threshold=0.2).mask(0)[0][0, 0, :4].tolist() == [0, 1, 1, 1]


def test_labelmap_background_may_be_described_and_planes_may_be_absent(tmp_path):
    slices = series(tmp_path, 3)
    pixels = block() * 2 + block(rows=slice(8, 11))
    names = ["background", "one", "two"]
    segmentation(
        tmp_path / "seg.dcm", slices, [(0, 0, pixels), (0, 2, pixels)], names=names, kind="LABELMAP"
    )
    masks = masks_of(tmp_path)
    assert masks.labels.names == ("one", "two")
    found = volume(masks)
    np.testing.assert_array_equal(found[0, 0], pixels)
    np.testing.assert_array_equal(found[2, 0], pixels)
    assert not found[1].any()


def test_labelmap_value_without_a_segment_is_refused(tmp_path):
    slices = series(tmp_path, 1)
    segmentation(
        tmp_path / "seg.dcm", slices, [(0, 0, 5 * block())], names=["one"], kind="LABELMAP"
    )
    with pytest.raises(PixelValueError, match=r"a pixel is 5, which no item of \(0062,0002\)"):
        masks_of(tmp_path).mask(0)


def test_frame_of_another_size_lies_at_its_place(tmp_path):
    slices = series(tmp_path, 2, (20, 24))
    small = np.ones((10, 10), np.uint8)
    segmentation(tmp_path / "a.dcm", slices, [(1, (5, 3, 0), small)], names=["one"])
    mask = masks_of(tmp_path).mask(0)[0][0]
    assert mask[3:13, 5:15].all()
    assert mask.sum() == 100
    segmentation(tmp_path / "a.dcm", slices, [(1, (5.05, 3, 0), small)], names=["one"])
    np.testing.assert_array_equal(masks_of(tmp_path).mask(0)[0][0], mask)
    segmentation(tmp_path / "a.dcm", slices, [(1, (5.3, 3, 0), small)], names=["one"])
    with pytest.raises(GeometryError, match=r"0\.3 pixels off"):
        masks_of(tmp_path)
    np.testing.assert_array_equal(masks_of(tmp_path, resample="nearest").mask(0)[0][0], mask)


def test_position_decides_and_a_disagreeing_reference_is_told(tmp_path):
    slices = series(tmp_path, 8)
    segmentation(tmp_path / "seg.dcm", slices, [(1, 7, block())], names=["one"], references=[5])
    masks = masks_of(tmp_path)
    assert masks.has("one").tolist() == [False] * 7 + [True]
    (notice,) = masks.notices
    assert "1 frame lies elsewhere than the image named" in notice
    assert "(2 spacings)" in notice
    by_reference = masks_of(tmp_path, place="reference")
    assert np.flatnonzero(by_reference.has("one")).tolist() == [5]


def test_phases_at_one_place_are_told_apart_by_reference(tmp_path):
    slices = series(tmp_path, 12, ImagePositionPatient=lambda k: [0, 0, 2.0 * (k // 3)])
    frames = [(1, 3 * k + 1, block()) for k in range(4)]
    named = [3 * k + 1 for k in range(4)]
    segmentation(tmp_path / "seg.dcm", slices, frames, names=["one"], references=named)
    assert np.flatnonzero(masks_of(tmp_path).has("one")).tolist() == named
    segmentation(tmp_path / "seg.dcm", slices, frames, names=["one"])
    assert masks_of(tmp_path).has("one").all()


def test_without_a_space_the_named_image_counts(tmp_path):
    slices = series(tmp_path, 3, FrameOfReferenceUID="")
    for each in slices:
        del each.FrameOfReferenceUID
    segmentation(tmp_path / "seg.dcm", slices, [(1, 0, block())], names=["one"], references=[2])
    assert np.flatnonzero(masks_of(tmp_path).has("one")).tolist() == [2]
    other = block((6, 6))
    segmentation(tmp_path / "seg.dcm", slices, [(1, 0, other)], names=["one"], references=[2])
    with pytest.raises(GeometryError, match="other Rows and Columns"):
        masks_of(tmp_path)


def test_masks_of_another_patient_or_study_are_not_taken(tmp_path):
    slices = series(tmp_path, 2)
    segmentation(tmp_path / "a.dcm", slices, [(1, 0, block())], names=["one"], PatientID="other")
    segmentation(
        tmp_path / "b.dcm", slices, [(1, 0, block())], names=["one"], StudyInstanceUID="1.2.3"
    )
    masks = masks_of(tmp_path)
    assert not masks.areas().any()
    assert not masks.labelled().any()
    assert masks.table().column("reason").to_pylist() == [
        "its PatientID is not that of the images of its study",
        "no image of its study",
    ]


def test_segments_of_one_label_are_united_and_codes_are_labels(tmp_path):
    slices = series(tmp_path, 1)
    one, two, three = block(), block(rows=slice(5, 8)), block(rows=slice(9, 12))
    segmentation(tmp_path / "seg.dcm", slices, [(1, 0, one), (2, 0, two), (3, 0, three)])
    masks = masks_of(tmp_path, labels={"first|SECOND ?": 300, Code("SCT", "1003"): 7})
    assert masks.labels.names == ("first|SECOND ?", "SCT 1003")
    mask, areas = masks.mask(0)
    assert mask.dtype == np.int32
    np.testing.assert_array_equal(mask[0], 300 * (one | two).astype(np.int32) + 7 * three)
    assert areas.tolist() == [int((one | two).sum()), int(three.sum())]


def test_sides_are_told_apart_and_old_codes_are_known(tmp_path):
    slices = series(tmp_path, 1)

    def edit(dataset):
        for segment, side in zip(dataset.SegmentSequence, ("7771000", "24028007"), strict=False):
            kind = code("T-71000", "Kidney", "SRT")
            kind.SegmentedPropertyTypeModifierCodeSequence = [code(side, "side")]
            segment.SegmentedPropertyTypeCodeSequence = [kind]

    frames = [(1, 0, block()), (2, 0, block(rows=slice(8, 10)))]
    segmentation(tmp_path / "seg.dcm", slices, frames, names=["l", "r"], edit=edit)
    kidney = Code("SCT", "64033007", "kidney")
    assert masks_of(tmp_path, labels={kidney: 1}).mask(0)[1].tolist() == [24 + 12]
    right = Code("SCT", "64033007", "right kidney", modifier="24028007")
    assert masks_of(tmp_path, labels={right: 1}).mask(0)[1].tolist() == [12]


# --- Contours ---------------------------------------------------------------------------------------


def test_contours_fill_their_slice(tmp_path):
    slices = series(tmp_path, 4, spacing=2.0)
    rois = [
        ("Body", [(1, square(2, 5)), (2, square(0.5, 8.5)), (2, square(2.5, 6.5))]),
        ("Empty", []),
        ("Mark", []),
    ]
    structures(tmp_path / "rs.dcm", slices, rois)
    masks = masks_of(tmp_path, labels=["body", "empty"])
    assert masks.areas().tolist() == [[0, 0], [16, 0], [48, 0], [0, 0]]
    assert masks.known(0).tolist() == [True, True]
    table = masks.table().to_pydict()
    assert table["reason"] == ["", "no contours", "no contours"]
    assert table["on_images"] == [3, 0, 0]
    assert table["label"] == [1, 2, 0]
    assert masks_of(tmp_path, labels=["body"], path="half-open").areas()[:, 0].tolist() == [
        0,
        9,
        48,
        0,
    ]
    np.testing.assert_array_equal(volume(pickle.loads(pickle.dumps(masks))), volume(masks))


@pytest.mark.parametrize("wanted", ["seg", "rtstruct"])
def test_frames_that_there_are_not_are_refused(tmp_path, wanted):
    slices = series(tmp_path, 2)
    if wanted == "seg":
        segmentation(tmp_path / "seg.dcm", slices, [(1, k, np.ones((12, 16))) for k in range(2)])
    else:
        structures(tmp_path / "rs.dcm", slices, [("A", [(0, square(2, 5))])])
    masks = masks_of(tmp_path)
    asked = (
        masks.mask, masks.layers, masks.boxes, masks.shape, masks.known, masks.is_covered, masks.objects,
    )  # fmt: skip
    for ask in asked:
        ask(1)
        ask(np.int64(1))
        for position in (-1, 2, 1 << 70):
            with pytest.raises(FrameIndexError, match="outside the index, which has 2"):
                ask(position)
        for position in (1.0, "1", None):
            with pytest.raises(OptionError, match="whole number"):
                ask(position)


def test_arrays_that_a_mask_does_not_fit_are_refused(tmp_path):
    slices = series(tmp_path, 1)
    segmentation(tmp_path / "seg.dcm", slices, [(k, 0, np.ones((12, 16))) for k in (1, 2)])
    masks = masks_of(tmp_path, labels=["first", "second"], overlap="first")
    right = np.empty((2, 12, 16), np.uint8)
    assert masks.mask(0, "channels", right)[0] is right
    readonly = right.copy()
    readonly.flags.writeable = False
    wrong = [
        right[:1], right[:, :11], right[:, :, :15], right.astype(np.int32), right.astype(bool), right[0],
        right.tolist(),
    ]  # fmt: skip
    for out in wrong:
        with pytest.raises(OptionError, match=r"out must be \(2, 12, 16\) of uint8; got"):
            masks.mask(0, "channels", out)
    for out in (
        readonly,
        np.empty((2, 16, 12), np.uint8).swapaxes(1, 2),
        np.empty((2, 12, 32), np.uint8)[..., ::2],
    ):
        with pytest.raises(OptionError, match="writable, and each of its channels C-contiguous"):
            masks.mask(0, "channels", out)
    with pytest.raises(OptionError, match=r"out must be .* of float32; got .* of uint8"):
        masks.mask(0, "fraction", right)
    with pytest.raises(OptionError, match="output must be one of 'labels', 'channels', 'fraction'"):
        masks.mask(0, "bits")


def test_without_labels_there_is_an_empty_mask(tmp_path):
    series(tmp_path, 1)
    masks = masks_of(tmp_path)
    for output, shape in (
        ("labels", (1, 12, 16)),
        ("channels", (0, 12, 16)),
        ("fraction", (0, 12, 16)),
    ):
        mask, areas = masks.mask(0, output)
        assert (mask.shape, areas.shape, mask.any()) == (shape, (0,), False)


def test_boxes_begin_at_the_corner_of_the_first_pixel(tmp_path):
    slices = series(tmp_path, 1)
    structures(
        tmp_path / "rs.dcm", slices, [("A", [(0, square(2, 5))]), ("B", [(0, square(7, 8))])]
    )
    boxes, labels = masks_of(tmp_path).boxes(0)
    assert boxes.tolist() == [[2, 2, 6, 6], [7, 7, 9, 9]]
    assert labels.tolist() == [1, 2]


def test_repeated_contours_count_once_and_exclusive_ones_as_they_are(tmp_path, caplog):
    slices = series(tmp_path, 1)
    twice = [("A", [(0, square(1.5, 5.5)), (0, square(1.5, 5.5))])]
    structures(tmp_path / "rs.dcm", slices, twice)
    with caplog.at_level(logging.WARNING):
        assert masks_of(tmp_path).mask(0)[1].tolist() == [16]
    assert "is there twice; it counts once" in caplog.text
    structures(tmp_path / "rs.dcm", slices, twice, kind="CLOSEDPLANAR_XOR")
    assert masks_of(tmp_path).mask(0)[1].tolist() == [0]


def test_contours_that_cross_are_told(tmp_path, caplog):
    slices = series(tmp_path, 1)
    structures(tmp_path / "rs.dcm", slices, [("A", [(0, square(1.5, 4.5)), (0, square(3, 6))])])
    with caplog.at_level(logging.WARNING):
        assert masks_of(tmp_path).mask(0)[1].tolist() == [20]
    assert "4 pixels that both have are left out" in caplog.text


@pytest.mark.parametrize(
    ("kind", "points", "reason"),
    [
        ("POINT", [(2, 2)], "POINT has no inside"),
        ("OPEN_PLANAR", square(2, 5), "OPEN_PLANAR has no inside"),
        ("OPEN_NONPLANAR", square(2, 5), "OPEN_NONPLANAR has no inside"),
        ("CLOSED_PLANAR", [(2, 2), (5, 2)], "fewer than three points"),
    ],
)
def test_what_has_no_inside_is_listed(tmp_path, kind, points, reason):
    slices = series(tmp_path, 2)
    structures(tmp_path / "rs.dcm", slices, [("A", [(1, points)])], kind=kind)
    masks = masks_of(tmp_path)
    assert not masks.areas().any()
    assert masks.table().column("reason").to_pylist() == [reason]
    found = masks.points().to_pylist()
    assert [(p["x"], p["y"], p["z"]) for p in found] == ([(2, 2, 2)] if kind == "POINT" else [])


@pytest.mark.parametrize(("off", "taken"), [(0.09, True), (0.6, False)])
def test_contours_off_their_plane(tmp_path, off, taken):
    slices = series(tmp_path, 4, spacing=2.0)
    contour = [(u, v, 2.0 + off) for u, v in square(1.5, 4.5)]
    structures(tmp_path / "rs.dcm", slices, [("A", [contour])])
    if not taken:
        with pytest.raises(
            GeometryError, match=r"1 contour of 1 ROI lies between slices, up to 0\.6 mm"
        ):
            masks_of(tmp_path)
        assert not masks_of(tmp_path, between="drop").areas().any()
    found = masks_of(tmp_path, between="nearest").areas()[:, 0]
    assert found.tolist() == [0, 9, 0, 0]


def test_contours_farther_apart_than_slices_are_told(tmp_path):
    slices = series(tmp_path, 10, spacing=1.0)
    contours = [(k, square(1.5, 4.5)) for k in (0, 3, 6, 9)]
    structures(tmp_path / "rs.dcm", slices, [("A", contours)])
    masks = masks_of(tmp_path)
    assert np.flatnonzero(masks.has("A")).tolist() == [0, 3, 6, 9]
    assert (
        "contours of 1 ROIs are farther apart than the slices (3 mm, slices 1 mm"
        in masks.notices[0]
    )


def test_a_tilted_gantry_needs_nothing(tmp_path):
    tilt = np.deg2rad(20)
    slices = series(
        tmp_path,
        5,
        ImageOrientationPatient=[1, 0, 0, 0, float(np.cos(tilt)), float(-np.sin(tilt))],
        ImagePositionPatient=lambda k: [0, 0, 2.0 * k],
    )
    structures(tmp_path / "rs.dcm", slices, [("A", [(k, square(1.5, 5.5)) for k in range(5)])])
    found = volume(masks_of(tmp_path))
    assert found[0].sum() == 16
    assert (found == found[0]).all()


def test_contours_on_a_sagittal_series(tmp_path):
    slices = series(
        tmp_path,
        3,
        ImageOrientationPatient=[0, 1, 0, 0, 0, -1],
        ImagePositionPatient=lambda k: [2.0 * k, 0, 0],
    )
    rois = [("A", [(1, square(2, 5)), (2, square(0.5, 8.5)), (2, square(2.5, 6.5))])]
    structures(tmp_path / "rs.dcm", slices, rois)
    assert masks_of(tmp_path).areas()[:, 0].tolist() == [0, 16, 48]


def test_contours_drawn_on_another_orientation_are_refused(tmp_path):
    slices = series(tmp_path, 3)
    upright = [(2, 2, 2.0), (6, 2, 2.0), (6, 2, 9.0), (2, 2, 9.0)]
    structures(tmp_path / "rs.dcm", slices, [("A", [upright])])
    with pytest.raises(
        GeometryError, match=r"ROI 1 is not in the plane of the image .* 7 mm apart"
    ):
        masks_of(tmp_path).mask(1)


def test_another_space_is_taken_where_images_are_named_and_agree(tmp_path):
    slices = series(tmp_path, 2)
    rois = [("A", [(0, square(1.5, 5.5))])]
    structures(tmp_path / "rs.dcm", slices, rois, space="1.2.3.4")
    masks = masks_of(tmp_path)
    assert masks.areas()[:, 0].tolist() == [16, 0]
    assert "another FrameOfReferenceUID" in masks.notices[0]
    structures(tmp_path / "rs.dcm", slices, rois, space="1.2.3.4", names_images=False)
    masks = masks_of(tmp_path)
    assert not masks.areas().any()
    assert "no image of its FrameOfReferenceUID" in masks.table().column("reason").to_pylist()[0]


# --- Several objects --------------------------------------------------------------------------------


def two_objects(tmp_path):
    slices = series(tmp_path, 2)
    segmentation(tmp_path / "a.dcm", slices, [(1, 0, block())], names=["one"])
    later = block(rows=slice(8, 10))
    segmentation(tmp_path / "b.dcm", slices, [(1, 0, later)], names=["One "], ContentTime="130000")


def test_several_objects_of_one_label(tmp_path):
    two_objects(tmp_path)
    with pytest.raises(OptionError, match=r"object 0 \(.*a\.dcm\), object 1 \(.*b\.dcm\)"):
        masks_of(tmp_path, labels=["one"])
    assert masks_of(tmp_path, labels=["one"], choose="latest").mask(0)[1].tolist() == [12]
    assert masks_of(tmp_path, labels=["one"], choose="all").mask(0)[1].tolist() == [36]
    first = masks_of(tmp_path, labels=["one"], choose=lambda rows: rows[0])
    assert first.mask(0)[1].tolist() == [24]
    with pytest.raises(OptionError, match="must return rows"):
        masks_of(tmp_path, labels=["one"], choose=lambda rows: {"object": 9})


# --- Labels -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"(": 1}, "no regular expression"),
        ({"one": 0}, "1 or more"),
        ({"nothing": 1}, "matches none of 1 name of"),
        ({}, "empty"),
        (["one", "one"], "twice"),
        ("one", "must be a dict"),
        ({3: 1}, "a pattern or a Code"),
    ],
)
def test_labels_that_mean_nothing(tmp_path, labels, message):
    slices = series(tmp_path, 1)
    segmentation(tmp_path / "a.dcm", slices, [(1, 0, block())], names=["secret"])
    if labels and not isinstance(labels, str) and "one" in labels:
        segmentation(tmp_path / "a.dcm", slices, [(1, 0, block())], names=["one"])
    with pytest.raises(OptionError, match=message) as raised:
        masks_of(tmp_path, labels=labels)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "option",
    [
        {"place": "x"},
        {"between": "x"},
        {"choose": "x"},
        {"resample": "linear"},
        {"overlap": "x"},
        {"path": "out"},
        {"threshold": 0},
        {"kind": "x"},
    ],
)
def test_options_that_mean_nothing(tmp_path, option):
    series(tmp_path, 1)
    with pytest.raises(OptionError, match=next(iter(option))):
        masks_of(tmp_path, **option)


# --- Damage -----------------------------------------------------------------------------------------


def test_damaged_contours(tmp_path):
    slices = series(tmp_path, 1)
    rois = [("A", [(0, square(1.5, 5.5))])]

    def refused(edit, message):
        structures(tmp_path / "rs.dcm", slices, rois, edit=edit)
        with pytest.raises((PixelValueError, GeometryError), match=message):
            masks_of(tmp_path).mask(0)

    def contour(dataset):
        return dataset.ROIContourSequence[0].ContourSequence[0]

    def raw(data, count=4):
        def edit(dataset):
            element = contour(dataset)
            del element.ContourData
            element.add_new(0x30060050, "OB", data)
            element.NumberOfContourPoints = count

        return edit

    good = b"1\\1\\0\\5\\1\\0\\5\\5\\0\\1\\5\\"
    refused(raw(good + b"x "), "something else than numbers")
    refused(raw(good + b"nan "), "something else than numbers")
    refused(raw(good[:-1] + b" "), "11 numbers, and Number of Contour Points says 4")
    refused(raw(b"1\\1\\0\\5\\1\\0\\5\\5\\0\\1\\5\\1e308"), "not in the plane")
    refused(raw(b"1e308\\1\\0\\5\\1\\0\\5\\5\\0\\1\\5\\0 "), "no coordinates")
    refused(raw(good + b"0 ", 5), "12 numbers, and Number of Contour Points says 5")
    refused(raw(good + b"0 ", 5_000_000), r"Limits\.contour_points")

    def repeated(dataset):
        dataset.StructureSetROISequence = list(dataset.StructureSetROISequence) * 2

    def unknown(dataset):
        dataset.ROIContourSequence[0].ReferencedROINumber = 9

    def nameless(dataset):
        del dataset.StructureSetROISequence[0].ROINumber

    refused(repeated, r"\(3006,0022\) ROINumber is the same in two of 2 items")
    refused(unknown, r"\(3006,0084\) ReferencedROINumber of the contours is 9")
    refused(nameless, r"\(3006,0022\) ROINumber is absent")


def test_contour_data_in_vr_un_deflated_and_implicit_are_read(tmp_path):
    from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian

    slices = series(tmp_path, 1)
    rois = [("A", [(0, square(1.5, 5.5))])]
    for syntax in (DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian):

        def edit(dataset, syntax=syntax):
            dataset.file_meta.TransferSyntaxUID = syntax

        structures(tmp_path / "rs.dcm", slices, rois, edit=edit)
        assert masks_of(tmp_path).mask(0)[1].tolist() == [16]


def test_damaged_segmentations(tmp_path):
    slices = series(tmp_path, 1)

    def refused(edit, message):
        segmentation(tmp_path / "a.dcm", slices, [(1, 0, block())], names=["one", "two"], edit=edit)
        with pytest.raises(PixelValueError, match=message):
            masks_of(tmp_path)

    def stray(dataset):
        group = dataset.PerFrameFunctionalGroupsSequence[0]
        group.SegmentIdentificationSequence = [item(ReferencedSegmentNumber=9)]

    def twice(dataset):
        dataset.SegmentSequence[1].SegmentNumber = 1

    def kind(dataset):
        dataset.SegmentationType = "LABELED"

    refused(stray, r"\(0062,000B\) ReferencedSegmentNumber of a frame is 9")
    refused(twice, r"\(0062,0004\) SegmentNumber is the same in two of 2 items")
    refused(kind, r"\(0062,0001\) SegmentationType has 7 characters")


def test_a_changed_file_is_an_error(tmp_path):
    from dicomtorch.errors import StaleIndexError

    slices = series(tmp_path, 1)
    path = structures(tmp_path / "rs.dcm", slices, [("A", [(0, square(1.5, 5.5))])])
    masks = masks_of(tmp_path)
    path.write_bytes(path.read_bytes() + b"\0\0")
    with pytest.raises(StaleIndexError, match="object 0"):
        masks.mask(0)


def test_segmentations_with_too_few_pixels_are_refused(tmp_path):
    slices = series(tmp_path, 2)

    def edit(dataset):
        dataset.PixelData = dataset.PixelData[: len(dataset.PixelData) // 2]
        dataset["PixelData"].VR = "OB"

    frames = [(1, 0, block()), (1, 1, block())]
    segmentation(tmp_path / "a.dcm", slices, frames, names=["one"], edit=edit)
    index, report = scan(tmp_path)
    assert any("frames claimed" in finding.reason for finding in report.findings)
    with pytest.raises(
        PixelValueError, match=r"\(0028,0008\) NumberOfFrames is 2, and 1 are there"
    ):
        MaskIndex(index.filter(Modality="CT"), index)


@pytest.mark.parametrize("number", [0, 99, -3])
def test_frame_numbers_that_no_image_has_name_nothing(tmp_path, number):
    slices = series(tmp_path, 3, ImagePositionPatient=lambda k: [0, 0, 0])

    def edit(dataset):
        for group in dataset.PerFrameFunctionalGroupsSequence:
            source = group.DerivationImageSequence[0].SourceImageSequence[0]
            source.ReferencedFrameNumber = number

    segmentation(
        tmp_path / "a.dcm", slices, [(1, 0, block())], names=["one"], references=[1], edit=edit
    )
    found = np.flatnonzero(masks_of(tmp_path).has("one")).tolist()
    assert found == ([1] if number <= 0 else [0, 1, 2])


def test_contours_of_nothing_but_separators_and_of_very_many_points(tmp_path):
    slices = series(tmp_path, 1)
    rois = [("A", [(0, square(1.5, 5.5))])]

    def written(data, count):
        def edit(dataset):
            contour = dataset.ROIContourSequence[0].ContourSequence[0]
            del contour.ContourData
            contour.add_new(0x30060050, "OB", data)
            contour.NumberOfContourPoints = count

        structures(tmp_path / "rs.dcm", slices, rois, edit=edit)

    written(b"\\" * 12, 4)
    with pytest.raises(
        PixelValueError, match=r"\(3006,0050\) ContourData of 1 contour does not begin"
    ):
        masks_of(tmp_path)
    written(b"1\\1\\0\\" * 10, 10_000_000)
    with pytest.raises(PixelValueError, match=r"10000000, more than Limits\.contour_points"):
        masks_of(tmp_path)


def test_bits_in_big_endian_words(tmp_path):
    """Explicit VR Big Endian: the bytes of 16-bit words are swapped, those of bits too (PS3.5 section 8.1.1)."""
    from pydicom.uid import ExplicitVRBigEndian

    slices = series(tmp_path, 2, (8, 32))
    frames = [(1, k, np.random.default_rng(k).integers(0, 2, (8, 32))) for k in range(2)]

    def edit(dataset):
        dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        words = np.frombuffer(dataset.PixelData, np.uint16)
        dataset.PixelData = words.byteswap().tobytes()
        dataset["PixelData"].VR = "OW"

    segmentation(tmp_path / "seg.dcm", slices, frames, names=["one"], edit=edit)
    masks = masks_of(tmp_path)
    for k, (_, _, pixels) in enumerate(frames):
        np.testing.assert_array_equal(masks.mask(k)[0][0], pixels)
    assert masks.areas()[:, 0].tolist() == [int(pixels.sum()) for _, _, pixels in frames]


def test_sampled_objects_are_chosen_among_and_keep_their_threshold(tmp_path):
    """Two SEGs off the pixels: the later one alone where that is asked for, fractions from the threshold on."""
    slices = series(tmp_path, 2)
    first, second = block(), block(rows=slice(8, 11))
    place = (0.4, 0.0, 0.0)
    segmentation(tmp_path / "a.dcm", slices, [(1, place, first)], names=["one"])
    fractions = np.where(second, 100, 0).astype(np.uint8)
    segmentation(
        tmp_path / "b.dcm",
        slices,
        [(1, place, fractions)],
        names=["one"],
        kind="FRACTIONAL",
        ContentTime="130000",
    )
    options = {"labels": ["one"], "resample": "nearest", "threshold": 0.3}
    with pytest.raises(OptionError, match="several objects give the label 1"):
        masks_of(tmp_path, **options)
    latest = masks_of(tmp_path, choose="latest", **options)
    np.testing.assert_array_equal(latest.mask(0)[0][0], second)
    union = masks_of(tmp_path, choose="all", **options)
    np.testing.assert_array_equal(union.mask(0)[0][0], first | second)
    high = masks_of(tmp_path, choose="latest", **(options | {"threshold": 0.5}))
    assert not high.areas().any()
