"""Samples -> batch. Registered with torch, so that a plain `DataLoader` uses it with no argument."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data._utils.collate import collate as torch_collate
from torch.utils.data._utils.collate import default_collate_fn_map

from dicomtorch.batches.metadata import FrameMeta, MetaColumns, metas_of
from dicomtorch.batches.packed import PackedMeta
from dicomtorch.errors import OptionError
from dicomtorch.pixels.memory import new_batch

CollateMap = Mapping[Any, Callable[..., Any]]


class FrameSample(tuple[Any, ...]):
    """One sample: `(image, meta)`, the tensor (C, H, W) and its `FrameMeta`, or `(image, mask, meta)`.

    In place of a mask there may be a dict of boxes and labels.
    """

    __slots__ = ()


class FrameSamples(Sequence[FrameSample]):
    """Samples that were read together.

    Args:
        samples: All of them.
        images: The batch tensor (B, C, H, W) that the images of the samples are slices of; `None` if sizes differ or a
            transform made other tensors.
        masks: The same of masks, where samples have one.

    Attributes:
        images: As given.
        masks: As given.
    """

    def __init__(
        self,
        samples: Iterable[FrameSample],
        images: Tensor | None = None,
        masks: Tensor | None = None,
    ) -> None:
        self.images = images
        self.masks = masks
        self._columns: MetaColumns = {}
        self._made: list[FrameSample | None] = list(samples)
        self._given: dict[int, FrameMeta] = {}

    @classmethod
    def of(cls, images: Tensor, columns: MetaColumns, masks: Tensor | None = None) -> FrameSamples:
        """Samples that are made when they are asked for: a batch needs none of them."""
        samples = cls((), images, masks)
        samples._columns = columns
        samples._made = [None] * len(images)
        return samples

    def __len__(self) -> int:
        return len(self._made)

    def __getitem__(self, k: Any) -> Any:
        if isinstance(k, slice):
            return [self[i] for i in range(*k.indices(len(self)))]
        k = range(len(self))[k]
        sample = self._made[k]
        if sample is None:
            assert self.images is not None
            (meta,) = metas_of({key: values[k : k + 1] for key, values in self._columns.items()})
            self._given[k] = FrameMeta(meta)
            tensors = (self.images[k],) if self.masks is None else (self.images[k], self.masks[k])
            sample = self._made[k] = FrameSample((*tensors, meta))
        return sample

    def __setitem__(self, k: int, sample: FrameSample) -> None:
        self._made = list(self)
        self._columns = {}
        self._made[k] = sample

    def together(self) -> tuple[Any, ...] | None:
        """The batch, if all samples are still what was read; `None` if they have to be looked at one by one."""
        images, masks = self.images, self.masks
        if images is None or not self._columns:
            return None
        for k, meta in self._given.items():
            sample = self._made[k]
            assert sample is not None
            if not _is_as_made(sample[-1], meta) or not _are_slices([sample[0]], images[k : k + 1]):
                return None
            if len(sample) != (2 if masks is None else 3) or (
                masks is not None and not _are_slices([sample[1]], masks[k : k + 1])
            ):
                return None
        meta = PackedMeta.of(self._columns)
        return (images, meta) if masks is None else (images, masks, meta)


def collate_frames(
    samples: Sequence[Any], *, collate_fn_map: CollateMap | None = None
) -> tuple[Any, ...]:
    """Makes a batch of `(image, meta)` or `(image, mask, meta)`.

    Images become one tensor (B, C, H, W), and so do masks; samples that were read together lie in one already and are
    not copied. Boxes, of which images have different numbers, stay a list. In `meta` integers become int64 tensors
    (B,), floats float64 (B,), tuples of n numbers the same (B, n), texts and tuples of texts a list.

    Args:
        samples: What a dataset gave.
        collate_fn_map: As torch's `default_collate` hands it on; for what transforms made of samples.

    Raises:
        OptionError: The images differ in size or channels, or the samples in their keys.
    """
    images, masks = None, None
    if isinstance(samples, FrameSamples):
        if batch := samples.together():
            return batch
        images, masks = samples.images, samples.masks
    metas = [sample[-1] for sample in samples]
    parts = list(zip(*(sample[:-1] for sample in samples), strict=True))
    joined = [_together(list(parts[0]), images, collate_fn_map)]
    if len(parts) > 1:
        is_mask = all(isinstance(part, Tensor) for part in parts[1])
        joined.append(
            _together(list(parts[1]), masks, collate_fn_map) if is_mask else list(parts[1])
        )
    return (*joined, collate_meta(metas, collate_fn_map=collate_fn_map))


def _together(tensors: list[Any], batch: Tensor | None, collate_fn_map: CollateMap | None) -> Any:
    """One tensor: the one that all lie in, else a new one."""
    if batch is not None and _are_slices(tensors, batch):
        return batch
    return _stack(tensors, collate_fn_map)


def collate_meta(
    metas: Sequence[Mapping[str, Any]], *, collate_fn_map: CollateMap | None = None
) -> FrameMeta:
    """Metadata of a batch from that of its samples; see `collate_frames`."""
    keys = metas[0].keys()
    for meta in metas:
        if meta.keys() != keys:
            differing = ", ".join(sorted(map(str, keys ^ meta.keys())))
            raise OptionError(
                f"the samples of a batch have different metadata keys: {differing}; give every sample every key"
            )
    batch = FrameMeta()
    for key in keys:
        values = [meta[key] for meta in metas]
        kind = type(values[0])
        if kind is str or (kind is tuple and values[0] and type(values[0][0]) is str):
            batch[key] = values
        elif (number := _type_of_numbers(values)) is not None:
            batch[key] = torch.from_numpy(
                np.array(values, np.int64 if number is int else np.float64)
            )
        else:
            batch[key] = torch_collate(values, collate_fn_map=_with_default(collate_fn_map))
    return batch


def _type_of_numbers(values: list[Any]) -> type | None:
    """`int` or `float` if all values are that (`float` if they are mixed), or tuples of one length of it."""
    kind = type(values[0])
    if kind is int or kind is float:
        kinds = {type(value) for value in values}
        return kind if kinds == {kind} else float if kinds == {int, float} else None
    if kind is not tuple or not values[0] or type(values[0][0]) not in (int, float):
        return None
    length, kind = len(values[0]), type(values[0][0])
    alike = all(len(v) == length and all(type(x) is kind for x in v) for v in values)
    return kind if alike else None


def _is_as_made(meta: Any, made: FrameMeta) -> bool:
    """Whether `meta` has the very values of `made`: what else a wrapper put there may not be comparable."""
    return len(meta) == len(made) and all(meta.get(key, made) is made[key] for key in made)


def _are_slices(images: list[Any], batch: Tensor) -> bool:
    """Whether image k still is `batch[k]`: a transform, a sampler or a wrapper may have put something else there."""
    if len(images) != len(batch):
        return False
    step = batch.stride(0) * batch.element_size()
    first = batch.data_ptr()
    return all(
        isinstance(image, Tensor)
        and image.data_ptr() == first + k * step
        and image.shape == batch.shape[1:]
        and image.stride() == batch.stride()[1:]  # a transposed square begins there too
        and image.dtype == batch.dtype
        for k, image in enumerate(images)
    )


def _stack(images: list[Any], collate_fn_map: CollateMap | None) -> Any:
    if not all(isinstance(image, Tensor) for image in images):
        return torch_collate(images, collate_fn_map=_with_default(collate_fn_map))
    sizes = Counter(tuple(image.shape) for image in images)
    if len(sizes) > 1:
        listed = ", ".join(f"{count} of {size}" for size, count in sizes.most_common(4))
        raise OptionError(
            f"the images of a batch must have one shape (C, H, W), but there are {listed}. Use size=(H, W) and "
            f'color="gray" or "rgb" to make them equal, filter the index (index.filter(Rows=..., Columns=...)), '
            f"or pass a collate_fn that keeps a list"
        )
    first = images[0]
    if any(image.device.type != "cpu" for image in images):
        return torch.stack(images)
    batch = new_batch((len(images), *first.shape), first.dtype)
    return torch.stack(images, out=batch)


def _with_default(collate_fn_map: CollateMap | None) -> Any:
    return default_collate_fn_map if collate_fn_map is None else collate_fn_map


default_collate_fn_map[FrameSample] = collate_frames
