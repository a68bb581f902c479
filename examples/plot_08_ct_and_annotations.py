"""
CT volumes and annotations in one dataset
=========================================

What takes chapters with loops over files: candidates in millimetres, crops around them, a cache, balanced batches, a
validation that shares no patient. The table has a row for each candidate: SeriesInstanceUID, x, y, z in mm (LPS), and
whether it is a nodule.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from make_data import write_ct

from dicomtorch import (
    BalancedSampler,
    DicomCrops,
    DicomFrames,
    DicomVolumes,
    FrameLoader,
    patient_to_voxel,
)

folder = Path(tempfile.mkdtemp())
write_ct(folder)

# %%
# Patients apart, then a crop of (slices, rows, columns) around each candidate of theirs. Only the slices that a crop
# touches are read; slices that are expensive to decode stay decoded in ``cache``.
parts = DicomFrames(folder / "images").index.split([0.75, 0.25])
table, kept = folder / "candidates.csv", folder / "cache"
train, validation = (
    DicomCrops(part, table, (6, 12, 12), values="modality", absent="drop", cache=kept)
    for part in parts
)
crop, meta = train[1]
print(crop.shape, meta["nodule"], meta["point"])

# %%
# The same place in the whole volume: millimetres to voxels by its affine.
series = parts[0].filter(SeriesInstanceUID=meta["SeriesInstanceUID"])
volume, whole = DicomVolumes(series, values="modality")[0]
slice_, row, column = patient_to_voxel([meta["point"]], whole["affine"])[0].round().astype(int)
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 4), layout="constrained")
left.imshow(volume[0, slice_], cmap="gray", vmin=-1000, vmax=500)
left.plot(column, row, "s", markersize=48, fillstyle="none", color="tab:orange")
left.set_title(f"slice {slice_} of the volume")
right.imshow(crop[0, 3], cmap="gray", vmin=-1000, vmax=500)
right.set_title(f"the crop, {tuple(crop.shape)}")
for axis in (left, right):
    axis.axis("off")
plt.show()

# %%
# As many nodules as others in the batches, although tables of candidates have few.
loader = FrameLoader(train, 8, sampler=BalancedSampler(train, by="nodule", seed=0))
torch.manual_seed(0)
model = torch.nn.Sequential(
    *(torch.nn.Conv3d(1, 16, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool3d(2)),
    *(torch.nn.Conv3d(16, 32, 3, padding=1), torch.nn.ReLU()),
    *(torch.nn.AdaptiveMaxPool3d(1), torch.nn.Flatten(), torch.nn.Linear(32, 2)),
)
optimizer = torch.optim.AdamW(model.parameters(), 4e-3)
for epoch in range(8):
    loader.set_epoch(epoch)
    for crops, meta in loader:
        loss = torch.nn.functional.cross_entropy(model(crops / 1000 + 1), meta["nodule"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

# %%
# Sensitivity and precision on patients that the network has not seen.
crops, meta = validation[:]
found, nodule = model(crops / 1000 + 1).argmax(1) == 1, meta["nodule"] == 1
print(
    f"sensitivity {(found & nodule).sum() / nodule.sum():.2f}, precision {(found & nodule).sum() / found.sum():.2f}"
)
assert (found == nodule).float().mean() > 0.8
