"""Ranges that were asked for before they are read: merged into requests, many at once, within a budget of bytes."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from dicomtorch._forks import ForkedLock
from dicomtorch.storage.base import ByteRange
from dicomtorch.storage.spans import coalesce

Fetch = Callable[[ByteRange], memoryview]

_FORGOTTEN: Final = 60.0  # seconds after which what came and nobody read goes
_MOST_THREADS: Final = 256


class _Request:
    """One request, and the ranges in it that nobody has read yet."""

    __slots__ = ("begun", "came", "future", "left", "wanted")

    def __init__(self, wanted: ByteRange, left: set[ByteRange]) -> None:
        self.wanted = wanted
        self.left = left
        self.future: Future[memoryview] = Future()
        self.begun = False
        self.came = 0.0


class Ahead:
    """What was asked for ahead. Used by several threads; a forked child begins anew.

    Args:
        fetch: Gets one range, and raises what is wrong with it.
        at_once: Requests at the same time.
        budget: Bytes that may be on their way or wait to be read.
    """

    def __init__(self, fetch: Fetch, at_once: int, budget: int) -> None:
        self._fetch = fetch
        self._at_once = at_once
        self._budget = budget
        self._lock = ForkedLock()
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._where: dict[ByteRange, _Request] = {}
        self._queue: deque[_Request] = deque()
        self._held = 0
        self._running = 0

    def ask(self, ranges: Sequence[ByteRange], *, now: bool = False) -> None:
        """Asks for ranges that are not asked for yet; each is read once.

        Args:
            ranges: With their lengths.
            now: They are read right away, whatever is held for later.
        """
        with self._lock:
            if self._process != os.getpid():
                self._begin()
            self._forget()
            of_object: dict[tuple[object, ...], list[ByteRange]] = {}
            for wanted in dict.fromkeys(ranges):
                known = self._where.get(wanted)
                if known is None:
                    of_object.setdefault(wanted[:2], []).append(wanted)
                elif now and not known.begun:
                    self._queue.remove(known)
                    self._queue.appendleft(known)
            made = [one for group in of_object.values() for one in self._requests(group)]
            if now:
                self._queue.extendleft(reversed(made))
            else:
                self._queue.extend(made)
            self._start(beyond=len(made) if now else 0)

    def _requests(self, group: list[ByteRange]) -> list[_Request]:
        """The requests for ranges of one object."""
        if len(group) == 1:
            request = self._where[group[0]] = _Request(group[0], {*group})
            return [request]
        made = []
        for block in coalesce([one[2:] for one in group]):
            wanted = group[0]._replace(offset=block.offset, length=block.length)
            request = _Request(wanted, {group[k] for k in block.numbers})
            self._where.update(dict.fromkeys(request.left, request))
            made.append(request)
        return made

    def _forget(self) -> None:
        """Drops what came long ago and nobody read, as of an epoch that was not gone on with."""
        if self._held < self._budget // 2:
            return
        oldest = time.monotonic() - _FORGOTTEN
        for request in {id(one): one for one in self._where.values()}.values():
            if request.came and request.came < oldest:
                for wanted in request.left:
                    self._where.pop(wanted, None)
                request.left.clear()
                self._held -= request.wanted.length

    def _start(self, beyond: int = 0) -> None:
        """Starts requests in the order in which they were asked for; of the first `beyond` whatever the budget says."""
        while self._queue and self._running < self._at_once:
            request = self._queue[0]
            if beyond <= 0 and self._held and self._held + request.wanted.length > self._budget:
                return
            beyond -= 1
            self._queue.popleft()
            self._submit(request)

    def _submit(self, request: _Request) -> None:
        request.begun = True
        self._held += request.wanted.length
        self._running += 1
        request_pool().submit(self._run, request)

    def _run(self, request: _Request) -> None:
        try:
            data = self._fetch(request.wanted)
        except BaseException as error:
            request.future.set_exception(error)
        else:
            request.future.set_result(data)
            del data
        with self._lock:
            self._running -= 1
            request.came = time.monotonic()
            if not request.left:
                self._held -= request.wanted.length
            self._start()

    def take(self, wanted: ByteRange) -> memoryview | None:
        """A range that was asked for, once it is there; `None` if it was not, or was read already.

        Raises:
            DicomTorchError: It could not be had.
        """
        with self._lock:
            request = self._where.pop(wanted, None) if self._process == os.getpid() else None
            if request is None:
                return None
            request.left.discard(wanted)
            if not request.left:
                if request.came:
                    self._held -= request.wanted.length
                elif not request.begun:  # nobody has begun with it: who wants it does
                    self._queue.remove(request)
                    return None
            elif not request.begun:
                self._queue.remove(request)
                self._submit(request)
            self._start()
        try:
            data = request.future.result()
        except Exception as error:
            raise type(error)(
                *error.args
            ) from error  # threads that share it must not share its traceback
        start = wanted.offset - request.wanted.offset
        return data[start : start + wanted.length]


_pool: ThreadPoolExecutor | None = None
_pool_lock = ForkedLock()


def request_pool() -> ThreadPoolExecutor:
    """The threads of this process that wait for requests; made when they are first needed."""
    global _pool
    with _pool_lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(_MOST_THREADS, "dicomtorch-request")
        return _pool


def _forget_pool() -> None:
    global _pool
    _pool = None  # its threads are not in a forked child


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)
