"""From one member of an archive to its rows, without unpacking it."""

from __future__ import annotations

from typing import Any, Final, cast

from dicomtorch.dicom.elements import Read
from dicomtorch.errors import StaleIndexError, StorageError
from dicomtorch.index.builder import FileRows, Member
from dicomtorch.index.members import DEFLATED
from dicomtorch.model.limits import Limits
from dicomtorch.model.report import FileClass
from dicomtorch.scanner.entries import UNREAD, Entry
from dicomtorch.scanner.file import read_dicom
from dicomtorch.scanner.given import is_archive
from dicomtorch.scanner.objects import Begun
from dicomtorch.scanner.resolve.resolver import Resolver
from dicomtorch.storage.archives import HEAD, Listed, located
from dicomtorch.storage.base import Readable, StoredObject
from dicomtorch.storage.local import LocalFile
from dicomtorch.storage.members import Inflation, Place, Window

_NESTED: Final = (
    "an archive inside an archive, which is not opened; unpack it and name it as a source"
)


def read_member(archive: bytes, entry: Entry, resolver: Resolver, limits: Limits) -> FileRows:
    """What there is to know about one member of an archive; its pixel data are not read.

    Args:
        archive: Where the archive is.
        entry: The member.
        resolver: Holds what files have in common.
        limits: What a header may cost.
    """
    try:
        with LocalFile(archive, entry.identity) as file:
            return _read(file, entry, resolver, limits)
    except StaleIndexError:
        entry.mtime_ns = UNREAD
        reason = "the archive changed while it was scanned; scan again"
    except StorageError as error:
        if isinstance(
            error.__cause__, OSError
        ):  # of the system, not of the archive: it is tried again
            entry.mtime_ns = UNREAD
        reason = str(error)
    return _rows(entry, entry.size, "unreadable", reason)


def read_remote_member(
    archive: Begun, entry: Entry, resolver: Resolver, limits: Limits
) -> FileRows:
    """The same of an archive of a server, of which the first bytes of the member are here.

    Raises:
        MoreNeeded: They are not enough, and more is not asked for.
        StaleIndexError: The archive is another one by now.
        StorageError: More was not given.
    """
    try:
        return _read(archive, entry, resolver, limits)
    except StorageError as error:
        if archive.failed:
            raise
        return _rows(entry, entry.size, "unreadable", str(error))


def _rows(entry: Entry, size: int, file_class: FileClass, reason: str) -> FileRows:
    identity = (entry.path, size, entry.mtime_ns, entry.inode)
    return FileRows(*identity, file_class, reason, version=entry.version, member=entry.member)


def _read(archive: Readable, entry: Entry, resolver: Resolver, limits: Limits) -> FileRows:
    member = entry.member
    deflated = member.container == DEFLATED
    place = located(archive, Listed(member.name, Place(deflated, *member[2:]), header=entry.header))
    rows = _rows(entry, place.size, "not_dicom", "")
    read: Read = (
        Inflation(archive, place, limits.inflated_bytes).read
        if deflated
        else Window(
            cast(StoredObject, archive), place.offset, place.length
        ).read  # nothing else of it
    )
    if not place.size:
        rows.reason = "an empty file"
    else:
        read_dicom(read, rows, resolver, limits)
    if rows.file_class == "not_dicom" and is_archive(bytes(read(0, HEAD))):
        rows.reason = _NESTED
    rows.size, rows.member = entry.size, Member(member.container, member.name, *place[1:])
    if rows.count and not (deflated or rows.deflated):
        rows.columns["offset"] = _moved(rows.columns["offset"], place.offset)
    return rows


def _moved(offsets: Any, by: int) -> Any:
    """Offsets in the member as offsets in the archive: a number, a list or an array."""
    return [offset + by for offset in offsets] if isinstance(offsets, list) else offsets + by
