"""Joins: pandas' left merge is the oracle for values; what is ambiguous is refused."""

from __future__ import annotations

import math
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomtorch.batches.metadata import MetadataReader, metas_of
from dicomtorch.errors import OptionError
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.model.frame import AppliedVOI
from tests.support.phantoms import file_rows


def index_of(patients: list[str], issuers: list[str] | None = None) -> FrameIndex:
    files = [
        file_rows(
            f"{n:05d}.dcm",
            n,
            2,
            PatientID=patient,
            IssuerOfPatientID=issuers[n] if issuers else "",
            Rows=1,
            Columns=1,
        )
        for n, patient in enumerate(patients)
    ]
    return FrameIndex.build(files, root=b"/data")


names = st.sampled_from(["a", "b", "c", "d", "Ünï", "0012", ""])


@given(
    st.lists(names, min_size=1, max_size=12),
    st.dictionaries(
        names.filter(bool), st.tuples(st.integers(0, 9), st.floats() | st.none(), names)
    ),
    st.lists(st.integers(0, 23), max_size=10),
    st.booleans(),
)
def test_values_are_those_of_a_left_merge(
    patients: list[str], rows: dict[str, Any], chosen: list[int], by_frame: bool
) -> None:
    index = index_of(patients)
    index = index.select([k % len(index) for k in chosen] or list(range(len(index))))
    on = ["PatientID", "frame"] if by_frame else ["PatientID"]
    table = pd.DataFrame(
        [
            (key, frame, *values)
            for key, values in rows.items()
            for frame in ((0, 1) if by_frame else (0,))
        ],
        columns=["PatientID", "frame", "label", "score", "site"],
    ).astype({"label": "int64", "score": "float64", "site": "object", "frame": "int64"})
    if not by_frame:
        table = table.drop(columns="frame")
    frames = pd.DataFrame({name: list(index.column(name)) for name in on})
    expected = frames.merge(table, on=on, how="left")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if expected["label"].isna().all():
            with pytest.raises(OptionError, match="no row of the table"):
                index.join(table, on=on)
            return
        joined = index.join(table, on=on)
    assert joined.column("label").tolist() == expected["label"].fillna(-1).astype(int).tolist()
    np.testing.assert_array_equal(joined.column("score"), expected["score"].to_numpy(np.float64))
    assert list(joined.column("site")) == expected["site"].fillna("").tolist()
    copy = pickle.loads(pickle.dumps(joined.select(np.arange(len(joined))[::-1])))
    assert copy.column("label").tolist() == joined.column("label").tolist()[::-1]
    assert joined.column("PatientID").tolist() == frames["PatientID"].tolist()


@pytest.mark.parametrize("kind", ["pandas", "pandas index", "arrow", "dict", "csv"])
def test_every_kind_of_table(kind: str, tmp_path: Path) -> None:
    content = {"PatientID": ["0012", "7"], "label": [3, 4], "malignant": [True, False]}
    table: Any = content
    if kind == "pandas":
        table = pd.DataFrame(content)
    elif kind == "pandas index":
        table = pd.DataFrame(content).set_index("PatientID")
    elif kind == "arrow":
        table = pa.table(content)
    elif kind == "csv":
        table = tmp_path / "labels.csv"
        pd.DataFrame(content).to_csv(table, index=False)
    joined = index_of(["7", "0012"]).join(table, on="PatientID")
    assert joined.column("label").tolist() == [4, 4, 3, 3]
    assert joined.column("malignant").tolist() == [0, 0, 1, 1]
    assert joined.joined == ("label", "malignant")


def test_a_join_says_what_did_not_match() -> None:
    table = {"PatientID": ["a", "x", "y", None, ""], "label": [1, 2, 3, 4, 5]}
    said = (
        "^join on PatientID: 4 of 6 frames have no row in the table, 2 table rows have no frame, "
        r"2 table rows have no key; without a row, label is -1: leave such frames out, as in "
        r"index\.filter\(label=\[0, 1\]\)$"
    )
    with pytest.warns(UserWarning, match=said):
        joined = index_of(["a", "b", ""]).join(table, on="PatientID")
    assert joined.column("label").tolist() == [1, 1, -1, -1, -1, -1]


def test_an_unknown_column_names_those_that_were_joined() -> None:
    index = index_of(["a", "b"]).join({"PatientID": ["a", "b"], "finding": [0, 1]}, on="PatientID")
    with pytest.raises(OptionError, match=r"no column 'label'.*; joined are finding\n"):
        index.column("label")


def test_joined_columns_are_columns(tmp_path: Path) -> None:
    index = index_of(["a", "b", "c"]).select([5, 0, 2])
    with pytest.warns(UserWarning, match="1 of 3 frames"):
        index = index.join(
            {"PatientID": ["a", "b"], "label": [1, 0], "site": ["x", "y"]}, on="PatientID"
        )
    assert index.filter(label=1).path(0) == "/data/00000.dcm"
    assert len(index.filter(pc.field("label") >= 0)) == 2
    assert len(index.filter(lambda one: one.column("site") == "y", frame=0)) == 1
    assert index.table.column("label").to_pylist() == [-1, 1, 0]
    assert "label" in repr([column.name for column in index.columns])
    voi = AppliedVOI("", math.nan, math.nan)
    (meta,) = metas_of(MetadataReader(index).of([1], [voi], [1]))
    assert (meta["label"], meta["site"]) == (1, "x")
    (meta,) = metas_of(MetadataReader(index).of([0], [voi], [0]))
    assert (meta["label"], meta["site"]) == (-1, "")
    index.save(tmp_path / "x")
    copy = FrameIndex.load(tmp_path / "x")
    assert copy.joined == ("label", "site")
    assert copy.column("label").tolist() == [-1, 1, 0]
    assert list(copy.select([2, 1]).column("site")) == ["y", "x"]
    assert [len(part) for part in copy.split([1.0])] == [3]


def test_several_joins_add_up() -> None:
    index = index_of(["a", "b"]).join({"PatientID": ["b", "a"], "site": ["x", "y"]}, on="PatientID")
    index = index.join({"site": ["x", "y"], "score": [0.5, 1.5]}, on="site")
    index = index.join(
        {"SOPInstanceUID": ["1.0", "1.1"], "day": pd.to_datetime(["2020-01-02", "2021-03-04"])}
    )
    assert index.column("score").tolist() == [1.5, 1.5, 0.5, 0.5]
    assert index.column("day")[0].startswith("2020-01-02")


@pytest.mark.parametrize(
    ("table", "on", "message"),
    [
        ({"PatientID": ["a", "a"], "label": [1, 2]}, "PatientID", "1 key .* more than once"),
        (
            {"PatientID": ["x"], "label": [1]},
            "PatientID",
            "1 to 1 characters in the index, 1 to 1 in",
        ),
        ({"PatientID": [1.0], "label": [1]}, "PatientID", "read it as text"),
        (
            {"Patient": ["a"], "label": [1]},
            "PatientID",
            "no column PatientID; it has Patient, label",
        ),
        ({"PatientID": ["a"], "Rows": [1]}, "PatientID", "'Rows' has the name of another"),
        ({"PatientID": ["a"], "index": [1]}, "PatientID", "rename it, as in 'label'"),
        ({"PatientID": ["a"], "label": [[1, 2]]}, "PatientID", "holds list"),
        ({"PatientID": ["a"]}, "PatientID", "nothing to join"),
        ({"nonsense": ["a"], "label": [1]}, "nonsense", "no column 'nonsense'"),
        ({"SliceThickness": [1.0], "label": [1]}, "SliceThickness", "cannot be a key"),
        ({"frame": ["one"], "label": [1]}, "frame", "make it int64"),
        ([1, 2], "PatientID", "got list"),
        (
            pa.table([["a"], ["b"], [1]], ["PatientID", "PatientID", "label"]),
            "PatientID",
            "several columns 'PatientID'",
        ),
        ("nowhere.csv", "PatientID", "No such file.*; join takes the path of a CSV file"),
    ],
)
def test_what_is_unclear_is_refused(table: Any, on: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        index_of(["a", "b"]).join(table, on=on)


def test_damaged_csv_files_are_not_quoted(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("PatientID,label\nDOE^JANE,1,2\n")
    with pytest.raises(OptionError, match="Expected 2 columns, got 3") as caught:
        index_of(["a"]).join(tmp_path / "labels.csv", on="PatientID")
    assert "DOE" not in str(caught.value)


def test_patients_of_several_issuers_need_the_issuer() -> None:
    index = index_of(["1", "1", "2"], ["A", "B", "A"])
    table = {"PatientID": ["1", "1", "2"], "IssuerOfPatientID": ["A", "B", "A"], "label": [5, 6, 7]}
    with pytest.raises(OptionError, match="1 PatientID comes from several issuers"):
        index.join({"PatientID": ["1", "2"], "label": [1, 2]}, on="PatientID")
    joined = index.join(table, on=["PatientID", "IssuerOfPatientID"])
    assert joined.column("label").tolist() == [5, 5, 6, 6, 7, 7]
