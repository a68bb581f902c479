"""What is opened for rows of the files table that are members of archives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dicomtorch import scan
from dicomtorch.index.members import object_length, object_lengths
from tests.support.archives import KINDS, pack
from tests.support.phantoms import ct, ct_pixels, write


@pytest.mark.parametrize("kind", [None, *KINDS])
def test_one_row_and_many_name_the_same_object(tmp_path: Path, kind: str | None) -> None:
    for name in ("a.dcm", "deep/er/b.dcm", "deep/ü.dcm"):
        write(ct(ct_pixels(1, 8, 8)), tmp_path / "files" / name)
    source = tmp_path / "files" if kind is None else pack(tmp_path / "files", tmp_path / kind)
    index, _ = scan(source)
    rows = np.arange(len(index.files["path"]))
    lengths = [len(index.object_path(int(row))) - len(index.path_prefix) for row in rows]
    assert [object_length(index.files, int(row)) for row in rows] == lengths
    assert object_lengths(index.files, rows).tolist() == lengths
