"""Scanning folders: what is found, what is passed over, what is taken over, and values against plain pydicom."""

from __future__ import annotations

import csv
import math
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from dicomtorch import DicomFrames
from dicomtorch.errors import OptionError, SourceError
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.model.limits import Limits
from dicomtorch.model.report import FILE_CLASSES, ScanReport
from dicomtorch.scanner import reading
from dicomtorch.scanner import scan as scanner
from dicomtorch.scanner import worker as scan_worker
from dicomtorch.scanner.keywords import tag_columns
from dicomtorch.scanner.scan import scan
from dicomtorch.storage import files
from tests.support.phantoms import ct, ct_pixels, write, write_series

POSIX = pytest.mark.skipif(os.name != "posix", reason="needs a POSIX file system")


def reasons(report: ScanReport) -> dict[str, tuple[str, str]]:
    """Path -> (class, reason)."""
    return {os.fsdecode(f.path): (f.file_class, f.reason) for f in report.findings}


@pytest.fixture
def series(tmp_path: Path) -> Path:
    write_series(tmp_path / "series", 3)
    return tmp_path / "series"


# What is scanned


def test_a_folder_a_file_and_a_list_give_the_same_frames(series: Path) -> None:
    index, report = scan(series)
    assert len(index) == 3
    assert index.root == os.fsencode(series)
    assert list(index.files["path"]) == [b"000.dcm", b"001.dcm", b"002.dcm"]
    assert report.counts == dict.fromkeys(FILE_CLASSES, 0) | {"image": 3}
    assert (report.read, report.reused, report.removed) == (3, 0, 0)
    one, _ = scan(series / "001.dcm")
    assert (len(one), one.path(0)) == (1, str(series / "001.dcm"))
    both, _ = scan([series / "000.dcm", str(series), os.fsencode(series / "002.dcm")])
    assert list(both.files["path"]) == list(index.files["path"])


def test_spans_and_columns_of_a_series(series: Path) -> None:
    index, _ = scan(str(series))
    for k in range(3):
        span = index.span(k)
        data = (series / f"{k:03}.dcm").read_bytes()[span.offset : span.offset + span.length]
        assert data == ct_pixels(k).tobytes()
    assert index.column("InstanceNumber").tolist() == [1, 2, 3]
    np.testing.assert_array_equal(
        index.column("ImagePositionPatient"), [[0, 0, 2.5 * k] for k in range(3)]
    )
    assert index.column("frame").tolist() == [0, 0, 0]
    assert index.frame_values(1).windows == ((40, 400),)


def test_a_multi_frame_file_has_a_row_for_each_frame(tmp_path: Path) -> None:
    pixels = np.stack([ct_pixels(k) for k in range(4)])
    path = write(ct(pixels, FrameTime="33"), tmp_path / "cine.dcm")
    index, report = scan(tmp_path)
    assert index.column("frame").tolist() == [0, 1, 2, 3]
    assert index.column("time").tolist() == [0, 33, 66, 99]
    assert list(index.files["claimed_frames"]) == [4]
    data = path.read_bytes()
    for k in range(4):
        span = index.span(k)
        assert data[span.offset : span.offset + span.length] == pixels[k].tobytes()
    assert report.findings[0].reason == ""


def test_what_is_missing_raises(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"nowhere cannot be opened .* name a folder"):
        scan(tmp_path / "nowhere")
    with pytest.raises(SourceError, match="empty"):
        scan([])
    with pytest.raises(FileNotFoundError):
        scan([tmp_path, tmp_path / "nowhere"])


def test_an_empty_folder_gives_an_empty_index(tmp_path: Path) -> None:
    index, report = scan(tmp_path)
    assert (len(index), len(report.findings)) == (0, 0)


def test_folders_are_walked_in_a_fixed_order(tmp_path: Path) -> None:
    for name in ("b/2", "b/10", "a", "c/x/y", "b-", "B"):
        write(ct(ct_pixels()), tmp_path / name)
    index, report = scan(tmp_path)
    paths = list(index.files["path"])
    assert paths == sorted(paths) == [os.fsencode(found.path) for found in report.findings]


# What is passed over


def test_files_that_are_no_images_are_in_the_report(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no DICOM, and long enough to have a preamble " * 9)
    (tmp_path / "empty.dcm").write_bytes(b"")
    structured = ct(ct_pixels())
    structured.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    del structured.PixelData
    write(structured, tmp_path / "report.dcm")
    whole = write(ct(ct_pixels()), tmp_path / "z.dcm").read_bytes()
    (tmp_path / "cut.dcm").write_bytes(whole[:400])
    (tmp_path / "half.dcm").write_bytes(whole[:-100])
    video = ct(ct_pixels(), NumberOfFrames=7)
    video.file_meta.TransferSyntaxUID = pydicom.uid.MPEG4HP41
    video["PixelData"].VR = "OB"
    video.PixelData = pydicom.encaps.encapsulate([bytes(100)])
    video["PixelData"].is_undefined_length = True
    write(video, tmp_path / "video.dcm")
    index, report = scan(tmp_path)
    found = reasons(report)
    assert found.pop("z.dcm") == ("image", "")
    assert {name: kind for name, (kind, _) in found.items()} == {
        "notes.txt": "not_dicom",
        "empty.dcm": "not_dicom",
        "report.dcm": "no_pixels",
        "cut.dcm": "unreadable",
        "half.dcm": "unreadable",
        "video.dcm": "unsupported",
    }
    assert found["empty.dcm"][1] == "an empty file"
    assert "Basic Text SR Storage" in found["report.dcm"][1]
    assert "the file ends inside its header" in found["cut.dcm"][1]
    assert "no frame is there in whole" in found["half.dcm"][1]
    assert "MPEG-4 AVC/H.264 High Profile" in found["video.dcm"][1]
    assert found["video.dcm"][1].endswith("7 frames claimed")
    assert len(index) == 1


def test_an_unknown_transfer_syntax_is_named(tmp_path: Path) -> None:
    path = write(ct(ct_pixels()), tmp_path / "x.dcm")
    data = path.read_bytes()
    stated = b"1.2.840.10008.1.2.1\0"
    path.write_bytes(data.replace(stated, b"1.2.3.4.5.6.7.8.9.10", 1))
    found = reasons(scan(tmp_path)[1])["x.dcm"]
    assert found[0] == "unsupported"
    assert "1.2.3.4" not in found[1]
    assert "VR UI, length 20), which is not decoded" in found[1]


def test_frames_that_are_claimed_but_not_there_are_no_rows(tmp_path: Path) -> None:
    pixels = np.stack([ct_pixels(k) for k in range(2)])
    write(ct(pixels, NumberOfFrames=5), tmp_path / "x.dcm")
    index, report = scan(tmp_path)
    assert len(index) == 2
    assert list(index.files["claimed_frames"]) == [5]
    assert list(index.files["found_frames"]) == [2]
    assert list(index.files["frames"]) == [2]
    assert "5 frames claimed, 2 found" in report.findings[0].reason


def test_frames_that_are_there_and_not_claimed_are_counted_in_every_file_of_a_series(
    tmp_path: Path,
) -> None:
    for k in range(3):
        dataset = ct(ct_pixels(k), k)
        dataset.PixelData += dataset.PixelData
        write(dataset, tmp_path / f"{k}.dcm")
    index, _ = scan(tmp_path)
    assert np.asarray(index.files["claimed_frames"]).tolist() == [-1] * 3
    assert np.asarray(index.files["found_frames"]).tolist() == [2] * 3
    assert np.asarray(index.files["frames"]).tolist() == [1] * 3


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"Rows": [24, 0]}, "Rows has 2 values"),
        ({"Columns": 0}, "Columns is 0"),
        ({"BitsStored": 31}, "BitsStored is 31"),
    ],
)
def test_an_image_that_cannot_be_read_says_why(
    tmp_path: Path, values: dict[str, Any], reason: str
) -> None:
    write(ct(ct_pixels(), **values), tmp_path / "x.dcm")
    file_class, found = reasons(scan(tmp_path)[1])["x.dcm"]
    assert file_class == "unreadable"
    assert reason in found


def test_a_sequence_where_a_value_should_be_is_told(tmp_path: Path) -> None:
    dataset = ct(ct_pixels())
    dataset.add_new(0x00180050, "SQ", [Dataset()])  # SliceThickness
    dataset.add_new(0x00080005, "SQ", [])  # SpecificCharacterSet
    write(dataset, tmp_path / "x.dcm")
    index, report = scan(tmp_path)
    assert math.isnan(index.column("SliceThickness")[0])
    assert "SliceThickness has VR SQ" in report.findings[0].reason


def test_limits_are_obeyed(series: Path) -> None:
    index, report = scan(series, limits=Limits(pixels_per_frame=100))
    assert len(index) == 0
    assert "Limits.pixels_per_frame = 100" in report.findings[0].reason


def test_notices_are_in_the_report(tmp_path: Path) -> None:
    dataset = ct(ct_pixels())
    del dataset.PixelRepresentation
    write(dataset, tmp_path / "x.dcm")
    _, report = scan(tmp_path)
    assert report.findings[0].file_class == "image"
    assert "PixelRepresentation is missing; taken as 0" in report.findings[0].reason


def test_a_dicomdir_in_a_folder_is_a_file_without_pixels(bundled: Path) -> None:
    _, report = scan(bundled / "dicomdirtests")
    file_class, reason = reasons(report)["DICOMDIR"]
    assert (file_class, reason) == ("no_pixels", "a DICOMDIR (Media Storage Directory)")


# DICOMDIR


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("DICOMDIR", 31),
        ("DICOMDIR-reordered", 31),
        ("DICOMDIR-implicit", 31),
        ("DICOMDIR-bigEnd", 31),
        ("DICOMDIR-empty.dcm", 0),
    ],
)
@pytest.mark.filterwarnings(
    "ignore::UserWarning"
)  # pydicom on the directories that are meant to be odd
def test_a_dicomdir_stands_for_the_files_it_names(bundled: Path, name: str, files: int) -> None:
    folder = bundled / "dicomdirtests"
    directory = pydicom.dcmread(folder / name)
    named = {
        "/".join(record.ReferencedFileID)
        for record in directory.get("DirectoryRecordSequence", [])
        if "ReferencedFileID" in record
    }
    assert len(named) == files
    index, report = scan(folder / name)
    assert index.root == os.fsencode(folder)
    found = {f.path: f for f in report.findings}
    assert set(found) == named | {name}
    for path in named:
        if (folder / path).exists():
            assert found[path].file_class == "image"
        else:
            assert found[path].file_class == "unreadable"
            assert "named by the DICOMDIR: No such file" in found[path].reason
    assert len(index) == sum((folder / path).exists() for path in named)
    again, report = scan(folder / name, index=index)
    assert again is index


def test_limits_are_those_of_a_dicomdir_too(tmp_path: Path) -> None:
    for k in range(9):
        write(ct(ct_pixels()), tmp_path / f"F{k}")
    start = dicomdir(tmp_path, *(f"F{k}" for k in range(9)))
    assert len(scan(start)[0]) == 9
    _, report = scan(start, limits=Limits(items=5))
    assert "it names cannot be read: " in reasons(report)["DICOMDIR"][1]


def test_a_dicomdir_that_is_cut_off_says_so(bundled: Path) -> None:
    (finding,) = scan(bundled / "dicomdirtests" / "DICOMDIR-nooffset")[1].findings
    assert finding.file_class == "unreadable"
    assert "it names cannot be read: the file ends inside its header" in finding.reason


def dicomdir(folder: Path, *ids: str, in_use: int = 0xFFFF) -> Path:
    directory = ct(ct_pixels())
    del directory.PixelData
    directory.add_new(0x00041200, "UL", 0)
    records = []
    for file_id in ids:
        record = Dataset()
        record.DirectoryRecordType = "IMAGE"
        record.RecordInUseFlag = in_use
        record.add_new(0x00041500, "LO", file_id)  # CS would not let a test write what is wrong
        records.append(record)
    directory.DirectoryRecordSequence = records
    return write(directory, folder / "DICOMDIR")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "file_id",
    [
        "..\\secret.dcm",
        "A\\..\\..\\secret.dcm",
        "\\etc\\passwd",
        "/etc/passwd",
        "A/../../secret.dcm",
        "C:\\secret.dcm",
        "C:secret.dcm",
        "A\\\\X",
        ".\\X",
        "OUT\\secret.dcm",
        "LINK.DCM",
    ],
)
def test_a_dicomdir_leads_nowhere_else(tmp_path: Path, file_id: str) -> None:
    write(ct(ct_pixels()), tmp_path / "secret.dcm")
    disk = tmp_path / "disk"
    write(ct(ct_pixels()), disk / "A" / "X")
    (disk / "OUT").symlink_to(tmp_path)
    (disk / "LINK.DCM").symlink_to(tmp_path / "secret.dcm")
    index, report = scan(dicomdir(disk, "A\\X", file_id))
    assert next(iter(index.files["path"])) == b"A/X"
    assert len(index) == 1
    (odd,) = [f for f in report.findings if f.file_class == "unreadable"]
    assert odd.path == "DICOMDIR file 1"
    assert odd.reason == "file 1 of the DICOMDIR is not below its folder; it is not read"


def test_records_that_are_not_in_use_are_passed_over(tmp_path: Path) -> None:
    write(ct(ct_pixels()), tmp_path / "A")
    assert len(scan(dicomdir(tmp_path, "A"))[0]) == 1
    assert len(scan(dicomdir(tmp_path, "A", in_use=0))[0]) == 0


def test_the_case_of_names_in_a_dicomdir_may_differ(tmp_path: Path) -> None:
    for name in ("disk/a/im1", "disk/A2/IM2", "disk/A2/im2", "disk/A2/Im3", "disk/A2/im3"):
        write(ct(ct_pixels()), tmp_path / name)
    if (tmp_path / "DISK").exists():
        pytest.skip("this file system does not tell names by case")
    start = dicomdir(tmp_path / "disk", "A\\IM1", "A2\\IM2", "A2\\IM3", "A\\NONE", "B\\IM1")
    index, report = scan(start)
    assert [path for path in index.files["path"] if b"/" in path] == [
        *(b"A2/IM2", b"A2/IM3", b"B/IM1", b"a/NONE", b"a/im1")
    ]
    # Two names that differ in case only: neither is meant for sure.
    missing = sorted(f.path for f in report.findings if f.file_class == "unreadable")
    assert missing == ["A2/IM3", "B/IM1", "a/NONE"]
    assert scan(start, index=index)[0] is index


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_file_called_dicomdir_that_is_none_is_a_file(tmp_path: Path) -> None:
    path = write(ct(ct_pixels()), tmp_path / "DICOMDIR")
    assert len(scan(path)[0]) == 1
    path.write_bytes(b"nothing at all")
    assert reasons(scan(path)[1])["DICOMDIR"][0] == "not_dicom"


@POSIX
@pytest.mark.timeout(60)
def test_what_is_no_regular_file_is_not_opened(tmp_path: Path, series: Path) -> None:
    os.mkfifo(series / "fifo.dcm")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(series, os.O_RDONLY)
        try:
            listener.bind(f"/proc/self/fd/{here}/socket.dcm")
        finally:
            os.close(here)
        (series / "zero.dcm").symlink_to("/dev/zero")
        (series / "loop").symlink_to(series)
        (series / "gone.dcm").symlink_to(tmp_path / "nowhere")
        index, report = scan(series)
        assert len(index) == 3
        found = reasons(report)
        assert found["fifo.dcm"] == ("not_dicom", "a FIFO")
        assert found["socket.dcm"] == ("not_dicom", "a socket")
        for name in ("zero.dcm", "loop", "gone.dcm"):
            assert found[name][0] == "not_dicom"
            assert "follow_symlinks=True" in found[name][1]
        index, report = scan(series, follow_symlinks=True)
        found = reasons(report)
        assert len(index) == 3
        assert found["zero.dcm"] == ("not_dicom", "a character device")
        assert found["loop"][1] == "a folder that was walked already under another name"
        assert found["gone.dcm"][0] == "unreadable"


@POSIX
def test_links_are_followed_when_asked_for(tmp_path: Path, series: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "folder").symlink_to(series)
    (root / "file.dcm").symlink_to(series / "000.dcm")
    assert len(scan(root)[0]) == 0
    index, _ = scan(root, follow_symlinks=True)
    assert [os.fsdecode(p) for p in index.files["path"]] == [
        "file.dcm",
        *(f"folder/{k:03}.dcm" for k in range(3)),
    ]


@POSIX
@pytest.mark.skipif(sys.platform == "darwin", reason="this file system takes UTF-8 names only")
def test_names_that_are_not_text(series: Path) -> None:
    name = b"\xff\xfe\n.dcm"
    shutil.copy(os.fsencode(series / "000.dcm"), os.path.join(os.fsencode(series), name))
    index, report = scan(series)
    assert name in list(index.files["path"])
    assert len(index) == 4
    text = os.fsdecode(name)
    at = [os.path.basename(index.path(i)) for i in range(4)].index(text)
    assert os.path.basename(index.file_path(index.column("file")[at])) == name
    assert text in [finding.path for finding in report.findings]


@POSIX
def test_paths_that_are_too_long(tmp_path: Path) -> None:
    here = os.getcwd()
    os.chdir(tmp_path)
    try:
        for _ in range(30):
            os.mkdir("d" * 200)
            os.chdir("d" * 200)
        Path("x.dcm").write_bytes(b"x")
        _, report = scan(tmp_path)
    finally:
        os.chdir(here)
    (finding,) = report.findings
    assert finding.file_class == "unreadable"
    assert "ENAMETOOLONG" in finding.reason


def _refuse(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """Makes a file or folder unreadable, also for root."""
    refused = os.fsencode(path)

    def check(real: Any) -> Any:
        def call(name: Any, *args: Any, **kwargs: Any) -> Any:
            if isinstance(name, bytes) and name == refused:
                raise PermissionError(13, "Permission denied")
            return real(name, *args, **kwargs)

        return call

    monkeypatch.setattr(os, "open", check(os.open))
    monkeypatch.setattr(os, "scandir", check(os.scandir))


def test_unreadable_files_and_folders_are_told_and_tried_again(
    series: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(ct(ct_pixels()), series / "folder" / "x.dcm")
    with monkeypatch.context() as patch:
        _refuse(patch, series / "001.dcm")
        _refuse(patch, series / "folder")
        index, report = scan(series)
        assert len(index) == 2
        for name in ("001.dcm", "folder"):
            assert reasons(report)[name] == ("unreadable", "Permission denied (EACCES)")
        assert scan(series, index=index)[0] is index
    again, report = scan(series, index=index)
    assert len(again) == 4
    assert (report.read, report.reused, report.removed) == (2, 2, 1)


# What is taken over


def _change(series: Path, how: str) -> None:
    path = series / "001.dcm"
    stat = path.stat()
    data = path.read_bytes()
    if how == "touched":
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    elif how == "grown":
        path.write_bytes(data + bytes(2))
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    elif how == "replaced":  # same size and time, another inode
        (series / "new").write_bytes(data)
        os.utime(series / "new", ns=(stat.st_atime_ns, stat.st_mtime_ns))
        (series / "new").replace(path)
    elif how == "added":
        (series / "003.dcm").write_bytes(data)
    elif how == "removed":
        path.unlink()
    elif how == "renamed":
        path.rename(series / "0005.dcm")


@pytest.mark.parametrize(
    ("how", "read", "reused", "removed"),
    [
        ("not at all", 0, 3, 0),
        ("touched", 1, 2, 0),
        ("grown", 1, 2, 0),
        ("replaced", 1, 2, 0),
        ("added", 1, 3, 0),
        ("removed", 0, 2, 1),
        ("renamed", 1, 2, 1),
    ],
)
def test_changes_are_noticed(series: Path, how: str, read: int, reused: int, removed: int) -> None:
    old, _ = scan(series)
    _change(series, how)
    new, report = scan(series, index=old)
    assert (report.read, report.reused, report.removed) == (read, reused, removed)
    assert (new is old) == (how == "not at all")
    fresh, _ = scan(series)
    assert list(new.files["path"]) == list(fresh.files["path"])
    for column in fresh.columns:
        if column.name not in ("voi_lut", "modality_lut", "palette"):
            np.testing.assert_array_equal(
                np.asarray(list(new.column(column.name))),
                np.asarray(list(fresh.column(column.name))),
                err_msg=column.name,
            )


@POSIX
def test_times_and_inodes_of_any_size(
    tmp_path: Path, series: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inodes that are hashes use all 64 bits; times after 2262 do not fit into 63."""
    late = next(series.glob("*.dcm"))
    os.utime(late, (1.1e10, 1.1e10))
    if late.stat().st_mtime_ns < 1 << 63:
        pytest.skip("this file system has no such times")
    index, report = scan(series)
    assert report.counts["image"] == report.read
    assert DicomFrames(index)[0][0].ndim == 3
    assert scan(series, index=index)[0] is index
    assert files.int64((1 << 64) - 5) == -5
    assert files.int64(1 << 63) == -(1 << 63)
    assert files.int64(17) == 17


def test_nothing_is_read_when_nothing_changed(
    series: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (series / "notes.txt").write_text("text " * 100)
    index, _ = scan(series)

    def refuse(*_: Any) -> Any:
        raise AssertionError("a file was read")

    monkeypatch.setattr(scan_worker, "read_file", refuse)
    same, report = scan(series, index=index)
    assert same is index
    assert report.reused == 4
    assert report.counts["not_dicom"] == 1


def test_an_index_of_another_folder_is_not_used(series: Path, tmp_path: Path) -> None:
    index, _ = scan(series)
    shutil.copytree(series, tmp_path / "copy", copy_function=shutil.copy2)
    new, report = scan(tmp_path / "copy", index=index)
    assert new.root == os.fsencode(tmp_path / "copy")
    assert report.read == 3


def test_a_selection_stands_for_its_whole_scan(series: Path) -> None:
    index, _ = scan(series)
    whole, report = scan(series, index=index.select([1]))
    assert len(whole) == 3
    assert (report.read, report.reused) == (0, 3)


# Columns that are asked for


def test_tags_are_columns_with_the_kind_of_their_vr(series: Path) -> None:
    tags = ["PatientSex", "RepetitionTime", "SeriesNumber", "Modality", "PatientAge"]
    index, _ = scan(series, tags=tags)
    assert index.tags == {
        "PatientSex": "text",
        "RepetitionTime": "float64",
        "SeriesNumber": "int64",
        "PatientAge": "text",
    }
    assert list(index.column("PatientSex")) == ["F"] * 3
    assert np.isnan(index.column("RepetitionTime")).all()
    assert index.column("SeriesNumber").tolist() == [-1] * 3
    assert list(index.column("PatientAge")) == [""] * 3


def test_a_new_tag_reads_everything_again_with_the_union(series: Path) -> None:
    first, _ = scan(series, tags=["PatientSex"])
    both, report = scan(series, index=first, tags=["SliceLocation"])
    assert report.read == 3
    assert set(both.tags) == {"PatientSex", "SliceLocation"}
    assert list(both.column("PatientSex")) == ["F"] * 3
    same, report = scan(series, index=both, tags=["PatientSex"])
    assert same is both


@pytest.mark.parametrize(
    ("tag", "message"),
    [
        ("PatientSx", "did you mean PatientSex"),
        ("qqqq", "no keyword of the DICOM dictionary"),
        ("PatientName ", "did you mean"),
        ("RequestAttributesSequence", "has VR SQ"),
        ("PixelData", "has VR OB or OW"),
        ("ICCProfile", "has VR OB"),
    ],
)
def test_tags_that_cannot_be_columns(tag: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        tag_columns([tag])


def test_text_comes_out_in_its_character_set(bundled: Path, tmp_path: Path) -> None:
    """Names of PS3.5 annexes H to K, from the files that come with pydicom, and pydicom's decoding of them."""
    expected = {}
    for path in sorted((bundled.parent / "charset_files").glob("*.dcm")):
        source = pydicom.dcmread(path)
        if "PatientName" not in source:
            continue
        dataset = ct(ct_pixels())
        for keyword in ("SpecificCharacterSet", "PatientName"):
            dataset[keyword] = source[keyword]
        write(dataset, tmp_path / path.name)
        expected[path.name] = str(pydicom.dcmread(tmp_path / path.name).PatientName)
    assert len(expected) > 10
    index, _ = scan(tmp_path, tags=["PatientName"])
    names = [os.fsdecode(path) for path in index.files["path"]]
    assert dict(zip(names, index.column("PatientName"), strict=True)) == expected


# Progress, interruption, imports


def test_progress_is_shown_when_asked_for(
    series: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scan(series)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(reading, "_PROGRESS_DELAY", 0.0)
    scan(series, progress=True)
    assert "scan:" in capsys.readouterr().err
    scan(series, progress=False)
    assert capsys.readouterr().err == ""


def test_an_interrupt_ends_the_scan(series: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(scan_worker, "read_file", interrupt)
    with pytest.raises(KeyboardInterrupt):
        scan(series)


def test_scanning_does_not_import_torch() -> None:
    code = (
        "import sys, dicomtorch.scanner; print(sorted({'torch', 'SimpleITK'} & set(sys.modules)))"
    )
    root = Path(scanner.__file__).parents[2]
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    )
    assert shown.stdout.strip() == "[]"


# Real files against plain pydicom


def _group(dataset: Dataset, k: int, sequence: str, *top: str) -> Dataset | None:
    """The macro that holds for frame k: per frame, shared, or the main data set if it has one of `top`."""
    for groups in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
        items = dataset.get(groups) or []
        number = k if groups.startswith("Per") else 0
        if number < len(items) and items[number].get(sequence):
            item: Dataset = items[number][sequence][0]
            return item
    return dataset if any(keyword in dataset for keyword in top) else None


def _floats(group: Dataset | None, keyword: str) -> list[float]:
    value = None if group is None else group.get(keyword)
    if value is None or value == "":
        return []
    values = [value] if isinstance(value, int | float | str) else list(value)
    return [float(number) for number in values]


def _expected(dataset: Dataset, k: int) -> dict[str, list[float]]:
    """Numbers of frame k, [] where they are absent."""
    voi = _group(dataset, k, "FrameVOILUTSequence", "WindowCenter")
    rescale = _group(dataset, k, "PixelValueTransformationSequence", "RescaleSlope")
    position = _group(dataset, k, "PlanePositionSequence", "ImagePositionPatient")
    orientation = _group(dataset, k, "PlaneOrientationSequence", "ImageOrientationPatient")
    measures = _group(dataset, k, "PixelMeasuresSequence", "PixelSpacing", "SliceThickness")
    found = {
        "WindowCenter": _floats(voi, "WindowCenter")[:1],
        "WindowWidth": _floats(voi, "WindowWidth")[:1],
        "RescaleSlope": _floats(rescale, "RescaleSlope"),
        "RescaleIntercept": _floats(rescale, "RescaleIntercept"),
        "ImagePositionPatient": _floats(position, "ImagePositionPatient"),
        "ImageOrientationPatient": _floats(orientation, "ImageOrientationPatient"),
        "PixelSpacing": _floats(measures, "PixelSpacing"),
        "SliceThickness": _floats(measures, "SliceThickness"),
    }
    modality = dataset.get("Modality")
    if modality == "RTDOSE" and "GridFrameOffsetVector" in dataset:
        offsets = _floats(dataset, "GridFrameOffsetVector")
        found["ImagePositionPatient"][2] += offsets[k] - (offsets[0] if offsets[0] else 0)
    if modality == "NM":
        found["ImageOrientationPatient"] = found["ImagePositionPatient"] = []
    return found


WIDTHS = {"ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2}
MALFORMED = {
    # One number where PS3.6 wants two.
    ("ivmartel__dwv/tests/data/gdcm-CT-MONO2-8-abdo.dcm", "PixelSpacing"),
}


@pytest.fixture(scope="module")
def scanned() -> tuple[Path, FrameIndex, ScanReport]:
    folder = os.environ.get("DICOMTORCH_SAMPLES", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("DICOMTORCH_SAMPLES does not name a folder of samples")
    return Path(folder), *scan(folder)


def _manifest(folder: Path) -> list[dict[str, str]]:
    with open(folder / "manifest.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _files(index: FrameIndex) -> Iterator[tuple[str, int, int]]:
    """(path, first row, rows) of each file with frames."""
    files = index.files
    for path, first, rows in zip(files["path"], files["first_row"], files["frames"], strict=True):
        if rows:
            yield os.fsdecode(path), int(first), int(rows)


def test_every_sample_is_in_the_report(scanned: tuple[Path, FrameIndex, ScanReport]) -> None:
    folder, _, report = scanned
    found = reasons(report)
    listed = {row["file"] for row in _manifest(folder)}
    assert listed <= found.keys()
    for name, (file_class, reason) in found.items():
        assert file_class == "image" or reason, name


COLUMNS = {
    "rows": "Rows",
    "cols": "Columns",
    "samples": "SamplesPerPixel",
    "bits_allocated": "BitsAllocated",
    "bits_stored": "BitsStored",
    "high_bit": "HighBit",
    "pixel_rep": "PixelRepresentation",
    "photometric": "PhotometricInterpretation",
    "modality": "Modality",
    "sop_class_uid": "SOPClassUID",
    "sop_instance_uid": "SOPInstanceUID",
    "series_uid": "SeriesInstanceUID",
    "study_uid": "StudyInstanceUID",
}


def test_samples_are_as_the_manifest_says(scanned: tuple[Path, FrameIndex, ScanReport]) -> None:
    folder, index, report = scanned
    first_rows = {path: (first, rows) for path, first, rows in _files(index)}
    classes = {name: file_class for name, (file_class, _) in reasons(report).items()}
    differing: list[tuple[str, str, Any]] = []
    for row in _manifest(folder):
        name = row["file"]
        if name not in first_rows:
            # Without pixel data, or damaged: pydicom decodes none of these.
            assert classes[name] != "image"
            if row["pydicom_decode"] == "ok":
                differing.append((name, "class", classes[name]))
            continue
        first, count = first_rows[name]
        if row["rows"] and count != int(row["frames"] or 1):
            differing.append((name, "frames", count))
        for theirs, ours in COLUMNS.items():
            value = str(index.column(ours)[first])
            if row[theirs] and value != row[theirs]:
                differing.append((name, ours, value))
    assert differing == []


def test_numbers_of_samples_are_those_of_pydicom(
    scanned: tuple[Path, FrameIndex, ScanReport],
) -> None:
    folder, index, _ = scanned
    columns = {name: index.column(name) for name in _expected(Dataset(), 0)}
    compared = 0
    for path, first, rows in _files(index):
        try:
            dataset = pydicom.dcmread(folder / path, force=True, stop_before_pixels=True)
        except (OSError, ValueError):
            continue  # what pydicom cannot parse has no oracle here
        for k in range(rows):
            for name, expected in _expected(dataset, k).items():
                if (path, name) in MALFORMED:
                    continue
                width = WIDTHS.get(name, 1)
                values = np.atleast_1d(columns[name][first + k])
                if dataset.get("Modality") == "NM" and not expected:
                    continue
                expected = expected or [math.nan] * width
                np.testing.assert_allclose(
                    values, expected, rtol=1e-12, err_msg=f"{path} frame {k} {name}"
                )
                compared += 1
    assert compared > 5000
