"""
Windows, and what the numbers are
=================================

The same CT slice with its own window, with two that are named, and as Hounsfield units.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
from make_data import write_ct

from dicomtorch import DicomFrames

folder = Path(tempfile.mkdtemp())
write_ct(folder, patients=1, size=128)

# %%
# Display values are in [0, 1], bright is high; ``window=`` is (center, width) in Hounsfield units, or a name.
shown = {
    "no window in the file": DicomFrames(folder),
    'window="lung"': DicomFrames(folder, window="lung"),
    "window=(40, 400)": DicomFrames(folder, window=(40, 400)),
    'values="modality" (HU)': DicomFrames(folder, values="modality"),
}
figure, axes = plt.subplots(1, 4, figsize=(14, 3.6), layout="constrained")
for axis, (title, frames) in zip(axes, shown.items(), strict=True):
    image, meta = frames[12]
    drawn = axis.imshow(image[0], cmap="gray")
    axis.set_title(title)
    axis.axis("off")
    figure.colorbar(drawn, ax=axis, shrink=0.8)
plt.show()

# %%
# Two windows become two channels, and normalization by numbers comes last.
image, meta = DicomFrames(folder, window=["lung", (40, 400)], normalize=([0.5, 0.5], [0.25, 0.25]))[
    12
]
print(image.shape, meta["voi"], float(image.min()), float(image.max()))
