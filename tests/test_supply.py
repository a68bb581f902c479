"""What a release is made of, and what is written about it."""

from __future__ import annotations

import itertools
import re
import tomllib
from pathlib import Path

from tests.support.orthanc import PLUGIN

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


def pinned(text: str) -> dict[str, str]:
    """Package -> version."""
    found = re.findall(r"^([\w.-]+)==([^\s;\\]+)", text, re.MULTILINE)
    return {re.sub("[-_.]+", "-", name).lower(): version for name, version in found}


def test_the_lock_has_a_hash_for_each_of_the_versions_tested() -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    entries = [entry for entry in re.split(r"\n(?=\w)", lock) if "==" in entry]
    assert len(entries) > 100
    for entry in entries:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry.partition(chr(10))[0]
    locked = pinned(lock)
    constraints = pinned((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    both = locked.keys() & constraints.keys()
    assert len(both) > 90
    assert {name: locked[name] for name in both} == {name: constraints[name] for name in both}, (
        "make lock"
    )


def test_the_lock_has_all_that_is_asked_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    asked = [
        *project["project"]["dependencies"],
        *itertools.chain.from_iterable(project["project"]["optional-dependencies"].values()),
        *(
            one
            for name in ("test", "services", "lint")
            for one in project["dependency-groups"][name]
        ),
    ]
    names = {
        re.sub("[-_.]+", "-", re.match(r"[\w.-]+", one)[0]).lower()  # type: ignore[index]
        for one in asked
        if isinstance(one, str)
    }
    locked = pinned((ROOT / "requirements.lock").read_text(encoding="utf-8"))
    assert names - locked.keys() == {"dicomtorch"}, "make lock"


def test_the_workflow_requires_what_the_checks_require():
    """But for real samples, which it does not have."""
    checks = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    first, second = re.findall(
        r'DICOMTORCH_REQUIRE="\$\{?DICOMTORCH_REQUIRE[:\-,]*([^"}]+)', checks
    )
    workflow = (ROOT / ".github" / "workflows" / "check.yml").read_text(encoding="utf-8")
    (named,) = re.findall(r'DICOMTORCH_REQUIRE: "([^"]+)"', workflow)
    assert {*named.split(",")} == {*first.split(","), *second.split(",")} - {"samples", "series"}


def test_programs_of_tests_are_looked_for_where_tests_look():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert PLUGIN in makefile
    assert len(re.findall(r"\bapt\b.* update", makefile)) == 1
