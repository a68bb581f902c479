"""A competitor with a CSV file of image_id and label: patients kept apart, balanced batches, three channels."""

import sys

import torch
from torch.utils.data import DataLoader

from dicomtorch import BalancedSampler, DicomFrames

folder, table = sys.argv[1:]
index = DicomFrames(folder).index.join(table, on={"image_id": "stem"})
train, validation = index.split([0.6, 0.4])
assert not {*train.column("PatientID")} & {*validation.column("PatientID")}
data = DicomFrames(train, size=(64, 64), color="rgb", target="label")
network = torch.nn.Sequential(
    torch.nn.Conv2d(3, 2, 5), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
)
for images, labels in DataLoader(data, batch_size=4, sampler=BalancedSampler(data, by="label")):
    torch.nn.functional.cross_entropy(network(images), labels).backward()
print(len(train) + len(validation), tuple(images.shape[1:]), labels.dtype)
