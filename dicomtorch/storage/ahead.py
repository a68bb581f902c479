"""What was asked for before it is read: many requests at once, within a budget of bytes.

Which things share a request, and how it is made, its planner says: `range_requests` for ranges of objects,
`reader.web` for frames that a server gives.
"""

from __future__ import annotations

import os
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter, OrderedDict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Final, Generic, Protocol, TypeVar

from dicomtorch._forks import ForkedLock
from dicomtorch.errors import DicomTorchError, StorageError
from dicomtorch.storage.uninterrupted import uninterrupted

Wanted = TypeVar("Wanted", bound=Hashable)
Given = TypeVar("Given")

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


class Request(ABC, Generic[Wanted, Given]):
    """One request, and how often what it asks for will still be read.

    Args:
        reads: What it asks for -> how often that is read.
        size: Bytes that come, as far as they are known; `fetch` may know better.

    Attributes:
        group: Of all that it asks for; see `Planner`.
        room: How much more it takes before it begins.
        size: As given.
        reads: As given, without what nobody will read any more.
        unread: What nobody has read yet.
        is_urgent: Somebody waits for it.
        begun: It is under way, or done.
        came: When it was done; 0 before.
        error: Why it was not.
        waiters: Who waits for it.
    """

    __slots__ = ("begun", "came", "error", "is_urgent", "reads", "size", "unread", "waiters")
    group: Hashable = None
    room = 0

    def __init__(self, reads: dict[Wanted, int], size: int) -> None:
        self.reads = reads
        self.size = size
        self.unread = set(reads)
        self.is_urgent = False
        self.begun = False
        self.came = 0.0
        self.error: BaseException | None = None
        self.waiters: tuple[_Waiter, ...] = ()

    def add(self, wanted: Wanted, reads: int) -> None:
        """Takes one more before it begins, where there is room."""
        self.reads[wanted] = reads
        self.unread.add(wanted)

    @abstractmethod
    def fetch(self) -> None:
        """Makes it; what it raises is told to all who wait."""

    @abstractmethod
    def given(self, wanted: Wanted) -> Given:
        """Something of what came."""

    def part(self, wanted: Wanted) -> Given:
        """The same, or the error that there was."""
        if self.error is not None:
            # Threads that share an error must not share its traceback.
            raise type(self.error)(*self.error.args) from self.error
        return self.given(wanted)


class Planner(Protocol[Wanted, Given]):
    """Makes requests of what is wanted."""

    def group(self, wanted: Wanted, /) -> Hashable:
        """Equal for things that may share a request."""

    def requests(self, reads: dict[Wanted, int], /) -> Iterable[Request[Wanted, Given]]:
        """The requests for several things, with how often each is read; things of different groups share none."""


class Ahead(Generic[Wanted, Given]):
    """What was asked for ahead. Used by several threads; a forked child begins anew.

    What several samples will read, as overlapping clips do, is kept after the first of them while the budget has room
    for it. No interrupt breaks off what changes the requests (see `uninterrupted`): one that is asked for in part would
    be waited for without end.

    Args:
        planner: Makes requests.
        at_once: Requests at the same time.
        budget: Bytes that may be on their way or wait to be read.
    """

    def __init__(self, planner: Planner[Wanted, Given], at_once: int, budget: int) -> None:
        self._planner = planner
        self._at_once = at_once
        self._budget = budget
        self._lock = ForkedLock()
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._where: dict[Wanted, Request[Wanted, Given]] = {}
        self._queue: OrderedDict[Request[Wanted, Given], None] = OrderedDict()
        self._open: dict[Hashable, Request[Wanted, Given]] = {}  # of these some wait and have room
        # All that they asked for was read, the longest ago first.
        self._kept: dict[int, Request[Wanted, Given]] = {}
        self._held = 0  # bytes of all others
        self._kept_bytes = 0
        self._running = 0

    def ask(self, wanted: Sequence[Wanted], *, now: bool = False, is_known: bool = False) -> None:
        """Asks for what is not asked for yet; each is read as often as it is there.

        Args:
            wanted: What is read.
            now: Right away, whatever is held for later.
            is_known: These reads may have been told before.
        """

        def ask() -> None:
            with self._lock:
                self._ask(Counter(wanted), now, is_known or now)
                self._start()

        uninterrupted(ask)

    def _ask(self, wanted: Mapping[Wanted, int], now: bool, is_known: bool) -> None:
        """Puts requests into the queue; starting one may let go of what is kept, so that it comes after looking."""
        if self._process != os.getpid():
            self._begin()
        self._forget()
        new: dict[Wanted, int] = {}
        for one, reads in wanted.items():
            known = self._where.get(one)
            if known is None:
                new[one] = reads
                continue
            before = known.reads[one]
            if not is_known or reads > before:
                known.reads[one] = reads if is_known else before + reads
            if now and not known.begun:
                self._hasten(known)
        if new and self._open:
            self._join_open(new, now)
        if new:
            self._enter(list(self._planner.requests(new)), now)

    def _hasten(self, request: Request[Wanted, Given]) -> None:
        self._queue.move_to_end(request, last=False)
        request.is_urgent = True

    def _enter(self, made: list[Request[Wanted, Given]], now: bool) -> None:
        """Takes new requests into the queue."""
        if now:
            made.reverse()  # each goes before the others
        for request in made:
            self._queue[request] = None
            if now:
                self._hasten(request)
            for one in request.reads:
                self._where[one] = request
            if request.room:
                self._open[request.group] = request

    def _join_open(self, new: dict[Wanted, int], now: bool) -> None:
        """Moves out of `new` what requests that wait have room for."""
        groups: dict[Hashable, dict[Wanted, int]] = {}
        for one, reads in new.items():
            groups.setdefault(self._planner.group(one), {})[one] = reads
        for group, of in groups.items():
            waiting = self._open.get(group)
            if waiting is None:
                continue
            for one in self._join(waiting, of):
                del new[one]
            if now:
                self._hasten(waiting)

    def _join(self, request: Request[Wanted, Given], reads: dict[Wanted, int]) -> Sequence[Wanted]:
        """Puts things of its group into a request, as many as it has room for, and says which."""
        joined: list[Wanted] = []
        for one in islice(reads, request.room):
            request.add(one, reads[one])
            self._where[one] = request
            joined.append(one)
        if not request.room:
            self._close(request)
        return joined

    def _close(self, request: Request[Wanted, Given]) -> None:
        """Nothing joins it any more."""
        if self._open.get(request.group) is request:
            del self._open[request.group]

    def _forget(self) -> None:
        """Drops what came long ago and nobody read, as of an epoch that was not gone on with."""
        if self._held < self._budget // 2:
            return
        oldest = time.monotonic() - _FORGOTTEN
        for request in {id(one): one for one in self._where.values()}.values():
            if request.unread and request.came and request.came < oldest:
                self._drop(request)
                self._held -= request.size

    def _drop(self, request: Request[Wanted, Given]) -> None:
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
            try:
                request_pool().submit(self._begun, request)
            except RuntimeError:
                self._running -= 1
                request.error = StorageError(
                    "no thread could be started that waits for a server; this process has as many as the system allows"
                )
                self._drop(request)  # who reads it later asks in a thread of its own
                self._done(request)

    def _next(self) -> Request[Wanted, Given] | None:
        """The request that is made next, if the budget has room for it or somebody waits."""
        if not self._queue:
            return None
        request = next(iter(self._queue))
        length = request.size
        while self._kept and self._held + self._kept_bytes + length > self._budget:
            self._drop(self._let_go(next(iter(self._kept))))
        if self._held and self._held + length > self._budget and not request.is_urgent:
            return None
        del self._queue[request]
        if request.room:
            self._close(request)
        request.begun = True
        self._held += length
        return request

    def _begun(self, request: Request[Wanted, Given]) -> None:
        with self._lock:  # a pool that raised may have it all the same, for its next thread
            if request.came:
                return
        self._run(request)

    def _run(self, request: Request[Wanted, Given] | None) -> None:
        """Makes a request, and the next one: going back to the pool takes as long as a part of a request."""
        while request is not None:
            expected = request.size
            try:
                request.fetch()
            except BaseException as error:
                request.error = error
            with self._lock:
                self._held += request.size - expected
                self._done(request)
                request = self._next()
                self._running -= request is None
                self._start()

    def _done(self, request: Request[Wanted, Given]) -> None:
        request.came = time.monotonic()
        if not request.unread:
            self._all_read(request)
        for waiter in request.waiters:
            waiter.tell()
        request.waiters = ()

    def take(self, wanted: Wanted) -> Given | None:
        """What was asked for, once it is there; `None` if it was not, or was read already.

        Raises:
            DicomTorchError: It could not be had.
        """
        taken = uninterrupted(lambda: self._take(wanted))
        if taken is None:
            return None
        request, waiter = taken
        if waiter is not None:
            waiter.lock.acquire()
        return request.part(wanted)

    def _take(self, wanted: Wanted) -> tuple[Request[Wanted, Given], _Waiter | None] | None:
        """The request that has it, and who waits for it; `None`: it is asked for by who wants it."""
        with self._lock:
            request = self._where.get(wanted) if self._process == os.getpid() else None
            if request is None:
                return None
            is_alone = sum(request.reads.values()) == 1 and not request.waiters
            if is_alone and not request.begun:  # who wants it begins with it
                del self._queue[request]
                self._close(request)
                del self._where[wanted]
                return None
            return request, self._taken({wanted: request})

    def take_many(self, wanted: Sequence[Wanted]) -> list[Given | Exception]:
        """All that is wanted once it is there, or what is wrong with each; what was not asked for is now.

        Args:
            wanted: One may be there twice.
        """
        once = dict.fromkeys(wanted, 1)

        def take() -> tuple[dict[Wanted, Request[Wanted, Given]], _Waiter | None]:
            with self._lock:
                self._ask(once, now=True, is_known=True)
                requests = {one: self._where[one] for one in once}
                return requests, self._taken(requests)

        requests, waiter = uninterrupted(take)
        if waiter is not None:
            waiter.lock.acquire()
        found: dict[Wanted, Given | Exception] = {}
        for one, request in requests.items():
            try:
                found[one] = request.part(one)
            except DicomTorchError as error:
                found[one] = error
        return [found[one] for one in wanted]

    def _taken(self, requests: dict[Wanted, Request[Wanted, Given]]) -> _Waiter | None:
        """Takes what was asked for; what waits for those that are not there yet, if there are any."""
        pending: dict[int, Request[Wanted, Given]] = {}
        for wanted, request in requests.items():
            reads = request.reads.get(wanted)
            if reads is None:  # let go of with something else, as after an error
                continue
            if reads > 1:
                request.reads[wanted] = reads - 1
            else:
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
            request.waiters += (waiter,)
        self._start()
        return waiter

    def _all_read(self, request: Request[Wanted, Given]) -> None:
        """All of what came was read: it is kept if one will be read again."""
        self._held -= request.size
        if request.reads and request.error is None:
            self._kept[id(request)] = request
            self._kept_bytes += request.size
        else:
            self._drop(request)

    def _let_go(self, number: int) -> Request[Wanted, Given]:
        request = self._kept.pop(number)
        self._kept_bytes -= request.size
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
