"""Indices -> batch, in any thread."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils.data import Subset

from dicomtorch.batches.transfer import Transfer
from dicomtorch.errors import DicomTorchError, OptionError
from dicomtorch.pixels.memory import allocated_by
from dicomtorch.reader.forecast import Forecast, forecast

Indices = Sequence[Any]
Hint = Callable[[Indices], None]

_LEAD_OF_REMOTE = (
    4  # batches that are asked for while others are on their way; the storage bounds their bytes
)


class Fetch:
    """Indices -> batch, in any thread.

    Args:
        dataset: As of `FrameLoader`; `collate_fn` and `batch_transform` too.
        collate_fn: See `dataset`.
        batch_transform: See `dataset`.
        device: Where the tensors of a batch go; `None` if they stay.
    """

    def __init__(
        self,
        dataset: Any,
        collate_fn: Callable[[Any], Any],
        batch_transform: Callable[[Any], Any] | None,
        device: torch.device | None,
    ) -> None:
        self._dataset = dataset
        self._many = getattr(dataset, "__getitems__", None)
        self._collate = collate_fn
        self._transform = batch_transform
        self._transfer = None if device is None or device.type == "cpu" else Transfer(device)
        self._hint = _hint(dataset)
        self._is_remote = _is_remote(dataset)
        self._waits = True  # whether reads were waited for of late

    @property
    def lead(self) -> int:
        """How far ahead of the batches being made indices are wanted, in units of those that may exist."""
        if self._hint is None:
            return 0
        return _LEAD_OF_REMOTE if self._is_remote else 1

    def announced(self, drawn: Sequence[Indices]) -> Indices:
        """The last of several batches, to be said ahead; where reading takes requests, several are said at once now."""
        if self._is_remote and len(drawn) > 1:
            for indices in drawn:
                self._announce(indices)
            return ()
        return drawn[-1] if drawn else ()

    def _announce(self, indices: Indices) -> None:
        if self._hint is not None:
            with contextlib.suppress(DicomTorchError):  # raised where the frames are read
                self._hint(indices)

    def __call__(self, indices: Indices, ahead: Indices) -> Any:
        """The batch of `indices`; the samples `ahead` are said to be needed soon."""
        if ahead and (self._waits or self._is_remote):
            self._announce(ahead)
        began, worked = time.perf_counter(), time.thread_time()
        if self._transfer is None:
            batch = self._made(indices)
        else:
            with allocated_by(self._transfer.allocate):
                batch = self._made(indices)
        if not isinstance(batch, _Unfinished):
            batch = self._sent(batch)
        passed = time.perf_counter() - began
        self._waits = passed > 2 * (time.thread_time() - worked)
        return batch

    def _made(self, indices: Indices) -> Any:
        """The batch, or what it is made of where only the thread of the loop may draw random numbers."""
        read = _draws(self._dataset)
        if read is not None:
            return _Unfinished(read(indices))
        return self._collated(indices)

    def _sent(self, batch: Any) -> Any:
        if self._transfer is None:
            return self._transformed(batch)
        return self._transfer.send(batch, self._transformed)

    def _collated(self, indices: Indices) -> Any:
        if self._many is not None:
            return self._collate(self._many(indices))
        return self._collate([self._dataset[i] for i in indices])

    def _transformed(self, batch: Any) -> Any:
        return batch if self._transform is None else self._transform(batch)

    def deliver(self, batch: Any) -> Any:
        """What the loop gets, in the thread of the loop."""
        if isinstance(batch, _Unfinished):
            batch = self._sent(self._collate(batch.finished()))
        return batch if self._transfer is None else self._transfer.receive(batch)


class _Unfinished(NamedTuple):
    """Samples that were read; the call runs their transforms."""

    finished: Callable[[], Any]


def _draws(dataset: Any) -> Callable[[Indices], Callable[[], Any]] | None:
    """What reads samples of a dataset whose transforms draw from generators that threads share; `None`: no such one."""
    if isinstance(dataset, Subset):
        inner, chosen = _draws(dataset.dataset), dataset.indices
        return None if inner is None else lambda indices: inner([chosen[i] for i in indices])
    return dataset.read_unfinished if getattr(dataset, "draws", False) is True else None


def _hint(dataset: Any) -> Hint | None:
    if isinstance(dataset, Subset):
        inner, chosen = _hint(dataset.dataset), dataset.indices
        return None if inner is None else lambda indices: inner([chosen[i] for i in indices])
    hint: Hint | None = getattr(dataset, "will_need", None)
    return hint


def forecast_of(dataset: Any, batches: Sequence[Indices]) -> Forecast:
    """What reading batches of samples asks for.

    Raises:
        OptionError: The dataset is not of this package.
    """
    if isinstance(dataset, Subset):
        chosen = dataset.indices
        return forecast_of(dataset.dataset, [[chosen[i] for i in some] for some in batches])
    if not hasattr(dataset, "needed_frames"):
        raise OptionError(
            f"a forecast is of datasets of frames of this package; this is a {type(dataset).__name__}"
        )
    return forecast(dataset.index, map(dataset.needed_frames, batches))


def _is_remote(dataset: Any) -> bool:
    """Whether samples are read over a network."""
    if isinstance(dataset, Subset):
        return _is_remote(dataset.dataset)
    return getattr(dataset, "is_remote", False) is True
