"""`python -m benchmarks.masks`: masks from SEG and RTSTRUCT beside highdicom and rt-utils.

A CT series, a SEG of 20 segments in sparse frames of one bit, and an RTSTRUCT of five organs with 120 points a contour
are written once. What others give is compared with ours before it is timed: highdicom's must be equal, of rt-utils the
share of voxels that it has more is reported. Steps are interleaved round by round, ratios are those of one round, and
medians over the rounds are printed beside what they should be at least or at most. Files are in the cache of the
system.

rt-utils installs a package called `tests`, so it runs in an environment of its own:
`python -m venv ENV; ENV/bin/pip install rt-utils==1.2.7`, then `--rt-utils ENV/bin/python` or the variable
DICOMTORCH_RT_UTILS.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from benchmarks import data
from dicomtorch import DicomFrames, FrameIndex, MaskIndex, scan

SEGMENTS, ORGANS, POINTS = 20, 5, 120
SPACE = "1.2.826.0.1.3680043.8.498.77"
_SEG = "1.2.840.10008.5.1.4.1.1.66.4"
_STRUCTURES = "1.2.840.10008.5.1.4.1.1.481.3"
_SLICES_COMPARED = 12  # of the SEG, evenly spaced

Step = Callable[[], Any]


class Row(NamedTuple):
    """One number of the table.

    Attributes:
        name: Of it.
        value: Milliseconds, "times" or per cent.
        unit: "ms", "x" or "%".
        bar: What it should be: at least for "x", at most for "ms"; `None` for no bar.
    """

    name: str
    value: float
    unit: str = "ms"
    bar: float | None = None

    def line(self) -> str:
        """As it is printed."""
        text = f"{self.name:52}{self.value:12.3f} {self.unit:3}"
        if self.bar is None:
            return text
        kept = self.value >= self.bar if self.unit == "x" else self.value <= self.bar
        return (
            f"{text} {'>=' if self.unit == 'x' else '<='} {self.bar:g}: {'yes' if kept else 'NO'}"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Makes the files once, checks, times, prints a table, and writes JSON where asked to."""
    options = _parser().parse_args(argv)
    folder = options.data / f"masks-{options.slices}x{options.size}"
    make(folder, options.data, options.slices, options.size)
    index, _ = scan(folder)
    images = index.filter(Modality="CT")
    rows: list[Row] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what other libraries say while they read
        for part in (
            seg(folder, images, index, options.repeats),
            contours(folder, images, index, options.repeats, options.rt_utils),
            frames(images, options.repeats),
        ):
            for row in part:
                print(row.line(), flush=True)
            rows += part
    if options.output:
        found = {
            "settings": {"slices": options.slices, "size": options.size},
            "rows": [row._asdict() for row in rows],
        }
        options.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


def rounds(steps: dict[str, Step], repeats: int) -> dict[str, list[float]]:
    """Milliseconds of each step in each round."""
    found: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            found[name].append(1000 * (time.perf_counter() - start))
    return found


def medians(found: dict[str, list[float]]) -> list[Row]:
    """A row for each step."""
    return [Row(name, statistics.median(values)) for name, values in found.items()]


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> float:
    """The median of the ratios of the rounds."""
    return statistics.median(a / b for a, b in zip(theirs, ours, strict=True))


def seg(folder: Path, images: FrameIndex, index: FrameIndex, repeats: int) -> list[Row]:
    """Scanning the SEG, slices as label maps beside highdicom."""
    path = folder / "seg.dcm"
    masks = MaskIndex(images, index, kind="seg", overlap="last")
    count = len(images)
    chosen = [count * (2 * k + 1) // (2 * _SLICES_COMPARED) for k in range(_SLICES_COMPARED)]
    scanned = statistics.median(rounds({"scan": lambda: scan(path)}, repeats)["scan"])
    rows = [Row("SEG: scan of the file", scanned, bar=200)]
    steps: dict[str, Step] = {
        "SEG: placing its frames": lambda: MaskIndex(images, index, kind="seg", overlap="last"),
        "SEG: a slice": lambda: [masks.mask(k) for k in chosen],
        "SEG: a slice, 20 channels": lambda: [masks.mask(k, "channels") for k in chosen],
    }
    try:
        highdicom: Any = importlib.import_module("highdicom")
    except ImportError:
        print("highdicom is not installed: not measured")
        return rows + _of_slices(rounds(steps, repeats))
    opened = highdicom.seg.segread(path)
    uids = images.column("SOPInstanceUID").tolist()
    combined = {"combine_segments": True, "skip_overlap_checks": True}

    def theirs() -> list[Any]:
        return [opened.get_pixels_by_source_instance([uids[k]], **combined)[0] for k in chosen]

    for k, expected in zip(chosen, theirs(), strict=True):
        np.testing.assert_array_equal(masks.mask(k)[0][0], expected)
    steps["SEG: a slice, highdicom"] = theirs
    found = rounds(steps, repeats)
    times = ratio(found["SEG: a slice, highdicom"], found["SEG: a slice"])
    return [
        *rows,
        *_of_slices(found),
        Row("SEG: a slice, times as fast as highdicom", times, "x", 20),
    ]


def _of_slices(found: dict[str, list[float]]) -> list[Row]:
    return [
        row._replace(value=row.value / _SLICES_COMPARED) if "slice" in row.name else row
        for row in medians(found)
    ]


def contours(
    folder: Path, images: FrameIndex, index: FrameIndex, repeats: int, rt_utils: str
) -> list[Row]:
    """Five organs on all slices: opened, parsed, filled and painted; rt-utils in turn, in its own process."""

    def ours() -> Any:
        masks = MaskIndex(images, index, kind="rtstruct")
        volume = np.empty((len(images), ORGANS, *masks.shape(0)), np.uint8)
        for k in range(len(images)):
            masks.mask(k, "channels", volume[k])
        return volume

    whole = ours()
    if not rt_utils:
        print(
            "rt-utils is not measured: name an interpreter that has it, --rt-utils ENV/bin/python"
        )
        return medians(rounds({"RTSTRUCT: five organs": ours}, repeats))
    mine, others, voxels = [], [], []
    for _ in range(min(repeats, 3)):
        mine += rounds({"": ours}, 1)[""]
        done = subprocess.run(
            [rt_utils, "-c", _RT_UTILS, folder / "ct", folder / "rs.dcm"],
            capture_output=True,
            text=True,
            check=False,
            cwd=folder,
            env={k: v for k, v in os.environ.items() if not k.startswith("PYTHON")},
        )
        if done.returncode:
            print(f"rt-utils fails, not measured: {done.stderr.strip().splitlines()[-1]}")
            return [Row("RTSTRUCT: five organs", statistics.median(mine))]
        milliseconds, voxels = json.loads(done.stdout.splitlines()[-1])
        others.append(milliseconds)
    rows = [
        Row("RTSTRUCT: five organs", statistics.median(mine)),
        Row("RTSTRUCT: five organs, rt-utils", statistics.median(others)),
        Row("RTSTRUCT: times as fast as rt-utils", ratio(others, mine), "x", 10),
    ]
    for k, count in enumerate(voxels):
        more = 100 * (count / int(whole[:, k].sum()) - 1)
        rows.append(Row(f"RTSTRUCT: voxels that rt-utils has more, organ {k + 1}", more, "%"))
    return rows


_RT_UTILS = """
import json, sys, time, warnings
warnings.simplefilter("ignore")
import rt_utils
start = time.perf_counter()
opened = rt_utils.RTStructBuilder.create_from(dicom_series_path=sys.argv[1], rt_struct_path=sys.argv[2])
masks = [opened.get_roi_mask_by_name(name) for name in sorted(opened.get_roi_names())]
print(json.dumps([1000 * (time.perf_counter() - start), [int(mask.sum()) for mask in masks]]))
"""


def frames(images: FrameIndex, repeats: int) -> list[Row]:
    """What a mask adds to a frame of a dataset, in shuffled order."""
    order = np.random.default_rng(0).permutation(len(images)).tolist()

    def of(kind: str) -> DicomFrames[Any, Any]:
        return DicomFrames(images, values="stored", masks=kind, overlap="last")

    def epoch(dataset: DicomFrames[Any, Any]) -> Step:
        # None is held: what an epoch held at once would cost is its memory, for image and mask alike.
        return lambda: deque((dataset[k] for k in order), maxlen=0)

    bars = {"SEG, 20 segments": 0.35, "5 structures, kept": 0.25, "5 structures, first time": 1.5}
    seg_frames, kept_frames = of("seg"), of("rtstruct")
    steps = {"plain": epoch(DicomFrames(images, values="stored"))}
    steps |= {"SEG, 20 segments": epoch(seg_frames), "5 structures, kept": epoch(kept_frames)}
    for step in steps.values():
        step()
    found: dict[str, list[float]] = {name: [] for name in (*steps, *bars)}
    for _ in range(repeats):
        fresh = epoch(of("rtstruct"))  # made before it is timed
        once = rounds(steps | {"5 structures, first time": fresh}, 1)
        for name, values in once.items():
            found[name] += values
    base = found.pop("plain")
    rows = [Row("a frame without mask", statistics.median(base) / len(order))]
    for name, values in found.items():
        added = statistics.median(a - b for a, b in zip(values, base, strict=True)) / len(order)
        rows.append(Row(f"a mask adds: {name}", added, bar=bars[name]))
    return rows


# --- Files ------------------------------------------------------------------------------------------


def make(folder: Path, root: Path, slices: int, size: int) -> None:
    """Writes the series and its masks, unless an earlier run has done so."""
    if (folder / "rs.dcm").exists():
        return
    (folder / "ct").mkdir(parents=True, exist_ok=True)
    images: list[Dataset] = []
    for path in data.make(root, data.SYNTAXES["uncompressed"], slices, size):
        dataset = pydicom.dcmread(path)
        dataset.FrameOfReferenceUID = SPACE
        dataset.save_as(folder / "ct" / path.name)
        images.append(dataset)
    _save(_segmentation(images, size), folder / "seg.dcm")
    _save(_structures(images, size), folder / "rs.dcm")


def _save(dataset: Dataset, path: Path) -> None:
    part = path.with_suffix(".part")
    dataset.save_as(part, enforce_file_format=True)
    part.replace(path)


def _item(**attributes: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def _object(like: Dataset, sop_class: str, modality: str, number: int) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.Modality = sop_class, modality
    dataset.SOPInstanceUID = f"{SPACE}.{number}.1"
    dataset.SeriesInstanceUID = f"{SPACE}.{number}"
    for keyword in ("StudyInstanceUID", "PatientID"):
        setattr(dataset, keyword, getattr(like, keyword))
    dataset.PatientName, dataset.PatientBirthDate, dataset.PatientSex = "", "", ""
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "20240101", "120000", "1"
    dataset.AccessionNumber, dataset.ReferringPhysicianName = "", ""
    dataset.SeriesNumber, dataset.InstanceNumber = number, 1
    dataset.ContentDate, dataset.ContentTime = "20240101", "120000"
    dataset.Manufacturer = dataset.ManufacturerModelName = "phantom"
    dataset.DeviceSerialNumber = dataset.SoftwareVersions = "1"
    dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = SPACE, ""
    return dataset


def _disks(number: int, slices: int, size: int) -> list[tuple[int, float, float, float]]:
    """(slice, column, row, radius) of a segment: a ball that fills part of the volume."""
    generator = np.random.default_rng(number)
    half = generator.uniform(0.2, 0.37) * slices
    middle = generator.uniform(half, slices - half)
    column, row = generator.uniform(0.25, 0.75, 2) * size
    radius = generator.uniform(0.03, 0.16) * size
    found = []
    for k in range(slices):
        share = 1 - ((k - middle) / half) ** 2
        if share > 0:
            found.append((k, float(column), float(row), float(radius * np.sqrt(share))))
    return found


def _code(value: str, meaning: str) -> list[Dataset]:
    return [_item(CodeValue=value, CodingSchemeDesignator="SCT", CodeMeaning=meaning)]


def _segmentation(images: Sequence[Dataset], size: int) -> Dataset:
    dataset = _object(images[0], _SEG, "SEG", 1)
    dataset.ImageType, dataset.ContentLabel = ["DERIVED", "PRIMARY"], "PHANTOM"
    dataset.ContentDescription, dataset.ContentCreatorName = "", ""
    dataset.SegmentationType, dataset.LossyImageCompression = "BINARY", "00"
    dataset.SegmentSequence = [
        _item(
            SegmentNumber=k,
            SegmentLabel=f"segment {k:02d}",
            SegmentAlgorithmType="MANUAL",
            SegmentedPropertyCategoryCodeSequence=_code("85756007", "Tissue"),
            SegmentedPropertyTypeCodeSequence=_code("85756007", "Tissue"),
        )
        for k in range(1, SEGMENTS + 1)
    ]
    rows, columns = np.ogrid[:size, :size]
    groups: list[Dataset] = []
    packed = []
    for number in range(1, SEGMENTS + 1):
        for k, column, row, radius in _disks(number, len(images), size):
            mask = (rows - row) ** 2 + (columns - column) ** 2 <= radius**2
            packed.append(np.packbits(mask, bitorder="little"))
            groups.append(_group(images[k], number, len(groups) + 1, k + 1))
    dataset.PerFrameFunctionalGroupsSequence = groups
    dataset.SharedFunctionalGroupsSequence = [
        _item(
            PlaneOrientationSequence=[_item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
            PixelMeasuresSequence=[
                _item(PixelSpacing=images[0].PixelSpacing, SliceThickness=1, SpacingBetweenSlices=1)
            ],
        )
    ]
    organization = f"{SPACE}.9"
    dataset.DimensionOrganizationSequence = [_item(DimensionOrganizationUID=organization)]
    dataset.DimensionIndexSequence = [
        _item(
            DimensionOrganizationUID=organization,
            DimensionIndexPointer=pointer,
            FunctionalGroupPointer=group,
        )
        for pointer, group in ((0x0062000B, 0x0062000A), (0x00200032, 0x00209113))
    ]
    series = _item(
        SeriesInstanceUID=images[0].SeriesInstanceUID,
        ReferencedInstanceSequence=[_reference(image) for image in images],
    )
    dataset.ReferencedSeriesSequence = [series]
    dataset.Rows = dataset.Columns = size
    dataset.NumberOfFrames = len(packed)
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 1
    dataset.HighBit = dataset.PixelRepresentation = 0
    dataset.PixelData = np.concatenate(packed).tobytes()
    dataset["PixelData"].VR = "OB"
    return dataset


def _reference(image: Dataset) -> Dataset:
    return _item(
        ReferencedSOPClassUID=image.SOPClassUID, ReferencedSOPInstanceUID=image.SOPInstanceUID
    )


def _group(image: Dataset, number: int, frame: int, place: int) -> Dataset:
    source = _reference(image)
    source.SpatialLocationsPreserved = "YES"
    source.PurposeOfReferenceCodeSequence = _code("121322", "Source image")
    return _item(
        PlanePositionSequence=[_item(ImagePositionPatient=image.ImagePositionPatient)],
        SegmentIdentificationSequence=[_item(ReferencedSegmentNumber=number)],
        FrameContentSequence=[_item(DimensionIndexValues=[number, place])],
        DerivationImageSequence=[
            _item(
                SourceImageSequence=[source],
                DerivationCodeSequence=_code("113076", "Segmentation"),
            )
        ],
    )


def _structures(images: Sequence[Dataset], size: int) -> Dataset:
    dataset = _object(images[0], _STRUCTURES, "RTSTRUCT", 2)
    dataset.StructureSetLabel, dataset.StructureSetDate = "phantom", "20240101"
    dataset.StructureSetTime = "120000"
    series = _item(
        SeriesInstanceUID=images[0].SeriesInstanceUID,
        ContourImageSequence=[_reference(image) for image in images],
    )
    study = _item(
        ReferencedSOPClassUID="1.2.840.10008.3.1.2.3.1",
        ReferencedSOPInstanceUID=images[0].StudyInstanceUID,
        RTReferencedSeriesSequence=[series],
    )
    dataset.ReferencedFrameOfReferenceSequence = [
        _item(FrameOfReferenceUID=SPACE, RTReferencedStudySequence=[study])
    ]
    numbers = range(1, ORGANS + 1)
    dataset.StructureSetROISequence = [
        _item(
            ROINumber=k,
            ROIName=f"organ {k}",
            ReferencedFrameOfReferenceUID=SPACE,
            ROIGenerationAlgorithm="MANUAL",
        )
        for k in numbers
    ]
    dataset.RTROIObservationsSequence = [
        _item(
            ObservationNumber=k,
            ReferencedROINumber=k,
            RTROIInterpretedType="ORGAN",
            ROIInterpreter="",
        )
        for k in numbers
    ]
    spacing = float(images[0].PixelSpacing[0])
    angle = np.linspace(0, 2 * np.pi, POINTS, endpoint=False)
    dataset.ROIContourSequence = []
    for number in numbers:
        radius = (0.38 if number == 1 else 0.02 + 0.02 * (ORGANS - number)) * size
        contours = []
        for k, image in enumerate(images):
            wave = 1 + 0.1 * np.sin(3 * angle + k / 9)
            u = size * (0.5 if number == 1 else 0.3 + 0.1 * number) + radius * wave * np.cos(angle)
            v = size * 0.5 + radius * wave * np.sin(angle)
            z = float(image.ImagePositionPatient[2])
            places = [
                f"{n:.3f}" for a, b in zip(u, v, strict=True) for n in (a * spacing, b * spacing, z)
            ]
            contours.append(
                _item(
                    ContourGeometricType="CLOSED_PLANAR",
                    NumberOfContourPoints=POINTS,
                    ContourData=places,
                    ContourImageSequence=[_reference(image)],
                )
            )
        dataset.ROIContourSequence.append(
            _item(ROIDisplayColor=[255, 0, 0], ReferencedROINumber=number, ContourSequence=contours)
        )
    return dataset


def _parser() -> argparse.ArgumentParser:
    output = Path("out") / "benchmarks"
    parser = argparse.ArgumentParser(prog="python -m benchmarks.masks", description=__doc__)
    parser.add_argument(
        "--data", type=Path, default=output / "data", help="made once; default: %(default)s"
    )
    parser.add_argument("--slices", type=int, default=200)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--rt-utils",
        default=os.environ.get("DICOMTORCH_RT_UTILS", ""),
        help="interpreter of an environment with rt-utils",
    )
    parser.add_argument("--output", type=Path, help="a JSON file for the numbers")
    return parser


if __name__ == "__main__":
    sys.exit(main())
