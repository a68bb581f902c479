"""Batch memory that is filled again when nothing refers to it any more.

The pages of a fresh batch cost more than its content. A batch made in this process lies in private memory that comes
back when its last tensor, array or view dies. A batch made in a `DataLoader` worker lies in a shared segment that the
parent maps once; a byte in front of it says that it is on its way or in use there, and is cleared by the last reference
of the parent. Where the platform lacks what this needs, torch takes its own shared memory.

Why the owner of a buffer is a `ctypes` array: NumPy replaces the base of an array by the base of its base, and would
outlive an owner that is an array itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import mmap
import os
import threading
import uuid
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from functools import cache
from multiprocessing.reduction import DupFd
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import reduce_tensor
from torch.utils.data import get_worker_info

_FRONT = (
    mmap.PAGESIZE
)  # of a shared segment: its first byte is the state, the batch begins on a page of its own
_FREE, _SENT, _RETIRED = 0, 1, 2
_PROT_READ_WRITE = 3
_SMALLEST = 1 << 16  # bytes; below it a fresh allocation costs nothing worth saving
_MOST_FREE = 6  # buffers kept for later, per worker
_MOST_FREE_PRIVATE = max(_MOST_FREE, (os.cpu_count() or 1) + 4)  # what `FrameLoader` has alive
Allocate = Callable[[tuple[int, ...], torch.dtype], Tensor]
Key = tuple[int, bytes]  # process that made a segment, and which of its segments
_HAS_MEMFD = hasattr(os, "memfd_create")  # Linux
_HAS_PRIVATE = hasattr(mmap, "MAP_PRIVATE") and hasattr(mmap, "MAP_ANONYMOUS")


def new_batch(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """An uninitialised tensor, in recycled memory where that pays.

    In a `DataLoader` worker it goes to the parent uncopied.

    Args:
        shape: (B, C, H, W), or any other.
        dtype: Of the elements.
    """
    if _here.allocate is not None:
        return _here.allocate(shape, dtype)
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes < _SMALLEST:
        return torch.empty(shape, dtype=dtype)
    if get_worker_info() is None:
        return (
            _private.batch(shape, dtype, nbytes)
            if _HAS_PRIVATE
            else torch.empty(shape, dtype=dtype)
        )
    if _HAS_MEMFD:
        return _slots.batch(shape, dtype, nbytes)
    storage = torch.UntypedStorage._new_shared(nbytes)  # type: ignore[no-untyped-call]
    return torch.empty(0, dtype=dtype).set_(storage, 0, shape)  # type: ignore[call-overload,no-any-return]


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


def _tensor_over(owner: Any, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.frombuffer(owner, dtype=dtype, count=math.prod(shape)).view(shape)


class _PrivatePool:
    """Anonymous memory of this process."""

    def __init__(self) -> None:
        # A deque, not a lock: the collector may run a finalizer on the thread that would hold it.
        # The newest comes last and pushes out the oldest, so that sizes no longer asked for go.
        self._free: deque[mmap.mmap] = deque(maxlen=_MOST_FREE_PRIVATE)

    def batch(self, shape: tuple[int, ...], dtype: torch.dtype, nbytes: int) -> Tensor:
        memory = self._take(nbytes)
        owner = (ctypes.c_char * nbytes).from_buffer(memory)
        weakref.finalize(owner, self._give_back, memory).atexit = False
        return _tensor_over(owner, shape, dtype)

    def _give_back(self, memory: mmap.mmap) -> None:
        self._free.append(memory)

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
        if len(self._free) >= _MOST_FREE:  # none fits: make room for those of the new size
            with contextlib.suppress(IndexError):
                self._free.popleft()
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            with contextlib.suppress(OSError):  # a kernel without huge pages is only slower
                memory.madvise(mmap.MADV_HUGEPAGE)
        return memory


_private = _PrivatePool()


class _Mapping:
    """A shared mapping without a descriptor: `mmap.mmap` would keep one open for each batch that is alive."""

    def __init__(self, descriptor: int, length: int) -> None:
        address = _libc().mmap(None, length, _PROT_READ_WRITE, mmap.MAP_SHARED, descriptor, 0)
        if address in (None, ctypes.c_void_p(-1).value):
            raise OSError(ctypes.get_errno(), "a batch could not be mapped")
        self._state = ctypes.c_ubyte.from_address(address)
        self._address: int = address
        weakref.finalize(self, _libc().munmap, address, length).atexit = False

    @property
    def state(self) -> int:
        return self._state.value

    @state.setter
    def state(self, value: int) -> None:
        self._state.value = value

    @property
    def start(self) -> int:
        """Address of the batch."""
        return self._address + _FRONT

    def owner(self, nbytes: int) -> Any:
        """An array over the batch. It does not keep the mapping: a finalizer of it has to."""
        return (ctypes.c_char * nbytes).from_address(self.start)


@cache
def _libc() -> ctypes.CDLL:
    library = ctypes.CDLL(None, use_errno=True)
    library.mmap.restype = ctypes.c_void_p
    library.mmap.argtypes = (
        ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
    )  # fmt: skip
    library.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    return library


class _Slot:
    """One shared segment of a worker."""

    def __init__(self, size: int) -> None:
        self.key = (os.getpid(), uuid.uuid4().bytes)
        self.descriptor: int | None = os.memfd_create("dicomtorch-batch")
        os.ftruncate(self.descriptor, _FRONT + size)
        self.mapping = _Mapping(self.descriptor, _FRONT + size)
        self.size = size
        self._in_use = False

    @property
    def is_free(self) -> bool:
        """Whether neither the parent nor anything in this worker refers to the batch."""
        return not self._in_use and self.mapping.state == _FREE

    def claim(self, nbytes: int) -> Any:
        """The owner of a batch in this segment."""
        owner = self.mapping.owner(nbytes)
        self._in_use = True
        weakref.finalize(owner, self._owner_died).atexit = False
        return owner

    def _owner_died(self) -> None:
        self._in_use = False

    def send(self) -> tuple[Key, Any, int]:
        """What the parent needs to attach: the descriptor goes along the first time only."""
        self.mapping.state = _SENT
        handle = None
        if self.descriptor is not None:
            handle = DupFd(self.descriptor)
            self._close()
        return self.key, handle, self.size

    def retire(self) -> None:
        """Gives the segment up; the parent unmaps it when it next attaches another."""
        self._close()
        self.mapping.state = _RETIRED

    def _close(self) -> None:
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None


class _SharedBatch(Tensor):
    """A batch in a slot: an ordinary tensor here, an address when it is sent to the parent."""

    # What is computed from it is a plain tensor.
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]
    _slot: _Slot

    def __deepcopy__(self, memo: Any) -> Tensor:
        copied = memo[id(self)] = self.as_subclass(Tensor).clone()
        return copied

    def __reduce_ex__(self, protocol: Any) -> Any:
        slot = self._slot
        # Sent already, or laid out or moved elsewhere since: the receiver gets a copy.
        as_made = self.data_ptr() == slot.mapping.start and self.is_contiguous()
        if slot.mapping.state != _FREE or not as_made:
            return reduce_tensor(self.as_subclass(Tensor).clone())  # type: ignore[no-untyped-call]
        return _attach, (*slot.send(), tuple(self.shape), self.dtype)


class _Slots:
    """The segments of a worker process."""

    def __init__(self) -> None:
        self._slots: list[_Slot] = []
        self._lock = threading.Lock()  # finalizers never take it

    def batch(self, shape: tuple[int, ...], dtype: torch.dtype, nbytes: int) -> Tensor:
        with self._lock:
            slot, owner = self._claim(nbytes)
        batch = _tensor_over(owner, shape, dtype).as_subclass(_SharedBatch)
        batch._slot = slot
        return batch

    def _claim(self, nbytes: int) -> tuple[_Slot, Any]:
        free = sorted((slot for slot in self._slots if slot.is_free), key=lambda slot: slot.size)
        slot = next((slot for slot in free if slot.size >= nbytes), None)
        if slot is None:
            slot = _Slot(-(-nbytes // mmap.PAGESIZE) * mmap.PAGESIZE)
            self._slots.append(slot)
            surplus = free  # all too small
        else:
            surplus = [other for other in free if other is not slot][_MOST_FREE:]
        for other in surplus:
            self._slots.remove(other)
            other.retire()
        return slot, slot.claim(nbytes)


_slots = _Slots()


class _Attached:
    """The parent's side: segments of its workers, mapped once."""

    def __init__(self) -> None:
        self._mappings: dict[Key, _Mapping] = {}

    def batch(
        self, key: Key, handle: Any, size: int, shape: tuple[int, ...], dtype: torch.dtype
    ) -> Tensor:
        mapping = self._mappings.get(key)
        if mapping is None:
            self._drop_unused()
            mapping = self._map(key, handle, size)
        owner = mapping.owner(math.prod(shape) * dtype.itemsize)
        weakref.finalize(owner, _release, mapping, os.getpid()).atexit = False
        return _tensor_over(owner, shape, dtype)

    def _map(self, key: Key, handle: Any, size: int) -> _Mapping:
        try:
            descriptor = handle.detach()
        except (OSError, EOFError) as error:  # it ended between two messages
            raise RuntimeError(
                f"DataLoader worker (pid {key[0]}) exited unexpectedly before its batch arrived ({error})"
            ) from error
        try:
            mapping = self._mappings[key] = _Mapping(descriptor, _FRONT + size)
        finally:
            os.close(descriptor)
        return mapping

    def _drop_unused(self) -> None:
        """Forgets segments that their workers gave up or left behind; a batch that is alive keeps its own."""
        for key, mapping in list(self._mappings.items()):
            if mapping.state == _RETIRED or not _is_alive(key[0]):
                self._mappings.pop(key, None)


_attached = _Attached()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:  # gone, or its number is now somebody else's
        return False
    return True


def _attach(key: Key, handle: Any, size: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return _attached.batch(key, handle, size, shape, dtype)


def _release(mapping: _Mapping, pid: int) -> None:
    # A process forked while the batch was alive has a copy of its owner, and must not give away what is not its own.
    if os.getpid() == pid:
        mapping.state = _FREE


def _forget() -> None:
    # A forked child has no use for the parent's memory, and a worker's slots are its own.
    global _private, _slots, _attached
    _private, _slots, _attached = _PrivatePool(), _Slots(), _Attached()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
