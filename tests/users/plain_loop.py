"""A plain loop over everything in a folder: the mean Hounsfield unit of each batch of four."""

import sys

from torch.utils.data import DataLoader

from dicomtorch import DicomFrames

frames = DicomFrames(sys.argv[1], values="modality")
for images, _ in DataLoader(frames, batch_size=4):
    print(tuple(images.shape), round(images.mean().item(), 3))
