"""Directories of zip and tar archives, as other programs write them and as nobody should; Python's own readers know."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomtorch.errors import StorageError
from dicomtorch.storage.archives import HEAD, Listed, kind_of, located, members
from dicomtorch.storage.local import LocalFile
from dicomtorch.storage.members import Inflation, Window
from tests.support.archives import KINDS, edited, pack, with_longer_local_extra

CONTENT = {"a.dcm": b"abc" * 500, "b/c.dcm": bytes(range(256)) * 9, "b/empty": b""}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in CONTENT.items():
        (tmp_path / "files" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "files" / name).write_bytes(content)
    return tmp_path / "files"


def read(path: Path, most: int = 1000) -> tuple[dict[str, bytes], dict[str, str]]:
    """(content of what can be read, problems of the rest) of an archive."""
    content: dict[str, bytes] = {}
    problems: dict[str, str] = {}
    with LocalFile(os.fsencode(path)) as file:
        kind = kind_of(file.read(0, HEAD))
        assert kind is not None
        for one in members(file, kind, most):
            try:
                if one.problem:
                    raise StorageError(one.problem)
                place = located(file, one)
                if place.is_deflated:
                    content[one.name] = bytes(Inflation(file, place, 1 << 30).upto(place.size))
                else:
                    content[one.name] = Window(file, place.offset, place.length).read(0, 1 << 30)
            except StorageError as error:
                problems[one.name] = str(error)
    return content, problems


@pytest.mark.parametrize("kind", KINDS)
def test_members_lie_where_they_are_said_to(folder: Path, tmp_path: Path, kind: str) -> None:
    assert read(pack(folder, tmp_path / kind)) == (CONTENT, {})


def test_a_local_header_may_be_longer_than_the_directory_says(folder: Path, tmp_path: Path) -> None:
    path = pack(folder, tmp_path / "stored.zip")
    with_longer_local_extra(path)
    assert zipfile.ZipFile(path).read("a.dcm") == CONTENT["a.dcm"]
    assert read(path) == (CONTENT, {})


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("zip64", [False, True])
def test_sizes_may_follow_the_data_and_have_64_bits(
    tmp_path: Path, method: int, zip64: bool
) -> None:
    class Pipe(io.RawIOBase):  # cannot be sought in, so that sizes follow the data
        def __init__(self, file: Any) -> None:
            self.file = file

        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            return int(self.file.write(data))

    path = tmp_path / "a.zip"
    with path.open("wb") as file, zipfile.ZipFile(Pipe(file), "w", method) as archive:
        for name, content in CONTENT.items():
            with archive.open(name, "w", force_zip64=zip64) as member:
                member.write(content)
    data = path.read_bytes()
    assert struct.unpack_from("<H", data, 6)[0] & 8
    assert read(path) == (CONTENT, {})


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_names_of_a_tar_may_be_long(folder: Path, tmp_path: Path, form: int) -> None:
    long = "/".join(["folder" * 8] * (1 if form == tarfile.USTAR_FORMAT else 9)) + "/ä.dcm"
    with tarfile.open(tmp_path / "a.tar", "w", format=form) as archive:
        archive.add(folder / "a.dcm", long)
        archive.add(folder / "b", "b")
    content, problems = read(tmp_path / "a.tar")
    assert content.pop(long) == CONTENT["a.dcm"]
    assert content == {name: CONTENT[name] for name in ("b/c.dcm", "b/empty")}
    assert problems == {}


def test_tars_of_other_programs(folder: Path, tmp_path: Path) -> None:
    with (folder / "hole").open("wb") as file:
        file.write(b"x" * 4096)
        file.truncate(1 << 20)
        file.seek(1 << 19)
        file.write(b"y" * 4096)
    os.link(folder / "a.dcm", folder / "hard")
    (folder / "soft").symlink_to("a.dcm")
    os.mkfifo(folder / "fifo")
    names = ["a.dcm", "b", "hole", "hard", "soft", "fifo"]
    for form in ("gnu", "posix", "v7"):
        path = tmp_path / f"{form}.tar"
        options = ["--sparse"] if form != "v7" else ["--exclude=fifo"]
        command = ["tar", "-cf", str(path), f"--format={form}", *options, "-C", str(folder), *names]
        subprocess.run(command, check=True)
        content, problems = read(path)
        if form == "v7":
            content.pop("hole")
            assert problems.keys() == {"hard", "soft"}
        else:
            assert problems["fifo"] == "no regular file"
            assert "sparse" in problems["hole"]
        assert content == CONTENT
        assert problems["hard"] == "a link to another member"
        assert problems["soft"] == "a symbolic link"


@pytest.mark.parametrize(
    ("at", "form", "value", "problem"),
    [
        (8, "H", 1, "encrypted"),
        (10, "H", 12, "compressed with bzip2; pack it anew"),
        (10, "H", 77, "compressed with method 77"),
        (24, "I", 7, "but has 1500 and 7 bytes"),
        (42, "I", 3, "no local header at byte 3"),
        (20, "I", 1 << 30, "overlaps"),
        (-1 - 8, "H", 8, "say different things"),
        (-1 - 18, "I", 9, "say different things"),
        (-1 - 28, "H", 60000, "ends before the member"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_member_of_a_zip(
    folder: Path, tmp_path: Path, at: int, form: str, value: int, problem: str
) -> None:
    path = pack(folder, tmp_path / "stored.zip")
    edited(path, at, form, value)
    if problem == "overlaps":
        edited(path, 24, "I", value)
    content, problems = read(path)
    assert problems.keys() == {"a.dcm"}
    assert problem in problems["a.dcm"]
    assert content == {name: CONTENT[name] for name in ("b/c.dcm", "b/empty")}


def test_members_that_share_their_bytes_are_read_once(folder: Path, tmp_path: Path) -> None:
    path = pack(folder, tmp_path / "deflated.zip")
    edited(path, 42, "I", 0, "b/c.dcm")  # two entries for the first local header
    _, problems = read(path)
    assert "overlaps" in problems["b/c.dcm"]


def test_more_members_than_admitted(folder: Path, tmp_path: Path) -> None:
    for kind in KINDS:
        path = pack(folder, tmp_path / kind)
        assert len(read(path, 5)[0]) == 3
        with pytest.raises(StorageError, match=r"Limits.archive_members = 2"):
            read(path, 2)


def test_a_directory_is_not_read_beyond_the_limit(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for k in range(2000):
            archive.writestr(f"{k:0200}", b"")
    with pytest.raises(StorageError, match=r"Limits.archive_members = 100"):
        read(tmp_path / "a.zip", 100)


@pytest.mark.parametrize("kind", KINDS)
def test_archives_that_are_cut_off(folder: Path, tmp_path: Path, kind: str) -> None:
    path = pack(folder, tmp_path / kind)
    data = path.read_bytes()
    path.write_bytes(data[: 2000 if kind == "plain.tar" else len(data) // 2])
    if kind.endswith("zip"):
        with pytest.raises(StorageError, match="directory of the zip archive is damaged"):
            read(path)
    else:
        content, problems = read(path)
        assert content == {}
        assert "ends before the member does" in problems["a.dcm"]


def test_a_damaged_header_in_a_tar_is_said(folder: Path, tmp_path: Path) -> None:
    path = pack(folder, tmp_path / "plain.tar")
    with tarfile.open(path) as archive:
        second = archive.getmembers()[1].offset
    data = bytearray(path.read_bytes())
    data[second + 10] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(StorageError, match=f"the header at byte {second} of the tar archive is"):
        read(path)
    path.write_bytes(bytes(data[:second]))  # no end marker
    assert read(path)[0] == {"a.dcm": CONTENT["a.dcm"]}


def test_what_is_no_archive() -> None:
    assert kind_of(b"") is None
    assert kind_of(bytes(600)) is None
    assert kind_of(os.urandom(600)) is None
    assert kind_of(b"PK\x03\x04" + bytes(124) + b"DICM" + bytes(400)) is None
    assert kind_of(b"PK\x05\x06" + bytes(18)) == "zip"


def test_an_empty_zip(tmp_path: Path) -> None:
    zipfile.ZipFile(tmp_path / "a.zip", "w").close()
    assert read(tmp_path / "a.zip") == ({}, {})


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(KINDS),
    st.lists(st.tuples(st.integers(0, 1 << 14), st.integers(0, 255)), min_size=1, max_size=6),
    st.one_of(st.none(), st.integers(0, 1 << 14)),
)
def test_damage_is_a_typed_error_and_never_other_bytes(
    archives: dict[str, bytes], kind: str, changes: list[tuple[int, int]], cut: int | None
) -> None:
    data = bytearray(archives[kind])
    for at, value in changes:
        data[at % len(data)] = value
    if cut is not None:
        del data[cut % len(data) :]
    archive = _Memory(bytes(data))
    found = kind_of(bytes(data[:HEAD]))
    if found is None:
        return
    try:
        for one in members(archive, found, 100):
            if not one.problem:
                place = located(archive, one)
                assert 0 <= place.offset <= len(data) - place.length
                if place.is_deflated:
                    Inflation(archive, place, 1 << 20).upto(place.size)
    except StorageError:
        pass


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("files")
    for name, content in CONTENT.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    there = tmp_path_factory.mktemp("archives")
    return {kind: pack(folder, there / kind).read_bytes() for kind in KINDS}


class _Memory:
    """An object in memory."""

    def __init__(self, data: bytes) -> None:
        from dicomtorch.storage.base import Identity

        self.data, self.identity = data, Identity(len(data), 1)

    def read(self, offset: int, length: int) -> bytes:
        assert offset >= 0
        return self.data[offset : offset + length]

    def read_exactly(self, offset: int, length: int, scratch: Any) -> memoryview:
        raise NotImplementedError

    def close(self) -> None: ...


def test_a_place_that_is_known_needs_no_header(folder: Path, tmp_path: Path) -> None:
    path = pack(folder, tmp_path / "plain.tar")
    with LocalFile(os.fsencode(path)) as file:
        (first, *_) = members(file, "tar", 9)
        assert isinstance(first, Listed)
        assert located(file, first) == first.place
