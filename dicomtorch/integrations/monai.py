"""Samples as MONAI's dictionaries of `MetaTensor`s, and batches for its engines and for those of Ignite."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from dicomtorch.errors import OptionError, import_library


def to_monai(image: Tensor, *rest: Any) -> dict[str, Any]:
    """A sample as a dictionary for MONAI's transforms with a `d` at the end: keys "image", "mask" and "meta".

    It is a `sample_transform`: `DicomVolumes(..., masks=True, sample_transform=to_monai)`; with transforms of MONAI
    it is `sample_transform=MonaiTransform(Compose([...]))`. Give
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


class MonaiTransform:
    """A `sample_transform` that gives samples to MONAI's transforms as the dictionaries of `to_monai`.

    MONAI's random transforms remember between two lines what they drew, and draw from a generator of their own. Used
    by several threads at once, as `FrameLoader` does, the image can be flipped and its mask not; in workers all draw
    the same. So each thread has a copy, whose generators are set for each sample from torch's: by `seed=` of the
    dataset if there is one, and in each worker differently.

    Args:
        transform: A dictionary transform or a `Compose` of them; it is copied and never changed.
    """

    def __init__(self, transform: Callable[[dict[str, Any]], Any]) -> None:
        self.transform = transform
        self._of_thread = threading.local()

    def __call__(self, image: Tensor, *rest: Any) -> Any:
        """What the transforms make of a sample.

        Args:
            image: See `to_monai`.
            rest: See `to_monai`.

        Raises:
            MissingDependencyError: monai is not installed.
        """
        sample = to_monai(image, *rest)
        transform = getattr(self._of_thread, "transform", None)
        if transform is None:
            transform = self._of_thread.transform = copy.deepcopy(self.transform)
        if hasattr(transform, "set_random_state"):
            transform.set_random_state(seed=int(torch.randint(1 << 32, ())))
        return transform(sample)

    def __getstate__(self) -> dict[str, Any]:
        return {"transform": self.transform}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


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
