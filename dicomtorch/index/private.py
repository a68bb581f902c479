"""Folders and files that only their owner may read, whatever the umask says."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

_SAFELY: Final = (
    getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
)


def make_private_folder(folder: Path) -> None:
    """Makes a folder and the parents that it lacks, each 0700; those that are there are left as they are.

    Raises:
        OSError: One cannot be made.
    """
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        if not folder.is_dir():
            raise
        return
    except FileNotFoundError:
        if folder.parent == folder:
            raise
        make_private_folder(folder.parent)
        make_private_folder(folder)
        return
    os.chmod(folder, 0o700)  # the umask may have taken rights of the owner


def open_private(path: str | os.PathLike[str], flags: int) -> int:
    """Opens a file; one that is made is 0600, one that is there is left as it is. Symbolic links are not followed.

    Raises:
        OSError: It cannot be opened; with `os.O_EXCL` also if it is there.
    """
    if flags & os.O_CREAT and not flags & os.O_EXCL:
        try:
            return os.open(path, (flags & ~os.O_CREAT) | _SAFELY)
        except FileNotFoundError:
            pass
    descriptor = os.open(path, flags | _SAFELY, 0o600)
    if flags & os.O_EXCL and hasattr(os, "fchmod"):
        os.fchmod(descriptor, 0o600)
    return descriptor


def is_ours(info: os.stat_result) -> bool:
    """Whether a file or folder belongs to this user or to root; true where there are no owners."""
    return not hasattr(os, "geteuid") or info.st_uid in (os.geteuid(), 0)


_REMOTE = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "lustre", "gpfs", "ceph", "afs"})


def is_local(path: Path) -> bool:
    """Whether `path` is surely on a local file system, where a file in our own folder may be mapped."""
    if sys.platform != "linux":
        return sys.platform == "darwin"
    try:
        device = os.stat(path).st_dev
        wanted = f"{os.major(device)}:{os.minor(device)}"
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
            for line in mounts:
                fields, _, tail = line.partition(" - ")
                if fields.split()[2] == wanted:
                    kind = tail.split()[0]
                    return kind not in _REMOTE and not kind.startswith("fuse")
    except OSError:
        return False
    return False
