"""What only its owner may read, whatever the umask says."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from dicomtorch import DicomFrames, scan
from dicomtorch.index.private import is_ours, make_private_folder, open_private
from tests.support.phantoms import write_series

pytestmark = pytest.mark.skipif(os.name != "posix", reason="rights are POSIX")


@pytest.fixture(params=[0o000, 0o022, 0o077, 0o777], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_new_folders_and_their_new_parents(tmp_path: Path, umask: int) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine").chmod(0o755)
    make_private_folder(tmp_path / "mine" / "a" / "b" / "c")
    make_private_folder(tmp_path / "mine" / "a" / "b")
    assert mode(tmp_path / "mine") == 0o755
    for name in ("a", "a/b", "a/b/c"):
        assert mode(tmp_path / "mine" / name) == 0o700


def test_new_files(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "file"
    for flags in (os.O_WRONLY | os.O_CREAT | os.O_EXCL, os.O_WRONLY | os.O_CREAT):
        descriptor = open_private(path, flags)
        os.write(descriptor, b"x")
        os.close(descriptor)
    assert path.read_bytes() == b"x"
    assert mode(path) & 0o077 == 0
    path.chmod(0o644)
    os.close(open_private(path, os.O_WRONLY | os.O_CREAT))
    assert mode(path) == 0o644


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"precious")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    for flags in (os.O_WRONLY | os.O_CREAT | os.O_TRUNC, os.O_RDONLY):
        with pytest.raises(OSError, match="symbolic links"):
            open_private(tmp_path / "link", flags)
    assert (tmp_path / "target").read_bytes() == b"precious"
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileExistsError):
        make_private_folder(tmp_path / "file")


def test_what_is_ours() -> None:
    for owner, expected in ((os.geteuid(), True), (0, True), (12345, False)):
        assert is_ours(SimpleNamespace(st_uid=owner)) is expected  # type: ignore[arg-type]


def test_index_and_cache_show_nothing_to_others(tmp_path: Path, umask: int) -> None:
    if umask == 0o777:
        pytest.skip("nobody can use a folder of pytest then")
    os.chmod(tmp_path, 0o755)
    write_series(tmp_path / "files", 2)
    index, _ = scan(tmp_path / "files")
    index.save(tmp_path / "saved" / "below" / "index")
    frames = DicomFrames(
        tmp_path / "files", cache_dir=tmp_path / "i" / "j", cache=tmp_path / "c" / "d"
    )
    frames[0]
    for top in ("saved", "i", "c"):
        found = [tmp_path / top, *(tmp_path / top).rglob("*")]
        assert len(found) > 3
        for path in found:
            assert mode(path) == (0o700 if path.is_dir() else 0o600), path
