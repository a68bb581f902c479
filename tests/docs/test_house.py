"""What strangers meet first: the pages' headings and links, the workflow, the templates, the citation."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest

import dicomtorch
from tests.docs.test_code import PAGES, ROOT
from tests.support.requirements import require

WRITTEN = [page for page in PAGES if page.startswith("docs/")]
FENCE = re.compile(r"^ *(`{3,}|~{3,}).*?^ *\1", re.DOTALL | re.MULTILINE)
HEADING = re.compile(r"^(#+) (.+)$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
MADE = "generated/"  # pages that the build writes; `sphinx -W` checks links to them


def headings(page: str) -> list[tuple[int, str]]:
    """Level and text of each heading of a page."""
    text = FENCE.sub("", (ROOT / page).read_text(encoding="utf-8"))
    return [(len(marks), title) for marks, title in HEADING.findall(text)]


def anchors(page: str) -> set[str]:
    """What the headings of a page are called in links."""
    plain = (re.sub(r"[^\w\- ]", "", title.lower()) for _, title in headings(page))
    return {title.replace(" ", "-") for title in plain}


def test_there_are_at_most_30_pages_written_by_hand():
    assert 20 < len(WRITTEN) <= 30


@pytest.mark.parametrize("page", WRITTEN)
def test_headings_of_a_page_go_down_one_by_one(page):
    levels = [level for level, _ in headings(page)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert [b for a, b in itertools.pairwise(levels) if b > a + 1] == []


@pytest.mark.parametrize("page", [page for page in PAGES if page != "CHANGELOG.md"])
def test_links_of_a_page_lead_somewhere(page):
    lost = []
    for link in LINK.findall(FENCE.sub("", (ROOT / page).read_text(encoding="utf-8"))):
        name, _, anchor = link.partition("#")
        if "://" in link or link.startswith("mailto:") or MADE in name:
            continue
        base = ROOT / "docs" if name.startswith("/") else (ROOT / page).parent
        target = (base / name.lstrip("/")).resolve() if name else ROOT / page
        there = target.exists()
        if there and anchor and target.suffix == ".md":
            there = anchor in anchors(target.relative_to(ROOT).as_posix())
        lost += [link] * (not there)
    assert lost == []


def loaded(path: Path) -> Any:
    """A file of YAML."""
    require("yaml")
    import yaml  # type: ignore[import-untyped]

    return yaml.safe_load(path.read_text(encoding="utf-8"))


def test_the_workflow_calls_targets_that_exist_on_all_systems_and_versions():
    workflow = loaded(ROOT / ".github/workflows/check.yml")
    matrix = workflow["jobs"]["test"]["strategy"]["matrix"]
    assert matrix["python"] == ["3.11", "3.12", "3.13", "3.14"]
    assert [name.partition("-")[0] for name in matrix["os"]] == ["ubuntu", "macos", "windows"]
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    called = {step["run"].split()[1] for step in steps if step.get("run", "").startswith("make ")}
    assert called == {"demo", "test", "test-services", "lint", "docs"}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert called <= set(re.findall(r"^([\w-]+):", makefile, re.MULTILINE))


def test_templates_say_what_they_are_for():
    found = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.md"))
    assert len(found) == 2
    for path in found:
        _, head, text = path.read_text(encoding="utf-8").split("---\n", 2)
        assert re.search(r"^name: .+\nabout: .+$", head, re.MULTILINE)
        assert "No patient data" in text


def test_the_citation_is_of_this_version():
    citation = loaded(ROOT / "CITATION.cff")
    assert {"cff-version", "message", "title", "authors", "license", "type"} <= set(citation)
    assert citation["version"] == dicomtorch.__version__.partition("+")[0]
