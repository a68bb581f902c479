"""The data: CT-like phantoms with noise, the same stored values in every transfer syntax."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

RESCALE_INTERCEPT = -1024
WINDOW_CENTER, WINDOW_WIDTH = 40, 400
SEED = 1

Stored = npt.NDArray[np.uint16]


@dataclass(frozen=True)
class Syntax:
    """How one copy of the phantoms is stored.

    Attributes:
        name: Of its folder and its rows in the tables.
        uid: Transfer Syntax UID.
        encode: Stored values to the code stream of a frame; `None` for native data.
        bits_stored: As the encoder writes it.
        signed: Pixel Representation; CT scanners write both.
    """

    name: str
    uid: str
    encode: Callable[[Stored], bytes] | None
    bits_stored: int = 12
    signed: bool = False


def _jpeg_lossless(stored: Stored) -> bytes:
    return bytes(imagecodecs.jpeg8_encode(stored, lossless=True, predictor=1, bitspersample=12))


def _jpeg_ls(stored: Stored) -> bytes:
    return bytes(imagecodecs.jpegls_encode(stored))


def _jpeg_2000(stored: Stored) -> bytes:
    return bytes(
        imagecodecs.jpeg2k_encode(
            stored, level=0, codecformat="j2k", reversible=True, bitspersample=12
        )
    )


def _rle(stored: Stored) -> bytes:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    _describe_pixels(dataset, stored, bits_stored=16, signed=False)
    dataset.PixelData = stored.tobytes()
    dataset.compress(RLELossless, encoding_plugin="pydicom")
    return get_frame(dataset.PixelData, 0, number_of_frames=1)


SYNTAXES = {
    syntax.name: syntax
    for syntax in (
        Syntax("uncompressed", ExplicitVRLittleEndian, None, bits_stored=16, signed=True),
        Syntax("rle", RLELossless, _rle),
        Syntax("jpeg_lossless", JPEGLosslessSV1, _jpeg_lossless),
        Syntax("jpeg_ls", JPEGLSLossless, _jpeg_ls, bits_stored=16),
        Syntax("jpeg_2000", JPEG2000Lossless, _jpeg_2000),
    )
}


def phantom(number: int, size: int) -> Stored:
    """A slice: air, a body of water with two lungs and a spine, and noise as in a chest CT; 12 bits."""
    rng = np.random.default_rng((SEED, number))
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    shift = rng.uniform(-0.05, 0.05, 2)

    def ellipse(cx: float, cy: float, rx: float, ry: float) -> npt.NDArray[np.bool_]:
        inside: npt.NDArray[np.bool_] = ((x - cx - shift[0]) / rx) ** 2 + (
            (y - cy - shift[1]) / ry
        ) ** 2 < 1
        return inside

    hounsfield: npt.NDArray[np.float64] = np.full((size, size), -1000.0)
    hounsfield[ellipse(0, 0, 0.85, 0.65)] = 20
    hounsfield[ellipse(-0.38, -0.05, 0.28, 0.42)] = -850
    hounsfield[ellipse(0.38, -0.05, 0.28, 0.42)] = -850
    hounsfield[ellipse(0, 0.42, 0.11, 0.12)] = 600
    noise = rng.normal(0, 20, hounsfield.shape)
    stored: Stored = np.clip(np.rint(hounsfield + noise) - RESCALE_INTERCEPT, 0, 4095).astype("u2")
    return stored


def modality_values(stored: Stored) -> npt.NDArray[np.float32]:
    """Hounsfield units, (H, W)."""
    return stored.astype(np.float32) + np.float32(RESCALE_INTERCEPT)


def display_values(stored: Stored) -> npt.NDArray[np.float64]:
    """The file's window, VOI LUT function LINEAR (PS3.3 C.11.2.1.2.1), in [0, 1]."""
    hounsfield = stored.astype(np.float64) + RESCALE_INTERCEPT
    scaled = (hounsfield - (WINDOW_CENTER - 0.5)) / (WINDOW_WIDTH - 1) + 0.5
    return np.clip(scaled, 0, 1)


def make(root: Path, syntax: Syntax, count: int, size: int) -> list[Path]:
    """The files of one syntax, written unless an earlier run has done so."""
    folder = root / f"{count}x{size}" / syntax.name
    paths = [folder / f"{number:05d}.dcm" for number in range(count)]
    folder.mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(paths):
        if not path.exists():
            part = path.with_suffix(".part")
            _dataset(syntax, phantom(number, size), number).save_as(part, enforce_file_format=True)
            part.replace(path)
    return paths


def _dataset(syntax: Syntax, stored: Stored, number: int) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax.uid)
    dataset.SOPClassUID = CTImageStorage
    series = f"1.2.826.0.1.3680043.8.498.{list(SYNTAXES).index(syntax.name) + 1}"
    dataset.SOPInstanceUID = f"{series}.{number + 1}"
    dataset.SeriesInstanceUID = series
    dataset.StudyInstanceUID = "1.2.826.0.1.3680043.8.498"
    dataset.PatientID = "phantom"
    dataset.Modality = "CT"
    dataset.InstanceNumber = number + 1
    dataset.ImagePositionPatient = [0, 0, number]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing = [0.7, 0.7]
    dataset.SliceThickness = 1
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, RESCALE_INTERCEPT
    dataset.WindowCenter, dataset.WindowWidth = WINDOW_CENTER, WINDOW_WIDTH
    _describe_pixels(dataset, stored, bits_stored=syntax.bits_stored, signed=syntax.signed)
    if syntax.encode is None:
        dataset.PixelData = stored.tobytes()
    else:
        dataset.PixelData = encapsulate([syntax.encode(stored)])
    dataset["PixelData"].VR = "OW" if syntax.encode is None else "OB"
    return dataset


def _describe_pixels(dataset: Any, stored: Stored, *, bits_stored: int, signed: bool) -> None:
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.BitsAllocated = 16
    dataset.BitsStored, dataset.HighBit = bits_stored, bits_stored - 1
    dataset.PixelRepresentation = int(signed)
