"""From an image and its metadata to what a sample is: transforms, targets, and random numbers that can be had again."""

from __future__ import annotations

import contextlib
import copy
import os
import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data._utils.collate import default_collate_fn_map

from dicomtorch.batches.collate import FrameSample, FrameSamples, collate_frames
from dicomtorch.batches.metadata import FrameMeta
from dicomtorch.datasets.masked import BoxTarget, Mask
from dicomtorch.datasets.options import ReadPolicy
from dicomtorch.errors import OptionError

_SEEDERS = ("set_random_state", "set_random_seed")  # of MONAI, of Albumentations


class TargetSample(tuple[Any, ...]):
    """One sample of a dataset with `target=`: `(image, target)`, or `(image, mask, target)`."""

    __slots__ = ()


class Finisher:
    """Makes samples of images and metadata, as `transform`, `sample_transform`, `target` and `seed` say.

    Args:
        policy: Has them.

    Attributes:
        transform: Called with the image; may be replaced.
        sample_transform: Called with image and metadata; may be replaced.
        target: A key of the metadata, or a function of them.
    """

    def __init__(self, policy: ReadPolicy) -> None:
        self.transform = policy.transform
        self.sample_transform = policy.sample_transform
        self.target = policy.target
        self._random = None if policy.seed is None else RandomStates(policy.seed)

    @property
    def keeps_images(self) -> bool:
        """Whether the image of a sample is the tensor that was read."""
        return self.transform is None and self.sample_transform is None

    @property
    def keeps_samples(self) -> bool:
        """Whether a sample is the tensor and the metadata that were read."""
        return self.keeps_images and self.target is None and self._random is None

    @property
    def epoch(self) -> int | None:
        """Which epoch random numbers are drawn for; `None` without a seed."""
        return None if self._random is None else self._random.epoch

    def apart(self) -> Finisher:
        """One with an epoch of its own."""
        other = copy.copy(self)
        other._random = None if self._random is None else self._random.apart()
        return other

    @property
    def draws(self) -> bool:
        """Whether transforms run with the state of the global generators set, which other threads would disturb."""
        return self._random is not None and not self.keeps_images

    def set_epoch(self, epoch: int) -> None:
        """Which epoch random numbers are drawn for."""
        if self._random is not None:
            self._random.set_epoch(epoch)

    def __call__(
        self,
        image: Tensor,
        meta: FrameMeta,
        key: Sequence[int],
        mask: Mask | BoxTarget | None = None,
    ) -> Any:
        """The sample.

        Args:
            image: As read.
            meta: Of it.
            key: Numbers that tell the sample from all others of the dataset.
            mask: Of it, if there are masks.

        Raises:
            OptionError: `sample_transform` gave nothing, or what no target can be had of.
        """
        if self._random is None:
            return self._made(image, mask, meta)
        with self._random.of(key, (self.transform, self.sample_transform)) as number:
            meta["seed"] = number
            return self._made(image, mask, meta)

    def _made(self, image: Any, mask: Mask | BoxTarget | None, meta: FrameMeta) -> Any:
        if self.transform is not None:
            image = self.transform(image)
        sample: Any = FrameSample((image, meta))
        if mask is not None:
            meta.update(mask.meta())
            sample = FrameSample((image, mask.image, meta))
        if self.sample_transform is not None:
            sample = _as_sample(self.sample_transform(*sample))
        return sample if self.target is None else self._with_target(sample)

    def without_target(self) -> Finisher:
        """One that leaves samples as pairs of image and metadata."""
        other = copy.copy(self)
        other.target = None
        return other

    def label(self, meta: Any) -> Any:
        """The target of a sample."""
        return self.target(meta) if callable(self.target) else meta[self.target]

    def _with_target(self, sample: Any) -> TargetSample:
        if not isinstance(sample, FrameSample):
            raise OptionError(
                f"target= needs a sample_transform that returns (image, meta) or (image, mask, meta); it returned "
                f"{type(sample).__name__}"
            )
        *tensors, meta = sample
        return TargetSample((*tensors, self.label(meta)))


def _as_sample(made: Any) -> Any:
    """What `sample_transform` gave; a pair with metadata is a sample as the dataset makes them."""
    if made is None:
        raise OptionError("sample_transform returned None; it returns what the sample becomes")
    if type(made) is tuple and len(made) in (2, 3) and isinstance(made[-1], Mapping):
        *tensors, meta = made
        return FrameSample((*tensors, meta if isinstance(meta, FrameMeta) else FrameMeta(meta)))
    return made


def collate_targets(samples: Sequence[Any], *, collate_fn_map: Any = None) -> tuple[Any, ...]:
    """Makes a batch of `(image, target)` or `(image, mask, target)`; what was read together is not copied.

    Targets that are numbers become int64 or float64 tensors, texts a list, and all else what `default_collate` makes.
    """
    as_frames = FrameSamples(
        (FrameSample((*sample[:-1], FrameMeta(target=sample[-1]))) for sample in samples),
        getattr(samples, "images", None),
        getattr(samples, "masks", None),
    )
    *tensors, meta = collate_frames(as_frames, collate_fn_map=collate_fn_map)
    return (*tensors, meta["target"])


default_collate_fn_map[TargetSample] = collate_targets


class RandomStates:
    """The states of Python's, NumPy's and torch's (CPU) global generators for each sample: of (seed, epoch, sample).

    The epoch lies in memory that worker processes share, so that it reaches those that live on.

    Args:
        seed: 0 or more.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]

    @property
    def epoch(self) -> int:
        """Which it is."""
        return int(self._epoch)

    def apart(self) -> RandomStates:
        """The same with an epoch of its own."""
        other = RandomStates(self._seed)
        other.set_epoch(self.epoch)
        return other

    def set_epoch(self, epoch: int) -> None:
        """Begins another epoch.

        Raises:
            OptionError: It is negative.
        """
        if epoch < 0:
            raise OptionError(f"epochs count from 0; got {epoch}")
        self._epoch.fill_(epoch)

    @contextlib.contextmanager
    def of(
        self, key: Sequence[int], transforms: Sequence[Callable[..., Any] | None]
    ) -> Iterator[int]:
        """Draws are those of one sample inside, and go on outside as if nothing had been.

        Args:
            key: Which sample.
            transforms: Those that have a generator of their own are given a seed too.

        Yields:
            63 bits, for who draws from another generator.
        """
        entropy = [self._seed, int(self._epoch), *key]
        words = np.random.SeedSequence(entropy).generate_state(4, np.uint32).tolist()
        number = (words[0] << 32 | words[1]) >> 1
        with _global_generators:  # one for the whole process: samples of other threads wait
            before = random.getstate(), np.random.get_state(), torch.get_rng_state()
            try:
                random.seed(number)
                np.random.seed(words[2])
                torch.default_generator.manual_seed(number)
                for transform in transforms:
                    _seed(transform, words[3])
                yield number
            finally:
                random.setstate(before[0])
                np.random.set_state(before[1])
                torch.set_rng_state(before[2])


def _seed(transform: Any, seed: int) -> None:
    for name in _SEEDERS:
        method = getattr(transform, name, None)
        if method is not None:
            method(seed)


_global_generators = threading.RLock()


def _renew_lock() -> None:
    # Another thread of the parent may hold it when a worker is forked, and would never let it go there.
    global _global_generators
    _global_generators = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)
