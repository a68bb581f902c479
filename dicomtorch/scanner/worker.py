"""Reads headers in a process of its own: `python -m dicomtorch.scanner.worker`, started and fed by `pool`.

Nothing of the program that scans is imported here, so that a script needs no guard. The process ends when its standard
input does, so that it outlives nobody.
"""

from __future__ import annotations

import os
import pickle
import signal
import struct
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import IO, Any

from dicomtorch.index.builder import FileRows, Part, PartBuilder, build_part
from dicomtorch.index.generation import frame_columns
from dicomtorch.model.limits import Limits
from dicomtorch.model.schema import Column
from dicomtorch.scanner.entries import UNREAD, Entry, fault_of
from dicomtorch.scanner.file import DIRECTORY_RECORDS, read_file
from dicomtorch.scanner.mask_objects import MASK_TAGS
from dicomtorch.scanner.resolve.resolver import Resolver, Tag
from dicomtorch.storage.files import reason_of

_LENGTH = struct.Struct("<Q")
_GREETING = b"dicomtorch scan worker\n"


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
            return FileRows(entry.path, size, entry.mtime_ns, inode, entry.file_class, entry.reason)
        try:
            path = self._job.below + entry.path
            return read_file(path, entry.path, self._resolver, self._job.limits)
        except MemoryError:
            raise
        except OSError as error:
            reason = reason_of(error)
        except Exception as error:
            self._resolver = self._new_resolver()  # what this one remembers may be half done
            reason = fault_of(error)
        return FileRows(entry.path, size, UNREAD, inode, "unreadable", reason)

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
            rows = FileRows(entry.path, rows.size, UNREAD, rows.inode, "unreadable", reason)
        return rows


def send(pipe: IO[bytes], message: Any) -> None:
    """Writes a message."""
    data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    pipe.write(_LENGTH.pack(len(data)))
    pipe.write(data)
    pipe.flush()


def receive(pipe: IO[bytes]) -> Any:
    """The next message.

    Raises:
        EOFError: The other side is gone.
    """
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    (length,) = _LENGTH.unpack(head)
    data = pipe.read(length)
    if len(data) < length:
        raise EOFError
    return pickle.loads(data)


def greeted(pipe: IO[bytes]) -> None:
    """Passes over whatever the interpreter of a child printed before `main`, as a `sitecustomize` may.

    Raises:
        EOFError: The other side is gone.
    """
    for line in pipe:
        if line.endswith(_GREETING):
            return
    raise EOFError


def main() -> None:
    """Answers each list of entries with the part that they make, until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides, and closes the pipe
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints must not get into the answers
    try:
        answers.write(_GREETING)
        job: Job = receive(requests)
        reader = EntryReader(job)
        send(answers, "ready")
        while True:
            send(answers, reader.part(receive(requests)))
    except (EOFError, BrokenPipeError):
        pass
    os._exit(0)  # nothing to tidy up, and nothing to flush into a pipe that nobody reads


if __name__ == "__main__":
    main()
