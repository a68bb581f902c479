"""The data: CT-like phantoms with noise in every transfer syntax, speckle as in ultrasound, X-ray.

Everything is written once, below the folder given.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    UltrasoundMultiFrameImageStorage,
)

from benchmarks.scan import FILLING, PRIVATE, VALUES

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


def _htj2k(stored: Stored) -> bytes:
    return bytes(imagecodecs.htj2k_encode(stored, reversible=True))


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
        Syntax("htj2k", HTJ2KLossless, _htj2k, bits_stored=16),
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
    folder = root / f"ct-{count}x{size}" / syntax.name
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
    _fill(dataset)
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


def _fill(dataset: Dataset) -> None:
    """The two hundred elements that a scanner writes besides; a bare header would flatter those who parse it all."""
    for keyword in FILLING:
        if keyword != "GantryDetectorTilt":
            setattr(dataset, keyword, VALUES[dictionary_VR(keyword)])
    for group, count in ((0x0019, 60), (0x0021, 40), (0x0029, 30), (0x0051, 20)):
        block = dataset.private_block(group, "BENCHMARK", create=True)
        for k in range(count):
            block.add_new(k, *PRIVATE[k % len(PRIVATE)])


def _describe_pixels(dataset: Any, stored: Stored, *, bits_stored: int, signed: bool) -> None:
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.BitsAllocated = 16
    dataset.BitsStored, dataset.HighBit = bits_stored, bits_stored - 1
    dataset.PixelRepresentation = int(signed)


def speckle(number: int, rows: int, columns: int) -> npt.NDArray[np.uint8]:
    """A sector of ultrasound: log-compressed speckle of the width of a beam, 8 bits."""
    rng = np.random.default_rng((SEED, 7, number))
    field = rng.normal(size=(2, rows, columns))
    waves = np.fft.fft2(field[0] + 1j * field[1])
    beam = np.exp(
        -((np.fft.fftfreq(rows)[:, None] / 0.12) ** 2) - (np.fft.fftfreq(columns) / 0.06) ** 2
    )
    echo = np.abs(np.fft.ifft2(waves * beam))
    y, x = np.mgrid[0:rows, 0:columns]
    inside = (np.abs(np.arctan2(x - columns / 2, y + 1)) < 0.6) & (y < 0.97 * rows)
    gray = np.clip(90 + 22 * np.log(echo / echo.mean() + 1e-3), 0, 255)
    return np.where(inside, gray, 0).astype(np.uint8)


def colour(number: int, rows: int, columns: int) -> npt.NDArray[np.uint8]:
    """The same as RGB, with a box of colour Doppler."""
    image = np.repeat(speckle(number, rows, columns)[..., None], 3, 2)
    top, left = rows // 3 + number % 5, columns // 3
    box = image[top : top + rows // 4, left : left + columns // 4]
    box[..., 0] = np.minimum(box[..., 0].astype(int) * 2, 255)
    box[..., 2] //= 2
    return image


def xray(number: int, size: int) -> Stored:
    """A thorax in transmission: smooth, 12 bits, with the noise of its quanta."""
    rng = np.random.default_rng((SEED, 9, number))
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    counts = 2800 - 1800 * np.exp(-(x**2 + y**2) * 1.5) + 200 * np.sin(x * 9)
    stored: Stored = np.clip(rng.normal(counts, np.sqrt(counts) * 0.35), 0, 4095).astype("u2")
    return stored


def cines(root: Path, files: int, frames: int, rows: int, columns: int) -> list[Path]:
    """Colour JPEG loops without an offset table, as many devices write them."""
    folder = root / f"cine-{files}x{frames}x{rows}x{columns}"
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:03d}.dcm" for number in range(files)]
    for number, path in enumerate(paths):
        if not path.exists():
            part = path.with_suffix(".part")
            _cine(number, frames, rows, columns).save_as(part, enforce_file_format=True)
            part.replace(path)
    return paths


def _cine(number: int, frames: int, rows: int, columns: int) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset.SOPClassUID = UltrasoundMultiFrameImageStorage
    study = "1.2.826.0.1.3680043.8.498.77"
    dataset.SOPInstanceUID = f"{study}.1.{number + 1}"
    dataset.SeriesInstanceUID, dataset.StudyInstanceUID = f"{study}.1", study
    dataset.PatientID = "phantom"
    dataset.Modality = "US"
    dataset.InstanceNumber = number + 1
    dataset.FrameTime = 33.3
    dataset.SamplesPerPixel, dataset.PlanarConfiguration = 3, 0
    dataset.PhotometricInterpretation = "YBR_FULL_422"
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = frames, rows, columns
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.LossyImageCompression = "01"
    few = [colour(1000 * number + k, rows, columns) for k in range(min(frames, 16))]
    streams = [bytes(imagecodecs.jpeg8_encode(one, level=90, subsampling="422")) for one in few]
    dataset.PixelData = encapsulate([streams[k % len(few)] for k in range(frames)], has_bot=False)
    dataset["PixelData"].VR = "OB"
    return dataset


def tree(root: Path, files: int) -> Path:
    """Many small files, a hundred a folder; only their UIDs differ, so that a hundred thousand are made in seconds."""
    folder = root / f"tree-{files}"
    if (folder / "complete").exists():
        return folder
    buffer = io.BytesIO()
    dataset = _dataset(SYNTAXES["uncompressed"], phantom(0, 32), 0)
    dataset.SOPInstanceUID = "1.2.826.0.1.3680043.8.498.1.1000000000"
    dataset.save_as(buffer, enforce_file_format=True)
    template = buffer.getvalue()
    for number in range(files):
        if number % 100 == 0:
            (folder / f"{number // 100:05d}").mkdir(parents=True, exist_ok=True)
        content = template.replace(b".1.1000000000", b".1.1%09d" % number)
        (folder / f"{number // 100:05d}" / f"{number % 100:02d}.dcm").write_bytes(content)
    (folder / "complete").touch()
    return folder
