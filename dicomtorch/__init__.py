"""dicomtorch: from DICOM files to batches of tensors.

Public names are loaded when they are first used, so that `import dicomtorch` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from dicomtorch.attributes import ImagePixel, Limits, PixelOptions, ScanReport
    from dicomtorch.backends.base import Backend
    from dicomtorch.collate import FrameSample, collate_frames
    from dicomtorch.datasets import DicomFrames
    from dicomtorch.errors import DicomTorchError
    from dicomtorch.index import FrameIndex
    from dicomtorch.metadata import FrameMeta
    from dicomtorch.reader import FrameReader
    from dicomtorch.scanner import scan

__all__ = [
    "Backend",
    "DicomFrames",
    "DicomTorchError",
    "FrameIndex",
    "FrameMeta",
    "FrameReader",
    "FrameSample",
    "ImagePixel",
    "Limits",
    "PixelOptions",
    "ScanReport",
    "__version__",
    "collate_frames",
    "scan",
]

_MODULES = {
    "Backend": "dicomtorch.backends.base",
    "DicomFrames": "dicomtorch.datasets",
    "DicomTorchError": "dicomtorch.errors",
    "FrameIndex": "dicomtorch.index",
    "FrameMeta": "dicomtorch.metadata",
    "FrameReader": "dicomtorch.reader",
    "FrameSample": "dicomtorch.collate",
    "ImagePixel": "dicomtorch.attributes",
    "Limits": "dicomtorch.attributes",
    "PixelOptions": "dicomtorch.attributes",
    "ScanReport": "dicomtorch.attributes",
    "collate_frames": "dicomtorch.collate",
    "scan": "dicomtorch.scanner",
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
