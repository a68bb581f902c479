"""Joining tables that know an image by its file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from dicomtorch.errors import OptionError
from dicomtorch.index.file_keys import stem
from dicomtorch.index.frame_index import FrameIndex
from tests.support.phantoms import file_rows


def index_of(*names: str, root: str = "/data", **columns: Any) -> FrameIndex:
    files = [file_rows(name, n, **columns) for n, name in enumerate(names)]
    return FrameIndex.build(files, root=os.fsencode(root))


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("stem", ["a", "b"]),
        ("name", ["a.dcm", "b.dcm"]),
        ("path", ["x/a.dcm", "y/b.dcm"]),
        ("path", ["/data/x/a.dcm", "/data/y/b.dcm"]),
        ("path", ["./x/a.dcm", "/data/./y//b.dcm "]),
    ],
)
@pytest.mark.parametrize("named", [True, False])
def test_a_file_is_a_key(key: str, values: list[str], named: bool) -> None:
    index = index_of("x/a.dcm", "y/b.dcm", "y/c.dcm")
    column = "image_id" if named else key
    table = {column: values, "label": [1, 2]}
    with pytest.warns(UserWarning, match=f"join on {column}: 1 of 3 frames has no row"):
        joined = index.join(table, on={column: key} if named else key)
    assert joined.column("label").tolist() == [1, 2, -1]
    assert joined.joined == ("label",)


def test_the_identifiers_of_copies_do_not_matter_for_files(tmp_path: Path) -> None:
    index = index_of("a.dcm", "b.dcm", SOPInstanceUID="1.2")
    path = tmp_path / "labels.csv"
    path.write_text("image_id,label\na,0\nb,1\n")
    assert index.join(path, on={"image_id": "stem"}).column("label").tolist() == [0, 1]


def test_several_keys_tell_files_of_one_name_apart() -> None:
    index = FrameIndex.build(
        [
            file_rows("x/1.dcm", 0, PatientID="p"),
            file_rows("y/1.dcm", 1, PatientID="q"),
            file_rows("y/2.dcm", 2, 2, PatientID="q"),
        ],
        root=b"/data",
    )
    table = {"patient": ["q", "p", "q"], "file": ["1", "1", "2"], "label": ["a", "b", "c"]}
    joined = index.join(table, on={"patient": "PatientID", "file": "stem"})
    assert list(joined.column("label")) == ["b", "a", "c", "c"]
    one = {"file": ["1"], "label": ["a"]}
    with pytest.raises(OptionError, match=r"1 key \(file\) of the table is the name of .*up to 2"):
        index.join(one, on={"file": "stem"})
    # A name that no row has may be there as often as it will.
    with pytest.warns(UserWarning, match="2 of 4 frames"):
        other = index.join({"file": ["2"], "label": ["a"]}, on={"file": "stem"})
    assert list(other.column("label")) == ["", "", "a", "a"]


def test_a_row_of_another_folder_matches_nothing() -> None:
    index = index_of("a.dcm")
    with pytest.raises(OptionError, match="no row of the table has the image of any frame"):
        index.join({"image": ["/other/a.dcm"], "label": [1]}, on={"image": "path"})
    with pytest.raises(OptionError, match="no column image; it has file, label"):
        index.join({"file": ["a"], "label": [1]}, on={"image": "stem"})
    with pytest.raises(OptionError, match="names no key"):
        index.join({"file": ["a"], "label": [1]}, on=[])


def test_a_path_through_a_link_is_the_same_file(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.dcm").touch()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    index = index_of("a.dcm", root=str((tmp_path / "real").resolve()))
    table = {"image": [str(tmp_path / "link" / "a.dcm")], "label": [7]}
    assert index.join(table, on={"image": "path"}).column("label").tolist() == [7]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("x/IM-0001.dcm", "IM-0001"),
        ("1.2.840.10008", "1.2.840.10008"),
        ("1.2.840.10008.dcm", "1.2.840.10008"),
        ("noext", "noext"),
        (".hidden", ".hidden"),
    ],
)
def test_a_uid_is_no_stem_with_a_suffix(name: str, expected: str) -> None:
    assert stem(name) == expected


def test_another_key_is_named_where_the_table_has_it() -> None:
    index = index_of("x/a.dcm", "y/b.dcm")
    for kind, others in {
        "path": ["x/a.dcm", "/data/y/b.dcm"],
        "name": ["a.dcm"],
        "stem": ["a"],
    }.items():
        for asked in {"path", "name", "stem"} - {kind}:
            with pytest.raises(OptionError) as told:
                index.join({"image": others, "label": others}, on={"image": asked})
            assert str(told.value).endswith(f'join with on={{"image": "{kind}"}}')
    with pytest.raises(OptionError) as told:
        index.join({"image": ["c"], "label": [1]}, on={"image": "name"})
    assert str(told.value).endswith("in the table)")


def test_a_repeated_name_is_answered_with_the_path() -> None:
    index = index_of("x/a.dcm", "y/b.dcm")
    table = {"image": ["a.dcm", "a.dcm"], "label": [0, 1]}
    with pytest.raises(OptionError, match=r"1 key \(image\) is in the .* up to 2 times") as told:
        index.join(table, on={"image": "name"})
    assert str(told.value).endswith('give paths and join with on={"image": "path"}')
    with pytest.raises(OptionError) as told:
        index.join({"image": ["x/a.dcm"] * 2, "label": [0, 1]}, on={"image": "path"})
    assert str(told.value).endswith("or add a key column")
