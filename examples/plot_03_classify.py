"""
Classify, with labels from a CSV file
=====================================

Labels by SOPInstanceUID, patients kept apart, classes drawn equally often.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from make_data import write_xrays
from torch.utils.data import DataLoader

from dicomtorch import BalancedSampler, DicomFrames, check_leakage

folder = Path(tempfile.mkdtemp())
write_xrays(folder)  # images/, and labels.csv: SOPInstanceUID, label

# %%
# ``join`` says how many rows met no frame; what is joined is in ``meta``.
index = DicomFrames(folder / "images").index.join(folder / "labels.csv", on="SOPInstanceUID")
train_index, validation_index = index.split([0.75, 0.25])
print(check_leakage(train_index, validation_index))
train, validation = DicomFrames(train_index), DicomFrames(validation_index)

# %%
# A network of a few layers and a plain ``DataLoader``.
torch.manual_seed(0)
model = torch.nn.Sequential(
    *(torch.nn.Conv2d(1, 16, 5, stride=2), torch.nn.BatchNorm2d(16), torch.nn.ReLU()),
    *(torch.nn.Conv2d(16, 32, 5, stride=2), torch.nn.BatchNorm2d(32), torch.nn.ReLU()),
    *(torch.nn.AdaptiveMaxPool2d(1), torch.nn.Flatten(), torch.nn.Linear(32, 2)),
)
optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
sampler = BalancedSampler(train, by="label", seed=0)
accuracy = 0.0
for epoch in range(4):
    sampler.set_epoch(epoch)
    model.train()
    for images, meta in DataLoader(train, batch_size=8, sampler=sampler):
        loss = torch.nn.functional.cross_entropy(model(images), meta["label"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    images, meta = validation[:]
    accuracy = (model(images).argmax(1) == meta["label"]).float().mean().item()
    print(f"epoch {epoch}  accuracy {accuracy:.2f} of {len(images)}")

# %%
# Images that it was not trained on, with their label and what it says of them.
said = model(images).argmax(1)
figure, axes = plt.subplots(2, 6, figsize=(12, 4.6), layout="constrained")
for axis, k in zip(axes.flat, range(len(images)), strict=False):
    axis.imshow(images[k, 0], cmap="gray", vmin=0, vmax=1)
    axis.set_title(f"label {meta['label'][k]}, found {said[k]}", fontsize=10)
    axis.axis("off")
plt.show()
assert accuracy > 0.8
