"""One path that a scan looks at, with the size and time that it had."""

from __future__ import annotations

import os
import pickle
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import repeat, starmap
from operator import attrgetter
from typing import Any, Final

from dicomtorch.index.builder import NO_MEMBER, Member
from dicomtorch.index.members import member_of
from dicomtorch.model.report import FILE_CLASSES, FileClass
from dicomtorch.storage.base import Identity
from dicomtorch.storage.files import identity_of, reason_of

UNREAD: Final = -1
"""Modification time of what could not be opened, so that the next scan tries again."""


@dataclass(slots=True)
class Entry:
    """What the walk met: a regular file, or something to report as it is (`reason`).

    Attributes:
        path: Below the root.
        size: Bytes.
        mtime_ns: Time of the last change.
        inode: 0 if not known.
        file_class: What to report it as.
        reason: Why it is not read.
        is_unlisted: It is a folder whose files are there, as far as is known, and could not be listed just now.
        version: As in `Identity`.
        member: Where in an archive it is.
        header: Of a member of a zip, where its local header is; -1: `member` says where its bytes begin.
    """

    path: bytes
    size: int
    mtime_ns: int
    inode: int
    file_class: FileClass = "image"
    reason: str = ""
    is_unlisted: bool = False
    version: str = ""
    member: Member = NO_MEMBER
    header: int = -1

    @property
    def identity(self) -> Identity:
        """What it was when it was met; of a member, the archive."""
        return Identity(self.size, self.mtime_ns, self.inode, self.version)


_fields_of: Final = attrgetter(*(field.name for field in fields(Entry)))


class Entries(Sequence[Entry]):
    """Entries that an engine moves to its workers as one string of bytes; objects are made of it where they are read.

    Pickled one by one they take four times as long. Some engines look at each object of a call besides, and some
    unpickle and pickle calls on their way.

    Args:
        entries: The entries; of what came from elsewhere `packed`.
    """

    def __init__(self, entries: Sequence[Entry] | None, packed: bytes = b"") -> None:
        self._entries = entries
        self._packed = packed

    def _all(self) -> Sequence[Entry]:
        if self._entries is None:
            self._entries = list(_unpacked(self._packed))
        return self._entries

    def __len__(self) -> int:
        return len(self._all())

    def __getitem__(self, i: Any) -> Any:
        return self._all()[i]

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._all())

    def __reduce__(self) -> tuple[type[Entries], tuple[None, bytes]]:
        if not self._packed:
            self._packed = _packed(self._all())
        return Entries, (None, self._packed)


def _packed(entries: Sequence[Entry]) -> bytes:
    """Columns; of one with the same value throughout that value, as nearly all are."""
    columns = list(zip(*map(_fields_of, entries), strict=True))
    sent = [column[:1] if column.count(column[0]) == len(column) else column for column in columns]
    return pickle.dumps((len(entries), sent), pickle.HIGHEST_PROTOCOL)


def _unpacked(data: bytes) -> Iterator[Entry]:
    count, sent = pickle.loads(data)
    columns = [repeat(column[0], count) if len(column) < count else column for column in sent]
    return starmap(Entry, zip(*columns, strict=True))


def entry_of_row(files: Any, row: int) -> Entry:
    """What a scan met once, from its row of the files table."""
    size, mtime_ns, inode, version = Identity.of_row(files, row)
    file_class: Any = FILE_CLASSES[int(files["file_class"][row])]
    reason = "" if file_class == "image" else files["reason"][row]
    known = (files["path"][row], size, mtime_ns, inode, file_class, reason)
    return Entry(*known, version=version, member=member_of(files, row))


def _stat_entry(path: bytes, absolute: bytes) -> Entry:
    try:
        info = os.stat(absolute)
    except OSError as error:
        return failed(path, error)
    return _entry(path, info, info.st_size)


def _entry(path: bytes, info: os.stat_result, size: int) -> Entry:
    _, mtime_ns, inode, _ = identity_of(info)
    return Entry(path, size, mtime_ns, inode)


def failed(path: bytes, error: OSError) -> Entry:
    """An entry for what the system did not let us look at."""
    return Entry(path, 0, UNREAD, 0, "unreadable", reason_of(error))


_FAULT: Final = "a fault of dicomtorch, please report it: "


def is_fault(reason: str) -> bool:
    """Whether a reason is one of `fault_of`."""
    return reason.startswith(_FAULT)


def fault_of(error: Exception) -> str:
    """What to say of an exception that should not be, without its text, which may have what is in the file."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{_FAULT}{type(error).__name__} at line {where.lineno} of {os.path.basename(where.filename)}"
