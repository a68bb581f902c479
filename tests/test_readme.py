"""What README and docs show is what there is."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

import dicomtorch
from dicomtorch import DicomFrames
from dicomtorch.datasets.options import MaskOptions

ROOT = Path(__file__).parents[1]
FILES = [
    ROOT / "README.md",
    *(path for path in sorted((ROOT / "docs").rglob("*.md")) if "generated" not in path.parts),
]
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in FILES}
README = PAGES["README.md"]
BLOCKS = [
    pytest.param(block, id=f"{name}-{number}")
    for name, page in sorted(PAGES.items())
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
]


def signature_block():
    blocks = re.findall(r"```python\n(.*?)```", PAGES["docs/how-to/frames.md"], re.DOTALL)
    (block,) = (block for block in blocks if block.startswith("DicomFrames(\n    source,"))
    return block


def test_signature_is_the_real_one():
    (call,) = (
        node for node in ast.walk(ast.parse(signature_block())) if isinstance(node, ast.Call)
    )
    shown = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    parameters = inspect.signature(DicomFrames).parameters
    named = {name: p for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY}
    real = {name: p.default for name, p in named.items()}
    assert shown == real
    assert list(shown) == list(real)


def test_readme_is_short():
    assert README.count("\n") <= 120


@pytest.mark.parametrize("block", BLOCKS)
def test_code_parses_and_imports_public_names(block):
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom) and node.module == "dicomtorch":
            assert {alias.name for alias in node.names} <= set(dicomtorch.__all__)


def test_options_named_in_the_text_exist():
    parameters = {*inspect.signature(DicomFrames).parameters, *MaskOptions.__annotations__}
    assert {*re.findall(r"`(\w+)=`", README)} <= parameters


@pytest.mark.parametrize("name", sorted(PAGES))
def test_links_lead_somewhere(name):
    folder = (ROOT / name).parent
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", PAGES[name]) if "://" not in link]
    assert links or name != "README.md"
    for link in links:
        if "generated/" not in link:  # made by `make docs`, which fails where a link leads nowhere
            assert (folder / link).is_file(), link


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"\bmake ([a-z]+)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
