"""What a scan remembers from file to file saves time and changes nothing: every file comes out as if it were alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRBigEndian, ImplicitVRLittleEndian, JPEG2000Lossless

from dicomtorch.dicom.runs import KnownRuns
from dicomtorch.index.builder import FileRows
from dicomtorch.scanner.file import DIRECTORY_RECORDS, read_file
from dicomtorch.scanner.keywords import tag_columns
from dicomtorch.scanner.resolve.memory import SeriesMemory
from dicomtorch.scanner.resolve.resolver import WANTED, Resolver
from tests.support.phantoms import ct, ct_pixels, encapsulated, group, lut, write

TAGS = ("PatientSex", "SliceLocation", "StudyDate")


def resolver(*tags: str) -> Resolver:
    return Resolver(tags=tag_columns(tags), extra={DIRECTORY_RECORDS})


def rows_of(path: Path, with_: Resolver) -> FileRows:
    return read_file(os.fsencode(path), b"", with_)


def told(rows: FileRows) -> dict[str, Any]:
    """Everything about a file, whatever it shares with others."""
    columns = {}
    for name, value in (rows.shared | rows.columns).items():
        values = value.tolist() if isinstance(value, np.ndarray) else value
        columns[name] = values if isinstance(values, list) else [values] * rows.count
    lookups = [(type(k).__name__, repr(k), getattr(k, "data", None)) for k in rows.lookups]
    return {
        "columns": repr(sorted(columns.items())),
        "lookups": repr(lookups),
        **{name: getattr(rows, name) for name in ("file_class", "reason", "notices", "count")},
        **{
            name: getattr(rows, name)
            for name in ("deflated", "claimed_frames", "found_frames", "size")
        },
    }


def check(paths: list[Path], *tags: str) -> Resolver:
    """Reads all files three times over with one memory, and each with none."""
    alone = {path: told(rows_of(path, resolver(*tags))) for path in paths}
    shared = resolver(*tags)
    for _ in range(3):
        for path in paths:
            assert told(rows_of(path, shared)) == alone[path], path
    return shared


def test_bundled_files_come_out_as_if_alone(bundled: Path) -> None:
    paths = [path for path in sorted(bundled.rglob("*")) if path.is_file()]
    assert len(paths) > 100
    check(paths, *TAGS)


def test_samples_come_out_as_if_alone() -> None:
    folder = os.environ.get("DICOMTORCH_SAMPLES", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("DICOMTORCH_SAMPLES does not name a folder of samples")
    check([path for path in sorted(Path(folder).rglob("*")) if path.is_file()], *TAGS)


CHANGES: list[dict[str, Any]] = [
    {},
    {"SOPInstanceUID": "1.2.3"},
    {"SOPInstanceUID": ""},
    {"InstanceNumber": 12345},
    {"InstanceNumber": ""},
    {"InstanceNumber": None},
    {"ImagePositionPatient": [1, 2, 3.25]},
    {"ImagePositionPatient": [1, 2]},
    {"ImagePositionPatient": ""},
    {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]},
    {"AcquisitionTime": "101112.5"},
    {"AcquisitionTime": "10:11:12"},
    {"AcquisitionTime": "1011"},
    {"AcquisitionTime": "240000"},
    {"AcquisitionTime": "101160"},
    {"AcquisitionDateTime": "20200101101112.25"},
    {"AcquisitionDateTime": "20200101101112.25", "AcquisitionTime": "101112"},
    {"AcquisitionNumber": 7},
    {"TriggerTime": "12.5"},
    {"EchoTime": 3},
    {"PatientID": "other"},
    {"PatientID": ""},
    {"IssuerOfPatientID": "there"},
    {"StudyInstanceUID": "1.2.4"},
    {"SeriesInstanceUID": "1.2.5"},
    {"FrameOfReferenceUID": "1.2.6"},
    {"SpecificCharacterSet": "ISO_IR 100"},
    {"SpecificCharacterSet": "ISO_IR 192", "PatientID": "Jürgen"},
    {"Modality": "MR"},
    {"Modality": "PT", "Units": "BQML", "AcquisitionTime": "101112", "SeriesTime": "101112"},
    {"Modality": "NM", "ImageType": ["DERIVED", "PRIMARY", "RECON TOMO"]},
    {"Modality": "RTDOSE", "GridFrameOffsetVector": [0]},
    {"WindowCenter": 50},
    {"WindowCenter": [50, 60], "WindowWidth": [400, 500]},
    {"WindowCenter": [50, 60], "WindowWidth": [400]},
    {"WindowWidth": 0},
    {"WindowWidth": "0.5"},
    {"WindowWidth": "0.5", "VOILUTFunction": "LINEAR_EXACT"},
    {"WindowWidth": None},
    {"VOILUTFunction": "SIGMOID"},
    {"VOILUTSequence": [lut([3, 0, 8], [1, 2, 3])]},
    {"VOILUTSequence": [lut([3, 0, 8], [1, 2, 4])]},
    {"ModalityLUTSequence": [lut([3, 0, 16], [1, 2, 3])]},
    {"RescaleSlope": 2},
    {"RescaleIntercept": -1024},
    {"PixelPaddingValue": -2000},
    {"PixelRepresentation": 0},
    {"PixelRepresentation": None},
    {"BitsStored": 12, "HighBit": 11},
    {"Rows": 12},
    {"Rows": 25},
    {"NumberOfFrames": 1},
    {"NumberOfFrames": 2},
    {"NumberOfFrames": 0},
    {"NumberOfFrames": 1, "FrameTime": "33"},
    {"SliceThickness": 3},
    {"SliceLocation": "7.5"},
    {"PatientSex": "M"},
    {"PatientWeight": "80"},
    {"StudyDate": "20200101"},
    {"SourceImageSequence": [group(ReferencedSOPInstanceUID="1.2.7")]},
    {"ReferencedStudySequence": [group(ReferencedSOPInstanceUID="1.2.7")]},
    {
        "RealWorldValueMappingSequence": [
            group(
                RealWorldValueFirstValueMapped=0,
                RealWorldValueLastValueMapped=9,
                RealWorldValueSlope=1.0,
                RealWorldValueIntercept=0.0,
            )
        ]
    },
    {"SharedFunctionalGroupsSequence": [group(PixelMeasuresSequence=[group(SliceThickness=9)])]},
    {"BurnedInAnnotation": "YES"},
]


def changed(changes: dict[str, Any]) -> Dataset:
    dataset = ct(ct_pixels())
    for keyword, value in changes.items():
        if value is None:
            if keyword in dataset:
                del dataset[keyword]
        else:
            setattr(dataset, keyword, value)
    if dataset.get("PixelRepresentation") == 0 and "PixelPaddingValue" in dataset:
        del dataset.PixelPaddingValue
    return dataset


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom on values that are meant to be odd
@pytest.mark.parametrize("tags", [(), TAGS, ("PatientWeight", "WindowCenterWidthExplanation")])
@pytest.mark.parametrize("syntax", ["", ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_each_change_to_an_image_is_seen(
    tmp_path: Path, syntax: str, tags: tuple[str, ...]
) -> None:
    paths = []
    for number, changes in enumerate(CHANGES):
        dataset = changed(changes)
        if syntax:
            dataset.file_meta.TransferSyntaxUID = UID(syntax)
            dataset["PixelData"].VR = "OW"
        paths.append(write(dataset, tmp_path / f"{number:03}.dcm"))
    check(paths, *tags)


def test_encapsulated_images_keep_their_own_places(tmp_path: Path) -> None:
    paths = []
    for number, streams in enumerate([[b"a" * 10], [b"b" * 20], [b"c" * 10], [b"dd", b"ee"]]):
        dataset = encapsulated(ct(ct_pixels(), number), streams, JPEG2000Lossless)
        paths.append(write(dataset, tmp_path / f"{number}.dcm"))
    check(paths)


def test_truncated_images_are_seen(tmp_path: Path) -> None:
    paths = [write(ct(ct_pixels(), k), tmp_path / f"{k}.dcm") for k in range(6)]
    for k, path in enumerate(paths[:4]):
        path.write_bytes(path.read_bytes()[: (-1, -700, 900, 132)[k]])
    check(paths)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    counts = {"resolved": 0, "elements": 0}
    resolve, walk = Resolver.resolve, KnownRuns.walk

    def count_resolved(self: Resolver, *args: Any) -> Any:
        counts["resolved"] += 1
        return resolve(self, *args)

    def count_elements(self: KnownRuns, *args: Any) -> Any:
        result = walk(self, *args)
        counts["elements"] += result[1]
        return result

    monkeypatch.setattr(Resolver, "resolve", count_resolved)
    monkeypatch.setattr(KnownRuns, "walk", count_elements)
    return counts


def test_a_series_is_resolved_once(tmp_path: Path, counted: dict[str, int]) -> None:
    """This is what makes a scan fast; without it all of the above would pass for nothing."""
    paths = [write(ct(ct_pixels(k), k), tmp_path / f"{k}.dcm") for k in range(20)]
    with_ = resolver("PatientSex")
    for path in paths:
        rows_of(path, with_)
    assert counted["resolved"] == 1
    counted["elements"] = 0
    for path in paths:
        rows_of(path, with_)
    assert counted["elements"] > 20 * 25


def test_what_is_forgotten_is_learned_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dicomtorch.dicom import memory as headers
    from dicomtorch.dicom import runs
    from dicomtorch.scanner.resolve import memory as alike

    monkeypatch.setattr(alike, "_MOST_REMEMBERED", 2)
    monkeypatch.setattr(runs, "_MOST_ELEMENTS", 40)
    monkeypatch.setattr(headers, "_MOST_FAMILIES", 1)
    paths = []
    for k in range(12):
        dataset = ct(ct_pixels(k), k, PatientID=f"{k % 5}", SliceThickness=k % 4)
        dataset.file_meta.ImplementationClassUID = UID(f"1.2.{k % 3}")
        paths.append(write(dataset, tmp_path / f"{k}.dcm"))
    check(paths)


def test_runs_that_do_not_pay_are_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: dict[str, int]
) -> None:
    from dicomtorch.dicom import runs

    monkeypatch.setattr(runs, "_TRIAL", 2)
    monkeypatch.setattr(runs, "_PAYS", 1000)
    paths = [write(ct(ct_pixels(k), k), tmp_path / f"{k}.dcm") for k in range(4)]
    check(paths)
    counted["elements"] = 0
    check(paths)
    assert counted["elements"] < 200


def test_tags_that_are_read_for_something_else_are_seen() -> None:
    """Such a tag is not an image's own, so nothing is remembered."""
    assert 0x00101030 in WANTED
    weight = {"PatientWeight": (0x00101030, "float64", "DS")}
    assert not SeriesMemory(weight, WANTED)._possible
