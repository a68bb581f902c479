"""Opening files, and reading ranges of them."""

from __future__ import annotations

import os
import stat
from typing import Final

from dicomtorch.dicom.walk import Read

_OPEN = os.O_RDONLY
_KINDS: Final = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a symbolic link",
}


def kind_of(mode: int) -> str:
    """What a file that is no regular one is."""
    return _KINDS.get(stat.S_IFMT(mode), "no regular file")


def open_regular(path: bytes) -> int:
    """Opens a file for reading without waiting for anybody: opening a FIFO would wait for a writer."""
    return os.open(path, _OPEN)


def reader_of(descriptor: int) -> Read:
    """Positioned reads; fewer bytes only at the end of the file."""

    def read(offset: int, length: int) -> bytes:
        data = _pread(descriptor, length, offset)
        if len(data) == length or not data:
            return data
        parts = [data]
        while data and length > len(data):
            offset, length = offset + len(data), length - len(data)
            data = _pread(descriptor, length, offset)
            parts.append(data)
        return b"".join(parts)

    return read


if hasattr(os, "pread"):
    _pread = os.pread
else:

    def _pread(descriptor: int, length: int, offset: int, /) -> bytes:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.read(descriptor, length)


def int64(number: int) -> int:
    """A time or an inode of the system as a column holds it: what is beyond 64 bits is left out.

    Some file systems make inodes of hashes, and some have times after 2262.
    """
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)
