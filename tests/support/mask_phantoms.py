"""SEG and RTSTRUCT files that tests write, beside the images of `phantoms`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

from tests.support.phantoms import ct, write

SEG_STORAGE = "1.2.840.10008.5.1.4.1.1.66.4"
LABELMAP_STORAGE = "1.2.840.10008.5.1.4.1.1.66.7"
STRUCTURES = "1.2.840.10008.5.1.4.1.1.481.3"
SPACE = generate_uid(entropy_srcs=["frame of reference"])


def series(
    folder: Path,
    count: int = 4,
    shape: tuple[int, int] = (12, 16),
    spacing: float = 2.0,
    **more: Any,
) -> list[Dataset]:
    """CT slices in one frame of reference, from z = 0 upwards; pixels of 1 mm."""
    slices = []
    for k in range(count):
        pixels = (np.arange(shape[0] * shape[1]).reshape(shape) + k).astype(np.int16)
        attributes: dict[str, Any] = {
            "FrameOfReferenceUID": SPACE,
            "PixelSpacing": [1, 1],
            "ImagePositionPatient": [0, 0, spacing * k],
            "SliceThickness": spacing,
        }
        attributes |= {name: value(k) if callable(value) else value for name, value in more.items()}
        dataset = ct(pixels, k, **attributes)
        write(dataset, folder / f"ct{k:03}.dcm")
        slices.append(dataset)
    return slices


def item(**attributes: Any) -> Dataset:
    """An item of a sequence."""
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def code(value: str, meaning: str, scheme: str = "SCT") -> Dataset:
    return item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def object_like(like: Dataset, sop_class: str, modality: str, name: str) -> Dataset:
    """A data set of another class, of the patient and study of an image."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = UID(sop_class)
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=["object", name])
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=["series", name])
    dataset.StudyInstanceUID = like.StudyInstanceUID
    dataset.PatientID = like.PatientID
    dataset.Modality = modality
    return dataset


def segmentation(
    path: Path,
    slices: Sequence[Dataset],
    frames: Sequence[tuple[int, Any, Any]],
    *,
    names: Sequence[str] = ("first", "second", "third"),
    kind: str = "BINARY",
    references: Sequence[Any] | None = None,
    edit: Any = None,
    **attributes: Any,
) -> Path:
    """A SEG.

    Args:
        path: Where to.
        slices: Its source images.
        frames: (segment number, slice or position, pixels) each.
        names: Of the segments that there are.
        kind: "BINARY", "FRACTIONAL" or "LABELMAP".
        references: For each frame the image that it names (a number of a slice, or with a frame number), or `None`.
        edit: Called with the data set before it is written.
        attributes: Further ones.
    """
    like = slices[0]
    sop_class = LABELMAP_STORAGE if kind == "LABELMAP" else SEG_STORAGE
    dataset = object_like(like, sop_class, "SEG", path.name)
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    if "FrameOfReferenceUID" in like:
        dataset.FrameOfReferenceUID = like.FrameOfReferenceUID
    dataset.SegmentationType = kind
    dataset.ContentDate, dataset.ContentTime = "20240101", "120000"
    first = 0 if kind == "LABELMAP" and names[0] == "background" else 1
    dataset.SegmentSequence = [
        item(
            SegmentNumber=k,
            SegmentLabel=name,
            SegmentAlgorithmType="MANUAL",
            SegmentedPropertyCategoryCodeSequence=[code("123037004", "Anatomical structure")],
            SegmentedPropertyTypeCodeSequence=[code(f"{1000 + k}", f"thing {k}")],
        )
        for k, name in enumerate(names, first)
    ]
    pixels = np.stack([np.asarray(frame[2]) for frame in frames])
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.PixelRepresentation = 0
    bits = 1 if kind == "BINARY" else 8
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit = bits - 1
    if kind == "FRACTIONAL":
        dataset.MaximumFractionalValue, dataset.SegmentationFractionalType = 255, "PROBABILITY"
    orientation, spacing = like.ImageOrientationPatient, like.PixelSpacing
    dataset.SharedFunctionalGroupsSequence = [
        item(
            PlaneOrientationSequence=[item(ImageOrientationPatient=orientation)],
            PixelMeasuresSequence=[item(PixelSpacing=spacing, SliceThickness=1)],
        )
    ]
    groups = []
    for k, (number, where, _) in enumerate(frames):
        place = slices[where].ImagePositionPatient if isinstance(where, int) else list(where)
        group = item(PlanePositionSequence=[item(ImagePositionPatient=place)])
        if kind != "LABELMAP":
            group.SegmentIdentificationSequence = [item(ReferencedSegmentNumber=number)]
        named = references[k] if references is not None else None
        if named is not None:
            group.DerivationImageSequence = [item(SourceImageSequence=[_reference(slices, named)])]
        groups.append(group)
    dataset.PerFrameFunctionalGroupsSequence = groups
    if bits == 1:
        packed = np.packbits(pixels.reshape(-1).astype(np.uint8), bitorder="little").tobytes()
        dataset.PixelData = packed + b"\0" * (len(packed) % 2)
    else:
        data = pixels.astype(np.uint8).tobytes()
        dataset.PixelData = data + b"\0" * (len(data) % 2)
    dataset["PixelData"].VR = "OB"
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    if edit is not None:
        edit(dataset)
    return write(dataset, path)


def _reference(slices: Sequence[Dataset], named: Any) -> Dataset:
    number, frame = named if isinstance(named, tuple) else (named, 0)
    source = slices[number]
    result = item(
        ReferencedSOPClassUID=source.SOPClassUID, ReferencedSOPInstanceUID=source.SOPInstanceUID
    )
    if frame:
        result.ReferencedFrameNumber = frame
    return result


def structures(
    path: Path,
    slices: Sequence[Dataset],
    rois: Sequence[tuple[str, Sequence[Any]]],
    *,
    kind: str = "CLOSED_PLANAR",
    space: str | None = None,
    names_images: bool = True,
    edit: Any = None,
) -> Path:
    """An RTSTRUCT.

    Args:
        path: Where to.
        slices: Its images.
        rois: (name, contours) each; a contour is (slice, [(column, row), ...]), or [(x, y, z), ...] in millimetres.
        kind: Contour Geometric Type of all.
        space: Its frame of reference, that of the images if not given.
        names_images: Whether contours name their slice.
        edit: Called with the data set before it is written.
    """
    like = slices[0]
    dataset = object_like(like, STRUCTURES, "RTSTRUCT", path.name)
    dataset.StructureSetLabel = "test"
    dataset.StructureSetDate, dataset.StructureSetTime = "20240101", "120000"
    uid = space or like.get("FrameOfReferenceUID", "")
    dataset.ReferencedFrameOfReferenceSequence = [
        item(
            FrameOfReferenceUID=uid,
            RTReferencedStudySequence=[
                item(
                    ReferencedSOPClassUID="1.2.840.10008.3.1.2.3.1",
                    ReferencedSOPInstanceUID=like.StudyInstanceUID,
                    RTReferencedSeriesSequence=[item(SeriesInstanceUID=like.SeriesInstanceUID)],
                )
            ],
        )
    ]
    dataset.StructureSetROISequence = [
        item(
            ROINumber=number,
            ROIName=name,
            ReferencedFrameOfReferenceUID=uid,
            ROIGenerationAlgorithm="MANUAL",
        )
        for number, (name, _) in enumerate(rois, 1)
    ]
    dataset.ROIContourSequence = []
    for number, (_, contours) in enumerate(rois, 1):
        roi = item(ReferencedROINumber=number)
        if contours:
            roi.ContourSequence = [_contour(slices, each, kind, names_images) for each in contours]
        dataset.ROIContourSequence.append(roi)
    if edit is not None:
        edit(dataset)
    return write(dataset, path)


def _contour(slices: Sequence[Dataset], given: Any, kind: str, names_image: bool) -> Dataset:
    number = None
    if isinstance(given, tuple) and isinstance(given[0], int):
        number, points = given
        places = [to_patient(slices[number], u, v) for u, v in points]
    else:
        places = given
    contour = item(
        ContourGeometricType=kind,
        NumberOfContourPoints=len(places),
        ContourData=[f"{x:.6f}".rstrip("0").rstrip(".")[:16] for place in places for x in place],
    )
    if names_image and number is not None:
        contour.ContourImageSequence = [_reference(slices, number)]
    return contour


def to_patient(image: Dataset, u: float, v: float) -> Any:
    """Millimetres of a place (column, row) on an image."""
    row, column = np.array(image.ImageOrientationPatient, float).reshape(2, 3)
    between_rows, between_columns = map(float, image.PixelSpacing)
    origin = np.array(image.ImagePositionPatient, float)
    return origin + row * between_columns * u + column * between_rows * v


def square(low: float, high: float) -> list[tuple[float, float]]:
    """A square contour."""
    return [(low, low), (high, low), (high, high), (low, high)]


def slide(folder: Path, tile: int) -> Dataset:
    """A microscopy image of 50 x 50 pixels in tiles."""
    many = 50 // tile
    pixels = np.arange(many * many * tile * tile, dtype=np.int16).reshape(-1, tile, tile) % 200
    dataset = ct(pixels.astype(np.uint8), 7, Modality="SM", FrameOfReferenceUID=SPACE)
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        del dataset[keyword]
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.77.1.6"
    dataset.file_meta.MediaStorageSOPClassUID = UID(dataset.SOPClassUID)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    dataset.TotalPixelMatrixColumns = dataset.TotalPixelMatrixRows = 50
    dataset.DimensionOrganizationType = "TILED_FULL"
    dataset.NumberOfOpticalPaths = 1
    dataset.TotalPixelMatrixFocalPlanes = 1
    dataset.ImageOrientationSlide = [0, 1, 0, 1, 0, 0]
    dataset.OpticalPathSequence = [item(OpticalPathIdentifier="1")]
    dataset.TotalPixelMatrixOriginSequence = [
        item(XOffsetInSlideCoordinateSystem=0, YOffsetInSlideCoordinateSystem=0)
    ]
    dataset.SharedFunctionalGroupsSequence = [
        item(PixelMeasuresSequence=[item(PixelSpacing=[0.001, 0.001], SliceThickness=0.01)])
    ]
    write(dataset, folder / "slide.dcm")
    return dataset
