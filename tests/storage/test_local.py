"""Files of this machine: the contract of a storage, and what the system may do to a reader."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from dicomtorch.errors import StaleIndexError, StorageError
from dicomtorch.storage import local
from dicomtorch.storage.base import Identity, Scratch, Storage
from dicomtorch.storage.local import LocalFile, LocalStorage
from tests.storage.conformance import StorageConformance


class TestConformance(StorageConformance):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    @pytest.fixture
    def storage(self) -> Storage:
        return LocalStorage()

    def put(self, name: str, content: bytes) -> bytes:
        path = self.folder / name
        path.write_bytes(content)
        return os.fsencode(path)

    def remove(self, name: bytes) -> None:
        os.unlink(name)


@pytest.fixture
def path(tmp_path: Path) -> bytes:
    (tmp_path / "file").write_bytes(bytes(range(100)))
    return os.fsencode(tmp_path / "file")


def identity(path: bytes) -> Identity:
    with LocalFile(path) as file:
        return file.identity


def test_scratch_memory_is_used_again(path: bytes) -> None:
    scratch = Scratch()
    with LocalFile(path) as file:
        first = file.read_exactly(0, 16, scratch)
        file.read_exactly(16, 16, scratch)
    assert bytes(first) == bytes(range(16, 32))


def test_a_file_replaced_by_one_of_equal_size_and_time_is_another(
    path: bytes, tmp_path: Path
) -> None:
    before, info = identity(path), os.stat(path)
    (tmp_path / "new").write_bytes(bytes(100))
    os.utime(tmp_path / "new", ns=(info.st_atime_ns, info.st_mtime_ns))
    os.replace(tmp_path / "new", path)
    with pytest.raises(StaleIndexError, match=r"another file took its place .* same 100 bytes"):
        LocalFile(path, before)
    LocalFile(path, before._replace(inode=0)).close()


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_a_file_that_cannot_be_looked_at(
    path: bytes, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, real = identity(path), os.fstat
    opened: list[int] = []

    def fail(descriptor: int) -> Any:
        opened.append(descriptor)
        raise OSError(number, os.strerror(number))

    message = ""
    with monkeypatch.context() as patched:
        patched.setattr(os, "fstat", fail)
        try:
            LocalFile(path, known)
        except StorageError as error:
            message = str(error)
    assert "cannot be looked at: " in message
    assert f"({errno.errorcode[number]})" in message
    with pytest.raises(OSError, match="Bad file descriptor"):
        real(opened[0])


def test_short_reads_are_gone_on_with(path: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    pread = os.pread
    monkeypatch.setattr(local, "_pread", lambda fd, length, at: pread(fd, min(length, 7), at))
    monkeypatch.setattr(
        local, "_read_into", lambda fd, view, at: os.preadv(fd, [view[: min(len(view), 7)]], at)
    )
    with LocalFile(path) as file:
        assert file.read(3, 50) == bytes(range(3, 53))
        assert bytes(file.read_exactly(3, 50, Scratch())) == bytes(range(3, 53))


def test_an_error_of_the_system_is_named(path: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(local, "_pread", fail)
    monkeypatch.setattr(local, "_read_into", fail)
    with LocalFile(path) as file:
        with pytest.raises(StorageError, match=r"cannot be read: .* \(EIO\)"):
            file.read(0, 1)
        with pytest.raises(StorageError, match=r"cannot be read: .* \(EIO\)"):
            file.read_exactly(0, 1, Scratch())


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    name = os.fsencode(tmp_path / "fifo")
    with pytest.raises(StorageError, match="a FIFO"):
        LocalFile(name)
    info = os.stat(name)
    assert stat.S_ISFIFO(info.st_mode)
    with pytest.raises(StaleIndexError, match="no longer a regular file"):
        LocalFile(name, Identity(info.st_size, info.st_mtime_ns))
