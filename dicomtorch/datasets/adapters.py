"""Samples with masks in the shapes of other libraries, so that one random transform moves image and mask together.

Each is a `sample_transform`, alone or before others: `DicomFrames(..., masks=True, sample_transform=to_tv_tensors)`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from dicomtorch.errors import OptionError, import_optional

# No extra has these libraries: who uses an adapter has them.
_TORCHVISION, _MONAI, _TORCHIO = "torchvision", "monai", "torchio"


def to_tv_tensors(image: Tensor, mask: Any, meta: Any) -> tuple[Any, Any, Any]:
    """A sample whose image and mask, boxes or points `torchvision.transforms.v2` moves in one call.

    Of several plain tensors those transforms take only the first, and leave a mask where it was. They take what this
    returns, inside of `sample_transform`; of a sample as a dataset gives it they take nothing (`tuple(sample)` does).

    Args:
        image: (C, H, W).
        mask: (1 or K, H, W); comes out with its type, and by nearest neighbour. Of a dataset with `boxes=` or `points=`
            its dict.
        meta: Comes out as it is.

    Returns:
        (Image, Mask, meta) of `torchvision.tv_tensors`, or a dict with `BoundingBoxes` or `KeyPoints` for the mask.

    Raises:
        MissingDependencyError: torchvision is not installed.
    """
    tv_tensors: Any = import_optional("torchvision.tv_tensors", _TORCHVISION)
    if not isinstance(mask, dict):
        return tv_tensors.Image(image), tv_tensors.Mask(mask), meta
    size = tuple(image.shape[-2:])
    target = dict(mask)
    if "boxes" in mask:
        target["boxes"] = tv_tensors.BoundingBoxes(mask["boxes"], format="XYXY", canvas_size=size)
    if "points" in mask:
        target["points"] = tv_tensors.KeyPoints(mask["points"], canvas_size=size)
    return tv_tensors.Image(image), target, meta


def to_monai(image: Tensor, mask: Tensor, meta: Any) -> dict[str, Any]:
    """A sample as a dictionary for MONAI's transforms with a `d` at the end: keys "image", "mask" and "meta".

    Give `mode=("bilinear", "nearest")` where a transform resamples; masks then come out with the numbers they had, in
    float32.

    Args:
        image: (C, D, H, W) of a volume or crop, or (C, H, W).
        mask: As large.
        meta: Its `affine_ras` becomes that of the `MetaTensor`s, whose axes are (D, H, W) as here.

    Raises:
        MissingDependencyError: monai is not installed.
    """
    data: Any = import_optional("monai.data", _MONAI)
    affine = meta.get("affine_ras")
    if affine is None:
        affine = torch.eye(4, dtype=torch.float64)
    return {
        "image": data.MetaTensor(image, affine=affine),
        "mask": data.MetaTensor(mask, affine=affine),
        "meta": dict(meta),
    }


def to_subject(image: Tensor, mask: Tensor, meta: Any) -> Any:
    """A volume and its mask as a `torchio.Subject` with "image" and "mask"; axes are (C, W, H, D) there.

    Args:
        image: (C, D, H, W) of a volume or crop.
        mask: As large.
        meta: Of the sample; all of it but the affines become attributes of the subject.

    Raises:
        OptionError: It is no volume.
        MissingDependencyError: torchio is not installed.
    """
    torchio: Any = import_optional("torchio", _TORCHIO)
    if image.ndim != 4 or "affine_ras" not in meta:
        raise OptionError("to_subject takes volumes and crops, which have an affine")
    affine = np.asarray(meta["affine_ras"])[:, [2, 1, 0, 3]]
    kept = {name: value for name, value in meta.items() if name not in ("affine", "affine_ras")}
    return torchio.Subject(
        image=torchio.ScalarImage(tensor=image.permute(0, 3, 2, 1).float(), affine=affine),
        mask=torchio.LabelMap(tensor=mask.permute(0, 3, 2, 1), affine=affine),
        **kept,
    )
