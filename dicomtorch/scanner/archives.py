"""Zip and tar archives as sources: each member is an entry, and nothing is unpacked.

A member of `study.zip` is called `study.zip!/folder/name`, which is a label: it is never opened, whatever it says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from dicomtorch.errors import StorageError, escaped
from dicomtorch.index.builder import Member
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.index.members import DEFLATED, STORED, object_path
from dicomtorch.model.limits import Limits
from dicomtorch.model.report import FileClass
from dicomtorch.model.schema import MEMBER_MARK
from dicomtorch.scanner.entries import UNREAD, Entry, entry_of_row
from dicomtorch.storage.archives import HEAD, Kind, Listed, kind_of, members
from dicomtorch.storage.base import Identity
from dicomtorch.storage.local import LocalFile

_NAMES: Final = (b".zip", b".tar")


@dataclass(frozen=True, slots=True)
class KnownArchives:
    """The archives of an earlier scan, whose directories need not be read again while they are the same.

    Attributes:
        entries: Path -> the archive as it was, and its members.
    """

    entries: Mapping[bytes, tuple[Identity, Sequence[Entry]]] = field(default_factory=dict)

    @classmethod
    def of(cls, index: FrameIndex | None) -> KnownArchives:
        """Those of an index."""
        if index is None:
            return cls()
        files: Any = index.files
        inside = np.isin(files["container"], (STORED, DEFLATED))
        found: dict[bytes, tuple[Identity, list[Entry]]] = {}
        for k in np.flatnonzero(inside).tolist():
            entry = entry_of_row(files, k)
            path = object_path(entry.path, entry.member.name)
            found.setdefault(path, (entry.identity, []))[1].append(entry)
        for k, path in enumerate(files["path"] if found else ()):
            if path in found:  # what was wrong with the archive as a whole
                found[path][1].append(entry_of_row(files, k))
        whole = {
            path: (identity, entries)
            for path, (identity, entries) in found.items()
            if all(entry.identity == identity for entry in entries)
        }
        return cls(whole)


NO_ARCHIVES: Final = KnownArchives()


def archive_entries(
    absolute: bytes, path: bytes, *, look: bool, known: KnownArchives, limits: Limits
) -> Iterator[Entry] | None:
    """The members of a file that is an archive; `None` for any other file.

    Args:
        absolute: Where it is.
        path: What it is called in the index.
        look: Whether its first bytes are looked at whatever its name is.
        known: What needs no reading.
        limits: What it may cost.
    """
    if not look and not absolute.lower().endswith(_NAMES):
        return None
    try:
        with LocalFile(absolute) as file:
            identity, kind = file.identity, kind_of(file.read(0, HEAD))
    except StorageError:  # the scan says it
        return None
    if kind is None:
        return None
    before = known.entries.get(path)
    if before is not None and before[0] == identity:
        return iter(before[1])
    return _entries(absolute, path, kind, limits)


def _entries(absolute: bytes, path: bytes, kind: Kind, limits: Limits) -> Iterator[Entry]:
    """What the directory of an archive has, and what is wrong with it."""
    listed: list[Listed] = []
    problem, identity = "", Identity(0, UNREAD)
    try:
        with LocalFile(absolute) as file:
            identity = file.identity
            listed.extend(members(file, kind, limits.archive_members))
    except StorageError as error:
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
