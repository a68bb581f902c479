"""Where a scan looks: folders, files, and the files that a DICOMDIR names.

Nothing is followed out of the folder of a DICOMDIR, and what cannot be walked is told and not passed over in silence.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Final

from dicomtorch.errors import HeaderError, SourceError, without_path
from dicomtorch.model.limits import LIMITS, Limits
from dicomtorch.scanner.dicomdir import _DICOMDIR, _file_ids, _walk_directory
from dicomtorch.scanner.entries import UNREAD, Entry, _entry, _stat_entry, failed, fault_of
from dicomtorch.scanner.given import PathLike as PathLike
from dicomtorch.scanner.given import paths_of, why_not_there
from dicomtorch.storage.files import kind_of

Source = PathLike | Iterable[PathLike]


def roots(source: Source) -> tuple[bytes, list[bytes]]:
    """(folder that all paths are below, the absolute paths to walk)."""
    starts = []
    for path in paths_of(source):
        start = os.path.abspath(os.path.expanduser(os.fsencode(path)))
        try:
            os.stat(start)
        except (OSError, ValueError) as error:
            raise why_not_there(start, path, error) from without_path(error)
        starts.append(start)
    folders = [start if os.path.isdir(start) else os.path.dirname(start) for start in starts]
    try:
        return os.path.commonpath(folders), sorted(set(starts))
    except ValueError as error:
        raise SourceError("the sources lie on different drives; scan each drive alone") from error


def walk(
    root: bytes,
    starts: Sequence[bytes],
    follow: bool,
    *,
    stats: bool = True,
    limits: Limits = LIMITS,
) -> Iterator[Entry]:
    """Everything below `starts` that is no folder, each once and in a fixed order.

    Without `stats`, entries of regular files have no size, time and inode: who opens them asks anyway.

    What cannot be read is an entry with a reason. A DICOMDIR among `starts` stands for the files that it names too,
    which may cost what `limits` say; one that is met in a folder is a file like others.
    """
    met: set[bytes] = set()
    if len(starts) == 1 and os.path.isdir(starts[0]):
        yield from _walk_folder(starts[0], b"", follow, stats)
        return
    for start in starts:
        for entry in _walk_start(root, start, follow, stats, limits):
            if entry.path not in met:
                met.add(entry.path)
                yield entry


def _walk_start(
    root: bytes, start: bytes, follow: bool, stats: bool, limits: Limits
) -> Iterator[Entry]:
    below = os.path.relpath(start, root)
    if os.path.isdir(start):
        prefix = b"" if below == b"." else below + os.sep.encode()
        yield from _walk_folder(start, prefix, follow, stats)
        return
    entry = _stat_entry(below, start)
    named: list[list[bytes]] = []
    if not entry.reason and os.path.basename(start).upper().startswith(_DICOMDIR):
        try:
            named = list(_file_ids(start, limits))
        except HeaderError as error:
            entry.file_class = "unreadable"
            entry.reason = f"the files that it names cannot be read: {error}"
        except MemoryError:
            raise
        except Exception as error:
            entry.file_class, entry.reason = "unreadable", fault_of(error)
    yield entry
    yield from _walk_directory(start, below, named)


def _walk_folder(start: bytes, prefix: bytes, follow: bool, stats: bool) -> Iterator[Entry]:
    separator = os.sep.encode()
    folders = [(start, prefix)]
    entered: set[tuple[int, int]] = set()
    while folders:
        folder, prefix = folders.pop()
        try:
            if follow:
                info = os.stat(folder)
                if (info.st_dev, info.st_ino) in entered:
                    reason = "a folder that was walked already under another name"
                    yield replace(
                        _entry(prefix[:-1], info, 0), file_class="not_dicom", reason=reason
                    )
                    continue
                entered.add((info.st_dev, info.st_ino))
            entries = _listed(folder)
        except OSError as error:
            entry_of_folder = failed(prefix[:-1] or b".", error)
            entry_of_folder.is_unlisted = error.errno not in _GONE
            yield entry_of_folder
            continue
        inner: list[tuple[bytes, bytes]] = []
        for entry in entries:
            path = prefix + entry.name
            try:
                if entry.is_dir(follow_symlinks=follow):
                    inner.append((entry.path, path + separator))
                    continue
                if not stats and entry.is_file(follow_symlinks=False):
                    yield Entry(path, 0, UNREAD, 0)
                    continue
                info = entry.stat(follow_symlinks=follow)
            except OSError as error:
                yield failed(path, error)
                continue
            if stat.S_ISREG(info.st_mode):
                yield _entry(path, info, info.st_size)
            else:
                reason = kind_of(info.st_mode)
                if stat.S_ISLNK(info.st_mode):
                    reason += "; follow_symlinks=True goes into it"
                yield replace(_entry(path, info, 0), file_class="not_dicom", reason=reason)
        folders.extend(reversed(inner))


_name: Final = attrgetter("name")
_TRIES: Final = 5
_GONE: Final = frozenset(
    (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG)
)
"""Errors that say that a folder is not there, or not for this user; others may pass."""


def _listed(folder: bytes) -> list[os.DirEntry[bytes]]:
    """What is in a folder, by name; an interrupted listing is begun anew.

    Raises:
        OSError: It cannot be listed.
    """
    for left in reversed(range(_TRIES)):
        try:
            with os.scandir(folder) as listing:
                return sorted(listing, key=_name)
        except InterruptedError:
            if not left:
                raise
    raise AssertionError


# DICOMDIR (PS3.3 annex F, PS3.10 section 8)
