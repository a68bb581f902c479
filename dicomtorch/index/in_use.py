"""Who has a stored generation open: a shared lock on its manifest, which the system frees when a process ends.

Forked children share the lock of their parent. Where the system or the file system has no locks, the time of last use,
which opening sets, is all that there is.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from dicomtorch.errors import IndexFileError, printable

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows, where open files cannot be removed anyway
    fcntl = None


class Held:
    """A lock that is held until it is released.

    Args:
        descriptor: Of the locked file, -1 for none.
    """

    def __init__(self, descriptor: int = -1) -> None:
        self._descriptors = [descriptor] if descriptor >= 0 else []

    def release(self) -> None:
        """Gives the lock back; once."""
        with contextlib.suppress(
            IndexError
        ):  # one thread takes it, without a lock that a fork could find held
            os.close(self._descriptors.pop())


def hold(manifest: Path) -> Held:
    """Notes that this process has the generation of a manifest open.

    Raises:
        IndexFileError: Another process is removing it.
    """
    if fcntl is None:
        return Held()
    try:
        descriptor = os.open(manifest, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # whoever reads it says what is wrong
        return Held()
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise IndexFileError(
            f"another process just removes {printable(manifest.parent)}, which nobody had open; scan again"
        ) from None
    except OSError:  # no locks here
        os.close(descriptor)
        return Held()
    return Held(descriptor)


@contextlib.contextmanager
def nobody(manifest: Path) -> Iterator[bool | None]:
    """Whether no process has the generation open; none can open it until the end. `None`: there are no locks."""
    if fcntl is None or not manifest.exists():
        yield None
        return
    descriptor = os.open(manifest, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        except OSError:  # no locks here
            yield None
        else:
            yield True
    finally:
        os.close(descriptor)
