"""The report of a scan: what it shows of itself."""

from __future__ import annotations

import pickle

import numpy as np

from dicomtorch.model.report import FILE_CLASSES, FileClass, FileFinding, Findings, ScanReport


def made_of(kinds: list[FileClass]) -> Findings:
    count = len(kinds)
    return Findings(
        [b"DOE/%d" % k for k in range(count)],
        np.array([FILE_CLASSES.index(kind) for kind in kinds], np.int8),
        ["reason" if kind != "image" else "" for kind in kinds],
        ["odd" if k % 2 else "" for k in range(count)],
        np.array([kind != "image" or bool(k % 2) for k, kind in enumerate(kinds)]),
    )


def test_findings_are_made_when_they_are_asked_for() -> None:
    findings = made_of(["image", "image", "unreadable", "not_dicom"])
    expected = (
        FileFinding("DOE/0", "image"),
        FileFinding("DOE/1", "image", "odd"),
        FileFinding("DOE/2", "unreadable", "reason"),
        FileFinding("DOE/3", "not_dicom", "reason; odd"),
    )
    assert tuple(findings) == expected
    assert findings == expected
    assert findings != expected[:2]
    assert findings[-1] == expected[-1]
    assert findings[1:3] == expected[1:3]
    assert findings.told() == [1, 2, 3]
    assert findings.of_class("unreadable") == [2]
    assert hash(findings) == hash(made_of(["image", "image", "unreadable", "not_dicom"]))
    assert "DOE" not in repr(findings)


def test_a_report_prints_numbers_and_no_paths() -> None:
    images: list[FileClass] = ["image"] * 1200
    kinds: list[FileClass] = [*images, "not_dicom", "unreadable"]
    findings = made_of(kinds)
    report = ScanReport(findings, read=3, reused=1199, removed=2, seconds=1.25, duplicates=4)
    assert str(report) == repr(report)
    assert repr(report) == (
        "ScanReport(1,202 files: 1,200 images, 1 not DICOM, 1 damaged; 4 repeat a SOPInstanceUID; "
        "3 read, 1,199 known, 2 gone, 1.2 s)"
    )
    assert repr(ScanReport()) == "ScanReport(0 files; 0 read, 0 known, 0 gone, 0.0 s)"
    assert pickle.loads(pickle.dumps(report)) == report
