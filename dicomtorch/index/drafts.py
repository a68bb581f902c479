"""Files and folders that appear whole or not at all: written under another name, then renamed.

Only their owner may read them, because an index holds identifiers. What a killed process leaves behind ends in `.tmp`.
"""

from __future__ import annotations

import contextlib
import ctypes
import glob
import os
import shutil
import sys
import time
import uuid as uuids
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from dicomtorch.errors import paths_kept_out
from dicomtorch.index.private import make_private_folder, open_private

SUFFIX = ".tmp"
"""Of drafts."""


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which takes the place of `path` at the end; after an error what was there stays.

    Raises:
        OSError: It could not be written.
    """
    draft = _draft_of(path)
    with paths_kept_out():
        try:
            with open_new(draft) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, path)
            sync_folder(path.parent)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def whole_folder(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """A folder to write files to, which becomes `path` at the end; after an error what was there stays.

    Args:
        path: Of the folder.
        replace: Whether there may be one, which goes.

    Raises:
        OSError: It could not be written, or there is one.
    """
    _remove_forgotten(path)
    draft = _draft_of(path)
    with paths_kept_out():
        make_private_folder(draft)
        try:
            yield draft
            sync_folder(draft)
            if replace and path.exists():
                _put_in_place_of(draft, path)
            else:
                os.rename(draft, path)
            sync_folder(path.parent)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise


def _put_in_place_of(draft: Path, path: Path) -> None:
    """Renames a folder to the name of another one, which goes: at one stroke where the system can exchange names."""
    if _exchanged(draft, path):
        shutil.rmtree(draft, ignore_errors=True)
        return
    old = draft.with_name(f"{draft.name}.old{SUFFIX}")
    os.rename(path, old)
    try:
        os.rename(draft, path)
    except BaseException:
        os.rename(old, path)
        raise
    shutil.rmtree(old, ignore_errors=True)


_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


def _exchanged(one: Path, other: Path) -> bool:
    """Whether two names were exchanged, as Linux can on most file systems."""
    if sys.platform != "linux":
        return False
    try:
        exchange = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):  # an old libc
        return False
    names = (os.fsencode(one), os.fsencode(other))
    done: int = exchange(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE)
    return done == 0


def write_durably(path: Path, data: bytes) -> None:
    """Writes a new file, and waits until it is on the disk."""
    with new_durable(path) as file:
        file.write(data)


@contextlib.contextmanager
def new_durable(path: Path) -> Iterator[BinaryIO]:
    """A new file to write to; at the end it waits until all is on the disk."""
    with open_new(path) as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def open_new(path: Path) -> BinaryIO:
    """A new file that only its owner may read."""
    return open(open_private(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb")


def sync_folder(folder: Path) -> None:
    """Waits until the names in a folder are on the disk."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_FORGOTTEN_SECONDS = (
    3600.0  # a draft this old belongs to a process that was killed, or could not remove it
)


def _remove_forgotten(path: Path) -> None:
    """Removes old drafts of a folder; they hold identifiers, too."""
    oldest = time.time() - _FORGOTTEN_SECONDS
    with contextlib.suppress(OSError):
        for draft in path.parent.glob(f".{glob.escape(path.name)}.*{SUFFIX}"):
            if draft.stat().st_mtime < oldest:
                shutil.rmtree(draft, ignore_errors=True)


def _draft_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuids.uuid4().hex}{SUFFIX}")
