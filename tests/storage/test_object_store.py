"""Objects of S3 and of plain HTTP servers: the contract of a storage, faults, and what is never said."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomtorch.errors import DicomTorchError, StaleIndexError, StorageError
from dicomtorch.storage.base import ByteRange, Scratch, Storage
from dicomtorch.storage.choose import storage_for
from dicomtorch.storage.remote import RemoteStorage
from tests.storage.conformance import CONTENT, StorageConformance
from tests.support.http_server import counts, http_server
from tests.support.requirements import require
from tests.support.servers import S3, SECRET, nginx, s3_server

require("obstore")


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    require("moto")
    with s3_server() as server:
        server.client.create_bucket(Bucket="bucket")
        yield server


class TestS3(StorageConformance):
    @pytest.fixture(autouse=True)
    def _server(self, s3: S3) -> None:
        self.s3 = s3

    @pytest.fixture
    def storage(self) -> Storage:
        return storage_for(b"s3://bucket", self.s3.options)

    def put(self, name: str, content: bytes) -> bytes:
        self.s3.client.put_object(Bucket="bucket", Key=f"x/{name}", Body=content)
        return f"s3://bucket/x/{name}".encode()

    def remove(self, name: bytes) -> None:
        key = name.decode().removeprefix("s3://bucket/")
        self.s3.client.delete_object(Bucket="bucket", Key=key)


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT"])
def test_an_endpoint_of_the_environment_may_be_plain_http(
    s3: S3, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """As boto3 takes it: a MinIO beside the cluster often has no certificate."""
    s3.client.put_object(Bucket="bucket", Key="plain/1", Body=b"123")
    monkeypatch.setenv(name, s3.options["endpoint"])
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    storage = storage_for(b"s3://bucket", {"skip_signature": True})
    assert isinstance(storage, RemoteStorage)
    ((found, identity),) = storage.listed(b"s3://bucket/plain")
    assert (found, identity.size) == (b"s3://bucket/plain/1", 3)


class OfFolder(StorageConformance):
    """A server of the files of a folder."""

    folder: Path
    address: str

    @pytest.fixture
    def storage(self) -> Storage:
        return storage_for(self.address.encode(), {})

    def put(self, name: str, content: bytes) -> bytes:
        (self.folder / f"{name} 1").write_bytes(content)
        return f"{self.address}/{name}%201".encode()

    def remove(self, name: bytes) -> None:
        (self.folder / name.decode().rpartition("/")[2].replace("%20", " ")).unlink()


class TestOurServer(OfFolder):
    @pytest.fixture(autouse=True)
    def _server(self, tmp_path: Path) -> Iterator[None]:
        self.folder = tmp_path
        with http_server(tmp_path) as self.address:
            yield


class TestNginx(OfFolder):
    @pytest.fixture(autouse=True)
    def _server(self, tmp_path: Path) -> Iterator[None]:
        require("nginx")
        self.folder = tmp_path / "files"
        self.folder.mkdir()
        with nginx(self.folder, tmp_path / "run") as self.address:
            yield


def remote(address: str, **options: object) -> RemoteStorage:
    storage = storage_for(address.encode(), options)
    assert isinstance(storage, RemoteStorage)
    return storage


@pytest.fixture
def objects(tmp_path: Path) -> Path:
    for k in range(40):
        (tmp_path / f"{k}").write_bytes(bytes([k]) * 5 + CONTENT * 4)
    return tmp_path


def ranges(storage: RemoteStorage, address: str) -> list[ByteRange]:
    names = [f"{address}/{k}".encode() for k in range(40)]
    known = storage.heads(names)
    assert all(known)
    return [
        ByteRange(name, identity, offset, 3000 + k)
        for k, offset in enumerate(range(0, 10_000, 1000))
        for name, identity in zip(names, known, strict=True)
        if identity is not None
    ]


@pytest.mark.parametrize("faults", ["503", "reset", "cut", "short", "ignored"])
def test_what_fails_for_a_moment_is_asked_for_again(faults: str, objects: Path) -> None:
    with http_server(objects, rate=0.1, faults=faults) as address:
        storage = remote(address)
        wanted = ranges(storage, address)
        for one in wanted:
            storage.will_need([one])
        scratch = Scratch()
        for one in wanted:
            got = storage.open(one.name, one.identity).read_exactly(*one[2:], scratch)
            content = (objects / one.name.decode().rpartition("/")[2]).read_bytes()
            assert bytes(got) == content[one.offset : one.offset + one.length]
        assert counts(address)[faults] > 10


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("403", r"may not be read .*403.*credentials"),
        ("503", "answered 503"),
        ("short", "fewer bytes came"),
        ("ignored", "Range"),
        ("reset", "not given"),
        ("stall", "in time"),
    ],
)
def test_what_keeps_failing_is_said_without_address_and_options(
    fault: str, said: str, objects: Path
) -> None:
    with http_server(objects, rate=1.0, faults=fault) as address:
        secret = {"default_headers": {"Authorization": SECRET}}
        storage = remote(address, timeout=0.3, max_retries=1, client_options=secret)
        known = storage.head(f"{address}/1".encode())
        with pytest.raises(StorageError, match=said) as caught:
            storage.open(f"{address}/1".encode(), known).read(0, 100)
        assert SECRET not in str(caught.value)
        assert address not in str(caught.value)
        assert caught.value.__cause__ is None


def test_a_batch_is_merged_and_counted(objects: Path) -> None:
    with http_server(objects) as address:
        storage = remote(address)
        wanted = ranges(storage, address)
        counts(address)
        storage.need(wanted)
        for one in wanted:
            storage.take(one)
        assert counts(address)["GET"] == 40
        assert storage._ahead._held == 0
        before = storage.requests
        assert len(storage.read_many(wanted)) == len(wanted)
        assert storage.requests - before == 40


def test_what_is_held_ahead_is_bounded(objects: Path) -> None:
    with http_server(objects) as address:
        storage = remote(address, prefetch_bytes=40_000, io_threads=4)
        wanted = [one for one in ranges(storage, address) if one.offset == 0]
        counts(address)
        storage.will_need(wanted)
        for one in reversed(wanted):
            assert storage._ahead._held <= 40_000
            assert len(storage.take(one)) == one.length
        assert storage._ahead._held == 0
        assert counts(address)["GET"] == 40


def test_errors_of_a_shared_request_reach_all_who_wait(objects: Path) -> None:
    with http_server(objects) as address:
        storage = remote(address)
        wanted = ranges(storage, address)[::40]
        (objects / "0").write_bytes(b"another")
        storage.need(wanted)
        for one in wanted:
            with pytest.raises(StaleIndexError):
                storage.take(one)


def test_a_copy_has_options_and_nothing_else(s3: S3) -> None:
    storage = remote("s3://bucket", **s3.options)
    copy = pickle.loads(pickle.dumps(storage))
    assert copy.settings == storage.settings
    assert SECRET not in repr(copy)
    with pytest.raises(DicomTorchError) as caught:
        remote("s3://bucket", **{**s3.options, "nosuchoption": SECRET}).head(b"s3://bucket/x")
    assert SECRET not in str(caught.value)
    assert "nosuchoption" in str(caught.value)
    with pytest.raises(StorageError) as caught:
        remote("s3://nosuchbucket", **s3.options).head(b"s3://nosuchbucket/x")
    assert SECRET not in str(caught.value)
