"""Locks of stored generations."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dicomtorch.errors import IndexFileError
from dicomtorch.index import in_use


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such locks")
def test_what_is_being_removed_is_named_so_that_it_may_be_printed(tmp_path: Path) -> None:
    folder = tmp_path / "odd\x1b[31m\n"
    folder.mkdir()
    (folder / "manifest.json").touch()
    manifest = folder / "manifest.json"
    with in_use.nobody(manifest) as unused:
        assert unused
        with pytest.raises(IndexFileError, match=r"process just removes .*odd\\x1b\[31m") as told:
            in_use.hold(manifest)
    assert "\n" not in str(told.value)
    in_use.hold(manifest).release()
