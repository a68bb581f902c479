"""Stored generations: what is written comes back, what is damaged is refused, and nothing ends the process."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomtorch import FrameReader, scan
from dicomtorch.errors import IndexFileError, StaleIndexError
from dicomtorch.index import files as index_file
from dicomtorch.index.builder import FileRows, Member
from dicomtorch.index.checksums import checksum
from dicomtorch.index.columns import Packed, Texts
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.model.schema import CONTAINERS
from tests.support.phantoms import ct_pixels, file_rows, write_series


@given(st.binary(min_size=1, max_size=20_000), st.data())
def test_the_checksum_notices_every_changed_bit(content: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(content) * 8 - 1))
    other = bytearray(content)
    other[at // 8] ^= 1 << at % 8
    assert checksum(other) != checksum(content)


def test_the_checksum_notices_blocks_that_change_places_and_missing_ends() -> None:
    content = np.random.default_rng(3).bytes(4096 * 3 + 5)
    swapped = content[4096:8192] + content[:4096] + content[8192:]
    zeroed = content[:4096] + bytes(4096) + content[8192:]
    others = [swapped, zeroed, content[:-1], content + b"\0", content[:4096]]
    assert checksum(content) not in [checksum(other) for other in others]


def test_the_checksum_stays_what_it_is() -> None:
    assert checksum(b"") == 0
    assert checksum(bytes(range(256)) * 20) == 2073845544


@pytest.fixture
def index() -> FrameIndex:
    files = [
        file_rows(f"{n}.dcm", n, 2, Modality="CT", WindowCenter=-0.0 if n else 0.0)
        for n in range(50)
    ]
    return FrameIndex.build(files, root=b"/data")


def test_columns_with_one_value_take_one_row(index: FrameIndex, tmp_path: Path) -> None:
    index.save(tmp_path / "x")
    stored = index_file.read(tmp_path / "x").generation
    frames = dict(stored.frames)
    assert np.asarray(frames["SliceThickness"]).strides == (0,)
    assert np.isnan(frames["SliceThickness"]).all()
    assert isinstance(frames["Modality"], Texts)
    assert frames["Modality"].codes.strides == (0,)
    assert list(frames["Modality"]) == ["CT"] * 100
    assert np.asarray(frames["offset"]).strides == (8,)
    # -0.0 equals 0.0 and is another value all the same.
    assert np.signbit(frames["WindowCenter"]).sum() == 98
    once_more = FrameIndex.load(tmp_path / "x")
    once_more.save(tmp_path / "y")
    for name in ("frames.arrow", "constants.arrow"):
        assert (tmp_path / "x" / name).read_bytes() == (tmp_path / "y" / name).read_bytes()


def test_columns_of_files_with_one_value_take_one_row(index: FrameIndex, tmp_path: Path) -> None:
    index.save(tmp_path / "x")
    files = dict(index_file.read(tmp_path / "x").generation.files)
    for name in ("mtime_ns", "frames", "container", "member_size"):
        assert np.asarray(files[name]).strides == (0,)
    assert isinstance(files["version"], Texts)
    assert files["version"].codes.strides == (0,)
    assert isinstance(files["mask_object"], Packed)
    assert files["mask_object"].offsets.strides == (0,)
    assert list(files["mask_object"]) == [b""] * 50
    assert files["mask_object"].take(np.array([3, 1]))[1] == b""
    assert np.asarray(files["inode"]).tolist() == np.asarray(index.files["inode"]).tolist()
    assert list(files["path"]) == [path for path in index.files["path"]]
    empty = FrameIndex.build([], root=b"/data")
    empty.save(tmp_path / "y")
    assert len(FrameIndex.load(tmp_path / "y").files["path"]) == 0


def _member(container: int, member_size: int) -> FileRows:
    """A file of 600 bytes with a frame in bytes 500 to 510 of a member of an archive."""
    return replace(
        file_rows("a.zip!/deep/a.dcm" if container in (1, 2) else "a.dcm", 0),
        member=Member(container, "deep/a.dcm", offset=40, length=300, size=member_size),
        version='"abc-2"',
    )


def test_members_of_archives_come_back(tmp_path: Path) -> None:
    FrameIndex.build([_member(2, 700)], root=b"/data").save(tmp_path / "x")
    files = FrameIndex.load(tmp_path / "x").files
    names = ("container", "member", "member_offset", "member_length", "member_size", "version")
    assert [files[name][0] for name in names] == [2, "deep/a.dcm", 40, 300, 700, '"abc-2"']
    loaded = FrameIndex.load(tmp_path / "x")
    assert loaded.file_path(0) == b"/data/a.zip!/deep/a.dcm"
    assert loaded.object_path(0) == b"/data/a.zip"


@pytest.mark.parametrize(
    ("container", "member_size", "size"),
    [
        (2, 509, 600),
        (1, 300, 509),
        (0, -1, 509),
        (len(CONTAINERS), 700, 600),
        (2, 510, 339),
        (2, -1, 600),
    ],
)
def test_a_frame_outside_its_bytes_is_refused(
    tmp_path: Path, container: int, member_size: int, size: int
) -> None:
    rows = replace(_member(container, member_size), size=size)
    FrameIndex.build([rows], root=b"/data").save(tmp_path / "x")
    with pytest.raises(IndexFileError, match="points outside"):
        FrameIndex.load(tmp_path / "x")


@pytest.mark.parametrize(
    ("container", "member_size", "size"), [(2, 510, 340), (1, 300, 510), (0, -1, -1)]
)
def test_a_frame_inside_its_bytes_is_taken(
    tmp_path: Path, container: int, member_size: int, size: int
) -> None:
    rows = replace(_member(container, member_size), size=size)
    FrameIndex.build([rows], root=b"/data").save(tmp_path / "x")
    assert FrameIndex.load(tmp_path / "x").span(0).offset == 500


def test_damaged_copies_are_refused_and_end_no_process(memory_path: Path) -> None:
    script = Path(__file__).parents[1] / "support/mutate_index.py"
    command = [sys.executable, "-W", "error", str(script), str(memory_path / "x"), "3000"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    state = (memory_path / "x" / "state").read_text()
    assert ended.returncode == 0, f"at {state}: {ended.stderr}"
    results = json.loads(ended.stdout)
    assert sum(results.values()) == 3000
    assert results["unclear"] == 0
    assert results["refused"] > 2000
    assert results["used"] > 100  # what has the right checksum and means something is used


def test_inodes_of_an_index_that_travelled_are_not_known(tmp_path: Path) -> None:
    write_series(tmp_path / "tree", 2)
    index, _ = scan(tmp_path / "tree")
    index.save(tmp_path / "index")
    assert 0 not in FrameIndex.load(tmp_path / "index").files["inode"]
    (tmp_path / "tree").rename(tmp_path / "old")
    shutil.copytree(tmp_path / "old", tmp_path / "tree")  # as a restored backup has it
    loaded = FrameIndex.load(tmp_path / "index")
    assert not np.asarray(loaded.files["inode"]).any()
    assert FrameReader(loaded).read_stored(1).tolist() == ct_pixels(1).tolist()
    assert FrameReader(pickle.loads(pickle.dumps(loaded))).read_stored(0).shape == (24, 32)
    with pytest.raises(StaleIndexError, match="inode"):
        FrameReader(index).read_stored(0)
    again, report = scan(tmp_path / "tree", index=loaded)
    assert (again, report.read) == (loaded, 0)  # size, time and some headers are as they were
