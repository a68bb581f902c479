"""The examples run as a newcomer runs them, learn something, run on two ranks, and go on where they stopped."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

EXAMPLES = Path(__file__).parents[2] / "examples"
TABLES = {
    "classify": ("xrays", "labels.csv"),
    "clips": ("cines", "labels.csv"),
    "crops": ("ct", "candidates.csv"),
}
HERE = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(EXAMPLES.parent)}
examples = pytest.mark.parametrize("name", TABLES)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {}
    for kind, _ in TABLES.values():
        made[kind] = tmp_path_factory.mktemp(kind)
        run([sys.executable, EXAMPLES / "make_data.py", kind, made[kind]])
    return made


def run(command: list[Any]) -> str:
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=100, env=HERE, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def arguments(name: str, data: dict[str, Path], *more: Any) -> list[Any]:
    kind, table = TABLES[name]
    return [EXAMPLES / f"{name}.py", data[kind] / "images", data[kind] / table, *more]


def accuracies(output: str) -> list[float]:
    return [float(found) for found in re.findall(r"accuracy (\d\.\d+) of \d+", output)]


@examples
def test_learns(name, data, tmp_path):
    given = arguments(name, data, "--checkpoint", tmp_path / "state.pt")
    output = run([sys.executable, *given])
    assert accuracies(output)[-1] > 0.9
    assert run([sys.executable, *given]) == ""  # all epochs are done


def test_a_network_learns_masks_from_both_kinds_of_objects(tmp_path):
    run([sys.executable, EXAMPLES / "make_data.py", "segments", tmp_path])
    output = run([sys.executable, EXAMPLES / "segment.py", tmp_path / "images"])
    dice = [float(found) for found in re.findall(r"dice (\d\.\d+) of \d+", output)]
    assert len(dice) == 8
    assert dice[-1] > 0.9


def test_a_network_learns_tissue_of_a_slide_that_the_example_makes(tmp_path):
    output = run([sys.executable, EXAMPLES / "slides.py", tmp_path])
    assert accuracies(output)[-1] > 0.9
    assert len([*tmp_path.rglob("*.dcm")]) == 6


@pytest.mark.slow
@examples
def test_two_ranks(name, data, tmp_path):
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        2,
    ]
    given = arguments(
        name, data, "--checkpoint", tmp_path / "state.pt", "--epochs", 2, "--batch-size", 4
    )
    output = run([*torchrun, *given])
    alone = run([sys.executable, *given[:-6], "--checkpoint", tmp_path / "1.pt", "--epochs", 2])
    assert len(accuracies(output)) == 2
    counts = [re.findall(r" of (\d+)", text) for text in (output, alone)]
    assert counts[0] == counts[1]  # every rank's share of the validation counts, and counts once


@examples
def test_goes_on_where_it_stopped(name, data, tmp_path, monkeypatch, capsys):
    def train(checkpoint: Path, stop_after: int | None = None) -> dict[str, torch.Tensor]:
        steps = 0
        real = torch.nn.functional.cross_entropy

        def loss(*args: Any) -> torch.Tensor:
            nonlocal steps
            steps += 1
            if stop_after is not None and steps > stop_after:
                raise KeyboardInterrupt
            return real(*args)

        options = ["--checkpoint", checkpoint, "--epochs", 2, "--save-every", 2, "--batch-size", 4]
        reads = ["--workers", 0] if name == "classify" else ["--threads", 1]
        argv = [str(part) for part in arguments(name, data, *options, *reads)]
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", argv)
            patch.setattr(torch.nn.functional, "cross_entropy", loss)
            try:
                runpy.run_path(argv[0], run_name="__main__")
            except KeyboardInterrupt:
                assert stop_after is not None
        taken.append(steps)
        return torch.load(checkpoint)["model"]  # type: ignore[no-any-return]

    taken: list[int] = []
    expected = train(tmp_path / "whole.pt")
    stop = taken[0] // 2 + 3  # in the middle of the second epoch, one step behind a saved one
    train(tmp_path / "parts.pt", stop)
    found = train(tmp_path / "parts.pt")
    assert taken[2] < taken[0] - stop + 3
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert capsys.readouterr().out.count("epoch 0") == 2
