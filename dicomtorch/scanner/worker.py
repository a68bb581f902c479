"""What a worker of a scan does, wherever it is: entries in, rows out."""

from __future__ import annotations

import copy
import platform
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace

from dicomtorch.errors import StaleIndexError, StorageError
from dicomtorch.index.builder import FileRows, Part, PartBuilder, build_part
from dicomtorch.index.generation import frame_columns
from dicomtorch.index.members import object_path
from dicomtorch.index.part_bytes import part_to_bytes
from dicomtorch.model.limits import Limits
from dicomtorch.model.schema import Column
from dicomtorch.scanner.entries import UNREAD, Entry, fault_of
from dicomtorch.scanner.file import DIRECTORY_RECORDS, read_file, read_object
from dicomtorch.scanner.mask_objects import MASK_TAGS
from dicomtorch.scanner.members import read_member, read_remote_member
from dicomtorch.scanner.objects import Begun, MoreNeeded, begin, begun, start_of
from dicomtorch.scanner.resolve.resolver import Resolver, Tag
from dicomtorch.storage.ahead import request_pool
from dicomtorch.storage.client import Answer
from dicomtorch.storage.files import reason_of
from dicomtorch.storage.remote import RemoteStorage

_MOST_SLOW = 256  # objects that wait for one before them to be read
_memory = threading.local()


@dataclass(frozen=True, slots=True)
class Job:
    """What a scan reads of each file.

    Attributes:
        below: What paths are below, with a separator at its end.
        tags: Further columns by keyword.
        limits: What a header may cost.
        storage: What remote objects are read from; `None` for files of this machine.
    """

    below: bytes
    tags: Mapping[str, Tag]
    limits: Limits
    storage: RemoteStorage | None = None

    @property
    def columns(self) -> tuple[Column, ...]:
        """Of the frames table."""
        return frame_columns({keyword: tag.kind for keyword, tag in self.tags.items()})


def _nothing() -> None:
    pass


class EntryReader:
    """Reads files one by one and remembers what they have in common.

    Attributes:
        storage: What remote objects are read from; `None` for files of this machine.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self.storage = job.storage
        self._resolver = self._new_resolver()

    def _new_resolver(self) -> Resolver:
        return Resolver(
            tags=self._job.tags,
            extra={DIRECTORY_RECORDS} | MASK_TAGS,
            limits=self._job.limits,
        )

    def read(self, entry: Entry) -> FileRows:
        """What there is to know about a file; whatever is wrong with it is in the result.

        An exception that nobody raises on purpose is a fault of this package, and ends the reading of this file only.
        The next scan tries it again.

        Raises:
            MemoryError: There is no memory left, which is no fault of the file.
        """
        return self._read(entry, None)

    def _read(self, entry: Entry, first: Future[Answer] | None, *, waits: bool = True) -> FileRows:
        """The same; `first` are the first bytes of a remote object, and more is asked for if it `waits`."""
        size, inode = entry.size, entry.inode
        if entry.reason:
            known = (entry.path, size, entry.mtime_ns, inode, entry.file_class, entry.reason)
            return FileRows(*known, version=entry.version, member=entry.member)
        try:
            path, storage = self._job.below + entry.path, self._job.storage
            if storage is not None:
                answer = begin(storage, path, entry) if first is None else first.result()
                if entry.member.container:
                    archive = object_path(path, entry.member.name)
                    part = Begun(storage, archive, answer, waits, start_of(entry))
                    return read_remote_member(part, entry, self._resolver, self._job.limits)
                object = Begun(storage, path, answer, waits)
                return read_object(object, entry.path, self._resolver, self._job.limits)
            if entry.member.container:
                archive = object_path(path, entry.member.name)
                return read_member(archive, entry, self._resolver, self._job.limits)
            return read_file(path, entry.path, self._resolver, self._job.limits)
        except MemoryError:
            raise
        except (StorageError, StaleIndexError) as error:
            reason = str(error)
        except OSError as error:
            reason = reason_of(error)
        except Exception as error:
            self._resolver = self._new_resolver()  # what this one remembers may be half done
            reason = fault_of(error)
        return FileRows(entry.path, size, UNREAD, inode, "unreadable", reason, member=entry.member)

    def part(self, entries: Iterable[Entry], after_each: Callable[[], object] = _nothing) -> Part:
        """What there is to know about several files.

        Args:
            entries: The files.
            after_each: Called when a file was read.
        """
        builder = PartBuilder(self._job.columns)
        waiting, met = iter(entries), []
        unlisted: list[BaseException] = []

        def noted() -> Iterator[Entry]:
            try:
                for entry in waiting:
                    met.append(entry)
                    yield entry
            except Exception as error:
                unlisted.append(error)
                raise

        read = map(self.read, noted()) if self._job.storage is None else self._objects(noted())
        try:
            for rows in read:
                builder.add(rows)
                after_each()
            return builder.finish()
        except MemoryError:
            raise
        except Exception:  # a value that fits into no column: find whose it is
            if unlisted:  # there are others that nobody has met
                raise
            return build_part(map(self._read_alone, [*met, *waiting]), self._job.columns)

    def _objects(self, entries: Iterable[Entry]) -> Iterator[FileRows]:
        """Remote objects in their order; those that need more than their first bytes are read beside the others."""
        storage = self._job.storage
        assert storage is not None
        waiting: deque[FileRows | Future[FileRows]] = deque()
        for entry, first in begun(storage, self._job.below, entries):
            try:
                waiting.append(self._read(entry, first, waits=False))
            except MoreNeeded:
                waiting.append(request_pool().submit(self._read_slowly, entry, first))
            while waiting and (len(waiting) > _MOST_SLOW or _is_there(waiting[0])):
                yield _there(waiting.popleft())
        yield from map(_there, waiting)

    def _read_slowly(self, entry: Entry, first: Future[Answer] | None) -> FileRows:
        """A remote object of which more is asked for, in a thread of its own."""
        return EntryReader(self._job)._read(entry, first)

    def _read_alone(self, entry: Entry) -> FileRows:
        """What there is to know about a file, whose rows fit into their columns."""
        rows = self.read(entry)
        try:
            build_part([rows], self._job.columns)
        except MemoryError:
            raise
        except Exception as error:
            reason = fault_of(error)
            rows = FileRows(
                entry.path, rows.size, UNREAD, rows.inode, "unreadable", reason, member=entry.member
            )
        return rows


def _is_there(rows: FileRows | Future[FileRows]) -> bool:
    return not isinstance(rows, Future) or rows.done()


def _there(rows: FileRows | Future[FileRows]) -> FileRows:
    return rows.result() if isinstance(rows, Future) else rows


def scan_chunk(token: str, number: int, job: Job, entries: Sequence[Entry]) -> bytes:
    """What there is to know about several files, for any executor to call: the same for the same files.

    Args:
        token: Names the scan. What files have in common is remembered by each thread for one scan.
        number: Another one for each call, so that no engine takes the answer of an earlier call for that of this one.
        job: What to read of each file.
        entries: The files.

    Returns:
        As `index.part_bytes` has it, with the name of this machine and how long it took.
    """
    if getattr(_memory, "token", None) != token:
        # Threads of one process get the same storage: with one of its own each counts what it asked for itself.
        own = replace(job, storage=copy.copy(job.storage))
        _memory.token, _memory.reader = token, EntryReader(own)
    reader: EntryReader = _memory.reader
    storage = reader.storage
    before = (0, 0) if storage is None else (storage.requests, storage.bytes_read)
    began = time.monotonic()
    part = reader.part(entries)
    said = {"host": platform.node(), "seconds": f"{time.monotonic() - began:.6f}"}
    if storage is not None:
        said["requests"] = str(storage.requests - before[0])
        said["bytes"] = str(storage.bytes_read - before[1])
    return part_to_bytes(part, said)
