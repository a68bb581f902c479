"""The files that one thread reads from."""

from __future__ import annotations

from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.index.location import FrameLocation
from dicomtorch.storage.base import Identity, Storage, StoredObject


class OpenFiles:
    """The files of one thread: the one that was read last stays open, because positions come ordered by file."""

    def __init__(self, index: FrameIndex, storage: Storage) -> None:
        self.index = index
        self._storage = storage
        self._number = -1
        self._file: StoredObject | None = None

    def of(self, where: FrameLocation) -> StoredObject:
        """The file of a frame.

        Raises:
            StaleIndexError: It is not the one that was indexed.
            StorageError: It cannot be opened.
        """
        if self._file is None or where.file != self._number:
            self.close()
            self._file = self._storage.open(self.index.file_path(where.file), identity_of(where))
            self._number = where.file
        return self._file

    def close(self) -> None:
        """Closes what is open."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def __enter__(self) -> OpenFiles:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def identity_of(where: FrameLocation) -> Identity:
    """What the file of a frame was when it was indexed."""
    return Identity(where.size, where.mtime_ns, where.inode, where.version)
