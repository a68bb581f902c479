"""DICOM files that tests write, with pixels that tests know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, generate_uid

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"


def ct_pixels(k: int = 0, rows: int = 24, columns: int = 32) -> np.ndarray[Any, Any]:
    """Signed 16-bit values that differ from slice to slice."""
    rng = np.random.default_rng(k)
    return rng.integers(-1024, 2000, (rows, columns)).astype(np.int16)


def ct(pixels: np.ndarray[Any, Any], k: int = 0, **attributes: Any) -> Dataset:
    """A CT slice (or, with a third axis in front, a multi-frame image) in Explicit VR Little Endian."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = CT_IMAGE_STORAGE
    dataset.SOPClassUID = CT_IMAGE_STORAGE
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=["instance", str(k)])
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=["series"])
    dataset.StudyInstanceUID = generate_uid(entropy_srcs=["study"])
    dataset.PatientID = "patient-1"
    dataset.PatientSex = "F"
    dataset.Modality = "CT"
    dataset.InstanceNumber = k + 1
    dataset.ImagePositionPatient = [0, 0, 2.5 * k]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing = [0.7, 0.8]
    dataset.SliceThickness = 2.5
    dataset.RescaleSlope = 1
    dataset.RescaleIntercept = 0
    dataset.WindowCenter = 40
    dataset.WindowWidth = 400
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.dtype.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    if pixels.ndim == 3:
        dataset.NumberOfFrames = len(pixels)
    dataset.PixelData = pixels.tobytes()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def write(dataset: Dataset, path: Path) -> Path:
    """Writes a conforming Part 10 file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def encapsulated(dataset: Dataset, frames: list[bytes], transfer_syntax_uid: str = JPEG2000Lossless) -> Dataset:
    """The same data set with `frames` as its code streams."""
    dataset.file_meta.TransferSyntaxUID = transfer_syntax_uid
    dataset.PixelData = encapsulate(frames)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return dataset


def write_series(folder: Path, count: int, **attributes: Any) -> list[Path]:
    """A CT series of `count` slices, one file each; slice k has `ct_pixels(k)`."""
    return [write(ct(ct_pixels(k), k, **attributes), folder / f"{k:03d}.dcm") for k in range(count)]
