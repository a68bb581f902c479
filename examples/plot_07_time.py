"""
Volumes with time
=================

A perfusion series: the same slices again and again. One sample is (T, C, D, H, W), in the order of time.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from make_data import blob, identity, image, save

from dicomtorch import DicomVolumes

folder = Path(tempfile.mkdtemp())
generator = np.random.default_rng(0)
for time in range(8):
    volume = generator.normal(100, 8, (6, 48, 48))
    volume += 200 * np.exp(-(((time - 3) / 1.5) ** 2)) * blob(np.array([3, 24, 20]), 6, (6, 48, 48))
    for k in range(6):
        one = image(
            volume[k].clip(0, 4095).astype(np.int16),
            "1.2.840.10008.5.1.4.1.1.4",
            f"perfusion {time} {k}",
            Modality="MR",
            InstanceNumber=6 * time + k + 1,
            TemporalPositionIdentifier=time + 1,
            NumberOfTemporalPositions=8,
            TriggerTime=1500 * time,
            ImagePositionPatient=[0, 0, 4 * k],
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            PixelSpacing=[2, 2],
            **identity(0),
        )
        save(one, folder / f"{time}-{k}.dcm")

# %%
# What tells the volumes apart is found, and said.
series = DicomVolumes(folder, group="series", values="modality")
sample, meta = series[0]
print(series)
print(sample.shape, meta["separated_by"], meta["times"])

# %%
# The signal of a voxel over time, beside the slice that it is in.
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
left.imshow(sample[3, 0, 3], cmap="gray")
left.set_title("volume 3, slice 3")
left.plot(20, 24, "x", color="tab:orange")
left.axis("off")
right.plot(meta["times"], sample[:, 0, 3, 24, 20], "o-", color="tab:orange")
right.set(title="the voxel at the cross", xlabel='meta["times"]', ylabel="modality value")
plt.show()
