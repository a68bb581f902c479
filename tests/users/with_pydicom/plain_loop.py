"""The same with pydicom."""

import sys
from pathlib import Path

import numpy as np
import pydicom
import torch
from pydicom.errors import InvalidDicomError
from pydicom.pixels import apply_rescale
from torch.utils.data import DataLoader, Dataset


class Frames(Dataset):
    def __init__(self, folder):
        self.places = []
        for path in sorted(Path(folder).rglob("*")):
            try:
                header = pydicom.dcmread(path, stop_before_pixels=True)
            except (InvalidDicomError, IsADirectoryError, PermissionError):
                continue
            if "Rows" in header:
                self.places += [(path, k) for k in range(int(header.get("NumberOfFrames", 1)))]

    def __len__(self):
        return len(self.places)

    def __getitem__(self, i):
        path, k = self.places[i]
        dcm = pydicom.dcmread(path)
        pixels = dcm.pixel_array
        pixels = pixels[k] if int(dcm.get("NumberOfFrames", 1)) > 1 else pixels
        return torch.from_numpy(apply_rescale(pixels, dcm).astype(np.float32))[None]


for images in DataLoader(Frames(sys.argv[1]), batch_size=4):
    print(tuple(images.shape), round(images.mean().item(), 3))
