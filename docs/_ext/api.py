"""Which public name is on which page of the reference; the text is that of the docstrings."""

from __future__ import annotations

import inspect

import dicomtorch

GROUPS = {
    "datasets": (
        "Datasets",
        "DicomFrames DicomClips DicomVolumes DicomCrops DicomPatches DicomTiles DicomSlides",
    ),
    "index": ("Index", "scan FrameIndex ScanReport check_leakage Limits"),
    "series": ("Series and geometry", "stacks Stack patient_to_voxel voxel_to_patient"),
    "masks": ("Masks and annotations", "MaskIndex Code read_annotations"),
    "loading": ("Loading", "FrameLoader collate_frames FrameSample FrameMeta BatchMeta"),
    "samplers": (
        "Samplers",
        "BalancedSampler ClipSampler GroupBatchSampler GroupSampler LocalShuffleSampler ShuffleSampler",
    ),
    "decoding": ("Reading and decoding", "FrameReader PixelOptions ImagePixel Backend"),
    "viewer": ("Viewer", "view"),
}
ERRORS = [
    name
    for name in dicomtorch.__all__
    if inspect.isclass(found := getattr(dicomtorch, name)) and issubclass(found, Exception)
]
OTHERS = {"__version__"}


def pages() -> dict[str, str]:
    """Markdown of each page; a public name that is on none of them is an error."""
    placed = {name for _, names in GROUPS.values() for name in names.split()}
    if missing := {*dicomtorch.__all__} - placed - {*ERRORS} - OTHERS:
        raise LookupError(f"docs/_ext/api.py: no group has {sorted(missing)}")
    made = {key: page(title, names.split()) for key, (title, names) in GROUPS.items()}
    return {**made, "exceptions": exceptions()}


def page(title: str, names: list[str]) -> str:
    """Names of the top of the package, each with its docstring."""
    return f"# {title}\n\n" + "\n".join(entry(name) for name in names)


def entry(name: str) -> str:
    """A class with its public members, or a function."""
    if not inspect.isclass(getattr(dicomtorch, name)):
        return f"## {name}\n\n```{{eval-rst}}\n.. autofunction:: dicomtorch.{name}\n```\n"
    members = (
        "   :members:\n   :inherited-members: Dataset, Sampler, dict, tuple, Exception, Protocol\n"
        "   :exclude-members: sample_name\n"
    )
    return f"## {name}\n\n```{{eval-rst}}\n.. autoclass:: dicomtorch.{name}\n{members}```\n"


def exceptions() -> str:
    """The tree, and each class."""
    tree = (dicomtorch.errors.__doc__ or "").partition("```")[2].partition("```")[0].strip()
    text = f"""# Exceptions

Every error of this package is one of these, and `MemoryError` where memory runs out. In brackets the built-in class
that it is as well. [What to do about them](/how-to/errors.md).

```text
{tree}
```
"""
    for name in ["DicomTorchError", *(name for name in ERRORS if name != "DicomTorchError")]:
        text += f"\n```{{eval-rst}}\n.. autoexception:: dicomtorch.{name}\n```\n"
    return text
