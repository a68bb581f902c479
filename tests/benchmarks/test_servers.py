"""Benchmarks of archives, servers and engines run and say what they found. Nothing is timed here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import executors
from tests.support.requirements import require
from tests.support.rooms import REPOSITORY

pytestmark = pytest.mark.slow


def printed(name: str, *arguments: str) -> dict[str, Any]:
    """The JSON that a program prints."""
    command = [sys.executable, "-m", f"benchmarks.{name}", "--rounds", "1", *arguments]
    done = subprocess.run(command, text=True, capture_output=True, check=False, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_archives():
    found = printed("archives", "--frames", "8")
    assert set(found["loader, of a folder"]) >= {"stored zip", "tar", "deflated zip"}


def test_frames_of_a_dicomweb_server():
    require("orthanc")
    found = printed("dicomweb", "--frames", "32")
    assert {"encoded of urllib3", "native kept of native kept one by one"} <= set(found)


def test_frames_of_an_object_store():
    require("nginx")
    found = printed("remote", "--files", "32")
    assert found["requests"] == pytest.approx({
        "scan": 1, "random": 1, "clips of 16": 1 / 16, "overlapping clips of 16": 0.01
    }, abs=0.02)  # fmt: skip
    assert {"nginx", "30 ms"} <= set(found)


def test_engines(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    places = ["--data", str(tmp_path / "data"), "--output", str(tmp_path)]
    assert executors.main([*places, "--files", "40", "--repeats", "1", "--engines", "threads"]) == 0
    assert "Scans of 40 files" in capsys.readouterr().out
    (row,) = json.loads((tmp_path / "executors.json").read_text())["rows"][
        "the smallest (worst case)"
    ]
    assert row["engine"] == "threads"
