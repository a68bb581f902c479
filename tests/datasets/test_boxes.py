"""Boxes from tables beside frames."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from dicomtorch import DicomFrames, DicomVolumes
from dicomtorch.errors import OptionError, SourceError
from tests.support.mask_phantoms import series
from tests.support.requirements import require


@pytest.fixture
def case(tmp_path):
    return tmp_path / "ct", series(tmp_path / "ct", 3, (64, 64)), tmp_path


def test_corners_by_instance_uid(case):
    folder, slices, root = case
    lines = ["SOPInstanceUID,xmin,ymin,xmax,ymax,label"]
    lines += [f"{slices[1].SOPInstanceUID},10,20,30,40,nodule", "1.2.3,0,0,1,1,mass"]
    lines += [f"{slices[1].SOPInstanceUID},1,2,3,4,mass"]
    (root / "boxes.csv").write_text("\n".join(lines))
    frames = DicomFrames(folder, boxes=root / "boxes.csv")
    image, target, meta = frames[1]
    assert image.shape == (1, 64, 64)
    assert target["boxes"].tolist() == [[10, 20, 30, 40], [1, 2, 3, 4]]
    assert target["labels"].tolist() == [2, 1]
    assert target["boxes"].dtype == torch.float32
    assert "mask_known" not in meta
    assert frames[0][1]["boxes"].shape == (0, 4)
    only = DicomFrames(folder, boxes=root / "boxes.csv", labels={"nodule": 7})
    assert only[1][1]["labels"].tolist() == [7]


def test_sizes_by_name_are_moved_with_the_image(case):
    folder, _, _ = case
    table = {"image": ["ct002"], "x": [10], "y": [20], "width": [20], "height": [20]}
    frames = DicomFrames(folder, boxes=table, size=(32, 48))
    _, target, meta = frames[2]
    assert meta["resized"][:3] == (0.5, 0, 8)
    assert target["boxes"].tolist() == [[13, 10, 23, 20]]
    assert target["labels"].tolist() == [1]


def test_coco_and_batches(case):
    folder, _, root = case
    coco = {
        "images": [{"id": 5, "file_name": "ct000.dcm"}, {"id": 6, "file_name": "ct001.dcm"}],
        "categories": [{"id": 3, "name": "nodule"}],
        "annotations": [{"image_id": 6, "category_id": 3, "bbox": [1, 2, 3, 4]}],
    }
    (root / "coco.json").write_text(json.dumps(coco))
    frames = DicomFrames(folder, boxes=root / "coco.json")
    for workers in (0, 2):
        images, targets, meta = next(iter(DataLoader(frames, batch_size=3, num_workers=workers)))
        assert images.shape == (3, 1, 64, 64)
        assert [len(each["boxes"]) for each in targets] == [0, 1, 0]
        assert targets[1]["boxes"].tolist() == [[1, 2, 4, 6]]
        assert meta["index"].tolist() == [0, 1, 2]
    assert frames[[0, 1]][1][1]["labels"].tolist() == [1]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"x": [1]}, "needs a column SOPInstanceUID"),
        (
            {"file": ["ct000"], "x": [1]},
            "needs xmin, ymin, xmax, ymax, or x, y, width, height, or polygon",
        ),
        (
            {"file": ["ct000"], "x": ["a"], "y": [1], "width": [1], "height": [1]},
            "else than numbers",
        ),
        ({"file": ["ct000"], "xmin": [3], "ymin": [1], "xmax": [1], "ymax": [1]}, "end before"),
    ],
)
def test_tables_that_say_not_enough(case, table, message):
    with pytest.raises(OptionError, match=message):
        DicomFrames(case[0], boxes=table)


def test_what_is_refused(case):
    folder, _, root = case
    table = {"file": ["ct000"], "xmin": [0], "ymin": [1], "xmax": [1], "ymax": [1]}
    with pytest.raises(SourceError, match="there is no file"):
        DicomFrames(folder, boxes=root / "absent.csv")
    (root / "no.json").write_text("[]")
    with pytest.raises(OptionError, match="no COCO file"):
        DicomFrames(folder, boxes=root / "no.json")
    with pytest.raises(OptionError, match="goes with labels= alone"):
        DicomFrames(folder, boxes=table, masks=True)
    with pytest.raises(OptionError, match="goes with DicomFrames"):
        DicomVolumes(folder, boxes=table)
    with pytest.raises(OptionError, match="'nodule' matches none of 1 name of 1 segment"):
        DicomFrames(folder, boxes=table, labels=["nodule"])
    series(folder / "other", 1)
    with pytest.raises(OptionError, match="2 files are called as one row"):
        DicomFrames(folder, boxes=table)
    exact = DicomFrames(folder, boxes=table | {"file": ["other/ct000.dcm"]})
    counts = [len(exact[k][1]["boxes"]) for k in range(4)]
    assert sum(counts) == 1
    assert np.argmax(counts) == exact.find(InstanceNumber=1, SliceThickness=2.0, file=3)


def test_boxes_and_points_are_drawn(case):
    require("matplotlib")
    folder, _, _ = case
    for option, more in (("boxes", {"width": [5], "height": [4]}), ("points", {})):
        given = {option: {"image": ["ct001"], "x": [10], "y": [20], **more}}
        figure = DicomFrames(folder, **given).show(1)
        (shown,) = figure.axes[0].get_images()
        coloured = np.ptp(np.asarray(shown.get_array()), axis=2) > 0.1
        rows, columns = np.nonzero(coloured)
        if option == "boxes":
            assert (rows.min(), rows.max(), columns.min(), columns.max()) == (20, 23, 10, 14)
            assert coloured.sum() == 2 * (5 + 4) - 4
        else:
            assert coloured.sum() == 9
            assert coloured[20, 8:13].all()
            assert coloured[18:23, 10].all()
