"""Ranges that were asked for before they are read: merged into requests, many at once, within a budget of bytes."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from dicomtorch._forks import ForkedLock
from dicomtorch.errors import DicomTorchError
from dicomtorch.storage.base import ByteRange
from dicomtorch.storage.spans import coalesce

Fetch = Callable[[ByteRange], memoryview]

_FORGOTTEN: Final = 60.0  # seconds after which what came and nobody read goes
_MOST_THREADS: Final = 256


class _Waiter:
    """A thread that waits for several requests: it is woken once, when the last of them is done."""

    __slots__ = ("left", "lock")

    def __init__(self, left: int) -> None:
        self.left = left
        self.lock = threading.Lock()
        self.lock.acquire()

    def tell(self) -> None:
        """One more is done; with the lock of `Ahead`."""
        self.left -= 1
        if not self.left:
            self.lock.release()


class _Request:
    """One request, and how often ranges in it will still be read.

    Attributes:
        reads: Range -> how often; without those that nobody will read any more.
        unread: Ranges that nobody has read yet.
    """

    __slots__ = (
        *("begun", "came", "data", "error", "is_urgent"),
        *("reads", "unread", "waiters", "wanted"),
    )

    def __init__(self, wanted: ByteRange, reads: dict[ByteRange, int], is_urgent: bool) -> None:
        self.wanted = wanted
        self.reads = reads
        self.unread = set(reads)
        self.is_urgent = is_urgent
        self.begun = False
        self.came = 0.0
        self.data: memoryview | None = None
        self.error: BaseException | None = None
        self.waiters: list[_Waiter] = []

    def part(self, wanted: ByteRange) -> memoryview:
        """The bytes of a range in it."""
        if self.error is not None:
            # Threads that share an error must not share its traceback.
            raise type(self.error)(*self.error.args) from self.error
        assert self.data is not None
        start = wanted.offset - self.wanted.offset
        return self.data[start : start + wanted.length]


class Ahead:
    """What was asked for ahead. Used by several threads; a forked child begins anew.

    A range that several samples will read, as overlapping clips do, is kept after the first of them while the budget
    has room for it.

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
        self._kept: dict[int, _Request] = {}  # every range of them was read, the longest ago first
        self._held = 0  # bytes of all others
        self._kept_bytes = 0
        self._running = 0

    def ask(
        self, ranges: Sequence[ByteRange], *, now: bool = False, is_known: bool = False
    ) -> None:
        """Asks for ranges that are not asked for yet; each is read as often as it is there.

        Args:
            ranges: With their lengths.
            now: They are read right away, whatever is held for later.
            is_known: These reads may have been told before.
        """
        with self._lock:
            self._ask(ranges, now, is_known or now)
            self._start()

    def _ask(self, ranges: Sequence[ByteRange], now: bool, is_known: bool) -> None:
        """Puts requests into the queue; starting one may let go of what is kept, so that it comes after looking."""
        if self._process != os.getpid():
            self._begin()
        self._forget()
        of_object: dict[tuple[object, ...], dict[ByteRange, int]] = {}
        for wanted, reads in Counter(ranges).items():
            known = self._where.get(wanted)
            if known is None:
                of_object.setdefault(wanted[:2], {})[wanted] = reads
                continue
            before = known.reads[wanted]
            known.reads[wanted] = max(before, reads) if is_known else before + reads
            if now and not known.begun:
                self._hasten(known)
        made = [one for group in of_object.values() for one in self._requests(group, now)]
        if now:
            self._queue.extendleft(reversed(made))
        else:
            self._queue.extend(made)

    def _hasten(self, request: _Request) -> None:
        self._queue.remove(request)
        self._queue.appendleft(request)
        request.is_urgent = True

    def _requests(self, reads: dict[ByteRange, int], now: bool) -> list[_Request]:
        """The requests for ranges of one object."""
        group = list(reads)
        if len(group) == 1:
            request = self._where[group[0]] = _Request(group[0], reads, now)
            return [request]
        made = []
        for block in coalesce([one[2:] for one in group]):
            wanted = group[0]._replace(offset=block.offset, length=block.length)
            request = _Request(wanted, {group[k]: reads[group[k]] for k in block.numbers}, now)
            self._where.update(dict.fromkeys(request.reads, request))
            made.append(request)
        return made

    def _forget(self) -> None:
        """Drops what came long ago and nobody read, as of an epoch that was not gone on with."""
        if self._held < self._budget // 2:
            return
        oldest = time.monotonic() - _FORGOTTEN
        for request in {id(one): one for one in self._where.values()}.values():
            if request.unread and request.came and request.came < oldest:
                self._drop(request)
                self._held -= request.wanted.length

    def _drop(self, request: _Request) -> None:
        for wanted in request.reads:
            del self._where[wanted]
        request.reads.clear()
        request.unread.clear()

    def _start(self) -> None:
        """Starts requests in the order in which they were asked for."""
        while self._running < self._at_once:
            request = self._next()
            if request is None:
                return
            self._running += 1
            request_pool().submit(self._run, request)

    def _next(self) -> _Request | None:
        """The request that is made next, if the budget has room for it or somebody waits."""
        if not self._queue:
            return None
        request = self._queue[0]
        length = request.wanted.length
        while self._kept and self._held + self._kept_bytes + length > self._budget:
            self._drop(self._let_go(next(iter(self._kept))))
        if self._held and self._held + length > self._budget and not request.is_urgent:
            return None
        self._queue.popleft()
        request.begun = True
        self._held += length
        return request

    def _run(self, request: _Request | None) -> None:
        """Makes a request, and the next one: going back to the pool takes as long as a part of a request."""
        while request is not None:
            try:
                request.data = self._fetch(request.wanted)
            except BaseException as error:
                request.error = error
            with self._lock:
                self._done(request)
                request = self._next()
                self._running -= request is None
                self._start()

    def _done(self, request: _Request) -> None:
        request.came = time.monotonic()
        if not request.unread:
            self._all_read(request)
        for waiter in request.waiters:
            waiter.tell()
        request.waiters.clear()

    def take(self, wanted: ByteRange) -> memoryview | None:
        """A range that was asked for, once it is there; `None` if it was not, or was read already.

        Raises:
            DicomTorchError: It could not be had.
        """
        with self._lock:
            request = self._where.get(wanted) if self._process == os.getpid() else None
            if request is None:
                return None
            is_alone = sum(request.reads.values()) == 1 and not request.waiters
            if is_alone and not request.begun:  # who wants it begins with it
                self._queue.remove(request)
                del self._where[wanted]
                return None
            waiter = self._taken({wanted: request})
        if waiter is not None:
            waiter.lock.acquire()
        return request.part(wanted)

    def take_many(self, ranges: Sequence[ByteRange]) -> list[memoryview | Exception]:
        """Ranges once all of them are there, or what is wrong with each; those that were not asked for are now.

        Args:
            ranges: With their lengths; one may be there twice.
        """
        wanted = dict.fromkeys(ranges)
        with self._lock:
            self._ask(list(wanted), now=True, is_known=True)
            requests = {one: self._where[one] for one in wanted}
            waiter = self._taken(requests)
        if waiter is not None:
            waiter.lock.acquire()
        found: dict[ByteRange, memoryview | Exception] = {}
        for one, request in requests.items():
            try:
                found[one] = request.part(one)
            except DicomTorchError as error:
                found[one] = error
        return [found[one] for one in ranges]

    def _taken(self, requests: dict[ByteRange, _Request]) -> _Waiter | None:
        """Takes ranges that were asked for; what waits for those that are not there yet, if there are any."""
        pending: dict[int, _Request] = {}
        for wanted, request in requests.items():
            if wanted not in request.reads:  # let go of with another range, as after an error
                continue
            request.reads[wanted] -= 1
            if not request.reads[wanted]:
                del self._where[wanted], request.reads[wanted]
            was_unread = bool(request.unread)
            request.unread.discard(wanted)
            if not request.came:
                pending[id(request)] = request
            elif not request.unread:
                if was_unread:
                    self._all_read(request)
                elif not request.reads:
                    self._let_go(id(request))
        for request in pending.values():
            if not request.begun:
                self._hasten(request)
        waiter = _Waiter(len(pending)) if pending else None
        for request in pending.values():
            assert waiter is not None
            request.waiters.append(waiter)
        self._start()
        return waiter

    def _all_read(self, request: _Request) -> None:
        """Every range of what came was read: it is kept if one will be read again."""
        self._held -= request.wanted.length
        if request.reads and request.error is None:
            self._kept[id(request)] = request
            self._kept_bytes += request.wanted.length
        else:
            self._drop(request)

    def _let_go(self, number: int) -> _Request:
        request = self._kept.pop(number)
        self._kept_bytes -= request.wanted.length
        return request


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
