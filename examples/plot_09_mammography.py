"""
Mammograms, small and in patches
================================

Twelve megapixels for a network that sees 512 x 512: decode no more than that, and draw patches at full resolution.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from make_data import identity, image, save
from matplotlib.patches import Rectangle
from torch.nn.functional import interpolate

from dicomtorch import DicomFrames, DicomPatches

folder = Path(tempfile.mkdtemp())
generator = np.random.default_rng(0)
y, x = np.mgrid[:4000, :3000]
breast = (x / 2200) ** 2 + ((y - 2000) / 1800) ** 2 < 1
pixels = generator.normal(1500, 60, (4000, 3000))
for fine in (2, 6, 20, 70):  # tissue at four scales
    noise = torch.from_numpy(generator.normal(0, 1, (1, 1, 4 * fine, 3 * fine)))
    pixels += 700 / fine**0.7 * interpolate(noise, (4000, 3000), mode="bicubic")[0, 0].numpy()
pixels += 1100 / (1 + np.exp((np.hypot(x - 900, y - 1700) - 140) / 12))  # a mass
pixels *= breast
one = image(
    pixels.clip(0, 4095).astype(np.uint16),
    "1.2.840.10008.5.1.4.1.1.1.2",
    "mammogram",
    Modality="MG",
    WindowCenter=2000,
    WindowWidth=2400,
    **identity(0),
)
one.BitsStored, one.HighBit = 12, 11
save(one, folder / "mammogram.dcm")

# %%
# ``decode="reduced"`` takes means of blocks here, and of HTJ2K, JPEG 2000 and JPEG only what their codecs keep for a
# small picture.
exact = DicomFrames(folder, size=(512, 512))
small = DicomFrames(folder, size=(512, 512), decode="reduced")
image_exact, _ = exact[0]
image_small, meta = small[0]
print("decoded at 1 /", int(meta["resized"][-1]), " difference, root mean square, of 255:")
print(f"{255 * float(((image_exact - image_small) ** 2).mean().sqrt()):.3f}")

# %%
# Patches at full resolution, half of them around what is bright.
patches = DicomPatches(folder, (512, 512), per_frame=4, foreground=1.0, seed=0)
figure, axes = plt.subplots(1, 5, figsize=(14, 3.2), layout="constrained")
axes[0].imshow(image_small[0], cmap="gray")
axes[0].set_title("512 x 512 of it")
scale, top, left = (float(number) for number in meta["resized"][:3])
for axis, k in zip(axes[1:], range(4), strict=True):
    patch, meta = patches[k]
    row, column = (int(number) for number in meta["window"][:2])
    axis.imshow(patch[0], cmap="gray", vmin=0, vmax=1)
    axis.set_title(f"row {row}, column {column}")
    corner = (left + scale * column, top + scale * row)
    box = Rectangle(corner, scale * 512, scale * 512, fill=False, edgecolor="tab:orange")
    axes[0].add_patch(box)
for axis in axes:
    axis.axis("off")
plt.show()
