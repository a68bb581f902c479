"""The contract of a storage: ranges of bytes of named objects. Nothing here knows what the bytes mean.

`tests/storage/conformance.py` has the tests that every storage must pass, and `choose.storage_for` says which one the
objects below a root are in.

A member of an archive needs no storage of its own: its bytes are a range of the archive, so a file of the index that is
one names the archive as its object, in whatever storage that lies, and adds where the member begins. What is deflated
is inflated by who reads it, from what the storage of the archive gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol


class Identity(NamedTuple):
    """What tells an object from another one that takes its name.

    Never the device: its number changes with a mount.

    Attributes:
        size: Bytes.
        mtime_ns: Time of the last change, in nanoseconds since 1970.
        inode: Number of the file on its device; 0: not known.
        version: What a store says tells this version of an object from others: an ETag in its quotes, or "modified "
            and a time. Then the time of the last change is 0. "" of a file.
    """

    size: int
    mtime_ns: int
    inode: int = 0
    version: str = ""

    @classmethod
    def of_row(cls, files: Any, row: int) -> Identity:
        """What a row of a table with these columns says."""
        size, mtime_ns, inode = (int(files[name][row]) for name in ("size", "mtime_ns", "inode"))
        return cls(size, mtime_ns, inode, files["version"][row])

    def matches(self, other: Identity) -> bool:
        """Whether both may be of one object: inodes are compared where both are known."""
        return (
            self[:2] == other[:2]
            and (self.inode == other.inode or not self.inode or not other.inode)
            and self.version == other.version
        )


class ByteRange(NamedTuple):
    """Some bytes of an object that is known.

    Attributes:
        name: Of the object.
        identity: That it must have.
        offset: Of the first byte.
        length: Bytes; 0 in a hint is to the end of the object.
    """

    name: bytes
    identity: Identity
    offset: int
    length: int


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


class Readable(Protocol):
    """Bytes of one object at any offset: what reading its header needs."""

    @property
    def identity(self) -> Identity:
        """What it is."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """The bytes there; fewer only at the end of the object."""
        ...


class StoredObject(Protocol):
    """One object, open for reads at any offset, from several threads."""

    @property
    def identity(self) -> Identity:
        """What it is, as found when it was opened."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """The bytes there; fewer only at the end of the object.

        Raises:
            StorageError: They could not be read.
        """
        ...

    def read_exactly(self, offset: int, length: int, scratch: Scratch) -> memoryview:
        """All `length` bytes from `offset` on, in memory that the next read into `scratch` may overwrite.

        Raises:
            StaleIndexError: The object ends before, or is another one.
            StorageError: They could not be read.
        """
        ...

    def close(self) -> None:
        """Ends the use of the object; nothing is read from it any more."""
        ...


class Storage(Protocol):
    """A place that objects lie in.

    Picklable, safe in threads and in forked processes; it holds nothing open between calls.
    """

    @property
    def is_remote(self) -> bool:
        """Whether each read is a request that takes its time, so that what a batch needs is asked for together."""
        ...

    def open(self, name: bytes, identity: Identity | None = None) -> StoredObject:
        """Opens an object.

        Args:
            name: Of the object.
            identity: That it must have; `None`: any.

        Raises:
            StaleIndexError: An identity is given, and the object is gone or another one. A storage that would have to
                ask for it says so when something is read.
            StorageError: It cannot be opened.
        """
        ...

    def read_many(self, ranges: Sequence[ByteRange]) -> list[bytes]:
        """Reads several ranges in whatever order is fastest, and gives them in the order asked for.

        Raises:
            StaleIndexError: An object is gone, another one, or ends before.
            StorageError: Bytes could not be read; both name the object.
        """
        ...

    def will_need(self, ranges: Sequence[ByteRange]) -> None:
        """Says what is read soon, each range as often. A hint: it does not wait, and nothing is said of errors."""
        ...
