"""Image and mask move together through the transforms of other libraries."""

from __future__ import annotations

import pickle
import sys
import threading
import time

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from dicomtorch import DicomFrames, DicomVolumes, FrameLoader
from dicomtorch.errors import MissingDependencyError, OptionError
from dicomtorch.integrations.monai import MonaiTransform, prepare_batch, to_monai
from dicomtorch.integrations.torchio import to_subject, to_subjects
from tests.support.mask_phantoms import segmentation, series
from tests.support.programs import run_program
from tests.support.requirements import require
from tests.support.rooms import REPOSITORY
from tests.support.torchvision_beside import torchvision_beside


@pytest.fixture
def folder(tmp_path):
    """Images that are bright where their masks are, and nowhere else."""
    slices = series(tmp_path, 4, (12, 16), spacing=2.5, PixelSpacing=[0.5, 0.8])
    mask = np.zeros((12, 16), np.uint8)
    mask[2:6, 9:14] = 1
    for each in slices:
        each.PixelData = (mask.astype(np.int16) * 1000).tobytes()
        each.save_as(tmp_path / f"ct{each.InstanceNumber - 1:03}.dcm", enforce_file_format=True)
    segmentation(tmp_path / "seg.dcm", slices, [(1, k, mask) for k in range(4)], names=["a"])
    return tmp_path


def test_a_sample_transform_has_image_mask_and_meta(folder):
    def turned(image, mask, meta):
        return image.flip(-1), mask.flip(-1), meta

    plain = DicomFrames(folder, masks=True, values="modality")
    frames = DicomFrames(folder, masks=True, values="modality", sample_transform=turned)
    image, mask, meta = frames[1]
    assert torch.equal(mask, plain[1][1].flip(-1))
    assert torch.equal(image == 1000, mask == 1)
    assert meta["mask_area"] == (20,)
    images, masks, _ = frames[[0, 1]]
    assert torch.equal(images == 1000, masks == 1)


def test_a_sample_transform_may_make_something_else(folder):
    frames = DicomFrames(
        folder, masks=True, sample_transform=lambda i, m, meta: {"image": i, "label": m}
    )
    assert frames[0].keys() == {"image", "label"}
    assert frames[[0, 1]]["label"].shape == (2, 1, 12, 16)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_torchvision_moves_image_mask_and_boxes(folder, tmp_path_factory):
    beside = torchvision_beside(tmp_path_factory.mktemp("beside"))
    program = ("-m", "tests.support.torchvision_moves", folder)
    run_program(*program, cwd=REPOSITORY, path=[REPOSITORY, *beside], seconds=200)


def test_monai_moves_both(folder):
    require("monai")
    from monai.transforms import Flipd, Spacingd

    volumes = DicomVolumes(folder, masks=True, values="modality", sample_transform=to_monai)
    sample = volumes[0]
    spacing = sample["image"].pixdim
    np.testing.assert_allclose(spacing, [2.5, 0.5, 0.8])
    flipped = Flipd(("image", "mask"), 2)(sample)
    assert torch.equal(flipped["image"] == 1000, flipped["mask"] == 1)
    finer = Spacingd(("image", "mask"), (2.5, 0.25, 0.4), mode=("bilinear", "nearest"))(sample)
    assert set(finer["mask"].unique().tolist()) == {0, 1}
    assert finer["mask"].shape[1:] == finer["image"].shape[1:]


class Chance:
    """As MONAI's random transforms: draws, then moves one key after the other by what it remembers."""

    def __init__(self):
        self.random = np.random.RandomState(0)
        self.threads = set()

    def set_random_state(self, seed):
        self.random = np.random.RandomState(seed)
        return self

    def __call__(self, sample):
        self.threads.add(threading.get_ident())
        self.turned = self.random.rand() < 0.5
        time.sleep(0.002)  # others come in between
        for key in ("image", "mask"):
            if self.turned:
                sample[key] = sample[key].flip(-1)
            time.sleep(0.001)
        assert len(self.threads) == 1
        return sample


def test_threads_do_not_share_monais_state(folder):
    require("monai")
    steps = Chance()
    frames = DicomFrames(
        folder,
        masks=True,
        values="modality",
        unlabelled="drop",
        sample_transform=MonaiTransform(steps),
    )
    seen = set()
    for batch in FrameLoader(frames, 1, sampler=[0, 1, 2, 3] * 20, num_threads=4):
        image, mask = batch["image"], batch["mask"]
        assert torch.equal(image == 1000, mask == 1)
        seen.add(bool(mask[..., :4].any()))
    assert seen == {False, True}
    assert not steps.threads


def test_monais_transforms_follow_the_seed(folder):
    require("monai")
    from monai.transforms import Compose, RandFlipd, RandGaussianNoised

    steps = MonaiTransform(
        Compose([RandFlipd(("image", "mask"), 0.5, 2), RandGaussianNoised("image", 1)])
    )
    options = {
        "masks": True,
        "values": "modality",
        "sample_transform": pickle.loads(pickle.dumps(steps)),
    }
    epochs = [
        torch.cat([batch["image"].as_tensor() for batch in loader])
        for dataset in (DicomVolumes(folder, seed=seed, **options) for seed in (1, 1, 2))
        for loader in (FrameLoader(dataset, 1), DataLoader(dataset, 1, num_workers=1))
    ]
    for other in epochs[1:4]:
        assert torch.equal(epochs[0], other)
    assert not torch.equal(epochs[0], epochs[4])


def test_torchio_moves_both(folder):
    require("torchio")
    import torchio

    volumes = DicomVolumes(folder, masks=True, values="modality", sample_transform=to_subject)
    subject = volumes[0]
    np.testing.assert_allclose(subject.spacing, (0.8, 0.5, 2.5))
    assert subject["mask"].data.dtype == torch.uint8
    moved = torchio.RandomFlip(axes=(0,), flip_probability=1)(subject)
    assert torch.equal(moved["image"].data == 1000, moved["mask"].data == 1)
    assert not torch.equal(moved["mask"].data, subject["mask"].data)


def test_a_frame_is_no_subject(folder):
    require("torchio")
    with pytest.raises(OptionError, match="volumes and crops"):
        to_subject(*DicomFrames(folder, masks=True)[0])


def test_samples_without_masks(folder):
    require("monai")
    require("torchio")
    plain = DicomVolumes(folder, values="modality")[0]
    sample = to_monai(*plain)
    assert sample.keys() == {"image", "meta"}
    assert torch.equal(sample["image"].as_tensor(), plain[0])
    assert [*to_subject(*plain).get_images_dict(intensity_only=False)] == ["image"]


def test_subjects_are_read_when_they_are_used(folder):
    require("torchio")
    import torchio

    volumes = DicomVolumes(folder, masks=True, values="modality")
    reads = []
    read = type(volumes).__getitem__

    class Counted(DicomVolumes):
        def __getitem__(self, i):
            reads.append(i)
            return read(self, i)

    volumes.__class__ = Counted
    subjects = to_subjects(volumes, load=False)
    assert not reads
    subject = subjects[0]
    assert not reads
    assert subject["index"] == 0
    assert torch.equal(subject["image"].data == 1000, subject["mask"].data == 1)
    assert reads == [0]  # once for both
    _, mask, meta = volumes[0]
    assert torch.equal(subject["mask"].data, mask.permute(0, 3, 2, 1))
    np.testing.assert_allclose(subject["image"].affine, meta["affine_ras"][:, [2, 1, 0, 3]])
    assert str(folder) not in str(subject["image"].path)
    queue = torchio.Queue(to_subjects(volumes), 4, 2, torchio.data.LabelSampler((4, 4, 2), "mask"))
    (batch,) = torchio.SubjectsLoader(queue, batch_size=2)
    assert batch["image"][torchio.DATA].shape == (2, 1, 4, 4, 2)
    assert torch.equal(batch["image"][torchio.DATA] == 1000, batch["mask"][torchio.DATA] == 1)
    grid = torchio.GridSampler(subjects[0], (4, 4, 2))
    assert len(grid) > 1
    moved = torchio.RandomFlip(axes=(0,), flip_probability=1)(subjects[0])
    assert torch.equal(moved["image"].data == 1000, moved["mask"].data == 1)


def test_what_engines_call(folder):
    frames = DicomFrames(folder, masks=True, values="modality")
    images, masks, meta = frames[:2]
    for prepared, expected in (
        (prepare_batch()((images, masks, meta)), masks),
        (prepare_batch("InstanceNumber")((images, masks, meta)), meta["InstanceNumber"]),
        (prepare_batch()((images, torch.tensor([1, 2]))), torch.tensor([1, 2])),
        (prepare_batch()({"image": images, "label": masks}), masks),
        (prepare_batch("rows", image="image")({"image": images, "rows": masks}), masks),
    ):
        assert prepared[0] is images
        assert torch.equal(prepared[1], expected)
    assert prepare_batch()((images, meta))[1] is None
    double, _ = prepare_batch()((images, meta), "cpu", True, dtype=torch.float64)
    assert double.dtype == torch.float64
    with pytest.raises(OptionError, match="has no 'label'"):
        prepare_batch("label")((images, meta))
    with pytest.raises(OptionError, match="'Modality' is a list"):
        prepare_batch("Modality")((images, meta))
    pickle.loads(pickle.dumps(prepare_batch("label")))


def test_a_library_that_is_not_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchio", None)
    with pytest.raises(MissingDependencyError, match=r"pip install torchio"):
        to_subject(torch.zeros(1, 2, 2, 2), {})
