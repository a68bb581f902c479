"""Zip and tar archives as sources: each member is an entry, and nothing is unpacked.

A member of `study.zip` is called `study.zip!/folder/name`, which is a label: it is never opened, whatever it says.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final

import numpy as np

from dicomtorch.errors import SourceError, StaleIndexError, StorageError, escaped, printable
from dicomtorch.index.builder import Member
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.index.members import DEFLATED, STORED
from dicomtorch.model.limits import Limits
from dicomtorch.model.report import FILE_CLASSES, FileClass
from dicomtorch.model.schema import MEMBER_MARK
from dicomtorch.scanner.entries import UNREAD, Entry, entry_of_row
from dicomtorch.storage.archives import HEAD, Kind, Listed, kind_of, members
from dicomtorch.storage.base import Identity, StoredObject
from dicomtorch.storage.local import LocalFile
from dicomtorch.storage.remote import RemoteStorage

_NAMES: Final = (b".zip", b".tar")
_IS_TAR: Final = "a tar archive whose members are listed: "
_TOLD: Final = re.compile(rf"{_IS_TAR}(\d+)(?: \([a-z, ]+: ([\d ]+)\))?,")
_LONGEST: Final = 4000  # characters that name unreadable members
_SOME: Final = 8  # members that tell how many there may be
_OF_LISTING: Final = 16 << 10  # bytes that each takes


def is_named_archive(name: bytes) -> bool:
    """Whether the name of a file says that it is an archive."""
    return name.lower().endswith(_NAMES)


def archive_entries(
    absolute: bytes, path: bytes, *, look: bool, limits: Limits
) -> Iterator[Entry] | None:
    """The members of a file that is an archive; `None` for any other file.

    Args:
        absolute: Where it is.
        path: What it is called in the index.
        look: Whether its first bytes are looked at whatever its name is.
        limits: What it may cost.
    """
    if not look and not is_named_archive(absolute):
        return None
    try:
        with LocalFile(absolute) as file:
            kind = kind_of(file.read(0, HEAD))
    except StorageError:  # the scan says it
        return None
    if kind is None:
        return None
    # Each time, since an index may hold some of the members only: of a part, or of a scan that was broken off.
    return _entries(lambda: LocalFile(absolute), path, kind, limits)


def remote_archive_entries(
    storage: RemoteStorage, name: bytes, path: bytes, identity: Identity, limits: Limits
) -> Iterator[Entry] | None:
    """The members of an object that is an archive; `None` for any other object, and where its name says none.

    The directory of a zip is read in two or three requests. A tar has none, so that each member takes a request.

    Args:
        storage: Where it is.
        name: Of the object.
        path: What it is called in the index.
        identity: Of the object.
        limits: What it may cost.

    Raises:
        SourceError: It is a tar, and nobody said that it may be read; with what that would take.
        StorageError: It cannot be read.
        StaleIndexError: It changes while it is read.
    """
    if not is_named_archive(name):
        return None
    if identity.size < 0:
        raise StorageError(
            "the server does not say how large the archive is, and its directory is at its end; load it"
        )
    file = storage.open(name, identity)
    kind = kind_of(file.read(0, HEAD))
    if kind is None:
        return None
    if kind == "tar" and not storage.settings.read_tar:
        raise SourceError(f"{printable(name)}: {_price(file, limits)}")
    watched = _Watched(file)
    entries = list(_entries(lambda: watched, path, kind, limits))
    if (
        watched.failure is not None
    ):  # what was not given is no damage, and takes nothing out of an index
        raise watched.failure
    return iter(entries) if kind == "zip" else _told_of(path, entries)


class _Watched:
    """An object that remembers which read failed."""

    def __init__(self, file: StoredObject) -> None:
        self.identity = file.identity
        self._file = file
        self.failure: StorageError | StaleIndexError | None = None

    def read(self, offset: int, length: int) -> bytes:
        """As of the object."""
        try:
            return self._file.read(offset, length)
        except (StorageError, StaleIndexError) as error:
            self.failure = error
            raise

    def close(self) -> None:
        """As of the object."""
        self._file.close()


def _price(tar: StoredObject, limits: Limits) -> str:
    """What listing the members of a remote tar takes, from the first of them."""
    size = tar.identity.size
    some = list(itertools.islice(members(tar, "tar", limits.archive_members), _SOME))
    end = max((one.place.offset + one.place.length for one in some), default=size)
    count = len(some) if len(some) < _SOME else max(round(size * len(some) / end), _SOME)
    many = f"{count:,}" if len(some) < _SOME else f"about {count:,}"
    moved = min(count * _OF_LISTING, size) / 1e6
    return (
        f"a tar archive of {size / 1e6:,.1f} MB with {many} members has no directory: listing them takes one request "
        f"after the other for each, {moved:,.1f} MB in all, and reading their headers as many again. "
        f"storage_options={{'read_tar': True}} goes on (--storage-option read_tar=true); a stored zip is listed in "
        f"three requests"
    )


def _entries(
    open_archive: Callable[[], LocalFile | _Watched], path: bytes, kind: Kind, limits: Limits
) -> Iterator[Entry]:
    """What the directory of an archive has, and what is wrong with it."""
    listed: list[Listed] = []
    problem, identity = "", Identity(0, UNREAD)
    try:
        file = open_archive()
        try:
            identity = file.identity
            listed.extend(members(file, kind, limits.archive_members))
        finally:
            file.close()
    except (StorageError, StaleIndexError) as error:
        problem = str(error)
    if problem:
        yield Entry(path, *identity[:3], "unreadable", problem, version=identity.version)
    last = {one.name: k for k, one in enumerate(listed)}
    labels: set[str] = set()
    total = 0
    for k, one in enumerate(listed):
        total += one.place.size if one.place.is_deflated else 0
        reason = one.problem or _beyond(one, total, limits)
        if last[one.name] != k:
            reason = (
                "a later member has the same name, and takes its place when the archive is unpacked"
            )
        label = _label(one.name, labels)
        container = DEFLATED if one.place.is_deflated else STORED
        member = Member(container, label, *one.place[1:])
        file_class: FileClass = "unreadable" if reason else "image"
        named = path + MEMBER_MARK + label.encode()
        entry = Entry(named, *identity[:3], file_class, reason, version=identity.version)
        entry.member, entry.header = member, one.header
        yield entry


def _told_of(path: bytes, entries: list[Entry]) -> Iterator[Entry]:
    """The members of a remote tar, and a row for the tar that says how many there are, so that all can be known."""
    members = sorted((one for one in entries if one.member.container), key=_path)
    told = _told(members)
    whole = [one for one in entries if not one.member.container]  # what is wrong with its end
    if told and whole:
        whole[0].reason += f"; {told}"
    elif told:
        first = members[0]
        entries = [
            *entries,
            Entry(path, *first.identity[:3], "not_dicom", told, version=first.version),
        ]
    yield from entries


def _told(members: list[Entry]) -> str:
    """How many members a tar has, and which of them its directory says to be unreadable; "" if that is too long."""
    bad = [k for k, one in enumerate(members) if one.file_class == "unreadable"]
    numbers = f" (unreadable, in the order of names: {' '.join(map(str, bad))})" if bad else ""
    if not members or len(numbers) > _LONGEST:
        return ""
    return f"{_IS_TAR}{len(members)}{numbers}, which need not be listed again while it is the same"


def _path(entry: Entry) -> bytes:
    return entry.path


def known_tars(
    index: FrameIndex | None, limits: Limits
) -> dict[bytes, tuple[Identity, list[Entry]]]:
    """The remote tar archives of which an index has all members: name -> what it was, its members and itself."""
    if index is None:
        return {}
    files: Any = index.files
    classes = [FILE_CLASSES.index(name) for name in ("not_dicom", "unreadable")]
    is_bare = np.isin(files["file_class"], classes) & (np.asarray(files["container"]) == 0)
    told = ((k, _TOLD.search(files["reason"][k])) for k in np.flatnonzero(is_bare).tolist())
    tars = {index.file_path(k): (k, found) for k, found in told if found}
    of_tar: dict[bytes, list[Entry]] = {}
    stored = np.flatnonzero(np.asarray(files["container"]) == STORED) if tars else ()
    for k in map(int, stored):
        entry = replace(entry_of_row(files, k), path=index.file_path(k))
        of_tar.setdefault(index.object_path(k), []).append(entry)
    known = {}
    for name, (row, found) in tars.items():
        whole = replace(entry_of_row(files, row), path=name)
        is_cut = whole.file_class == "unreadable"  # by its end, or by how many members it may have
        if is_cut and index.limits.archive_members != limits.archive_members:
            continue
        members = _as_listed(whole, sorted(of_tar.get(name, []), key=_path), found)
        if members is not None:
            known[name] = whole.identity, [*members, whole]
    return known


def _as_listed(whole: Entry, members: list[Entry], told: re.Match[str]) -> list[Entry] | None:
    """The members as they were listed, since what each is may be found otherwise now; `None` if some are not there."""
    if len(members) != int(told[1]):
        return None
    bad = set(map(int, (told[2] or "").split()))
    for number, entry in enumerate(members):
        if entry.mtime_ns == UNREAD != whole.mtime_ns:  # was not given, and is asked for again
            entry.mtime_ns = whole.mtime_ns
        if entry.identity != whole.identity:
            return None
        if number not in bad:
            entry.file_class, entry.reason = "image", ""
    return members


def _label(name: str, taken: set[str]) -> str:
    """A name that can be printed, and that no other member has."""
    first = label = escaped(name.encode("utf-8", "surrogateescape"))
    count = 1
    while label in taken:
        count += 1
        label = f"{first} ({count})"
    taken.add(label)
    return label


def _beyond(listed: Listed, total: int, limits: Limits) -> str:
    """Which limit a member is beyond, or ""."""
    place = listed.place
    if not place.is_deflated:
        return ""
    if place.size > limits.inflated_bytes:
        return f"it inflates to {place.size} bytes, more than Limits.inflated_bytes = {limits.inflated_bytes}"
    if place.size > limits.inflated_ratio * place.length + (64 << 10):
        return (
            f"{place.length} bytes inflate to {place.size}, more than Limits.inflated_ratio = {limits.inflated_ratio} "
            f"allows"
        )
    if total > limits.archive_bytes:
        return (
            f"the members up to this one inflate to {total} bytes, more than Limits.archive_bytes = "
            f"{limits.archive_bytes}"
        )
    return ""
