"""What a user gave as a source, and what the message says of it."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom
import pytest
from PIL import Image

from dicomtorch import DicomFrames, scan
from dicomtorch.errors import SourceError
from dicomtorch.scanner.given import paths_of, what_it_is
from tests.support.phantoms import ct, ct_pixels, write, write_series


def test_paths_of_every_kind(tmp_path: Path) -> None:
    names = ["a", "b"]
    assert paths_of("a") == ["a"]
    assert paths_of(b"a") == [b"a"]
    assert paths_of(tmp_path) == [tmp_path]
    for several in (names, tuple(names), iter(names), np.array(names), pd.Series(names)):
        assert paths_of(several) == names
    assert sorted(map(str, paths_of({*names}))) == names
    write_series(tmp_path, 3)
    assert len(scan(tmp_path.glob("*.dcm"))[0]) == 3


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "the source is None; name a folder"),
        (7, "the source is an int; name a folder"),
        (True, "the source is True"),
        (1.5, "the source is a float"),
        (io.BytesIO(b"DICM"), "the source is a BytesIO; .*write it to a file and give the path"),
        (bytearray(b"DICM"), "a bytearray; .*write it to a file"),
        (b"\0" * 132, r"the content of a file and no path \(132 bytes\)"),
        (pydicom.Dataset(), "a Dataset; .*dataset.filename"),
        (np.zeros((2, 2)), "item 0 of the source is a list"),
        ({"path": "a"}, "the source is a dict; give a list of paths"),
        ([], "the list of sources is empty"),
        (iter(()), "the list of sources is empty"),
        (["a", None], "item 1 of the source is None"),
        ("", 'the source is an empty path.*unset variable.*"."'),
        (b"", "the source is an empty path"),
        (["", "a"], "item 0 of the source is an empty path"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_no_path(source: Any, message: str, tmp_path: Path) -> None:
    for read in (scan, lambda given: DicomFrames(given, cache_dir=tmp_path)):
        if not hasattr(source, "__next__"):
            with pytest.raises(SourceError, match=message):
                read(source)
    with pytest.raises(SourceError, match=message):
        paths_of(source)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("data/*.dcm", r"data/\*\.dcm is a pattern .*glob\.glob"),
        ("data/**/[0-9].dcm", "is a pattern"),
        ("$DATA/ct", "a variable that nobody replaced"),
        ("nowhere", r"nowhere cannot be opened .* name a folder"),
        ("x" * 5000, "cannot be opened"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_paths_that_are_not_there(source: str, message: str) -> None:
    if "*" in source or "$" in source:
        assert len(message) < 100
    with pytest.raises(SourceError, match=message):
        scan(source)


def test_a_name_that_looks_like_a_pattern_is_a_name_where_it_is_there(tmp_path: Path) -> None:
    write(ct(ct_pixels()), tmp_path / "[1]" / "a*.dcm")
    assert len(scan(tmp_path / "[1]")[0]) == len(scan(tmp_path / "[1]" / "a*.dcm")[0]) == 1


def jpeg(path: Path, kind: str = "JPEG") -> None:
    Image.new("L", (8, 8)).save(path, format=kind)


def tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.add(__file__, "a")


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.dcm", b"x" * 200)


def nifti(path: Path) -> None:
    head = bytearray(352)
    head[0:4], head[344:348] = (348).to_bytes(4, "little"), b"n+1\0"
    path.write_bytes(head)


@pytest.mark.parametrize(
    ("name", "make", "what"),
    [
        ("a.jpg", jpeg, "a JPEG image"),
        ("a.png", lambda path: jpeg(path, "PNG"), "a PNG image"),
        ("a.gif", lambda path: jpeg(path, "GIF"), "a GIF image"),
        ("a.tif", lambda path: jpeg(path, "TIFF"), "a TIFF image"),
        ("a.pdf", lambda path: path.write_bytes(b"%PDF-1.7\n" + b"x" * 300), "a PDF document"),
        ("a.gz", lambda path: path.write_bytes(gzip.compress(b"x" * 300)), "compressed by gzip.*unpack it"),
        ("a.tar.bz2", lambda path: path.write_bytes(bz2.compress(b"x" * 300)), "compressed by bzip2.*unpack it"),
        ("a.tar.xz", lambda path: path.write_bytes(lzma.compress(b"x" * 300)), "compressed by xz.*unpack it"),
        ("a.tar.zst", lambda path: path.write_bytes(b"\x28\xb5\x2f\xfd" * 99), "compressed by Zst.*unpack it"),
        ("a.nii", nifti, "a NIfTI volume"),
        ("a.npy", lambda path: np.save(path, np.zeros(80)), "a NumPy array"),
        ("a.html", lambda path: path.write_bytes(b"<!DOCTYPE html><p>" * 30), "a web page"),
        ("a.bin", lambda path: path.write_bytes(bytes(500)), "nothing but zeros"),
    ],
)  # fmt: skip
def test_other_files_are_named(
    tmp_path: Path, name: str, make: Callable[[Path], Any], what: str
) -> None:
    make(tmp_path / name)
    _, report = scan(tmp_path / name)
    (finding,) = report.findings
    assert finding.file_class == "not_dicom"
    assert "DICM at offset" not in finding.reason
    with pytest.raises(SourceError, match=rf"{name}.*{what}") as caught:
        DicomFrames(tmp_path / name)
    assert "DICM at offset" not in str(caught.value)


@pytest.mark.parametrize(("name", "make"), [("a.zip", zipped), ("a.tar", tar)])
def test_archives_in_a_folder_are_to_be_named(
    tmp_path: Path, name: str, make: Callable[[Path], Any]
) -> None:
    make(tmp_path / name)
    _, report = scan(tmp_path)
    (finding,) = report.findings
    assert finding.reason.endswith(
        "archive and no DICOM; name it as a source to read what is in it"
    )


def test_bytes_that_say_nothing() -> None:
    assert what_it_is(b"") == ""
    assert what_it_is(os.urandom(3)) in ("", "nothing but zeros")
    assert what_it_is(b"hello, world") == ""
    text = "Dose, in Gray: ä".encode() * 20
    assert what_it_is(text).startswith("text and no DICOM")
    assert what_it_is(text[:-1]).startswith("text and no DICOM")
    assert what_it_is(text[:50] + b"\xff" + text) == what_it_is(text + b"\1") == ""
