"""Rows of a worker as bytes and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dicomtorch.errors import IndexFileError
from dicomtorch.index.builder import Part
from dicomtorch.index.part_bytes import part_from_bytes, part_to_bytes
from dicomtorch.model.limits import LIMITS
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
    data = part_to_bytes(part, columns, {"host": "here"})
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


@pytest.mark.parametrize("at", [0.01, 0.2, 0.5, 0.99])
def test_bytes_that_are_cut_are_refused(tmp_path: Path, at: float) -> None:
    part, columns = part_of(mixed_tree(tmp_path))
    data = part_to_bytes(part, columns, {})
    with pytest.raises(IndexFileError, match=r"of a worker|damaged"):
        part_from_bytes(data[: int(len(data) * at)], columns)
