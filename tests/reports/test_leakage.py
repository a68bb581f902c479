"""What two indexes share is found, over scans, encodings of fragments and lies about UIDs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from dicomtorch import check_leakage, scan
from dicomtorch.errors import OptionError, StaleIndexError
from dicomtorch.reports.leakage import Leakage, Overlap


def write(
    path: Path, uid: str, pixels: bytes, *, patient: str = "", study: str = "", fragments: int = 0
) -> None:
    path.parent.mkdir(exist_ok=True)
    data = pydicom.Dataset()
    data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    data.SOPInstanceUID, data.SeriesInstanceUID = uid, f"{uid}.1"
    data.StudyInstanceUID, data.PatientID = study or f"{uid}.2", patient or f"p{uid}"
    data.Rows = data.Columns = 4
    data.SamplesPerPixel = 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit = 15
    data.PixelRepresentation = 0
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = RLELossless if fragments else ExplicitVRLittleEndian
    data.PixelData = encapsulate([pixels], fragments, has_bot=False) if fragments else pixels
    data["PixelData"].VR = "OB" if fragments else "OW"
    data.save_as(path, enforce_file_format=True)


def noise(seed: int) -> bytes:
    return np.random.default_rng(seed).bytes(32)


def test_every_kind_is_found_over_scans(tmp_path: Path) -> None:
    for side, names in (("a", (1, 2, 3, 4, 5)), ("b", (1, 6, 7, 8, 9))):
        for n in names:
            shared = {4: ("both", ""), 7: ("both", ""), 5: ("", "9.5"), 8: ("", "9.5")}.get(
                n, ("", "")
            )
            pixels = {3: noise(3), 9: noise(3)}.get(n, noise(100 + n))
            write(
                tmp_path / side / f"{n}.dcm", f"1.{n}", pixels, patient=shared[0], study=shared[1]
            )
    a, b = (scan(tmp_path / side)[0] for side in "ab")
    found = {one.kind: one for one in check_leakage(a, b)}
    assert {kind: one.count for kind, one in found.items()} == {
        "patients": 2,
        "studies": 2,
        "series": 1,
        "instances": 1,
        "pixel data": 2,
    }
    assert [part.tolist() for part in found["patients"].frames] == [[0, 3], [0, 2]]
    assert [part.tolist() for part in found["studies"].frames] == [[0, 4], [0, 3]]
    assert [part.tolist() for part in found["pixel data"].frames] == [[0, 2], [0, 4]]
    assert "2 patients in both part 0 and part 1: 2 frames and 2 frames" in str(
        check_leakage(a, b, pixels=False)
    )
    assert "pixel data" not in str(check_leakage(a, b, pixels=False))
    clean = check_leakage(a.select([1]), b.select([1]), b.select([2]))
    assert not clean
    assert str(clean) == "nothing is shared"
    pairs = {(one.first, one.second) for one in check_leakage(a.select([1]), b, a.select([0]))}
    assert pairs == {(1, 2)}


def test_fragments_do_not_hide_equal_streams(tmp_path: Path) -> None:
    write(tmp_path / "a" / "1.dcm", "1.1", noise(1) * 4, fragments=1)
    write(tmp_path / "b" / "2.dcm", "1.2", noise(1) * 4, fragments=2)
    a, b = (scan(tmp_path / side)[0] for side in "ab")
    assert [one.kind for one in check_leakage(a, b)] == ["pixel data"]


def write_bits(path: Path, uid: str, frames: list[np.ndarray]) -> None:
    """Frames of 33 pixels of one bit, which run on inside of bytes."""
    bits = np.packbits(np.concatenate(frames), bitorder="little").tobytes()
    write(path, uid, bits + bytes(len(bits) % 2))
    data = pydicom.dcmread(path)
    data.Rows, data.Columns, data.NumberOfFrames = 3, 11, len(frames)
    data.BitsAllocated, data.BitsStored, data.HighBit = 1, 1, 0
    data.save_as(path)


def test_neighbours_do_not_hide_equal_frames_of_bits(tmp_path: Path) -> None:
    first, second = np.random.default_rng(0).integers(0, 2, (2, 33))
    ones = np.ones(33, int)
    write_bits(tmp_path / "a" / "1.dcm", "1.1", [first, ones, ones, second, ones])
    write_bits(tmp_path / "b" / "2.dcm", "1.2", [first, 0 * ones, second, 0 * ones, ones])
    a, b = (scan(tmp_path / side)[0] for side in "ab")
    (found,) = check_leakage(a, b)
    assert found.kind == "pixel data"
    assert [part.tolist() for part in found.frames] == [[0, 3], [0, 2]]


def test_empty_frames_are_no_leak(tmp_path: Path) -> None:
    write(tmp_path / "a" / "1.dcm", "1.1", b"\x30\xf8" * 16)
    write(tmp_path / "b" / "2.dcm", "1.2", b"\x30\xf8" * 16)
    a, b = (scan(tmp_path / side)[0] for side in "ab")
    assert not check_leakage(a, b)


def test_a_split_leaks_nothing_but_a_cut_through_a_study_does(bundled: Path) -> None:
    index, _ = scan(bundled)
    with pytest.warns(UserWarning, match="no PatientID"):
        parts = index.split([0.5, 0.5], by="PatientID")
    kinds = {one.kind for one in check_leakage(*parts, pixels=False)}
    assert "patients" not in kinds
    multi = index.filter(
        SOPInstanceUID=index.column("SOPInstanceUID")[int(np.argmax(index.column("frame")))]
    )
    halves = multi.select([0]), multi.select(np.arange(1, len(multi)))
    assert {one.kind for one in check_leakage(*halves, pixels=False)} >= {"instances", "series"}


def test_errors_name_the_file(tmp_path: Path) -> None:
    for side in "ab":
        write(tmp_path / side / "1.dcm", f"1.{ord(side)}", noise(1))
    a, b = (scan(tmp_path / side)[0] for side in "ab")
    (tmp_path / "b" / "1.dcm").write_bytes(b"")
    with pytest.raises(StaleIndexError, match=r"b/1\.dcm"):
        check_leakage(a, b)
    with pytest.raises(OptionError, match="two indexes or more; got 1"):
        check_leakage(a)


@pytest.mark.parametrize(
    ("kind", "count", "said"),
    [
        ("patients", 1, "1 patient in both part 0 and part 2: 1 frame and 2 frames"),
        ("studies", 1, "1 study in both part 0 and part 2: 1 frame and 2 frames"),
        ("series", 1, "1 series in both part 0 and part 2: 1 frame and 2 frames"),
        ("instances", 2, "2 instances in both part 0 and part 2: 1 frame and 2 frames"),
        ("pixel data", 1, "pixel data of 1 frame in both part 0 and part 2: 1 frame and 2 frames"),
    ],
)
def test_one_is_not_called_several(kind: Any, count: int, said: str) -> None:
    overlap = Overlap(kind, 0, 2, count, (np.zeros(1, np.int64), np.zeros(2, np.int64)))
    assert str(Leakage([overlap])) == said
