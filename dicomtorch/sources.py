"""Where a scan looks: folders, files, and the files that a DICOMDIR names.

Nothing is followed out of the folder of a DICOMDIR, and what cannot be walked is told and not passed over in silence.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Final

from dicomtorch.attributes import LIMITS, FileClass, Limits
from dicomtorch.elements import Group, integers
from dicomtorch.errors import HeaderError, NotDicomError, SourceError
from dicomtorch.header import read_header
from dicomtorch.index import printable
from dicomtorch.scan_file import kind_of, open_regular, reader_of
from dicomtorch.storage import int64
from dicomtorch.tags import KEYWORDS

PathLike = str | bytes | os.PathLike[str] | os.PathLike[bytes]
Source = PathLike | Sequence[PathLike]

UNREAD: Final = -1
"""Modification time of what could not be opened, so that the next scan tries again."""

Listings = dict[bytes, dict[bytes, list[bytes]]]
"""Folder -> name in lower case -> names."""

_DICOMDIR: Final = b"DICOMDIR"
_RECORDS: Final = KEYWORDS["DirectoryRecordSequence"][0]
_FILE_ID: Final = KEYWORDS["ReferencedFileID"][0]
_IN_USE: Final = 0x00041410  # Record In-use Flag, 0 for what was deleted


@dataclass(slots=True)
class Entry:
    """What the walk met: a regular file, or something to report as it is (`reason`)."""

    path: bytes
    size: int
    mtime_ns: int
    inode: int
    file_class: FileClass = "image"
    reason: str = ""


def roots(source: Source) -> tuple[bytes, list[bytes]]:
    """(folder that all paths are below, the absolute paths to walk)."""
    paths = [source] if isinstance(source, str | bytes | os.PathLike) else list(source)
    if not paths:
        raise SourceError("the list of sources is empty; name a folder or files")
    starts = []
    for path in paths:
        start = os.path.abspath(os.path.expanduser(os.fsencode(path)))
        try:
            os.stat(start)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise SourceError(
                f"{printable(start)} cannot be opened ({why}); name a folder or file that exists and may be read"
            ) from error
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
    yield entry
    yield from _walk_directory(start, below, named)


def _stat_entry(path: bytes, absolute: bytes) -> Entry:
    try:
        info = os.stat(absolute)
    except OSError as error:
        return failed(path, error)
    return _entry(path, info, info.st_size)


def _entry(path: bytes, info: os.stat_result, size: int) -> Entry:
    return Entry(path, size, int64(info.st_mtime_ns), int64(info.st_ino))


def failed(path: bytes, error: OSError) -> Entry:
    """An entry for what the system did not let us look at."""
    return Entry(path, 0, UNREAD, 0, "unreadable", reason_of(error))


def reason_of(error: OSError) -> str:
    """An error of the system as one line, without the path."""
    name = errno.errorcode.get(error.errno or 0, "OSError")
    return f"{error.strerror or 'the system gave no reason'} ({name})"


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
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=_name)
        except OSError as error:
            yield failed(prefix[:-1] or b".", error)
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


# DICOMDIR (PS3.3 annex F, PS3.10 section 8)


def _walk_directory(start: bytes, below: bytes, named: list[list[bytes]]) -> Iterator[Entry]:
    """The files that a DICOMDIR names, those that are missing or elsewhere with a reason."""
    folder = os.path.dirname(start)
    prefix = os.path.join(os.path.dirname(below), b"")
    real = os.path.join(os.path.realpath(folder), b"")
    listings: Listings = {}
    for record, components in enumerate(named):
        inside = all(_is_name(component) for component in components)
        path = _as_written(folder, components, listings) if inside else b""
        absolute = os.path.join(folder, path)
        if not inside or not os.path.realpath(absolute).startswith(real):
            reason = f"file {record} of the DICOMDIR is not below its folder; it is not read"
            yield Entry(below + b" file %d" % record, 0, UNREAD, 0, "unreadable", reason)
            continue
        entry = _stat_entry(prefix + path, absolute)
        if entry.reason:
            entry.reason = f"named by the DICOMDIR: {entry.reason}"
        yield entry


def _as_written(folder: bytes, components: Sequence[bytes], listings: Listings) -> bytes:
    """The path of a file ID, whose letters are upper case where a copy of the medium often has lower case."""
    path = b""
    for component in components:
        above, path = path, os.path.join(path, component)
        if os.path.lexists(os.path.join(folder, path)):
            continue
        if above not in listings:
            listings[above] = {}
            with contextlib.suppress(OSError):
                for name in os.listdir(os.path.join(folder, above)):
                    listings[above].setdefault(name.lower(), []).append(name)
        alike = listings[above].get(component.lower(), ())
        if len(alike) == 1:
            path = os.path.join(above, alike[0])
    return path


def _is_name(component: bytes) -> bool:
    """Whether a component of a file ID is the name of a file or folder, and cannot lead out of the folder."""
    return component not in (b"", b".", b"..") and not any(c in component for c in b"/\\:\0")


def _file_ids(path: bytes, limits: Limits) -> Iterator[list[bytes]]:
    """The components of each Referenced File ID of records in use; none if the file is no DICOM.

    Raises:
        HeaderError: The file is damaged.
    """
    try:
        descriptor = open_regular(path)
    except OSError:
        return  # reading it for the index says so
    try:
        size = os.fstat(descriptor).st_size
        wanted = frozenset((_RECORDS, _FILE_ID, _IN_USE))
        header = read_header(reader_of(descriptor), size, wanted, limits)
    except (OSError, NotDicomError):
        return
    finally:
        os.close(descriptor)
    vr, records = header.elements.get(_RECORDS, ("", []))
    for record in records if vr == "SQ" else ():
        yield from _file_id(record, header.big_endian)


def _file_id(record: Group, big_endian: bool) -> Iterator[list[bytes]]:
    if _IN_USE in record and integers(("US", record[_IN_USE][1]), big_endian) == [0]:
        return
    vr, value = record.get(_FILE_ID, ("", b""))
    if vr != "SQ" and value.strip(b" \0"):
        yield [component.strip(b" ") for component in value.rstrip(b" \0").split(b"\\")]
