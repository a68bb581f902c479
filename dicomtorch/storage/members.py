"""Members of archives as objects of their own: a part of the archive as it lies there, or inflated.

The inflated bytes of the members that were read last are kept, bounded by their size, for all threads of a process.
"""

from __future__ import annotations

import zlib
from typing import Final, NamedTuple

from dicomtorch.errors import StaleIndexError, StorageError
from dicomtorch.storage.base import Identity, Readable, Scratch, Storage, StoredObject
from dicomtorch.storage.kept_bytes import KeptBytes

_PIECE: Final = 64 << 10  # compressed bytes that are read at once
_GROWTH: Final = 4
_DAMAGED: Final = "the archive is damaged, load it again or leave the member out"


class Place(NamedTuple):
    """Where a member lies in its archive.

    Attributes:
        is_deflated: Whether it has to be inflated.
        offset: Of its first byte.
        length: Bytes in the archive.
        size: Bytes when inflated.
        crc: CRC-32 of these; -1: not known.
    """

    is_deflated: bool
    offset: int
    length: int
    size: int
    crc: int = -1


class Window:
    """A part of an object as an object: of an archive, a member that is stored as it is.

    Args:
        archive: What it is a part of; closed with it.
        offset: Of its first byte.
        size: Bytes.
    """

    def __init__(self, archive: StoredObject, offset: int, size: int) -> None:
        self._archive = archive
        self._offset = offset
        self.identity = archive.identity._replace(size=size)

    def read(self, offset: int, length: int) -> bytes:
        """The bytes there; fewer only at the end of the member."""
        length = min(length, self.identity.size - offset)
        return self._archive.read(self._offset + offset, length) if length > 0 else b""

    def read_exactly(self, offset: int, length: int, scratch: Scratch) -> memoryview:
        """All `length` bytes from `offset` on, in memory that the next read into `scratch` overwrites."""
        if offset + length > self.identity.size:
            raise _ends_before(self.identity.size, offset + length)
        return self._archive.read_exactly(self._offset + offset, length, scratch)

    def close(self) -> None:
        """Closes the archive."""
        self._archive.close()


class Inflated:
    """A deflated member as an object: its bytes, inflated already.

    Args:
        data: The bytes.
        identity: Of the archive.
    """

    def __init__(self, data: bytes, identity: Identity) -> None:
        self._data = data
        self.identity = identity._replace(size=len(data))

    def read(self, offset: int, length: int) -> bytes:
        """The bytes there; fewer only at the end of the member."""
        return self._data[offset : offset + length]

    def read_exactly(self, offset: int, length: int, scratch: Scratch) -> memoryview:
        """All `length` bytes from `offset` on; nothing is copied."""
        if offset + length > len(self._data):
            raise _ends_before(len(self._data), offset + length)
        return memoryview(self._data)[offset : offset + length]

    def close(self) -> None:
        """Nothing is open."""


class Inflation:
    """A deflated member (RFC 1951, no zlib header), inflated piece by piece and no further than is asked for.

    Args:
        archive: What it lies in; read while more is asked for.
        place: Where.
        most: Bytes that may come out.

    Attributes:
        data: What was inflated so far.
    """

    def __init__(self, archive: Readable, place: Place, most: int) -> None:
        self._archive = archive
        self._at, self._end = place.offset, place.offset + place.length
        self._most = min(most, place.size)
        self._engine = zlib.decompressobj(-zlib.MAX_WBITS)
        self._size = place.size
        self.data = bytearray()

    def upto(self, end: int) -> bytearray:
        """The first `end` bytes, or all if there are fewer; more if more were asked for before.

        Raises:
            StorageError: They are damaged, or more than the archive says.
        """
        piece = _PIECE
        end = min(end, self._size)
        if end > self._most:
            raise StorageError(
                f"a member of {self._size} bytes is inflated to {self._most} bytes at most"
            )
        while len(self.data) < end and not self._engine.eof:
            compressed = self._engine.unconsumed_tail
            if not compressed:
                compressed = self._archive.read(self._at, min(piece, self._end - self._at))
                if not compressed:
                    break
                self._at += len(compressed)
                piece *= _GROWTH
            try:
                self.data += self._engine.decompress(compressed, end - len(self.data))
            except zlib.error as error:
                raise StorageError(f"the deflated member is damaged: {error}") from error
        if len(self.data) < end:
            raise StorageError(
                f"the deflated member ends after {len(self.data)} of {self._size} bytes"
            )
        return self.data

    def read(self, offset: int, length: int) -> bytes:
        """The bytes there; fewer only at the end of the member."""
        return bytes(self.upto(offset + length)[offset : offset + length])


class InflatedMembers(KeptBytes):
    """The members that were inflated last."""

    def of(self, name: bytes, archive: StoredObject, place: Place) -> Inflated:
        """A deflated member.

        Raises:
            StaleIndexError: The archive ends before it.
            StorageError: It is damaged, or cannot be read.
        """
        key = (name, archive.identity, place)
        return Inflated(self.made(key, lambda: _inflated(archive, place)), archive.identity)

    def has(self, name: bytes, identity: Identity, place: Place) -> bool:
        """Whether a member need not be read for its bytes."""
        return self.holds((name, identity, place))


inflated_members: Final = InflatedMembers()
"""Of this process."""


def open_member(
    storage: Storage, name: bytes, identity: Identity | None, place: Place | None
) -> StoredObject:
    """A file, or a member of an archive, as an object that begins with its first byte.

    Args:
        storage: Where the file is.
        name: Of it.
        identity: That it must have.
        place: Of the member; `None`: the file itself.

    Raises:
        StaleIndexError: It is not what it was when it was indexed.
        StorageError: It cannot be opened.
    """
    file = storage.open(name, identity)
    if place is None:
        return file
    if not place.is_deflated:
        return Window(file, place.offset, place.length)
    try:
        return inflated_members.of(name, file, place)
    finally:
        file.close()


def _inflated(archive: StoredObject, place: Place) -> bytes:
    """All bytes of a deflated member, which is read whole."""
    import imagecodecs  # libdeflate: more than twice as fast as zlib

    compressed = archive.read(place.offset, place.length)
    if len(compressed) < place.length:
        raise _ends_before(archive.identity.size, place.offset + place.length)
    try:
        data = bytes(imagecodecs.deflate_decode(compressed, raw=True, out=place.size))
    except imagecodecs.DeflateError as error:
        raise StorageError(f"the deflated member cannot be inflated; {_DAMAGED}") from error
    if len(data) != place.size:
        raise StorageError(
            f"the deflated member has {len(data)} bytes instead of {place.size}; {_DAMAGED}"
        )
    if place.crc >= 0 and zlib.crc32(data) != place.crc:
        raise StorageError(f"the checksum of the deflated member differs; {_DAMAGED}")
    return data


def _ends_before(size: int, end: int) -> StaleIndexError:
    return StaleIndexError(
        f"the member of the archive has {size} bytes and the frame reaches to byte {end}; refresh the index "
        f"(DicomFrames(root), or scan(root, index=old)) and start again"
    )
