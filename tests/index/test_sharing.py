"""A spawned worker maps what is large of an index, and believes what its parent has checked."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import subprocess
import sys
from multiprocessing import context
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dicomtorch.errors import IndexFileError
from dicomtorch.index import files as index_file
from dicomtorch.index import opened, sharing
from dicomtorch.index.frame_index import FrameIndex
from tests.support.phantoms import file_rows


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FrameIndex:
    monkeypatch.setattr(sharing, "_LEAST", 1)
    files = [
        file_rows(f"{k}.dcm", k, SOPInstanceUID=f"1.2.{k}", Modality="CT" if k % 2 else "MR")
        for k in range(6)
    ]
    return FrameIndex.build(files, root=os.fsencode(tmp_path))


@pytest.fixture
def spawning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "get_spawning_popen", lambda: object())


def joined(index: FrameIndex) -> FrameIndex:
    table = {"SOPInstanceUID": [f"1.2.{k}" for k in range(6)], "label": ["a", "b", "c"] * 2}
    return index.select([5, 1, 3]).join(table | {"weight": list(range(6))})


def values(index: FrameIndex) -> list[Any]:
    return [list(index.column(name)) for name in ("SOPInstanceUID", "label", "weight")]


@pytest.mark.filterwarnings("ignore:join on")
@pytest.mark.parametrize("kind", ["memory", "loaded"])
def test_what_is_large_is_mapped(
    index: FrameIndex, tmp_path: Path, spawning: None, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "loaded":
        index.save(tmp_path / "index")
        index = FrameIndex.load(tmp_path / "index")
    chosen = joined(index)
    state = chosen.__getstate__()
    assert "tables" not in state
    assert state["mapped"]
    assert isinstance(state["rows"], tuple)
    assert isinstance(state["joined"][0][2], Path)
    again = chosen.__getstate__()
    assert again["rows"] == state["rows"]  # written once
    assert sharing.folder().stat().st_mode & 0o777 == 0o700
    assert state["rows"][0].stat().st_mode & 0o777 == 0o600
    sent = pickle.dumps(chosen)
    opened._open.clear()
    if kind == "loaded":
        monkeypatch.setattr(index_file, "checksum", lambda _: pytest.fail("it was checked again"))
    received = pickle.loads(sent)
    assert values(received) == values(chosen)
    assert received.root == chosen.root


def test_what_has_changed_since_is_checked(
    index: FrameIndex, tmp_path: Path, spawning: None
) -> None:
    index.save(tmp_path / "index")
    sent = pickle.dumps(FrameIndex.load(tmp_path / "index"))
    path = tmp_path / "index" / "frames.arrow"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(IndexFileError, match="is damaged"):
        pickle.loads(sent)


@pytest.mark.filterwarnings("ignore:join on")
def test_a_pickle_for_later_has_everything(index: FrameIndex) -> None:
    chosen = joined(index)
    state = chosen.__getstate__()
    assert "tables" in state
    assert isinstance(state["rows"], np.ndarray)
    assert values(pickle.loads(pickle.dumps(chosen))) == values(chosen)


def _worker(index: FrameIndex, results: Any) -> None:
    results.put((list(index.column("SOPInstanceUID")), list(index.column("label"))))


@pytest.mark.filterwarnings("ignore:join on")
def test_a_real_worker(index: FrameIndex) -> None:
    chosen = joined(index)
    spawn = multiprocessing.get_context("spawn")
    results = spawn.Queue()
    process = spawn.Process(target=_worker, args=(chosen, results))
    process.start()
    assert results.get(timeout=120) == (["1.2.5", "1.2.1", "1.2.3"], ["c", "b", "a"])
    process.join()


def test_nothing_is_left(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from dicomtorch.index import sharing; print(sharing.folder());"
        "sys.stdout.flush(); sys.argv[1] == 'killed' and os.kill(os.getpid(), signal.SIGKILL)"
    )

    def run(how: str) -> Path:
        command = [sys.executable, "-c", program, how]
        environment = os.environ | {"TMPDIR": str(tmp_path)}
        done = subprocess.run(command, text=True, capture_output=True, check=False, env=environment)
        return Path(done.stdout.strip())

    assert not run("ended").exists()
    killed = run("killed")
    assert killed.exists()
    run("ended")
    assert not killed.exists()
