"""A piece of memory that a `DataLoader` worker and its parent share, and what becomes of it when a process forks.

The way of one segment, whose first page holds its state and the number of its last message:

1. A worker claims it while it is FREE, and fills it. While anything in the worker refers to the batch, it is in use.
2. The queue of the loader pickles the batch: now it is SENT, and the message has its address and a number.
3. The parent unpickles the message. State and number fit, so nothing else was in it since: now it is HELD.
4. The last reference of the parent dies: it is FREE again, and only now the worker may fill it again.

When its worker has ended, the parent keeps it, within its budget. Workers that are forked later have it mapped too, and
the first that claims it (`Claims`) goes on with it at 1.

It is RETIRED, and never filled again, if a process was forked while it was in use or HELD, because the child sees what
becomes of it; if more is kept than the budget allows; or if a later message arrived and its own did not, because
what was beside it could not be pickled.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import weakref
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

with contextlib.suppress(ImportError):  # no segments are made there
    import fcntl

FREE, SENT, HELD, RETIRED = range(4)
_FRONT = mmap.PAGESIZE  # the batch begins on a page of its own
_NUMBER = 8  # where in the front page the number of the last message is
_PROT_READ_WRITE = 3
_POPULATE_WRITE = (
    23  # MADV_POPULATE_WRITE; kernels before 5.14 refuse it, and the faults come one by one
)


def length_of(size: int) -> int:
    """Bytes of a segment for a batch of `size`."""
    return _FRONT + size


class Mapping:
    """A shared mapping without a descriptor: `mmap.mmap` would keep one open for each batch that is alive.

    Args:
        descriptor: Of the segment.
        size: Of the batch, in bytes.

    Attributes:
        size: As given.
        is_forked: Whether a child was forked while this process had the batch.
        claim: Its number among the `Claims` of the parent, once its worker has ended; 0 before.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        length = length_of(size)
        address = _libc().mmap(None, length, _PROT_READ_WRITE, mmap.MAP_SHARED, descriptor, 0)
        if address in (None, ctypes.c_void_p(-1).value):
            raise OSError(ctypes.get_errno(), "a batch could not be mapped")
        self.size = size
        self.is_forked = False
        self.claim = 0
        self._state = ctypes.c_ubyte.from_address(address)
        self._number = ctypes.c_uint64.from_address(address + _NUMBER)
        self._address: int = address
        weakref.finalize(self, _libc().munmap, address, length).atexit = False

    @property
    def state(self) -> int:
        """FREE, SENT, HELD or RETIRED."""
        return self._state.value

    @state.setter
    def state(self, value: int) -> None:
        self._state.value = value

    @property
    def number(self) -> int:
        """Of the last message about this segment; each of a worker has its own."""
        return self._number.value

    @number.setter
    def number(self, value: int) -> None:
        self._number.value = value

    @property
    def start(self) -> int:
        """Address of the batch."""
        return self._address + _FRONT

    def owner(self, nbytes: int) -> Any:
        """An array over the batch. It does not keep the mapping: a finalizer of it has to."""
        return (ctypes.c_char * nbytes).from_address(self.start)

    def populate(self) -> None:
        """Enters the pages that are there into the tables of this process: one call in place of a fault for each."""
        _libc().madvise(self.start, self.size, _POPULATE_WRITE)

    def discard_pages(self) -> None:
        """Gives the memory back to the system, though others have it mapped. Nobody may look at it any more."""
        if hasattr(mmap, "MADV_REMOVE"):
            _libc().madvise(self.start, self.size, mmap.MADV_REMOVE)


class Claims:
    """Who may fill the segments whose workers ended: a record lock for each, which ends with the process that has it.

    A forked child has the descriptor, but none of the locks.
    """

    def __init__(self) -> None:
        self._descriptor: int | None = None
        self._given = 0

    def new(self) -> int:
        """A number that nobody has claimed.

        Raises:
            OSError: There is no descriptor for it.
        """
        if self._descriptor is None:
            self._descriptor = os.memfd_create("dicomtorch-claims")
        self._given += 1
        return self._given

    def take(self, number: int) -> bool:
        """Claims a number for this process, unless another has it."""
        return self._lock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def is_taken(self, number: int) -> bool:
        """Whether another process has claimed it and lives."""
        if not self.take(number):
            return True
        self._lock(number, fcntl.LOCK_UN)
        return False

    def _lock(self, number: int, how: int) -> bool:
        assert self._descriptor is not None
        try:
            fcntl.lockf(self._descriptor, how, 1, number)
        except OSError:
            return False
        return True


@cache
def _libc() -> ctypes.CDLL:
    library = ctypes.CDLL(None, use_errno=True)
    library.mmap.restype = ctypes.c_void_p
    library.mmap.argtypes = (
        ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
    )  # fmt: skip
    library.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    library.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return library


class Address(NamedTuple):
    """What a message says of a segment."""

    maker: bytes  # names the worker among all that ever were
    pid: int  # of the worker
    receiver: int  # the process that may open it
    slot: int  # which segment of the worker
    number: int  # of this message
    size: int
    handle: Any  # its descriptor, the first time; `None` later


# --- Forks ------------------------------------------------------------------------------------------


class _Process:
    """Which process this is, to tell what a forked child has of its parent."""

    def __init__(self) -> None:
        self.token = object()
        self.forking: list[None] = []  # one for each thread that is about to fork


_process = _Process()
_holders: list[Callable[[], None]] = []


def this_process() -> object:
    """The same object until a fork; a child has another."""
    return _process.token


def is_forking() -> bool:
    """Whether a fork is under way: what dies now may be alive in the child."""
    return bool(_process.forking)


def when_forked(hold: Callable[[], None], renew: Callable[[], None]) -> None:
    """After a fork `hold()` is called in the parent and `renew()` in the child."""
    _holders.append(hold)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=renew)


def _before_fork() -> None:
    _process.forking.append(None)


def _after_fork_in_parent() -> None:
    for hold in _holders:
        hold()
    _process.forking.pop()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_process.__init__,  # type: ignore[misc]
    )
