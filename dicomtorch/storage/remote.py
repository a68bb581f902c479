"""Objects that are read over a network: ranges of a batch are asked for together, and what came is checked."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

from dicomtorch._forks import ForkedLock
from dicomtorch.errors import DicomTorchError, StaleIndexError, StorageError, printable
from dicomtorch.storage.ahead import request_pool
from dicomtorch.storage.base import ByteRange, Identity, Scratch
from dicomtorch.storage.client import Answer, Buffer, Client, Settings
from dicomtorch.storage.range_requests import ranges_ahead
from dicomtorch.storage.spans import coalesce
from dicomtorch.storage.tally import Tally
from dicomtorch.storage.uninterrupted import uninterrupted
from dicomtorch.storage.words import REFRESH

MakeClient = Callable[[str, Settings, Mapping[bytes, bytes]], Client]


class RemoteObject:
    """One object. Nothing is asked for before something is read, if it is known what it must be.

    Attributes:
        identity: What it is.
    """

    __slots__ = ("_name", "_storage", "identity")

    def __init__(self, storage: RemoteStorage, name: bytes, identity: Identity) -> None:
        self._storage = storage
        self._name = name
        self.identity = identity

    def read(self, offset: int, length: int) -> bytes:
        """The bytes there; fewer only at the end of the object.

        Raises:
            StaleIndexError: The object is another one by now.
            StorageError: They were not given.
        """
        length = min(length, self.identity.size - offset)
        if length <= 0:
            return b""
        return bytes(self._storage.fetch(ByteRange(self._name, self.identity, offset, length)))

    def read_exactly(self, offset: int, length: int, scratch: Scratch) -> memoryview:
        """All `length` bytes from `offset` on; what was asked for ahead is there already.

        Raises:
            StaleIndexError: The object ends before, or is another one by now.
            StorageError: They were not given.
        """
        if offset + length > self.identity.size:
            raise StaleIndexError(
                f"the object has {self.identity.size} bytes, and bytes up to {offset + length} are needed; {REFRESH}"
            )
        if not length:
            return memoryview(b"")
        return self._storage.take(ByteRange(self._name, self.identity, offset, length))

    def close(self) -> None:
        """Nothing is held open."""


class RemoteStorage:
    """Objects of one place by their whole addresses.

    Picklable, with its options, which may be keys: it goes to the workers of a `DataLoader` that are spawned. A process
    that was forked after its parent made a request refuses to make one where the client's connections would hang.

    Args:
        base: Of the place, as in `s3://bucket`.
        settings: How it is asked.
        make: Makes a client for it.
        queries: Name of an object -> the query that its address had.

    Attributes:
        base: As given.
        settings: As given.
        queries: As given.
    """

    is_remote = True

    def __init__(
        self,
        base: str,
        settings: Settings,
        make: MakeClient,
        queries: Mapping[bytes, bytes] | None = None,
    ) -> None:
        self.base = base
        self.settings = settings
        self._make = make
        self.queries = dict(queries or {})
        self._renew()

    def _renew(self) -> None:
        self._client: Client | None = None
        self._lock = ForkedLock()
        self._tally = Tally()
        settings = self.settings
        self._ahead = ranges_ahead(self._fetched, settings.io_threads, settings.prefetch_bytes)

    @property
    def is_shared(self) -> bool:
        """Whether other processes of this machine find the same objects there."""
        return not self.base.startswith("memory:")

    def __repr__(self) -> str:
        return f"RemoteStorage({printable(self.base)})"

    @property
    def requests(self) -> int:
        """Made by this object so far in this process, repeats within the client not counted."""
        return self._tally.requests

    @property
    def bytes_read(self) -> int:
        """What came."""
        return self._tally.size

    @property
    def client(self) -> Client:
        """Of this process."""
        client = self._client
        if client is None:
            with self._lock:
                client = self._client
                if client is None:
                    client = self._client = self._make(self.base, self.settings, self.queries)
        return client

    def open(self, name: bytes, identity: Identity | None = None) -> RemoteObject:
        """Opens an object; with an identity nothing is asked for yet."""
        if identity is None or identity.size < 0:
            identity = self.head(name)
        return RemoteObject(self, name, identity)

    def head(self, name: bytes) -> Identity:
        """What an object is.

        Raises:
            StorageError: It is not there, or not for this user.
        """
        self._tally.add(1, 0)
        return self.client.head(name)

    def begin(self, name: bytes, identity: Identity, length: int) -> Answer:
        """The first bytes of an object of which a listing may have said little, in one request.

        Args:
            name: Of the object.
            identity: What is known of it; size -1: nothing.
            length: Bytes, fewer if it is shorter.

        Raises:
            StaleIndexError: It is another one by now.
            StorageError: They were not given.
        """
        if not identity.size:
            return Answer(b"", identity)
        if identity.size > 0:
            length = min(length, identity.size)
            return self._get(ByteRange(name, identity, 0, length))
        try:
            return self._get(ByteRange(name, identity, 0, length))
        except (StorageError, StaleIndexError):
            found = self.head(name)  # of nothing no range can be had
            if found.size:
                raise
            return Answer(b"", found)

    def listed(self, prefix: bytes) -> Iterator[tuple[bytes, Identity]]:
        """The objects below a prefix, or the one that has this name, with what the listing says of each.

        Raises:
            StorageError: There is nothing, or nothing for this user.
        """
        self._tally.add(1, 0)
        found = 0
        for found, item in enumerate(self.client.listed(prefix), 1):
            if found % 1000 == 0:
                self._tally.add(1, 0)
            yield item
        if not found:
            yield prefix, self.head(prefix)

    def heads(self, names: Sequence[bytes]) -> list[Identity | None]:
        """What several objects are, asked for at once; `None` for those that did not say."""

        def ask(name: bytes) -> Identity | None:
            try:
                return self.head(name)
            except StorageError:
                return None

        return list(self._at_once(ask, names))

    def fetch(self, wanted: ByteRange) -> Buffer:
        """A range: from what was asked for ahead, else in a request of its own."""
        return self._ahead.take(wanted) or self._get(wanted).data

    def take(self, wanted: ByteRange) -> memoryview:
        """The same as a view."""
        found = self._ahead.take(wanted)
        return self._fetched(wanted) if found is None else found

    def read_many(self, ranges: Sequence[ByteRange]) -> list[bytes]:
        """Reads several ranges, those of one object together, many at once.

        Raises:
            StaleIndexError: An object is gone, another one, or ends before.
            StorageError: Bytes were not given; both name the object.
        """
        results = [b""] * len(ranges)
        of_object: dict[tuple[bytes, Identity], list[int]] = {}
        for number, wanted in enumerate(ranges):
            of_object.setdefault(wanted[:2], []).append(number)
        asked: list[tuple[ByteRange, list[int]]] = []
        for (name, identity), numbers in of_object.items():
            for block in coalesce([ranges[number][2:] for number in numbers]):
                whole = ByteRange(name, identity, block.offset, block.length)
                asked.append((whole, [numbers[k] for k in block.numbers]))

        def ask(item: tuple[ByteRange, list[int]]) -> memoryview:
            try:
                return self._fetched(item[0])
            except DicomTorchError as error:
                raise type(error)(f"{printable(item[0].name)}: {error}") from error

        for (whole, numbers), data in zip(asked, self._at_once(ask, asked), strict=True):
            for number in numbers:
                start = ranges[number].offset - whole.offset
                results[number] = bytes(data[start : start + ranges[number].length])
        return results

    def _at_once(self, ask: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
        """What `ask` gives for each, in order; no more at once than the settings say."""
        waiting = iter(items)

        def begin(most: int) -> list[Future[Any]]:
            some = itertools.islice(waiting, most)
            return [request_pool().submit(ask, item) for item in some]

        running = uninterrupted(partial(begin, self.settings.io_threads))
        running.reverse()
        while running:
            result = running.pop().result()
            running[:0] = uninterrupted(partial(begin, 1))
            yield result

    def take_many(self, ranges: Sequence[ByteRange]) -> list[memoryview | Exception]:
        """Several ranges with their lengths, asked for together, or what is wrong with each."""
        return self._ahead.take_many(ranges)

    def will_need(self, ranges: Sequence[ByteRange], *, is_known: bool = False) -> None:
        """Begins to ask for ranges that are read soon, as far as the budget goes.

        Args:
            ranges: Each as often as it is read.
            is_known: These reads may have been told before.
        """
        self._ahead.ask(list(map(_with_length, ranges)), is_known=is_known)

    def need(self, ranges: Sequence[ByteRange]) -> None:
        """Asks for ranges that are read right away."""
        self._ahead.ask(list(map(_with_length, ranges)), now=True)

    def _fetched(self, wanted: ByteRange) -> memoryview:
        """All bytes of a range."""
        data, _ = self._get(wanted)
        if len(data) < wanted.length:
            raise StaleIndexError(
                f"the object ends {wanted.length - len(data)} bytes before byte {wanted.offset + wanted.length}, to "
                f"which it reached when it was indexed; {REFRESH}"
            )
        return data if type(data) is memoryview else memoryview(data)

    def _get(self, wanted: ByteRange) -> Answer:
        name, identity, offset, length = wanted
        client = self._client or self.client
        try:
            answer = client.get(name, offset, length, identity)
        except BaseException:
            self._tally.add(1, 0)
            raise
        self._tally.add(1, len(answer.data))
        return answer

    def __getstate__(self) -> dict[str, Any]:
        names = ("base", "settings", "_make", "queries")
        return {name: self.__dict__[name] for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._renew()


def _with_length(wanted: ByteRange) -> ByteRange:
    """A hint with its length: 0 stands for all that follows."""
    return wanted if wanted.length else wanted._replace(length=wanted.identity.size - wanted.offset)


def named(error: StorageError, name: bytes) -> StorageError:
    """The error, its message naming the object."""
    return type(error)(f"{printable(name)}: {error}")
