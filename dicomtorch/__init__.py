"""dicomtorch: from DICOM files to batches of tensors.

Public names are loaded when they are first used, so that `import dicomtorch` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from dicomtorch.attributes import ImagePixel, Limits, PixelOptions, ScanReport
    from dicomtorch.backends.base import Backend
    from dicomtorch.clips import DicomClips
    from dicomtorch.collate import FrameSample, collate_frames
    from dicomtorch.crops import DicomCrops
    from dicomtorch.datasets import DicomFrames
    from dicomtorch.epochs import ClipSampler, ShuffleSampler
    from dicomtorch.errors import DicomTorchError
    from dicomtorch.geometry import patient_to_voxel, voxel_to_patient
    from dicomtorch.index import FrameIndex
    from dicomtorch.leakage import check_leakage
    from dicomtorch.loader import FrameLoader
    from dicomtorch.metadata import FrameMeta
    from dicomtorch.reader import FrameReader
    from dicomtorch.samplers import (
        BalancedSampler,
        GroupBatchSampler,
        GroupSampler,
        LocalShuffleSampler,
    )
    from dicomtorch.scanner import scan
    from dicomtorch.stacking import Stack, stacks
    from dicomtorch.volumes import DicomVolumes

__all__ = [
    "Backend",
    "BalancedSampler",
    "ClipSampler",
    "DicomClips",
    "DicomCrops",
    "DicomFrames",
    "DicomTorchError",
    "DicomVolumes",
    "FrameIndex",
    "FrameLoader",
    "FrameMeta",
    "FrameReader",
    "FrameSample",
    "GroupBatchSampler",
    "GroupSampler",
    "ImagePixel",
    "Limits",
    "LocalShuffleSampler",
    "PixelOptions",
    "ScanReport",
    "ShuffleSampler",
    "Stack",
    "__version__",
    "check_leakage",
    "collate_frames",
    "patient_to_voxel",
    "scan",
    "stacks",
    "voxel_to_patient",
]

_MODULES = {
    "Backend": "dicomtorch.backends.base",
    "BalancedSampler": "dicomtorch.samplers",
    "ClipSampler": "dicomtorch.epochs",
    "DicomClips": "dicomtorch.clips",
    "DicomCrops": "dicomtorch.crops",
    "DicomFrames": "dicomtorch.datasets",
    "DicomTorchError": "dicomtorch.errors",
    "DicomVolumes": "dicomtorch.volumes",
    "FrameIndex": "dicomtorch.index",
    "FrameLoader": "dicomtorch.loader",
    "FrameMeta": "dicomtorch.metadata",
    "FrameReader": "dicomtorch.reader",
    "FrameSample": "dicomtorch.collate",
    "GroupBatchSampler": "dicomtorch.samplers",
    "GroupSampler": "dicomtorch.samplers",
    "ImagePixel": "dicomtorch.attributes",
    "Limits": "dicomtorch.attributes",
    "LocalShuffleSampler": "dicomtorch.samplers",
    "PixelOptions": "dicomtorch.attributes",
    "ScanReport": "dicomtorch.attributes",
    "ShuffleSampler": "dicomtorch.epochs",
    "Stack": "dicomtorch.stacking",
    "check_leakage": "dicomtorch.leakage",
    "collate_frames": "dicomtorch.collate",
    "patient_to_voxel": "dicomtorch.geometry",
    "scan": "dicomtorch.scanner",
    "stacks": "dicomtorch.stacking",
    "voxel_to_patient": "dicomtorch.geometry",
}


def __getattr__(name: str) -> Any:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module 'dicomtorch' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
