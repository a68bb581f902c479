"""What people write today, as short and as fast as it usually is, and the same with this package."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import SimpleITK
import torch
from torch.utils.data import Dataset

from benchmarks.data import WINDOW_CENTER, WINDOW_WIDTH
from dicomtorch import DicomFrames, FrameIndex

Reader = Callable[[int], npt.NDArray[np.float32]]


def pydicom_modality(path: Path) -> npt.NDArray[np.float32]:
    """`dcmread`, `pixel_array`, rescale."""
    dataset = pydicom.dcmread(path)
    slope, intercept = float(dataset.RescaleSlope), float(dataset.RescaleIntercept)
    values: npt.NDArray[np.float32] = dataset.pixel_array.astype(np.float32)
    values *= slope
    values += intercept
    return values


def simpleitk_modality(path: Path) -> npt.NDArray[np.float32]:
    """`ReadImage`, which rescales."""
    image = SimpleITK.ReadImage(str(path), SimpleITK.sitkFloat32)
    values: npt.NDArray[np.float32] = SimpleITK.GetArrayFromImage(image)[0]
    return values


def readers(paths: Sequence[Path], index: FrameIndex) -> dict[str, Reader]:
    """For each competitor: position -> modality values, float32 (H, W), read from its file."""
    frames = DicomFrames(index, values="modality")
    return {
        "dicomtorch": lambda i: np.asarray(frames[i][0][0]),
        "pydicom": lambda i: pydicom_modality(paths[i]),
        "SimpleITK": lambda i: simpleitk_modality(paths[i]),
    }


class PlainDataset(Dataset[Any]):
    """A map-style dataset as most projects have it: one file, one window, one channel."""

    def __init__(
        self, paths: Sequence[Path], read: Callable[[Path], npt.NDArray[np.float32]]
    ) -> None:
        self.paths = list(paths)
        self.read = read

    def __len__(self) -> int:
        """Files."""
        return len(self.paths)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, dict[str, int]]:
        """Display values, float32 (1, H, W) in [0, 1]."""
        values = self.read(self.paths[i])
        values -= WINDOW_CENTER - 0.5
        values /= WINDOW_WIDTH - 1
        values += 0.5
        np.clip(values, 0, 1, out=values)
        return torch.from_numpy(values)[None], {"index": i}


def datasets(paths: Sequence[Path], index: FrameIndex) -> dict[str, Dataset[Any]]:
    """For each competitor a dataset of display values."""
    return {
        "dicomtorch": DicomFrames(index),
        "pydicom": PlainDataset(paths, pydicom_modality),
        "SimpleITK": PlainDataset(paths, simpleitk_modality),
    }
