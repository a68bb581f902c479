"""The parent's side of shared batches: segments of its workers, mapped once, and when they are given back."""

from __future__ import annotations

import multiprocessing
import os
import weakref
from collections.abc import Iterator
from typing import Any, NamedTuple

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
    Claims,
    Mapping,
    is_forking,
    this_process,
    when_forked,
)


class Inherited(NamedTuple):
    """A segment without a worker that this process has from its parent.

    Attributes:
        maker: Who made it.
        slot: Its number there.
        mapping: It.
        claims: Of the parent.
    """

    maker: bytes
    slot: int
    mapping: Mapping
    claims: Claims


class Attached:
    """Segments of the workers of this process, mapped once.

    Attributes:
        inherited: Free segments of workers of the parent that had ended when this process was forked.
    """

    def __init__(self) -> None:
        self.inherited: list[Inherited] = []
        self._of: dict[bytes, dict[int, Mapping]] = {}
        self._claims = Claims()
        self.renew()

    def renew(self) -> None:
        """Begins anew, as in a forked child: it attaches what its own workers send."""
        self.inherited = [
            Inherited(maker, slot, mapping, self._claims)
            for maker, mappings in self._of.items()
            for slot, mapping in mappings.items()
            if mapping.claim and mapping.state == FREE
        ]
        self._of = {}
        self._pids: dict[bytes, int] = {}
        self._watched: set[int] = set()
        self._forked: set[int] = set()
        self._claims = Claims()

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
        for pid in set(self._pids.values()):
            if not _is_alive(pid):
                self._ended(pid)
        for mappings in list(self._of.values()):
            for slot, mapping in list(mappings.items()):
                is_left = (
                    mapping.claim and mapping.state == FREE and self._claims.take(mapping.claim)
                )
                if is_left:
                    mapping.state = RETIRED
                    mapping.discard_pages()  # children may have it mapped
                if mapping.state == RETIRED:
                    mappings.pop(slot, None)

    def _ended(self, pid: int) -> None:
        """A worker ended: what it had is kept for the next one, if that can have it."""
        self._watched.discard(pid)
        for maker, other in list(self._pids.items()):
            if other == pid:
                self._pids.pop(maker, None)
                self._leave(maker, pid in self._forked and not _is_alive(pid))
        self._forked.discard(pid)
        for mapping in (
            self.mappings()
        ):  # those that it had claimed: what is on its way does not arrive any more
            if mapping.claim and mapping.state == SENT and not self._claims.is_taken(mapping.claim):
                mapping.state = FREE

    def _leave(self, maker: bytes, can_be_kept: bool) -> None:
        mappings = self._of.get(maker, {})
        for slot, mapping in list(mappings.items()):
            if mapping.state == SENT:
                mapping.state = FREE
            if mapping.state == RETIRED or not can_be_kept or over_budget():
                mappings.pop(slot, None)
                continue
            try:
                mapping.claim = self._claims.new()
            except OSError:
                mappings.pop(slot, None)
        if not mappings:
            self._of.pop(maker, None)

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
        self._watch(address.pid)
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
        self._pids[address.maker] = address.pid
        self._of.setdefault(address.maker, {})[address.slot] = mapping
        return mapping

    def _watch(self, pid: int) -> None:
        """What a worker leaves behind is seen to when the loader that had it goes."""
        if pid in self._watched:
            return
        self._watched.add(pid)
        for process in multiprocessing.active_children():
            if process.pid == pid:
                weakref.finalize(process, self._ended, pid).atexit = False
                method = (
                    getattr(process, "_start_method", None) or multiprocessing.get_start_method()
                )
                if method == "fork":
                    self._forked.add(pid)

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
    return attached.batch(Address(*address), shape, dtype).requires_grad_(requires_grad)


attached = Attached()
keepers["segments attached"] = attached
when_forked(attached.hold, attached.renew)
