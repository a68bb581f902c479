"""Locks, threads and pools of the package, and what a fork does to each.

A forked child has one thread. A lock that another thread of its parent held at that moment is never let go there, so
whoever wants it in the child would wait for ever. Nothing of the package is such a lock:

| Module | What it has | After a fork |
|---|---|---|
| `reader.threads` | the threads that decode, and the lock around making them | forgotten; the child makes its own |
| `backends.children` | the processes that decode, their sockets and lock | closed; the child makes its own |
| `reader.inflated` | the lock around the last inflated data set | free in the child (`ForkedLock`) |
| `storage.kept_bytes` | locks around inflated members and instances that came last | free in the child (`ForkedLock`) |
| `reader.web` | the lock around making the source of a server | free in the child (`ForkedLock`) |
| `reader.kept_frames` | the threads that ask for several blocks of frames | the child asks for its own |
| `scanner.web` | the threads of one scan of a server | the child begins a scan of its own |
| `masks.gridded`, `masks.dose`, `masks.contour_painter` | locks around what is made once | free in the child |
| `pixels.slots` | the lock around the segments of a worker | made anew; the child has segments of its own |
| `datasets.masked` | the lock around the masks that were painted last | free in the child (`ForkedLock`) |
| `datasets.samples` | the lock around the global random generators | made anew |
| `viewer.aside` | the lock around the child that runs code of users | free in the child (`ForkedLock`) |
| `viewer.server`, `viewer.notebook` | threads that answer a browser or a notebook | the child has none |
| `batches.crew` | the threads of one pass of a `FrameLoader`, their tasks | the child begins a pass of its own |
| `scanner.pool` | the processes of one scan, a thread for each, their queues | the child begins a scan of its own |
| `scanner.child` | the thread of such a process that takes its calls, their queue | nothing forks there |
| `integrations.shards` | the threads of one pass over an index that is copied | the child begins a pass of its own |
| `reports.verify` | the threads of one check | the child begins a check of its own |
| `reports.verify_state` | the `flock` on the notes of a check | shared with the child, until both have ended |
| `pixels.segment` | record locks of segments whose workers ended (`Claims`) | those of the parent are not the child's |
| `index.locks` | `flock`s of the index and of the frame cache (`FileLock`) | the child closes its copies |
| `index.in_use` | shared `flock`s on stored indexes that are open | shared with the child, which has them open too |
| `index.generation_store`, `index.purge`, `reader.cache`, `reader.room` | a `FileLock` each | see `index.locks` |
| `storage.ahead` | the threads that wait for requests, and a lock around these | forgotten; the child asks anew |
| `storage.uninterrupted` | the thread that makes calls for the main one, its queue, a lock for each | forgotten |
| `storage.remote`, `storage.object_store`, `storage.file_system` | locks around what is made once | free in the child |
| `storage.choose`, `storage.web` | locks around the storages and clients of this process | free in the child |
| `storage.local` | a lock around seeking, on Windows only | Windows does not fork |

Connections of obstore hang in a forked child whose parent used them: there `storage.client` refuses at once.

Value ranges that frames share (`reader.ranges`) and what readers remember need no lock, nor do files that stay open in
a thread (`reader.open_files`): the child shares them, and reads have positions of their own.
Attributes that are computed once are `lazy`: `functools.cached_property` has a lock before Python 3.12.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

Value = TypeVar("Value")


class ForkedLock:
    """A lock among the threads of one process, a context manager; in a forked child it is free."""

    def __init__(self) -> None:
        self.renew()
        _locks[id(self)] = self

    def renew(self) -> None:
        """Makes it free, whoever held it."""
        self._lock = threading.Lock()

    # `with` calls what these give, which is compiled: an interrupt between taking the lock in Python and the body,
    # which gives it back, would leave it taken.

    @property
    def __enter__(self) -> Callable[[], bool]:
        return self._lock.__enter__

    @property
    def __exit__(self) -> Callable[..., None]:
        return self._lock.__exit__


_locks: weakref.WeakValueDictionary[int, ForkedLock] = weakref.WeakValueDictionary()


def _renew_all() -> None:
    for reference in _locks.valuerefs():
        lock = reference()
        if lock is not None:
            lock.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)


class lazy(Generic[Value]):
    """An attribute that is computed when it is first asked for, without a lock: two threads may both compute it.

    Args:
        make: Computes it; its docstring is that of the attribute.
    """

    def __init__(self, make: Callable[[Any], Value]) -> None:
        self._make = make
        self._name = make.__name__
        self.__doc__ = make.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> lazy[Value]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> Value: ...
    def __get__(self, instance: object | None, owner: type) -> lazy[Value] | Value:
        if instance is None:
            return self
        value = instance.__dict__[self._name] = self._make(instance)
        return value
