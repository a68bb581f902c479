"""What `torchvision.transforms.v2` moves: `python -m tests.support.torchvision_moves FOLDER`, beside torchvision.

FOLDER has four slices, bright where their masks are and nowhere else: rows 2 to 5, columns 9 to 13 of (12, 16).
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from dicomtorch import DicomFrames
from dicomtorch.integrations.torchvision import to_tv_tensors

FLIP = v2.RandomHorizontalFlip(1.0)
BOX = {"image": ["ct001"], "x": [9], "y": [2], "width": [5], "height": [4]}


def masks(folder: str) -> None:
    """Plain tensors are left behind, ours are not."""

    def of(transform: Any) -> DicomFrames[Any, Any]:
        return DicomFrames(folder, masks=True, values="modality", sample_transform=transform)

    image, mask, _ = of(lambda *sample: FLIP(*sample))[0]
    assert not torch.equal(image == 1000, mask == 1)
    image, mask, meta = of(lambda *sample: FLIP(*to_tv_tensors(*sample)))[0]
    assert torch.equal(image == 1000, mask == 1)
    assert mask[0, 2, 2] == 1
    assert mask.dtype == torch.uint8
    assert isinstance(mask, tv_tensors.Mask)
    assert meta["mask_area"] == (20,)
    turn = v2.RandomAffine(20, (0.1, 0.1))
    for _ in range(5):
        image, mask, _ = of(lambda *sample: turn(*to_tv_tensors(*sample)))[0]
        assert torch.equal(image == 1000, mask == 1)
    _, small, _ = of(lambda *sample: v2.Resize((6, 8))(*to_tv_tensors(*sample)))[0]
    assert set(small.unique().tolist()) == {0, 1}
    image, meta = to_tv_tensors(*DicomFrames(folder)[0])
    assert isinstance(image, tv_tensors.Image)


def boxes(folder: str) -> None:
    """Boxes, and a mask that is put beside them, take the way of the image."""

    def moved(image: Any, target: Any, meta: Any) -> Any:
        target = {**target, "masks": (image > 500).to(torch.uint8)}
        return FLIP(*to_tv_tensors(image, target, meta))

    frames = DicomFrames(folder, values="modality", boxes=BOX, sample_transform=moved)
    image, target, _ = frames[frames.find(InstanceNumber=2, Modality="CT")]
    (box,) = target["boxes"].tolist()
    rows, columns = torch.nonzero(image[0] == 1000, as_tuple=True)
    assert box == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] == [2, 2, 7, 6]
    assert torch.equal(target["masks"][0] == 1, image[0] == 1000)
    if hasattr(tv_tensors, "KeyPoints"):
        points = {"image": ["ct001"], "x": [9], "y": [2]}
        frames = DicomFrames(
            folder, points=points, sample_transform=lambda *s: FLIP(*to_tv_tensors(*s))
        )
        _, target, _ = frames[frames.find(InstanceNumber=2, Modality="CT")]
        assert target["points"][0, 1] == 2
        assert 5 <= target["points"][0, 0] <= 7


if __name__ == "__main__":
    masks(sys.argv[1])
    boxes(sys.argv[1])
