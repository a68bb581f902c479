"""Rows of a worker as bytes and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dicomtorch.errors import IndexFileError
from dicomtorch.index import part_bytes
from dicomtorch.index.builder import Part
from dicomtorch.index.columns import Packed, Texts
from dicomtorch.index.merging import is_repeated
from dicomtorch.index.part_bytes import part_from_bytes, part_to_bytes
from dicomtorch.model.limits import LIMITS
from dicomtorch.model.schema import Column
from dicomtorch.scanner.tree import walk
from dicomtorch.scanner.worker import EntryReader, Job
from tests.support.scanned import mixed_tree


def part_of(root: Path) -> tuple[Part, Any]:
    job = Job(bytes(root) + b"/", {}, LIMITS)
    return EntryReader(job).part(walk(bytes(root), [bytes(root)], False)), job.columns


@pytest.mark.parametrize("is_empty", [False, True])
def test_parts_come_back_as_they_were(tmp_path: Path, is_empty: bool) -> None:
    part, columns = part_of(tmp_path if is_empty else mixed_tree(tmp_path))
    assert len(part.groups) == (0 if is_empty else 6)
    data = part_to_bytes(part, {"host": "here"})
    back, said = part_from_bytes(data, columns)
    assert said == {"host": "here"}
    assert back.groups == part.groups
    for name in ("frames", "files", "lookups"):
        before, after = getattr(part, name), getattr(back, name)
        assert before.keys() == after.keys()
        for column, data in before.items():
            if isinstance(data, np.ndarray):
                assert data.dtype == after[column].dtype
            np.testing.assert_array_equal(list(data), list(after[column]), err_msg=column)


def test_what_is_the_same_throughout_is_sent_and_kept_once(tmp_path: Path) -> None:
    part, columns = part_of(mixed_tree(tmp_path))
    back, _ = part_from_bytes(part_to_bytes(part, {}), columns)
    for name in ("Modality", "KVP", "ImageOrientationPatient"):
        data: Any = back.frames[name]
        values = data.codes if isinstance(data, Texts) else data
        assert len(values) == len(part.frames["frame"])
        assert is_repeated(values), name
    paths = back.files["path"]
    assert isinstance(paths, Packed)
    assert list(paths) == list(part.files["path"])


def test_other_columns_are_refused(tmp_path: Path) -> None:
    part, columns = part_of(mixed_tree(tmp_path))
    with pytest.raises(IndexFileError, match="other columns"):
        part_from_bytes(part_to_bytes(part, {}), [*columns, Column("PatientSex", "text")])


def test_no_code_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_bytes, "_sent", lambda _: Path)
    data = part_to_bytes(Part({"frame": np.zeros(1, np.int32)}, {}, {}, []), {})
    with pytest.raises(IndexFileError, match="name code"):
        part_from_bytes(data, [])


@pytest.mark.parametrize("at", [0.1, 0.4, 0.8])
def test_bytes_that_are_changed_are_refused(tmp_path: Path, at: float) -> None:
    part, columns = part_of(mixed_tree(tmp_path))
    data = bytearray(part_to_bytes(part, {}))
    data[int(len(data) * at)] ^= 4
    with pytest.raises(IndexFileError, match="their checksum differs"):
        part_from_bytes(bytes(data), columns)


@pytest.mark.parametrize("at", [0.0, 0.001, 0.01, 0.2, 0.5, 0.99])
def test_bytes_that_are_cut_are_refused(tmp_path: Path, at: float) -> None:
    part, columns = part_of(mixed_tree(tmp_path))
    data = part_to_bytes(part, {})
    with pytest.raises(IndexFileError, match=r"of a worker|damaged"):
        part_from_bytes(data[: int(len(data) * at)], columns)


@pytest.mark.parametrize("length", [b"10", b"-5", b"abc", b"999999999", b"99999999999999999"])
def test_a_length_that_is_changed_is_refused(tmp_path: Path, length: bytes) -> None:
    part, columns = part_of(mixed_tree(tmp_path))
    head, _, packed = part_to_bytes(part, {}).partition(b"\n")
    said, version, _, checksum = head.split(b" ")
    with pytest.raises(IndexFileError, match="their checksum differs"):
        part_from_bytes(b" ".join((said, version, length, checksum)) + b"\n" + packed, columns)
