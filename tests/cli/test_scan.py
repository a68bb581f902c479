"""`dicomtorch scan` of inventories and parts, and `dicomtorch merge`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dicomtorch.cli import main as cli
from dicomtorch.cli.options import EXIT_ERROR, EXIT_FOUND_PROBLEMS, EXIT_OK
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.scanner import open as opening
from dicomtorch.scanner import reading
from dicomtorch.scanner.scan import scan
from tests.support.scanned import assert_same, mixed_tree


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return mixed_tree(tmp_path / "tree")


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = cli.main([str(argument) for argument in arguments])
    output = capsys.readouterr()
    return code, output.out, output.err


def test_parts_are_merged_to_what_one_scan_finds(
    capsys: pytest.CaptureFixture[str], tree: Path, tmp_path: Path
) -> None:
    outputs = [tmp_path / f"part-{k}.index" for k in (1, 2, 3)]
    counts = []
    for k, output in enumerate(outputs, 1):
        code, out, err = run(capsys, "scan", tree, "--part", f"{k}/3", "-o", output, "--json")
        assert code in (EXIT_OK, EXIT_FOUND_PROBLEMS)
        counts.append(json.loads(out)["frames"])
    assert min(counts) > 0
    code, out, err = run(capsys, "merge", *outputs, "-o", tmp_path / "all.index")
    assert (code, err) == (EXIT_FOUND_PROBLEMS, "")  # a file is cut
    assert "44" in out
    merged = FrameIndex.load(tmp_path / "all.index")
    assert sum(counts) == len(merged) == 44
    assert_same(merged, scan(tree)[0], numbers=False)


def test_an_inventory_is_scanned_in_place_of_a_folder(
    capsys: pytest.CaptureFixture[str], tree: Path, tmp_path: Path
) -> None:
    table = tmp_path / "list.csv"
    table.write_text("path\na/0.dcm\nb/cine.dcm\n")
    code, out, _ = run(capsys, "scan", tree, "--inventory", table, "-o", tmp_path / "x", "--json")
    assert (code, json.loads(out)["frames"]) == (EXIT_OK, 5)
    assert len(FrameIndex.load(tmp_path / "x")) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["scan", "--inventory", "x.csv"], "need -o INDEX"),
        (["scan", "tree", "--part", "1/2"], "need -o INDEX"),
        (["scan", "--inventory", "nowhere.csv", "-o", "y"], "nowhere.csv cannot be read"),
        (["merge", "tree", "-o", "y"], "tree is no saved index"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tree: Path,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tree.parent)
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (EXIT_ERROR, "")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("part", ["0/3", "4/3", "x", "1", "-1/2"])
def test_parts_that_are_none_are_refused(capsys: pytest.CaptureFixture[str], part: str) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["scan", "tree", f"--part={part}", "-o", "x"])
    assert caught.value.code == 2
    assert "is no part" in capsys.readouterr().err


def test_an_index_is_not_written_over(
    capsys: pytest.CaptureFixture[str], tree: Path, tmp_path: Path
) -> None:
    (tmp_path / "there").mkdir()
    code, _, err = run(capsys, "scan", tree, "--part", "1/2", "-o", tmp_path / "there")
    assert code == EXIT_ERROR
    assert "exists already" in err


def test_an_interrupted_part_goes_on(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "part.index"
    with monkeypatch.context() as context:
        context.setattr(reading, "_TOGETHER", 5)
        context.setattr(reading, "_BETWEEN_CHECKPOINTS", 0.0)
        context.setattr(reading.Reading, "_stop_over", stop_at_the_third())
        with pytest.raises(KeyboardInterrupt):
            opening.scan_to(output, tree, part=(1, 1))
    assert not output.exists()
    index, report = opening.scan_to(output, tree, part=(1, 1))
    assert report.reused >= 2
    assert report.reused + report.read == 43
    assert_same(index, scan(tree)[0], numbers=False)
    assert_same(FrameIndex.load(output), index)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["part.index", "tree"]


def stop_at_the_third():
    calls = []

    def stop(_, checkpoint, part):
        calls.append(part)
        if len(calls) == 3:
            raise KeyboardInterrupt
        checkpoint(part)

    return stop
