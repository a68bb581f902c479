"""Every public name says what it is, what it takes, and what it raises; the code in docstrings runs."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest

import dicomtorch
from dicomtorch.errors import DicomTorchError
from tests.docs import world
from tests.docs.test_code import given
from tests.support.requirements import require

NAMES = [name for name in dicomtorch.__all__ if name != "__version__"]


def members(name: str) -> Iterator[tuple[str, Any]]:
    """A public name, and what of a class is public and of this package."""
    found = getattr(dicomtorch, name)
    yield name, found
    if not inspect.isclass(found):
        return
    for member in dir(found):
        owner = next((cls for cls in found.__mro__ if member in cls.__dict__), object)
        if not member.startswith("_") and owner.__module__.startswith("dicomtorch"):
            yield f"{name}.{member}", inspect.getattr_static(found, member)


ALL = [pair for name in NAMES for pair in members(name)]


def text_of(name: str, found: Any) -> str:
    """What is said of a name: by itself, or for a field by the class."""
    own = inspect.getdoc(found) or ""
    whole = inspect.getdoc(getattr(dicomtorch, name.partition(".")[0])) or ""
    field = name.rpartition(".")[2]
    if isinstance(found, (str, int, float, tuple, frozenset)) or not callable(found):
        said = re.search(rf"^\s*{field}: (.+)$", whole, re.MULTILINE)
        return said[1] if said else own
    return own


def test_every_public_name_is_described():
    assert len(ALL) > 300
    assert [name for name, found in ALL if len(text_of(name, found)) < 10] == []


def function_of(found: Any) -> Any:
    """The function of a method or property, `None` for what is none."""
    found = getattr(found, "fget", None) or getattr(found, "func", None) or found
    found = getattr(found, "__func__", found)
    return found if inspect.isfunction(found) else None


def test_every_argument_is_described():
    """In `Args:`, or in the text; what the one argument of a method is, its sentence says."""
    lacking = []
    for name, found in ALL:
        function = found.__init__ if inspect.isclass(found) else function_of(found)
        if function is None or not inspect.isfunction(function):
            continue
        said = inspect.getdoc(found) or ""
        kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        words = [
            parameter.name
            for parameter in inspect.signature(function).parameters.values()
            if parameter.name not in ("self", "cls")
            and not parameter.name.startswith("_")
            and parameter.kind not in kinds
        ]
        asked = words if inspect.isclass(found) or len(words) > 1 else []
        lacking += [f"{name}({word})" for word in asked if not tells_of(word, said)]
    assert lacking == []


def tells_of(word: str, text: str) -> bool:
    """Whether an argument has a line of its own, or is named in the text."""
    pattern = rf"(^\s*\*{{0,2}}{word}: )|`[^`]*\b{word}\b[^`]*`"
    return re.search(pattern, text, re.MULTILINE) is not None


def test_errors_that_a_function_raises_itself_are_said():
    lacking = []
    for name, found in ALL:
        function = function_of(found)
        if function is None or not (function.__module__ or "").startswith("dicomtorch"):
            continue
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
        raised = {
            node.exc.func.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Raise)
            and isinstance(node.exc, ast.Call)
            and isinstance(node.exc.func, ast.Name)
        }
        said = (inspect.getdoc(found) or "") + (
            inspect.getdoc(getattr(dicomtorch, name.partition(".")[0])) or ""
        )
        ours = {cls.__name__ for cls in subclasses(DicomTorchError)}
        lacking += [f"{name}: {one}" for one in sorted(raised & ours) if one not in said]
    assert lacking == []


def subclasses(cls: type) -> set[type]:
    """All below a class."""
    below: list[type] = cls.__subclasses__()
    return {cls}.union(*map(subclasses, below))


WITH_EXAMPLES = [
    name
    for name, found in ALL
    if (">>>" in (inspect.getdoc(found) or "") and "int(" not in (inspect.getdoc(found) or ""))
    and (name == "DicomFrames.as_dicts" or not name.endswith(".as_dicts"))
]


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    world.everything(tmp_path)
    found = dict(ALL)[name]
    names = {**given(), **world.of_docstrings()}
    if name.endswith("as_dicts"):
        names["monai"] = require("monai") or importlib.import_module("monai")
        names["RandFlipd"] = importlib.import_module("monai.transforms").RandFlipd
    for example in doctest.DocTestParser().get_examples(inspect.getdoc(found) or ""):
        code = example.source.partition("# doctest:")[0].replace("1.2.840...", names["uid"])
        exec(compile(code, f"docstring of {name}", "exec", dont_inherit=True), names)
