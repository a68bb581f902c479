"""Image and mask move together through the transforms of other libraries."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dicomtorch import DicomFrames, DicomVolumes
from dicomtorch.errors import OptionError
from dicomtorch.integrations.monai import to_monai
from dicomtorch.integrations.torchio import to_subject
from dicomtorch.integrations.torchvision import to_tv_tensors
from tests.support.mask_phantoms import segmentation, series
from tests.support.requirements import require


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


def test_torchvision_moves_both(folder):
    require("torchvision")
    from torchvision.transforms import v2

    def of(transform):
        return DicomFrames(
            folder,
            masks=True,
            values="modality",
            sample_transform=lambda *sample: transform(*to_tv_tensors(*sample)),
        )

    image, mask, meta = of(v2.RandomHorizontalFlip(1))[0]
    assert torch.equal(image == 1000, mask == 1)
    assert mask[0, 2, 2] == 1
    assert mask.dtype == torch.uint8
    _, small, _ = of(v2.Resize((6, 8)))[0]
    assert set(small.unique().tolist()) == {0, 1}
    assert meta["mask_area"] == (20,)


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
