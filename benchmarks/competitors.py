"""What people write today with each library, as short and as fast as it usually is, and the same with this package.

A library that is not installed is imported when it is first asked, so that its absence is a row of the results.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import io
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import SimpleITK
import torch
from pydicom.pixels.utils import pixel_array
from torch.utils.data import Dataset

from benchmarks.data import WINDOW_CENTER, WINDOW_WIDTH
from dicomtorch import DicomFrames, FrameIndex

Values = npt.NDArray[np.float32]
Reader = Callable[[int], Values]


class NotOffered(Exception):
    """The library has no way of doing this, or none that ends in time."""


@dataclass(frozen=True)
class Item:
    """One frame.

    Attributes:
        path: Of the DICOM file.
        frame: Within it; -1 for the only one of a CT file.
        converted: The same without a suffix, where its `.npy` and `.png` are.
    """

    path: Path
    frame: int
    converted: Path


def pydicom_modality(path: Path) -> Values:
    """`dcmread`, `pixel_array`, rescale."""
    dataset = pydicom.dcmread(path)
    return _rescaled(dataset, dataset.pixel_array)


def simpleitk_modality(path: Path) -> Values:
    """`ReadImage`, which rescales."""
    image = SimpleITK.ReadImage(str(path), SimpleITK.sitkFloat32)
    values: Values = SimpleITK.GetArrayFromImage(image)[0]
    return values


def monai_modality(path: Path) -> Values:
    """`LoadImage` with its `PydicomReader`, which rescales; (rows, columns) as everywhere else."""
    image: Values = _monai_loader()(str(path)).numpy()[0]
    return image


@functools.cache
def _monai_loader() -> Any:
    with contextlib.redirect_stderr(io.StringIO()):
        data: Any = importlib.import_module("monai.data")
        transforms: Any = importlib.import_module("monai.transforms")
    return transforms.LoadImage(
        reader=data.PydicomReader(swap_ij=False), image_only=True, ensure_channel_first=True
    )


def torchio_modality(path: Path) -> Values:
    """`ScalarImage(path).data`, which is (1, columns, rows, 1)."""
    torchio: Any = importlib.import_module("torchio")
    image = torchio.ScalarImage(path).data
    return np.array(image[0, :, :, 0].numpy().T, np.float32, order="C")


def highdicom_modality(path: Path) -> Values:
    """`imread` with lazy frames, then `get_frame`, which rescales."""
    image = _highdicom().imread(path, lazy_frame_retrieval=True)
    values: Values = image.get_frame(1, dtype=np.float32)
    return values


@functools.cache
def _highdicom() -> Any:
    import highdicom

    logging.getLogger("highdicom").setLevel(logging.ERROR)  # of ICC profiles, for each frame
    return highdicom


def dicomsdl_modality(path: Path) -> Values:
    """`open`, `pixelData`, rescale."""
    import dicomsdl

    dataset = dicomsdl.open(str(path))
    return _rescaled(dataset, dataset.pixelData(storedvalue=True))


def fastdicom_modality(path: Path) -> Values:
    """`dcmread`, `pixel_array`, rescale."""
    fastdicom: Any = importlib.import_module("fastdicom")
    dataset = fastdicom.dcmread(str(path))
    return _rescaled(dataset, dataset.pixel_array)


def _rescaled(dataset: Any, stored: npt.NDArray[Any]) -> Values:
    values = stored.astype(np.float32)
    values *= float(dataset.RescaleSlope)
    values += float(dataset.RescaleIntercept)
    return values


MODALITY: dict[str, Callable[[Path], Values]] = {
    "pydicom": pydicom_modality,
    "SimpleITK": simpleitk_modality,
    "MONAI": monai_modality,
    "TorchIO": torchio_modality,
    "highdicom": highdicom_modality,
    "dicomsdl": dicomsdl_modality,
    "fastdicom": fastdicom_modality,
}


def pydicom_frame(path: Path, frame: int) -> npt.NDArray[np.uint8]:
    """`pixel_array(path, index=)`, which decodes that frame only."""
    found: npt.NDArray[np.uint8] = pixel_array(path, index=frame)
    return found


def highdicom_frame(path: Path, frame: int) -> npt.NDArray[np.uint8]:
    """`imread` with lazy frames, then `get_stored_frame`; the file is opened for each, as datasets do."""
    image = _highdicom().imread(path, lazy_frame_retrieval=True)
    found: npt.NDArray[np.uint8] = image.get_stored_frame(frame + 1)
    return found


def dicomsdl_frame(path: Path, frame: int) -> npt.NDArray[np.uint8]:
    """`open`, `pixelData(frame)`."""
    import dicomsdl

    found: npt.NDArray[np.uint8] = dicomsdl.open(str(path)).pixelData(frame)
    return found


def simpleitk_frame(path: Path, frame: int) -> npt.NDArray[np.uint8]:
    """`ImageFileReader` with an extraction, which decodes the whole file all the same."""
    reader: Any = SimpleITK.ImageFileReader()  # type: ignore[no-untyped-call]
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    columns, rows = reader.GetSize()[:2]
    reader.SetExtractSize([columns, rows, 0])
    reader.SetExtractIndex([0, 0, frame])
    found: npt.NDArray[np.uint8] = SimpleITK.GetArrayFromImage(reader.Execute())
    return found


def reads_whole_files(path: Path, frame: int) -> npt.NDArray[np.uint8]:
    """For libraries that have no way to one frame."""
    raise NotOffered("it reads whole files only")


FRAME: dict[str, Callable[[Path, int], npt.NDArray[np.uint8]]] = {
    "pydicom": pydicom_frame,
    "SimpleITK": simpleitk_frame,
    "MONAI": reads_whole_files,
    "TorchIO": reads_whole_files,
    "highdicom": highdicom_frame,
    "dicomsdl": dicomsdl_frame,
    "fastdicom": reads_whole_files,
}


def windowed(values: Values) -> Values:
    """Display values in place: the file's window, LINEAR (PS3.3 C.11.2.1.2.1), in [0, 1]."""
    values -= WINDOW_CENTER - 0.5
    values /= WINDOW_WIDTH - 1
    values += 0.5
    return np.clip(values, 0, 1, out=values)


def display(library: str, item: Item) -> Values:
    """What one library makes of a frame: display values, float32 (C, H, W) in [0, 1]."""
    if library == "npy":
        stored = np.load(item.converted.with_suffix(".npy"))
        return _channels(stored) if stored.ndim == 3 else windowed(stored.astype(np.float32))[None]
    if library == "png":
        from PIL import Image

        return _channels(np.asarray(Image.open(item.converted.with_suffix(".png"))))
    if item.frame < 0:
        return windowed(MODALITY[library](item.path))[None]
    return _channels(FRAME[library](item.path, item.frame))


def _channels(image: npt.NDArray[np.uint8]) -> Values:
    planes = image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
    values = planes.astype(np.float32, order="C")
    values /= 255
    return values


class FrameDataset(Dataset[Any]):
    """A map-style dataset as most projects have it: one frame, one window, one dict."""

    def __init__(self, library: str, items: Sequence[Item]) -> None:
        self.library = library
        self.items = list(items)

    def __len__(self) -> int:
        """Frames."""
        return len(self.items)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, dict[str, int]]:
        """Display values, float32 (C, H, W) in [0, 1]."""
        return torch.from_numpy(display(self.library, self.items[i])), {"index": i}


LIBRARIES = tuple(MODALITY)
MAY_END_THE_PROCESS = ("dicomsdl", "fastdicom")
CONVERTED = ("npy", "png")


def items_of(index: FrameIndex, *, cine: bool) -> list[Item]:
    """The frames of an index, in its order."""
    found = []
    for i, frame in enumerate(index.column("frame").tolist()):
        path = Path(index.path(i))
        name = path.parent / "converted" / f"{path.stem}-{frame}"
        found.append(Item(path, frame if cine else -1, name))
    return found


def convert(index: FrameIndex, items: Sequence[Item], *, cine: bool) -> None:
    """Writes what a preprocessed copy would be: HU as int16 `.npy`, or RGB; display values as 8-bit PNG."""
    from PIL import Image

    values = DicomFrames(index, values="stored" if cine else "modality")
    shown = DicomFrames(index)
    for i, item in enumerate(items):
        target = item.converted.with_suffix(".npy")
        if target.exists() and item.converted.with_suffix(".png").exists():
            continue
        target.parent.mkdir(exist_ok=True)
        image = values[i][0].numpy()
        picture = np.rint(shown[i][0].numpy() * 255).astype(np.uint8)
        np.save(target, image.transpose(1, 2, 0) if cine else image[0].astype(np.int16))
        picture = picture.transpose(1, 2, 0) if cine else picture[0]
        Image.fromarray(picture).save(item.converted.with_suffix(".png"), compress_level=1)


def survives(library: str, items: Sequence[Item]) -> None:
    """Reads everything in a process of its own first, because some libraries end the process on some files.

    Raises:
        NotOffered: They did, or refused.
    """
    if importlib.util.find_spec(library) is None:
        raise NotOffered(f"No module named {library!r}")
    listed = json.dumps([[str(item.path), item.frame] for item in items])
    command = [sys.executable, "-m", "benchmarks.competitors", library]
    done = subprocess.run(command, input=listed, text=True, capture_output=True, check=False)
    if done.returncode < 0:
        raise NotOffered(f"ends the process with signal {-done.returncode}")
    if done.returncode:
        raise NotOffered((done.stderr.strip() or "fails").splitlines()[-1])


if __name__ == "__main__":
    for listed_path, listed_frame in json.load(sys.stdin):
        display(sys.argv[1], Item(Path(listed_path), listed_frame, Path()))
