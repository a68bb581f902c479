"""Several indexes as one."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomtorch.errors import OptionError
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.model.limits import LIMITS
from dicomtorch.scanner.entries import UNREAD
from dicomtorch.scanner.scan import scan
from tests.support.phantoms import ct, ct_pixels, file_rows, write
from tests.support.scanned import assert_same, mixed_tree


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return mixed_tree(tmp_path / "tree")


def test_folders_scanned_apart_are_what_one_scan_gives(tree: Path) -> None:
    tags = ["PatientSex", "SliceLocation"]
    parts = [scan(tree / name, tags=tags)[0] for name in ("c", "b", "a-", "a")]
    parts.append(scan(tree / "cut.dcm", tags=tags[::-1])[0])
    together = FrameIndex.concat(parts)
    assert together.root == bytes(tree)
    assert_same(together, scan(tree, tags=tags)[0], numbers=False)
    for i in (0, 20, 43):
        assert os.path.exists(together.path(i))


def test_one_index_is_itself_again(tree: Path) -> None:
    whole, _ = scan(tree)
    assert_same(FrameIndex.concat([whole]), whole, numbers=False)


def test_an_index_of_several_is_saved_and_refreshed(tree: Path, tmp_path: Path) -> None:
    together = FrameIndex.concat(scan(tree, part=(k, 2))[0] for k in (1, 2))
    together.save(tmp_path / "index")
    loaded = FrameIndex.load(tmp_path / "index")
    assert_same(loaded, together)
    index, report = scan(tree, index=loaded)
    assert (report.read, report.reused) == (0, 43)
    assert index is loaded


def test_lookups_that_several_have_are_there_once(tree: Path) -> None:
    whole, _ = scan(tree)
    parts = [scan(tree, part=(k, 5))[0] for k in range(1, 6)]
    together = FrameIndex.concat(parts)
    counts = [len(one._generation.lookups["bits"]) for one in (*parts, together, whole)]
    assert sum(counts[:5]) > counts[6] >= counts[5] > 0
    assert len(set(np.asarray(together.column("frame_values")))) == len(
        set(np.asarray(whole.column("frame_values")))
    )


def test_a_file_that_several_have_is_there_once(tree: Path) -> None:
    both = FrameIndex.concat([scan(tree / "a")[0], scan(tree)[0], scan(tree / "a" / "b")[0]])
    assert_same(both, scan(tree)[0], numbers=False)


def test_what_one_could_not_open_another_may_have(tree: Path) -> None:
    whole, _ = scan(tree)
    away = tree.parent / "away.dcm"
    shutil.move(tree / "a" / "0.dcm", away)
    listed = {"path": ["a/0.dcm", "a/4.dcm"]}
    without, _ = scan(tree, inventory=listed)
    assert UNREAD in without.files["mtime_ns"]
    shutil.move(away, tree / "a" / "0.dcm")
    for order in ([without, whole], [whole, without]):
        assert_same(FrameIndex.concat(order), whole, numbers=False)


def test_a_file_that_changed_in_between_is_named(tree: Path) -> None:
    before, _ = scan(tree / "a")
    write(ct(ct_pixels(60), 60), tree / "a" / "0.dcm")
    os.utime(tree / "a" / "0.dcm", (2_000_000_000, 2_000_000_000))
    after, _ = scan(tree)
    with pytest.raises(
        OptionError, match=r"index 0 and index 1 say different .*a/0\.dcm: it changed"
    ):
        FrameIndex.concat([before, after])


def test_selections_stay_selections(tree: Path) -> None:
    a, c = scan(tree / "a")[0], scan(tree / "c")[0]
    some = a.select([3, 1]), c.select([0, 5]), a.select([1, 2])
    together = FrameIndex.concat(some)
    wanted = [part.path(i) for part, rows in ((a, [3, 1]), (c, [0, 5]), (a, [2])) for i in rows]
    assert [together.path(i) for i in range(len(together))] == wanted
    assert len(together.whole()) == len(a) + len(c)
    assert len(FrameIndex.concat([a.select([]), c.select([])])) == 0
    assert len(FrameIndex.concat([a, c.select([1])])) == len(a) + 1


def test_what_differs_is_refused(tree: Path) -> None:
    plain = scan(tree / "c")[0]
    with pytest.raises(OptionError, match="needs an index"):
        FrameIndex.concat([])
    with pytest.raises(OptionError, match=r"other tags than index 1 \(none; PatientSex\)"):
        FrameIndex.concat([plain, scan(tree / "b", tags=["PatientSex"])[0]])
    limits = replace(LIMITS, decode_seconds=2)
    with pytest.raises(OptionError, match="other limits than index 1"):
        FrameIndex.concat([plain, scan(tree / "b", limits=limits)[0]])


def labelled(index: FrameIndex, first: int) -> FrameIndex:
    uids = list(dict.fromkeys(index.column("SOPInstanceUID")))
    return index.join({"SOPInstanceUID": uids, "label": np.arange(len(uids)) + first})


def test_labels_stay_with_their_frames(tree: Path) -> None:
    a, c, b = (labelled(scan(tree / name)[0], k * 100) for k, name in enumerate("acb"))
    wanted = {part.path(i): part.column("label")[i] for part in (a, c, b) for i in range(len(part))}
    together = FrameIndex.concat([c, a, b])
    assert len(together) == len(a) + len(b) + len(c)
    for i in range(len(together)):
        assert together.column("label")[i] == wanted[together.path(i)]
    some = FrameIndex.concat([c.select([4, 2]), a.select([1])])
    assert list(some.column("label")) == [
        wanted[part.path(i)] for part, i in ((c, 4), (c, 2), (a, 1))
    ]
    with pytest.raises(
        OptionError, match=r"index 0 has other joined columns than index 1 \(label \(int64\); none"
    ):
        FrameIndex.concat([a, scan(tree / "c")[0]])


@pytest.mark.parametrize("order", [1, -1])
def test_labels_that_contradict_each_other_are_refused(tree: Path, order: int) -> None:
    """Which comes first must not decide what is trained on."""
    a = scan(tree / "a")[0]
    once, again = labelled(a, 7), labelled(a, 7)
    assert list(FrameIndex.concat([once, again]).column("label")) == list(once.column("label"))
    with pytest.raises(OptionError, match="different values of the joined column label"):
        FrameIndex.concat([once, labelled(a, 50)][::order])


def test_indexes_without_files(tmp_path: Path) -> None:
    empty = [FrameIndex.build([], root=os.fsencode(tmp_path / name)) for name in "ab"]
    assert len(FrameIndex.concat(empty)) == 0
    one = FrameIndex.build([], root=os.fsencode(tmp_path))
    assert len(FrameIndex.concat([one, *empty])) == 0


@given(
    split=st.lists(st.integers(0, 2), min_size=12, max_size=12),
    again=st.lists(st.tuples(st.integers(0, 11), st.integers(0, 2)), max_size=6),
    order=st.permutations(range(3)),
)
def test_whoever_has_which_file_the_whole_is_the_same(
    split: list[int], again: list[tuple[int, int]], order: list[int]
) -> None:
    """Files anywhere in the order of paths, some in several indexes."""
    names = [f"{'abc'[k % 3]}/{'x' * (k % 4)}{k}.dcm" for k in range(12)]
    rows = [file_rows(name, 1 + k % 3, SOPInstanceUID=f"1.{k}") for k, name in enumerate(names)]
    chosen: list[set[int]] = [{k for k, part in enumerate(split) if part == n} for n in range(3)]
    for k, part in again:
        chosen[part].add(k)
    parts = [FrameIndex.build([rows[k] for k in sorted(one)], root=b"/r") for one in chosen]
    together = FrameIndex.concat([parts[k] for k in order])
    assert_same(together, FrameIndex.build(rows, root=b"/r"))


def test_two_servers_are_kept_apart(tree: Path) -> None:
    """An address above both would be that of no server."""
    whole = scan(tree)[0].whole()._generation
    two = [
        FrameIndex(replace(whole, root=b"dicomweb+https://pacs.example/%s/dicom-web" % name))
        for name in (b"a", b"b")
    ]
    with pytest.raises(OptionError, match="different DICOMweb servers"):
        FrameIndex.concat(two)
    assert FrameIndex.concat([two[0], two[0]]).root == two[0].root


def test_a_file_with_other_frames_is_another(tmp_path: Path) -> None:
    """As another version of this package may have found them."""
    files = [file_rows(f"{k}.dcm", k + 1) for k in range(3)]
    older = FrameIndex.build(files, root=os.fsencode(tmp_path))
    newer = FrameIndex.build(
        [replace(files[0], count=0, columns={}, file_class="unsupported"), *files[1:]],
        root=os.fsencode(tmp_path),
    )
    for several in ([older, newer], [newer, older], [newer, older.select([0, 1])]):
        with pytest.raises(OptionError, match="say different things"):
            FrameIndex.concat(several)
