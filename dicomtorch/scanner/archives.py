"""Zip and tar archives as sources: each member is an entry, and nothing is unpacked.

A member of `study.zip` is called `study.zip!/folder/name`, which is a label: it is never opened, whatever it says.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from dicomtorch.errors import StorageError, escaped
from dicomtorch.index.builder import Member
from dicomtorch.index.members import DEFLATED, STORED
from dicomtorch.model.limits import Limits
from dicomtorch.model.report import FileClass
from dicomtorch.model.schema import MEMBER_MARK
from dicomtorch.scanner.entries import UNREAD, Entry
from dicomtorch.storage.archives import HEAD, Kind, Listed, kind_of, members
from dicomtorch.storage.base import Identity
from dicomtorch.storage.local import LocalFile

_NAMES: Final = (b".zip", b".tar")


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
    if not look and not absolute.lower().endswith(_NAMES):
        return None
    try:
        with LocalFile(absolute) as file:
            kind = kind_of(file.read(0, HEAD))
    except StorageError:  # the scan says it
        return None
    if kind is None:
        return None
    # Each time, since an index may hold some of the members only: of a part, or of a scan that was broken off.
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
