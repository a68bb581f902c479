"""Locks between processes, as files: the system frees them when their process ends, however it ends.

They are `flock`s. A forked child does not share those that its parent held at that moment: it closes its copies.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from pathlib import Path
from typing import Any, Final

from dicomtorch.index.private import open_private

if sys.platform == "win32":  # pragma: no cover
    import filelock
else:
    import fcntl

_POLL: Final = 0.001  # seconds
_NO_LOCKS: Final = frozenset((errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK))

_held: set[int] = set()


class FileLock:
    """A lock that one process of all holds; a context manager that acquires and releases it.

    Args:
        path: Of its file, which is made if it is not there, and stays.
        timeout: Seconds to wait; `None`: as long as it takes.

    Attributes:
        exists: False after it was acquired on a file system without locks: then others may hold it too.
    """

    def __init__(self, path: Path, timeout: float | None = None) -> None:
        self.exists = True
        self._path = path
        self._timeout = timeout
        self._descriptor: int | None = None
        self._windows: Any = None

    def acquire(self) -> FileLock:
        """Waits until this process alone holds it.

        Raises:
            TimeoutError: Another one held it all the time.
            OSError: Its file cannot be made.
        """
        if sys.platform == "win32":  # pragma: no cover
            self._windows = filelock.FileLock(
                self._path, -1 if self._timeout is None else self._timeout
            )
            self._windows.acquire()
            return self
        end = None if self._timeout is None else time.monotonic() + self._timeout
        while True:
            descriptor = open_private(self._path, os.O_RDWR | os.O_CREAT)
            _held.add(descriptor)
            self._descriptor = descriptor
            try:
                self._wait(descriptor, end)
                if not self.exists or _is_still(self._path, descriptor):
                    return self
            except BaseException:
                self.release()
                raise
            self.release()  # somebody removed the file meanwhile, and others lock a new one

    def _wait(self, descriptor: int, end: float | None) -> None:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if end is None else fcntl.LOCK_NB))
                return
            except BlockingIOError:
                if end is not None and time.monotonic() >= end:
                    raise TimeoutError(
                        f"another process held the lock for {self._timeout} s"
                    ) from None
                time.sleep(_POLL)
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                self.exists = False
                return

    def release(self) -> None:
        """Lets others have it. Nothing is raised: what cannot be unlocked is free when its file is closed."""
        if self._windows is not None:  # pragma: no cover
            self._windows.release()
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None or descriptor not in _held:  # a forked child has closed it
            return
        _held.discard(descriptor)
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # for a child that was forked while it was held
        os.close(descriptor)

    def __enter__(self) -> FileLock:
        return self if self._descriptor is not None or self._windows is not None else self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


def _is_still(path: Path, descriptor: int) -> bool:
    """Whether `path` still names the open file."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except OSError:
        return False


def _close_all() -> None:
    """For a forked child: the parent holds these locks, and a copy would keep them when it has let them go."""
    for descriptor in _held:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_all)
