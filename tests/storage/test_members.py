"""Members of archives as objects: the contract of a storage, what is kept inflated, and damage."""

from __future__ import annotations

import concurrent.futures
import os
import threading
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from dicomtorch.errors import StaleIndexError, StorageError
from dicomtorch.storage import members
from dicomtorch.storage.base import ByteRange, Identity, Scratch, Storage, StoredObject
from dicomtorch.storage.choose import storage_for
from dicomtorch.storage.local import LocalFile, LocalStorage
from dicomtorch.storage.members import Inflated, InflatedMembers, Inflation, Place, open_member
from tests.storage.conformance import CONTENT, StorageConformance
from tests.support.http_server import http_server
from tests.support.requirements import require

BEFORE = b"what stands in front" * 3


def deflated(content: bytes) -> bytes:
    engine = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    return engine.compress(content) + engine.flush()


class Archives:
    """A storage whose objects are the one member of an archive each."""

    is_remote = False

    def __init__(self, is_deflated: bool, inner: Storage | None = None) -> None:
        self.is_deflated = is_deflated
        self.inner = inner or LocalStorage()
        self.known: dict[bytes, tuple[Place, Identity]] = {}

    def open(self, name: bytes, identity: Identity | None = None) -> StoredObject:
        if identity is None:
            file = self.inner.open(name)
            length = file.identity.size - len(BEFORE)
            data = file.read(len(BEFORE), length)
            size = len(zlib.decompress(data, -15)) if self.is_deflated else length
            place = Place(self.is_deflated, len(BEFORE), length, size)
            archive = file.identity
            file.close()
            self.known[name] = place, archive
        else:
            place, archive = self.known[name]
            archive = identity._replace(size=identity.size - place.size + archive.size)
        return open_member(self.inner, name, archive, place)

    def read_many(self, ranges: Sequence[ByteRange]) -> list[bytes]:
        result = []
        for name, identity, offset, length in ranges:
            try:
                result.append(
                    bytes(self.open(name, identity).read_exactly(offset, length, Scratch()))
                )
            except StaleIndexError as error:
                raise StaleIndexError(f"{os.fsdecode(name)}: {error}") from error
        return result

    def will_need(self, ranges: Sequence[ByteRange]) -> None: ...


class _Conformance(StorageConformance):
    is_deflated = False

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    @pytest.fixture
    def storage(self) -> Storage:
        return Archives(self.is_deflated)

    def put(self, name: str, content: bytes) -> bytes:
        path = self.folder / name
        path.write_bytes(BEFORE + (deflated(content) if self.is_deflated else content))
        return os.fsencode(path)

    def remove(self, name: bytes) -> None:
        os.unlink(name)


class TestStored(_Conformance):
    """A part of an archive."""


class TestDeflated(_Conformance):
    """An inflated member."""

    is_deflated = True

    def test_scratch_memory_is_used_again(self, storage: Storage, name: bytes) -> None:
        opened, scratch = storage.open(name), Scratch()
        first = opened.read_exactly(0, 16, scratch)
        opened.read_exactly(16, 16, scratch)
        assert bytes(first) == CONTENT[:16]  # what is in memory is not copied


class _OfServer(_Conformance):
    """The same of archives that a server has."""

    address: str

    @pytest.fixture(autouse=True)
    def _server(self, tmp_path: Path) -> Iterator[None]:
        require("obstore")
        with http_server(tmp_path) as self.address:
            yield

    @pytest.fixture
    def storage(self) -> Storage:
        return Archives(self.is_deflated, storage_for(self.address.encode(), {}))

    def put(self, name: str, content: bytes) -> bytes:
        super().put(name, content)
        return f"{self.address}/{name}".encode()

    def remove(self, name: bytes) -> None:
        (self.folder / name.decode().rpartition("/")[2]).unlink()


class TestStoredOfServer(_OfServer):
    """A part of an archive of a server."""


class TestDeflatedOfServer(_OfServer):
    """An inflated member of an archive of a server; one that is at hand is not asked for, and so never stale."""

    is_deflated = True

    @pytest.fixture(autouse=True)
    def _none_at_hand(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(InflatedMembers, "_find", lambda self, key: None)


def archive(tmp_path: Path, data: bytes, name: str = "archive") -> LocalFile:
    (tmp_path / name).write_bytes(data)
    return LocalFile(os.fsencode(tmp_path / name))


def test_no_more_is_inflated_than_is_asked_for(tmp_path: Path) -> None:
    content = os.urandom(1 << 18) * 4
    data = deflated(content)
    read: list[int] = []

    class Counting(LocalFile):
        def read(self, offset: int, length: int) -> bytes:
            read.append(length)
            return super().read(offset, length)

    (tmp_path / "archive").write_bytes(data)
    with Counting(os.fsencode(tmp_path / "archive")) as file:
        inflation = Inflation(file, Place(True, 0, len(data), len(content)), len(content))
        assert inflation.read(100, 50) == content[100:150]
        assert len(inflation.data) == 150
        assert sum(read) == 1 << 16
        assert inflation.read(len(content) - 10, 100) == content[-10:]
        assert inflation.read(0, 100) == content[:100]
        assert sum(read) <= len(data)


def test_a_member_that_is_not_what_the_directory_says(tmp_path: Path) -> None:
    content = b"some words " * 1000
    data = deflated(content)
    good = Place(True, 0, len(data), len(content), zlib.crc32(content))
    with archive(tmp_path, data) as file:
        assert InflatedMembers().of(b"", file, good).read(0, 1 << 20) == content
        cases = {
            "checksum": good._replace(crc=5),
            "instead of": good._replace(size=len(content) + 1),
            "cannot be inflated": good._replace(size=len(content) - 1),
        }
        for message, place in cases.items():
            with pytest.raises(StorageError, match=message):
                InflatedMembers().of(b"", file, place)
        with pytest.raises(StorageError, match="cannot be inflated"):
            InflatedMembers().of(b"", file, good._replace(length=len(data) - 9))
        with pytest.raises(StaleIndexError, match="reaches to byte"):
            InflatedMembers().of(b"", file, good._replace(length=len(data) + 9))
        with pytest.raises(StorageError, match=r"ends after 11000 of 11001"):
            Inflation(file, good._replace(size=11001), 1 << 20).upto(11001)
        with pytest.raises(StorageError, match="to 50 bytes at most"):
            Inflation(file, good, 50).upto(51)
    with archive(tmp_path, b"\xff" * 100) as file, pytest.raises(StorageError, match="is damaged"):
        Inflation(file, Place(True, 0, 100, 500), 1000).upto(5)


def counted(calls: list[Any], real: Any) -> Any:
    """The same function, which says how often it was called."""

    def call(*arguments: Any) -> Any:
        calls.append(arguments)
        return real(*arguments)

    return call


def test_what_is_kept_is_bounded_by_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    monkeypatch.setattr(members, "_inflated", counted(made, members._inflated))
    kept = InflatedMembers(2500)
    data = deflated(bytes(1000))
    with archive(tmp_path, data) as file:
        place = Place(True, 0, len(data), 1000)
        for name in (b"a", b"b", b"a", b"b"):
            kept.of(name, file, place)
        assert (len(made), kept.size) == (2, 2000)
        kept.of(b"a", file, place)
        kept.of(b"c", file, place)  # "b" was used longest ago
        kept.of(b"a", file, place)
        assert (len(made), kept.size) == (3, 2000)
        kept.of(b"b", file, place)
        assert (len(made), kept.size) == (4, 2000)
    large = deflated(bytes(9000))
    with archive(tmp_path, large, "large") as file:
        kept.of(b"large", file, Place(True, 0, len(large), 9000))
        kept.of(b"large", file, Place(True, 0, len(large), 9000))
        assert (len(made), kept.size) == (5, 9000)


def test_threads_that_want_one_member_inflate_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = deflated(CONTENT)
    made: list[Any] = []
    gate = threading.Barrier(4)
    monkeypatch.setattr(members, "_inflated", counted(made, members._inflated))
    kept = InflatedMembers()

    def want(file: LocalFile) -> Inflated:
        gate.wait()
        return kept.of(b"", file, Place(True, 0, len(data), len(CONTENT)))

    with archive(tmp_path, data) as file, concurrent.futures.ThreadPoolExecutor(4) as pool:
        results = list(pool.map(want, [file] * 4))
    assert len(made) == 1
    assert {each.read(0, 1 << 20) for each in results} == {CONTENT}
