"""Headers of remote objects: the first bytes of many are asked for at once, more of those that need more."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from typing import Final

from dicomtorch.scanner.entries import Entry
from dicomtorch.storage.ahead import request_pool
from dicomtorch.storage.base import ByteRange, Identity
from dicomtorch.storage.client import Answer, Buffer
from dicomtorch.storage.remote import RemoteStorage

FIRST: Final = 64 << 10
"""Bytes that hold the header of nearly every image of one frame."""
WHOLE: Final = 256 << 10
"""Objects below this size are asked for whole: a second request costs more than the bytes."""
_LARGEST: Final = 8 << 20
_NEAR: Final = 256 << 10  # bytes that are rather read than asked around


class MoreNeeded(BaseException):
    """The first bytes of an object are not enough; no error, and so none that anybody handles."""


class Begun:
    """An object whose first bytes are here, as something that a header is read from.

    Args:
        storage: Where it is.
        name: Of the object.
        answer: Its first bytes.
        waits: Whether more is asked for; else `MoreNeeded` is raised.
    """

    def __init__(self, storage: RemoteStorage, name: bytes, answer: Answer, waits: bool) -> None:
        self._storage = storage
        self._name = name
        self._waits = waits
        self._first = bytes(answer.data)
        self._at, self._more = len(self._first), b""
        self._step = FIRST
        self.identity = answer.identity

    def read(self, offset: int, length: int) -> bytes:
        """The bytes there; fewer only at the end of the object."""
        end = min(offset + length, self.identity.size)
        if end <= len(self._first):
            return self._first[offset:end]
        if offset < self._at or end > self._at + len(self._more):
            self._fetch(offset, end)
        return self._more[offset - self._at : end - self._at]

    def _fetch(self, offset: int, end: int) -> None:
        """Asks for more than is needed where the walk goes on from what came last."""
        if not self._waits:
            raise MoreNeeded
        gap = offset - (self._at + len(self._more))
        self._step = min(self._step * 2, _LARGEST) if -_NEAR <= gap <= _NEAR else FIRST
        end = min(max(end, offset + self._step), self.identity.size)
        data: Buffer = self._storage.fetch(
            ByteRange(self._name, self.identity, offset, end - offset)
        )
        self._at, self._more = offset, bytes(data)


def begin(storage: RemoteStorage, name: bytes, entry: Entry) -> Answer:
    """The first bytes of an object, and what it is.

    Raises:
        StorageError: They were not given.
    """
    known = Identity(entry.size, entry.mtime_ns, entry.inode, entry.version)
    return storage.begin(name, known, WHOLE if 0 < entry.size <= WHOLE else FIRST)


def begun(
    storage: RemoteStorage, below: bytes, entries: Iterable[Entry]
) -> Iterator[tuple[Entry, Future[Answer] | None]]:
    """Entries in their order, each with its first bytes on their way; `None` for those that are not read."""
    most = 2 * storage.settings.io_threads
    waiting: deque[tuple[Entry, Future[Answer] | None]] = deque()
    for entry in entries:
        future = None
        if not entry.reason:
            future = request_pool().submit(begin, storage, below + entry.path, entry)
        waiting.append((entry, future))
        if len(waiting) >= most:
            yield waiting.popleft()
    yield from waiting
