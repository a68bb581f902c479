"""`python -m benchmarks.scan`: headers per second beside plain pydicom, with one process and with several.

CT files with some 250 elements each, one enhanced MR file with thousands of per-frame groups, many small files, and the
same again when nothing has changed. Rounds are interleaved and the cache is warm. CPU time is compared where everything
runs in one process, wall time where several do, so that the latter needs a machine with nothing else to do.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, EnhancedMRImageStorage, ExplicitVRLittleEndian

from benchmarks.report import machine, versions
from dicomtorch import scan

ROOT_UID = "1.2.826.0.1.3680043.8.498.11"
SERIES = 200  # files
FILLING = (
    *("AccessionNumber", "BodyPartExamined", "CTDIvol", "ContentDate"),
    *("DataCollectionDiameter", "DeviceSerialNumber", "DistanceSourceToDetector"),
    *("DistanceSourceToPatient", "Exposure", "ExposureTime", "FilterType", "FocalSpots"),
    *("GantryDetectorTilt", "GeneratorPower", "ImageComments", "InstitutionAddress"),
    *("InstitutionName", "KVP", "Manufacturer", "ManufacturerModelName", "OperatorsName"),
    *("PatientAge", "PatientBirthDate", "PatientName", "PatientPosition", "PatientSex"),
    *("PatientSize", "PatientWeight", "PerformedProcedureStepDescription"),
    *("PerformedProcedureStepID", "PerformedProcedureStepStartDate"),
    *("PerformedProcedureStepStartTime", "PerformingPhysicianName"),
    *("PositionReferenceIndicator", "ProtocolName", "ReconstructionDiameter"),
    *("ReferringPhysicianName", "RevolutionTime", "RotationDirection", "ScanOptions"),
    *("SeriesDate", "SeriesDescription", "SeriesNumber", "SeriesTime"),
    *("SingleCollimationWidth", "SoftwareVersions", "SpiralPitchFactor", "StationName"),
    *("StudyDate", "StudyDescription", "StudyID", "StudyTime", "TableFeedPerRotation"),
    *("TableHeight", "TableSpeed", "TotalCollimationWidth"),
)
VALUES: dict[str, Any] = {
    **{"DA": "20200102", "TM": "101112.123000", "SH": "SHORT TEXT", "LO": "Some longer text here"},
    **{"PN": "Doe^Jane", "CS": "CODE", "DS": "123.45", "IS": "12", "FD": 1.5, "AS": "045Y"},
    **{"LT": "Comment " * 5, "ST": "Street 1, Town", "US": 7},
}
PRIVATE = (
    ("LO", "private text"),
    ("DS", "1.25"),
    ("IS", "7"),
    ("US", 1),
    ("FD", 1.0),
    ("OB", bytes(24)),
)


def ct(number: int, size: int = 16) -> Dataset:
    """A slice with some 250 elements: what scanners write, private groups and sequences among it."""
    series = f"{ROOT_UID}.{number // SERIES}"
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for keyword in FILLING:
        setattr(dataset, keyword, VALUES[pydicom.datadict.dictionary_VR(keyword)])
    dataset.SOPClassUID = UID(CTImageStorage)
    dataset.SOPInstanceUID = f"{series}.1.{number}"
    dataset.SeriesInstanceUID, dataset.StudyInstanceUID = f"{series}.2", f"{series}.3"
    dataset.FrameOfReferenceUID, dataset.PatientID = f"{series}.4", f"P{number // SERIES}"
    dataset.Modality, dataset.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.InstanceNumber = number % SERIES + 1
    dataset.AcquisitionTime = dataset.ContentTime = f"1011{number % 60:02}.{number:06}"
    z = round(0.7 * (number % SERIES) - 70, 4)
    dataset.ImagePositionPatient, dataset.SliceLocation = [-171.5, -300.25, z], z
    dataset.ImageOrientationPatient, dataset.PixelSpacing = [1, 0, 0, 0, 1, 0], [0.7, 0.7]
    dataset.SliceThickness, dataset.XRayTubeCurrent = 1.5, 100 + number % 97
    dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = 1, -1024, "HU"
    dataset.WindowCenter, dataset.WindowWidth = [40, 300], [400, 1500]
    for keyword in ("ReferencedStudySequence", "ReferencedImageSequence", "SourceImageSequence"):
        item = Dataset()
        item.ReferencedSOPClassUID = UID(CTImageStorage)
        item.ReferencedSOPInstanceUID = f"{series}.9"
        setattr(dataset, keyword, [item, item])
    for group, count in ((0x0019, 60), (0x0021, 40), (0x0029, 30), (0x0051, 20)):
        block = dataset.private_block(group, "BENCHMARK", create=True)
        for k in range(count):
            block.add_new(k, *PRIVATE[k % len(PRIVATE)])
    dataset.Rows = dataset.Columns = size
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.PixelData = bytes(2 * size * size)
    dataset["PixelData"].VR = "OW"
    return dataset


def enhanced_mr(frames: int) -> Dataset:
    """A file with per-frame functional groups."""

    def item(**values: Any) -> list[Dataset]:
        dataset = Dataset()
        for keyword, value in values.items():
            setattr(dataset, keyword, value)
        return [dataset]

    dataset = ct(0, 8)
    dataset.SOPClassUID, dataset.Modality = UID(EnhancedMRImageStorage), "MR"
    for keyword in (
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
        "SliceThickness",
    ):
        delattr(dataset, keyword)
    groups = []
    for k in range(frames):
        content = {
            "StackID": "1",
            "InStackPositionNumber": k + 1,
            "DimensionIndexValues": [1, k + 1],
        }
        groups += item(
            MREchoSequence=item(EffectiveEchoTime=10.0 + k % 5),
            PlanePositionSequence=item(ImagePositionPatient=[-120, -110.5, round(0.3 * k, 3)]),
            PlaneOrientationSequence=item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0]),
            FrameContentSequence=item(
                FrameAcquisitionDateTime=f"20200102101112.{k:06}",
                TemporalPositionIndex=1,
                **content,
            ),
            PixelMeasuresSequence=item(PixelSpacing=[0.9, 0.9], SliceThickness=3),
            FrameVOILUTSequence=item(WindowCenter=300 + k % 7, WindowWidth=600 + k % 11),
            PixelValueTransformationSequence=item(
                RescaleSlope=1.5, RescaleIntercept=0, RescaleType="US"
            ),
            MRImageFrameTypeSequence=item(
                FrameType=["ORIGINAL", "PRIMARY", "M", "NONE"],
                PixelPresentation="MONOCHROME",
                VolumetricProperties="VOLUME",
                VolumeBasedCalculationTechnique="NONE",
                ComplexImageComponent="MAGNITUDE",
            ),
        )
    dataset.PerFrameFunctionalGroupsSequence = groups
    dataset.NumberOfFrames = frames
    dataset.PixelData = bytes(2 * 64 * frames)
    return dataset


def read_groups(path: Path) -> list[Any]:
    """The same values with pydicom."""
    names = (
        ("PlanePositionSequence", "ImagePositionPatient"),
        ("PlaneOrientationSequence", "ImageOrientationPatient"),
        (
            "FrameContentSequence",
            "StackID InStackPositionNumber TemporalPositionIndex DimensionIndexValues",
        ),
        ("FrameContentSequence", "FrameAcquisitionDateTime"),
        ("PixelMeasuresSequence", "PixelSpacing SliceThickness"),
        ("PixelValueTransformationSequence", "RescaleSlope RescaleIntercept RescaleType"),
        ("FrameVOILUTSequence", "WindowCenter WindowWidth"),
        ("MREchoSequence", "EffectiveEchoTime"),
        ("MRImageFrameTypeSequence", "FrameType ComplexImageComponent"),
    )
    dataset = pydicom.dcmread(path, stop_before_pixels=True)
    return [
        [
            getattr(group[sequence][0], keyword)
            for sequence, several in names
            for keyword in several.split()
        ]
        for group in dataset.PerFrameFunctionalGroupsSequence
    ]


def small_files(root: Path, files: int) -> Path:
    """A folder of files with few elements, written unless they are there."""
    small = root / f"small-{files}"
    dataset = ct(0)
    for element in list(dataset):
        if element.tag.is_private or element.keyword in FILLING or element.VR == "SQ":
            del dataset[element.tag]
    dataset.SOPInstanceUID = f"{ROOT_UID}.100000"
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    for k in range(files):
        path = small / f"{k // 500:03}" / f"{k:06}.dcm"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(buffer.getvalue().replace(b".100000", b".%06d" % (100_000 + k)))
    return small


def make(root: Path, options: argparse.Namespace) -> tuple[Path, Path, Path]:
    """Writes what is not there yet: the folder of CT files, the MR file, the folder of small files."""
    slices = root / f"ct-{options.files}"
    mr = root / f"mr-{options.frames}.dcm"
    for k in range(options.files):
        path = slices / f"{k // SERIES:03}" / f"{k:06}.dcm"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            ct(k).save_as(path, enforce_file_format=True)
    if not mr.exists():
        enhanced_mr(options.frames).save_as(mr, enforce_file_format=True)
    return slices, mr, small_files(root, options.small)


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints and writes `scan.json`."""
    options = _parser().parse_args(argv)
    slices, mr, small = make(options.data, options)
    paths = sorted(slices.rglob("*.dcm"))
    index, _ = scan(small, num_workers=0)
    assert len(index) == options.small

    def plain() -> None:
        for path in paths:
            pydicom.dcmread(path, stop_before_pixels=True)

    def unchanged() -> None:
        assert scan(small, index=index)[0] is index

    def ours(source: Path, workers: int) -> Callable[[], object]:
        return lambda: scan(source, num_workers=workers)

    runs: dict[str, tuple[int, Callable[[], object]]] = {
        "pydicom, CT": (options.files, plain),
        "dicomtorch, CT": (options.files, ours(slices, 0)),
        "pydicom, per-frame groups": (options.frames, lambda: read_groups(mr)),
        "dicomtorch, per-frame groups": (options.frames, ours(mr, 0)),
        "dicomtorch, small files, 1 process": (options.small, ours(small, 1)),
        "dicomtorch, small files, 2 processes": (options.small, ours(small, 2)),
        "dicomtorch, small files unchanged": (options.small, unchanged),
    }
    cpu, wall = measure(runs, options.repeats)
    ratios = {
        "CT, one process: times pydicom (CPU time)": cpu["pydicom, CT"] / cpu["dicomtorch, CT"],
        "per-frame groups: times pydicom (CPU time)": cpu["pydicom, per-frame groups"]
        / cpu["dicomtorch, per-frame groups"],
        "small files: 2 processes times 1 (wall time)": wall["dicomtorch, small files, 1 process"]
        / wall["dicomtorch, small files, 2 processes"],
        "unchanged, files/s (CPU time)": options.small / cpu["dicomtorch, small files unchanged"],
    }
    per_second = {name: runs[name][0] / seconds for name, seconds in wall.items()}
    results = {
        "machine": machine(),
        "versions": versions(),
        "ratios": ratios,
        "files_or_frames_per_second": per_second,
    }
    for name, value in [*per_second.items(), *ratios.items()]:
        print(f"| {name} | {value:,.1f} |")
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "scan.json").write_text(
        json.dumps(results, indent=2) + "\n", encoding="utf-8"
    )
    return 0


def measure(
    runs: dict[str, tuple[int, Callable[[], object]]], repeats: int
) -> tuple[dict[str, float], dict[str, float]]:
    """(CPU seconds of this process, wall seconds) of each, medians; the first round warms up."""
    cpu: dict[str, list[float]] = {name: [] for name in runs}
    wall: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, (_, once) in runs.items():
            began = time.process_time(), time.perf_counter()
            once()
            if repeat:
                cpu[name].append(time.process_time() - began[0])
                wall[name].append(time.perf_counter() - began[1])
    median = statistics.median
    return {n: median(v) for n, v in cpu.items()}, {n: median(v) for n, v in wall.items()}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scan", description=__doc__)
    output = Path("out") / "benchmarks"
    parser.add_argument("--files", type=int, default=2000, help="CT files; default: %(default)s")
    parser.add_argument(
        "--frames", type=int, default=5000, help="of the MR file; default: %(default)s"
    )
    parser.add_argument(
        "--small", type=int, default=50_000, help="small files; default: %(default)s"
    )
    parser.add_argument("--repeats", type=int, default=3, help="timed rounds; default: %(default)s")
    parser.add_argument("--data", type=Path, default=output / "data", help="default: %(default)s")
    parser.add_argument("--output", type=Path, default=output, help="default: %(default)s")
    return parser


if __name__ == "__main__":
    sys.exit(main())
