"""Folders that appear whole or not at all, also in the place of others."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from dicomtorch.index import drafts
from dicomtorch.index.drafts import whole_folder


def replaced(path: Path, content: str) -> None:
    with whole_folder(path, replace=True) as draft:
        (draft / "file").write_text(content)


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_folder_takes_the_place_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_exchange: bool
) -> None:
    if not can_exchange:
        monkeypatch.setattr(drafts, "_exchanged", lambda *_: False)
    path = tmp_path / "saved"
    for content in ("first", "second", "third"):
        replaced(path, content)
        assert (path / "file").read_text() == content
        assert [entry.name for entry in tmp_path.iterdir()] == ["saved"]


@pytest.mark.parametrize("can_exchange", [True, False])
def test_what_was_there_stays_where_removing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_exchange: bool
) -> None:
    """The old folder was removed first, and what was left of it stood in the way of the new one."""
    if not can_exchange:
        monkeypatch.setattr(drafts, "_exchanged", lambda *_: False)
    path = tmp_path / "saved"
    replaced(path, "first")
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    replaced(path, "second")
    assert (path / "file").read_text() == "second"


def test_what_was_there_stays_where_the_new_one_cannot_be_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drafts, "_exchanged", lambda *_: False)
    path = tmp_path / "saved"
    replaced(path, "first")
    rename, calls = os.rename, []

    def second_fails(source: Path, target: Path) -> None:
        calls.append(source)
        if len(calls) == 2:
            raise OSError(5, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(os, "rename", second_fails)
    with pytest.raises(OSError, match="Input/output error"):
        replaced(path, "second")
    assert (path / "file").read_text() == "first"


def test_old_drafts_of_a_folder_go(tmp_path: Path) -> None:
    old, young, other = (
        tmp_path / name for name in (".saved.0a.tmp", ".saved.0b.tmp", ".else.0a.tmp")
    )
    for folder in (old, young, other):
        folder.mkdir()
    for folder in (old, other):
        os.utime(folder, (1, 1))
    replaced(tmp_path / "saved", "first")
    assert {path.name for path in tmp_path.iterdir()} == {"saved", ".saved.0b.tmp", ".else.0a.tmp"}
