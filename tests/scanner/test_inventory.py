"""Scanning the files that a table names, and parts of what there is."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from dicomtorch.errors import OptionError, SourceError
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.scanner import inventory as inventories
from dicomtorch.scanner import worker as scan_worker
from dicomtorch.scanner.scan import scan
from tests.support.phantoms import ct, ct_pixels, write
from tests.support.scanned import assert_same, table_bytes


def files_of(tree: Path) -> list[Path]:
    return [path for path in tree.rglob("*") if path.is_file()]


def columns_of(tree: Path, **more: Any) -> dict[str, Any]:
    return {"path": [str(path) for path in files_of(tree)], **more}


@pytest.fixture
def _no_listing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        pytest.fail("listed")

    monkeypatch.setattr(os, "scandir", refuse)


def parquet_file(columns: dict[str, Any], folder: Path) -> Path:
    parquet.write_table(pa.table(columns), folder / "list.parquet")
    return folder / "list.parquet"


def arrow_file(columns: dict[str, Any], folder: Path) -> Path:
    table = pa.table(columns)
    with pa.ipc.new_file(str(folder / "list.arrow"), table.schema) as writer:
        writer.write_table(table)
    return folder / "list.arrow"


def csv_file(columns: dict[str, Any], folder: Path) -> Path:
    pd.DataFrame(columns).to_csv(folder / "list.csv", index=False)
    return folder / "list.csv"


def compressed_csv(columns: dict[str, Any], folder: Path) -> Path:
    pd.DataFrame(columns).to_csv(folder / "list.csv.gz", index=False)
    return folder / "list.csv.gz"


def frame(columns: dict[str, Any], _: Path) -> Any:
    return pd.DataFrame(columns)


def mapping(columns: dict[str, Any], _: Path) -> Any:
    return columns


@pytest.mark.parametrize(
    "write_table", [parquet_file, arrow_file, csv_file, compressed_csv, frame, mapping]
)
def test_an_inventory_gives_what_a_listing_gives(
    tree: Path, tmp_path: Path, write_table: Any, request: pytest.FixtureRequest
) -> None:
    listed, report = scan(tree)
    columns = columns_of(tree)
    columns["path"] += columns["path"][:3]  # once each
    table = write_table(columns, tmp_path)
    request.getfixturevalue("_no_listing")
    found, other = scan(inventory=table)
    assert found.root == bytes(tree)
    assert report.findings == other.findings
    assert_same(found, listed, numbers=False)


def test_paths_may_be_below_the_source(tree: Path) -> None:
    below = [str(path.relative_to(tree)) for path in files_of(tree)]
    assert_same(scan(tree, inventory={"path": below})[0], scan(tree)[0], numbers=False)
    some, _ = scan(tree.parent, inventory={"path": ["tree/a/0.dcm", f"{tree}/a/../a/4.dcm"]})
    assert some.root == bytes(tree.parent)
    assert list(some.files["path"]) == [b"tree/a/0.dcm", b"tree/a/4.dcm"]


def test_paths_need_not_be_text(tree: Path) -> None:
    odd = os.fsencode(tree) + b"/a/\xff.dcm"
    shutil.copy(bytes(tree / "a" / "0.dcm"), odd)
    found, _ = scan(inventory={"path": [odd]})
    assert (len(found), found.path(0)) == (1, os.fsdecode(odd))


def test_the_root_is_the_deepest_folder_of_all(tree: Path) -> None:
    found, _ = scan(inventory={"path": [str(tree / "a-" / "1.dcm"), str(tree / "a" / "0.dcm")]})
    assert found.root == bytes(tree)
    assert scan(inventory={"path": [str(tree / "a" / "b" / "2.dcm")]})[0].root == bytes(
        tree / "a/b"
    )


def test_what_is_not_there_is_reported(tree: Path) -> None:
    found, report = scan(tree, inventory={"path": ["a/0.dcm", "a/gone.dcm", "a/b"]})
    assert len(found) == 1
    reasons = {Path(one.path).name: one.reason for one in report.findings}
    assert "No such file" in reasons["gone.dcm"]
    assert "folder" in reasons["b"]


def test_archives_of_an_inventory_are_opened(tree: Path) -> None:
    with zipfile.ZipFile(tree / "study.zip", "w") as archive:
        for k in (0, 4, 8):
            archive.write(tree / "a" / f"{k}.dcm", f"{k}.dcm")
    listed = {"path": ["study.zip", "c/3.dcm"]}
    found, _ = scan(tree, inventory=listed)
    assert len(found) == 4
    assert_same(found, scan([tree / "study.zip", tree / "c" / "3.dcm"])[0], numbers=False)
    again, report = scan(tree, inventory=listed, index=found)
    assert again is found
    assert report.read == 0
    parts = [scan(tree, inventory=listed, part=(k, 2))[0] for k in (1, 2)]
    assert_same(FrameIndex.concat(parts), found, numbers=False)


# What has not changed


def identities(tree: Path, make_time: Any) -> dict[str, Any]:
    infos = [path.stat() for path in files_of(tree)]
    return columns_of(
        tree,
        size=[info.st_size for info in infos],
        mtime=make_time([info.st_mtime_ns for info in infos]),
    )


TIMES = {
    "nanoseconds": lambda times: pa.array(times, pa.timestamp("ns")),
    "milliseconds": lambda times: pa.array([t // 10**6 for t in times], pa.timestamp("ms", "UTC")),
    "seconds": lambda times: [t // 10**9 for t in times],
    "float": lambda times: [t / 1e9 for t in times],
    "find": lambda times: [f"{t // 10**9}.{t % 10**9:09}0" for t in times],
    "text": lambda times: [
        np.datetime_as_string(np.datetime64(t // 10**6, "ms")) + "Z" for t in times
    ],
}


@pytest.mark.parametrize("kind", TIMES)
def test_size_and_time_of_a_table_spare_reading(
    tree: Path, kind: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    old, _ = scan(tree)
    write(ct(ct_pixels(60), 60), tree / "c" / "39.dcm")
    os.utime(tree / "c" / "39.dcm", (2_000_000_000, 2_000_000_000))
    write(ct(ct_pixels(61), 61), tree / "new.dcm")
    (tree / "a" / "0.dcm").unlink()
    table = pa.table(identities(tree, TIMES[kind]))
    expected, _ = scan(tree)
    request.getfixturevalue("_no_listing")
    monkeypatch.setattr(inventories, "_stat_entry", lambda *_: pytest.fail("looked at"))
    found, report = scan(tree, inventory=table, index=old)
    assert (report.read, report.removed, report.reused) == (2, 1, 41)
    assert_same(found, expected, numbers=False)
    again, report = scan(tree, inventory=table, index=found)
    assert again is found
    assert report.read == 0


def test_without_times_files_are_looked_at(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, _ = scan(tree)
    write(ct(ct_pixels(60), 60), tree / "c" / "39.dcm")
    found, report = scan(tree, inventory=columns_of(tree), index=old)
    assert report.read == 1
    assert_same(found, scan(tree)[0], numbers=False)
    monkeypatch.setattr(scan_worker, "read_file", lambda *_: pytest.fail("read"))
    assert scan(tree, inventory=columns_of(tree, size=[None] * 43), index=found)[0] is found


# What is no inventory


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        ({"path": []}, SourceError, "names no file"),
        ({"Path": ["/x"]}, OptionError, "no column path among its 1"),
        ({"path": ["/x", None]}, OptionError, "rows without a path"),
        ({"path": ["/x", ""]}, OptionError, "rows without a path"),
        ({"path": [1, 2]}, OptionError, "no text"),
        ({"path": ["x.dcm"]}, SourceError, r"x\.dcm, which is not absolute"),
        ({"path": ["/x"], "size": ["1"]}, OptionError, "sizes that are no whole numbers"),
        ({"path": ["/x"], "size": [1.5]}, OptionError, "sizes that are no whole numbers"),
        ({"path": ["/x"], "size": [-1]}, OptionError, "sizes that are no whole numbers"),
        ({"path": ["/x"], "size": [float("inf")]}, OptionError, "sizes that are no whole numbers"),
        ({"path": ["/x"], "mtime": ["yesterday"]}, OptionError, "seconds since 1970"),
        ({"path": ["/x"], "mtime": [1_700_000_000_000_000_000]}, OptionError, "that no file has"),
    ],
)
def test_tables_that_are_none_are_refused(
    columns: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        scan(inventory=columns)


def test_sizes_and_times_may_be_missing(tree: Path) -> None:
    """pandas makes floats of whole numbers where one is missing."""
    old, _ = scan(tree)
    infos = [path.stat() for path in files_of(tree)]
    sizes = [float("nan"), *(float(info.st_size) for info in infos[1:])]
    times = [infos[0].st_mtime_ns / 1e9, float("nan"), *(t.st_mtime_ns / 1e9 for t in infos[2:])]
    for table in ({"size": sizes, "mtime": times}, {"size": sizes}):
        for made in (columns_of(tree, **table), pd.DataFrame(columns_of(tree, **table))):
            assert scan(tree, inventory=made, index=old)[0] is old


def test_a_damaged_arrow_file_is_refused(tmp_path: Path) -> None:
    offsets = np.array([0, 1 << 20, 2], np.int32)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(b"/x")]
    table = pa.table({"path": pa.Array.from_buffers(pa.string(), 2, buffers)})
    with pa.ipc.new_file(str(tmp_path / "list.arrow"), table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(SourceError, match=r"list\.arrow cannot be read \(ArrowInvalid\)"):
        scan(inventory=tmp_path / "list.arrow")


def test_files_that_are_no_tables_are_refused(tree: Path, tmp_path: Path) -> None:
    for name in ("x.parquet", "x.arrow", "x.csv"):
        (tmp_path / name).write_bytes(b"" if name == "x.csv" else b"no table at all, Doe^Jane")
        with pytest.raises(SourceError, match=f"{name} cannot be read") as caught:
            scan(inventory=tmp_path / name)
        assert "Doe" not in str(caught.value)
    with pytest.raises(SourceError, match="No such file"):
        scan(inventory=tmp_path / "nowhere.csv")
    (tmp_path / "list.txt").write_text("/data/Doe^Jane/1.dcm\n/data/2.dcm\n")
    with pytest.raises(OptionError, match="no column path") as none:
        scan(inventory=tmp_path / "list.txt")
    assert "Doe" not in str(none.value)


def test_paths_outside_of_the_source_are_named(tree: Path) -> None:
    with pytest.raises(SourceError, match=r"names .*tree/a/0\.dcm, which is not below .*tree/c"):
        scan(tree / "c", inventory={"path": [str(tree / "c" / "3.dcm"), str(tree / "a" / "0.dcm")]})
    with pytest.raises(SourceError, match=r"one folder .* got 2 sources"):
        scan([tree / "a", tree / "c"], inventory={"path": ["3.dcm"]})
    with pytest.raises(SourceError, match="got an address"):
        scan("s3://bucket/x", inventory={"path": ["3.dcm"]})
    with pytest.raises(SourceError, match="the source is None"):
        scan()


# Parts


@pytest.mark.parametrize("by_inventory", [False, True])
def test_parts_are_disjoint_and_together_everything(tree: Path, by_inventory: bool) -> None:
    table = columns_of(tree) if by_inventory else None
    parts = [scan(tree, inventory=table, part=(k, 4))[0] for k in (1, 2, 3, 4)]
    paths = [path for part in parts for path in part.files["path"]]
    whole, _ = scan(tree)
    assert sorted(paths) == sorted(whole.files["path"])
    assert len(set(paths)) == len(paths) == 43
    assert all(len(part.files["path"]) >= 5 for part in parts)
    assert_same(FrameIndex.concat(parts), whole, numbers=False)


def test_a_new_file_moves_no_other_to_another_part(tree: Path) -> None:
    before, _ = scan(tree, part=(2, 3))
    write(ct(ct_pixels(60), 60), tree / "0.dcm")
    after, report = scan(tree, part=(2, 3), index=before)
    assert report.removed == 0
    assert set(before.files["path"]) <= set(after.files["path"])
    assert table_bytes(scan(tree, part=(1, 1))[0]) == table_bytes(scan(tree)[0])


@pytest.mark.parametrize("part", [(0, 3), (4, 3), (1, 0)])
def test_parts_that_are_none_are_refused(tree: Path, part: tuple[int, int]) -> None:
    with pytest.raises(OptionError, match="is none"):
        scan(tree, part=part)


@pytest.mark.parametrize("part", [3, (1, 2, 3), "3/16", (1.0, 2)])
def test_parts_that_are_no_pairs_are_refused_before_any_work(
    tree: Path, part: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inventories, "_columns", lambda _: pytest.fail("read"))
    with pytest.raises(OptionError, match="the k-th of n parts"):
        scan(tree, inventory=columns_of(tree), part=part)
