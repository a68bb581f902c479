"""The parent's side of shared batches: segments of its workers, mapped once, and when they are given back."""

from __future__ import annotations

import multiprocessing
import os
import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from dicomtorch.errors import OptionError
from dicomtorch.pixels.pool import keepers, over_budget, tensor_over, with_memory
from dicomtorch.pixels.segment import (
    FREE,
    HELD,
    RETIRED,
    SENT,
    Address,
    Mapping,
    is_forking,
    this_process,
    when_forked,
)


class Attached:
    """Segments of the workers of this process, mapped once."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Begins anew, as in a forked child: it attaches what its own workers send."""
        self._of: dict[bytes, dict[int, Mapping]] = {}
        self._pids: dict[bytes, int] = {}

    def mappings(self) -> Iterator[Mapping]:
        """All that are mapped; a batch that is alive may keep others of workers that ended."""
        for mappings in list(self._of.values()):
            yield from list(mappings.values())

    def kept(self) -> int:
        """Bytes that nothing refers to."""
        if not self._of:
            return 0
        return sum(mapping.size for mapping in self.mappings() if mapping.state == FREE)

    def empty(self) -> None:
        """Gives back what workers gave up or left behind. Only they know which of the others they are about to fill."""
        for maker, pid in list(self._pids.items()):
            if not _is_alive(pid):
                self.forget(maker)
        for mappings in list(self._of.values()):
            for slot, mapping in list(mappings.items()):
                if mapping.state == RETIRED:
                    mappings.pop(slot, None)

    def forget(self, maker: bytes) -> None:
        """Of a worker that ended; a batch that is alive keeps its own segment."""
        self._of.pop(maker, None)
        self._pids.pop(maker, None)

    def hold(self) -> None:
        """A child was forked: what is held now is its own too."""
        for mapping in self.mappings():
            mapping.is_forked |= mapping.state == HELD

    def batch(self, address: Address, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """The batch at an address.

        Raises:
            MemoryError: It cannot be mapped.
            OptionError: The address is not for this process, or was used before.
        """
        if address.receiver != os.getpid():
            raise OptionError(
                f"this is the address of a batch that DataLoader worker (pid {address.pid}) made for process "
                f"{address.receiver}, and not the batch: process {os.getpid()} cannot open it. Send batch.clone()"
            )
        mapping = self._of.get(address.maker, {}).get(address.slot)
        if mapping is None and address.handle is not None:
            self.empty()
            mapping = self._map(address)
        if mapping is None or mapping.state != SENT or mapping.number != address.number:
            raise OptionError(
                f"this is the address of a batch of DataLoader worker (pid {address.pid}) that was opened before or is "
                f"gone. It can be opened once: keep the batch, or send batch.clone()"
            )
        owner = mapping.owner(_nbytes(shape, dtype))
        mapping.state = HELD
        weakref.finalize(owner, self._release, mapping, address, this_process()).atexit = False
        return tensor_over(owner, shape, dtype)

    def _map(self, address: Address) -> Mapping:
        try:
            descriptor = address.handle.detach()
        except (OSError, EOFError) as error:  # it ended between two messages
            raise RuntimeError(
                f"DataLoader worker (pid {address.pid}) exited unexpectedly before its batch arrived ({error})"
            ) from error
        try:
            mapping = with_memory(address.size, lambda: Mapping(descriptor, address.size))
        except MemoryError:
            os.pwrite(descriptor, bytes([RETIRED]), 0)
            raise
        finally:
            os.close(descriptor)
        if address.maker not in self._of:
            self._began(address)
        self._of.setdefault(address.maker, {})[address.slot] = mapping
        return mapping

    def _began(self, address: Address) -> None:
        """What a worker leaves behind goes with the loader that had it."""
        self._pids[address.maker] = address.pid
        for process in multiprocessing.active_children():
            if process.pid == address.pid:
                weakref.finalize(process, self.forget, address.maker).atexit = False

    def _release(self, mapping: Mapping, address: Address, process: object) -> None:
        # A child forked while the batch was alive has a copy of its owner; what that had is not the child's to give.
        if process is not this_process():
            return
        mappings = self._of.get(address.maker, {})
        is_last = not any(other.state == FREE for other in list(mappings.values()))
        is_surplus = over_budget(mapping.size) and not is_last
        if mapping.is_forked or is_forking() or is_surplus:
            mapping.state = RETIRED
            mappings.pop(address.slot, None)
        else:
            mapping.state = FREE


def _nbytes(shape: tuple[int, ...], dtype: torch.dtype) -> int:
    """Bytes of a tensor."""
    return torch.Size(shape).numel() * dtype.itemsize


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:  # gone, or its number is now somebody else's
        return False
    return True


def attach(
    address: tuple[Any, ...], shape: tuple[int, ...], dtype: torch.dtype, requires_grad: bool
) -> Tensor:
    """The batch at an address: what a message about one unpickles to."""
    return _attached.batch(Address(*address), shape, dtype).requires_grad_(requires_grad)


_attached = Attached()
keepers["segments attached"] = _attached
when_forked(_attached.hold, _attached.renew)
