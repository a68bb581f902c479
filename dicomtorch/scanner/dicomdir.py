"""A DICOMDIR stands for the files that it names (PS3.3 annex F)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Final

from dicomtorch.dicom.elements import Group, integers
from dicomtorch.dicom.header import read_header
from dicomtorch.dicom.tags import KEYWORDS
from dicomtorch.errors import NotDicomError
from dicomtorch.model.limits import Limits
from dicomtorch.scanner.entries import UNREAD, Entry, _stat_entry
from dicomtorch.storage.files import open_at_once
from dicomtorch.storage.local import read_at

Listings = dict[bytes, dict[bytes, list[bytes]]]
"""Folder -> name in lower case -> names."""

_DICOMDIR: Final = b"DICOMDIR"
_RECORDS: Final = KEYWORDS["DirectoryRecordSequence"][0]
_FILE_ID: Final = KEYWORDS["ReferencedFileID"][0]
_IN_USE: Final = 0x00041410  # Record In-use Flag, 0 for what was deleted


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
        descriptor = open_at_once(path)
    except OSError:
        return  # reading it for the index says so
    try:
        size = os.fstat(descriptor).st_size
        wanted = frozenset((_RECORDS, _FILE_ID, _IN_USE))
        header = read_header(partial(read_at, descriptor), size, wanted, limits)
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
