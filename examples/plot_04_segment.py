"""
Masks from SEG and RTSTRUCT
===========================

Half of these patients have their organ in a SEG, half in an RTSTRUCT; both become masks on the pixels of the image.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from make_data import write_segments
from segment import UNet, dice, loss_of

from dicomtorch import BalancedSampler, DicomFrames, FrameLoader

folder = Path(tempfile.mkdtemp())
write_segments(folder, patients=12)

# %%
# Samples are (image, mask, meta): (1, H, W) float32 in Hounsfield units, (1, H, W) uint8, and a dict.
index = DicomFrames(folder).index.images()
train, validation = (
    DicomFrames(part, masks=True, labels=["organ"], values="modality")
    for part in index.split([0.7, 0.3])
)
image, mask, meta = train[4]
print(image.shape, mask.dtype, meta["mask_area"])
figure, axes = plt.subplots(1, 4, figsize=(12, 3.2), layout="constrained")
for axis, i in zip(axes, range(2, 34, 8), strict=False):
    image, mask, meta = train[i]
    axis.imshow(image[0], cmap="gray", vmin=-150, vmax=350)
    axis.contour(mask[0], levels=[0.5], colors="tab:orange")
    axis.set_title(f"{int(meta['mask_area'][0])} pixels of organ")
    axis.axis("off")
plt.show()

# %%
# A small U-Net (``segment.py`` beside this file, a whole training script); half of what is drawn has the organ.
torch.manual_seed(0)
model = UNet(labels=1, width=8)
optimizer = torch.optim.AdamW(model.parameters(), 8e-3)
loader = FrameLoader(train, 8, sampler=BalancedSampler(train, by=train.masks.has("organ"), seed=0))
for epoch in range(14):
    loader.set_epoch(epoch)
    for images, masks, _ in loader:
        loss = loss_of(model(images), masks[:, 0].long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

# %%
# Dice on patients that were not trained on.
score = dice(model, FrameLoader(validation, 8))
print(f"Dice {score:.2f}")
assert score > 0.7
