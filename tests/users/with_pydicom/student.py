"""The same with pydicom."""

import sys

import matplotlib.pyplot as plt
import numpy as np
import pydicom
from pydicom.pixels import apply_rescale

path, picture = sys.argv[1:]
dcm = pydicom.dcmread(path)
values = apply_rescale(dcm.pixel_array, dcm).astype(np.float32)
print(dcm.PatientSex, values.shape, values.min().item(), values.max().item())
center, width = -600, 1500
low = center - 0.5 - (width - 1) / 2
shown = np.clip((values - low) / (width - 1), 0, 1)
if dcm.PhotometricInterpretation == "MONOCHROME1":
    shown = 1 - shown
plt.imsave(picture, shown, cmap="gray", vmin=0, vmax=1)
print(round(shown.mean().item(), 4))
