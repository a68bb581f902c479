"""Archives of servers as sources: what the same archive of this machine gives, by ranges, with the requests counted."""

from __future__ import annotations

import io
import tarfile
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydicom.data import get_testdata_file
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless
from torch.utils.data import DataLoader

from dicomtorch import DicomFrames, FrameLoader, scan
from dicomtorch.cli import main as cli
from dicomtorch.errors import OptionError, SourceError, StaleIndexError, StorageError, printable
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.masks.mask_options import KINDS as MASK_KINDS
from dicomtorch.masks.objects import has_objects
from dicomtorch.model.limits import Limits
from dicomtorch.model.report import FILE_CLASSES
from dicomtorch.scanner.entries import UNREAD
from dicomtorch.scanner.place import options_beside
from dicomtorch.scanner.scan import with_tags
from dicomtorch.storage import choose, file_system, members
from dicomtorch.storage.choose import storage_for
from dicomtorch.storage.remote import RemoteStorage
from tests.support.archives import KINDS, pack
from tests.support.http_server import counts, http_server
from tests.support.phantoms import ct, write
from tests.support.requirements import require
from tests.support.servers import S3, s3_server

require("obstore")
require("fsspec")

TAR: dict[str, Any] = {"read_tar": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small and large files, native, compressed and deflated, cine loops, and what is no DICOM."""
    made: Path = tmp_path_factory.mktemp("archived") / "files"
    random = np.random.default_rng(0)
    for k in range(6):
        write(ct(random.integers(0, 200, (32, 32), np.int16), k), made / f"series {k % 2}/{k}.dcm")
    write(ct(random.integers(0, 2000, (6, 300, 300), np.int16), 10), made / "loop.dcm")
    rle = ct(random.integers(0, 20, (4, 64, 64), np.int16), 11)
    rle.compress(RLELossless)
    write(rle, made / "rle.dcm")
    deflated = ct(random.integers(0, 20, (40, 40), np.int16), 12)
    deflated.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    write(deflated, made / "deflated.dcm")
    (made / "notes.txt").write_text("no DICOM, but some words of text")
    (made / "empty").write_bytes(b"")
    return made


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    require("moto")
    with s3_server() as server:
        yield server


def same(one: FrameIndex, other: FrameIndex) -> None:
    for column in one.columns:
        if column.name == "file":  # a tar has a row of its own
            continue
        values = (index.gather(column.name, np.arange(len(index))) for index in (one, other))
        assert repr(next(values)) == repr(next(values)), column.name


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_of_a_server_is_that_of_this_machine(
    folder: Path, tmp_path: Path, kind: str, workers: int
) -> None:
    local, expected = scan(pack(folder, tmp_path / kind))
    with http_server(tmp_path) as address:
        index, report = scan(f"{address}/{kind}", num_workers=workers, storage_options=TAR)
        same(index, local)
        told = [(f.path, f.file_class, f.reason) for f in expected.findings]
        found = [
            (f.path.replace(f"{address}/", ""), f.file_class, f.reason) for f in report.findings
        ]
        if kind == "plain.tar":
            (tar,) = (one for one in found if one[0] == kind)
            found.remove(tar)
            assert (tar[1], "11" in tar[2]) == ("not_dicom", True)
        assert sorted(found) == sorted(told)
        here, there = (DicomFrames(one, values="stored") for one in (local, index))
        for k in range(len(here)):
            assert torch.equal(here[k][0], there[k][0])
        loader = FrameLoader(there, 4, shuffle=True, collate_fn=list)
        counts(address)
        seen = {int(meta["index"]): image for batch in loader for image, meta in batch}
        assert counts(address).get("GET", 0) <= loader.forecast().requests
        assert all(torch.equal(here[k][0], seen[k]) for k in range(len(here)))
        plain: Any = DataLoader(there, batch_size=5, collate_fn=list)
        assert sum(map(len, plain)) == len(here)


def test_a_zip_is_listed_in_four_requests_and_read_in_one_a_member(tmp_path: Path) -> None:
    for k in range(300):
        write(ct(np.full((64, 64), k, np.int16)), tmp_path / "files" / f"{k:03}.dcm")
    for kind in ("stored.zip", "deflated.zip"):
        pack(tmp_path / "files", tmp_path / kind)
    (tmp_path / "served").mkdir()
    with http_server(tmp_path) as address:
        for kind in ("stored.zip", "deflated.zip"):
            counts(address)
            index, report = scan(f"{address}/{kind}")
            asked = counts(address)
            assert len(index) == report.read == 300
            assert asked["GET"] <= 300 + 4
            counts(address)
            again, refreshed = scan(f"{address}/{kind}", index=index)
            assert again is index
            assert (refreshed.read, refreshed.reused, refreshed.requests) == (0, 300, 0)
            assert counts(address)["GET"] <= 4
            frames = DicomFrames(index, values="stored")
            assert [int(frames[k][0].max()) for k in (0, 299, 17)] == [0, 299, 17]
            assert counts(address)["GET"] == 3
            both = with_tags(index, ["PatientSex"])
            assert len(both.column("PatientSex")) == 300


def test_stored_members_are_plain_ranges_that_are_merged(folder: Path, tmp_path: Path) -> None:
    pack(folder, tmp_path / "stored.zip")
    with http_server(tmp_path) as address:
        frames = DicomFrames(scan(f"{address}/stored.zip")[0].filter(Rows=32), values="stored")
        counts(address)
        assert len(frames[0:6][0]) == 6
        assert counts(address)["GET"] == 1  # neighbours of several members


def test_a_deflated_data_set_is_one_request(tmp_path: Path) -> None:
    random = np.random.default_rng(0).integers(0, 30_000, (12, 200, 200), np.int16)
    deflated = ct(random)
    deflated.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    write(deflated, tmp_path / "1.dcm")
    with http_server(tmp_path) as address:
        frames = DicomFrames(scan(address)[0], values="stored")
        counts(address)
        for k in range(12):
            np.testing.assert_array_equal(frames[k][0][0].to(torch.int16).numpy(), random[k])
        assert counts(address)["GET"] == 1


def test_what_was_inflated_is_not_asked_for_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(folder, tmp_path / "deflated.zip")
    with http_server(tmp_path) as address:
        loop = scan(f"{address}/deflated.zip")[0].filter(Rows=300)
        frames = DicomFrames(loop, values="stored")
        counts(address)
        for k in range(6):
            frames[k]
        list(FrameLoader(frames, 2))
        assert counts(address)["GET"] == 1
        assert members.inflated_members.size > 0


def test_a_tar_says_what_it_will_take_and_goes_on_when_told_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for k in range(60):
        write(ct(np.full((100, 100), k, np.int16)), tmp_path / "files" / f"{k:03}.dcm")
    pack(tmp_path / "files", tmp_path / "plain.tar")
    size = (tmp_path / "plain.tar").stat().st_size
    (tmp_path / "files").rename(tmp_path.parent / f"{tmp_path.name} elsewhere")
    with http_server(tmp_path) as address:
        with pytest.raises(SourceError) as caught:
            scan(f"{address}/plain.tar")
        asked = counts(address)
        assert asked["GET"] < 14  # those that tell
        said = str(caught.value)
        assert "read_tar" in said
        assert f"{size / 1e6:,.1f} MB" in said
        about = int(said.partition("about ")[2].partition(" ")[0])
        assert 54 <= about <= 66
        index, _ = scan(f"{address}/plain.tar", storage_options=TAR)
        asked = counts(address)
        assert len(index) == 60
        assert asked["GET"] <= 60 * 2 + 6
        # Once it is known it is not listed again, and nobody has to say so.
        again, refreshed = scan(f"{address}/plain.tar", index=index, storage_options={})
        assert again is index
        assert counts(address).get("GET", 0) <= 2
        # Of a part of it the whole is listed again.
        part, _ = scan(f"{address}/plain.tar", part=(1, 2), storage_options=TAR)
        assert 0 < len(part) < 60
        counts(address)
        whole, refreshed = scan(f"{address}/plain.tar", index=part, storage_options=TAR)
        assert counts(address)["GET"] > 60
        assert len(whole) == 60
        assert refreshed.reused >= len(part)
        choose._of_place.clear()
        assert cli.main(["scan", f"{address}/plain.tar"]) == 2
        assert "read_tar=true" in capsys.readouterr().err
        told = ["scan", f"{address}/plain.tar", "--storage-option", "read_tar=true"]
        assert cli.main(told) == 0
        assert "60" in capsys.readouterr().out
    with pytest.raises(OptionError, match="read_tar"):
        scan("https://host/x.tar", storage_options={"read_tar": "yes"})


def odd_tar(path: Path) -> None:
    """A tar with a link, two members of one name, one that is cut off, one that is no DICOM, and a damaged end."""
    files = {name: ct(np.full((40, 40), k, np.int16), k) for k, name in enumerate("abc")}
    with tarfile.open(path, "w") as made:

        def add(name: str, data: bytes, **attributes: Any) -> None:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for key, value in attributes.items():
                setattr(info, key, value)
            made.addfile(info, io.BytesIO(data))

        for name, one in files.items():
            add(f"{name}.dcm", write(one, path.parent / "one").read_bytes())
        add("link", b"", type=tarfile.SYMTYPE, linkname="a.dcm")
        add("b.dcm", write(ct(np.full((40, 40), 9, np.int16), 9), path.parent / "one").read_bytes())
        add("notes", b"some words")
        add("damaged.dcm", (path.parent / "one").read_bytes()[:1500])
    data = bytearray(path.read_bytes().rstrip(b"\0"))
    path.write_bytes(bytes(data) + bytes(-len(data) % 512) + b"no header".ljust(1024, b"?"))


def reasons(index: FrameIndex) -> dict[str, tuple[str, str]]:
    return {
        printable(name): (FILE_CLASSES[int(kind)], reason)
        for name, kind, reason in zip(
            index.files["path"], index.files["file_class"], index.files["reason"], strict=True
        )
    }


def test_a_tar_with_unreadable_members_is_listed_once(tmp_path: Path) -> None:
    odd_tar(tmp_path / "x.tar")
    with http_server(tmp_path) as address:
        index, _ = scan(f"{address}/x.tar", storage_options=TAR)
        found = reasons(index)
        assert len(index) == 3
        assert [kind for kind, _ in found.values()].count("unreadable") >= 4
        assert "a symbolic link" in str(found)
        assert "a later member has the same name" in str(found)
        assert "is damaged; what follows is not read; a tar archive" in str(found)
        counts(address)
        again, _ = scan(f"{address}/x.tar", index=index, storage_options={})
        assert again is index
        assert counts(address).get("GET", 0) <= 2
        # With other tags members are read again, and those that the directory tells to be unreadable are not.
        tagged, _ = scan(f"{address}/x.tar", index=index, tags=["KVP"], storage_options={})
        fresh, _ = scan(f"{address}/x.tar", tags=["KVP"], storage_options=TAR)
        assert reasons(tagged) == reasons(fresh) == found
        same(tagged, fresh)
        few, _ = scan(f"{address}/x.tar", storage_options=TAR, limits=Limits(archive_members=2))
        assert len(few) == 2
        assert len(scan(f"{address}/x.tar", index=few, storage_options=TAR)[0]) == 3


def test_a_member_that_was_not_given_is_asked_for_without_listing(tmp_path: Path) -> None:
    for k in range(20):
        write(ct(np.full((100, 100), k, np.int16)), tmp_path / "files" / f"{k:03}.dcm")
    pack(tmp_path / "files", tmp_path / "plain.tar")
    with http_server(tmp_path) as address:
        index, _ = scan(f"{address}/plain.tar", storage_options=TAR)
        files: Any = index.files
        files["mtime_ns"] = np.where(np.arange(len(files["size"])) == 7, UNREAD, files["mtime_ns"])
        counts(address)
        again, report = scan(f"{address}/plain.tar", index=index, storage_options={})
        assert (report.read, len(again)) == (1, 20)
        assert counts(address)["GET"] <= 4


@pytest.mark.parametrize("kind", ["stored.zip", "deflated.zip"])
def test_archives_in_a_bucket(s3: S3, folder: Path, tmp_path: Path, kind: str) -> None:
    bucket = f"archives-{uuid.uuid4().hex[:8]}"
    s3.client.create_bucket(Bucket=bucket)
    file = pack(folder, tmp_path / kind)
    s3.client.put_object(Bucket=bucket, Key=f"a/{kind}", Body=file.read_bytes())
    s3.client.put_object(Bucket=bucket, Key="b/1.dcm", Body=(folder / "loop.dcm").read_bytes())
    address = f"s3://{bucket}/a/{kind}"
    options: Any = {"storage_options": s3.options, "cache_dir": tmp_path / "cache"}
    frames = DicomFrames(address, values="stored", paths=True, **options)
    here = DicomFrames(file, values="stored", cache_dir=tmp_path / "cache")
    for k in range(len(here)):
        assert torch.equal(here[k][0], frames[k][0])
    assert frames[0][1]["path"].startswith(f"{address}!/")
    assert DicomFrames(address, **options).report.read == 0
    # Beside other objects, and as one of those below a prefix.
    both, _ = scan([address, f"s3://{bucket}/b"], storage_options=s3.options)
    assert len(both) == len(here) + 6
    below, report = scan(f"s3://{bucket}", storage_options=s3.options)
    assert len(below) == 6
    assert any("zip" in finding.reason for finding in report.findings)
    # Another one in its place is never read for it.
    (folder.parent / "other").mkdir(exist_ok=True)
    write(ct(np.full((32, 32), 5, np.int16)), folder.parent / "other" / "1.dcm")
    other = pack(folder.parent / "other", tmp_path / f"other {kind}")
    s3.client.put_object(Bucket=bucket, Key=f"a/{kind}", Body=other.read_bytes())
    members.inflated_members._kept.clear()
    for k in range(len(here)):
        if frames.index.record(k)["Rows"] != 40:  # its data set was inflated last, and is kept
            with pytest.raises(StaleIndexError):
                frames[k]
    assert len(DicomFrames(address, **options)) == 1


def test_archives_that_are_none_or_damaged(folder: Path, tmp_path: Path) -> None:
    whole = pack(folder, tmp_path / "whole.zip").read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "no.zip").write_bytes((folder / "loop.dcm").read_bytes())
    (tmp_path / "study.tar.gz").write_bytes(b"\x1f\x8b\x08" + bytes(600))
    damaged = bytearray(pack(folder, tmp_path / "deflated.zip").read_bytes())
    at = damaged.index(b"loop.dcm") + 200
    damaged[at : at + 40] = bytes(40)
    (tmp_path / "damaged.zip").write_bytes(damaged)
    with http_server(tmp_path) as address:
        for name in ("cut.zip", "no.zip", "study.tar.gz", "damaged.zip", "whole.zip"):
            limits = Limits(archive_members=5) if name == "whole.zip" else Limits()
            local, told = scan(tmp_path / name, limits=limits)
            index, report = scan(f"{address}/{name}", limits=limits)
            assert len(index) == len(local), name
            reasons = sorted((f.file_class, f.reason) for f in told.findings)
            assert sorted((f.file_class, f.reason) for f in report.findings) == reasons, name


@pytest.mark.parametrize("kind", KINDS)
def test_requests_that_fail_for_a_moment(folder: Path, tmp_path: Path, kind: str) -> None:
    local, _ = scan(pack(folder, tmp_path / kind))
    here = DicomFrames(local, values="stored")
    faults = "cut,503,reset,short,ignored"
    with http_server(tmp_path, rate=0.1, faults=faults) as address:
        index, _ = scan(f"{address}/{kind}", storage_options=TAR)
        same(index, local)
        frames = DicomFrames(index, values="stored")
        for _ in range(3):
            members.inflated_members._kept.clear()
            for k in range(len(here)):
                assert torch.equal(here[k][0], frames[k][0])


def in_memory(name: bytes, files: dict[str, bytes]) -> str:
    """An archive below memory://."""
    import fsspec

    content = io.BytesIO()
    if name.endswith(b".tar"):
        with tarfile.open(fileobj=content, mode="w") as tar:
            for member, data in files.items():
                info = tarfile.TarInfo(member)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    else:
        with zipfile.ZipFile(content, "w") as archive:
            for member, data in files.items():
                archive.writestr(member, data)
    place = f"/{uuid.uuid4().hex}/{name.decode()}"
    fsspec.filesystem("memory").pipe(place, content.getvalue())
    return f"memory:/{place}"


def bundled(*names: str) -> dict[str, bytes]:
    return {name: Path(str(get_testdata_file(name))).read_bytes() for name in names}


def test_members_of_a_known_tar_are_judged_anew() -> None:
    """With other tags or limits all headers are read again: what a member was found to be is not what it is."""
    tar = in_memory(b"a.tar", bundled("CT_small.dcm", "rtstruct.dcm", "MR_small.dcm"))
    first, _ = scan(tar, storage_options=TAR)
    again, _ = scan(tar, storage_options=TAR, index=first, tags=["KVP", "StationName"])
    fresh, _ = scan(tar, storage_options=TAR, tags=["KVP", "StationName"])
    for index in (first, again, fresh):
        assert has_objects(index, MASK_KINDS["all"])
    assert repr(list(again.column("KVP"))) == repr(list(fresh.column("KVP")))
    few, _ = scan(tar, storage_options=TAR, limits=Limits(elements=3))
    assert (len(few), len(scan(tar, storage_options=TAR, index=few)[0])) == (0, 2)


@pytest.mark.parametrize("error", [StorageError, StaleIndexError])
def test_a_directory_that_is_not_given_takes_nothing_out_of_an_index(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    padded = bundled("CT_small.dcm", "MR_small.dcm") | {"pad": bytes(200_000)}
    source = in_memory(b"a.zip", padded)
    index, _ = scan(source)
    real = file_system.FileSystemClient.get

    def get(self: Any, name: bytes, offset: int, length: int, identity: Any) -> Any:
        if offset > 1000:
            raise error("the server answered 503")
        return real(self, name, offset, length, identity)

    with monkeypatch.context() as patched:
        patched.setattr(file_system.FileSystemClient, "get", get)
        with pytest.raises(SourceError, match="503"):
            scan(source, index=index)
    assert scan(source, index=index)[0] is index


def test_options_go_to_no_other_server() -> None:
    options = {"client_options": {"default_headers": {"Authorization": "Bearer x"}}}
    for source, root, told in (
        ("https://a.example/seg", b"https://a.example/ct", options),
        ("https://a.example/seg?sig=1", b"https://a.example/ct", options),
        ("https://b.example/seg", b"https://a.example/ct", None),
        ("https://a.example:8443/seg", b"https://a.example/ct", None),
        ("http://a.example/seg", b"https://a.example/ct", None),
        ("dicomweb+https://b.example/seg", b"dicomweb+https://a.example/x", None),
        ("s3://seg", b"s3://ct/a", options),
        ("/here", b"s3://ct/a", None),
    ):
        assert options_beside([source], root, options) == told, source


def test_signatures_stay_where_options_are_given_again() -> None:
    require("aiohttp")
    name = b"https://signed.example/a.dcm"
    first = storage_for(name, {"io_threads": 2}, {name: b"?sig=1"})
    again = storage_for(b"https://signed.example/", {"io_threads": 3})
    assert isinstance(first, RemoteStorage)
    assert isinstance(again, RemoteStorage)
    assert again.queries == first.queries == {name: b"?sig=1"}
