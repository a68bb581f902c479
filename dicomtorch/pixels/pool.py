"""Private memory that is filled again, the budget of all memory kept for later, and what happens when there is none.

A tensor holds the array that it was made of, and that array its memory: it is known to nobody else, so when it dies the
memory is free. Its views hold the tensor.
"""

from __future__ import annotations

import contextlib
import errno
import math
import mmap
import re
import sys
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

BUDGET = 256 << 20
"""Bytes that one process keeps for later, in its pool and in the segments of its workers together."""

HAS_PRIVATE = hasattr(mmap, "MAP_PRIVATE") and hasattr(mmap, "MAP_ANONYMOUS")
MOST_KEPT = 64  # buffers: those of very small batches would fill the budget with very many
NUMPY: Final[dict[torch.dtype, np.dtype[Any]]] = {
    torch.uint8: np.dtype(np.uint8),
    torch.int16: np.dtype(np.int16),
    torch.int32: np.dtype(np.int32),
    torch.float16: np.dtype(np.float16),
    torch.float32: np.dtype(np.float32),
}
"""What torch's types are for NumPy; those that images have."""
_NO_MEMORY = re.compile(r"not enough memory|annot allocate memory|o space left|unable to allocate")

T = TypeVar("T")


class Keeper(Protocol):
    """Who keeps memory for later."""

    def kept(self) -> int:
        """Bytes that nothing refers to."""

    def empty(self) -> None:
        """Gives them back to the system."""


keepers: dict[str, Keeper] = {}
"""Those of this process, by what they keep."""


def over_budget(more: int = 0) -> bool:
    """Whether what is kept, and `more` bytes, are more than the budget."""
    for keeper in keepers.values():
        more += keeper.kept()
    return more > BUDGET


def give_back() -> None:
    """Gives back all memory that is kept for later."""
    for keeper in keepers.values():
        keeper.empty()


def with_memory(nbytes: int, make: Callable[[], T]) -> T:
    """What `make()` gives; where memory is short, what is kept for later goes first.

    Raises:
        MemoryError: There is none all the same.
    """
    try:
        return make()
    except (MemoryError, OSError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
    give_back()
    try:
        return make()
    except (MemoryError, OSError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        raise MemoryError(
            f"no memory for a batch of {nbytes} bytes: take a smaller batch_size, fewer workers, or keep fewer batches"
        ) from error


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOMEM, errno.ENOSPC)
    # torch has no class of its own for it on the CPU.
    return isinstance(error, MemoryError) or bool(_NO_MEMORY.search(str(error)))


def tensor_over(owner: Any, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor that keeps `owner` alive, as every view of it does.

    It must be no array: NumPy replaces the base of an array by the base of its base, and would outlive it.
    """
    return torch.frombuffer(owner, dtype=dtype, count=math.prod(shape)).view(shape)


class _Owner(np.ndarray[Any, Any]):
    """The array that a tensor was made of; gives its memory back when it dies."""

    pool: PrivatePool

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if not is_finalizing():
            self.pool.took_back(self.base)


class PrivatePool:
    """Anonymous memory of this process; it comes back when the last tensor, array or view of a batch dies.

    The newest buffer stays whatever its size while a loader runs, so that batches beyond the budget are recycled too.
    """

    def __init__(self) -> None:
        # A deque, not a lock: the collector may run a finalizer on the thread that would hold it.
        # The newest comes last and pushes out the oldest, so that sizes no longer asked for go.
        self._free: deque[mmap.mmap] = deque(maxlen=MOST_KEPT)
        self._users: set[int] = set()

    def batch(self, shape: tuple[int, ...], dtype: torch.dtype, nbytes: int) -> Tensor:
        """An uninitialised tensor of `nbytes`."""
        if dtype not in NUMPY:
            return self.batch((nbytes,), torch.uint8, nbytes).view(dtype).view(shape)
        owner = _Owner(shape, NUMPY[dtype], self._take(nbytes))
        owner.pool = self
        return torch.from_numpy(owner)

    def kept(self) -> int:
        """Bytes that nothing refers to."""
        return sum(map(len, list(self._free)))

    def empty(self) -> None:
        """Gives them back to the system."""
        self._free.clear()

    def add_user(self, user: object) -> None:
        """When the last user dies, the pool is emptied."""
        self._users.add(id(user))
        weakref.finalize(user, self._user_died, id(user)).atexit = False

    def _user_died(self, user: int) -> None:
        self._users.discard(user)
        if not self._users:
            self.empty()

    def took_back(self, memory: Any) -> None:
        """Memory that nothing refers to any more."""
        self._free.append(memory)
        while over_budget() and len(self._free) > bool(self._users):
            with contextlib.suppress(IndexError):
                self._free.popleft()

    def _take(self, nbytes: int) -> mmap.mmap:
        size = -(-nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
        for _ in range(len(self._free)):
            try:
                memory = self._free.pop()  # the last one back is the likeliest to be in the cache
            except IndexError:
                break
            # A little larger will do: the last batch of an epoch is smaller than the others.
            if size <= len(memory) <= 4 * size:
                return memory
            self._free.appendleft(memory)
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            with contextlib.suppress(OSError):  # a kernel without huge pages is only slower
                memory.madvise(mmap.MADV_HUGEPAGE)
        return memory
