"""How much a cache of frames has taken, and what goes when it is full: in portions, so that no writer waits for them.

The totals are in files that change under a lock. Entries are listed and removed outside of it, by whoever wants to
write and finds no room, for some milliseconds at a time; meanwhile others write where there is room, or go on without.
A process that was killed may leave the total too high, never too low, and the next eviction counts again.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dicomtorch.index.locks import FileLock
from dicomtorch.index.private import open_private

_PORTION = 0.02  # seconds
_LEAST = 16  # entries of a portion, however long they take; of a slow disk many would keep a writer waiting
_KEPT = 0.9  # of what a cache may take: so that evicting, which lists all entries, is rare
_LOCK_SECONDS = 10.0


class Room:
    """The bytes that all entries of a cache take together.

    Args:
        folder: Of the cache.
        max_bytes: What entries may take.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder, self.max_bytes = folder, max_bytes
        self._plan: Iterator[int] | None = None
        self._is_full = False  # after an eviction that came to its end

    def lock(self) -> FileLock:
        """Held by whoever changes the totals."""
        return FileLock(self.folder / "lock", _LOCK_SECONDS)

    def take(self, wanted: int) -> bool:
        """Whether so many bytes fit; they count from now on. For who holds the lock."""
        used = self._read("used")
        if used is None:
            # A new cache: nobody's first frame has to wait for another thread that counts the entries.
            if next(self.folder.glob("[0-9a-f][0-9a-f]/*"), None) is not None:
                return False
            used = 0
        if used + wanted > self.max_bytes:
            return False
        self._write("used", used + wanted)
        return True

    def make(self, wanted: int, since: float) -> bool:
        """Removes a portion of what was not used for longest; `False` if nothing is left that may go.

        Args:
            wanted: Bytes that shall fit.
            since: Time; what was used later stays.
        """
        try:
            with FileLock(self.folder / "evicting", 0):
                plan, self._plan = self._plan or self._evictions(wanted, since), None
                return self._portion(plan)
        except TimeoutError:  # another thread or process is at it
            return True

    def _portion(self, plan: Iterator[int]) -> bool:
        end, freed = time.monotonic() + _PORTION, 0
        try:
            for done, removed in enumerate(plan, 1):
                freed += removed
                if done >= _LEAST and time.monotonic() >= end:
                    self._plan = plan
                    return True
        finally:
            if freed:
                with self.lock():
                    self._write("used", max((self._read("used") or 0) - freed, 0))
                    self._write("evicted", (self._read("evicted") or 0) + freed)
        return not self._is_full

    def _evictions(self, wanted: int, since: float) -> Iterator[int]:
        """Lists all entries, counts them, and removes the oldest; the bytes that each step has freed."""
        with self.lock():
            before, gone = self._read("used"), self._read("evicted") or 0
        times, sizes, paths = [], [], []
        for folder in self.folder.glob("[0-9a-f][0-9a-f]"):
            with contextlib.suppress(FileNotFoundError), os.scandir(folder) as listing:
                for entry in listing:
                    with contextlib.suppress(FileNotFoundError):
                        info = entry.stat(follow_symlinks=False)
                        times.append(info.st_mtime)
                        sizes.append(info.st_size)
                        paths.append(entry.path)
                    yield 0
        used = sum(sizes)
        with self.lock():
            # What came meanwhile: the total has grown by it, and shrunk by what others have removed.
            now, gone_now = self._read("used"), self._read("evicted") or 0
            came = 0
            if before is not None and now is not None:
                came = max(now - before + gone_now - gone, 0)
            used += came
            is_exact = not came  # it may have been listed, too
            self._write("used", used)
        yield 0
        goal = min(self.max_bytes - wanted, int(self.max_bytes * _KEPT))
        changed = np.array(times)
        if used + wanted > self.max_bytes:
            for k in _oldest(changed, np.array(sizes, np.int64), used - goal):
                if changed[k] >= since:
                    break
                removed = self._remove(paths[k], times[k])
                is_exact &= removed > 0
                used -= removed
                yield removed
        self._is_full = used + wanted > self.max_bytes and is_exact

    def _remove(self, path: str, changed: float) -> int:
        """Removes an entry that was not used since it was listed; its bytes."""
        with contextlib.suppress(FileNotFoundError):
            info = os.stat(path, follow_symlinks=False)
            if info.st_mtime == changed:
                os.unlink(path)
                return info.st_size
        return 0

    def _read(self, name: str) -> int | None:
        try:
            return int((self.folder / name).read_bytes())
        except (FileNotFoundError, ValueError):
            return None

    def _write(self, name: str, number: int) -> None:
        # Always as long, so that a write in place never leaves the tail of an older number.
        with open(self.folder / name, "wb", opener=_open_in_place, buffering=0) as file:
            file.write(b"%020d" % number)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_plan": None}


def _oldest(times: Any, sizes: Any, enough: int) -> Iterator[int]:
    """The oldest entries that together have `enough` bytes, the oldest first; all are never sorted."""
    count, step = len(times), 1 << 12
    while count:
        step = min(4 * step, count)
        some = np.argpartition(times, step - 1)[:step] if step < count else np.arange(count)
        if step == count or int(sizes[some].sum()) >= enough:
            some = some[np.argsort(times[some], kind="stable")]
            ends = np.cumsum(sizes[some])
            yield from some[: int(np.searchsorted(ends, enough)) + 1].tolist()
            return


def _open_in_place(path: str, flags: int) -> int:
    return open_private(path, flags & ~os.O_TRUNC)
