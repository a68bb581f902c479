"""Writes small synthetic studies for the other examples: `python examples/make_data.py xrays|cines|ct|segments FOLDER`.

Nothing here is needed to use the package; the examples run on your files as they run on these.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

Pixels = npt.NDArray[Any]


def image(pixels: Pixels, sop_class_uid: str, name: str, **attributes: Any) -> Dataset:
    """A data set of one image, or of several frames; `name` makes its UIDs."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = sop_class_uid
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=["image", name])
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.dtype.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    if pixels.ndim == 3:
        dataset.NumberOfFrames = len(pixels)
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OW" if pixels.dtype.itemsize > 1 else "OB"
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def identity(patient: int, series: int = 0) -> dict[str, str]:
    """Whose image it is."""
    return {
        "PatientID": f"patient-{patient:03d}",
        "StudyInstanceUID": generate_uid(entropy_srcs=["study", str(patient)]),
        "SeriesInstanceUID": generate_uid(entropy_srcs=["series", f"{patient} {series}"]),
    }


def blob(center: Pixels, radius: float, shape: tuple[int, ...]) -> Pixels:
    """1 inside a soft ball of any dimension, 0 outside."""
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
    distance = np.linalg.norm(grid - center, axis=-1)
    return np.asarray(1 / (1 + np.exp(2 * (distance - radius))))


def inside(grid: Pixels, center: tuple[float, float], radii: tuple[float, float]) -> Pixels:
    """Where an ellipse is, by its (row, column) in parts of half of the picture."""
    moved = (grid - np.array(center)[:, None, None]) / np.array(radii)[:, None, None]
    return np.asarray((moved**2).sum(axis=0) < 1)


def lungs_of(size: int, part: float = 1.0) -> Pixels:
    """Where the lungs of `chest` are, or a part of them around their middles."""
    grid = np.mgrid[-1 : 1 : 1j * size, -1 : 1 : 1j * size]
    radii = (0.52 * part, 0.34 * part)
    return inside(grid, (-0.03, -0.46), radii) | inside(grid, (-0.03, 0.46), radii)


def chest(size: int) -> Pixels:
    """A slice through a chest, in Hounsfield units."""
    grid = np.mgrid[-1 : 1 : 1j * size, -1 : 1 : 1j * size]
    pixels = np.full((size, size), -1000.0)
    for row, radii, value in (
        *((0.0, (0.78, 0.96), -100), (0.0, (0.71, 0.89), 40)),  # fat, and what it is around
        *((0.52, (0.14, 0.13), 450), (0.52, (0.05, 0.05), 60)),  # a vertebra
    ):
        pixels[inside(grid, (row, 0), radii)] = value
    return np.where(lungs_of(size), -850, pixels)


def write_xrays(folder: Path, patients: int = 40, images: int = 3, size: int = 48) -> None:
    """X-rays of chests with or without a bright spot; `labels.csv` says which (SOPInstanceUID, label)."""
    rng = np.random.default_rng(0)
    rows = [("SOPInstanceUID", "label")]
    slice_, places = chest(size), np.argwhere(lungs_of(size, 0.7))
    ribs = 12 * np.sin(np.arange(size) * 32 * np.pi / size)[:, None] * (slice_ > -1000)
    for patient in range(patients):
        for k in range(images):
            label = int(rng.random() < 0.4)
            pixels = 10 + 110 * (slice_ > -1000) - 50 * lungs_of(size) + ribs
            pixels += rng.normal(0, 8, (size, size)) + rng.normal(0, 10)
            pixels += label * 90 * blob(rng.choice(places), 0.09 * size, (size, size))
            dataset = image(
                np.clip(pixels, 0, 255).astype(np.uint8),
                "1.2.840.10008.5.1.4.1.1.1.1",
                f"xray {patient} {k}",
                Modality="DX",
                InstanceNumber=k + 1,
                **identity(patient),
            )
            save(dataset, folder / "images" / f"{patient:03d}-{k}.dcm")
            rows.append((dataset.SOPInstanceUID, str(label)))
    write_table(folder / "labels.csv", rows)


def write_cines(folder: Path, patients: int = 32, frames: int = 24, size: int = 32) -> None:
    """Loops of a spot that goes right or left; `labels.csv` says which (SOPInstanceUID, right)."""
    rng = np.random.default_rng(0)
    rows = [("SOPInstanceUID", "right")]
    for patient in range(patients):
        right = patient % 2
        speed, phase, row = rng.uniform(0.6, 1.4), rng.uniform(0, size), rng.uniform(8, size - 8)
        pixels = rng.normal(60, 12, (frames, size, size))
        for k in range(frames):
            column = (phase + (speed if right else -speed) * k) % size
            pixels[k] += 150 * blob(np.array([row, column]), 4, (size, size))
        dataset = image(
            np.clip(pixels, 0, 255).astype(np.uint8),
            "1.2.840.10008.5.1.4.1.1.3.1",
            f"cine {patient}",
            Modality="US",
            FrameTime=33.3,
            **identity(patient),
        )
        save(dataset, folder / "images" / f"{patient:03d}.dcm")
        rows.append((dataset.SOPInstanceUID, str(right)))
    write_table(folder / "labels.csv", rows)


def apart(rng: np.random.Generator, size: int, slices: int) -> list[Pixels]:
    """Eight places (slice, row, column) in the lungs, as far from each other as some tries find them."""
    places, found = np.argwhere(lungs_of(size, 0.65)), [np.zeros(3)]
    for _ in range(8):
        tries = np.column_stack([rng.uniform(4, slices - 4, 40), rng.choice(places, 40)])
        distances = np.linalg.norm(tries[:, None] - np.array(found), axis=-1).min(axis=1)
        found.append(tries[distances.argmax()])
    return found[1:]


def write_ct(folder: Path, patients: int = 8, slices: int = 24, size: int = 64) -> None:
    """CT series of chests with nodules; `candidates.csv` has places in mm (SeriesInstanceUID, x, y, z, nodule)."""
    rng = np.random.default_rng(0)
    rows = [("SeriesInstanceUID", "x", "y", "z", "nodule")]
    spacing = np.array([2.5, 0.8, 0.7])  # between slices, rows, columns
    origin = np.array([-100.0, -30.0, -25.0])
    slice_ = chest(size)
    for patient in range(patients):
        volume = slice_ + rng.normal(0, 25, (slices, size, size))
        whose = identity(patient)
        for k, center in enumerate(apart(rng, size, slices)):
            nodule = k % 2
            volume += nodule * 850 * blob(center, 3, volume.shape)
            z, y, x = origin + spacing * center
            rows.append(
                (whose["SeriesInstanceUID"], f"{x:.3f}", f"{y:.3f}", f"{z:.3f}", str(nodule))
            )
        for k in range(slices):
            dataset = image(
                np.clip(volume[k] + 1024, 0, 4095).astype(np.int16),
                "1.2.840.10008.5.1.4.1.1.2",
                f"ct {patient} {k}",
                Modality="CT",
                InstanceNumber=k + 1,
                FrameOfReferenceUID=generate_uid(entropy_srcs=["frame", str(patient)]),
                ImagePositionPatient=[origin[2], origin[1], origin[0] + spacing[0] * k],
                ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
                PixelSpacing=[spacing[1], spacing[2]],
                SliceThickness=spacing[0],
                RescaleSlope=1,
                RescaleIntercept=-1024,
                RescaleType="HU",
                **whose,
            )
            save(dataset, folder / "images" / f"{patient:03d}" / f"{k:03d}.dcm")
    write_table(folder / "candidates.csv", rows)


def write_segments(folder: Path, patients: int = 20, slices: int = 8, size: int = 48) -> None:
    """CT series of an organ, with its mask as SEG or, for every other patient, as RTSTRUCT."""
    rng = np.random.default_rng(0)
    for patient in range(patients):
        whose = identity(patient)
        space = generate_uid(entropy_srcs=["frame", str(patient)])
        grid = np.mgrid[-1 : 1 : 1j * size, -1 : 1 : 1j * size]
        body = np.full((size, size), -900.0)
        for radius, value in ((0.9, -100), (0.82, 20)):  # fat, and what it is around
            body[inside(grid, (0, 0), (radius, radius))] = value
        body[inside(grid, (0.64, 0), (0.13, 0.13))] = 300  # a vertebra
        center, radius = rng.uniform(0.38 * size, 0.62 * size, 2), rng.uniform(6, 9)
        images, outlines, masks = [], [], []
        for k in range(slices):
            half = radius * np.sqrt(max(0.0, 1 - ((k - slices / 2) / (slices / 3)) ** 2))
            turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)
            outline = center + half * np.stack([0.8 * np.sin(turn), np.cos(turn)], axis=1)
            rows, columns = np.mgrid[:size, :size] - center[:, None, None]
            mask = (rows / 0.8) ** 2 + columns**2 <= half**2
            pixels = np.where(mask, 90, body) + rng.normal(0, 15, (size, size))
            dataset = image(
                (pixels + 1024).astype(np.int16),
                "1.2.840.10008.5.1.4.1.1.2",
                f"segments {patient} {k}",
                Modality="CT",
                InstanceNumber=k + 1,
                FrameOfReferenceUID=space,
                ImagePositionPatient=[0, 0, 3 * k],
                ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
                PixelSpacing=[1, 1],
                SliceThickness=3,
                RescaleSlope=1,
                RescaleIntercept=-1024,
                RescaleType="HU",
                **whose,
            )
            save(dataset, folder / "images" / f"{patient:03d}" / f"{k:03d}.dcm")
            images.append(dataset)
            if half > 0:
                masks.append((k, mask))
                outlines.append((k, outline))
        made = structure_set(images, outlines) if patient % 2 else segmentation(images, masks)
        save(made, folder / "images" / f"{patient:03d}" / "mask.dcm")


def item(**attributes: Any) -> Dataset:
    """An item of a sequence."""
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def segmentation(images: list[Dataset], masks: list[tuple[int, Pixels]]) -> Dataset:
    """A SEG of one segment: a frame of one bit a pixel for each (slice, mask)."""
    like, bits = images[0], np.stack([mask for _, mask in masks]).astype(np.uint8)
    dataset = image(
        bits,
        "1.2.840.10008.5.1.4.1.1.66.4",
        f"seg {like.PatientID}",
        Modality="SEG",
        SegmentationType="BINARY",
        FrameOfReferenceUID=like.FrameOfReferenceUID,
        PatientID=like.PatientID,
        StudyInstanceUID=like.StudyInstanceUID,
        SeriesInstanceUID=generate_uid(entropy_srcs=["seg series", like.PatientID]),
        SegmentSequence=[item(SegmentNumber=1, SegmentLabel="organ")],
        SharedFunctionalGroupsSequence=[
            item(
                PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
                PixelMeasuresSequence=[item(PixelSpacing=[1, 1], SliceThickness=3)],
                SegmentIdentificationSequence=[item(ReferencedSegmentNumber=1)],
            )
        ],
        PerFrameFunctionalGroupsSequence=[
            item(
                PlanePositionSequence=[
                    item(ImagePositionPatient=images[k].ImagePositionPatient),
                ]
            )
            for k, _ in masks
        ],
    )
    dataset.BitsAllocated = dataset.BitsStored = 1
    dataset.HighBit = 0
    packed = np.packbits(bits.ravel(), bitorder="little").tobytes()
    dataset.PixelData = packed + b"\0" * (len(packed) % 2)
    dataset.NumberOfFrames = len(masks)
    return dataset


def structure_set(images: list[Dataset], outlines: list[tuple[int, Pixels]]) -> Dataset:
    """An RTSTRUCT of one ROI: a closed contour (row, column) for each slice."""
    like = images[0]
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.481.3"
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=["structures", like.PatientID])
    dataset.Modality, dataset.PatientID = "RTSTRUCT", like.PatientID
    dataset.StudyInstanceUID = like.StudyInstanceUID
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=["structures series", like.PatientID])
    dataset.StructureSetROISequence = [
        item(ROINumber=1, ROIName="Organ", ReferencedFrameOfReferenceUID=like.FrameOfReferenceUID)
    ]
    contours = [
        item(
            ContourGeometricType="CLOSED_PLANAR",
            NumberOfContourPoints=len(outline),
            ContourData=[f"{number:.2f}" for v, u in outline for number in (u, v, 3 * k)],
            ContourImageSequence=[
                item(
                    ReferencedSOPClassUID=like.SOPClassUID,
                    ReferencedSOPInstanceUID=images[k].SOPInstanceUID,
                )
            ],
        )
        for k, outline in outlines
    ]
    dataset.ROIContourSequence = [item(ReferencedROINumber=1, ContourSequence=contours)]
    return dataset


def save(dataset: Dataset, path: Path) -> None:
    """Writes a file, and the folder for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def write_table(path: Path, rows: list[Any]) -> None:
    """Writes a CSV file."""
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


if __name__ == "__main__":
    writers = {
        "xrays": write_xrays,
        "cines": write_cines,
        "ct": write_ct,
        "segments": write_segments,
    }
    if len(sys.argv) != 3 or sys.argv[1] not in writers:
        sys.exit(__doc__)
    writers[sys.argv[1]](Path(sys.argv[2]))
