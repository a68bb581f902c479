"""The examples of every `--help` are run; those that serve, measure or go on for minutes are parsed."""

from __future__ import annotations

import shlex
from glob import glob
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dicomtorch import FrameIndex, scan
from dicomtorch.cli.main import main, make_parser
from tests.docs import world

LONG = {"view", "bench", "demo"}
"""`tests/viewer`, `tests/reports/test_bench.py` and `test_cli.py` run these."""


def examples() -> list[list[str]]:
    """Each example as words, without comments and redirections."""
    commands: Any
    (commands,) = (a.choices for a in make_parser()._actions if a.dest == "command")
    found = []
    for command in commands.values():
        text = command.format_help().partition("examples:\n")[2].partition("\nexit codes:")[0]
        lines = [line.partition(" > ")[0] for line in text.splitlines() if line.strip()]
        found += [shlex.split(line, comments=True)[1:] for line in lines]
    return found


EXAMPLES = examples()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What the examples name."""
    made: Path = tmp_path_factory.mktemp("examples")
    world.studies(made)
    world.labelled("ct", labels=("liver", "kidney"), folder=made)
    (made / "image.dcm").write_bytes((made / "studies/loop.dcm").read_bytes())
    for name, source in (("a", "000"), ("b", "001")):
        (made / name).symlink_to(made / "studies" / source)
    index, _ = scan(made / "ct")
    index.save(made / "ct.index")
    for part in (1, 2):
        scan(made / "ct", part=(part, 2))[0].save(made / f"part-{part}.index")
    paths = [str(path) for path in sorted((made / "ct").iterdir())]
    pq.write_table(pa.table({"path": paths}), made / "files.parquet")
    assert len(FrameIndex.load(made / "ct.index"))
    return made


def test_every_command_has_some():
    assert {words[0] for words in EXAMPLES} >= {
        "scan",
        "info",
        "doctor",
        "verify",
        "preview",
        "view",
    }
    assert len(EXAMPLES) > 20


@pytest.mark.slow
@pytest.mark.parametrize("words", EXAMPLES, ids=" ".join)
def test_runs(words, folder, tmp_path, monkeypatch, capsys):
    parsed = make_parser().parse_args(words)
    if words[0] in LONG or any("://" in word for word in words):  # `test_addresses.py` runs these
        assert parsed.command == words[0]
        return
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.chdir(folder)
    before = {*folder.iterdir()}
    if words[0] == "show" and "--output" not in words:
        words = [*words, "--output", "shown.png"]  # there is no screen
    words = [name for word in words for name in (sorted(glob(word)) if "*" in word else [word])]
    assert main(words) in (0, 1), capsys.readouterr().err
    for path in {*folder.iterdir()} - before:  # each example starts from the same
        path.rename(tmp_path / path.name)
