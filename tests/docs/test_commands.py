"""Commands that pages show are commands that there are: of `dicomtorch`, `make`, `python -m` and `pip install`."""

from __future__ import annotations

import argparse
import importlib.util
import re
import shlex
import tomllib

import pytest

from dicomtorch.cli.main import make_parser
from tests.docs.test_code import PAGES, ROOT

BLOCK = re.compile(r"^ *```(?:sh|bash)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`((?:dicomtorch|make|pip install|python -m) [^`\n]+)`")
HOLDERS = {"--help", "FOLDER", "NAME", "MODULE", "..."}
"""What stands for something else, or ends the program by design."""
OURS = ("benchmarks", "tests", "dicomtorch")


def commands() -> list[tuple[str, str, bool]]:
    """(page, line, whether it is whole) of each command of a page: in a block, or in a sentence perhaps a part."""
    found = []
    for page in PAGES:
        if page == "CHANGELOG.md":  # of versions that were
            continue
        text = (ROOT / page).read_text(encoding="utf-8")
        lines = [line.strip() for block in BLOCK.findall(text) for line in block.splitlines()]
        found += [(page, line, True) for line in lines]
        found += [(page, line, False) for line in INLINE.findall(text)]
    return found


def problem(line: str, is_whole: bool = True) -> str:
    """What is wrong with a command; "" for what is right, or of another program."""
    try:
        words = shlex.split(re.sub(r"\$\w+", "3", line), comments=True)
    except ValueError as error:
        return str(error)
    words = list(words[: next((k for k, word in enumerate(words) if word in (">", "|")), None)])
    if (
        any(holder in word for holder in HOLDERS for word in words)
        or len(words) < 2
        or "|" in line.split("#")[0]
    ):
        return ""
    if words[0] == "dicomtorch":
        return of_ours(words[1:], is_whole)
    if words[0] == "make" and "=" not in words[1]:
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        return "" if re.search(rf"^{words[1]}:", makefile, re.M) else "is no target of make"
    if words[:2] == ["python", "-m"] and words[2].partition(".")[0] in OURS:
        return "" if importlib.util.find_spec(words[2]) else "is no module"
    if words[:2] == ["pip", "install"]:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        asked = {
            extra
            for named in re.findall(r"^(?:dicomtorch|\.)\[(.+)\]$", "\n".join(words[2:]), re.M)
            for extra in re.split(r", ?", named)
        }
        unknown = asked - project["optional-dependencies"].keys()
        return f"has no extra {sorted(unknown)}" if unknown else ""
    return ""


def of_ours(words: list[str], is_whole: bool) -> str:
    """The same of the arguments of `dicomtorch`; of a part of them names count alone."""
    parser = make_parser()
    if is_whole:
        try:
            parser.parse_args(words)
        except SystemExit:
            return "is not taken"
        return ""
    (all_commands,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    asked = [word.partition("=")[0] for word in words[1:] if word.startswith("--")]
    if words[0] not in all_commands.choices:
        return "is no command"
    unknown = set(asked) - all_commands.choices[words[0]]._option_string_actions.keys()
    return f"has no {sorted(unknown)}" if unknown else ""


def test_commands_of_pages_are_there():
    found = commands()
    assert len(found) > 80
    wrong = [(page, line, said) for page, line, whole in found if (said := problem(line, whole))]
    assert wrong == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("dicomtorch scan studies/ --jsno", "not taken"),
        ("dicomtorch scna studies/", "not taken"),
        ("make tset", "no target"),
        ("python -m benchmarks.nothing", "no module"),
        ('pip install "dicomtorch[viewre]"', "viewre"),
        ("dicomtorch scan studies/ --json > report.json  # a file", ""),
        ("ls -l", ""),
    ],
)
def test_what_is_wrong_is_found(line, said):
    found = problem(line)
    assert said in found
    assert bool(found) == bool(said)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("dicomtorch scna", "no command"),
        ("dicomtorch scan --jsno", "--jsno"),
        ("dicomtorch bench", ""),
    ],
)
def test_what_is_wrong_in_a_sentence_is_found(line, said):
    found = problem(line, is_whole=False)
    assert said in found
    assert bool(found) == bool(said)
