"""
Clips of cine loops
===================

Sixteen frames that follow each other, from another place of each loop in each epoch; only they are read.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
from make_data import write_cines
from torch.utils.data import DataLoader

from dicomtorch import DicomClips

folder = Path(tempfile.mkdtemp())
write_cines(folder, patients=6)

# %%
# (T, C, H, W), and the times of the frames in milliseconds.
clips = DicomClips(folder / "images", 8, stride=2, clips="random", policy="drop")
clip, meta = clips[0, 4]  # of loop 0, from its fifth frame on
print(clips)
print(clip.shape, [round(float(time)) for time in meta["times"]])

# %%
# Every other frame, with one mapping to display for all of them.
figure, axes = plt.subplots(1, 8, figsize=(14, 2), layout="constrained")
for axis, frame, time in zip(axes, clip, meta["times"], strict=True):
    axis.imshow(frame[0], cmap="gray", vmin=0, vmax=1)
    axis.set_title(f"{time:.0f} ms")
    axis.axis("off")
plt.show()

# %%
# The sampler draws the starts of an epoch; the same seed and epoch give the same ones.
sampler = clips.sampler(seed=0)
for epoch in range(2):
    sampler.set_epoch(epoch)
    for images, meta in DataLoader(clips, batch_size=3, sampler=sampler):
        print(epoch, images.shape, meta["start"].tolist())
