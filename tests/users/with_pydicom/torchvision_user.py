"""The same with pydicom."""

import csv
import sys
from pathlib import Path

import numpy as np
import pydicom
import torch
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

folder, table = sys.argv[1:]
with open(table, newline="") as file:
    rows = [(row["image_id"], int(row["label"])) for row in csv.DictReader(file)]
paths = {path.stem: path for path in Path(folder).rglob("*.dcm")}
steps = v2.Compose(
    [
        v2.Resize((64, 64), antialias=True),
        v2.RandomHorizontalFlip(),
        v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ]
)


class Images(Dataset):
    def __len__(self):
        return len(rows)

    def __getitem__(self, i):
        stem, label = rows[i]
        dcm = pydicom.dcmread(paths[stem])
        values = apply_voi_lut(apply_modality_lut(dcm.pixel_array, dcm), dcm).astype(np.float32)
        low, high = values.min(), values.max()
        image = torch.from_numpy((values - low) / max(high - low, 1e-6))[None]
        image = 1 - image if dcm.PhotometricInterpretation == "MONOCHROME1" else image
        return steps(image.expand(3, -1, -1)), label


for images, labels in DataLoader(Images(), batch_size=4):
    print(tuple(images.shape), labels.dtype)
