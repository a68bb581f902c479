"""Indexes that travel: taken to another folder, nothing is read again that is what it was."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from dicomtorch import DicomFrames
from dicomtorch.errors import SourceError, StaleIndexError
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.scanner import compare
from dicomtorch.scanner.scan import scan
from tests.support.phantoms import ct, ct_pixels, write, write_series


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A saved index of a tree that is elsewhere by now, its times as they were."""
    write_series(tmp_path / "old" / "a", 3)
    write(ct(np.stack([ct_pixels(k) for k in range(2)]), 7), tmp_path / "old" / "b.dcm")
    (tmp_path / "old" / "notes.txt").write_text("none")
    scan(tmp_path / "old")[0].save(tmp_path / "x.index")
    shutil.copytree(tmp_path / "old", tmp_path / "new")  # as cp -a does
    shutil.move(tmp_path / "old", tmp_path / "gone")
    return tmp_path / "x.index"


def test_frames_are_read_from_the_new_place(saved: Path) -> None:
    index = FrameIndex.load(saved, root=saved.parent / "new")
    assert index.root == os.fsencode(saved.parent / "new")
    assert index.path(0) == str(saved.parent / "new" / "a" / "000.dcm")
    expected = DicomFrames(saved.parent / "gone", values="stored")
    frames = DicomFrames(index, values="stored")
    for k in range(5):
        assert np.array_equal(frames[k][0], expected[k][0])
    os.utime(saved.parent / "new" / "b.dcm", ns=(1, 1))
    with pytest.raises(StaleIndexError):
        _ = frames[4]


def test_the_place_is_kept_on_the_way_to_workers_and_to_the_disk(saved: Path) -> None:
    index = FrameIndex.load(saved, root=saved.parent / "new").select([4, 0])
    other = pickle.loads(pickle.dumps(index))
    assert (other.path(1), other.rows.tolist()) == (index.path(1), [4, 0])
    assert [where.inode for where in other.locate([0, 1])] == [0, 0]
    assert len(DicomFrames(other)) == 2
    index.save(saved.parent / "y.index")
    assert FrameIndex.load(saved.parent / "y.index").path(1) == index.path(1)
    back = FrameIndex.load(saved.parent / "y.index", root=saved.parent / "gone")
    assert back.path(0) == str(saved.parent / "gone" / "b.dcm")


def test_a_wrong_place_is_told(saved: Path) -> None:
    with pytest.raises(SourceError, match=r"none of the files .*/x/a/000\.dcm for example.*/old"):
        FrameIndex.load(saved, root=saved.parent / "x")
    empty = FrameIndex.build([], root=b"/data")
    assert len(empty.moved(saved.parent)) == 0


def test_nothing_is_read_again_but_a_sample_of_headers(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "_SAMPLE", 2)
    index = FrameIndex.load(saved, root=saved.parent / "new")
    again, report = scan(saved.parent / "new", index=index)
    assert again is index
    assert (report.read, report.reused) == (0, 5)
    # One that was written anew since is read.
    write(ct(ct_pixels(9), 9), saved.parent / "new" / "a" / "001.dcm")
    again, report = scan(saved.parent / "new", index=index)
    assert (report.read, report.reused) == (1, 4)
    assert len(again) == 5


@pytest.mark.parametrize("keep", [True, False])
def test_headers_that_say_something_else_make_everything_be_read_again(
    saved: Path, keep: bool
) -> None:
    new = saved.parent / "new"
    path = new / "a" / "002.dcm"
    before = path.stat()
    content = path.read_bytes()
    uid = FrameIndex.load(saved).gather("SOPInstanceUID", np.array([2]))[0].encode()
    assert content.count(uid) >= 1
    path.write_bytes(content if keep else content.replace(uid, uid[:-1] + b"8"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    index = FrameIndex.load(saved, root=new)
    again, report = scan(new, index=index)
    assert report.read == (0 if keep else 4 + 1)
    if not keep:
        assert again.gather("SOPInstanceUID", np.array([2])) == [(uid[:-1] + b"8").decode()]


def test_a_file_replaced_under_an_index_that_did_not_move_is_read_again(tmp_path: Path) -> None:
    (path,) = write_series(tmp_path / "tree", 1)
    index, _ = scan(tmp_path / "tree")
    before = path.stat()
    shutil.copy2(path, tmp_path / "copy.dcm")
    os.replace(tmp_path / "copy.dcm", path)
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert path.stat().st_ino != before.st_ino
    assert scan(tmp_path / "tree", index=index)[1].read == 1
