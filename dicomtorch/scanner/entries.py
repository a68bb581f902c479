"""One path that a scan looks at, with the size and time that it had."""

from __future__ import annotations

import os
import pickle
import traceback
from collections.abc import Callable
from dataclasses import dataclass, fields
from itertools import starmap
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


class Entries(list[Entry]):
    """Entries that an engine moves to its workers as one string of bytes.

    Pickled one by one they take four times as long, and some engines look at each object of a call besides.
    """

    def __reduce__(self) -> tuple[Callable[[bytes], Entries], tuple[bytes]]:
        columns = tuple(zip(*map(_fields_of, self), strict=True))
        return _entries_from, (pickle.dumps(columns, pickle.HIGHEST_PROTOCOL),)


def _entries_from(data: bytes) -> Entries:
    return Entries(starmap(Entry, zip(*pickle.loads(data), strict=True)))


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
