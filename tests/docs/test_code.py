"""The Python of README, pages and docstrings runs, from the first block of a page to the last, in one namespace."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

import dicomtorch
from tests.docs import world

ROOT = Path(__file__).parents[2]
FILES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
ELSEWHERE = {
    "docs/how-to/integrations.md",  # needs other libraries: tests/integrations/test_recipes.py
    "docs/how-to/dicomweb.md",  # needs a server: tests/scanner/test_web.py
    "docs/how-to/remote.md",  # needs a store: the tests of tests/storage, scanner and reader on remote objects
}
PAGES = [path.relative_to(ROOT).as_posix() for path in FILES if "generated" not in path.parts]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
WITH_CODE = [
    page
    for page in PAGES
    if page not in ELSEWHERE and BLOCK.search((ROOT / page).read_text(encoding="utf-8"))
]


def given() -> dict[str, Any]:
    """What a reader has by then: the public names, torch, a network."""
    names = {name: getattr(dicomtorch, name) for name in dicomtorch.__all__}
    return {
        **names,
        "__name__": "page",
        "dicomtorch": dicomtorch,
        "torch": torch,
        "DataLoader": DataLoader,
        "model": lambda images: images.float().flatten(1)[:, :2],
        "unet": lambda images: images[:, :1].expand(-1, 3, -1, -1).float(),
    }


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_CODE)
def test_code_of_pages_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    world.write(page, tmp_path)
    text = (ROOT / page).read_text(encoding="utf-8")
    names = {**given(), **world.names(page)}
    for block in BLOCK.finditer(text):
        lines = "\n" * text.count(
            "\n", 0, block.start(1)
        )  # so that a traceback has the line of the page
        code = block[1].replace("/new/place", "studies")
        if not torch.cuda.is_available():
            code = code.replace('"cuda"', '"cpu"')
        exec(compile(lines + code, ROOT / page, "exec", dont_inherit=True), names)
