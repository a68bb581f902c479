"""
2.5D: a slice with its neighbours
=================================

The slices before and after each one as channels, by position and not by file name.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
from make_data import write_ct

from dicomtorch import DicomFrames, FrameLoader

folder = Path(tempfile.mkdtemp())
write_ct(folder, patients=2, slices=12)

# %%
# (2k + 1) channels of one frame with one mapping to display; ``meta`` is that of the slice in the middle.
frames = DicomFrames(folder, values="modality", context=1, context_edge="reflect")
image, meta = frames[5]
print(image.shape, meta["ImagePositionPatient"])

# %%
# Below, above and the slice itself.
figure, axes = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained")
for axis, channel, title in zip(axes, image, ("before", "the slice", "after"), strict=True):
    axis.imshow(channel, cmap="gray", vmin=-1000, vmax=500)
    axis.set_title(title)
    axis.axis("off")
plt.show()

# %%
# Batches are what a 2-D network with three input channels takes.
images, meta = next(iter(FrameLoader(frames, batch_size=8, shuffle=True)))
print(images.shape)
