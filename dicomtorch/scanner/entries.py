"""One path that a scan looks at, with the size and time that it had."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import Final

from dicomtorch.model.report import FileClass
from dicomtorch.storage.files import int64

UNREAD: Final = -1
"""Modification time of what could not be opened, so that the next scan tries again."""


@dataclass(slots=True)
class Entry:
    """What the walk met: a regular file, or something to report as it is (`reason`)."""

    path: bytes
    size: int
    mtime_ns: int
    inode: int
    file_class: FileClass = "image"
    reason: str = ""


def _stat_entry(path: bytes, absolute: bytes) -> Entry:
    try:
        info = os.stat(absolute)
    except OSError as error:
        return failed(path, error)
    return _entry(path, info, info.st_size)


def _entry(path: bytes, info: os.stat_result, size: int) -> Entry:
    return Entry(path, size, int64(info.st_mtime_ns), int64(info.st_ino))


def failed(path: bytes, error: OSError) -> Entry:
    """An entry for what the system did not let us look at."""
    return Entry(path, 0, UNREAD, 0, "unreadable", reason_of(error))


def reason_of(error: OSError) -> str:
    """An error of the system as one line, without the path."""
    name = errno.errorcode.get(error.errno or 0, "OSError")
    return f"{error.strerror or 'the system gave no reason'} ({name})"
