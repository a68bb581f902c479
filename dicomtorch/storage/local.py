"""Files of this machine and of what is mounted on it: positioned reads.

Files are never mapped: one that is truncated under its mapping ends the process, a positioned read raises.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from types import TracebackType

from dicomtorch.errors import (
    DicomTorchError,
    StaleIndexError,
    StorageError,
    printable,
    without_path,
)
from dicomtorch.storage.base import ByteRange, Identity, Scratch
from dicomtorch.storage.files import identity_of, kind_of, open_at_once, reason_of

_REFRESH = "refresh the index (DicomFrames(root), or scan(root, index=old)) and start again"


class LocalFile:
    """One file, open for positioned reads; a context manager.

    Safe to read from several threads where the system has positioned reads.

    Args:
        path: Absolute.
        identity: That it must have; `None`: any.

    Attributes:
        identity: What was found when it was opened.

    Raises:
        StaleIndexError: An identity is given, and the file is gone or another one.
        StorageError: It cannot be opened, or is no regular file.
    """

    __slots__ = ("_changed_ns", "_descriptor", "identity")

    def __init__(self, path: bytes, identity: Identity | None = None) -> None:
        try:
            self._descriptor = open_at_once(path)
        except OSError as error:
            if identity is not None and isinstance(error, FileNotFoundError | NotADirectoryError):
                raise StaleIndexError(
                    f"the file is gone since it was indexed; {_REFRESH}"
                ) from without_path(error)
            raise storage_error("opened", error) from without_path(error)
        try:
            self.identity = self._identified(identity)
        except BaseException:
            os.close(self._descriptor)
            raise

    def _identified(self, expected: Identity | None) -> Identity:
        try:
            info = os.fstat(self._descriptor)
        except OSError as error:
            raise storage_error("looked at", error) from error
        self._changed_ns = info.st_ctime_ns
        seen = (info.st_size, info.st_mtime_ns, info.st_ino, "")
        if expected is not None and seen == expected and stat.S_ISREG(info.st_mode):
            return expected  # nearly always, so first
        if not stat.S_ISREG(info.st_mode):
            if expected is None:
                raise StorageError(f"it is {kind_of(info.st_mode)}, and no regular file")
            raise StaleIndexError(f"it is no longer a regular file; {_REFRESH}")
        found = identity_of(info)
        if expected is not None and not found.matches(expected):
            raise StaleIndexError(_difference(expected, found))
        return found

    @property
    def is_untouched(self) -> bool:
        """Whether neither content nor names of the file changed since it was opened, as far as that can be told of it.

        What happens to a folder above it does not show.
        """
        try:
            info = os.fstat(self._descriptor)
        except OSError:
            return False
        return info.st_ctime_ns == self._changed_ns and info.st_nlink > 0

    def __enter__(self) -> LocalFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Gives the file back to the system."""
        os.close(self._descriptor)

    def read(self, offset: int, length: int) -> bytes:
        """The bytes there; fewer only at the end of the file.

        Raises:
            StorageError: The system refused.
        """
        try:
            return read_at(self._descriptor, offset, length)
        except OSError as error:
            raise storage_error("read", error) from error

    def read_exactly(self, offset: int, length: int, scratch: Scratch) -> memoryview:
        """All `length` bytes from `offset` on, in memory that the next read into `scratch` overwrites.

        Raises:
            StaleIndexError: The file became shorter.
            StorageError: The system refused.
        """
        view = rest = scratch.view(length)
        done = 0
        while done < length:
            try:
                count = _read_into(self._descriptor, rest, offset + done)
            except OSError as error:
                raise storage_error("read", error) from error
            if not count:
                raise StaleIndexError(
                    f"the file ends {length - done} bytes before byte {offset + length}, to which it "
                    f"reached when it was indexed; {_REFRESH}"
                )
            done += count
            rest = view[done:]
        return view


class LocalStorage:
    """Files by their absolute paths."""

    is_remote = False

    def open(self, name: bytes, identity: Identity | None = None) -> LocalFile:
        """Opens a file; see `LocalFile`."""
        return LocalFile(name, identity)

    def read_many(self, ranges: Sequence[ByteRange]) -> list[bytes]:
        """Reads several ranges, file by file in the order of their offsets.

        Raises:
            StaleIndexError: A file is gone, another one, or became shorter.
            StorageError: The system refused; both name the file.
        """
        results = [b""] * len(ranges)
        file, opened = None, None
        try:
            for k in sorted(range(len(ranges)), key=ranges.__getitem__):
                wanted = ranges[k]
                if file is None or opened != wanted[:2]:
                    if file is not None:
                        file.close()
                        file = None
                    file, opened = LocalFile(wanted.name, wanted.identity), wanted[:2]
                results[k] = bytes(file.read_exactly(wanted.offset, wanted.length, Scratch()))
        except DicomTorchError as error:
            raise type(error)(f"{printable(wanted.name)}: {error}") from error
        finally:
            if file is not None:
                file.close()
        return results

    def will_need(self, ranges: Sequence[ByteRange]) -> None:
        """Asks the system to read parts of files into its cache."""
        if not hasattr(os, "posix_fadvise"):
            return
        for wanted in sorted(set(ranges)):
            try:
                descriptor = open_at_once(wanted.name)
            except OSError:  # the read itself will say so
                continue
            try:
                os.posix_fadvise(descriptor, wanted.offset, wanted.length, os.POSIX_FADV_WILLNEED)
            except OSError:
                continue
            finally:
                os.close(descriptor)


def read_at(descriptor: int, offset: int, length: int) -> bytes:
    """The bytes there; fewer only at the end of the file.

    Raises:
        OSError: The system refused.
    """
    data = _pread(descriptor, length, offset)
    if len(data) == length or not data:
        return data
    parts = [data]
    while data and length > len(data):
        offset, length = offset + len(data), length - len(data)
        data = _pread(descriptor, length, offset)
        parts.append(data)
    return b"".join(parts)


def _difference(expected: Identity, found: Identity) -> str:
    if expected.version:
        return f"the index is of an object in a store, and no file has a version; {_REFRESH}"
    was, now = (f"{one.size} bytes and time {one.mtime_ns} ns" for one in (expected, found))
    if was != now:
        return f"the file changed since it was indexed: it had {was}, now it has {now}; {_REFRESH}"
    return (
        f"another file took its place since it was indexed: it has the same {was}, but inode "
        f"{found.inode} and not {expected.inode}; {_REFRESH}"
    )


def storage_error(what: str, error: OSError) -> StorageError | MemoryError:
    """What to raise for an error of the system: a lack of memory is no fault of the file."""
    if error.errno == errno.ENOMEM:
        return MemoryError(f"no memory is left; the file could not be {what}")
    return StorageError(f"the file cannot be {what}: {reason_of(error)}")


if hasattr(os, "preadv"):
    _pread = os.pread

    def _read_into(descriptor: int, view: memoryview, offset: int) -> int:
        return os.preadv(descriptor, [view], offset)

else:  # pragma: no cover - Windows
    import threading

    _seek_lock = threading.Lock()  # Windows does not fork

    def _pread(descriptor: int, length: int, offset: int, /) -> bytes:
        with _seek_lock:
            os.lseek(descriptor, offset, os.SEEK_SET)
            return os.read(descriptor, length)

    def _read_into(descriptor: int, view: memoryview, offset: int) -> int:
        data = _pread(descriptor, len(view), offset)
        view[: len(data)] = data
        return len(data)
