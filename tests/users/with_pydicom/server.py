"""The same with pydicom."""

import json
import os
import sys
from collections import Counter

import pydicom
from pydicom.errors import InvalidDicomError

counts, modalities, frames = Counter(), Counter(), 0
for folder, _, names in os.walk(sys.argv[1]):
    for name in names:
        path = os.path.join(folder, name)
        try:
            dcm = pydicom.dcmread(path)
        except InvalidDicomError:
            counts["not_dicom"] += 1
            continue
        except Exception:
            counts["unreadable"] += 1
            continue
        if "PixelData" not in dcm:
            counts["no_pixels"] += 1
            continue
        number = int(dcm.get("NumberOfFrames", 1) or 1)
        expected = number * dcm.Rows * dcm.Columns * dcm.SamplesPerPixel * dcm.BitsAllocated // 8
        if not dcm.file_meta.TransferSyntaxUID.is_compressed and len(dcm.PixelData) < expected:
            counts["unreadable"] += 1
            continue
        counts["image"] += 1
        frames += number
        modalities[dcm.Modality] += number
print(json.dumps({"frames": frames, "modalities": modalities, **counts}, sort_keys=True))
