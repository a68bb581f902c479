"""Folders that cannot be listed just now lose nothing that is known of them."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from dicomtorch import scan
from dicomtorch.scanner import tree as walking
from tests.support.phantoms import ct, ct_pixels, write


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for k, name in enumerate(("a/0.dcm", "a/b/1.dcm", "c/2.dcm")):
        write(ct(ct_pixels(k), k), tmp_path / "tree" / name)
    return tmp_path / "tree"


def failing(monkeypatch: pytest.MonkeyPatch, folder: Path, number: int, times: int) -> list[bytes]:
    """Lets the listing of a folder fail so many times; what was tried is in the result."""
    tried: list[bytes] = []
    real = os.scandir

    def scandir(path: Any = ".") -> Any:
        if path == os.fsencode(folder):
            tried.append(path)
            if len(tried) <= times:
                raise OSError(number, os.strerror(number))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    return tried


def test_an_interrupted_listing_is_begun_anew(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index, _ = scan(tree)
    tried = failing(monkeypatch, tree / "a", errno.EINTR, 2)
    again, report = scan(tree, index=index)
    assert again is index
    assert report.counts["unreadable"] == 0
    assert len(tried) == 3


@pytest.mark.parametrize("number", [errno.EINTR, errno.EIO, errno.ESTALE])
@pytest.mark.parametrize("folder", ["a", "."])
def test_what_is_known_of_a_folder_is_kept(
    tree: Path, monkeypatch: pytest.MonkeyPatch, number: int, folder: str
) -> None:
    index, _ = scan(tree)
    known = 2 if folder == "a" else 3
    with monkeypatch.context() as patched:
        failing(patched, tree if folder == "." else tree / folder, number, 100)
        again, report = scan(tree, index=index)
        assert len(again) == 3
        assert (report.removed, report.reused, report.read) == (0, 3, 1)
        (finding,) = [one for one in report.findings if one.file_class == "unreadable"]
        assert finding.path == folder
        assert errno.errorcode[number] in finding.reason
        assert f"the {known} files known below it are kept as they were" in finding.reason
        assert scan(tree, index=again)[0] is again
    healed, report = scan(tree, index=again)
    assert len(healed) == 3
    assert report.counts["unreadable"] == 0


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES])
def test_a_folder_that_is_not_there_for_us_is_removed(
    tree: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    index, _ = scan(tree)
    failing(monkeypatch, tree / "a", number, 100)
    again, report = scan(tree, index=index)
    assert (len(again), report.removed) == (1, 2)
    assert report.counts["unreadable"] == 1


@pytest.mark.parametrize("follow", [False, True])
def test_files_are_looked_at_from_their_folder(
    tree: Path, monkeypatch: pytest.MonkeyPatch, follow: bool
) -> None:
    """No path from the root on for each; what is found is the same as where the system has no such call."""
    if not walking._LOOKS_INSIDE:
        pytest.skip("this system has no stat that begins at a folder")
    (tree / "a" / "link.dcm").symlink_to(tree / "c" / "2.dcm")
    (tree / "a" / "nowhere.dcm").symlink_to(tree / "none")
    (tree / "around").symlink_to(tree)
    os.mkfifo(tree / "c" / "pipe")
    (tree / os.fsdecode(b"odd \xff name")).write_bytes(b"")
    found = []
    opened = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    looked: list[dict[str, Any]] = []
    real = os.stat

    def noted(path: Any, **how: Any) -> os.stat_result:
        looked.append(how)
        return real(path, **how)

    monkeypatch.setattr(os, "stat", noted)
    for inside in (True, False):
        monkeypatch.setattr(walking, "_LOOKS_INSIDE", inside)
        root = os.fsencode(tree)
        looked.clear()
        listing = walking.list_all(root, [root], follow)
        from_folder = sum("dir_fd" in how for how in looked)
        assert from_folder >= 4 if inside else from_folder == 0
        found.append([list(listing), [repr(one) for one in listing.odd.values()]])
        assert len(listing) >= 6
    assert found[0] == found[1]
    if opened:
        assert len(os.listdir("/proc/self/fd")) == opened
