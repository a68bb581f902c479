"""What the README shows is what there is."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

import dicomtorch
from dicomtorch import DicomFrames

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def signature_block():
    (block,) = (block for block in BLOCKS if block.startswith("DicomFrames(\n    source,"))
    return block


def test_signature_is_the_real_one():
    (call,) = (
        node for node in ast.walk(ast.parse(signature_block())) if isinstance(node, ast.Call)
    )
    shown = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    parameters = inspect.signature(DicomFrames).parameters
    real = {name: p.default for name, p in parameters.items() if name != "source"}
    assert shown == real
    assert list(shown) == list(real)


@pytest.mark.parametrize("block", BLOCKS)
def test_code_parses_and_imports_public_names(block):
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom) and node.module == "dicomtorch":
            assert {alias.name for alias in node.names} <= set(dicomtorch.__all__)


def test_options_named_in_the_text_exist():
    parameters = inspect.signature(DicomFrames).parameters
    assert {*re.findall(r"`(\w+)=`", README)} <= {*parameters}


def test_links_lead_somewhere():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links
    for link in links:
        assert (ROOT / link).is_file(), link


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"\bmake ([a-z]+)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
