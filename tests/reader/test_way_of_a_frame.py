"""The way of a frame from `frames[i]` to the file: five jumps, each the call of a function with a name."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from dicomtorch import DicomFrames
from tests.support.kernel_jobs import without
from tests.support.phantoms import ct, ct_pixels, write

WAY = (
    "dicomtorch.datasets.frames:DicomFrames.__getitem__",
    "dicomtorch.reader.reader:FrameReader.read_many",
    "dicomtorch.reader.fetch:FrameFetcher.stored",
    "dicomtorch.reader.fetch:FrameFetcher.read_encoded",
    "dicomtorch.storage.local:LocalFile.read_exactly",
)


def code_of(name: str) -> Any:
    module, _, path = name.partition(":")
    found: Any = __import__(module, fromlist=["_"])
    for part in path.split("."):
        found = getattr(found, part)
    return found.__code__


def test_five_functions_lead_from_the_dataset_to_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch)
    write(ct(ct_pixels()), tmp_path / "one.dcm")
    frames = DicomFrames(tmp_path, values="stored")
    frames[0]
    names = {code_of(name): name for name in WAY}
    assert len(names) == 5
    seen: list[list[str]] = []

    def watch(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code in names:
            above: FrameType | None = frame
            around = []
            while above is not None:
                around += [names[above.f_code]] if above.f_code in names else []
                above = above.f_back
            seen.append(around[::-1])

    sys.setprofile(watch)
    try:
        frames[0]
    finally:
        sys.setprofile(None)
    assert seen == [list(WAY[: k + 1]) for k in range(5)]


def test_the_page_for_contributors_names_them() -> None:
    page = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert re.findall(r"^\d\. `(dicomtorch\.[\w.]+:[\w.]+)`", page, re.MULTILINE) == list(WAY)


def test_a_name_that_leads_nowhere_is_noticed() -> None:
    with pytest.raises(AttributeError):
        code_of("dicomtorch.reader.fetch:FrameFetcher.gone")
