"""What spawned workers get of a large index: files that all of them map, in place of a copy each.

They lie in a folder of the process that starts the workers, which only its user may read and which goes when it ends;
what a process left that was killed goes when another one makes such a folder.
"""

from __future__ import annotations

import atexit
import contextlib
import mmap
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable
from multiprocessing import context
from pathlib import Path
from typing import Any, BinaryIO, Final

from dicomtorch.index import in_use
from dicomtorch.index.drafts import open_new

_PREFIX: Final = "dicomtorch-shared-"
_HELD: Final = "held"
_LEAST: Final = 1 << 20  # bytes: less is sent as it is

_folders: dict[int, tuple[Path, in_use.Held]] = {}
_written: dict[tuple[int, str], tuple[weakref.ref[Any], Path]] = {}


def is_worth_sharing(size: int) -> bool:
    """Whether an index is on its way to a process that is being spawned, and so large that it is not sent by value."""
    return size >= _LEAST and context.get_spawning_popen() is not None


def share(owner: Any, kind: str, write: Callable[[BinaryIO], object]) -> Path:
    """A file for other processes, written once for each owner and kind as long as the owner is there.

    Args:
        owner: An array, which is never changed.
        kind: What of it.
        write: Writes the file.
    """
    key = (id(owner), kind)
    known = _written.get(key)
    if known is not None and known[0]() is owner and known[1].parent == folder():
        return known[1]
    path = folder() / f"{len(_written)}-{id(owner):x}.{kind}"
    path.unlink(missing_ok=True)
    with open_new(path) as file:
        write(file)
    _written[key] = (weakref.ref(owner), path)
    return path


def mapped(path: Path) -> mmap.mmap:
    """A file of `share`, mapped."""
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def folder() -> Path:
    """The folder of this process."""
    found = _folders.get(os.getpid())
    if found is None:
        _remove_forgotten(Path(tempfile.gettempdir()))
        made = Path(tempfile.mkdtemp(prefix=_PREFIX))
        open_new(made / _HELD).close()
        found = _folders[os.getpid()] = (made, in_use.hold(made / _HELD))
        atexit.register(_remove, os.getpid(), made)
    return found[0]


def _remove(process: int, made: Path) -> None:
    if process == os.getpid():  # a forked child ends, too
        shutil.rmtree(made, ignore_errors=True)


def _remove_forgotten(where: Path) -> None:
    for path in where.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError), in_use.nobody(path / _HELD) as unused:
            if unused:
                shutil.rmtree(path, ignore_errors=True)
