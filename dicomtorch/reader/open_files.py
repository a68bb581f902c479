"""The files that one thread reads from."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from weakref import ref

from dicomtorch.index.builder import Member
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.index.location import FrameLocation
from dicomtorch.index.members import DEFLATED, STORED, WEB
from dicomtorch.storage.base import Identity, Storage, StoredObject
from dicomtorch.storage.local import LocalFile, LocalStorage
from dicomtorch.storage.members import Place, Window, inflated_members, open_member


class OpenFiles:
    """The files of one thread: the one that was read last stays open, because positions come ordered by file."""

    def __init__(self, index: FrameIndex, storage: Storage) -> None:
        self.index = index
        self._storage = storage
        self._number = -1
        self._file: StoredObject | None = None

    @property
    def is_remote(self) -> bool:
        """Whether each read is a request."""
        return self._storage.is_remote

    def of(self, where: FrameLocation) -> StoredObject:
        """What the offsets of a frame count in: its file, its archive, or its inflated member.

        Raises:
            StaleIndexError: It is not the one that was indexed.
            StorageError: It cannot be opened.
        """
        if self._file is None or where.file != self._number:
            self.close()
            self._file = self._opened(where)
            self._number = where.file
        return self._file

    def _opened(self, where: FrameLocation) -> StoredObject:
        index, identity = self.index, identity_of(where)
        if where.container != DEFLATED:
            return self._storage.open(index.object_path(where.file), identity)
        place = place_of(index.member(where.file))
        return open_member(self._storage, index.object_path(where.file), identity, place)

    def whole(self, where: FrameLocation) -> StoredObject:
        """The same as an object that begins with the first byte of the DICOM file, also where it is in an archive."""
        file = self.of(where)
        if where.container != STORED:
            return file
        member = self.index.member(where.file)
        return Window(file, member.offset, member.length)

    def beginning(self, where: FrameLocation, most: int) -> tuple[Identity, bytes]:
        """What a frame is read from, and the first bytes that are read for it; nothing is inflated.

        Args:
            where: The frame.
            most: How many bytes at most.

        Raises:
            StaleIndexError: The file is not the one that was indexed.
            StorageError: It cannot be read.
        """
        if where.container == WEB:  # an instance of a server never changes
            return identity_of(where), b""
        if where.container == DEFLATED:
            member = self.index.member(where.file)
            name = self.index.object_path(where.file)
            archive = self._storage.open(name, identity_of(where))
            try:
                return archive.identity, archive.read(member.offset, min(member.length, most))
            finally:
                archive.close()
        file = self.whole(where) if where.deflated else self.of(where)
        start, length = (0, file.identity.size) if where.deflated else where.span[:2]
        return file.identity, file.read(start, min(length, most))

    def close(self) -> None:
        """Closes what is open."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def __enter__(self) -> OpenFiles:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def place_of(member: Member) -> Place | None:
    """Where a member lies in its archive; `None` if it is in none."""
    if not member.container:
        return None
    return Place(member.container == DEFLATED, *member[2:])


def is_inflated(index: FrameIndex, where: FrameLocation) -> bool:
    """Whether a frame is in a deflated member of an archive that this process has at hand."""
    if where.container != DEFLATED:
        return False
    place = place_of(index.member(where.file))
    assert place is not None
    return inflated_members.has(index.object_path(where.file), identity_of(where), place)


class KeptFiles(OpenFiles):
    """The same, but the files of this machine that a thread read last stay open for its next call.

    Opening a slide again for each tile takes as long as reading the tile. A file that is open may be changed, gone or
    replaced by now: each `KeptFiles` looks at it again, and at its path if it was touched; one is made for each call.
    Reads have positions of their own, so that a forked child may go on with what its parent has open.
    """

    _stays = False  # the file that was read last

    def of(self, where: FrameLocation) -> StoredObject:
        """The file of a frame; see `OpenFiles.of`."""
        if self._file is None or where.file != self._number:
            if self._file is not None:
                self.close()
            last = _kept.files.last_of(self.index, where.file)
            if last is not None:
                self._file, self._number, self._stays = last, where.file, True
                return last
            path, identity = self.index.object_path(where.file), identity_of(where)
            self._stays = where.container != DEFLATED and _can_stay(self._storage, identity)
            file = _kept.files.taken(path, identity) if self._stays else None
            self._file = file or self._opened(where)
            self._number = where.file
            if isinstance(self._file, LocalFile) and self._stays:
                _kept.files.keep(path, identity, self._file)
                _kept.files.last = ref(self.index), where.file, self._file
        return self._file

    def close(self) -> None:
        """Closes what does not stay open."""
        if self._stays:
            self._file = None
        else:
            super().close()


MOST_KEPT = 4
"""Files that stay open in each thread."""


class _Files:
    """What one thread has open, the oldest first; closed when the thread ends."""

    def __init__(self) -> None:
        self._open: dict[tuple[bytes, Identity], LocalFile] = {}
        # The newest, and what it is in which index: mostly the next one, too.
        self.last: tuple[ref[FrameIndex], int, LocalFile] | None = None

    def last_of(self, index: FrameIndex, number: int) -> LocalFile | None:
        """The newest file, if it is that one and was not touched."""
        last = self.last
        if last is None or last[1] != number or last[0]() is not index or not last[2].is_untouched:
            return None
        return last[2]

    def taken(self, path: bytes, identity: Identity) -> LocalFile | None:
        """The file, if it is open and its path still leads to it."""
        self.last = None
        file = self._open.pop((path, identity), None)
        if file is not None and not (file.is_untouched or _leads_to(path, identity)):
            file.close()
            return None
        return file

    def keep(self, path: bytes, identity: Identity, file: LocalFile) -> None:
        """Makes it the newest."""
        self._open[path, identity] = file
        if len(self._open) > MOST_KEPT:
            self._open.pop(next(iter(self._open))).close()

    def __del__(self) -> None:
        for file in self._open.values():
            # At the end of the process nothing may be left to close it with.
            with contextlib.suppress(Exception):
                file.close()


class _Kept(threading.local):
    def __init__(self) -> None:
        self.files = _Files()


_kept = _Kept()


def _can_stay(storage: Storage, identity: Identity) -> bool:
    """Whether it can be told from one that takes its place, and removing it is not hindered."""
    return type(storage) is LocalStorage and identity.inode > 0 and os.name == "posix"


def _leads_to(path: bytes, identity: Identity) -> bool:
    try:
        info = os.stat(path)
    except OSError:
        return False
    seen = (info.st_size, info.st_mtime_ns, info.st_ino)
    return seen == identity[:3] and stat.S_ISREG(info.st_mode)


def identity_of(where: FrameLocation) -> Identity:
    """What the file of a frame was when it was indexed."""
    return Identity(where.size, where.mtime_ns, where.inode, where.version)
