"""One bad file never ends a scan: what nobody foresaw becomes the row of that file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from dicomtorch import scan
from dicomtorch.scanner import file as scan_file
from dicomtorch.scanner import worker
from tests.support.phantoms import write_series

FAULT = """
import os, dicomtorch.scanner.file as file
real = file.read_file
def read_file(absolute, path, *rest):
    rows = real(absolute, path, *rest)
    if path == b"001.dcm":
        if os.environ["FAULT"] == "while reading":
            raise KeyError("DOE^JOHN")
        rows.columns["offset"] = 1 << 80
    return rows
file.read_file = read_file
"""


@pytest.mark.parametrize("kind", ["while reading", "in a column"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_foreign_exception_is_the_row_of_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, workers: int
) -> None:
    write_series(tmp_path / "files", 3)
    monkeypatch.setenv("FAULT", kind)
    if workers:
        (tmp_path / "hook").mkdir()
        (tmp_path / "hook" / "sitecustomize.py").write_text(FAULT)
        paths = [str(tmp_path / "hook"), os.environ.get("PYTHONPATH", "")]
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    else:
        names: dict[str, Any] = {}
        with monkeypatch.context() as patched:
            patched.setattr(scan_file, "read_file", scan_file.read_file)
            exec(FAULT, names)
        monkeypatch.setattr(worker, "read_file", names["read_file"])
    index, report = scan(tmp_path / "files", num_workers=workers)
    assert len(index) == 2
    (finding,) = [one for one in report.findings if one.file_class != "image"]
    assert finding.path == "001.dcm"
    assert finding.file_class == "unreadable"
    kind_of_error = "KeyError" if kind == "while reading" else "OverflowError"
    assert f"a fault of dicomtorch, please report it: {kind_of_error} at line" in finding.reason
    assert "DOE" not in finding.reason
    monkeypatch.undo()
    again, report = scan(tmp_path / "files", index=index, num_workers=0)
    assert (len(again), report.read) == (3, 1)


def test_memory_that_runs_out_is_no_fault_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_series(tmp_path, 2)

    def fail(*_: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(worker, "read_file", fail)
    with pytest.raises(MemoryError):
        scan(tmp_path, num_workers=0)
