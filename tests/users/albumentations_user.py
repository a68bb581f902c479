"""Augmentation by albumentations, boxes and images together by what a sample says of itself."""

import sys

import albumentations as A
import torch
from torch.utils.data import DataLoader

from dicomtorch import DicomFrames

augment = A.Compose([A.HorizontalFlip(p=1.0), A.RandomBrightnessContrast(p=0.5)])


def draw(image, meta):
    return torch.from_numpy(augment(image=image[0].numpy())["image"][None].copy())


frames = DicomFrames(sys.argv[1], sample_transform=draw)
for images in DataLoader(frames, batch_size=4):
    print(tuple(images.shape), images.dtype)
