"""What is in a zip or tar archive, and where; nothing is unpacked, and names are labels that nobody opens.

APPNOTE.TXT of PKWARE (zip), POSIX.1-2001 pax and GNU tar. The directory is read by the standard library.
"""

from __future__ import annotations

import errno
import io
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from dicomtorch.errors import StorageError
from dicomtorch.storage.base import Readable
from dicomtorch.storage.members import Place

Kind = Literal["zip", "tar"]

HEAD: Final = 512  # bytes that tell what an archive is
_METHODS: Final = {
    1: "shrink",
    6: "implode",
    9: "Deflate64",
    12: "bzip2",
    14: "LZMA",
    93: "Zstandard",
    95: "xz",
    98: "PPMd",
    99: "AES",
}
_ENTRY: Final = b"PK\x01\x02"
_LOCAL: Final = struct.Struct("<4s5H3I2H")  # a local file header, without name and extra field
_DESCRIPTOR: Final = 0x08  # flag: the sizes follow the data
_ENCRYPTED: Final = 0x01 | 0x40 | 0x2000
_BLOCK: Final = 512
_ZIP64: Final = 0xFFFFFFFF
_FAULTS: Final = (
    *(ValueError, struct.error, NotImplementedError, OverflowError, EOFError),
    *(RecursionError, OSError),  # headers that name headers; places before the beginning
)
"""What the libraries raise too where they meet nonsense."""
_AHEAD: Final = 16 << 10  # bytes
_TAIL: Final = 64 << 10  # bytes at the end of a zip, where its directory is
_LARGEST_ENTRY: Final = 1 << 10  # bytes of a member in the directory of a zip, on average
_LARGEST_HEADER: Final = (
    16 << 20
)  # bytes of what stands before a member of a tar: a name, attributes


@dataclass(frozen=True, slots=True)
class Listed:
    """A member of an archive.

    Attributes:
        name: As the archive has it.
        place: Where it lies; of a zip it may begin later, see `located`.
        problem: Why it is not read, or "".
        header: Of a zip, where its local header is; -1: the place is known.
    """

    name: str
    place: Place
    problem: str = ""
    header: int = -1


def kind_of(head: bytes) -> Kind | None:
    """What kind of archive begins so; `None` if none.

    Args:
        head: The first `HEAD` bytes.
    """
    if head[128:132] == b"DICM":
        return None
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return "zip"
    return "tar" if is_tar(head) else None


def is_tar(head: bytes) -> bool:
    """Whether the first block of a tar archive is this; old ones have no other sign than its checksum."""
    if len(head) < _BLOCK or not head[0]:
        return False
    try:
        tarfile.TarInfo.frombuf(head[:_BLOCK], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def members(archive: Readable, kind: Kind, most: int) -> Iterator[Listed]:
    """Everything in an archive that is no folder, in the order of its directory.

    Args:
        archive: It.
        kind: Of it.
        most: Members that it may have.

    Raises:
        StorageError: The directory is damaged or cannot be read, or has more than `most` members.
    """
    largest = most * _LARGEST_ENTRY + _AHEAD if kind == "zip" else _LARGEST_HEADER
    file = _Bytes(archive, largest, most)
    try:
        if kind == "zip":
            file.read_tail()
        yield from (_in_zip if kind == "zip" else _in_tar)(archive, file, most)
    except StorageError:
        raise
    except (zipfile.BadZipFile, tarfile.TarError, *_FAULTS) as error:
        if file.failure is not None:  # the library took it for its own
            raise file.failure from None
        what = str(error) if isinstance(error, zipfile.BadZipFile) else type(error).__name__
        raise StorageError(
            f"the directory of the {kind} archive is damaged ({what}); load it again"
        ) from error


def located(archive: Readable, listed: Listed) -> Place:
    """Where the bytes of a member of a zip begin: behind its local header, which may be longer than the directory says.

    Raises:
        StorageError: The local header is not there, or says something else than the directory.
    """
    place = listed.place
    if listed.header < 0:
        return place
    head = archive.read(listed.header, _LOCAL.size)
    if len(head) < _LOCAL.size or head[:4] != b"PK\x03\x04":
        raise StorageError(
            f"the archive has no local header at byte {listed.header}, where its directory says"
        )
    _, _, flags, method, _, _, _, length, size, name, extra = _LOCAL.unpack(head)
    sizes_differ = (
        not flags & _DESCRIPTOR
        and _ZIP64 not in (length, size)
        and (length, size) not in ((place.length, place.size), (0, 0))
    )
    if (
        method != (zipfile.ZIP_DEFLATED if place.is_deflated else zipfile.ZIP_STORED)
        or sizes_differ
    ):
        raise StorageError(
            f"the local header at byte {listed.header} of the archive and its directory say different things"
        )
    offset = listed.header + _LOCAL.size + name + extra
    if offset + place.length > archive.identity.size:
        raise StorageError("the archive ends before the member does")
    return place._replace(offset=offset)


def _in_zip(archive: Readable, file: _Bytes, most: int) -> Iterator[Listed]:
    with zipfile.ZipFile(file) as directory:
        infos = directory.infolist()
        end = directory.start_dir
    _check_count(len(infos), most)
    starts = sorted(info.header_offset for info in infos)
    next_of = dict(zip(starts, [*starts[1:], end], strict=False))
    seen: set[int] = set()
    for info in infos:
        if info.filename.endswith("/"):
            continue
        deflated = info.compress_type == zipfile.ZIP_DEFLATED
        place = Place(deflated, -1, info.compress_size, info.file_size, info.CRC)
        room = next_of[info.header_offset] - info.header_offset - _LOCAL.size
        problem = _problem(info)
        if not problem and (info.compress_size > room or info.header_offset in seen):
            problem = "it overlaps other members, which no honest archive does"
        seen.add(info.header_offset)
        yield Listed(info.filename, place, problem, info.header_offset)


def _problem(info: zipfile.ZipInfo) -> str:
    if info.flag_bits & _ENCRYPTED:
        return "it is encrypted; decrypt it and pack it anew"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        name = _METHODS.get(info.compress_type, f"method {info.compress_type}")
        return f"it is compressed with {name}; pack it anew, stored or deflated"
    if info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
        return f"it is stored as it is, but has {info.compress_size} and {info.file_size} bytes"
    return ""


def _in_tar(archive: Readable, file: _Bytes, most: int) -> Iterator[Listed]:
    size = archive.identity.size
    count = 0
    with tarfile.TarFile(fileobj=file) as directory:
        while (info := directory.next()) is not None:
            count += 1
            _check_count(count, most)
            directory.members.clear()  # type: ignore[attr-defined] # kept for a look-up that nobody makes
            if info.isdir():
                continue
            problem = _tar_problem(info)
            if not problem and info.offset_data + info.size > size:
                problem = "the archive ends before the member does, as a download that broke off leaves it"
            yield Listed(info.name, Place(False, info.offset_data, info.size, info.size), problem)
            if info.isreg() and not info.issparse() and info.offset_data + info.size > size:
                return
        at = directory.offset
    rest = archive.read(at, _BLOCK)
    if rest.strip(b"\0"):
        raise StorageError(
            f"the header at byte {at} of the tar archive is damaged; what follows is not read"
        )


def _tar_problem(info: tarfile.TarInfo) -> str:
    if info.issparse():
        return "it is a sparse file, whose bytes do not lie together; unpack it"
    if info.islnk():
        return "a link to another member"
    if info.issym():
        return "a symbolic link"
    if not info.isreg():
        return "no regular file"
    return ""


def _check_count(count: int, most: int) -> None:
    if count > most:
        raise StorageError(
            f"the archive has more members than Limits.archive_members = {most} allows"
        )


class _Bytes(io.RawIOBase):
    """An object as a file of Python's, with a little more read than is asked for."""

    def __init__(self, archive: Readable, largest: int, most: int) -> None:
        self._archive = archive
        self._largest, self._most = largest, most
        self._at = self._ahead_at = 0
        self._ahead = b""
        self.failure: StorageError | None = None

    def read_tail(self) -> None:
        """Reads the end at once, where a library would go back step by step."""
        self._ahead_at = max(self._archive.identity.size - _TAIL, 0)
        self._ahead = self._archive.read(self._ahead_at, _TAIL)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._archive.identity.size}
        if base[whence] + offset < 0:
            raise OSError(errno.EINVAL, "before the beginning")  # as files do
        self._at = base[whence] + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int | None = -1, /) -> bytes:
        try:
            return self._read(size)
        except StorageError as error:
            self.failure = error
            raise

    def _read(self, size: int | None) -> bytes:
        left = max(self._archive.identity.size - self._at, 0)
        length = left if size is None or size < 0 else min(size, left)
        if length > self._largest:
            raise StorageError(
                f"a part of the directory of the archive has {length} bytes, more than {self._largest}, the most that "
                f"Limits.archive_members = {self._most} allows"
            )
        start = self._at - self._ahead_at
        if start < 0 or start + length > len(self._ahead):
            self._ahead = self._archive.read(self._at, max(length, _AHEAD))
            self._ahead_at, start = self._at, 0
        data = self._ahead[start : start + length]
        _check_count(data.count(_ENTRY) if length > _AHEAD else 0, self._most)
        self._at += len(data)
        return data
