"""The worker's side of shared batches: segments, and batches in them that know how to be sent.

Only the pickler of a queue sends an address. Every other pickler, `copy`, and whoever receives a batch a second time
get the data.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import multiprocessing
import os
import threading
import uuid
import weakref
from multiprocessing import reduction
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import reduce_tensor
from torch.utils.data import get_worker_info

from dicomtorch.pixels import pool
from dicomtorch.pixels.attached import attach, attached
from dicomtorch.pixels.pool import keepers, tensor_over
from dicomtorch.pixels.segment import (
    FREE,
    RETIRED,
    SENT,
    Address,
    Mapping,
    is_forking,
    length_of,
    this_process,
    when_forked,
)

_MOST_FREE = 6  # segments that a worker keeps for later
_REFUSED = (errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EINVAL)
_has_memfd = hasattr(os, "memfd_create")  # Linux


def new_batch(shape: tuple[int, ...], dtype: torch.dtype, nbytes: int) -> Tensor:
    """An uninitialised tensor in a `DataLoader` worker, which its queue sends uncopied.

    Raises:
        OSError: With `ENOMEM` or `ENOSPC`, as RuntimeError from torch: there is no memory for it.
    """
    global _has_memfd
    if _has_memfd:
        try:
            return _slots.batch(shape, dtype, nbytes)
        except OSError as error:
            if error.errno in (errno.ENOMEM, errno.ENOSPC):
                raise
            _has_memfd = error.errno not in _REFUSED  # a sandbox does; a lack of descriptors passes
    storage = torch.UntypedStorage._new_shared(nbytes)  # type: ignore[no-untyped-call]
    return torch.empty(0, dtype=dtype).set_(storage, 0, shape)  # type: ignore[call-overload,no-any-return]


class Slot:
    """One segment of a worker.

    Args:
        maker: Who made it: this worker, or one before it.
        number: Among those of the maker.
        mapping: The segment.
        descriptor: Of it, which the parent does not have yet; `None` if it has the segment.

    Attributes:
        maker: As given.
        number: As given.
        mapping: As given.
        size: Of the largest batch that fits, in bytes.
        is_in_use: Whether anything in this worker refers to the batch.
        process: That fills it.
    """

    def __init__(
        self, maker: bytes, number: int, mapping: Mapping, descriptor: int | None = None
    ) -> None:
        self.maker = maker
        self.number = number
        self.mapping = mapping
        self.size = mapping.size
        self.is_in_use = False
        self.process = this_process()
        self._descriptor = descriptor
        self._handle: Any = None

    @classmethod
    def made(cls, maker: bytes, number: int, size: int) -> Slot:
        """A new segment."""
        descriptor = os.memfd_create("dicomtorch-batch")
        try:
            os.ftruncate(descriptor, length_of(size))
            return cls(maker, number, Mapping(descriptor, size), descriptor)
        except BaseException:
            os.close(descriptor)
            raise

    @property
    def is_free(self) -> bool:
        """Whether neither the parent nor anything in this worker refers to the batch, nor a child of either."""
        mapping = self.mapping
        return not self.is_in_use and mapping.state == FREE and not mapping.is_forked

    @property
    def is_spent(self) -> bool:
        """Whether it is never filled again, and nothing here refers to it."""
        state = self.mapping.state
        return not self.is_in_use and (
            state == RETIRED or (self.mapping.is_forked and state == FREE)
        )

    def claim(self, nbytes: int) -> Any:
        """The owner of a batch in this segment."""
        owner = self.mapping.owner(nbytes)
        self.is_in_use = True
        weakref.finalize(owner, self._owner_died).atexit = False
        return owner

    def _owner_died(self) -> None:
        self.mapping.is_forked |= is_forking()
        self.is_in_use = False

    def send(self, number: int) -> Any:
        """Message `number` is about this segment: returns the handle of its descriptor the first time."""
        handle = None
        if self._descriptor is not None:
            handle = self._handle = reduction.DupFd(self._descriptor)
            self._close()
        self.mapping.number = number
        self.mapping.state = SENT
        return handle

    def lost(self) -> None:
        """Its message cannot arrive any more, if it has not."""
        self.mapping.state = RETIRED
        handle, self._handle = self._handle, None
        if handle is not None:
            with contextlib.suppress(OSError, EOFError):
                os.close(handle.detach())  # else it stays open until this worker ends

    def arrived(self) -> None:
        """The parent has the descriptor."""
        self._handle = None

    def retire(self) -> None:
        """Gives up a segment that is free; the parent unmaps it when it next maps another."""
        self._close()
        self.mapping.state = RETIRED
        self.mapping.discard_pages()

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class Slots:
    """The segments of a worker process."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Begins anew, as in a forked child: the segments of its parent are not its own."""
        self.maker = uuid.uuid4().bytes
        self.slots: list[Slot] = []
        self._made = 0
        self._sent = 0
        self._inherited = attached.inherited
        self._lock = threading.Lock()  # finalizers never take it

    def batch(self, shape: tuple[int, ...], dtype: torch.dtype, nbytes: int) -> Tensor:
        """An uninitialised tensor in a segment."""
        slot, owner = self._claim(nbytes)
        batch = tensor_over(owner, shape, dtype).as_subclass(SharedBatch)
        batch.slot, batch.slots = slot, self
        return batch

    def kept(self) -> int:
        """Bytes that nothing refers to."""
        if not self.slots:
            return 0
        return sum(slot.size for slot in list(self.slots) if slot.is_free)

    def empty(self) -> None:
        """Gives them back to the system."""
        with self._lock:
            self._drop_spent()
            self._retire([slot for slot in self.slots if slot.is_free])

    def _claim(self, nbytes: int) -> tuple[Slot, Any]:
        with self._lock:
            self._drop_spent()
            free = sorted((slot for slot in self.slots if slot.is_free), key=lambda s: s.size)
            fitting = next((slot for slot in free if slot.size >= nbytes), None)
            owner = None if fitting is None else fitting.claim(nbytes)
            # Those that are too small are not asked for again.
            self._retire(free if fitting is None else _surplus(free, fitting))
            if fitting is None and (fitting := self._adopted(nbytes)):
                owner = fitting.claim(nbytes)
            if fitting is not None:
                return fitting, owner
            self._made += 1
            number = self._made
        slot = Slot.made(self.maker, number, -(-nbytes // mmap.PAGESIZE) * mmap.PAGESIZE)
        owner = slot.claim(nbytes)
        with self._lock:
            self.slots.append(slot)
        return slot, owner

    def _adopted(self, nbytes: int) -> Slot | None:
        """A segment of a worker that ended before this one was forked, if there is one that nobody else has."""
        for one in list(self._inherited):
            maker, number, mapping, claims = one
            if not nbytes <= mapping.size <= 4 * nbytes:
                continue
            self._inherited.remove(one)
            if claims.take(mapping.claim) and mapping.state == FREE:
                # Old messages about it have lower numbers, and none of this worker.
                self._sent = max(self._sent, mapping.number)
                mapping.number = 0
                mapping.populate()
                slot = Slot(maker, number, mapping)
                self.slots.append(slot)
                return slot
        return None

    def _drop_spent(self) -> None:
        """Forgets what is never filled again. Messages of a worker arrive in the order in which they were sent."""
        arrived = 0
        for slot in self.slots:
            if slot.mapping.state != SENT and slot.mapping.number:
                slot.arrived()
                arrived = max(arrived, slot.mapping.number)
        for slot in list(self.slots):
            if slot.mapping.state == SENT and slot.mapping.number < arrived:
                slot.lost()
            if slot.is_spent:
                self.slots.remove(slot)

    def _retire(self, slots: list[Slot]) -> None:
        for slot in slots:
            self.slots.remove(slot)
            slot.retire()

    def send(self, slot: Slot) -> Address:
        """What the parent needs to attach the segment."""
        with self._lock:
            self._sent += 1
            handle = slot.send(self._sent)
        return Address(
            slot.maker, os.getpid(), _receiver(), slot.number, self._sent, slot.size, handle
        )

    def hold(self) -> None:
        """A child was forked: what is in use now is its own too."""
        for slot in list(self.slots):
            slot.mapping.is_forked |= slot.is_in_use


def _surplus(free: list[Slot], taken: Slot) -> list[Slot]:
    """Which of the free segments are too many for this worker's part of the budget; the smallest others stay."""
    worker = get_worker_info()
    left = pool.BUDGET // (1 if worker is None else worker.num_workers)
    surplus = []
    others = [slot for slot in free if slot is not taken]
    for count, slot in enumerate(others):
        left -= slot.size
        if count and (left < 0 or count >= _MOST_FREE):
            surplus.append(slot)
    return surplus


def _receiver() -> int:
    parent = multiprocessing.parent_process()
    return os.getpid() if parent is None or parent.pid is None else parent.pid


class SharedBatch(Tensor):
    """A batch in a slot: an ordinary tensor here, an address on its way through the queue of a loader."""

    # What is computed from it is a plain tensor.
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]
    slot: Slot
    slots: Slots

    def plain(self) -> Tensor:
        """A tensor over the same memory, of no class of its own."""
        if not self.is_leaf:
            return self.as_subclass(Tensor)
        return self.detach().requires_grad_(self.requires_grad)

    def is_as_made(self) -> bool:
        """Whether it is where this process put it, and never went to another."""
        mapping = self.slot.mapping
        return (
            self.slot.process is this_process()
            and self.slot.is_in_use
            and mapping.state == FREE
            and self.data_ptr() == mapping.start
            and self.is_contiguous()
            and self.is_leaf
        )

    def __deepcopy__(self, memo: Any) -> Tensor:
        plain = self.plain()
        if self.is_leaf:
            plain.grad = self.grad
        copied: Tensor = plain.__deepcopy__(memo)  # type: ignore[no-untyped-call]
        memo[id(self)] = copied
        return copied

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.plain().__reduce_ex__(protocol)  # type: ignore[no-untyped-call]


def _reduce_shared(batch: SharedBatch) -> Any:
    if not batch.is_as_made():
        plain = batch.plain()
        copied = plain if not plain.is_leaf else plain.detach().clone()
        return reduce_tensor(copied.requires_grad_(batch.requires_grad))  # type: ignore[no-untyped-call]
    address = batch.slots.send(batch.slot)
    return attach, (tuple(address), tuple(batch.shape), batch.dtype, batch.requires_grad)


reduction.ForkingPickler.register(SharedBatch, _reduce_shared)


_slots = Slots()
keepers["segments made"] = _slots
when_forked(_slots.hold, _slots.renew)
