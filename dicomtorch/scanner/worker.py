"""What a worker of a scan does, wherever it is: entries in, rows out."""

from __future__ import annotations

import platform
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from dicomtorch.index.builder import FileRows, Part, PartBuilder, build_part
from dicomtorch.index.generation import frame_columns
from dicomtorch.index.members import object_path
from dicomtorch.index.part_bytes import part_to_bytes
from dicomtorch.model.limits import Limits
from dicomtorch.model.schema import Column
from dicomtorch.scanner.entries import UNREAD, Entry, fault_of
from dicomtorch.scanner.file import DIRECTORY_RECORDS, read_file
from dicomtorch.scanner.mask_objects import MASK_TAGS
from dicomtorch.scanner.members import read_member
from dicomtorch.scanner.resolve.resolver import Resolver, Tag
from dicomtorch.storage.files import reason_of

_memory = threading.local()


@dataclass(frozen=True, slots=True)
class Job:
    """What a scan reads of each file.

    Attributes:
        below: What paths are below, with a separator at its end.
        tags: Further columns by keyword.
        limits: What a header may cost.
    """

    below: bytes
    tags: Mapping[str, Tag]
    limits: Limits

    @property
    def columns(self) -> tuple[Column, ...]:
        """Of the frames table."""
        return frame_columns({keyword: tag.kind for keyword, tag in self.tags.items()})


def _nothing() -> None:
    pass


class EntryReader:
    """Reads files one by one and remembers what they have in common."""

    def __init__(self, job: Job) -> None:
        self._job = job
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
        size, inode = entry.size, entry.inode
        if entry.reason:
            known = (entry.path, size, entry.mtime_ns, inode, entry.file_class, entry.reason)
            return FileRows(*known, member=entry.member)
        try:
            path = self._job.below + entry.path
            if entry.member.container:
                archive = object_path(path, entry.member.name)
                return read_member(archive, entry, self._resolver, self._job.limits)
            return read_file(path, entry.path, self._resolver, self._job.limits)
        except MemoryError:
            raise
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
        try:
            for entry in waiting:
                met.append(entry)
                builder.add(self.read(entry))
                after_each()
            return builder.finish()
        except MemoryError:
            raise
        except Exception:  # a value that fits into no column: find whose it is
            return build_part(map(self._read_alone, [*met, *waiting]), self._job.columns)

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


def scan_chunk(token: str, number: int, job: Job, entries: Sequence[Entry]) -> bytes:
    """What there is to know about several files, for any executor to call: the same for the same files.

    Args:
        token: Names the scan. What files have in common is remembered by each thread for one scan.
        number: Another one for each call, so that no engine takes the answer of an earlier call for that of this one.
        job: What to read of each file.
        entries: The files.

    Returns:
        As `index.part_bytes` has it, with the name of this machine.
    """
    if getattr(_memory, "token", None) != token:
        _memory.token, _memory.reader = token, EntryReader(job)
    reader: EntryReader = _memory.reader
    return part_to_bytes(reader.part(entries), job.columns, {"host": platform.node()})
