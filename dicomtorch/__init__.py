"""dicomtorch: from DICOM files to batches of tensors.

    frames = dicomtorch.DicomFrames("studies/")      # every frame below a folder; frames[0] is (image, meta)
    loader = dicomtorch.FrameLoader(frames, batch_size=32, shuffle=True)

Datasets: `DicomFrames`, `DicomClips` (runs of frames in time), `DicomVolumes` (stacks of slices), `DicomCrops` (parts
of volumes and frames around the candidates of a table), `DicomPatches` (random parts of frames), `DicomTiles` (squares
of the whole slide images of `DicomSlides`). Indexes: `scan`, `FrameIndex` (filter, join labels, split by patient),
`stacks`, `MaskIndex`, `read_annotations`, `check_leakage`. Loading: `FrameLoader`, `collate_frames` for torch's
`DataLoader`, and samplers. Every error is a `DicomTorchError` and names the file, the frame and what to do next.

Public names are loaded when they are first used, so that `import dicomtorch` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dicomtorch._version import __version__

if TYPE_CHECKING:
    from dicomtorch.backends.base import Backend
    from dicomtorch.batches.collate import FrameSample, collate_frames
    from dicomtorch.batches.epochs import ClipSampler, ShuffleSampler
    from dicomtorch.batches.loader import FrameLoader
    from dicomtorch.batches.metadata import BatchMeta, FrameMeta
    from dicomtorch.batches.samplers import (
        BalancedSampler,
        GroupBatchSampler,
        GroupSampler,
        LocalShuffleSampler,
    )
    from dicomtorch.datasets.clips import DicomClips
    from dicomtorch.datasets.crops import DicomCrops
    from dicomtorch.datasets.frames import DicomFrames
    from dicomtorch.datasets.labelling import read_annotations
    from dicomtorch.datasets.patches import DicomPatches
    from dicomtorch.datasets.slides import DicomSlides
    from dicomtorch.datasets.tiles import DicomTiles
    from dicomtorch.datasets.volumes import DicomVolumes
    from dicomtorch.errors import (
        DecodeError,
        DicomTorchError,
        EncapsulationError,
        ExecutorError,
        FrameIndexError,
        FrameNotFoundError,
        GeometryError,
        HeaderError,
        IndexFileError,
        MetaKeyError,
        MissingDependencyError,
        NotDicomError,
        OptionError,
        PixelValueError,
        SourceError,
        StaleIndexError,
        StorageError,
        UnsupportedError,
    )
    from dicomtorch.index.frame_index import FrameIndex
    from dicomtorch.masks.mask_index import MaskIndex
    from dicomtorch.model.image import ImagePixel
    from dicomtorch.model.limits import Limits
    from dicomtorch.model.mask_object import Code
    from dicomtorch.model.options import PixelOptions
    from dicomtorch.model.report import ScanReport
    from dicomtorch.reader.reader import FrameReader
    from dicomtorch.reports.leakage import check_leakage
    from dicomtorch.scanner.scan import scan
    from dicomtorch.series.geometry import patient_to_voxel, voxel_to_patient
    from dicomtorch.series.search import stacks
    from dicomtorch.series.stacks import Stack
    from dicomtorch.viewer.server import view

__all__ = [
    "Backend",
    "BalancedSampler",
    "BatchMeta",
    "ClipSampler",
    "Code",
    "DecodeError",
    "DicomClips",
    "DicomCrops",
    "DicomFrames",
    "DicomPatches",
    "DicomSlides",
    "DicomTiles",
    "DicomTorchError",
    "DicomVolumes",
    "EncapsulationError",
    "ExecutorError",
    "FrameIndex",
    "FrameIndexError",
    "FrameLoader",
    "FrameMeta",
    "FrameNotFoundError",
    "FrameReader",
    "FrameSample",
    "GeometryError",
    "GroupBatchSampler",
    "GroupSampler",
    "HeaderError",
    "ImagePixel",
    "IndexFileError",
    "Limits",
    "LocalShuffleSampler",
    "MaskIndex",
    "MetaKeyError",
    "MissingDependencyError",
    "NotDicomError",
    "OptionError",
    "PixelOptions",
    "PixelValueError",
    "ScanReport",
    "ShuffleSampler",
    "SourceError",
    "Stack",
    "StaleIndexError",
    "StorageError",
    "UnsupportedError",
    "__version__",
    "check_leakage",
    "collate_frames",
    "patient_to_voxel",
    "read_annotations",
    "scan",
    "stacks",
    "view",
    "voxel_to_patient",
]

_MODULES = {
    "Backend": "dicomtorch.backends.base",
    "BalancedSampler": "dicomtorch.batches.samplers",
    "ClipSampler": "dicomtorch.batches.epochs",
    "Code": "dicomtorch.model.mask_object",
    "DecodeError": "dicomtorch.errors",
    "DicomClips": "dicomtorch.datasets.clips",
    "DicomCrops": "dicomtorch.datasets.crops",
    "DicomFrames": "dicomtorch.datasets.frames",
    "DicomPatches": "dicomtorch.datasets.patches",
    "DicomTorchError": "dicomtorch.errors",
    "DicomSlides": "dicomtorch.datasets.slides",
    "DicomTiles": "dicomtorch.datasets.tiles",
    "DicomVolumes": "dicomtorch.datasets.volumes",
    "EncapsulationError": "dicomtorch.errors",
    "ExecutorError": "dicomtorch.errors",
    "FrameIndex": "dicomtorch.index.frame_index",
    "FrameIndexError": "dicomtorch.errors",
    "FrameLoader": "dicomtorch.batches.loader",
    "BatchMeta": "dicomtorch.batches.metadata",
    "FrameMeta": "dicomtorch.batches.metadata",
    "FrameNotFoundError": "dicomtorch.errors",
    "FrameReader": "dicomtorch.reader.reader",
    "FrameSample": "dicomtorch.batches.collate",
    "GeometryError": "dicomtorch.errors",
    "GroupBatchSampler": "dicomtorch.batches.samplers",
    "GroupSampler": "dicomtorch.batches.samplers",
    "HeaderError": "dicomtorch.errors",
    "ImagePixel": "dicomtorch.model.image",
    "IndexFileError": "dicomtorch.errors",
    "Limits": "dicomtorch.model.limits",
    "LocalShuffleSampler": "dicomtorch.batches.samplers",
    "MaskIndex": "dicomtorch.masks.mask_index",
    "MetaKeyError": "dicomtorch.errors",
    "MissingDependencyError": "dicomtorch.errors",
    "NotDicomError": "dicomtorch.errors",
    "OptionError": "dicomtorch.errors",
    "PixelOptions": "dicomtorch.model.options",
    "PixelValueError": "dicomtorch.errors",
    "ScanReport": "dicomtorch.model.report",
    "ShuffleSampler": "dicomtorch.batches.epochs",
    "SourceError": "dicomtorch.errors",
    "Stack": "dicomtorch.series.stacks",
    "StaleIndexError": "dicomtorch.errors",
    "StorageError": "dicomtorch.errors",
    "UnsupportedError": "dicomtorch.errors",
    "check_leakage": "dicomtorch.reports.leakage",
    "collate_frames": "dicomtorch.batches.collate",
    "patient_to_voxel": "dicomtorch.series.geometry",
    "read_annotations": "dicomtorch.datasets.labelling",
    "scan": "dicomtorch.scanner.scan",
    "stacks": "dicomtorch.series.search",
    "view": "dicomtorch.viewer.server",
    "voxel_to_patient": "dicomtorch.series.geometry",
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
    return sorted(__all__)
