"""Every public name says what it is, what it takes, and what it raises; the code in docstrings runs."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import re
import textwrap
import typing
from collections.abc import Iterator
from typing import Any

import pytest
import torch

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


PLAIN = (str, int, float, tuple, list, dict, frozenset, type(None))


def text_of(name: str, found: Any) -> str:
    """What is said of a name: by itself, or for a field by the class."""
    own = inspect.getdoc(found) or ""
    whole = inspect.getdoc(getattr(dicomtorch, name.partition(".")[0])) or ""
    field = name.rpartition(".")[2]
    if isinstance(found, PLAIN) or not callable(found):
        said = re.search(rf"^\s*{field}: (.+)$", whole, re.MULTILINE)
        # A plain value has no text of its own: Python would give that of its type.
        return said[1] if said else below(name) if isinstance(found, PLAIN) else own
    return own


def below(name: str) -> str:
    """The text below the line of a class where a value stands."""
    top, _, field = name.partition(".")
    for cls in getattr(dicomtorch, top).__mro__:
        if cls.__module__.startswith("dicomtorch"):
            found = re.search(rf'^ +{field}\b.*\n +"""(.+)', inspect.getsource(cls), re.MULTILINE)
            if found:
                return found[1]
    return ""


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


ARRAY = re.compile(r"\b(Tensor|NDArray|ndarray)\b")
SHAPE = re.compile(r"\([\w.*]+,( ?[\w.* /+]+,?)*\)")
NUMBERS = re.compile(
    r"\b(u?int\d+|float\d+|bool|stored values|integers?|floats?|dtype|0 or 1|Hounsfield|HU|mm|millimetres|pixels|"
    r"voxels)\b|\[0, 1\]"
)
"""What an array is of: a shape, as in (frames,) or (C, H, W), and a type, a unit or a range of its numbers."""


def made_or_called(found: Any) -> Any:
    """What makes an object of a class that has code of its own for it, else the function; `None` without any."""
    if not inspect.isclass(found):
        return function_of(found)
    made = found.__dict__.get("__init__")
    # A `NamedTuple` or dataclass has one that is made, and has no source.
    return (
        made if made is not None and made.__code__.co_filename == inspect.getfile(found) else None
    )


def has_array(function: Any) -> bool:
    """Whether a function takes or gives a tensor or an array, by its annotations."""
    try:
        kinds = list(typing.get_type_hints(function).values())
    except NameError:  # names that only type checkers import
        kinds = list(getattr(function, "__annotations__", {}).values())
    return any(ARRAY.search(kind if isinstance(kind, str) else repr(kind)) for kind in kinds)


def test_arrays_have_a_shape_and_a_type_unit_or_range():
    asked, lacking = 0, []
    for name, found in ALL:
        function = made_or_called(found)
        is_dataset = inspect.isclass(found) and issubclass(found, torch.utils.data.Dataset)
        if not is_dataset and (function is None or not has_array(function)):
            continue
        asked += 1
        said = inspect.getdoc(found) or ""
        lacking += [name] * (not SHAPE.search(said) or not NUMBERS.search(said))
    assert asked > 40
    assert lacking == []


def test_errors_that_a_function_raises_itself_are_said():
    lacking = []
    for name, found in ALL:
        function = made_or_called(found)
        if not inspect.isfunction(function):
            continue
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
    if ">>>" in (inspect.getdoc(found) or "")
    and not isinstance(found, int)  # what is said of it is Python's, of `int`
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
