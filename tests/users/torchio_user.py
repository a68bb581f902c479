"""A series as TorchIO's image, resampled to 2 mm, with the place that it has in the patient."""

import sys

import torchio as tio

from dicomtorch import DicomVolumes

volume, meta = DicomVolumes(sys.argv[1], values="modality")[0]
image = tio.ScalarImage(
    tensor=volume.movedim((1, 2, 3), (3, 2, 1)), affine=meta["affine_ras"][:, [2, 1, 0, 3]]
)
print(
    image.spatial_shape, [round(mm, 3) for mm in image.spacing], round(image.data.mean().item(), 3)
)
print(tio.Resample(2)(tio.Subject(ct=image)).ct.spatial_shape)
