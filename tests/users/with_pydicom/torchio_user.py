"""The same with pydicom."""

import sys
from pathlib import Path

import numpy as np
import pydicom
import torch
import torchio as tio
from pydicom.pixels import apply_rescale

slices = [pydicom.dcmread(path) for path in Path(sys.argv[1]).rglob("*.dcm")]
row, column = np.reshape(slices[0].ImageOrientationPatient, (2, 3)).astype(float)
normal = np.cross(row, column)
slices.sort(key=lambda dcm: normal @ np.array(dcm.ImagePositionPatient, float))
places = np.array([dcm.ImagePositionPatient for dcm in slices], float)
steps = np.diff(places @ normal)
assert np.allclose(steps, steps[0]), "slices are missing"
between_rows, between_columns = map(float, slices[0].PixelSpacing)
affine = np.eye(4)
affine[:3, 0] = row * between_columns
affine[:3, 1] = column * between_rows
affine[:3, 2] = normal * steps[0]
affine[:3, 3] = places[0]
affine[:2] *= -1
values = np.stack([apply_rescale(dcm.pixel_array, dcm).astype(np.float32) for dcm in slices])
image = tio.ScalarImage(
    tensor=torch.from_numpy(values.transpose(2, 1, 0).copy())[None], affine=affine
)
print(
    image.spatial_shape, [round(mm, 3) for mm in image.spacing], round(image.data.mean().item(), 3)
)
print(tio.Resample(2)(tio.Subject(ct=image)).ct.spatial_shape)
