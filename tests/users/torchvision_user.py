"""torchvision's loop and its ImageNet recipe: three channels, one mean and deviation a channel, (image, target)."""

import sys

from torch.utils.data import DataLoader
from torchvision.transforms import v2

from dicomtorch import DicomFrames

folder, table = sys.argv[1:]
index = DicomFrames(folder).index.join(table, on={"image_id": "stem"})
mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
data = DicomFrames(
    index,
    size=(64, 64),
    color="rgb",
    normalize=(mean, deviation),
    target="label",
    transform=v2.RandomHorizontalFlip(),
)
for images, labels in DataLoader(data, batch_size=4):
    print(tuple(images.shape), labels.dtype)
