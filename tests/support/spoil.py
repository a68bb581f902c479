"""What may become of a file between a scan and a read."""

from __future__ import annotations

import os
from pathlib import Path


def truncate(path: Path) -> None:
    """Cuts off the end."""
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 100)


def touch(path: Path) -> None:
    """Gives it another time."""
    os.utime(path, ns=(1, 1))


def remove(path: Path) -> None:
    """Removes it."""
    path.unlink()


def replace_by_folder(path: Path) -> None:
    """Puts a folder in its place."""
    path.unlink()
    path.mkdir()


def replace(path: Path) -> None:
    """Puts a copy of equal time in its place."""
    info, data = path.stat(), path.read_bytes()
    other = path.with_suffix(".other")
    other.write_bytes(data)
    os.utime(other, ns=(info.st_atime_ns, info.st_mtime_ns))
    other.replace(path)


def replace_by_fifo(path: Path) -> None:
    """Puts a FIFO in its place."""
    path.unlink()
    os.mkfifo(path)
