"""The list of frames to leave out: what `verify` writes, datasets take."""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest

from dicomtorch import DicomFrames, scan
from dicomtorch.cli import main as cli
from dicomtorch.errors import OptionError
from dicomtorch.index.quarantine import Quarantined, without_quarantined, write_quarantine
from dicomtorch.reports.verify import Verification
from tests.support.phantoms import ct, ct_pixels, encapsulated, write, write_series


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    root = tmp_path / "archive"
    write_series(root, 3)
    write(ct(np.stack([ct_pixels(k) for k in range(4)]), 7), root / "four.dcm")
    write(encapsulated(ct(ct_pixels(), 9), [b"\0" * 64]), root / "nothing.dcm")
    return root


def test_the_list_goes_out_and_in(archive: Path, tmp_path: Path) -> None:
    listed = tmp_path / "damaged.json"
    assert cli.main(["verify", str(archive), "--quarantine", str(listed)]) == 1
    assert stat.S_IMODE(listed.stat().st_mode) == 0o600
    (entry,) = json.loads(listed.read_text())["frames"]
    assert entry["path"].endswith("nothing.dcm")
    assert (entry["frame"], entry["reason"][:9]) == (0, "failure: ")
    frames = DicomFrames(archive, exclude=listed)
    assert len(frames) == 7
    assert not any(frames.index.path(i).endswith("nothing.dcm") for i in range(7))
    assert Verification(frames.index).run().ok


def test_single_frames_of_a_file(archive: Path, tmp_path: Path) -> None:
    index, _ = scan(archive)
    listed = tmp_path / "list"
    four = _file(index, b"four.dcm")
    write_quarantine(listed, index, [Quarantined(four, 2, "odd"), Quarantined(four, 0, "odd")])
    kept, missing = without_quarantined(index, listed)
    assert (len(kept), missing) == (6, 0)
    frames = np.asarray(kept.column("frame"))[np.asarray(kept.column("file")) == four]
    assert frames.tolist() == [1, 3]


def _file(index, name):
    files = range(len(index.files["size"]))
    return next(k for k in files if index.files["path"][k] == name)


def test_redacted_lists_name_no_file_and_work(archive: Path, tmp_path: Path) -> None:
    listed = tmp_path / "damaged.json"
    cli.main(["verify", str(archive), "--quarantine", str(listed), "--redact-paths"])
    text = listed.read_text()
    assert "nothing" not in text
    assert str(archive) not in text
    assert len(DicomFrames(archive, exclude=listed)) == 7


def test_a_file_that_changed_is_another_one(archive: Path, tmp_path: Path) -> None:
    listed = tmp_path / "damaged.json"
    cli.main(["verify", str(archive), "--quarantine", str(listed)])
    write(ct(ct_pixels(), 9), archive / "nothing.dcm")  # repaired
    with pytest.warns(UserWarning, match="1 of the frames that exclude= lists"):
        assert len(DicomFrames(archive, exclude=listed)) == 8


def test_a_tree_that_moved_as_a_whole(archive: Path, tmp_path: Path) -> None:
    listed = tmp_path / "damaged.json"
    cli.main(["verify", str(archive), "--quarantine", str(listed)])
    shutil.copytree(archive, tmp_path / "elsewhere", copy_function=shutil.copy2)
    assert len(DicomFrames(tmp_path / "elsewhere", exclude=listed)) == 7
    subtree = archive / "deeper"
    os.mkdir(subtree)
    shutil.copy2(archive / "nothing.dcm", subtree / "nothing.dcm")
    assert len(DicomFrames(archive, exclude=listed)) == 8  # a copy elsewhere is not on the list


@pytest.mark.parametrize("content", ["", "[]", '{"format": "dicomtorch quarantine"}', "{}", "\0"])
def test_what_is_no_list(archive: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "x").write_text(content)
    with pytest.raises(OptionError, match="is no list of frames to exclude"):
        DicomFrames(archive, exclude=tmp_path / "x")
    with pytest.raises(OptionError, match="cannot be read"):
        DicomFrames(archive, exclude=tmp_path / "y")
