"""What pages name in running text is there: methods, attributes, and classes of the package."""

from __future__ import annotations

import importlib
import inspect
import re

import pytest

import dicomtorch
from dicomtorch.model.options import CT_PRESETS
from tests.docs.test_code import PAGES, ROOT

VARIABLES = {
    "clips": dicomtorch.DicomClips,
    "crops": dicomtorch.DicomCrops,
    "frames": dicomtorch.DicomFrames,
    "index": dicomtorch.FrameIndex,
    "loader": dicomtorch.FrameLoader,
    "patches": dicomtorch.DicomPatches,
    "sampler": dicomtorch.BalancedSampler,
    "slides": dicomtorch.DicomSlides,
    "stack": dicomtorch.Stack,
    "tiles": dicomtorch.DicomTiles,
    "volumes": dicomtorch.DicomVolumes,
}
"""What pages call an object, and its class."""
CLASSES = {
    name: found
    for name in dicomtorch.__all__
    if inspect.isclass(found := getattr(dicomtorch, name))
}
FENCES = re.compile(r"^ *(```|~~~).*?^ *\1", re.DOTALL | re.MULTILINE)
FILE = re.compile(r"[\w/-]*\w\.(py|md|csv|json|dcm|arrow|parquet|zip|tar|npy)\b")


def members(cls: type) -> set[str]:
    """Names of a class: methods, annotations, and what its methods set."""
    names = set(dir(cls))
    for base in cls.__mro__:
        names |= {*getattr(base, "__annotations__", {})}
        if base.__module__.startswith("dicomtorch"):
            names |= {*re.findall(r"self\.(\w+)\s*[:=]", inspect.getsource(base))}
    return names


def missing(text: str) -> list[str]:
    """The spans of code in a text that name what is not there."""
    found = []
    for span in re.findall(r"`([^`\n]+)`", FENCES.sub("", text)):
        for owner, name in re.findall(r"(?<![\w./])(\w+)\.([a-zA-Z_]\w*)", FILE.sub("", span)):
            cls = VARIABLES.get(owner) or CLASSES.get(owner)
            there = name in members(cls) if cls else owner != "dicomtorch" or is_there(name)
            found += [span] * (not there)
    return found


def is_there(name: str) -> bool:
    """Whether the package has a public name or a module called so."""
    if hasattr(dicomtorch, name):
        return True
    try:
        importlib.import_module(f"dicomtorch.{name}")
    except ModuleNotFoundError:
        return False
    return True


# The changelog names what is no more.
@pytest.mark.parametrize("page", [page for page in PAGES if page != "CHANGELOG.md"])
def test_names_in_running_text_are_there(page):
    assert missing((ROOT / page).read_text(encoding="utf-8")) == []


def test_a_name_that_is_not_there_is_found():
    text = "`frames.refresh()`, `frames.index`, `DicomFrames.gone`, `dicomtorch.gone`, `slides.py`"
    assert missing(text) == ["frames.refresh()", "DicomFrames.gone", "dicomtorch.gone"]


def test_presets_of_windows_are_on_the_page_and_in_the_docstring():
    page = (ROOT / "docs/how-to/frames.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `\"(\w+)\"` \| \((-?\d+), (\d+)\) \|$", page, re.MULTILINE)
    assert {name: (int(a), int(b)) for name, a, b in rows} == CT_PRESETS
    text = dicomtorch.DicomFrames.__doc__ or ""
    said = re.search(r"one of ([^.]*)\.", text[text.index("window: ") :])
    assert re.findall(r'"(\w+)"', said[1]) == list(CT_PRESETS)
