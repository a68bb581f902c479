"""Every check of `doctor` on files made for it, and on none that are in order."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from dicomtorch import scan
from dicomtorch.backends import imagecodecs, simpleitk
from dicomtorch.backends import pydicom as pydicom_backend
from dicomtorch.backends.capability import Capability
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.model.image import ImagePixel
from dicomtorch.reader.kernels import Kernels
from dicomtorch.reports.checks import Remark
from dicomtorch.reports.doctor import Examination, examine, format_report, to_json
from dicomtorch.reports.info import describe, format_info
from dicomtorch.reports.summary import format_summary, summarize
from tests.support.phantoms import ct, ct_pixels, encapsulated, lut, write, write_series

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"


def examined(folder: Path) -> tuple[Examination, FrameIndex]:
    index, report = scan(folder)
    return examine(index, report), index


def remark(folder: Path, check: str) -> Remark | None:
    found, _ = examined(folder)
    mine = [one for one in found.remarks if one.check == check]
    assert len(mine) <= 1
    return mine[0] if mine else None


def present(folder: Path, check: str) -> Remark:
    found = remark(folder, check)
    assert found is not None
    return found


def names(folder: Path, found: Remark) -> list[str]:
    index, _ = scan(folder)
    return [index.files["path"][file].decode() for file in found.files]


def test_a_series_in_order_needs_no_remark(tmp_path: Path) -> None:
    write_series(tmp_path, 3)
    found, index = examined(tmp_path)
    assert found.remarks == ()
    assert found.worst is None
    assert "Nothing to remark." in format_report(found, index)


def test_windows_that_differ_within_a_series(tmp_path: Path) -> None:
    write_series(tmp_path / "same", 2)
    for k, width in enumerate((400, 400, 350)):
        series = {"SeriesInstanceUID": "1.2.3", "WindowWidth": width}
        write(ct(ct_pixels(k), 10 + k, **series), tmp_path / "other" / f"{k}.dcm")
    found = present(tmp_path, "windows")
    assert found.level == "warning"
    assert found.frames == 3
    assert names(tmp_path, found) == ["other/0.dcm"]
    assert "up to 2 in one" in found.text
    assert 'window="series"' in found.advice


def test_a_frame_that_lacks_the_window_of_its_series(tmp_path: Path) -> None:
    write_series(tmp_path, 2)
    dataset = ct(ct_pixels(2), 2)
    del dataset.WindowCenter, dataset.WindowWidth
    write(dataset, tmp_path / "2.dcm")
    assert "up to 1 in one" in present(tmp_path, "windows").text
    assert remark(tmp_path, "no_window") is None


def test_the_windows_of_the_frames_of_one_file_and_luts_count_by_their_content(
    tmp_path: Path,
) -> None:
    for k, entries in enumerate(([0, 100], [0, 100], [0, 255])):
        dataset = ct(ct_pixels(k), k)
        del dataset.WindowCenter, dataset.WindowWidth
        dataset.VOILUTSequence = [lut([2, 0, 8], entries)]
        write(dataset, tmp_path / f"{k}.dcm")
    assert present(tmp_path, "windows").frames == 3
    (tmp_path / "2.dcm").unlink()
    assert remark(tmp_path, "windows") is None


@pytest.mark.parametrize(
    ("attributes", "found"),
    [
        ({}, True),
        ({"Modality": "SEG", "SegmentationType": "FRACTIONAL", "MaximumFractionalValue": 9}, False),
        ({"Modality": "RTDOSE", "DoseGridScaling": 0.1}, False),
        ({"WindowCenter": 40, "WindowWidth": 400}, False),
    ],
)
def test_a_series_without_a_window(
    tmp_path: Path, attributes: dict[str, object], found: bool
) -> None:
    for k in range(2):
        dataset = ct(ct_pixels(k), k)
        del dataset.WindowCenter, dataset.WindowWidth
        for keyword, value in attributes.items():
            setattr(dataset, keyword, value)
        write(dataset, tmp_path / f"{k}.dcm")
    assert (remark(tmp_path, "no_window") is not None) is found


def test_eight_bits_without_a_window_have_one_range(tmp_path: Path) -> None:
    for k in range(2):
        dataset = ct(ct_pixels(k).astype(np.uint8), k)
        del (
            dataset.WindowCenter,
            dataset.WindowWidth,
            dataset.RescaleSlope,
            dataset.RescaleIntercept,
        )
        write(dataset, tmp_path / f"{k}.dcm")
    assert remark(tmp_path, "no_window") is None


@pytest.mark.parametrize(
    ("check", "attributes"),
    [
        ("burned_in", {"BurnedInAnnotation": "YES"}),
        ("burned_in_unstated", {"Modality": "US"}),
        ("burned_in_unstated", {"Modality": "XC"}),
        ("burned_in_unstated", {"SOPClassUID": SECONDARY_CAPTURE}),
        ("recognizable", {"RecognizableVisualFeatures": "YES"}),
        ("slide_labels", {"SOPClassUID": SLIDE, "ImageType": ["ORIGINAL", "PRIMARY", "LABEL"]}),
        ("slide_labels", {"SOPClassUID": SLIDE, "ImageType": ["DERIVED", "PRIMARY", "OVERVIEW"]}),
    ],
)
def test_images_that_may_show_names_or_faces(
    tmp_path: Path, check: str, attributes: dict[str, object]
) -> None:
    write(ct(ct_pixels(), 0), tmp_path / "harmless.dcm")
    write(ct(ct_pixels(), 1, **attributes), tmp_path / "risky.dcm")
    found, _ = examined(tmp_path)
    assert {one.check for one in found.remarks if one.level == "warning"} == {check}
    assert names(tmp_path, present(tmp_path, check)) == ["risky.dcm"]


@pytest.mark.parametrize(
    "attributes",
    [
        {"Modality": "US", "BurnedInAnnotation": "NO"},
        {"SOPClassUID": SLIDE, "ImageType": ["ORIGINAL", "PRIMARY", "VOLUME"]},
    ],
)
def test_images_that_are_said_to_be_clean_are_not_listed(
    tmp_path: Path, attributes: dict[str, object]
) -> None:
    write(ct(ct_pixels(), 1, **attributes), tmp_path / "a.dcm")
    assert examined(tmp_path)[0].worst is None


def test_the_same_instance_in_two_files(tmp_path: Path) -> None:
    write_series(tmp_path, 2)
    write(ct(ct_pixels(1), 1), tmp_path / "copy.dcm")
    write(ct(np.stack([ct_pixels(k) for k in range(3)]), 5), tmp_path / "frames.dcm")
    found = present(tmp_path, "duplicates")
    assert names(tmp_path, found) == ["001.dcm", "copy.dcm"]
    assert found.frames == 2
    assert found.text.startswith("1 SOPInstanceUID is in more than one file, 2 files")


def test_an_empty_patient_id(tmp_path: Path) -> None:
    write_series(tmp_path, 2)
    write(ct(ct_pixels(), 7, PatientID=""), tmp_path / "nobody.dcm")
    found = present(tmp_path, "patients")
    assert names(tmp_path, found) == ["nobody.dcm"]
    assert found.text == "1 file (1 frame) has an empty PatientID"


def test_missing_geometry(tmp_path: Path) -> None:
    dataset = ct(ct_pixels(), 0)
    del dataset.ImagePositionPatient, dataset.PixelSpacing
    write(dataset, tmp_path / "a.dcm")
    other = ct(ct_pixels(), 1, Modality="DX")
    del other.ImagePositionPatient, other.PixelSpacing
    write(other, tmp_path / "b.dcm")
    for check in ("position", "spacing"):
        found = present(tmp_path, check)
        assert (found.level, found.frames) == ("note", 1)
        assert names(tmp_path, found) == ["a.dcm"]


def test_damaged_files_and_video_are_problems(tmp_path: Path) -> None:
    (path,) = write_series(tmp_path, 1)
    (tmp_path / "cut.dcm").write_bytes(path.read_bytes()[:600])
    write(
        encapsulated(ct(ct_pixels(), 1), [b"\0" * 8], "1.2.840.10008.1.2.4.102"),
        tmp_path / "video.dcm",
    )
    assert names(tmp_path, present(tmp_path, "unreadable")) == ["cut.dcm"]
    assert names(tmp_path, present(tmp_path, "unsupported")) == ["video.dcm"]
    assert examined(tmp_path)[0].worst == "problem"


@pytest.mark.parametrize(
    ("claimed", "text"),
    [(5, "are: 2 frames that they claim are missing"), (2, "are: 1 frame more than they claim")],
)
def test_claimed_and_found_frames_differ(tmp_path: Path, claimed: int, text: str) -> None:
    frames = np.stack([ct_pixels(k) for k in range(3)])
    write(ct(frames, 0, NumberOfFrames=claimed), tmp_path / "a.dcm")
    write(ct(frames, 1), tmp_path / "b.dcm")
    found = present(tmp_path, "claimed_frames")
    assert found.level == "problem"
    assert text in found.text
    assert names(tmp_path, found) == ["a.dcm"]


def test_what_nothing_decodes_comes_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_series(tmp_path, 1)
    write(encapsulated(ct(ct_pixels(), 1), [b"\0" * 8]), tmp_path / "j2k.dcm")

    def only_native(_self: object, pixel: ImagePixel) -> bool:
        return not pixel.is_encapsulated

    for module in (imagecodecs, pydicom_backend, simpleitk):
        monkeypatch.setattr(type(module.BACKEND), "supports", only_native)
        monkeypatch.setattr(module, "_installed", lambda: False)
    found = present(tmp_path, "decoding")
    assert found.level == "problem"
    assert found.frames == 1
    assert "JPEG 2000 Lossless" in found.text
    assert "pip install imagecodecs" in found.advice
    assert names(tmp_path, found) == ["j2k.dcm"]
    report, index = examined(tmp_path)
    assert "nothing: " in format_report(report, index)


def test_problems_come_first_and_the_text_names_one_file(tmp_path: Path) -> None:
    write_series(tmp_path, 7, PatientID="")
    found, index = examined(tmp_path)
    whole = replace(found, remarks=(Remark("x", "note", "t", "a", 1, (0,)), *found.remarks))
    text = format_report(whole, index)
    assert text.index("Warnings") < text.index("Notes")
    assert "       000.dcm and 6 more\n" in text
    assert text.endswith("\n\n--json lists all files.")
    assert "001.dcm" not in text
    listed = to_json(found, index)["remarks"][0]["files"]
    assert listed == [{"path": f"{k:03d}.dcm"} for k in range(7)]


def test_an_empty_folder(tmp_path: Path) -> None:
    found, index = examined(tmp_path)
    assert found == Examination((), ())
    assert format_report(found, index) == "There are no frames."


def test_the_samples_have_a_series_with_sixteen_windows(samples: Path) -> None:
    folder = samples / "TorchIO-project__torchio/tests/image_data/dicom"
    datasets = [pydicom.dcmread(path) for path in folder.glob("*.dcm")]
    windows = {
        (ds.WindowCenter, ds.WindowWidth) for ds in datasets if ds.get("WindowWidth") is not None
    }
    assert f"up to {len(windows)} in one" in present(folder, "windows").text
    assert len(windows) == 16


# --- One file or index -------------------------------------------------------


def identifying(dataset: Dataset) -> list[str]:
    keywords = ("PatientName", "PatientID", "SOPInstanceUID", "SeriesInstanceUID", "StudyDate")
    return [str(dataset[keyword].value) for keyword in keywords if dataset.get(keyword)]


@pytest.mark.parametrize(
    "name", ["CT_small.dcm", "rtdose.dcm", "examples_rgb_color.dcm", "reportsi.dcm"]
)
def test_info_says_what_pydicom_reads_and_no_identifier(bundled: Path, name: str) -> None:
    dataset = pydicom.dcmread(bundled / name)
    index, report = scan(bundled / name)
    found = describe(index, report, redact_paths=True)
    both = format_info(found) + json.dumps(found)
    assert not [value for value in identifying(dataset) if value in both]
    assert name not in both
    shown = {
        keyword: values[0]["value"]
        for attributes in found["attributes"].values()
        for keyword, values in attributes.items()
        if values
    }
    assert bool(shown) is ("PixelData" in dataset)
    for keyword in ("Rows", "BitsStored", "PhotometricInterpretation", "RescaleSlope"):
        if keyword in dataset and shown:
            assert shown[keyword] == f"{dataset[keyword].value}".removesuffix(".0")
    assert found["frames"] == (int(dataset.get("NumberOfFrames", 1)) if shown else 0)


def test_a_function_without_a_window_is_no_window(tmp_path: Path) -> None:
    for k, function in enumerate(("LINEAR", "SIGMOID")):
        dataset = ct(ct_pixels(k), k, VOILUTFunction=function)
        del dataset.WindowCenter, dataset.WindowWidth
        write(dataset, tmp_path / f"{k}.dcm")
    assert remark(tmp_path, "windows") is None
    assert present(tmp_path, "no_window").frames == 2


def test_minus_one_is_a_value(tmp_path: Path) -> None:
    path = write(ct(ct_pixels(), RescaleIntercept=-1, SliceLocation=-1), tmp_path / "x.dcm")
    index, report = scan(path, tags=["SliceLocation"])
    values = describe(index, report)["attributes"]
    assert values["Values"]["RescaleIntercept"] == [{"value": "-1", "frames": 1}]
    assert values["Values"]["MaximumFractionalValue"] == [{"value": "", "frames": 1}]
    counted = summarize(index, report, tags=["SliceLocation"])["tags"]
    assert counted == {"SliceLocation": {"frames": 1, "distinct": 1}}


def test_code_streams_of_another_process_than_their_label(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codecs = pytest.importorskip("imagecodecs")
    gray = np.arange(768, dtype=np.uint8).reshape(24, 32)
    jpeg = codecs.jpeg8_encode(gray)
    write(encapsulated(ct(gray), [jpeg], "1.2.840.10008.1.2.4.50"), tmp_path / "right.dcm")
    assert remark(tmp_path, "streams") is None
    write(encapsulated(ct(gray, 1), [jpeg], "1.2.840.10008.1.2.4.70"), tmp_path / "wrong.dcm")
    found = present(tmp_path, "streams")
    assert (found.level, found.frames, names(tmp_path, found)) == ("note", 1, ["wrong.dcm"])
    assert "JPEG Lossless SV1, but the code stream is JPEG" in found.text
    monkeypatch.setattr(
        imagecodecs, "_missing_codecs", lambda syntax: ("JPEG",) * syntax.endswith(".50")
    )
    found = present(tmp_path, "streams")
    assert found.level == "problem"
    assert 'the default backend does not decode that, backend="simpleitk" does' in found.advice


def test_a_file_that_went_away_since_it_was_indexed(tmp_path: Path) -> None:
    path = write(encapsulated(ct(ct_pixels()), [b"\xff\xd8\xff\xd9"]), tmp_path / "a.dcm")
    index, report = scan(tmp_path)
    path.unlink()
    found = [one for one in examine(index, report).remarks if one.check == "unread"]
    assert [(one.level, one.frames) for one in found] == [("problem", 1)]


def test_what_a_file_says_in_place_of_a_code_does_not_reach_the_terminal(tmp_path: Path) -> None:
    whole = write(ct(ct_pixels()), tmp_path / "syntax.dcm").read_bytes()
    hostile = b"\x1b[31mDOE^JOHN\n"
    for name, was in (
        ("syntax", b"1.2.840.10008.1.2.1\0"),
        ("class", b"1.2.840.10008.5.1.4.1.1.2\0"),
        ("photometric", b"MONOCHROME2 "),
    ):
        at = whole.rindex(was)
        text = hostile[: len(was)].ljust(len(was))
        (tmp_path / f"{name}.dcm").write_bytes(whole[:at] + text + whole[at + len(was) :])
    empty = ct(ct_pixels(), SOPClassUID="1.2.840.10008.5.1.4.1.1.2")
    del empty.PixelData
    data = write(empty, tmp_path / "empty.dcm").read_bytes()
    at = data.rindex(b"1.2.840.10008.5.1.4.1.1.2\0")
    (tmp_path / "empty.dcm").write_bytes(data[:at] + hostile.ljust(26) + data[at + 26 :])
    index, report = scan(tmp_path)  # warnings are errors here
    assert report.counts["unsupported"] == report.counts["no_pixels"] == 1
    said = format_summary(summarize(index, report))
    said += format_report(examine(index, report), index)
    said += format_info(describe(index, report))
    assert "\x1b" not in said
    assert "TransferSyntaxUID is (not a value of the standard: VR UI, length " in said
    assert "DOE" not in said
    found = json.dumps(summarize(index, report))
    assert "DOE" not in found.replace("photometric", "")


def test_info_of_an_index_counts_values_and_bounds_positions(tmp_path: Path) -> None:
    write_series(tmp_path, 3)
    nowhere = ct(ct_pixels(), 9, RescaleType="\x1b[31mHU")
    del nowhere.ImagePositionPatient
    write(nowhere, tmp_path / "nowhere.dcm")
    index, report = scan(tmp_path)
    found = describe(index, report)
    assert found["attributes"]["Geometry"]["PixelSpacing"] == [{"value": "0.7 \\ 0.8", "frames": 4}]
    assert found["positions"] == {
        "distinct": 3,
        "lowest": [0, 0, 0],
        "highest": [0, 0, 5],
        "frames": 3,
    }
    text = format_info(found)
    assert "3 different, 0 \\ 0 \\ 0 to 0 \\ 0 \\ 5; 1 frame without" in text
    assert "(absent): 3; " in text
    assert "\x1b" not in text


@pytest.mark.parametrize("reason", ["", "dicomtorch-kernels is not installed"])
def test_it_says_whether_compiled_kernels_are_in_use(tmp_path, monkeypatch, reason):
    found = Kernels(None if reason else object(), reason)
    monkeypatch.setattr("dicomtorch.reports.doctor.kernels", lambda: found)
    write_series(tmp_path, 2)
    examination, index = examined(tmp_path)
    assert to_json(examination, index)["kernels"] == {"in_use": not reason, "reason": reason}
    text = format_report(examination, index)
    assert (f"converted by NumPy: {reason}." if reason else "read by dicomtorch-kernels.") in text


def test_a_syntax_that_is_there_twice_comes_with_the_reason(tmp_path: Path) -> None:
    write(ct(ct_pixels(0), 0), tmp_path / "a.dcm")
    pixel = scan(tmp_path)[0].image_pixel(0)
    kinds = [Capability(pixel, frames, ("pydicom",), "") for frames in (1, 2)]
    index = scan(tmp_path)[0]
    same = format_report(Examination(tuple(kinds), ()), index)
    assert "has several lines" not in same
    kinds[1] = replace(kinds[1], backends=("pydicom", "simpleitk"))
    other = format_report(Examination(tuple(kinds), ()), index)
    assert "A transfer syntax has several lines where" in other


def test_both_kinds_of_claims_are_counted_apart(tmp_path: Path) -> None:
    frames = np.stack([ct_pixels(k) for k in range(3)])
    for k, claimed in enumerate((4, 1)):
        write(ct(frames, k, NumberOfFrames=claimed), tmp_path / f"{k}.dcm")
    text = present(tmp_path, "claimed_frames").text
    assert text.endswith(
        "than there are: 1 frame that they claim is missing, 2 frames more than they claim"
    )


def test_the_table_of_series_says_what_its_columns_are(tmp_path: Path) -> None:
    write_series(tmp_path, 4)
    text = format_report(*examined(tmp_path))
    assert "A file of the series" in text
    assert "volumes: number x slices*rows*columns; mm: between slices*rows" in text
