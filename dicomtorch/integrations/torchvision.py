"""Samples for `torchvision.transforms.v2`, which then moves image and mask, boxes or points together.

It is a `sample_transform`, alone or before others: `DicomFrames(..., masks=True, sample_transform=to_tv_tensors)`.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from dicomtorch.errors import import_library


def to_tv_tensors(image: Tensor, *rest: Any) -> tuple[Any, ...]:
    """A sample whose image and mask, boxes or points `torchvision.transforms.v2` moves in one call.

    Of several plain tensors those transforms take only the first, and leave a mask where it was. They take what this
    returns, inside of `sample_transform`; of a sample as a dataset gives it they take nothing (`tuple(sample)` does).

    Args:
        image: (C, H, W).
        rest: The mask (1 or K, H, W), where the dataset has masks, then meta. A mask comes out with its type, and by
            nearest neighbour. Of a dataset with `boxes=` or `points=` its dict is in the place of the mask; a
            "mask" or "masks" that a transform put into it is moved too.

    Returns:
        (Image, Mask, meta) of `torchvision.tv_tensors`; for the dict a dict with `BoundingBoxes`, `KeyPoints`, `Mask`.

    Raises:
        MissingDependencyError: torchvision is not installed.
    """
    tv_tensors: Any = import_library("torchvision.tv_tensors", "torchvision")
    *masks, meta = rest
    size = tuple(image.shape[-2:])
    made = [_target(tv_tensors, mask, size) for mask in masks]
    return tv_tensors.Image(image), *made, meta


def _target(tv_tensors: Any, mask: Any, size: tuple[int, ...]) -> Any:
    if not isinstance(mask, dict):
        return tv_tensors.Mask(mask)
    target = dict(mask)
    for name, value in mask.items():
        if name == "boxes":
            target[name] = tv_tensors.BoundingBoxes(value, format="XYXY", canvas_size=size)
        elif name == "points":
            target[name] = tv_tensors.KeyPoints(value, canvas_size=size)
        elif name in ("mask", "masks"):
            target[name] = tv_tensors.Mask(value)
    return target
