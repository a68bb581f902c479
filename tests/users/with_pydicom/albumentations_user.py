"""The same with pydicom."""

import sys
from pathlib import Path

import albumentations as A
import numpy as np
import pydicom
import torch
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from torch.utils.data import DataLoader, Dataset

augment = A.Compose([A.HorizontalFlip(p=1.0), A.RandomBrightnessContrast(p=0.5)])


class Frames(Dataset):
    def __init__(self, folder):
        self.paths = sorted(Path(folder).rglob("*.dcm"))

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        dcm = pydicom.dcmread(self.paths[i])
        values = apply_voi_lut(apply_modality_lut(dcm.pixel_array, dcm), dcm).astype(np.float32)
        low, high = values.min(), values.max()
        values = (values - low) / max(high - low, 1e-6)
        if dcm.PhotometricInterpretation == "MONOCHROME1":
            values = 1 - values
        return torch.from_numpy(augment(image=values)["image"][None].copy())


for images in DataLoader(Frames(sys.argv[1]), batch_size=4):
    print(tuple(images.shape), images.dtype)
