"""The same with pydicom."""

import csv
import random
import sys
from pathlib import Path

import numpy as np
import pydicom
import torch
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from torch.utils.data import DataLoader, Dataset, WeightedRandomSampler

folder, table = sys.argv[1:]
with open(table, newline="") as file:
    labels_of = {row["image_id"]: int(row["label"]) for row in csv.DictReader(file)}
paths = {path.stem: path for path in Path(folder).rglob("*.dcm")}
patients = {}
for stem in labels_of:
    header = pydicom.dcmread(paths[stem], stop_before_pixels=True)
    patients.setdefault(header.PatientID, []).append(stem)
names = sorted(patients)
random.Random(0).shuffle(names)
cut = round(0.6 * len(names))
train = [stem for name in names[:cut] for stem in patients[name]]
validation = [stem for name in names[cut:] for stem in patients[name]]


class Images(Dataset):
    def __init__(self, stems):
        self.stems = stems

    def __len__(self):
        return len(self.stems)

    def __getitem__(self, i):
        dcm = pydicom.dcmread(paths[self.stems[i]])
        values = apply_voi_lut(apply_modality_lut(dcm.pixel_array, dcm), dcm).astype(np.float32)
        low, high = values.min(), values.max()
        image = torch.from_numpy((values - low) / max(high - low, 1e-6))[None, None]
        if dcm.PhotometricInterpretation == "MONOCHROME1":
            image = 1 - image
        height, width = image.shape[2:]
        side = max(height, width)
        image = torch.nn.functional.pad(image, (0, side - width, 0, side - height))
        image = torch.nn.functional.interpolate(image, (64, 64), mode="bilinear", antialias=True)
        return image[0].expand(3, -1, -1), labels_of[self.stems[i]]


data = Images(train)
counts = np.bincount([labels_of[stem] for stem in train])
sampler = WeightedRandomSampler([1 / counts[labels_of[stem]] for stem in train], len(train))
network = torch.nn.Sequential(
    torch.nn.Conv2d(3, 2, 5), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
)
for images, labels in DataLoader(data, batch_size=4, sampler=sampler):
    torch.nn.functional.cross_entropy(network(images), labels).backward()
print(len(train) + len(validation), tuple(images.shape[1:]), labels.dtype)
