"""`python -m benchmarks.masks`: masks from SEG and RTSTRUCT beside highdicom and rt-utils.

A CT series, a SEG of 20 segments in sparse frames of one bit, and an RTSTRUCT of five organs with 120 points a contour
are written once. Those who are not installed are left out. What others give is compared with ours before it is timed:
highdicom's must be equal, of rt-utils the share of voxels that it has more or less is reported. Files are in the cache
of the system; repeats are interleaved and medians are reported.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

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

Step = Callable[[], Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Makes the files once, checks, times, prints a table, and writes JSON where asked to."""
    options = _parser().parse_args(argv)
    folder = options.data / f"masks-{options.slices}x{options.size}"
    make(folder, options.data, options.slices, options.size)
    index, _ = scan(folder)
    images = index.filter(Modality="CT")
    results: dict[str, Any] = {"settings": {"slices": options.slices, "size": options.size}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what other libraries say while they read
        results["seg"] = seg(folder, images, index, options.repeats)
        results["rtstruct"] = contours(folder, images, index, options.repeats)
        results["frames"] = frames(images, options.repeats)
    for part, rows in results.items():
        for name, value in rows.items():
            if part != "settings":
                shown = f"{1000 * value:12.3f} ms" if not name.startswith("%") else f"{value:12.2f}"
                print(f"{part:10}{name:44}{shown}")
    if options.output:
        options.output.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return 0


def timed(steps: dict[str, Step], repeats: int) -> dict[str, float]:
    """Median seconds of each step."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def seg(folder: Path, images: FrameIndex, index: FrameIndex, repeats: int) -> dict[str, float]:
    """Scanning the SEG, one slice and all slices as label maps."""
    path = folder / "seg.dcm"
    masks = MaskIndex(images, index, kind="seg", overlap="last")
    middle = len(images) // 2
    uid = images.column("SOPInstanceUID")[middle]
    steps: dict[str, Step] = {
        "scan of the file": lambda: scan(path),
        "placing its frames": lambda: MaskIndex(images, index, kind="seg", overlap="last"),
        "dicomtorch, one slice": lambda: masks.mask(middle),
        "dicomtorch, all slices": lambda: [masks.mask(k) for k in range(len(images))],
        "dicomtorch, one slice, 20 channels": lambda: masks.mask(middle, "channels"),
    }
    try:
        highdicom: Any = importlib.import_module("highdicom")
    except ImportError:
        print("highdicom is not installed: not measured")
        return timed(steps, repeats)
    opened = highdicom.seg.segread(path)
    combined = {"combine_segments": True, "skip_overlap_checks": True}
    theirs = opened.get_pixels_by_source_instance([uid], **combined)[0]
    np.testing.assert_array_equal(masks.mask(middle)[0][0], theirs)
    steps["highdicom, open"] = lambda: highdicom.seg.segread(path)
    steps["highdicom, one slice"] = lambda: opened.get_pixels_by_source_instance([uid], **combined)
    uids = images.column("SOPInstanceUID").tolist()
    steps["highdicom, all slices"] = lambda: opened.get_pixels_by_source_instance(uids, **combined)
    found = timed(steps, repeats)
    found["% times as fast, one slice"] = (
        found["highdicom, one slice"] / found["dicomtorch, one slice"]
    )
    return found


def contours(folder: Path, images: FrameIndex, index: FrameIndex, repeats: int) -> dict[str, float]:
    """Five organs on all slices: opened, parsed, filled and painted."""

    def ours() -> Any:
        masks = MaskIndex(images, index, kind="rtstruct")
        return np.stack([masks.mask(k, "channels")[0] for k in range(len(images))], 1)

    steps: dict[str, Step] = {"dicomtorch, five organs": ours}
    try:
        rt_utils: Any = importlib.import_module("rt_utils")
    except ImportError:
        print("rt-utils is not installed: not measured")
        return timed(steps, repeats)

    def theirs() -> Any:
        opened = rt_utils.RTStructBuilder.create_from(
            dicom_series_path=str(folder / "ct"), rt_struct_path=str(folder / "rs.dcm")
        )
        names = sorted(opened.get_roi_names())
        return np.stack([np.moveaxis(opened.get_roi_mask_by_name(n), -1, 0) for n in names])

    steps["rt-utils, five organs"] = theirs
    whole, other = ours(), theirs()
    found = timed(steps, 1)
    found["% times as fast"] = found["rt-utils, five organs"] / found["dicomtorch, five organs"]
    for k in range(ORGANS):
        more = other[k].sum() / whole[k].sum() - 1
        found[f"% voxels that rt-utils has more, organ {k}"] = 100 * float(more)
    return found


def frames(images: FrameIndex, repeats: int) -> dict[str, float]:
    """Milliseconds that a mask adds to a frame of a dataset."""
    plain = DicomFrames(images, values="stored")
    order = np.random.default_rng(0).permutation(len(images)).tolist()

    def epoch(dataset: DicomFrames[Any, Any]) -> Step:
        return lambda: [dataset[k] for k in order]

    def first() -> float:
        masked = DicomFrames(images, values="stored", masks="rtstruct", overlap="last")
        start = time.perf_counter()
        epoch(masked)()
        return time.perf_counter() - start

    several = {
        "SEG, 20 segments": DicomFrames(images, values="stored", masks="seg", overlap="last"),
        "5 structures, kept runs": DicomFrames(
            images, values="stored", masks="rtstruct", overlap="last"
        ),
    }
    for dataset in several.values():
        epoch(dataset)()
    found = timed({"plain": epoch(plain)} | {n: epoch(d) for n, d in several.items()}, repeats)
    base = found.pop("plain") / len(order)
    result = {f"a mask adds: {name}": value / len(order) - base for name, value in found.items()}
    result["a mask adds: 5 structures, first time"] = (
        statistics.median(first() for _ in range(repeats)) / len(order) - base
    )
    return result


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
    parser.add_argument("--output", type=Path, help="a JSON file for the numbers")
    return parser


if __name__ == "__main__":
    sys.exit(main())
