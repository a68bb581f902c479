"""Structured reports (TID 1500) and bulk annotations: as a table, as points and boxes, and filled."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import UID

from dicomtorch import Code, DicomFrames, MaskIndex, read_annotations, scan
from dicomtorch.errors import OptionError, PixelValueError
from dicomtorch.model.mask_object import BULK_ANNOTATIONS, OTHERS, SHAPES
from tests.masks.test_real_files import HIGHDICOM, sample
from tests.support.mask_phantoms import (
    SPACE,
    code,
    item,
    object_like,
    segmentation,
    series,
    slide,
    to_patient,
)
from tests.support.phantoms import ct, write
from tests.support.requirements import require

COMPREHENSIVE_3D = "1.2.840.10008.5.1.4.1.1.88.34"


def shape_file(path: Path, image: Dataset, groups, *, edit=None, **attributes) -> Path:
    """Bulk annotations: (label, graphic type, list of arrays (n, 2 or 3)) for each group."""
    dataset = object_like(image, BULK_ANNOTATIONS, "ANN", path.name)
    dataset.AnnotationCoordinateType = "2D"
    dataset.PixelOriginInterpretation = "VOLUME"
    dataset.ReferencedImageSequence = [
        item(ReferencedSOPClassUID=image.SOPClassUID, ReferencedSOPInstanceUID=image.SOPInstanceUID)
    ]
    dataset.AnnotationGroupSequence = []
    for number, (label, kind, shapes) in enumerate(groups, 1):
        points = np.concatenate([np.asarray(each, np.float32) for each in shapes])
        group = item(
            AnnotationGroupNumber=number,
            AnnotationGroupLabel=label,
            AnnotationPropertyTypeCodeSequence=[code(f"{number}00", label)],
            GraphicType=kind,
            NumberOfAnnotations=len(shapes),
            PointCoordinatesData=points.tobytes(),
        )
        if kind in ("POLYGON", "POLYLINE"):
            sizes = np.cumsum([0, *(np.asarray(each).size for each in shapes[:-1])])
            group.LongPrimitivePointIndexList = (sizes + 1).astype(np.uint32).tobytes()
        dataset.AnnotationGroupSequence.append(group)
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    if edit is not None:
        edit(dataset)
    return write(dataset, path)


def named(name: str, value: str, kind: str, **more) -> Dataset:
    """An item of the content of a report."""
    return item(
        RelationshipType="CONTAINS",
        ValueType=kind,
        ConceptNameCodeSequence=[code(value, name, "DCM")],
        **more,
    )


def region(kind: str, points, image: Dataset | None = None, frame: int = 0, **more) -> Dataset:
    """A region on an image, or in space without one."""
    data = [float(x) for x in np.asarray(points).reshape(-1)]
    found = named("Image Region", "111030", "SCOORD3D", GraphicType=kind, GraphicData=data)
    if image is None:
        found.ReferencedFrameOfReferenceUID = SPACE
    else:
        found.ValueType = "SCOORD"
        reference = item(
            ReferencedSOPClassUID=image.SOPClassUID, ReferencedSOPInstanceUID=image.SOPInstanceUID
        )
        if frame:
            reference.ReferencedFrameNumber = frame
        found.ContentSequence = [
            item(
                RelationshipType="SELECTED FROM",
                ValueType="IMAGE",
                ReferencedSOPSequence=[reference],
            )
        ]
    for keyword, value in more.items():
        setattr(found, keyword, value)
    return found


def report(path: Path, image: Dataset, groups, edit=None) -> Path:
    """A report with measurement groups of the items given."""
    dataset = object_like(image, COMPREHENSIVE_3D, "SR", path.name)
    dataset.ValueType = "CONTAINER"
    dataset.ConceptNameCodeSequence = [code("126000", "Imaging Measurement Report", "DCM")]
    measured = named("Imaging Measurements", "126010", "CONTAINER")
    measured.ContentSequence = [
        named("Measurement Group", "125007", "CONTAINER", ContentSequence=list(items))
        for items in groups
    ]
    dataset.ContentSequence = [measured]
    if edit is not None:
        edit(dataset)
    return write(dataset, path)


def finding(value: str, meaning: str) -> Dataset:
    return named("Finding", "121071", "CODE", ConceptCodeSequence=[code(value, meaning)])


# --- Bulk annotations -------------------------------------------------------------------------------


def test_points_of_a_slide_lie_on_their_tiles(tmp_path):
    """Two points of a matrix of 50 x 50 pixels in tiles of 10 x 10."""
    image = slide(tmp_path, 10)
    points = np.array([(34.6, 18.4), (28.7, 34.9)])
    shape_file(tmp_path / "ann.dcm", image, [("nucleus", "POINT", [p[None] for p in points])])
    table = read_annotations(tmp_path / "ann.dcm").to_pylist()
    assert [row["points"] for row in table] == [pytest.approx(p) for p in points.tolist()]
    assert {row["space"] for row in table} == {"matrix"}
    frames = DicomFrames(tmp_path, points="ann", values="stored")
    found = {k: frames[k][1]["points"].tolist() for k in range(25) if len(frames[k][1]["points"])}
    assert list(found) == [8, 17]
    assert found[8][0] == pytest.approx((4.6, 8.4), abs=1e-5)
    assert found[17][0] == pytest.approx((8.7, 4.9), abs=1e-5)
    assert [tuple(map(int, found[k][0])) for k in (8, 17)] == [(4, 8), (8, 4)]
    with pytest.raises(OptionError, match="there are points alone; points= takes points"):
        DicomFrames(tmp_path, masks="ann", values="stored")


def test_points_of_a_public_file_lie_on_their_tiles(tmp_path):
    path = sample(f"{HIGHDICOM}/sm_annotations.dcm")
    shutil.copy(path, tmp_path / "ann.dcm")
    (first, *_) = read_annotations(path).to_pylist()
    image = slide(tmp_path, 10)
    image.SOPInstanceUID = first["SOPInstanceUID"]
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    write(image, tmp_path / "slide.dcm")
    frames = DicomFrames(tmp_path, points="ann", values="stored")
    found = {k: frames[k][1]["points"].tolist() for k in range(25) if len(frames[k][1]["points"])}
    assert {8, 17} <= found.keys()
    assert any(point == pytest.approx((4.6, 8.4), abs=0.06) for point in found[8])
    assert any(point == pytest.approx((8.7, 4.9), abs=0.06) for point in found[17])


def test_outlines_of_a_slide_are_cut_at_tiles(tmp_path):
    image = slide(tmp_path, 10)
    polygon = [(8, 8), (13, 8), (13, 12), (8, 12)]
    other = [(40, 40), (44, 40), (44, 44)]
    round_one = [(20, 25), (30, 25), (25, 20), (25, 30)]
    groups = [
        ("a", "POLYGON", [polygon, other]),
        ("b", "RECTANGLE", [[(0, 0), (3, 0), (3, 2), (0, 2)]]),
        ("c", "ELLIPSE", [round_one]),
        ("d", "POLYLINE", [[(1, 1), (4, 4)]]),
    ]
    shape_file(tmp_path / "ann.dcm", image, groups)
    frames = DicomFrames(tmp_path, masks="ann", values="stored", unlabelled="zero")
    assert frames.labels.names == ("a", "b", "c", "d")
    whole = np.zeros((50, 50), np.uint8)
    for k in range(25):
        row, column = 10 * (k // 5), 10 * (k % 5)
        whole[row : row + 10, column : column + 10] = frames[k][1][0]
    rows, columns = np.mgrid[:50, :50] + 0.5
    expected = np.zeros((50, 50), np.uint8)
    expected[8:12, 8:13] = 1
    expected[(columns >= 40) & (columns <= 44) & (rows >= 40) & (rows - 40 <= columns - 40)] = 1
    expected[:2, :3] = 2
    expected[(rows - 25) ** 2 + (columns - 25) ** 2 <= 25] = 3
    np.testing.assert_array_equal(whole, expected)
    boxes = DicomFrames(tmp_path, boxes="ann", labels=["a"], values="stored")
    assert boxes[0][1]["boxes"].tolist() == [[8, 8, 10, 10]]
    assert boxes[6][1]["boxes"].tolist() == [[0, 0, 3, 2]]
    assert sum(len(boxes[k][1]["boxes"]) for k in range(25)) == 5
    table = frames.masks.table().to_pylist()
    assert [row["planes"] for row in table] == [2, 1, 1, 1]
    code_of_b = DicomFrames(tmp_path, boxes="ann", labels={Code("SCT", "200"): 7}, values="stored")
    assert code_of_b[0][1]["labels"].tolist() == [7]


def test_annotations_of_highdicom_are_what_it_was_given(tmp_path):
    require("highdicom")
    import highdicom as hd
    import pydicom

    image = pydicom.dcmread(sample(f"{HIGHDICOM}/sm_image_grayscale.dcm"))
    generator = np.random.default_rng(0)
    shapes = [generator.uniform(0, 50, (n, 2)) for n in (3, 7, 4)]
    tissue = hd.sr.CodedConcept("85756007", "SCT", "Tissue")
    group = hd.ann.AnnotationGroup(1, hd.UID(), "cell", tissue, tissue, "POLYGON", shapes, "MANUAL")
    made = hd.ann.MicroscopyBulkSimpleAnnotations(
        [image], "2D", [group], hd.UID(), 1, hd.UID(), 1, "maker", "model", "1.0", "serial"
    )
    made.save_as(tmp_path / "ann.dcm")
    rows = read_annotations(tmp_path / "ann.dcm").to_pylist()
    assert {row["SOPInstanceUID"] for row in rows} == {image.SOPInstanceUID}
    for row, expected in zip(rows, shapes, strict=True):
        np.testing.assert_allclose(np.reshape(row["points"], (-1, 2)), expected, rtol=1e-6)


def test_annotations_of_one_frame_and_in_space(tmp_path):
    slices = series(tmp_path / "ct", 3, (16, 16))
    frame = [(2, 3), (8, 3), (8, 7), (2, 7)]
    shape_file(
        tmp_path / "ct" / "a.dcm",
        slices[1],
        [("box", "RECTANGLE", [frame])],
        PixelOriginInterpretation="FRAME",
    )
    masks = DicomFrames(tmp_path / "ct", masks="ann")
    assert [int(masks[k][1].sum()) for k in range(3)] == [0, 24, 0]
    (tmp_path / "ct" / "a.dcm").unlink()
    flat = [(u - 0.5, v - 0.5) for u, v in frame]
    shape_file(
        tmp_path / "ct" / "b.dcm",
        slices[0],
        [("box", "RECTANGLE", [flat])],
        edit=lambda ann: setattr(ann.AnnotationGroupSequence[0], "CommonZCoordinateValue", 4.0),
        AnnotationCoordinateType="3D",
        FrameOfReferenceUID=SPACE,
    )
    masks = DicomFrames(tmp_path / "ct", masks="ann")
    assert [int(masks[k][1].sum()) for k in range(3)] == [0, 0, 24]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"GraphicType": "SPIRAL"}, r"\(0070,0023\) GraphicType has 6 characters"),
        ({"NumberOfAnnotations": 3}, r"\(006A,000C\) NumberOfAnnotations is 3, and there are 2"),
        ({"PointCoordinatesData": b"12345"}, r"PointCoordinatesData is absent or cut off"),
        ({"PointCoordinatesData": bytes(12)}, "3 numbers, which are no points of 2 coordinates"),
        (
            {"PointCoordinatesData": np.full(16, np.nan, np.float32).tobytes()},
            "a number that is not finite",
        ),
        ({"LongPrimitivePointIndexList": b""}, r"\(0066,0040\) LongPrimitivePointIndexList is no"),
        (
            {"LongPrimitivePointIndexList": np.array([1, 4], np.uint32).tobytes()},
            r"\(0066,0040\) LongPrimitivePointIndexList is no",
        ),
        (
            {"LongPrimitivePointIndexList": np.array([1, 999], np.uint32).tobytes()},
            r"\(0066,0040\) LongPrimitivePointIndexList is no",
        ),
    ],
)
def test_damaged_annotations_are_named(tmp_path, change, message):
    image = slide(tmp_path, 10)
    square = [(1, 1), (5, 1), (5, 5), (1, 5)]

    def edit(dataset):
        for keyword, value in change.items():
            setattr(dataset.AnnotationGroupSequence[0], keyword, value)

    shape_file(tmp_path / "ann.dcm", image, [("secret", "POLYGON", [square, square])], edit=edit)
    with pytest.raises(PixelValueError, match=message) as raised:
        read_annotations(tmp_path)
    assert "ann.dcm" in str(raised.value)
    assert "secret" not in str(raised.value)


# --- Structured reports -----------------------------------------------------------------------------


def circle_case(tmp_path):
    pixels = np.zeros((128, 128), np.int16)
    image = ct(pixels, 0, FrameOfReferenceUID=SPACE)
    write(image, tmp_path / "ct.dcm")
    return image


def test_a_circle_is_filled_and_has_a_box(tmp_path):
    image = circle_case(tmp_path)
    items = [
        named("Tracking Identifier", "112039", "TEXT", TextValue="lesion of somebody"),
        named("Tracking Unique Identifier", "112040", "UIDREF", UID="1.2.3"),
        finding("4147007", "Mass"),
        region("CIRCLE", [(58, 52), (58, 41)], image),
        named(
            "Diameter",
            "0",
            "NUM",
            MeasuredValueSequence=[
                item(NumericValue="22.5", MeasurementUnitsCodeSequence=[code("mm", "mm", "UCUM")])
            ],
        ),
    ]
    report(tmp_path / "sr.dcm", image, [items])
    (row,) = read_annotations(tmp_path).to_pylist()
    assert (row["name"], row["code"], row["graphic_type"]) == ("Mass", "SCT 4147007", "CIRCLE")
    assert (row["tracking_id"], row["tracking_uid"]) == ("lesion of somebody", "1.2.3")
    assert (row["SOPInstanceUID"], row["frame"]) == (image.SOPInstanceUID, -1)
    assert row["points"] == [58, 52, 58, 41]
    assert row["measurements"] == [
        {"name": "Diameter", "code": "DCM 0", "value": 22.5, "unit": "mm"}
    ]
    _, mask, _ = DicomFrames(tmp_path, masks="sr")[0]
    rows, columns = np.mgrid[:128, :128] + 0.5
    inside = (columns - 58) ** 2 + (rows - 52) ** 2 <= 121
    np.testing.assert_array_equal(mask[0], inside)
    assert mask.sum() == 384
    boxes = DicomFrames(tmp_path, boxes="sr")
    assert boxes[0][1]["boxes"].tolist() == [[47, 41, 69, 63]]
    # The same through a table, and through the file.
    for given in (read_annotations(tmp_path), tmp_path / "sr.dcm"):
        assert DicomFrames(tmp_path, boxes=given)[0][1]["boxes"].tolist() == [[47, 41, 69, 63]]
        assert DicomFrames(tmp_path, masks=given)[0][1].sum() == 384


def test_all_graphic_types_of_reports(tmp_path):
    image = circle_case(tmp_path)
    closed = [(10, 10), (20, 10), (20, 15), (10, 10)]
    turned = [(30, 30), (50, 50), (35, 45), (45, 35)]  # the ends of two axes at 45 degrees
    bounded = [(60, 60), (70, 60), (70, 75), (60, 75), (60, 60)]
    groups = [
        [finding("1", "point"), region("POINT", [(5.5, 6.5)], image)],
        [finding("2", "points"), region("MULTIPOINT", [(1, 2), (3, 4)], image)],
        [finding("3", "open"), region("POLYLINE", [(1, 1), (9, 9)], image)],
        [finding("4", "closed"), region("POLYLINE", closed, image)],
        [finding("5", "round"), region("ELLIPSE", turned, image)],
        [
            finding("6", "bounded"),
            region("POLYLINE", bounded, image),
            item(
                ValueType="CODE",
                ConceptNameCodeSequence=[code("130400", "Geometric purpose of region", "DCM")],
                ConceptCodeSequence=[code("75958009", "Bounded by")],
            ),
        ],
    ]
    report(tmp_path / "sr.dcm", image, groups)
    points = DicomFrames(tmp_path, points="sr")[0][1]
    assert points["points"].tolist() == [[5.5, 6.5], [1, 2], [3, 4]]
    target = DicomFrames(tmp_path, boxes="sr")
    found = dict(zip(target[0][1]["labels"].tolist(), target[0][1]["boxes"].tolist(), strict=True))
    reach = np.hypot(10, 5)
    names = ["bounded", "closed", "open", "point", "points", "round"]
    number = {name: k for k, name in enumerate(names, 1)}
    assert found[number["closed"]] == [10, 10, 20, 15]
    assert found[number["bounded"]] == [60, 60, 70, 75]
    np.testing.assert_allclose(
        found[number["round"]], [40 - reach, 40 - reach, 40 + reach, 40 + reach], rtol=1e-6
    )
    assert len(found) == 3
    masks = DicomFrames(tmp_path, masks="sr", labels=["closed", "round", "bounded", "open"])
    mask = masks[0][1][0].numpy()
    rows, columns = np.mgrid[:128, :128] + 0.5
    along, across = (columns + rows - 80) / np.sqrt(2), (columns - rows) / np.sqrt(2)
    half = np.array([np.hypot(10, 10), np.hypot(5, 5)])
    expected = (along / half[0]) ** 2 + (across / half[1]) ** 2 <= 1
    np.testing.assert_array_equal(mask == 2, expected)
    assert (mask == 1).sum() == 25
    assert not (mask >= 3).any()


def test_regions_in_space_lie_on_the_slices_in_their_plane(tmp_path):
    slices = series(tmp_path, 4, (16, 16))
    corners = [(1.5, 2.5), (6.5, 2.5), (6.5, 5.5), (1.5, 5.5)]
    here = [to_patient(slices[2], u, v) for u, v in corners]
    between = [(x, y, z + 1) for x, y, z in here]
    groups = [
        [finding("1", "there"), region("POLYGON", here)],
        [finding("2", "between"), region("POLYGON", between)],
        [finding("3", "mark"), region("POINT", [to_patient(slices[1], 4, 7)])],
        [finding("4", "ball"), region("ELLIPSOID", [here[0]] * 6)],
    ]
    report(tmp_path / "sr.dcm", slices[0], groups)
    frames = DicomFrames(tmp_path, masks="sr", labels=["there", "between", "mark", "ball"])
    assert frames.masks.areas().tolist() == [[0] * 4, [0] * 4, [15, 0, 0, 0], [0] * 4]
    rows = frames.masks.table().to_pylist()
    assert [row["on_images"] for row in rows] == [1, 0, 1, 0]
    assert rows[1]["reason"] == "no image has them"
    points = DicomFrames(tmp_path, points="sr")
    assert [points[k][1]["points"].tolist() for k in range(4)] == [[], [[4.5, 7.5]], [], []]


def test_a_group_may_name_a_segment(tmp_path):
    slices = series(tmp_path, 2, (12, 16))
    segmentation(tmp_path / "seg.dcm", slices, [(1, 0, np.eye(12, 16))], names=["one"])
    reference = item(
        ReferencedSOPClassUID="1.2.840.10008.5.1.4.1.1.66.4",
        ReferencedSOPInstanceUID="1.2.3.4",
        ReferencedSegmentNumber=1,
    )
    items = [
        finding("1", "thing"),
        named("Referenced Segment", "121191", "IMAGE", ReferencedSOPSequence=[reference]),
    ]
    report(tmp_path / "sr.dcm", slices[0], [items])
    (row,) = read_annotations(tmp_path).to_pylist()
    assert (row["segmentation"], row["segment"], row["points"]) == ("1.2.3.4", 1, [])
    # masks=True takes the SEG, and no report.
    assert DicomFrames(tmp_path, masks=True)[0][1].sum() == 12


def test_reports_of_highdicom_are_what_it_was_given(tmp_path):
    require("highdicom")
    import highdicom as hd
    import pydicom
    from pydicom.data import get_testdata_file

    image = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
    shutil.copy(str(get_testdata_file("CT_small.dcm")), tmp_path / "ct.dcm")
    mass = hd.sr.CodedConcept("4147007", "SCT", "Mass")
    group = hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        hd.sr.TrackingIdentifier(hd.UID(), "one"),
        hd.sr.ImageRegion(
            "CIRCLE",
            np.array([(58.0, 52.0), (58.0, 41.0)]),
            hd.sr.SourceImageForRegion(image.SOPClassUID, image.SOPInstanceUID),
        ),
        finding_type=mass,
        measurements=[
            hd.sr.Measurement(
                hd.sr.CodedConcept("410668003", "SCT", "Length"),
                10.5,
                hd.sr.CodedConcept("mm", "UCUM", "millimeter"),
            )
        ],
    )
    observer = hd.sr.ObserverContext(
        hd.sr.CodedConcept("121006", "DCM", "Person"),
        hd.sr.PersonObserverIdentifyingAttributes("Some^Body"),
    )
    content = hd.sr.MeasurementReport(
        hd.sr.ObservationContext(observer),
        hd.sr.CodedConcept("25045-6", "LN", "CT unspecified body region"),
        [group],
    )
    made = hd.sr.Comprehensive3DSR([image], content, hd.UID(), 1, hd.UID(), 1, "maker")
    made.save_as(tmp_path / "sr.dcm")
    (row,) = read_annotations(tmp_path / "sr.dcm").to_pylist()
    assert (row["name"], row["graphic_type"], row["points"]) == ("Mass", "CIRCLE", [58, 52, 58, 41])
    assert [(m["name"], m["value"], m["unit"]) for m in row["measurements"]] == [
        ("Length", 10.5, "mm")
    ]
    frames = DicomFrames(tmp_path, masks="sr")
    assert int(frames[0][1].sum()) == 384


@pytest.mark.parametrize(
    ("kind", "points", "message"),
    [
        ("CIRCLE", [(1, 1)], "GraphicType CIRCLE cannot have the 1 points"),
        ("ELLIPSE", [(1, 1)] * 3, "GraphicType ELLIPSE cannot have the 3 points"),
        ("STAR", [(1, 1)] * 3, r"GraphicType \(unknown\) cannot"),
        ("POINT", [1, 2, 3], "3 numbers, which are no points of 2"),
        ("POINT", [], "0 numbers, which are no points"),
    ],
)
def test_damaged_reports_are_named(tmp_path, kind, points, message):
    image = circle_case(tmp_path)
    report(tmp_path / "sr.dcm", image, [[finding("1", "a"), region(kind, points, image)]])
    with pytest.raises(PixelValueError, match=message) as raised:
        read_annotations(tmp_path)
    assert "sr.dcm" in str(raised.value)


def test_reports_of_other_templates_and_without_end_are_refused(tmp_path):
    image = circle_case(tmp_path)
    report(tmp_path / "sr.dcm", image, [])
    with pytest.raises(PixelValueError, match=r"no measurement group \(125007, DCM\)"):
        read_annotations(tmp_path)

    def deep(dataset):
        for _ in range(80):
            dataset.ContentSequence = [
                named("Deep", "1", "CONTAINER", ContentSequence=dataset.ContentSequence)
            ]

    report(tmp_path / "sr.dcm", image, [[]], edit=deep)
    with pytest.raises(PixelValueError, match=r"cannot be read|levels deep"):
        read_annotations(tmp_path)
    write_damaged(tmp_path / "sr.dcm")
    assert read_annotations(tmp_path).num_rows == 0


def write_damaged(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


# --- What is not used -------------------------------------------------------------------------------


@pytest.mark.parametrize("sop_class", OTHERS)
def test_objects_that_nothing_is_made_of_are_named_with_a_reason(tmp_path, sop_class):
    slices = series(tmp_path, 1)
    dataset = object_like(slices[0], sop_class, "SEG", "other")
    write(dataset, tmp_path / "other.dcm")
    with pytest.raises(OptionError, match="object that gives one of the labels") as raised:
        DicomFrames(tmp_path, masks=True)
    assert OTHERS[sop_class] in str(raised.value)
    index, _ = scan(tmp_path)
    (row,) = MaskIndex(index.filter(Modality="CT"), index).table().to_pylist()
    assert (row["kind"], row["reason"]) == ("other", OTHERS[sop_class])


def test_reports_are_not_taken_unless_asked_for(tmp_path):
    image = circle_case(tmp_path)
    report(tmp_path / "sr.dcm", image, [[region("POINT", [(1, 1)], image)]])
    with pytest.raises(OptionError, match='1 structured reports and annotations: masks="sr" or'):
        DicomFrames(tmp_path, masks=True)


def test_sop_classes_are_named_as_what_they_are():
    for uid in (*SHAPES, *OTHERS):
        name = UID(uid).name
        assert name == uid or any(
            word in name for word in ("SR", "Annotation", "Segmentation", "Encapsulated")
        )
