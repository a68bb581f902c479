"""From files to an index: walks folders, reads headers, and takes over what has not changed.

Nothing is written, and no bad file ends a scan: each is in the report with its class and the reason.
"""

from __future__ import annotations

import difflib
import errno
import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from tqdm import tqdm

from dicomtorch.attributes import LIMITS, FileClass, Limits, ScanReport
from dicomtorch.errors import OptionError, SourceError
from dicomtorch.index import FrameIndex, printable
from dicomtorch.parts import FileRows
from dicomtorch.resolve import Resolver, Tag
from dicomtorch.scan_file import DIRECTORY_RECORDS, kind_of, read_file
from dicomtorch.schema import FRAME_COLUMNS, Kind

PathLike = str | bytes | os.PathLike[str] | os.PathLike[bytes]
Source = PathLike | Sequence[PathLike]

_PROGRESS_DELAY = 2.0  # seconds
_UNREAD = -1  # modification time of what could not be opened, so that the next scan tries again
_INTEGER_VRS = frozenset(("IS", "US", "SS", "UL", "SL", "UV", "SV"))
_FLOAT_VRS = frozenset(("DS", "FL", "FD"))
_REFUSED_VRS = frozenset(("SQ", "OB", "OW", "OF", "OD", "OL", "OV", "UN", "OB or OW", "US or OW"))


@dataclass(slots=True)
class _Entry:
    """What the walk met: a regular file, or something to report as it is (`reason`)."""

    path: bytes
    size: int
    mtime_ns: int
    inode: int
    file_class: FileClass = "image"
    reason: str = ""


def scan(
    source: Source,
    *,
    index: FrameIndex | None = None,
    tags: Sequence[str] = (),
    follow_symlinks: bool = False,
    progress: bool | None = None,
    limits: Limits = LIMITS,
) -> tuple[FrameIndex, ScanReport]:
    """Indexes every frame of every DICOM file of `source`.

    Args:
        source: A folder, a file, or a list of either.
        index: An earlier index of the same source: files whose size, time and inode are as they were are taken over
            from it without being read.
        tags: Keywords that become further columns, taken per frame, shared, or from the main data set. Numbers
            that have one value are float64 or int64 columns, everything else is text, several values joined with a
            backslash. If `index` lacks one, everything is read again, with its tags and these.
        follow_symlinks: Whether to go into symbolic links to folders and to read those to files.
        progress: Whether to show progress on stderr; `None`: on a terminal, after two seconds.
        limits: What one header may cost.

    Returns:
        The index, which is the same object as `index` if nothing changed, and what was met.

    Raises:
        SourceError: There is nothing at `source`.
        OptionError: `tags` has a keyword that does not exist, or whose values cannot be a column.
    """
    began = time.monotonic()
    columns = tag_columns(tags)
    root, starts = _roots(source)
    if index is not None:
        index = index.whole() if index.root == root else None
    entries = _walk(root, starts, follow_symlinks)
    old = {} if index is None else {path: k for k, path in enumerate(index.files["path"])}
    removed = len(old.keys() - {entry.path for entry in entries})
    kept: list[int] = []
    fresh = entries
    complete = False
    if index is not None:
        complete = columns.keys() <= index.tags.keys()
        columns = tag_columns([*index.tags, *columns])
        if complete:
            kept, fresh = _compare(index, old, entries)
    resolver = Resolver(tags=columns, extra={DIRECTORY_RECORDS}, limits=limits)
    rows = _read(root, fresh, resolver, limits, progress)
    if index is None or not complete:
        kinds: dict[str, Kind] = {keyword: tag.kind for keyword, tag in columns.items()}
        result = FrameIndex.build(rows, root=root, tags=kinds)
    else:
        result = _update(index, old, kept, rows, removed)
    return result, replace(
        result.report(),
        read=len(fresh),
        reused=len(kept),
        removed=removed,
        seconds=time.monotonic() - began,
    )


def _read(
    root: bytes,
    entries: Sequence[_Entry],
    resolver: Resolver,
    limits: Limits,
    progress: bool | None,
) -> Iterator[FileRows]:
    shown = tqdm(
        entries,
        desc="scan",
        unit="file",
        delay=_PROGRESS_DELAY,
        disable=None if progress is None else not progress,
        leave=False,
    )
    below = os.path.join(root, b"")
    for entry in shown:
        yield _read_entry(below, entry, resolver, limits)


def _update(
    index: FrameIndex,
    old: Mapping[bytes, int],
    kept: Sequence[int],
    rows: Iterator[FileRows],
    removed: int,
) -> FrameIndex:
    """`index` with the files `kept` and the new `rows`; itself if that changes nothing."""
    # Failures are tried again in every scan: as long as each fails as before, nothing changed.
    again: list[FileRows] = []
    for item in rows:
        again.append(item)
        if not _failed_before(index, old, item):
            break
    else:
        if not removed:
            return index
    keep = np.zeros(len(old), np.bool_)
    keep[list(kept)] = True
    return index.updated(keep, chain(again, rows))


def tag_columns(keywords: Iterable[str]) -> dict[str, Tag]:
    """The columns that `keywords` ask for, without those that every index has.

    Raises:
        OptionError: A keyword does not exist, or is that of a sequence or of bulk data.
    """
    from pydicom.datadict import dictionary_VM, dictionary_VR, keyword_dict, tag_for_keyword

    result = {}
    for keyword in keywords:
        if keyword in FRAME_COLUMNS:
            continue
        number = tag_for_keyword(keyword)
        if number is None:
            close = difflib.get_close_matches(keyword, keyword_dict, 3, 0.7)
            hint = f"; did you mean {' or '.join(close)}?" if close else "."
            raise OptionError(
                f"tags: {keyword!r} is no keyword of the DICOM dictionary{hint} Keywords look like "
                f"'PatientSex'"
            )
        vr = dictionary_VR(number)
        if vr in _REFUSED_VRS:
            raise OptionError(
                f"tags: {keyword} has VR {vr}, which cannot be a column; name an attribute with a "
                f"text or number value"
            )
        single = dictionary_VM(number) == "1"
        vr = vr[:2]  # "US or SS" is read as US where the file does not say
        kind: Kind = "text"
        if single and vr in _FLOAT_VRS:
            kind = "float64"
        elif single and vr in _INTEGER_VRS:
            kind = "int64"
        result[keyword] = Tag(number, vr, kind)
    return result


def _roots(source: Source) -> tuple[bytes, list[bytes]]:
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


def _walk(root: bytes, starts: Sequence[bytes], follow: bool) -> list[_Entry]:
    """Everything below `starts` that is no folder, ordered by path; what cannot be read is an entry with a reason."""
    found: dict[bytes, _Entry] = {}
    for start in starts:
        below = os.path.relpath(start, root)
        if not os.path.isdir(start):
            found[below] = _stat_entry(below, start)
            continue
        prefix = b"" if below == b"." else below + os.sep.encode()
        for entry in _walk_folder(start, prefix, follow):
            found[entry.path] = entry
    return [found[path] for path in sorted(found)]


def _stat_entry(path: bytes, absolute: bytes) -> _Entry:
    try:
        info = os.stat(absolute)
    except OSError as error:
        return _failed(path, error)
    return _Entry(path, info.st_size, info.st_mtime_ns, info.st_ino)


def _failed(path: bytes, error: OSError) -> _Entry:
    return _Entry(path, 0, _UNREAD, 0, "unreadable", _reason(error))


def _reason(error: OSError) -> str:
    name = errno.errorcode.get(error.errno or 0, "OSError")
    return f"{error.strerror or 'the system gave no reason'} ({name})"


def _walk_folder(start: bytes, prefix: bytes, follow: bool) -> Iterator[_Entry]:
    folders = [(start, prefix)]
    entered: set[tuple[int, int]] = set()
    while folders:
        folder, prefix = folders.pop()
        try:
            if follow:
                info = os.stat(folder)
                if (info.st_dev, info.st_ino) in entered:
                    reason = "a symbolic link back into a folder that was walked already"
                    yield _Entry(prefix[:-1], 0, info.st_mtime_ns, info.st_ino, "not_dicom", reason)
                    continue
                entered.add((info.st_dev, info.st_ino))
            with os.scandir(folder) as listing:
                entries = list(listing)
        except OSError as error:
            yield _failed(prefix[:-1] or b".", error)
            continue
        for entry in entries:
            path = prefix + entry.name
            try:
                if entry.is_dir(follow_symlinks=follow):
                    folders.append((entry.path, path + os.sep.encode()))
                    continue
                info = entry.stat(follow_symlinks=follow)
            except OSError as error:
                yield _failed(path, error)
                continue
            if stat.S_ISREG(info.st_mode):
                yield _Entry(path, info.st_size, info.st_mtime_ns, info.st_ino)
            else:
                reason = kind_of(info.st_mode)
                if stat.S_ISLNK(info.st_mode):
                    reason += "; follow_symlinks=True goes into it"
                yield _Entry(path, 0, info.st_mtime_ns, info.st_ino, "not_dicom", reason)


def _compare(
    index: FrameIndex, old: Mapping[bytes, int], entries: Sequence[_Entry]
) -> tuple[list[int], list[_Entry]]:
    """(rows of the files table that still hold, entries that have to be read)."""
    if not entries:
        return [], []
    rows = np.array([old.get(entry.path, -1) for entry in entries], np.int64)
    now = np.array([(entry.size, entry.mtime_ns, entry.inode) for entry in entries], np.int64)
    if not old:
        return [], list(entries)
    before = np.stack([np.asarray(index.files[n])[rows] for n in ("size", "mtime_ns", "inode")], 1)
    same = (rows >= 0) & (before == now).all(1) & (now[:, 1] != _UNREAD)
    return rows[same].tolist(), [entries[k] for k in np.flatnonzero(~same).tolist()]


def _failed_before(index: FrameIndex, old: Mapping[bytes, int], item: FileRows) -> bool:
    """Whether a file could not be opened, for the same reason as when the index was made."""
    files, k = index.files, old.get(item.path, -1)
    return (
        k >= 0
        and item.mtime_ns == _UNREAD == files["mtime_ns"][k]
        and files["reason"][k] == item.reason
    )


def _read_entry(below: bytes, entry: _Entry, resolver: Resolver, limits: Limits) -> FileRows:
    if entry.reason:
        return FileRows(
            entry.path, entry.size, entry.mtime_ns, entry.inode, entry.file_class, entry.reason
        )
    try:
        return read_file(below + entry.path, entry.path, resolver, limits)
    except OSError as error:
        return FileRows(entry.path, entry.size, _UNREAD, entry.inode, "unreadable", _reason(error))
