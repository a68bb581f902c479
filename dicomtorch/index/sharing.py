"""What spawned workers get of a large index: files that all of them map, in place of a copy each.

They lie in a folder of the process that starts the workers, which only its user may read and which goes when it ends;
what a process left that was killed goes when another one makes such a folder.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import mmap
import os
import shutil
import stat
import tempfile
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import context
from pathlib import Path
from typing import Any, Final

from dicomtorch.errors import IndexFileError, printable, without_path
from dicomtorch.index import in_use
from dicomtorch.index.drafts import open_new

_PREFIX: Final = "dicomtorch-shared-"
_DRAFT: Final = "dicomtorch-making-"  # not held yet, which others would take for forgotten
_HELD: Final = "held"
_LEAST: Final = 1 << 20  # bytes: less is sent as it is


@dataclass(eq=False)
class _Shared:
    """What was written for others.

    Attributes:
        owner: What it was written for.
        kind: What of it.
        path: A file or a folder.
        processes: Those that it was sent to, some of which may not have mapped it yet.
    """

    owner: weakref.ref[Any]
    kind: str
    path: Path
    processes: list[Callable[[], Any]] = field(default_factory=list)

    def is_in_use(self) -> bool:
        """Whether it is sent again, or a process that it was sent to may be there still."""
        return self.owner() is not None or any(process() is not None for process in self.processes)


_folders: dict[int, tuple[Path, in_use.Held]] = {}
_written: list[_Shared] = []
_numbers = itertools.count()


def is_worth_sharing(size: int) -> bool:
    """Whether an index is on its way to a process that is being spawned, and so large that it is not sent by value."""
    return size >= _LEAST and context.get_spawning_popen() is not None


def share(owner: Any, kind: str, write: Callable[[Path], object]) -> Path:
    """A file or folder for the process that is being spawned, written once as long as its owner is there.

    No name comes twice, and what has one stays until its owner and all processes that it was sent to are gone.

    Args:
        owner: Never changed.
        kind: What of it.
        write: Writes it to a path at which there is nothing.

    Raises:
        OSError: It cannot be written; nothing is left.
    """
    _free()
    here = folder()
    for known in _written:
        if known.owner() is owner and known.kind == kind and known.path.parent == here:
            break
    else:
        path = here / f"{next(_numbers)}.{kind}"
        try:
            write(path)
        except BaseException:
            _delete(path)
            raise
        known = _Shared(weakref.ref(owner), kind, path)
        _written.append(known)
    known.processes.append(_reference(context.get_spawning_popen()))
    return known.path


def _reference(process: Any) -> Callable[[], Any]:
    """Gives the process as long as it runs: multiprocessing keeps what it started until it has ended."""
    try:
        return weakref.ref(process)
    except TypeError:
        return lambda: process


def _free() -> None:
    for one in list(_written):
        if not one.is_in_use():
            with contextlib.suppress(ValueError):  # another thread was first
                _written.remove(one)
                if one.path.parent == folder():  # not of the process that this one was forked from
                    _delete(one.path)


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def mapped(path: Path) -> mmap.mmap:
    """A file of `share`, mapped.

    Raises:
        IndexFileError: It is gone or cannot be mapped.
    """
    try:
        with open(path, "rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        why = without_path(error)
        raise IndexFileError(
            f"{printable(path)}, a part of the index that the process which started this one has written for it, "
            f"cannot be read ({getattr(why, 'strerror', None) or type(why).__name__}); start the workers again while "
            f"that process runs"
        ) from why


def folder() -> Path:
    """The folder of this process.

    Raises:
        OSError: There is no place for one.
    """
    found = _folders.get(os.getpid())
    if found is None:
        where = Path(tempfile.gettempdir())
        _remove_forgotten(where)
        draft = Path(tempfile.mkdtemp(prefix=_DRAFT))
        made = draft.with_name(_PREFIX + draft.name.removeprefix(_DRAFT))
        try:
            open_new(draft / _HELD).close()
            held = in_use.hold(draft / _HELD)
            os.rename(draft, made)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        found = _folders[os.getpid()] = (made, held)
        atexit.register(_remove, os.getpid(), made)
    return found[0]


def _remove(process: int, made: Path) -> None:
    if process == os.getpid():  # a forked child ends, too
        shutil.rmtree(made, ignore_errors=True)


def _remove_forgotten(where: Path) -> None:
    for path in where.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if not (_is_own(path, stat.S_ISDIR) and _is_own(path / _HELD, stat.S_ISREG)):
                continue
            with in_use.nobody(path / _HELD) as unused:
                if unused:
                    shutil.rmtree(path, ignore_errors=True)


def _is_own(path: Path, is_kind: Callable[[int], bool]) -> bool:
    """Whether this very user made it, and no link leads to it: others may write to a folder for temporary files."""
    info = path.lstat()
    return is_kind(info.st_mode) and (not hasattr(os, "geteuid") or info.st_uid == os.geteuid())
