"""Samples as dictionaries, as MONAI's datasets and transforms take them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from dicomtorch.batches.collate import FrameSample
from dicomtorch.datasets.positions import one_position
from dicomtorch.errors import OptionError


class SampleDict(Mapping[str, Any]):
    """One sample: the image, the mask if there are masks, and every key of `meta`.

    Transforms of MONAI make a `dict` of it. Its bytes, when it is pickled, are the same in every run, because
    `PersistentDataset` finds its files by them; those of a `dict` of tensors differ.

    Args:
        content: What it holds.
    """

    def __init__(self, content: Mapping[str, Any]) -> None:
        self._content = dict(content)

    def __getitem__(self, key: str) -> Any:
        return self._content[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._content)

    def __len__(self) -> int:
        return len(self._content)

    def __repr__(self) -> str:
        return f"SampleDict({', '.join(self._content)})"

    def __deepcopy__(self, memo: dict[int, Any]) -> SampleDict:
        return SampleDict(copy.deepcopy(self._content, memo))

    def __reduce__(self) -> tuple[Any, ...]:
        arrays = {
            key: value.numpy()
            for key, value in self._content.items()
            if isinstance(value, Tensor)
            and value.device.type == "cpu"
            and value.dtype != torch.bfloat16
        }
        return _restored, ({**self._content, **arrays}, tuple(arrays))


def _restored(content: dict[str, Any], arrays: Sequence[str]) -> SampleDict:
    # Copied: what pickle gives may not be written to.
    return SampleDict({**content, **{key: torch.from_numpy(content[key].copy()) for key in arrays}})


class SampleDicts(Dataset[SampleDict], Sequence[SampleDict]):
    """The samples of a dataset as dictionaries; made by `as_dicts`.

    Args:
        dataset: Gives `(image, meta)` or `(image, mask, meta)`.
        image: The key of the image.
        mask: The key of the mask.
    """

    def __init__(self, dataset: Any, image: str, mask: str) -> None:
        self.dataset = dataset
        self._names = (image, mask)

    def __len__(self) -> int:
        return len(self.dataset)

    def __repr__(self) -> str:
        return f"{self.dataset!r}.as_dicts{self._names!r}"

    def __getitem__(self, i: Any) -> Any:
        """One sample for an integer, a list of them for a slice.

        Raises:
            OptionError: A transform made something else of the sample, or `meta` has the name of the image.
        """
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        sample = self.dataset[one_position(i, len(self), self.dataset.sample_name)]
        if not isinstance(sample, FrameSample):
            raise OptionError(
                f"as_dicts needs samples that end in meta; these are {type(sample).__name__}: leave out target= and "
                f"transforms that return something else"
            )
        *tensors, meta = sample
        named = dict(zip(self._names, tensors, strict=False))
        if taken := named.keys() & meta.keys():
            raise OptionError(f"meta has {', '.join(taken)} already; give the image another name")
        return SampleDict({**named, **meta})
