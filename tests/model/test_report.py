"""The report of a scan: what it shows of itself."""

from __future__ import annotations

import pickle

from dicomtorch.model.report import FileClass, FileFinding, ScanReport


def test_a_report_prints_numbers_and_no_paths() -> None:
    images: list[FileClass] = ["image"] * 1200
    kinds: list[FileClass] = [*images, "not_dicom", "unreadable"]
    findings = tuple(FileFinding(f"DOE/{k}", kind, "odd") for k, kind in enumerate(kinds))
    report = ScanReport(findings, read=3, reused=1199, removed=2, seconds=1.25, duplicates=4)
    assert str(report) == repr(report)
    assert repr(report) == (
        "ScanReport(1,202 files: 1,200 images, 1 not DICOM, 1 damaged; 4 repeat a SOPInstanceUID; "
        "3 read, 1,199 known, 2 gone, 1.2 s)"
    )
    assert repr(ScanReport()) == "ScanReport(0 files; 0 read, 0 known, 0 gone, 0.0 s)"
    assert pickle.loads(pickle.dumps(report)) == report
