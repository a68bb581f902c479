"""The files that one thread reads from."""

from __future__ import annotations

from dicomtorch.index.builder import Member
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.index.location import FrameLocation
from dicomtorch.index.members import DEFLATED, STORED, WEB
from dicomtorch.storage.base import Identity, Storage, StoredObject
from dicomtorch.storage.members import Place, Window, open_member


class OpenFiles:
    """The files of one thread: the one that was read last stays open, because positions come ordered by file."""

    def __init__(self, index: FrameIndex, storage: Storage) -> None:
        self.index = index
        self._storage = storage
        self._number = -1
        self._file: StoredObject | None = None

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


def identity_of(where: FrameLocation) -> Identity:
    """What the file of a frame was when it was indexed."""
    return Identity(where.size, where.mtime_ns, where.inode, where.version)
