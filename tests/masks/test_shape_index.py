"""Boxes, points and polygons of tables: CSV, pandas, Arrow and COCO, by instance UID and by name."""

from __future__ import annotations

import json

import numpy as np
import pandas
import pytest

from dicomtorch import DicomFrames, DicomVolumes
from dicomtorch.errors import OptionError
from tests.masks.test_polygons import exact
from tests.support.mask_phantoms import series, slide
from tests.support.phantoms import ct, write

SHAPE = (16, 20)
TRIANGLE = [(2, 1), (12, 1), (2, 9)]
SQUARE = [(10, 8), (14, 8), (14, 12), (10, 12)]


def inside(*polygons):
    """The union of polygons: pixels whose centres are inside or on the path."""
    masks = [exact([[(x - 0.5, y - 0.5) for x, y in p]], SHAPE, on_path=True) for p in polygons]
    return np.max(masks, axis=0)


def flat(points):
    return [number for point in points for number in point]


@pytest.fixture
def case(tmp_path):
    return tmp_path / "ct", series(tmp_path / "ct", 3, SHAPE), tmp_path


def test_polygons_of_a_csv_file_by_instance_uid(case):
    folder, slices, root = case
    lines = ["SOPInstanceUID,polygon,label"]
    lines += [f'{slices[1].SOPInstanceUID},"{flat(TRIANGLE)}",nodule']
    lines += [f"{slices[1].SOPInstanceUID},{' '.join(map(str, flat(SQUARE)))},mass"]
    lines += [f"{slices[2].SOPInstanceUID},,"]
    (root / "outlines.csv").write_text("\n".join(lines))
    frames = DicomFrames(folder, masks=root / "outlines.csv", labels={"nodule": 3, "mass": 5})
    _, mask, meta = frames[1]
    np.testing.assert_array_equal(mask[0], 3 * inside(TRIANGLE) + 5 * inside(SQUARE))
    assert meta["mask_area"] == (int(inside(TRIANGLE).sum()), 16)
    # The other images of the series were looked at.
    assert frames[2][1].sum() == 0
    assert frames[2][2]["mask_known"] == (1, 1)
    assert [int(frames[k][2]["mask_present"]) for k in range(3)] == [0, 1, 0]
    volume, masks, _ = DicomVolumes(folder, masks=root / "outlines.csv")[0]
    assert masks.shape == volume.shape
    assert int((masks > 0).sum()) == int(inside(TRIANGLE).sum()) + 16


def test_polygons_of_tables_by_stem_have_boxes_too(case):
    folder, _, _ = case
    table = {"image": ["ct001"], "polygon": [flat(TRIANGLE)]}
    for given in (table, pandas.DataFrame(table)):
        _, mask, _ = DicomFrames(folder, masks=given)[1]
        np.testing.assert_array_equal(mask[0], inside(TRIANGLE))
    boxes = DicomFrames(folder, boxes=table)
    assert boxes[1][1]["boxes"].tolist() == [[2, 1, 12, 9]]


def test_points_of_a_table_move_with_the_image(case):
    folder, slices, _ = case
    table = {
        "SOPInstanceUID": [slices[0].SOPInstanceUID] * 2 + [slices[2].SOPInstanceUID],
        "x": [3.5, 8, 1],
        "y": [2, 9.5, 1],
        "label": ["tip", "base", "tip"],
    }
    frames = DicomFrames(folder, points=table)
    target = frames[0][1]
    assert target["points"].tolist() == [[3.5, 2], [8, 9.5]]
    assert target["labels"].tolist() == [2, 1]
    assert frames[1][1]["points"].shape == (0, 2)
    small = DicomFrames(folder, points=table, size=(8, 10))
    assert small[0][1]["points"].tolist() == [[1.75, 1], [4, 4.75]]
    with pytest.raises(OptionError, match="points= goes with DicomFrames"):
        DicomVolumes(folder, points=table)
    with pytest.raises(OptionError, match="boxes= goes with labels= alone; got points too"):
        DicomFrames(folder, points=table, boxes=table)
    with pytest.raises(OptionError, match="there are points alone; points= takes points"):
        DicomFrames(folder, masks=table)


def coco(root, annotations, **more):
    content = {
        "images": [{"id": k, "file_name": f"ct00{k}.dcm"} for k in range(3)],
        "categories": [
            {"id": 1, "name": "nodule", "keypoints": ["tip", "base"]},
            {"id": 2, "name": "hot (dog)"},
        ],
        "annotations": annotations,
    } | more
    (root / "coco.json").write_text(json.dumps(content))
    return root / "coco.json"


def test_coco_polygons_boxes_and_keypoints(case):
    folder, _, root = case
    annotations = [
        {
            "image_id": 1,
            "category_id": 1,
            "segmentation": [flat(TRIANGLE), flat(SQUARE)],
            "keypoints": [3, 2, 2, 0, 0, 0],
        },
        {"image_id": 1, "category_id": 2, "segmentation": [flat(SQUARE)], "bbox": [10, 8, 4, 4]},
    ]
    path = coco(root, annotations)
    frames = DicomFrames(folder, masks=path, mask_output="channels", labels=["nodule", "hot (dog)"])
    np.testing.assert_array_equal(
        frames[1][1], np.stack([inside(TRIANGLE, SQUARE), inside(SQUARE)])
    )
    assert frames[0][2]["mask_known"] == (1, 1)
    boxes = DicomFrames(folder, boxes=path, labels=["nodule", "hot (dog)"])[1][1]
    assert boxes["boxes"].tolist() == [[2, 1, 14, 12], [10, 8, 14, 12]]
    assert boxes["labels"].tolist() == [1, 2]
    points = DicomFrames(folder, points=path, labels={"tip": 9})[1][1]
    assert points["points"].tolist() == [[3, 2]]
    assert points["labels"].tolist() == [9]


def test_what_is_no_outline_is_refused(case):
    folder, _, root = case
    box = {"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}
    with pytest.raises(OptionError, match="1 boxes have no polygon"):
        DicomFrames(folder, masks=coco(root, [box]))
    mask = box | {"segmentation": {"counts": [3, 4], "size": [2, 4]}, "iscrowd": 1}
    with pytest.raises(OptionError, match=r"annotation 0 \(from 0\).* run-length mask"):
        DicomFrames(folder, masks=coco(root, [mask]))
    with pytest.raises(OptionError, match="has 4 numbers; x and y of three points"):
        DicomFrames(folder, masks=coco(root, [box | {"segmentation": [[1, 2, 3, 4]]}]))
    with pytest.raises(OptionError, match="box of annotation 0"):
        DicomFrames(folder, boxes=coco(root, [box | {"bbox": [1, 2, -3, 4]}]))
    with pytest.raises(OptionError, match="no COCO file"):
        DicomFrames(folder, masks=coco(root, [box | {"category_id": 9}]))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"polygon": ["1 2 3"]}, "row 0 .* has 3 numbers"),
        ({"polygon": ["1 2 a 4 5 6"]}, "row 0 .* is no list of numbers"),
        ({"polygon": ["1 2 nan 4 5 6"]}, "row 0 .* has 6 numbers"),
        ({"x": [1.0], "y": [None]}, "row 0 .* lack a number"),
        ({"x": [1.0]}, "needs xmin, ymin, xmax, ymax, or x, y, width, height, or polygon, or x, y"),
    ],
)
def test_numbers_that_are_none(case, table, message):
    with pytest.raises(OptionError, match=message):
        DicomFrames(case[0], points={"file": ["ct000"], **table})


def test_rows_of_images_with_several_frames_say_which(tmp_path):
    pixels = np.zeros((3, *SHAPE), np.int16)
    write(ct(pixels, 0), tmp_path / "cine.dcm")
    table = {"file": ["cine"], "x": [3], "y": [4], "width": [5], "height": [6]}
    with pytest.raises(OptionError, match="1 row of the table names images of several frames"):
        DicomFrames(tmp_path, boxes=table)
    one = DicomFrames(tmp_path, boxes=table | {"frame": [1]})
    assert [len(one[k][1]["boxes"]) for k in range(3)] == [0, 1, 0]
    every = DicomFrames(tmp_path, boxes=table | {"frame": [-1]})
    assert [len(every[k][1]["boxes"]) for k in range(3)] == [1, 1, 1]


def test_rows_of_a_slide_are_in_pixels_of_its_matrix(tmp_path):
    slide(tmp_path, 10)
    table = {"file": ["slide"] * 2, "x": [18, 45], "y": [9, 45], "width": [5, 2], "height": [2, 2]}
    frames = DicomFrames(tmp_path, boxes=table, values="stored")
    found = {k: frames[k][1]["boxes"].tolist() for k in range(25) if len(frames[k][1]["boxes"])}
    assert found == {
        1: [[8, 9, 10, 10]],
        2: [[0, 9, 3, 10]],
        6: [[8, 0, 10, 1]],
        7: [[0, 0, 3, 1]],
        24: [[5, 5, 7, 7]],
    }


def test_outlines_on_many_tiles_are_the_whole_one_cut(tmp_path):
    """What tiles have together is what one image of the whole matrix has."""
    slide(tmp_path, 10)
    generator = np.random.default_rng(5)
    polygons = [(generator.integers(-5, 56, (n, 2))).tolist() for n in (3, 4, 5, 6)]
    table = {"file": ["slide"] * 4, "polygon": [flat(p) for p in polygons], "label": list("abcd")}
    frames = DicomFrames(tmp_path, masks=table, mask_output="channels", values="stored")
    whole = np.zeros((4, 50, 50), np.uint8)
    for k in range(25):
        row, column = 10 * (k // 5), 10 * (k % 5)
        whole[:, row : row + 10, column : column + 10] = frames[k][1]
    for k, polygon in enumerate(polygons):
        moved = [[(x - 0.5, y - 0.5) for x, y in polygon]]
        np.testing.assert_array_equal(whole[k], exact(moved, (50, 50), on_path=True))
