"""
Look at a folder
================

What is below a folder, before anything is trained on it. The files that come with pydicom stand for yours.
"""

import matplotlib.pyplot as plt
from pydicom.data import get_testdata_file

from dicomtorch import DicomFrames

names = [
    "CT_small.dcm",
    "MR_small.dcm",
    "JPEG2000.dcm",
    "examples_ybr_color.dcm",
    "liver_1frame.dcm",
]
frames = DicomFrames([str(get_testdata_file(name)) for name in names])

# %%
# The folder is scanned once, into an index; after that a frame is one read and one decode.
print(frames)
print(frames.report)

# %%
# ``frames[i]`` is a tensor (C, H, W), and a plain dict without names, dates and free text.
image, meta = frames[0]
print(image.shape, image.dtype, float(image.min()), float(image.max()))
print({key: meta[key] for key in ("Modality", "Rows", "PixelSpacing", "SliceThickness", "voi")})

# %%
# A picture of some frames, as training sees them.
picture = frames.show_batch([0, 1, 2, 12, 33], columns=5, tile=160)
plt.figure(figsize=(10, 2.3), layout="constrained")
plt.imshow(picture, cmap="gray")
plt.axis("off")
plt.show()
