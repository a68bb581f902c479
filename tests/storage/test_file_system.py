"""Objects of fsspec: the contract of a storage in memory and on a disk, and what is asked for again."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest

from dicomtorch.errors import OptionError, StaleIndexError, StorageError
from dicomtorch.storage.base import Storage
from dicomtorch.storage.choose import storage_for
from dicomtorch.storage.client import Settings
from dicomtorch.storage.file_system import FileSystemClient
from dicomtorch.storage.remote import RemoteStorage
from tests.storage.conformance import CONTENT, StorageConformance
from tests.support.requirements import require

require("fsspec")
import fsspec  # noqa: E402


class TestMemory(StorageConformance):
    @pytest.fixture(autouse=True)
    def _folder(self) -> None:
        self.root = f"memory://{uuid.uuid4().hex}"
        self.files = fsspec.filesystem("memory")

    @pytest.fixture
    def storage(self) -> Storage:
        return storage_for(self.root.encode(), {})

    def put(self, name: str, content: bytes) -> bytes:
        self.files.pipe_file(f"{self.root}/{name}", content)
        return f"{self.root}/{name}".encode()

    def remove(self, name: bytes) -> None:
        self.files.rm_file(name.decode())


class TestFile(StorageConformance):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    @pytest.fixture
    def storage(self) -> Storage:
        return storage_for(f"file://{self.folder}".encode(), {})

    def put(self, name: str, content: bytes) -> bytes:
        (self.folder / name).write_bytes(content)
        return f"file://{self.folder}/{name}".encode()

    def remove(self, name: bytes) -> None:
        Path(name.decode().removeprefix("file://")).unlink()


class Flaky:
    """A file system that fails so often before it gives what it has."""

    def __init__(self, failures: list[BaseException]) -> None:
        self.failures = failures
        self.asked = 0

    def info(self, url: str) -> dict[str, Any]:
        return {"size": len(CONTENT), "etag": "a"}

    def cat_file(self, url: str, start: int, end: int) -> bytes:
        self.asked += 1
        if self.failures:
            error = self.failures.pop(0)
            if isinstance(error, AssertionError):
                return CONTENT  # the whole object in place of a range
            raise error
        return CONTENT[start:end]


class HttpError(Exception):
    def __init__(self, status: int) -> None:
        super().__init__("https://host/object?signature=SECRET")
        self.status = status


def client_of(files: Flaky, monkeypatch: pytest.MonkeyPatch) -> FileSystemClient:
    monkeypatch.setattr("time.sleep", lambda _: None)
    client = FileSystemClient("memory://x", Settings(max_retries=4))
    monkeypatch.setattr(FileSystemClient, "_files", property(lambda _: files))
    return client


@pytest.mark.parametrize(
    "error",
    [ConnectionResetError(), TimeoutError(), HttpError(503), HttpError(429), AssertionError()],
    ids=repr,
)
def test_what_may_pass_is_asked_for_again(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Flaky([error] * 4)
    answer = client_of(files, monkeypatch).get(b"memory://x/object", 3, 20, None)
    assert answer.data == CONTENT[3:23]
    assert files.asked == 5
    files = Flaky([error] * 5)
    with pytest.raises(StorageError):
        client_of(files, monkeypatch).get(b"memory://x/object", 3, 20, None)
    assert files.asked == 5


@pytest.mark.parametrize(
    "error", [PermissionError("SECRET"), HttpError(403), HttpError(400), HttpError(404)], ids=repr
)
def test_what_does_not_pass_is_said_at_once(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Flaky([error])
    with pytest.raises(StorageError) as caught:
        client_of(files, monkeypatch).get(b"memory://x/object", 3, 20, None)
    assert files.asked == 1
    assert "SECRET" not in str(caught.value)


def test_the_object_changed_between_two_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    client = client_of(Flaky([HttpError(412)]), monkeypatch)
    known = client.head(b"memory://x/object")
    with pytest.raises(StaleIndexError):
        client.get(b"memory://x/object", 0, 10, known)


def test_addresses_and_options_that_mean_nothing() -> None:
    with pytest.raises(OptionError, match="no scheme"):
        storage_for(b"nosuchscheme://x", {}).open(b"nosuchscheme://x/y")
    with pytest.raises(OptionError, match="storage_options") as caught:
        storage_for(b"memory://x", {"key": "SECRET", "io_threads": 0})
    assert "SECRET" not in str(caught.value)
    with pytest.raises(OptionError, match="password"):
        storage_for(b"sftp://user:SECRET@host/x")
    with pytest.raises(OptionError, match="is for addresses"):
        storage_for(b"/data", {"key": "SECRET"})


def test_options_are_remembered_for_their_place_and_shown_nowhere() -> None:
    place = f"memory://{uuid.uuid4().hex}".encode()
    storage = storage_for(place, {"timeout": 7, "secret": "SECRET"})
    assert storage_for(place + b"/a/b") is storage
    assert isinstance(storage, RemoteStorage)
    assert storage.settings.timeout == 7
    assert "SECRET" not in repr(storage) + repr(storage.settings) + str(storage.settings)
