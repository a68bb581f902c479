"""Every row of docs/explain/promises.md names a test that is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "explain" / "promises.md"
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def rows(page: str) -> list[list[str]]:
    """The cells of each row of the tables that have a column of tests."""
    found, inside = [], False
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("|") and cells[-1].rstrip(" |") == "Test":
            inside = True
        elif not line.startswith("|"):
            inside = False
        elif inside and not line.startswith("|---"):
            found.append(cells)
    return found


def problems(page: str) -> list[str]:
    """What is wrong with the rows."""
    found = []
    for cells in rows(page):
        named = NAMED.findall(cells[-1]) if len(cells) == 3 else []
        if not named:
            found.append(f"{cells[0]}: names no test")
        for path, name in named:
            file = ROOT / path
            there = file.is_file() and name in names_of_tests(file.read_text(encoding="utf-8"))
            if not there:
                found.append(f"{cells[0]}: there is no {path}::{name}")
    return found


def names_of_tests(source: str) -> set[str]:
    """Names of the test functions of a file."""
    return {
        node.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_every_promise_names_a_test_that_is_there() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert len(rows(page)) > 30
    assert problems(page) == []


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("| a | b | c |", "names no test"),
        ("| a | b |", "names no test"),
        ("| a | b | `tests/test_promises_page.py::test_nothing` |", "there is no"),
        ("| a | b | `tests/nowhere.py::test_x` |", "there is no"),
        ("| a | b | `tests/test_promises_page.py::rows` |", "there is no"),
        ("| a | b | `tests/test_promises_page.py::test_a_row_without_a_test_is_found` |", ""),
    ],
)
def test_a_row_without_a_test_is_found(row: str, problem: str) -> None:
    page = f"| Fault | What happens | Test |\n|---|---|---|\n{row}\n\nNot | a | row\n"
    (found,) = problems(page) or [""]
    assert problem in found
    assert bool(found) == bool(problem)
