"""Headers of remote objects: the first bytes of many are asked for at once, more of those that need more."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from typing import Final

from dicomtorch.errors import DicomTorchError
from dicomtorch.index.members import object_path
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
_LOCAL: Final = 512  # bytes that a local header may have, with a name and more
_NEAR: Final = 256 << 10  # bytes that are rather read than asked around


class MoreNeeded(BaseException):
    """The first bytes of an object are not enough; no error, and so none that anybody handles."""


class Begun:
    """An object whose first bytes are here, as something that a header is read from.

    Args:
        storage: Where it is.
        name: Of the object.
        answer: Its first bytes, or those from `start` on.
        waits: Whether more is asked for; else `MoreNeeded` is raised.
        start: Where the bytes of `answer` are.

    Attributes:
        identity: Of the object.
        failed: Whether more was asked for and not given.
    """

    def __init__(
        self, storage: RemoteStorage, name: bytes, answer: Answer, waits: bool, start: int = 0
    ) -> None:
        self._storage = storage
        self._name = name
        self._waits = waits
        self._start, self._first = start, bytes(answer.data)
        self._at, self._more = start + len(self._first), b""
        self._step = FIRST
        self.identity = answer.identity
        self.failed = False

    def read(self, offset: int, length: int) -> bytes:
        """The bytes there; fewer only at the end of the object."""
        end = min(offset + length, self.identity.size)
        if self._start <= offset and end <= self._start + len(self._first):
            return self._first[offset - self._start : end - self._start]
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
        try:
            data: Buffer = self._storage.fetch(
                ByteRange(self._name, self.identity, offset, end - offset)
            )
        except DicomTorchError:
            self.failed = True
            raise
        self._at, self._more = offset, bytes(data)


def begin(storage: RemoteStorage, name: bytes, entry: Entry) -> Answer:
    """The first bytes of an object, and what it is; of a member of an archive those from `start_of` on.

    Raises:
        StorageError: They were not given.
    """
    if entry.member.container:
        return _begin_member(storage, object_path(name, entry.member.name), entry)
    known = Identity(entry.size, entry.mtime_ns, entry.inode, entry.version)
    return storage.begin(name, known, WHOLE if 0 < entry.size <= WHOLE else FIRST)


def start_of(entry: Entry) -> int:
    """Where what is read of a member begins: with its local header, where it has one."""
    return entry.header if entry.header >= 0 else entry.member.offset


def _begin_member(storage: RemoteStorage, archive: bytes, entry: Entry) -> Answer:
    start, size = start_of(entry), entry.size
    length = entry.member.length if entry.member.length <= WHOLE else FIRST
    length = max(min(length + (_LOCAL if entry.header >= 0 else 0), size - start), 0)
    if not length:
        return Answer(b"", entry.identity)
    whole = ByteRange(archive, entry.identity, start, length)
    return Answer(storage.fetch(whole), entry.identity)


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
