"""Where a scan looks: folders, files, and the files that a DICOMDIR names.

Nothing is followed out of the folder of a DICOMDIR, and what cannot be walked is told and not passed over in silence.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from operator import attrgetter
from typing import Final, NamedTuple

from dicomtorch.errors import HeaderError, SourceError, without_path
from dicomtorch.model.limits import LIMITS, Limits
from dicomtorch.scanner.archives import archive_entries
from dicomtorch.scanner.dicomdir import _DICOMDIR, _file_ids, _walk_directory
from dicomtorch.scanner.entries import UNREAD, Entry, _entry, _stat_entry, failed, fault_of
from dicomtorch.scanner.given import PathLike as PathLike
from dicomtorch.scanner.given import paths_of, why_not_there
from dicomtorch.scanner.listing import Files, Listing, entries_of
from dicomtorch.storage.files import has_stable_inodes, kind_of

Source = PathLike | Iterable[PathLike]
_FEW: Final = 64  # sources, of which each is looked into for an archive, whatever its name is
Archives = Callable[[bytes, bytes], Iterator[Entry] | None]


def roots(source: Source | None) -> tuple[bytes, list[bytes]]:
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
    which may cost what `limits` say, and an archive for its members; one that is met in a folder is a file like others.
    """
    met: set[bytes] = set()
    if _is_one_folder(starts):
        yield from entries_of(_walk_folder(starts[0], b"", follow, stats))
        return
    archives = partial(archive_entries, look=len(starts) <= _FEW, limits=limits)
    for start in starts:
        for entry in _walk_start(root, start, follow, stats, limits, archives):
            if entry.path not in met:
                met.add(entry.path)
                yield entry


def list_all(
    root: bytes,
    starts: Sequence[bytes],
    follow: bool,
    limits: Limits = LIMITS,
) -> Listing:
    """The same as columns, with what tells whether files are as they were."""
    if _is_one_folder(starts):
        return Listing(_walk_folder(starts[0], b"", follow, True))
    return Listing(walk(root, starts, follow, limits=limits))


def _is_one_folder(starts: Sequence[bytes]) -> bool:
    return len(starts) == 1 and os.path.isdir(starts[0])


def _walk_start(
    root: bytes, start: bytes, follow: bool, stats: bool, limits: Limits, archives: Archives
) -> Iterator[Entry]:
    below = os.path.relpath(start, root)
    if os.path.isdir(start):
        prefix = b"" if below == b"." else below + os.sep.encode()
        yield from entries_of(_walk_folder(start, prefix, follow, stats))
        return
    entry = _stat_entry(below, start)
    members = None if entry.reason else archives(start, below)
    if members is not None:
        yield from members
        return
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


def _walk_folder(start: bytes, prefix: bytes, follow: bool, stats: bool) -> Iterator[Files | Entry]:
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
            found = _found(folder, prefix, follow, stats)
        except OSError as error:
            entry_of_folder = failed(prefix[:-1] or b".", error)
            entry_of_folder.is_unlisted = error.errno not in _GONE
            yield entry_of_folder
            continue
        if found.unseen:
            unknown = ([number] * len(found.unseen) for number in (0, UNREAD, 0))
            yield Files(prefix, found.unseen, *unknown)
        yield _files(prefix, found.names, found.infos)
        yield from found.odd
        folders.extend(reversed(found.folders))


class _Found(NamedTuple):
    """What is in a folder.

    Attributes:
        folders: Path and prefix of each.
        names: Of regular files.
        infos: Of these.
        unseen: Names of regular files that were not looked at.
        odd: All else.
    """

    folders: list[tuple[bytes, bytes]]
    names: list[bytes]
    infos: list[os.stat_result]
    unseen: list[bytes]
    odd: list[Entry]


def _found(folder: bytes, prefix: bytes, follow: bool, stats: bool) -> _Found:
    """Looks at what is in a folder, by name.

    Raises:
        OSError: It cannot be listed.
    """
    found = _Found([], [], [], [], [])
    separator = os.sep.encode()
    entries = _listed(folder)
    # From the folder on: from the root on, each look would go through all that is above, half of what it costs.
    inside = os.open(folder, os.O_RDONLY | os.O_DIRECTORY) if stats and _LOOKS_INSIDE else None
    try:
        for entry in entries:
            name = entry.name
            try:
                if entry.is_dir(follow_symlinks=follow):
                    found.folders.append((entry.path, prefix + name + separator))
                    continue
                if not stats and entry.is_file(follow_symlinks=False):
                    found.unseen.append(name)
                    continue
                if inside is None:
                    info = entry.stat(follow_symlinks=follow)
                else:
                    info = os.stat(name, dir_fd=inside, follow_symlinks=follow)
            except OSError as error:
                found.odd.append(failed(prefix + name, error))
                continue
            if stat.S_ISREG(info.st_mode):
                found.names.append(name)
                found.infos.append(info)
            else:
                found.odd.append(_no_file(prefix + name, info))
    finally:
        if inside is not None:
            os.close(inside)
    return found


def _files(prefix: bytes, names: list[bytes], infos: Sequence[os.stat_result]) -> Files:
    unstable = {
        device for device in {info.st_dev for info in infos} if not has_stable_inodes(device)
    }
    return Files(
        prefix,
        names,
        [info.st_size for info in infos],
        [info.st_mtime_ns for info in infos],
        [0 if info.st_dev in unstable else info.st_ino for info in infos]
        if unstable
        else [info.st_ino for info in infos],
    )


def _no_file(path: bytes, info: os.stat_result) -> Entry:
    """What is neither a regular file nor a folder."""
    reason = kind_of(info.st_mode)
    if stat.S_ISLNK(info.st_mode):
        reason += "; follow_symlinks=True goes into it"
    return replace(_entry(path, info, 0), file_class="not_dicom", reason=reason)


_LOOKS_INSIDE: Final = os.stat in os.supports_dir_fd and hasattr(os, "O_DIRECTORY")
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
