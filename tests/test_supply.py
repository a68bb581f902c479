"""What a release is made of, and what is written about it."""

from __future__ import annotations

import itertools
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
ADVISORY = re.compile(r"CVE-\d+-\d+|GHSA-[\w-]+")


def bounds_set_by_advisories() -> dict[str, tuple[str, set[str]]]:
    """Package -> lower bound and advisories, as the comments of pyproject.toml have them."""
    found = {}
    for line in (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines():
        match = re.match(r'\s*"([\w.-]+)>=([\w.]+)",?\s*#(.*)', line)
        if match and ADVISORY.search(match[3]):
            found[match[1]] = (match[2], set(ADVISORY.findall(match[3])))
    return found


def test_security_lists_the_bounds_that_advisories_set() -> None:
    page = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    rows = {
        match[1]: (match[2], set(ADVISORY.findall(match[3])))
        for match in re.finditer(r"^\| ([\w-]+) \| ([\d.]+) \| (.*) \|$", page, re.MULTILINE)
    }
    assert rows == bounds_set_by_advisories()
    assert len(rows) >= 6


def test_every_dependency_has_a_lower_bound() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    asked = [*project["dependencies"], *itertools.chain.from_iterable(extras)]
    assert [one for one in asked if ">=" not in one and not one.startswith("dicomtorch[")] == []
