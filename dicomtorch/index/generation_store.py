"""Folders with the stored generations of one source: one is the current one, older ones go when nobody has them open.

`current` names it. What a process that was killed left half written is removed by the next one that writes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
import uuid as uuids
from collections.abc import Sequence
from pathlib import Path

import platformdirs

from dicomtorch.errors import IndexFileError, printable, without_path
from dicomtorch.index import files as index_file
from dicomtorch.index import in_use
from dicomtorch.index.drafts import SUFFIX, whole_file
from dicomtorch.index.generation import Generation
from dicomtorch.index.locks import FileLock
from dicomtorch.index.opened import open_generation
from dicomtorch.index.private import is_local, make_private_folder

PARTIAL = "partial"
"""The folder of a scan that did not come to its end."""

_UNUSED_DAYS = 7.0
_MOST_KEPT = 3  # generations beside the current one, if nobody has them open
_MOST_TIMES = 3  # bytes of these, as a multiple of the current one's
_JUST_USED = 600.0  # seconds: a process that is being started may be on its way to it


class GenerationStore:
    """The stored generations of one source.

    Args:
        sources: What names it: absolute real paths, addresses.
        cache_dir: Where to keep them; `None`: the user's cache folder.
    """

    def __init__(
        self, sources: Sequence[bytes], cache_dir: str | os.PathLike[str] | None = None
    ) -> None:
        given = default_cache_dir() if cache_dir is None else Path(cache_dir).expanduser()
        base = given.absolute()  # worker processes may be in another folder
        key = hashlib.sha256(b"\0".join(sources)).hexdigest()[:32]
        self.folder = base / "indexes" / key

    def current(self, wanted: str | None = None) -> Generation | None:
        """The current one, or `None` if there is none that is whole and of this version.

        Args:
            wanted: Its uuid, if another one is as good as none.

        Raises:
            IndexFileError: There is one, but it is damaged or of another version.
        """
        for attempt in range(2):
            current = self._current()
            if current is None or wanted not in (None, current):
                return None
            try:
                return self._open(current)
            except IndexFileError:
                # Another process may have replaced the generation and removed the old one.
                if attempt or self._current() == current:
                    raise
        return None

    def keep(self, generation: Generation) -> Generation:
        """Stores a generation, makes it the current one, and returns it as opened from there.

        For the process that holds the lock.

        Raises:
            OSError: It could not be written; the current one stays.
        """
        folder = self.folder / generation.uuid
        self._remove_drafts()
        if not index_file.is_index(folder):
            shutil.rmtree(
                folder, ignore_errors=True
            )  # left by a process that was killed while it removed one
        index_file.write(generation, folder, replace=folder.exists())
        try:
            self._set_current(generation.uuid)
        except BaseException:
            if self._current() != generation.uuid:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        self._remove_unused(keep=generation.uuid)
        return self._open(generation.uuid)

    def lock(self) -> FileLock:
        """Held by the one process that writes.

        Raises:
            OSError: The folder cannot be made.
        """
        make_private_folder(self.folder)
        return FileLock(self.folder / "lock")

    def _open(self, uuid: str) -> Generation:
        folder = self.folder / uuid
        return open_generation(folder, uuid, mapped=is_local(folder))

    def _current(self) -> str | None:
        try:
            return str(uuids.UUID((self.folder / "current").read_text("ascii").strip()))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            raise IndexFileError(
                f"{printable(self.folder / 'current')} is damaged ({type(error).__name__}); scan again to rebuild it"
            ) from without_path(error)

    def _set_current(self, uuid: str) -> None:
        with whole_file(self.folder / "current") as file:
            file.write(uuid.encode())

    def _entries(self) -> list[os.DirEntry[str]]:
        with os.scandir(self.folder) as entries:
            return list(entries)

    def _remove_drafts(self) -> None:
        """What processes left that were killed while they wrote."""
        for entry in self._entries():
            if entry.name.endswith(SUFFIX):
                with contextlib.suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        shutil.rmtree(entry.path)
                    else:
                        os.unlink(entry.path)

    def _remove_unused(self, keep: str) -> None:
        """Removes generations that no process has open: old ones, and all but a few, the latest, of bounded size.

        A pickled index that waits for its process opens the generation that it was made from, or says that it is gone.
        """
        now = time.time()
        others = []
        for entry in self._entries():
            if entry.is_dir(follow_symlinks=False) and entry.name not in (keep, PARTIAL):
                with contextlib.suppress(OSError):
                    others.append((_last_use(Path(entry.path)), Path(entry.path)))
        most, taken = _MOST_TIMES * _size(self.folder / keep), 0
        for k, (used, folder) in enumerate(sorted(others, reverse=True)):
            with contextlib.suppress(OSError):
                taken += _size(folder)
                is_old = now - used > _UNUSED_DAYS * 86_400
                is_too_much = k >= _MOST_KEPT or taken > most
                if is_old or (is_too_much and now - used > _JUST_USED):
                    with in_use.nobody(folder / index_file.MANIFEST) as unused:
                        if unused or (unused is None and is_old):
                            shutil.rmtree(folder, ignore_errors=True)


def _last_use(folder: Path) -> float:
    manifest = folder / index_file.MANIFEST
    return (manifest if manifest.exists() else folder).stat().st_mtime


def _size(folder: Path) -> int:
    with os.scandir(folder) as entries:
        return sum(entry.stat(follow_symlinks=False).st_size for entry in entries)


def default_cache_dir() -> Path:
    """The user's cache folder for this package."""
    return Path(platformdirs.user_cache_dir("dicomtorch", appauthor=False))
