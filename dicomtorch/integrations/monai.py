"""Samples as MONAI's dictionaries of `MetaTensor`s, and batches for its engines and for those of Ignite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dicomtorch.errors import OptionError, import_library


def to_monai(image: Tensor, *rest: Any) -> dict[str, Any]:
    """A sample as a dictionary for MONAI's transforms with a `d` at the end: keys "image", "mask" and "meta".

    It is a `sample_transform`: `DicomVolumes(..., masks=True, sample_transform=to_monai)`. Give
    `mode=("bilinear", "nearest")` where a transform resamples; masks then come out with the numbers they had, in
    float32.

    Args:
        image: (C, D, H, W) of a volume or crop, or (C, H, W).
        rest: The mask, as large, where the dataset has masks, then meta. Its `affine_ras` becomes that of the
            `MetaTensor`s, whose axes are (D, H, W) as here: `LoadImage` has (W, H, D), with the columns of its affine
            in that order. Spacing is `image.pixdim`.

    Raises:
        MissingDependencyError: monai is not installed.
    """
    data: Any = import_library("monai.data", "monai")
    *masks, meta = rest
    affine = meta.get("affine_ras")
    if affine is None:
        affine = torch.eye(4, dtype=torch.float64)
    made = [data.MetaTensor(tensor, affine=affine) for tensor in (image, *masks)]
    return {**dict(zip(("image", "mask"), made, strict=False)), "meta": dict(meta)}


class PrepareBatch:
    """What MONAI's and Ignite's engines call to get (inputs, labels) of a batch; made by `prepare_batch`.

    Args:
        label: See `prepare_batch`.
        image: See `prepare_batch`.
    """

    def __init__(self, label: str | None, image: str) -> None:
        self.label, self.image = label, image

    def __call__(
        self,
        batch: Any,
        device: torch.device | str | None = None,
        non_blocking: bool = False,
        **options: Any,
    ) -> tuple[Any, Any]:
        """(inputs, labels) of a batch, on the device.

        Args:
            batch: `(images, meta)` or `(images, masks, meta)` of a dataset of this package, `(images, targets)`, or a
                dictionary.
            device: Where to.
            non_blocking: As in `Tensor.to`.
            **options: Further ones of `Tensor.to`.

        Raises:
            OptionError: It has no such label, or one that is no tensor.
        """
        images, label = self._parts(batch)
        if label is not None and not isinstance(label, Tensor):
            raise OptionError(
                f"prepare_batch: label {self.label!r} is a {type(label).__name__}, engines take tensors; join it to "
                "the index as a number"
            )
        moved = [
            None if part is None else part.to(device=device, non_blocking=non_blocking, **options)
            for part in (images, label)
        ]
        return moved[0], moved[1]

    def _parts(self, batch: Any) -> tuple[Any, Any]:
        if isinstance(batch, Mapping):
            name = self.label or next((n for n in ("label", "mask") if n in batch), None)
            return self._of(batch, self.image), None if name is None else self._of(batch, name)
        images, *between, last = batch
        if self.label is not None:
            return images, self._of(last, self.label)
        if between:
            return images, between[0]
        return images, None if isinstance(last, Mapping) else last

    def _of(self, batch: Any, name: str) -> Any:
        if not isinstance(batch, Mapping) or name not in batch:
            has = ", ".join(map(str, batch)) if isinstance(batch, Mapping) else "no names"
            raise OptionError(f"prepare_batch: the batch has no {name!r}; it has {has}")
        return batch[name]


def prepare_batch(label: str | None = None, *, image: str = "image") -> PrepareBatch:
    """What to give to engines as `prepare_batch=`: `SupervisedTrainer(..., prepare_batch=prepare_batch("label"))`.

    The engines of MONAI and Ignite take a pair of tensors; the second part of a batch of this package is `meta`.

    Args:
        label: A key of `meta`, as a joined column is, or of a batch that is a dictionary. `None`: the masks where the
            batch has some, the targets where the dataset has `target=`, else no label.
        image: The key of the images where batches are dictionaries.
    """
    return PrepareBatch(label, image)
