"""Opening files, and what the system says of them."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from functools import lru_cache
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
_UNSTABLE: Final = frozenset(
    ("cifs", "smb3", "smbfs", "9p", "vboxsf", "vfat", "msdos", "exfat", "ntfs", "ntfs3")
)
"""File systems that number files as they meet them."""
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
    inode = int64(info.st_ino) if has_stable_inodes(info.st_dev) else 0
    return Identity(info.st_size, int64(info.st_mtime_ns), inode)


@lru_cache(maxsize=64)
def has_stable_inodes(device: int) -> bool:
    """Whether the files of a device have the same inodes after it was mounted anew, as far as the system says."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
            return mount_is_stable(mounts, f"{os.major(device)}:{os.minor(device)}")
    except (OSError, AttributeError):  # no Linux
        return True


def mount_is_stable(mounts: Iterable[str], device: str) -> bool:
    """Whether the mount of `device` gives stable inodes, from the lines of `/proc/self/mountinfo`."""
    for line in mounts:
        fields, _, tail = line.partition(" - ")
        if fields.split()[2:3] == [device]:
            kind = tail.split()[0]
            return kind not in _UNSTABLE and not kind.startswith("fuse")
    return True


def int64(number: int) -> int:
    """A time or an inode of the system as a column holds it: what is beyond 64 bits is left out.

    Some file systems make inodes of hashes, and some have times after 2262.
    """
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


def reason_of(error: OSError) -> str:
    """An error of the system as one line, without the path."""
    name = errno.errorcode.get(error.errno or 0, "OSError")
    return f"{error.strerror or 'the system gave no reason'} ({name})"
