"""Byte ranges of files: positioned reads of files that are still the ones that were indexed.

Files are never mapped: one that is truncated under its mapping ends the process, a positioned read raises.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import zlib
from types import TracebackType

from dicomtorch.errors import StaleIndexError, StorageError
from dicomtorch.model.limits import LIMITS
from dicomtorch.storage.files import int64

_REFRESH = "refresh the index (DicomFrames(root), or scan(root, index=old)) and start again"


_FLAGS = os.O_RDONLY
for _flag in ("O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):
    _FLAGS |= getattr(os, _flag, 0)

_LONG_VRS = frozenset(
    (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
)


class StoredFile:
    """One file, open for positioned reads, checked to have the size and time that the index knows.

    A context manager; safe to read from several threads where the system has positioned reads.

    Args:
        path: Absolute.
        size: Bytes it must have.
        mtime_ns: Time of its last change.
        deflated: Offsets count in the inflated data set.

    Raises:
        StaleIndexError: It is gone, or not the file that was indexed.
        StorageError: It cannot be opened.
    """

    def __init__(self, path: bytes, size: int, mtime_ns: int, *, deflated: bool = False) -> None:
        self.path = path
        self._size = size
        self._mtime_ns = mtime_ns
        self._deflated = deflated
        try:
            self._descriptor = os.open(path, _FLAGS)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise StaleIndexError(f"the file is gone since it was indexed; {_REFRESH}") from error
        except OSError as error:
            raise _storage_error("opened", error) from error
        try:
            self._check()
        except BaseException:
            os.close(self._descriptor)
            raise

    def _check(self) -> None:
        info = os.fstat(self._descriptor)
        if not stat.S_ISREG(info.st_mode):
            raise StaleIndexError(f"it is no longer a regular file; {_REFRESH}")
        mtime_ns = int64(info.st_mtime_ns)
        if (info.st_size, mtime_ns) != (self._size, self._mtime_ns):
            raise StaleIndexError(
                f"the file changed since it was indexed: it had {self._size} bytes and time "
                f"{self._mtime_ns} ns, now it has {info.st_size} bytes and time {mtime_ns} ns; "
                f"{_REFRESH}"
            )

    def __enter__(self) -> StoredFile:
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

    def read(self, offset: int, length: int, scratch: Scratch) -> memoryview:
        """Exactly `length` bytes from `offset` on, in memory that the next read into `scratch` overwrites.

        Raises:
            StaleIndexError: The file became shorter.
            StorageError: The system refused.
        """
        if self._deflated:
            return self._read_inflated(offset, length)
        view = scratch.view(length)
        _fill(self._descriptor, view, offset)
        return view

    def _read_inflated(self, offset: int, length: int) -> memoryview:
        data = _inflated.get(self.path, self._size, self._mtime_ns, self._descriptor)
        if len(data) < offset + length:
            raise StaleIndexError(
                f"the inflated data set has {len(data)} bytes and the frame ends at {offset + length}; {_REFRESH}"
            )
        return memoryview(data)[offset : offset + length]


class Scratch:
    """Memory of one thread that encoded frames are read into, again and again."""

    def __init__(self) -> None:
        self._memory = bytearray(0)

    def view(self, length: int) -> memoryview:
        """`length` writable bytes; whatever was there before is overwritten."""
        if len(self._memory) < length:
            # A new object: the old one may still be exported to somebody's view.
            self._memory = bytearray(max(length, 2 * len(self._memory)))
        return memoryview(self._memory)[:length]


def will_need(path: bytes, offset: int, length: int) -> None:
    """Asks the system to read part of a file into its cache; length 0 is to the end. A hint: it fails in silence."""
    if not hasattr(os, "posix_fadvise"):
        return
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # the read itself will say so
        return
    try:
        os.posix_fadvise(descriptor, offset, length, os.POSIX_FADV_WILLNEED)
    except OSError:
        return
    finally:
        os.close(descriptor)


class _Inflated:
    """The last data set that was inflated: its frames are usually read one after the other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # One object, so that an interrupt or a fork never leaves the bytes of one file under the name of another.
        self._last: tuple[tuple[bytes, int, int] | None, bytes] = (None, b"")

    def get(self, path: bytes, size: int, mtime_ns: int, descriptor: int) -> bytes:
        key = (path, size, mtime_ns)
        with self._lock:
            if self._last[0] != key:
                self._last = (None, b"")  # room for the next one
                self._last = (key, _inflate(descriptor, size))
            return self._last[1]

    def renew_lock(self) -> None:
        # Another thread may have held it when the process was forked.
        self._lock = threading.Lock()


_inflated = _Inflated()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_inflated.renew_lock)


def _inflate(descriptor: int, size: int) -> bytes:
    """The data set of a deflated file: all that follows the file meta group (PS3.5 A.5)."""
    content = memoryview(bytearray(size))
    _fill(descriptor, content, 0)
    start = deflated_offset(content)
    most = min(LIMITS.inflated_bytes, LIMITS.inflated_ratio * size + (64 << 10))
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        data = inflater.decompress(content[start:], most)
    except zlib.error as error:
        raise StorageError(f"the deflated data set is damaged ({error})") from error
    if inflater.unconsumed_tail:
        raise StorageError(
            f"the data set inflates to more than {most} bytes (Limits.inflated_bytes, inflated_ratio)"
        )
    return data


def deflated_offset(content: memoryview | bytes) -> int:
    """Where the data set of a Part 10 file begins: after the preamble, if there is one, and group 0002 (PS3.10 7.1).

    The group is passed over element by element: its stated length is absent or wrong in some files.
    """
    position = 132 if bytes(content[128:132]) == b"DICM" else 0
    while bytes(content[position : position + 2]) == b"\x02\x00":
        head = bytes(content[position : position + 12])
        if head[4:6] in _LONG_VRS:
            position += 12 + int.from_bytes(head[8:12], "little")
        elif head[4:6].isalpha() and head[4:6].isupper():
            position += 8 + int.from_bytes(head[6:8], "little")
        else:  # Implicit VR, which the standard does not have here
            position += 8 + int.from_bytes(head[4:8], "little")
    return position


def _fill(descriptor: int, view: memoryview, offset: int) -> None:
    """Reads all of `view` from `offset` on."""
    done = 0
    while done < len(view):
        try:
            count = _read_into(descriptor, view[done:], offset + done)
        except OSError as error:
            raise _storage_error("read", error) from error
        if not count:
            raise StaleIndexError(
                f"the file ends {len(view) - done} bytes before byte {offset + len(view)}, to which it "
                f"reached when it was indexed; {_REFRESH}"
            )
        done += count


def _storage_error(what: str, error: OSError) -> StorageError:
    name = errno.errorcode.get(error.errno or 0, "unknown error")
    return StorageError(f"the file cannot be {what}: {error.strerror or error} ({name})")


if hasattr(os, "preadv"):

    def _read_into(descriptor: int, view: memoryview, offset: int) -> int:
        return os.preadv(descriptor, [view], offset)

else:  # pragma: no cover - Windows
    _seek_lock = threading.Lock()

    def _read_into(descriptor: int, view: memoryview, offset: int) -> int:
        with _seek_lock:
            os.lseek(descriptor, offset, os.SEEK_SET)
            data = os.read(descriptor, len(view))
        view[: len(data)] = data
        return len(data)
