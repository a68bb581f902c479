"""What the viewer answers: the values of files and of samples, to the bit, and nothing that it should not say."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from dicomtorch import DicomClips, DicomCrops, DicomFrames, DicomVolumes, OptionError
from dicomtorch.viewer.answer import Answer
from dicomtorch.viewer.content import Content
from dicomtorch.viewer.looked import Opened
from tests.support.canaries import leaks, write_marked
from tests.support.phantoms import ct, ct_pixels, lut, write, write_series
from tests.support.requirements import require, samples_folder
from tests.support.viewing import phantom


def content_of(given, **options):
    return Content(Opened(given, **options))


def answer(content, path, **query) -> Answer:
    found: Answer = content.answer(path, {name: str(value) for name, value in query.items()})
    return found


def array(found: Answer):
    assert found.status == 200, found.info
    assert found.data is not None
    return np.frombuffer(found.data, f"<{found.info['dtype']}").reshape(found.info["shape"])


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    return phantom(tmp_path_factory.mktemp("volume"))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"size": (16, 20)},
        {"values": "modality"},
        {"values": "stored"},
        {"normalize": "zscore", "values": "modality"},
        {"window": [(40, 400), (0, 100)]},
        {"dtype": "int32", "values": "stored"},
    ],
)
def test_the_training_pane_has_the_bytes_of_the_sample(tmp_path, options):
    for k in range(3):
        write(ct(np.abs(ct_pixels(k)).astype(np.int16) % 200, k), tmp_path / f"{k}.dcm")
    frames = DicomFrames(tmp_path, **options)
    content = content_of(frames)
    for i in range(3):
        found = answer(content, f"samples/{i}/training")
        assert bytes(found.data) == frames[i][0].numpy().tobytes()
        assert found.info["shape"] == list(frames[i][0].shape)


def test_half_precision_and_wide_integers_become_what_a_page_has(tmp_path):
    write_series(tmp_path, 1)
    for dtype, kind in (("float16", "f4"), ("bfloat16", "f4"), ("float64", "f4")):
        frames = DicomFrames(tmp_path, dtype=dtype)
        found = answer(content_of(frames), "samples/0/training")
        assert found.info["dtype"] == kind
        assert np.array_equal(array(found), frames[0][0].float().numpy())


def test_planes_of_volumes_clips_and_crops_are_those_of_the_sample(volume):
    volumes = DicomVolumes(volume, masks=True, labels=["liver", "kidney"])
    content = content_of(volumes)
    image_, mask, _ = volumes[0]
    assert bytes(answer(content, "samples/0/training").data) == image_.numpy().tobytes()
    for axis, plane in ((0, 5), (1, 17), (2, 30)):
        found = answer(content, "samples/0/training", axis=axis, plane=plane)
        assert np.array_equal(array(found), image_.select(1 + axis, plane).numpy())
        labels = answer(content, "samples/0/mask", axis=axis, plane=plane)
        assert np.array_equal(array(labels), mask[0].select(axis, plane).numpy())
    centers = DicomFrames(volume, masks=True, labels=["liver"]).masks.centers("liver")
    crops = DicomCrops(volume, centers, size=(4, 8, 8), border="pad")
    found = answer(content_of(crops), "samples/2/training", axis=2, plane=3)
    assert np.array_equal(array(found), crops[2][0][..., 3].numpy())
    assert answer(content, "samples/0/training", plane=12).status == 404
    assert answer(content, "samples/0/training", axis=3, plane=0).status == 404


def test_a_plane_of_a_clip_is_a_frame_of_it(tmp_path):
    pixels = np.stack([ct_pixels(k) for k in range(6)])
    write(ct(pixels, 0, Modality="XA", FrameTime=40), tmp_path / "0.dcm")
    clips = DicomClips(tmp_path, length=4, clips="all")
    content = content_of(clips)
    found = answer(content, "samples/1/training", plane=2)
    assert np.array_equal(array(found), clips[1][0][2].numpy())
    assert answer(content, "series/1").info["frames"] == list(clips[1][1]["frames"])
    drawn = DicomClips(tmp_path, length=4, clips="random")
    found = answer(content_of(drawn), "samples/0/training", plane=1)
    assert np.array_equal(array(found), drawn[0, 0][0][1].numpy())


def test_a_series_of_volumes_has_a_plane_for_each_time(tmp_path):
    for t in range(2):
        for k in range(4):
            one = ct(ct_pixels(10 * t + k), 10 * t + k)
            one.ImagePositionPatient = [0, 0, 2.5 * k]
            one.TemporalPositionIdentifier, one.AcquisitionNumber = t + 1, t + 1
            write(one, tmp_path / f"{t}{k}.dcm")
    volumes = DicomVolumes(tmp_path, group="series")
    content = content_of(volumes)
    found = answer(content, "samples/0/training", axis=1, plane=7, time=1)
    assert np.array_equal(array(found), volumes[0][0][1, :, :, 7].numpy())
    assert answer(content, "samples/0/training", plane=0, time=2).status == 404


KINDS = {
    "signed": {},
    "rescaled": {"RescaleSlope": 2.5, "RescaleIntercept": -300},
    "inverted": {"PhotometricInterpretation": "MONOCHROME1"},
    "sigmoid": {"VOILUTFunction": "SIGMOID"},
    "exact": {"VOILUTFunction": "LINEAR_EXACT", "WindowWidth": 0.5},
    "step": {"WindowWidth": 1},
    "padded": {"PixelPaddingValue": -5},
    "padded and inverted": {"PixelPaddingValue": -5, "PhotometricInterpretation": "MONOCHROME1"},
    "no window": {"WindowWidth": 0},
}


def displayed(info, stored, table):
    """Display values by what the page is told, with the formulas that the page has."""
    mapping = info["map"]
    if info["affine"]:
        x = stored.astype(np.float64) * info["slope"] + info["intercept"]
    else:
        x = table[0][stored.astype(np.int64) - table_first(info, stored)]
    low = -np.inf if mapping["low"] is None else mapping["low"]
    high = np.inf if mapping["high"] is None else mapping["high"]
    if mapping["kind"] == "table":
        return table[1][stored.astype(np.int64) - table_first(info, stored)]
    y = {
        "linear": lambda: np.clip(x * mapping["scale"] + mapping["offset"], low, high),
        "sigmoid": lambda: 1 / (1 + np.exp(-(x * mapping["scale"] + mapping["offset"]))),
        "step": lambda: (x > mapping["offset"]).astype(float),
        "constant": lambda: np.full(x.shape, mapping["offset"]),
    }[mapping["kind"]]()
    y = 1 - y if info["inverted"] else y
    if info["padding"]:
        y = np.where((stored >= info["padding"][0]) & (stored <= info["padding"][1]), 0.0, y)
    return y


def table_first(info, stored):
    return np.iinfo(stored.dtype).min


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_page_is_told_gives_display_values(tmp_path, kind):
    pixels = ct_pixels(3)
    pixels[:4] = -5
    write(ct(pixels, 0, **KINDS[kind]), tmp_path / "0.dcm")
    frames = DicomFrames(tmp_path)
    found = answer(content_of(frames), "frames/0/source")
    stored = array(found)
    assert np.array_equal(stored, DicomFrames(tmp_path, values="stored")[0][0][0].numpy())
    expected = frames[0][0][0].numpy()
    assert np.abs(displayed(found.info, stored, None) - expected).max() < 1e-4


def test_tables_say_what_each_stored_value_becomes(tmp_path):
    pixels = ct_pixels(1).astype(np.int16)
    made = ct(
        pixels,
        0,
        ModalityLUTSequence=[
            lut([4096, 64512, 16], [k // 3 for k in range(4096)], descriptor_vr="US")
        ],
    )
    del made.RescaleSlope, made.RescaleIntercept
    write(made, tmp_path / "0.dcm")
    content = content_of(DicomFrames(tmp_path))
    found, table = answer(content, "frames/0/source"), answer(content, "frames/0/table")
    stored, rows = array(found).astype(np.int64), array(table)
    modality = DicomFrames(tmp_path, values="modality")[0][0][0].numpy()
    assert np.array_equal(rows[0][stored - table.info["first"]], modality)


def test_parts_and_thinned_frames_are_those_of_the_whole(tmp_path):
    write_series(tmp_path, 1)
    content = content_of(DicomFrames(tmp_path))
    whole = array(answer(content, "frames/0/source"))
    assert np.array_equal(array(answer(content, "frames/0/source", step=3)), whole[::3, ::3])
    part = {"top": 3, "bottom": 9, "left": 5, "right": 30}
    assert np.array_equal(array(answer(content, "frames/0/source", **part)), whole[3:9, 5:30])
    assert answer(content, "frames/0/source", top=99, bottom=100, left=0, right=5).status == 404


def test_masks_and_the_next_frame_that_has_a_label(volume):
    frames = DicomFrames(volume, masks=True, labels=["liver", "kidney"])
    content = content_of(frames)
    summary = answer(content, "summary").info
    assert summary["legend"] == [{"number": 1, "name": "liver"}, {"number": 2, "name": "kidney"}]
    group = answer(content, "series/0").info["frames"]
    has = [bool((frames[i][1] == 2).any()) for i in group]
    first = has.index(True)
    for position in group[first : first + 2]:
        found = array(answer(content, f"frames/{position}/mask"))
        assert np.array_equal(found, frames[position][1][0].numpy())
    later = [k for k in range(first + 1, len(has)) if has[k]]
    args = {"series": 0, "label": 1}
    assert answer(content, "next", **args, **{"from": 0}).info["item"] == (first or later[0])
    assert (
        answer(content, "next", **args, **{"from": len(has) - 1}, back=1).info["item"] == later[-1]
    )
    assert answer(content, "next", **args, **{"from": later[-1]}).info["item"] is None
    unnamed = DicomFrames(volume, masks=True)
    assert unnamed.legend == [(1, ""), (2, "")], "names of files are free text"


def test_boxes_are_those_of_the_sample(volume):
    uid = DicomFrames(volume).index.column("SOPInstanceUID")[3]
    table = {
        "SOPInstanceUID": [uid],
        "xmin": [4],
        "ymin": [5],
        "xmax": [14],
        "ymax": [25],
        "label": ["nodule"],
    }
    import pyarrow as pa

    frames = DicomFrames(volume, boxes=pa.table(table), size=(80, 96))
    content = content_of(frames)
    (box,) = answer(content, "samples/3").info["boxes"]
    assert box == [8, 10, 28, 50, 1]
    assert answer(content, "summary").info["legend"] == [{"number": 1, "name": "nodule"}]


def test_the_list_is_in_the_order_of_files_and_frames_in_that_of_places(tmp_path):
    for k, name in enumerate("dbca"):
        write(ct(ct_pixels(k), k), tmp_path / f"{name}.dcm")
    other = ct(ct_pixels(9), 9, SeriesInstanceUID="1.2.3", Modality="MR")
    write(other, tmp_path / "0.dcm")
    content = content_of(DicomFrames(tmp_path))
    listed = answer(content, "series").info
    assert [group["modality"] for group in listed["groups"]] == ["MR", "CT"]
    assert answer(content, "series/1").info["frames"] == [4, 2, 3, 1]
    filtered = answer(content, "series", filter="Modality=CT InstanceNumber>2").info
    assert (filtered["count"], filtered["frames"]) == (1, 2)
    number = filtered["groups"][0]["number"]
    query = {"filter": "Modality=CT InstanceNumber>2"}
    assert answer(content, f"series/{number}", **query).info["frames"] == [3, 1]
    assert answer(content, "series", filter="nonsense").status == 422
    assert answer(content, "series", offset=1, limit=1).info["groups"][0]["number"] == 1
    assert answer(content, "places/3").info == {"number": 1, "item": 2}


def test_a_frame_that_fails_says_why_without_naming_its_file(tmp_path):
    folder = tmp_path / "LINDGREN^ASTRID"
    write_series(folder, 3)
    frames = DicomFrames(folder)
    path = frames.index.path(1)
    with open(path, "r+b") as file:
        file.truncate(700)
    content = content_of(frames)
    for what in ("frames/1/source", "samples/1/training", "samples/1", "frames/1/thumb"):
        found = answer(content, what)
        assert found.status == 422, what
        assert "LINDGREN" not in found.info["error"]
        assert "this file" in found.info["error"]
    named = Content(Opened(frames), show_paths=True)
    assert path in answer(named, "frames/1/source").info["error"]
    assert answer(named, "frames/0/source").info["path"] == "000.dcm, frame 0"
    assert answer(content, "frames/0/source").info["path"] == ""


def test_frames_that_nothing_decodes_keep_their_place(tmp_path):
    paths = write_series(tmp_path, 3)
    data = paths[1].read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.9\0")
    paths[1].write_bytes(data)
    from dicomtorch import scan

    index, _ = scan(tmp_path)
    able = np.array([0, 2]) if len(index) == 3 else np.arange(len(index))
    frames = DicomFrames(index.select(able))
    content = content_of(frames, index=index, positions=able)
    assert answer(content, "series/0").info["samples"].count(-1) == len(index) - len(able)
    last = len(index) - 1
    assert (
        bytes(answer(content, f"samples/{len(able) - 1}/training").data)
        == frames[-1][0].numpy().tobytes()
    )
    assert answer(content, f"frames/{last}/source").status == 200


def test_an_error_of_a_transform_is_shown(tmp_path):
    write_series(tmp_path, 1)

    def broken(image):
        raise RuntimeError("as its author would have it")

    content = content_of(DicomFrames(tmp_path, transform=broken))
    try:
        found = answer(content, "samples/0/training")
        assert found.status == 422
        assert found.info["error"].endswith("RuntimeError: as its author would have it")
        assert answer(content, "frames/0/source").status == 200
    finally:
        content.close()


def test_what_is_no_image_is_said(tmp_path):
    write_series(tmp_path, 1)
    for transform, what in ((lambda x: x[0], "shape"), (lambda x: {"a": x}, "dict")):
        content = content_of(DicomFrames(tmp_path, transform=transform))
        found = answer(content, "samples/0/training")
        content.close()
        assert found.status == 422
        assert what in found.info["error"]


def test_what_cannot_be_looked_at_is_refused():
    for given in ([1, 2], torch.utils.data.TensorDataset(torch.zeros(2)), "folder", None):
        with pytest.raises(OptionError, match="view takes"):
            Opened(given)


def test_nothing_of_a_header_is_said(tmp_path):
    write_marked(tmp_path)
    frames = DicomFrames(tmp_path, on_error="replace")
    content = content_of(frames)
    said = [
        answer(content, "summary"),
        answer(content, "series"),
        answer(content, "series", filter="x=1"),
    ]
    said += [answer(content, f"series/{k}") for k in range(len(frames))]
    for k in range(len(frames)):
        said += [
            answer(content, f"{what}/{k}{more}")
            for what, more in (("frames", "/source"), ("samples", ""))
        ]
        said += [
            answer(content, f"frames/{k}/{what}") for what in ("thumb", "table", "mask", "other")
        ]
    assert leaks("\n".join(one.json for one in said)) == []


def test_warns_where_pixels_may_say_who_it_is(tmp_path):
    write(ct(ct_pixels(0), 0, BurnedInAnnotation="YES"), tmp_path / "0.dcm")
    write(ct(ct_pixels(1), 1), tmp_path / "1.dcm")
    write(ct(ct_pixels(2), 2, Modality="US"), tmp_path / "2.dcm")
    content = content_of(DicomFrames(tmp_path))
    assert answer(content, "summary").info["burned"] == 2
    said = [answer(content, f"frames/{k}/source").info["burned"] for k in range(3)]
    assert said == ["stated", "", "often"]


def test_markup_and_escapes_stay_what_they_are(tmp_path):
    evil = "<img src=x onerror=alert(1)></script>\x1b[31m"
    write_series(tmp_path / "a", 2)
    frames = DicomFrames(tmp_path / "a")
    joined = frames.index.join(
        {
            "SOPInstanceUID": list(frames.index.column("SOPInstanceUID")),
            "label": [evil, "javascript:alert(1)"],
        }
    )
    found = answer(content_of(DicomFrames(joined)), "samples/0")
    assert json.loads(found.json)["meta"]["label"] == evil
    assert found.json.isascii()
    assert "\x1b" not in found.json


@pytest.mark.slow
def test_samples_of_every_kind_are_answered_or_say_why():
    require("samples")
    folder = samples_folder()
    frames = DicomFrames(folder, on_error="replace")
    content = content_of(frames)
    _, first = np.unique(np.asarray(frames.index.column("frame_values")), return_index=True)
    compared = 0
    for i in first.tolist():
        found = answer(content, f"frames/{i}/source")
        if found.status != 200:
            assert found.info["error"]
            continue
        json.loads(found.json)
        info, stored = found.info, array(found)
        try:
            expected = DicomFrames(frames.index.select([i]))[0][0].numpy()
        except Exception:  # what cannot be shown has a note
            assert info["map"] is None
            continue
        if info["colour"] in ("stored", "display"):
            levels = np.moveaxis(stored, -1, 0) / 255 if stored.ndim == 3 else stored[None] / 255
            if expected.min() >= 0 and expected.max() <= 1:
                assert np.abs(levels - expected).max() <= 1 / 255
        elif info["map"]:
            table = (
                array(answer(content, f"frames/{i}/table")) if info["table"] is not None else None
            )
            if info["colour"] == "table":
                at = stored.astype(np.int64) - table_first(info, stored)
                assert np.abs(table[1:][:, at] - expected).max() <= 1 / 255
            elif expected.min() >= 0 and expected.max() <= 1:
                assert np.abs(displayed(info, stored, table) - expected[0]).max() <= 1 / 255
        compared += 1
    assert compared > 100
