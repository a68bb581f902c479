"""Samples with masks: every dataset, every way to batches, and what `meta` says."""

from __future__ import annotations

import pickle

import numpy as np
import pydicom
import pytest
import torch
from torch.utils.data import DataLoader

from dicomtorch import (
    BalancedSampler,
    DicomClips,
    DicomCrops,
    DicomFrames,
    DicomPatches,
    DicomVolumes,
    FrameLoader,
    MaskIndex,
    scan,
)
from dicomtorch.batches.collate import FrameSamples, collate_frames
from dicomtorch.datasets import masked
from dicomtorch.errors import OptionError, PixelValueError, SourceError
from dicomtorch.pixels.slots import SharedBatch
from tests.support.mask_phantoms import segmentation, series, square, structures


@pytest.fixture
def folder(tmp_path):
    """Six slices, a SEG with two segments, an RTSTRUCT with two structures of which one has no contours."""
    source = tmp_path / "data"
    slices = series(source, 6, (12, 16))
    one, two = np.zeros((2, 12, 16), np.uint8)
    one[2:6, 3:9] = 1
    two[7:10, 3:9] = 1
    frames = [(1, 1, one), (2, 1, two), (1, 4, one)]
    segmentation(source / "seg.dcm", slices, frames, names=["liver", "kidney"])
    rois = [("tumour", [(2, square(1.5, 5.5)), (4, square(7, 9))]), ("spine", [])]
    structures(source / "rs.dcm", slices, rois)
    return source


LABELS = {"liver": 1, "kidney": 2, "tumour": 3, "spine": 4}


def test_frames_have_masks(folder):
    frames = DicomFrames(folder, masks=True, labels=LABELS)
    assert len(frames) == 6
    image, mask, meta = frames[1]
    assert image.shape == mask.shape == (1, 12, 16)
    assert mask.dtype == torch.uint8
    assert (mask == 1).sum() == 24
    assert (mask == 2).sum() == 18
    assert meta["mask_area"] == (24, 18, 0, 0)
    assert meta["mask_known"] == (1, 1, 1, 1)
    assert meta["mask_present"] == 1
    assert frames[0][2]["mask_present"] == 0
    assert frames.labels.names == ("liver", "kidney", "tumour", "spine")
    assert frames.masks.has("tumour").tolist() == [False, False, True, False, True, False]
    np.testing.assert_array_equal(frames.masks.areas()[4], [24, 0, 9, 0])


def test_without_masks_samples_are_pairs(folder):
    frames = DicomFrames(scan(folder)[0].filter(Modality="CT"))
    assert len(frames[0]) == 2
    assert len(next(iter(DataLoader(frames, batch_size=2)))) == 2
    with pytest.raises(OptionError, match="has no masks"):
        _ = frames.masks


def test_only_one_kind_and_another_folder(folder, tmp_path):
    only = DicomFrames(folder, masks="rtstruct")
    assert only.labels.names == ("spine", "tumour")
    apart = tmp_path / "masks"
    apart.mkdir()
    for name in ("seg.dcm", "rs.dcm"):
        (folder / name).rename(apart / name)
    both = DicomFrames(folder, masks=apart, labels=LABELS)
    assert both[1][2]["mask_area"] == (24, 18, 0, 0)
    given = MaskIndex(both.index, scan(apart)[0], labels=LABELS)
    assert DicomFrames(both.index, masks=given)[1][2]["mask_area"] == (24, 18, 0, 0)
    with pytest.raises(OptionError, match="must be of the same frames"):
        DicomFrames(both.index.select([0, 1]), masks=given)


@pytest.mark.parametrize("output", ["labels", "channels", "fraction"])
def test_volumes_are_the_masks_of_their_slices(folder, output):
    options = {"masks": True, "labels": LABELS, "mask_output": output}
    frames = DicomFrames(folder, **options)
    volumes = DicomVolumes(folder, **options)
    volume, mask, meta = volumes[0]
    assert volume.shape[1:] == mask.shape[1:] == (6, 12, 16)
    order = meta["frames"]
    torch.testing.assert_close(mask, torch.stack([frames[k][1] for k in order], 1), rtol=0, atol=0)
    assert meta["mask_area"] == (48, 18, 16 + 9, 0)
    assert mask.dtype == (torch.float32 if output == "fraction" else torch.uint8)
    back = volumes.to_grid(0, mask)
    assert torch.equal(back, mask)


def test_size_takes_the_nearest_pixel_and_boxes_go_along(tmp_path):
    slices = series(tmp_path, 1, (64, 64))
    block = np.zeros((64, 64), np.uint8)
    block[20:40, 10:30] = 7
    segmentation(
        tmp_path / "s.dcm",
        slices,
        [(0, 0, block)],
        names=[f"n{k}" for k in range(1, 8)],
        kind="LABELMAP",
    )
    frames = DicomFrames(tmp_path, masks=True, labels={"n7": 9}, size=(32, 32))
    _, mask, meta = frames[0]
    assert set(mask.unique().tolist()) == {0, 9}
    assert (mask[0, 10:20, 5:15] == 9).all()
    assert (mask == 9).sum() == 100
    boxes, _ = frames.masks.boxes(0)
    scale, top, left, *_ = meta["resized"]
    np.testing.assert_array_equal(boxes * scale + [left, top, left, top], [[5, 10, 15, 20]])


def test_a_prediction_on_resized_volumes_goes_back(tmp_path):
    slices = series(tmp_path, 3, (12, 16))
    block = np.zeros((12, 16), np.uint8)
    block[2:8, 4:10] = 1
    segmentation(tmp_path / "s.dcm", slices, [(1, k, block) for k in range(3)], names=["a"])
    volumes = DicomVolumes(tmp_path, masks=True, size=(24, 32))
    _, mask, _ = volumes[0]
    assert mask.shape == (1, 3, 24, 32)
    back = volumes.to_grid(0, mask)
    np.testing.assert_array_equal(back[0].numpy(), np.stack([block] * 3))
    with pytest.raises(OptionError, match="the prediction is"):
        volumes.to_grid(0, mask[..., :-1])


@pytest.mark.parametrize("border", ["pad", "shift", "clip"])
def test_crops_are_cut_from_the_mask_of_the_whole(folder, border):
    uid = scan(folder)[0].filter(Modality="CT").column("SeriesInstanceUID")[0]
    table = {"SeriesInstanceUID": [uid] * 2, "x": [1.0, 8.0], "y": [3.0, 6.0], "z": [1.0, 4.0]}
    options = {"masks": True, "labels": LABELS, "mask_output": "channels"}
    _, whole, _ = DicomVolumes(folder, **options)[0]
    crops = DicomCrops(folder, table, (3, 6, 8), coordinates="voxel", border=border, **options)
    for k in range(2):
        image, mask, meta = crops[k]
        assert mask.shape[1:] == image.shape[1:]
        d, h, w = meta["start"]
        a, b, c, e, f, g = meta["valid"]
        inside = mask[:, a:b, c:e, f:g]
        expected = whole[:, d + a : d + b, h + c : h + e, w + f : w + g]
        assert torch.equal(inside, expected)
        assert mask.sum() == inside.sum()
        assert torch.equal(
            crops.to_grid(k, mask)[:, d + a : d + b, h + c : h + e, w + f : w + g], inside
        )


def test_crops_around_a_label(folder):
    frames = DicomFrames(folder, masks=True, labels=LABELS)
    table = frames.masks.centers("tumour")
    assert table.column("area").to_pylist() == [16, 9]
    crops = DicomCrops(folder, table, (1, 3, 3), masks=True, labels=LABELS)
    for k in range(2):
        _, mask, meta = crops[k]
        assert mask[0, 0, 1, 1] == 3
        assert meta["area"] == (16, 9)[k]
    assert frames.masks.centers(4).num_rows == 0


def test_indexes_are_filtered_and_split_by_what_masks_have(folder):
    index = DicomFrames(folder, masks=True, labels=LABELS).index
    has = MaskIndex(index, labels=LABELS).has("liver")
    assert len(index.filter(lambda _: has)) == 2
    part = DicomFrames(index.select(has), masks=True, labels=LABELS)
    assert part[0][2]["mask_area"][0] == part[1][2]["mask_area"][0] == 24


def test_clips_have_a_mask_for_each_frame(tmp_path):
    slices = series(tmp_path, 1, (12, 16), NumberOfFrames=1)
    from tests.support.phantoms import ct, write

    pixels = np.arange(4 * 12 * 16, dtype=np.int16).reshape(4, 12, 16)
    loop = ct(pixels, 50, FrameTime=40, Modality="US", SOPClassUID="1.2.840.10008.5.1.4.1.1.3.1")
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        del loop[keyword]
    (tmp_path / "ct000.dcm").unlink()
    write(loop, tmp_path / "loop.dcm")
    block = np.zeros((12, 16), np.uint8)
    block[:3] = 1

    def without_space(dataset):
        del dataset.FrameOfReferenceUID
        for group in dataset.PerFrameFunctionalGroupsSequence:
            del group.PlanePositionSequence
        source = dataset.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0]
        source.SourceImageSequence[0].ReferencedSOPInstanceUID = loop.SOPInstanceUID

    segmentation(
        tmp_path / "s.dcm",
        slices,
        [(1, 0, block)],
        names=["a"],
        references=[(0, 3)],
        edit=without_space,
    )
    clips = DicomClips(tmp_path, 4, masks=True)
    images, masks, meta = clips[0]
    assert images.shape == masks.shape == (4, 1, 12, 16)
    assert masks.sum((1, 2, 3)).tolist() == [0, 0, 48, 0]
    assert meta["mask_area"] == (48,)


# --- Batches ----------------------------------------------------------------------------------------


def collected(loader):
    images, masks, areas = [], [], []
    for batch in loader:
        image, mask, meta = batch
        images.append(image)
        masks.append(mask)
        areas.append(meta["mask_area"])
    return torch.cat(images), torch.cat(masks), torch.cat(areas)


def test_workers_threads_and_none_give_the_same(folder):
    frames = DicomFrames(folder, masks=True, labels=LABELS)
    expected = collected(DataLoader(frames, batch_size=4))
    for loader in (
        DataLoader(frames, batch_size=4, num_workers=2),
        FrameLoader(frames, batch_size=4, num_threads=2),
    ):
        for ours, theirs in zip(collected(loader), expected, strict=True):
            assert torch.equal(ours, theirs)
    assert expected[1].shape == (6, 1, 12, 16)
    assert expected[2].dtype == torch.int64
    volumes = DicomVolumes(folder, masks=True, labels=LABELS)
    image, mask, meta = next(iter(DataLoader(volumes, batch_size=1, num_workers=1)))
    assert mask.shape == (1, 1, 6, 12, 16)
    assert meta["mask_known"].tolist() == [[1, 1, 1, 1]]
    assert image.shape == mask.shape


def test_a_batch_of_masks_is_not_copied(folder):
    frames = DicomFrames(folder, masks=True, labels=LABELS)
    samples = frames.__getitems__([0, 1, 2])
    assert isinstance(samples, FrameSamples)
    images, masks, _ = collate_frames(samples)
    assert images is samples.images
    assert masks is samples.masks
    looked_at = frames.__getitems__([0, 1, 2])
    assert looked_at[1][1].data_ptr() == looked_at.masks[1].data_ptr()
    assert collate_frames(looked_at)[1] is looked_at.masks
    volumes = DicomVolumes(folder, masks=True, labels=LABELS).__getitems__([0])
    assert collate_frames(volumes)[1] is volumes.masks


def test_a_mask_that_was_exchanged_is_the_one_in_the_batch(folder):
    frames = DicomFrames(folder, masks=True, labels=LABELS)
    samples = frames.__getitems__([0, 1])
    image, mask, meta = samples[1]
    samples[1] = type(samples[1])((image, mask + 50, meta))
    _, masks, _ = collate_frames(samples)
    assert (masks[1] >= 50).all()
    assert (masks[0] < 50).all()


def test_a_transform_gets_the_image_alone(folder):
    frames = DicomFrames(folder, masks=True, labels=LABELS, transform=lambda image: image * 0 + 7)
    image, mask, _ = frames[1]
    assert (image == 7).all()
    assert (mask == 1).sum() == 24
    images, masks, _ = frames[[0, 1]]
    assert (images == 7).all()
    assert (masks[1] == 1).sum() == 24


def test_balanced_by_what_masks_have(folder):
    frames = DicomFrames(folder, masks=True, labels=LABELS)
    sampler = BalancedSampler(frames, by=frames.masks.has("liver"), num_samples=400, seed=1)
    drawn = np.array(list(sampler))
    share = frames.masks.has("liver")[drawn].mean()
    assert 0.4 < share < 0.6


# --- What is refused --------------------------------------------------------------------------------


def test_an_object_that_cannot_be_used_is_left_out_by_selecting(folder):
    """One odd SEG in a folder must not cost the masks of all others."""

    def odd(dataset):
        dataset.SegmentationType, dataset.SeriesInstanceUID = "LABELED", "1.2.3.7"

    slices = [pydicom.dcmread(folder / f"ct{k:03}.dcm") for k in range(6)]
    segmentation(folder / "odd.dcm", slices, [(1, 0, np.ones((12, 16)))], names=["liver"], edit=odd)
    index, _ = scan(folder)
    with pytest.raises(PixelValueError, match=r"odd.dcm\): .*an index without its frames"):
        DicomFrames(index, masks=True, labels=LABELS)
    rest = index.select(np.array(index.column("SeriesInstanceUID").tolist()) != "1.2.3.7")
    frames = DicomFrames(index, masks=rest, labels=LABELS)
    assert frames[1][2]["mask_area"] == (24, 18, 0, 0)  # structure sets have no frames and stay
    assert frames[2][2]["mask_area"][2] == 16


def test_what_is_said_where_no_object_serves(folder, tmp_path):
    series(tmp_path / "other", 2, StudyInstanceUID="1.2.3.9")
    for unlabelled in ("raise", "drop", "zero"):
        with pytest.raises(OptionError, match=r"no series of 1 .*4 segments: no image of its stud"):
            DicomFrames(tmp_path / "other", masks=folder, unlabelled=unlabelled)
    only = scan(folder / "seg.dcm")[0]
    with pytest.raises(SourceError, match="all 3 frames are those of masks"):
        DicomFrames(only, masks=True)


def test_series_without_objects(folder, tmp_path):
    other = tmp_path / "data" / "other"
    series(
        other,
        2,
        SeriesInstanceUID="1.2.3.9",
        SOPInstanceUID=lambda k: f"1.2.3.9.{k}",
        FrameOfReferenceUID="1.2.4",
    )
    with pytest.raises(OptionError, match=r"1 of 2 series have no object .*unlabelled=\"drop\""):
        DicomFrames(folder, masks=True, labels=LABELS)
    kept = DicomFrames(folder, masks=True, labels=LABELS, unlabelled="drop")
    assert len(kept) == 6
    zero = DicomFrames(folder, masks=True, labels=LABELS, unlabelled="zero")
    assert len(zero) == 8
    at = zero.find(SOPInstanceUID="1.2.3.9.0")
    _, mask, meta = zero[at]
    assert not mask.any()
    assert meta["mask_known"] == (0, 0, 0, 0)
    assert meta["mask_area"] == (-1, -1, -1, -1)


def test_nothing_that_could_be_a_mask(tmp_path):
    series(tmp_path, 2)
    with pytest.raises(OptionError, match="there is no mask object at all"):
        DicomFrames(tmp_path, masks=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"masks": True, "mask_output": "x"}, "mask_output must be"),
        ({"masks": True, "unlabelled": "x"}, "unlabelled must be"),
        ({"masks": 3.5}, "masks must be"),
        (
            {"masks": True, "mask_output": "fraction", "resample": "nearest"},
            "does not go with mask_output",
        ),
        ({"labels": ["liver"]}, "need masks="),
    ],
)
def test_options_that_mean_nothing(folder, options, message):
    with pytest.raises(OptionError, match=message):
        DicomFrames(folder, **options)


def test_a_mask_that_cannot_be_made_is_an_error_or_replaced(folder):
    slices = series(folder, 6, (12, 16))
    same = np.zeros((12, 16), np.uint8)
    same[2:6, 3:9] = 1
    frames = [(1, 1, same), (2, 1, same), (1, 2, same)]
    segmentation(folder / "seg.dcm", slices, frames, names=["liver", "kidney"])
    raising = DicomFrames(folder, masks="seg")
    with pytest.raises(PixelValueError, match=r"ct001\.dcm, frame 0 .*24 pixels belong to several"):
        raising[1]
    replacing = DicomFrames(folder, masks="seg", on_error="replace")
    with pytest.warns(UserWarning, match="was replaced by frame 2"):
        _, masks, meta = replacing[[0, 1]]
    assert meta["index"].tolist() == [0, 2]
    assert meta["requested_index"].tolist() == [0, 1]
    assert masks.sum((1, 2, 3)).tolist() == [0, 24 * 2]
    volumes = DicomVolumes(folder, masks="seg")
    with pytest.raises(PixelValueError, match="belong to several"):
        volumes[0]


# --- Looking ----------------------------------------------------------------------------------------


def test_masks_are_drawn(folder):
    from tests.support.requirements import require

    require("matplotlib")
    import matplotlib

    matplotlib.use("Agg")
    frames = DicomFrames(folder, masks=True, labels=LABELS)
    assert frames.show(1) is not None
    assert (
        DicomVolumes(folder, masks=True, labels=LABELS, mask_output="channels").show(0) is not None
    )


def test_labels_are_coloured_where_they_are():
    from dicomtorch.datasets.overlays import overlaid

    mask = np.zeros((1, 4, 5), np.uint8)
    mask[0, 1, 2] = 2
    picture = overlaid(np.zeros((4, 5)), mask)
    assert picture.shape == (4, 5, 3)
    assert np.argwhere(picture.any(2)).tolist() == [[1, 2]]
    channels = np.zeros((3, 4, 5), np.uint8)
    channels[1, 1, 2] = 1
    np.testing.assert_array_equal(overlaid(np.zeros((4, 5)), channels), picture)


def test_a_sample_transform_gets_the_mask_and_a_target_goes_with_it(folder):
    def flipped(image, mask, meta):
        return image.flip(-1), mask.flip(-1), {**meta, "flipped": 1}

    plain = DicomFrames(folder, masks=True, labels=LABELS)
    joint = DicomFrames(folder, masks=True, labels=LABELS, sample_transform=flipped)
    image, mask, meta = joint[1]
    assert torch.equal(image, plain[1][0].flip(-1))
    assert torch.equal(mask, plain[1][1].flip(-1))
    assert meta["flipped"] == 1
    images, masks, meta = next(iter(DataLoader(joint, batch_size=3)))
    assert torch.equal(masks[1], mask)
    assert meta["flipped"].tolist() == [1, 1, 1]
    volumes = DicomVolumes(folder, masks=True, labels=LABELS, sample_transform=flipped)
    assert torch.equal(
        volumes[0][1], DicomVolumes(folder, masks=True, labels=LABELS)[0][1].flip(-1)
    )
    pairs = DicomFrames(folder, masks=True, labels=LABELS, target="InstanceNumber")
    samples = pairs.__getitems__([0, 1])
    images, masks, targets = torch.utils.data.default_collate(samples)
    assert images is samples.images
    assert masks is samples.masks
    assert torch.equal(masks[1], plain[1][1])
    assert targets.tolist() == [plain[k][2]["InstanceNumber"] for k in (0, 1)]


def collated_and_counted(samples):
    """The batch, and for images and masks whether they are the memory that they were made in, sent by its address."""
    images, masks, meta = collate_frames(samples)
    made = [images is samples.images, masks is samples.masks]
    sent = [isinstance(each, SharedBatch) and each.is_as_made() for each in (images, masks)]
    return images, masks, meta, made, sent


def test_masks_of_a_batch_of_32_reach_the_process_uncopied(tmp_path):
    shape, count = (96, 128), 64
    slices = series(tmp_path, count, shape)
    generator = np.random.default_rng(4)
    frames_of_seg = [(1, k, generator.integers(0, 2, shape)) for k in range(count)]
    segmentation(tmp_path / "seg.dcm", slices, frames_of_seg, names=["one"])
    frames = DicomFrames(tmp_path, masks=True)
    loader = DataLoader(frames, batch_size=32, num_workers=2, collate_fn=collated_and_counted)
    position = 0
    for images, masks, meta, made, sent in loader:
        assert made == [True, True]
        assert sent == [True, True]
        assert images.shape == masks.shape == (32, 1, *shape)
        assert meta["index"].tolist() == list(range(position, position + 32))
        for mask, (_, _, pixels) in zip(masks, frames_of_seg[position:], strict=False):
            np.testing.assert_array_equal(mask[0], pixels)
        position += 32
    assert position == count


@pytest.fixture
def painted(monkeypatch):
    """The frames whose masks were painted, in order."""
    frames, paint = [], MaskIndex.mask

    def watched(self, position, *arguments):
        frames.append(position)
        return paint(self, position, *arguments)

    monkeypatch.setattr(MaskIndex, "mask", watched)
    return frames


def test_masks_of_frames_are_painted_once_for_their_patches(folder, painted):
    patches = DicomPatches(folder, (5, 7), per_frame=4, masks=True, labels=LABELS, seed=3)
    whole = DicomFrames(folder, masks=True, labels=LABELS)
    masks = [patches[k][1] for k in range(len(patches))]
    assert painted == list(range(6))
    for k, mask in enumerate(masks):
        meta = patches[k][2]
        (position,) = meta["frames"]
        top, left, rows, columns = meta["window"]
        expected = whole[position][1][:, top : top + rows, left : left + columns]
        assert torch.equal(mask, expected)
        assert meta["mask_area"] == tuple(int((expected == n).sum()) for n in LABELS.values())
    masks[0].fill_(99)  # it is the sample's own
    assert torch.equal(patches[0][1], patches[0:1][1][0])
    assert not (patches[1][1] == 99).any()


def test_few_masks_of_whole_frames_are_kept(folder, painted, monkeypatch):
    monkeypatch.setattr(masked, "_MOST_KEPT", 2 * 12 * 16)
    patches = DicomPatches(folder, (5, 7), per_frame=1, masks=True, labels=LABELS, seed=3)
    for k in (0, 1, 0, 1, 2, 1, 2, 0):
        patches[k]
    assert painted == [0, 1, 2, 0]
    monkeypatch.setattr(masked, "_MOST_KEPT", 0)
    for k in (3, 3, 4, 3):  # the newest one is always kept
        patches[k]
    assert painted[4:] == [3, 4, 3]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_paint_for_themselves(folder, method):
    patches = DicomPatches(folder, (5, 7), per_frame=4, masks=True, labels=LABELS, seed=3)
    expected = torch.stack([patches[k][1] for k in range(len(patches))])
    loader = DataLoader(patches, 4, num_workers=1, multiprocessing_context=method)
    assert torch.equal(torch.cat([batch[1] for batch in loader]), expected)
    assert len(pickle.dumps(patches)) < 1 << 20


@pytest.mark.parametrize("few", [0, 16])
def test_areas_are_counted_alike(folder, few, monkeypatch):
    monkeypatch.setattr(masked, "_FEW", few)
    crops = DicomCrops(
        folder, {"SOPInstanceUID": [DicomFrames(folder)[1][1]["SOPInstanceUID"]], "x": [5], "y": [5]},
        (6, 6), masks=True, labels=LABELS,
    )  # fmt: skip
    _, mask, meta = crops[0]
    assert meta["mask_area"] == tuple(int((mask == n).sum()) for n in LABELS.values())
    assert meta["mask_area"][0]
