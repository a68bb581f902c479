"""The same with pydicom."""

import sys
from pathlib import Path

import numpy as np
import pydicom
import torch
from monai.data import CacheDataset, DataLoader
from monai.transforms import Compose, RandFlipd, ScaleIntensityRanged
from pydicom.pixels import apply_rescale


def load(path):
    dcm = pydicom.dcmread(path)
    image = torch.from_numpy(apply_rescale(dcm.pixel_array, dcm).astype(np.float32))[None]
    return {"image": image, "Modality": dcm.Modality}


paths = sorted(Path(sys.argv[1]).rglob("*.dcm"))
steps = [ScaleIntensityRanged("image", -1000, 1000, 0, 1, clip=True), RandFlipd("image", 0.5)]
data = CacheDataset(paths, Compose([load, *steps]), progress=False)
for batch in DataLoader(data, batch_size=4):
    print(tuple(batch["image"].shape), batch["Modality"][0])
