"""Opening files, and what the system says of them."""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

from dicomtorch.storage.base import Identity

_KINDS: Final = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a symbolic link",
}
_FLAGS = os.O_RDONLY
for _flag in ("O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY", "O_BINARY"):
    _FLAGS |= getattr(os, _flag, 0)


def kind_of(mode: int) -> str:
    """What a file that is no regular one is."""
    return _KINDS.get(stat.S_IFMT(mode), "no regular file")


def open_at_once(path: bytes) -> int:
    """Opens a file for reading without waiting for anybody: opening a FIFO would wait for a writer."""
    return os.open(path, _FLAGS)


def identity_of(info: os.stat_result) -> Identity:
    """The identity of a file, from what the system says of it."""
    return Identity(info.st_size, int64(info.st_mtime_ns), int64(info.st_ino))


def int64(number: int) -> int:
    """A time or an inode of the system as a column holds it: what is beyond 64 bits is left out.

    Some file systems make inodes of hashes, and some have times after 2262.
    """
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


def reason_of(error: OSError) -> str:
    """An error of the system as one line, without the path."""
    name = errno.errorcode.get(error.errno or 0, "OSError")
    return f"{error.strerror or 'the system gave no reason'} ({name})"
