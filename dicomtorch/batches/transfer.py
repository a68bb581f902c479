"""Batches on their way to a device: pinned memory, a stream for the copies, and the order between streams."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dicomtorch.batches.collate import FrameSamples
from dicomtorch.batches.metadata import FrameMeta
from dicomtorch.errors import OptionError


def device_of(device: torch.device | str | None) -> torch.device | None:
    """The device that is meant.

    Raises:
        OptionError: There is none of this name, or it is not to be had here.
    """
    if device is None:
        return None
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        if str(device).startswith("cuda") and not torch.cuda.is_available():
            reason = f"torch {torch.__version__} finds no CUDA device here"
        else:
            reason = str(error).splitlines()[0]
        raise OptionError(
            f"batches cannot go to device={str(device)!r}: {reason}. Leave device out for batches on the CPU"
        ) from error
    return found


class Transfer:
    """Pinned memory, a stream for the copies, and the order between that stream and the loop's."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: Any = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def allocate(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Pinned memory; torch uses it again once the copies from it are done."""
        return torch.empty(shape, dtype=dtype, pin_memory=self._stream is not None)

    def send(self, batch: Any, transform: Callable[[Any], Any]) -> Any:
        """Begins to copy, and to transform what was copied."""
        if self._stream is None:
            return transform(mapped(batch, self._copy)), None
        with torch.cuda.stream(self._stream):
            moved = transform(mapped(batch, self._copy))
            done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            done.record(self._stream)
        return moved, done

    def _copy(self, tensor: Tensor) -> Tensor:
        if self._stream is not None and tensor.device.type == "cpu" and not tensor.is_pinned():
            tensor = tensor.pin_memory()
        return tensor.to(self._device, non_blocking=self._stream is not None)

    def receive(self, sent: Any) -> Any:
        """The batch, once the loop's stream may use it; its memory is not given away before that stream is done."""
        batch, done = sent
        if done is not None:
            stream = torch.cuda.current_stream(self._device)
            stream.wait_event(done)
            mapped(batch, lambda tensor: _recorded(tensor, stream), with_meta=True)
        return batch


def _recorded(tensor: Tensor, stream: Any) -> Tensor:
    if tensor.is_cuda:
        tensor.record_stream(stream)
    return tensor


def mapped(batch: Any, function: Callable[[Tensor], Tensor], *, with_meta: bool = False) -> Any:
    """`batch` with `function` of its tensors in their place, those of a `FrameMeta` only if asked."""

    def inner(value: Any) -> Any:
        return mapped(value, function, with_meta=with_meta)

    if isinstance(batch, Tensor):
        return function(batch)
    if isinstance(batch, FrameMeta) and not with_meta:
        return batch
    if isinstance(batch, dict):
        return {key: inner(value) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*map(inner, batch))
    if isinstance(batch, FrameSamples):
        return FrameSamples(map(inner, batch))
    if isinstance(batch, list | tuple):
        return type(batch)(map(inner, batch))
    return batch
