"""Batch memory that is filled again when nothing refers to it any more.

The pages of a fresh batch cost more than its content. A batch made in this process lies in private memory (`pool`), one
made in a `DataLoader` worker in a segment that the worker and its parent share (`segment`, `slots`, `attached`). Where
the platform lacks what this needs, torch takes its own.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from dicomtorch.model.samples import new_samples
from dicomtorch.pixels import slots
from dicomtorch.pixels.pool import HAS_PRIVATE, NUMPY, PrivatePool, keepers, with_memory

Allocate = Callable[[tuple[int, ...], torch.dtype], Tensor]
_SMALLEST = 1 << 16  # bytes; below it a fresh allocation costs nothing worth saving
# Smaller ones come from the allocator, whose memory is likelier to be in the cache of the processor.
_SMALLEST_PRIVATE = 1 << 18


def new_batch(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """An uninitialised tensor, in recycled memory where that pays.

    In a `DataLoader` worker it goes to the parent uncopied.

    Args:
        shape: (B, C, H, W), or any other.
        dtype: Of the elements.

    Raises:
        MemoryError: There is no memory for it, even without what is kept for later.
    """
    nbytes = math.prod(shape) * dtype.itemsize
    if _is_plain(nbytes):
        try:
            return torch.empty(shape, dtype=dtype)
        except RuntimeError:  # for want of memory; below there may be some
            pass
    return with_memory(nbytes, lambda: _allocated(shape, dtype, nbytes))


def _allocated(shape: tuple[int, ...], dtype: torch.dtype, nbytes: int) -> Tensor:
    if _here.allocate is not None:
        return _here.allocate(shape, dtype)
    if _is_shared(nbytes):
        return slots.new_batch(shape, dtype, nbytes)
    if nbytes >= _SMALLEST_PRIVATE and HAS_PRIVATE:
        return _private.batch(shape, dtype, nbytes)
    return torch.empty(shape, dtype=dtype)


def _is_plain(nbytes: int) -> bool:
    """Whether the allocator has memory for it that is as good as any."""
    return nbytes < _SMALLEST_PRIVATE and _here.allocate is None and not _is_shared(nbytes)


class Picture(NamedTuple):
    """One memory, seen as torch and as decoders see it.

    Attributes:
        image: (C, rows, columns).
        samples: (rows, columns, C), contiguous; `bfloat16` as `int16`, which NumPy has.
    """

    image: Tensor
    samples: npt.NDArray[Any]


def new_picture(shape: tuple[int, int, int], dtype: torch.dtype) -> Picture:
    """An uninitialised image whose channels lie beside each other, as decoders write them; see `new_batch`.

    Between two frames decoders have the caches of the processor, so that each call of torch costs ten times what it
    costs in a loop: a small picture takes one.

    Args:
        shape: (rows, columns, C).
        dtype: Of the elements.

    Raises:
        MemoryError: There is no memory for it, even without what is kept for later.
    """
    if dtype in NUMPY and _is_plain(math.prod(shape) * dtype.itemsize):
        try:
            samples = new_samples(shape, NUMPY[dtype])
            return Picture(torch.from_numpy(samples.transpose(2, 0, 1)), samples)
        except MemoryError:  # below there may be some
            pass
    memory = new_batch(shape, dtype)
    raw = memory.view(torch.int16) if dtype == torch.bfloat16 else memory
    return Picture(memory.permute(2, 0, 1), raw.numpy())


def _is_shared(nbytes: int) -> bool:
    """Whether memory of a worker goes to its parent as it is."""
    return nbytes >= _SMALLEST and get_worker_info() is not None


class _Here(threading.local):
    allocate: Allocate | None = None


_here = _Here()


@contextlib.contextmanager
def allocated_by(allocate: Allocate) -> Iterator[None]:
    """Batches that this thread makes meanwhile lie in memory from `allocate(shape, dtype)`, as in pinned memory."""
    before, _here.allocate = _here.allocate, allocate
    try:
        yield
    finally:
        _here.allocate = before


def keep_for(user: object) -> None:
    """Memory is kept for `user`, as for a loader: when the last of these dies, it is given back."""
    _private.add_user(user)


_private = PrivatePool()
keepers["pool"] = _private


if hasattr(os, "register_at_fork"):
    # The parent goes on with its buffers; to a child their copies would be of no use.
    os.register_at_fork(after_in_child=_private.empty)
