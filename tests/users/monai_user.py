"""MONAI's dictionaries, cached after the deterministic part, augmented at random, in its own loader."""

import sys

from monai.data import CacheDataset, DataLoader
from monai.transforms import Compose, RandFlipd, ScaleIntensityRanged

from dicomtorch import DicomFrames

frames = DicomFrames(sys.argv[1], values="modality")
steps = [ScaleIntensityRanged("image", -1000, 1000, 0, 1, clip=True), RandFlipd("image", 0.5)]
data = CacheDataset(frames.as_dicts(image="image"), Compose(steps), progress=False)
for batch in DataLoader(data, batch_size=4):
    print(tuple(batch["image"].shape), batch["Modality"][0])
