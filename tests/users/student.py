"""A student with one file: whose it is, Hounsfield units, a picture with the lung window."""

import sys

import matplotlib.pyplot as plt

from dicomtorch import DicomFrames

path, picture = sys.argv[1:]
image, meta = DicomFrames(path, values="modality", tags=["PatientSex"])[0]
print(meta["PatientSex"], tuple(image.shape[1:]), image.min().item(), image.max().item())
shown, _ = DicomFrames(path, window="lung")[0]
plt.imsave(picture, shown[0].numpy(), cmap="gray", vmin=0, vmax=1)
print(round(shown.mean().item(), 4))
