"""From what a user gives a dataset to frames."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from dicomtorch import DicomFrames, DicomVolumes, scan
from dicomtorch.errors import SourceError
from tests.support.phantoms import ct, ct_pixels, write, write_series


def test_the_report_says_what_was_read_and_how_long_it_took(tmp_path: Path) -> None:
    folder = tmp_path / "series"
    write_series(folder, 5)
    first = DicomFrames(folder).report
    assert (first.read, first.reused, first.removed) == (5, 0, 0)
    assert first.seconds > 0
    (folder / "001.dcm").unlink()
    write(ct(ct_pixels(9), 9), folder / "009.dcm")
    second = DicomVolumes(folder, on_gap="keep").report
    assert (second.read, second.reused, second.removed) == (1, 4, 1)
    assert second.seconds > 0
    stored = DicomFrames(folder, refresh=False)
    assert (stored.report.read, stored.report.reused) == (0, 5)
    again: DicomFrames = pickle.loads(pickle.dumps(stored))
    assert again.report == stored.report


def test_a_selection_that_leaves_nothing_is_not_blamed_on_the_files(tmp_path: Path) -> None:
    write_series(tmp_path, 5)
    index, _ = scan(tmp_path)
    with pytest.raises(SourceError, match="left none of 5 frames of the index"):
        DicomFrames(index.filter(Modality="MR"))
