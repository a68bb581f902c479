"""The public names: what `__all__` promises is there, and costs nothing until it is used."""

from __future__ import annotations

import ast
import importlib
import pydoc
import subprocess
import sys
from pathlib import Path

import pytest

import dicomtorch
from dicomtorch import errors

PACKAGE = Path(dicomtorch.__file__).parent
HEAVY = ("torch", "SimpleITK", "imagecodecs", "pyarrow", "matplotlib", "PIL", "pydicom", "pandas")


def loaded_after(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(*{{m.partition('.')[0] for m in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.split())


def test_all_is_what_can_be_imported():
    assert len(set(dicomtorch.__all__)) == len(dicomtorch.__all__)
    for name in dicomtorch.__all__:
        assert getattr(dicomtorch, name) is not None, name


def test_dir_lists_all():
    assert set(dicomtorch.__all__) <= set(dir(dicomtorch))


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="DicomFrame"):
        _ = dicomtorch.DicomFrame


def test_exported_classes_say_where_they_live():
    """A pickle names the module of a class, so a name must be importable from there."""
    for name in dicomtorch.__all__:
        value = getattr(dicomtorch, name)
        if isinstance(value, type):
            assert getattr(importlib.import_module(value.__module__), value.__qualname__) is value


def test_type_checkers_see_the_same_names():
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.name
        for node in ast.walk(block)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == set(dicomtorch.__all__) - {"__version__"}


def test_version_is_written_once():
    tree = ast.parse((PACKAGE / "_version.py").read_text(encoding="utf-8"))
    written = [
        node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__"
        if isinstance(node.value, ast.Constant)
    ]
    assert written == [dicomtorch.__version__]


def test_import_is_light():
    assert not loaded_after("import dicomtorch").intersection(HEAVY)


@pytest.mark.parametrize(
    ("statement", "without"),
    [
        ("import dicomtorch.scanner", {"torch", "SimpleITK", "matplotlib", "PIL"}),
        ("import dicomtorch.cli", {*HEAVY} - {"pydicom"}),
        ("from dicomtorch import FrameIndex, scan", {"torch", "SimpleITK", "matplotlib", "PIL"}),
        ("from dicomtorch import DicomFrames", {"SimpleITK", "matplotlib", "PIL"}),
    ],
)
def test_modules_load_only_what_they_need(statement, without):
    assert not loaded_after(statement) & without


def test_dir_shows_what_a_user_needs_and_nothing_else():
    assert dir(dicomtorch) == sorted(dicomtorch.__all__)
    assert {"Any", "TYPE_CHECKING", "annotations"}.isdisjoint(dir(dicomtorch))


def test_every_error_is_public():
    classes = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, Exception) and not name.startswith("_")
    }
    assert classes <= set(dicomtorch.__all__)
    assert all(getattr(dicomtorch, name) is getattr(errors, name) for name in classes)


def test_help_begins_with_what_to_type():
    text = pydoc.plain(pydoc.render_doc(dicomtorch))
    for words in ('DicomFrames("studies/")', "FrameLoader(frames", "class StaleIndexError"):
        assert words in text
