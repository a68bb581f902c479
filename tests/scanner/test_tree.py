"""Folders that cannot be listed just now lose nothing that is known of them."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from dicomtorch import scan
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
