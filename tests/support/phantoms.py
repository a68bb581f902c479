"""DICOM files that tests write, with pixels that tests know."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEG2000Lossless, generate_uid
from torch.utils.data import DataLoader

from dicomtorch import DicomFrames, FrameIndex, ScanReport, scan
from dicomtorch.index.builder import FileRows

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
    dataset.file_meta.MediaStorageSOPClassUID = UID(CT_IMAGE_STORAGE)
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
    if dataset.file_meta.TransferSyntaxUID.is_transfer_syntax:
        dataset.save_as(path, enforce_file_format=True)
    else:  # newer than pydicom
        dataset.preamble = b"\0" * 128
        dataset.save_as(path, implicit_vr=False, little_endian=True, force_encoding=True)
    return path


def encapsulated(
    dataset: Dataset, frames: list[bytes], transfer_syntax_uid: str = JPEG2000Lossless
) -> Dataset:
    """The same data set with `frames` as its code streams."""
    dataset.file_meta.TransferSyntaxUID = UID(transfer_syntax_uid)
    dataset.PixelData = encapsulate(frames)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return dataset


def write_series(folder: Path, count: int, **attributes: Any) -> list[Path]:
    """A CT series of `count` slices, one file each; slice k has `ct_pixels(k)`."""
    return [write(ct(ct_pixels(k), k, **attributes), folder / f"{k:03d}.dcm") for k in range(count)]


def image(
    stored: np.ndarray[Any, Any], syntax: str = ExplicitVRLittleEndian, **attributes: Any
) -> Dataset:
    """A gray image that says nothing of what its values mean, but what `attributes` say; one row if `stored` is 1-D."""
    if stored.dtype.kind == "f":
        name = "FloatPixelData" if stored.dtype.itemsize == 4 else "DoubleFloatPixelData"
        attributes = {name: stored.tobytes(), **attributes}
    dataset = ct(stored[None] if stored.ndim == 1 else stored)
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    for keyword in ("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth", "Modality"):
        delattr(dataset, keyword)
    if stored.dtype.kind == "f":
        for keyword in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
            delattr(dataset, keyword)
    if "BitsStored" in attributes:
        dataset.HighBit = attributes["BitsStored"] - 1
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    if "PixelData" in dataset:
        dataset["PixelData"].VR = "OB" if dataset.BitsAllocated <= 8 else "OW"
    return dataset


def lut(
    descriptor: list[int], entries: list[int] | bytes, vr: str = "OW", descriptor_vr: str = "US"
) -> Dataset:
    """An item of a Modality or VOI LUT Sequence."""
    item = Dataset()
    item.add_new("LUTDescriptor", descriptor_vr, descriptor)
    data = entries if isinstance(entries, bytes) else np.array(entries, "<u2").tobytes()
    item.add_new("LUTData", vr, data)
    return item


def group(**attributes: Any) -> Dataset:
    """An item of a sequence."""
    item = Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return item


def file_rows(path: str, number: int, count: int = 1, **columns: Any) -> FileRows:
    """What a scan would have learned of a file of `count` frames, which need not exist."""
    given = {
        "frame": list(range(count)),
        "offset": [500 + 10 * k for k in range(count)],
        "length": 10,
        "SOPInstanceUID": f"1.{number}",
        **columns,
    }
    return FileRows(path.encode(), 600, 17, number, "image", count=count, columns=given)


@dataclass(frozen=True)
class Reading:
    """What came out of a file, the same in every way of reading it.

    Attributes:
        index: As scanned.
        report: Of the scan.
        images: (frames, channels, rows, columns), float64.
        meta: Of each frame.
    """

    index: FrameIndex
    report: ScanReport
    images: np.ndarray[Any, Any]
    meta: list[dict[str, Any]]

    @property
    def flat(self) -> np.ndarray[Any, Any]:
        """The pixels of the first frame, channel after channel."""
        flat: np.ndarray[Any, Any] = self.images[0].reshape(-1)
        return flat

    @property
    def notices(self) -> str:
        """What the report says was odd."""
        return "; ".join(finding.reason for finding in self.report.findings)


def every_way(path: Path, **options: Any) -> Reading:
    """Reads all frames one by one, as a batch, and by a `DataLoader`: of a fresh index, and of one that was stored."""
    index, report = scan(path)
    frames = DicomFrames(index, **options)
    samples = [frames[i] for i in range(len(frames))]
    images = torch.stack([image for image, _ in samples])
    stored = DicomFrames(path, **options)
    (loaded,) = DataLoader(stored, batch_size=len(stored))
    for batch, meta in (stored[list(range(len(stored)))], loaded):
        assert batch.dtype == images.dtype
        np.testing.assert_array_equal(batch.numpy(), images.numpy())
        assert list(meta["voi"]) == [one["voi"] for _, one in samples]
        for key in ("WindowCenter", "WindowWidth", "RescaleSlope"):
            np.testing.assert_array_equal(meta[key].numpy(), [one[key] for _, one in samples])
    return Reading(index, report, images.numpy().astype(np.float64), [dict(m) for _, m in samples])


def close(received: Any, expected: Any, tolerance: float = 1.5e-6) -> None:
    """Compares with numbers that were rounded to six digits."""
    np.testing.assert_allclose(np.ravel(received), np.ravel(expected), rtol=0, atol=tolerance)
