"""Several stored indexes opened as one."""

from __future__ import annotations

import json
import os
import pickle
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest

from dicomtorch import DicomFrames
from dicomtorch.errors import IndexFileError, OptionError
from dicomtorch.index import opened, partitions
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.index.generation_store import GenerationStore
from dicomtorch.scanner.scan import scan
from tests.support.phantoms import ct, ct_pixels, write
from tests.support.scanned import assert_same, mixed_tree, table_bytes


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    """Three stored indexes of folders of one tree."""
    tree = mixed_tree(tmp_path / "tree")
    (tree / "cut.dcm").unlink()
    return [saved(tree / name, tmp_path / f"{name}.index") for name in ("c", "a", "b")]


def saved(root: Path, path: Path) -> Path:
    index, _ = scan(root)
    index.save(path, replace=True)
    return path


def test_they_are_what_one_scan_gives(parts: list[Path], tmp_path: Path) -> None:
    together = FrameIndex.load(parts, cache_dir=tmp_path / "cache")
    tree = tmp_path / "tree"
    wanted, _ = scan([tree / name for name in "abc"])
    assert together.root == os.fsencode(tree)
    assert_same(together, wanted, numbers=False)
    assert FrameIndex.load([parts[0]]).root == os.fsencode(tree / "c")


def test_each_frame_is_read_from_its_own_root(tmp_path: Path) -> None:
    roots = tmp_path / "site" / "2024", tmp_path / "other" / "deep" / "2025"
    for k, root in enumerate(roots):
        for n in range(3):
            write(ct(ct_pixels(3 * k + n), 3 * k + n), root / f"{n}.dcm")
    paths = [saved(root, tmp_path / f"{k}.index") for k, root in enumerate(roots)]
    frames = DicomFrames(FrameIndex.load(paths, cache_dir=tmp_path / "cache"), values="stored")
    assert frames.index.root == os.fsencode(tmp_path)
    assert len(frames) == 6
    for i in range(6):
        path = frames.index.path(i)
        np.testing.assert_array_equal(frames[i][0][0], pydicom.dcmread(path).pixel_array)
    assert {os.path.dirname(frames.index.path(i)) for i in range(6)} == set(map(str, roots))


def test_they_are_put_together_once_and_mapped(
    parts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = FrameIndex.load(parts, cache_dir=tmp_path / "cache")
    monkeypatch.setattr(partitions, "concatenated", lambda *_: pytest.fail("once is enough"))
    opened._open.clear()
    again = FrameIndex.load(parts[::-1], cache_dir=tmp_path / "cache")
    assert again.uuid == first.uuid
    assert again._generation.mapped
    assert table_bytes(again) == table_bytes(first)
    sent = pickle.dumps(again.select([3, 1]))
    assert len(sent) < 2000
    opened._open.clear()
    received = pickle.loads(sent)
    assert received._generation.mapped
    assert [received.path(i) for i in (0, 1)] == [first.path(i) for i in (3, 1)]


def test_a_partition_that_changed_is_taken_as_it_is_now(parts: list[Path], tmp_path: Path) -> None:
    before = FrameIndex.load(parts, cache_dir=tmp_path / "cache")
    write(ct(ct_pixels(99), 99), tmp_path / "tree" / "a" / "new.dcm")
    saved(tmp_path / "tree" / "a", parts[1])
    after = FrameIndex.load(parts, cache_dir=tmp_path / "cache")
    assert len(after) == len(before) + 1
    assert after.uuid != before.uuid
    assert b"a/new.dcm" in list(after.files["path"])
    fresh = FrameIndex.load(parts, cache_dir=tmp_path / "elsewhere")
    assert table_bytes(after) == table_bytes(fresh)


def test_selections_and_labels_come_along(parts: list[Path], tmp_path: Path) -> None:
    names = []
    for k, path in enumerate(parts):
        index = FrameIndex.load(path).select([1, 0])
        uids = list(index.column("SOPInstanceUID"))
        table = {"SOPInstanceUID": uids, "label": [f"{k}a", f"{k}b"], "weight": [k, k + 0.5]}
        names += list(zip(uids, table["label"], table["weight"], strict=True))
        labelled = index.join(
            {key: list(dict.fromkeys(table[key])) for key in table}
            if k < 2
            else {"SOPInstanceUID": uids[:1], "label": ["2a"], "weight": [2.0]}
        )
        labelled.save(path, replace=True)
    together = FrameIndex.load(parts, cache_dir=tmp_path / "cache")
    columns = (together.column(name) for name in ("SOPInstanceUID", "label", "weight"))
    assert list(zip(*map(list, columns), strict=True))[:4] == names[:4]
    assert together.column("label")[4] == "2a"
    assert not (tmp_path / "cache").exists()


def test_what_is_wrong_is_named(parts: list[Path], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with pytest.raises(OptionError, match="needs an index"):
        FrameIndex.load([], cache_dir=cache)
    (tmp_path / "link").symlink_to(parts[0])
    with pytest.raises(OptionError, match="link is named twice"):
        FrameIndex.load([*parts, tmp_path / "link"], cache_dir=cache)
    with pytest.raises(IndexFileError, match=r"gone\.index is no index"):
        FrameIndex.load([*parts, tmp_path / "gone.index"], cache_dir=cache)
    tagged = tmp_path / "tagged.index"
    scan(tmp_path / "tree" / "a-", tags=["PatientSex"])[0].save(tagged)
    with pytest.raises(OptionError, match=r"a\.index has other tags than .*tagged\.index"):
        FrameIndex.load([*parts, tagged], cache_dir=cache)
    content = (parts[1] / "manifest.json").read_bytes()[9:-1]
    text = json.dumps(json.loads(content) | {"version": 1}).encode()
    (parts[1] / "manifest.json").write_bytes(b"%08x\n%s\n" % (zlib.crc32(text), text))
    with pytest.raises(IndexFileError, match=r"a\.index has version 1"):
        FrameIndex.load(parts, cache_dir=cache)


def test_a_damaged_partition_is_found_and_named(parts: list[Path], tmp_path: Path) -> None:
    path = parts[2] / "frames.arrow"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(IndexFileError, match=r"b\.index/frames\.arrow is damaged"):
        FrameIndex.load(parts, cache_dir=tmp_path / "cache")


def test_a_damaged_copy_is_made_anew(parts: list[Path], tmp_path: Path) -> None:
    whole = table_bytes(FrameIndex.load(parts, cache_dir=tmp_path / "cache"))
    opened._open.clear()
    (path,) = (tmp_path / "cache").glob("indexes/*/*/frames.arrow")
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.warns(UserWarning, match=r"put together again: .*frames\.arrow has"):
        index = FrameIndex.load(parts, cache_dir=tmp_path / "cache")
    assert table_bytes(index) == whole


def test_where_nothing_can_be_kept_it_is_told(
    parts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.warns(UserWarning, match=r"cannot be kept .*Not a directory.*cache_dir="):
        index = FrameIndex.load(parts, cache_dir=tmp_path / "file")
    assert len(index) == len(FrameIndex.load(parts, cache_dir=tmp_path / "cache"))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(GenerationStore, "keep", full)
    with pytest.warns(UserWarning, match=r"cannot be kept .*No space left"):
        again = FrameIndex.load(parts, cache_dir=tmp_path / "full")
    assert again.uuid == index.uuid
    assert table_bytes(again) == table_bytes(index)


def test_what_was_before_may_come_again(parts: list[Path], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = FrameIndex.load(parts, cache_dir=cache)
    path = tmp_path / "tree" / "a" / "new.dcm"
    write(ct(ct_pixels(99), 99), path)
    other = saved(tmp_path / "tree" / "a", tmp_path / "newer.index")
    before = tmp_path / "older.index"
    parts[1].rename(before)
    other.rename(parts[1])
    assert len(FrameIndex.load(parts, cache_dir=cache)) == len(first) + 1
    parts[1].rename(other)
    before.rename(parts[1])
    again = FrameIndex.load(parts, cache_dir=cache)
    assert again.uuid == first.uuid
    assert table_bytes(again) == table_bytes(first)


def test_a_partition_that_is_written_anew_meanwhile(
    parts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a mixture is given, nor are the new rows kept under the name of the old ones."""
    index = FrameIndex.load(parts[0])
    wanted = len(FrameIndex.load(parts, cache_dir=tmp_path / "other")) - len(index) + 1
    real = partitions._together
    times: list[int] = []

    def together(manifests: dict[Path, dict[str, object]]) -> object:
        if not times:
            index.select([0]).save(parts[0], replace=True)
        times.append(1)
        return real(manifests)

    monkeypatch.setattr(partitions, "_together", together)
    assert len(FrameIndex.load(parts, cache_dir=tmp_path / "cache")) == wanted
    assert len(times) == 2


@pytest.mark.parametrize("given", [5, None, [5], [b"/x"], b"/x", []])
def test_what_is_no_path_is_refused(given: object, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"load (takes|needs)"):
        FrameIndex.load(given, cache_dir=tmp_path)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
