"""Every error leads to its paragraph."""

from __future__ import annotations

import pickle
import re
import traceback
from pathlib import Path

import pytest

import dicomtorch

PAGE = (Path(__file__).parents[1] / "docs" / "how-to" / "errors.md").read_text(encoding="utf-8")
ERRORS = [
    found
    for name in dicomtorch.__all__
    if isinstance(found := getattr(dicomtorch, name), type) and issubclass(found, Exception)
]


@pytest.mark.parametrize("error", ERRORS)
def test_has_a_paragraph_and_names_it(error):
    made = error("what is wrong")
    text = "".join(traceback.format_exception(made))
    (anchor,) = re.findall(r"how-to/errors.html#(\w+)", text)
    headings = [heading.lower() for heading in re.findall(r"^### (\w+)$", PAGE, re.MULTILINE)]
    assert anchor in headings
    assert str(made) == "what is wrong"


@pytest.mark.parametrize("error", ERRORS)
def test_survives_a_process(error):
    made = pickle.loads(pickle.dumps(error("what is wrong")))
    assert (type(made), str(made), len(made.__notes__)) == (error, "what is wrong", 1)


def test_there_is_no_paragraph_of_nothing():
    headings = set(re.findall(r"^### (\w+Error)$", PAGE, re.MULTILINE))
    assert headings == {error.__name__ for error in ERRORS}
