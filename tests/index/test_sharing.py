"""A spawned worker maps what is large of an index, and believes what its parent has checked."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from multiprocessing import context
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dicomtorch.errors import IndexFileError
from dicomtorch.index import files as index_file
from dicomtorch.index import in_use, opened, sharing
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


class _Process:
    """In place of what multiprocessing is starting."""


@pytest.fixture
def spawning(monkeypatch: pytest.MonkeyPatch) -> None:
    process = _Process()
    monkeypatch.setattr(context, "get_spawning_popen", lambda: process)


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


def _shared(owner: object, content: bytes) -> Path:
    return sharing.share(owner, "rows", lambda path: path.write_bytes(content))


def test_no_file_takes_the_place_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An id comes again, as soon as what had it is gone; a worker may not have mapped its file by then."""
    processes = [_Process()]
    monkeypatch.setattr(context, "get_spawning_popen", lambda: processes[-1])
    monkeypatch.setattr(sharing, "_written", [])
    owner = np.zeros(4)
    first = _shared(owner, b"first")
    processes.append(_Process())
    assert _shared(owner, b"first, again") == first
    del owner
    other = np.ones(4)
    second = _shared(other, b"second")
    assert second != first
    assert (first.read_bytes(), second.read_bytes()) == (b"first", b"second")
    del processes[0]
    _shared(np.ones(2), b"")
    assert first.exists()  # the second process may need it
    processes.append(_Process())
    del processes[0]
    third = _shared(np.ones(2), b"third")
    assert not first.exists()
    assert second.exists()  # its owner is there
    assert len({first, second, third}) == 3


def test_a_real_process_that_was_not_joined_keeps_its_file() -> None:
    """multiprocessing keeps what it started as long as it runs."""
    spawn = multiprocessing.get_context("spawn")
    process = spawn.Process(target=time.sleep, args=(60,))
    process.start()
    reference = sharing._reference(process._popen)  # type: ignore[attr-defined]
    pid = process.pid
    assert pid is not None
    del process
    gc.collect()
    assert reference() is not None
    os.kill(pid, signal.SIGKILL)
    while reference() is not None:
        multiprocessing.active_children()  # lets go of those that have ended
        time.sleep(0.01)


@pytest.mark.filterwarnings("ignore:join on")
@pytest.mark.parametrize("way", ["no folder", "full"])
def test_without_room_for_files_all_is_sent_by_value(
    index: FrameIndex, spawning: None, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    if way == "no folder":
        monkeypatch.setattr(sharing, "_folders", {})
        monkeypatch.setattr(tempfile, "mkdtemp", fails)
    else:
        for name in ("open_new", "write"):
            monkeypatch.setattr(opened, name, fails)
    chosen = joined(index)
    sent = pickle.dumps(chosen)
    state = chosen.__getstate__()
    assert "tables" in state
    assert isinstance(state["rows"], np.ndarray)
    assert isinstance(state["joined"][0][2], bytes)
    assert values(pickle.loads(sent)) == values(chosen)


def test_an_index_of_memory_only_is_not_checked_by_every_worker(
    index: FrameIndex, spawning: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = pickle.dumps(index)
    monkeypatch.setattr(index_file, "checksum", lambda _: pytest.fail("it was checked"))
    opened._open.clear()
    assert list(pickle.loads(sent).column("SOPInstanceUID")) == [f"1.2.{k}" for k in range(6)]


def test_a_shared_file_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(IndexFileError, match=r"cannot be read \(No such file or directory\)"):
        sharing.mapped(tmp_path / "0.rows")


def test_a_folder_has_its_name_once_it_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process looks for forgotten folders just when this one is made."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(sharing, "_folders", {})
    hold = in_use.hold

    def late(path: Path) -> in_use.Held:
        sharing._remove_forgotten(tmp_path)
        return hold(path)

    monkeypatch.setattr(in_use, "hold", late)
    made = sharing.folder()
    assert made.is_dir()
    sharing._remove_forgotten(tmp_path)
    assert made.is_dir()
    assert made.name.startswith(sharing._PREFIX)


@pytest.mark.parametrize("what", ["fifo", "link", "other user"])
def test_only_own_folders_are_looked_at(
    tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = tmp_path / f"{sharing._PREFIX}x"
    if what == "link":
        (tmp_path / "real").mkdir()
        (tmp_path / "real" / "held").touch()
        found.symlink_to(tmp_path / "real")
    else:
        found.mkdir()
        os.mkfifo(found / "held") if what == "fifo" else (found / "held").touch()
    if what == "other user":
        user = os.geteuid() + 1
        monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(in_use, "nobody", lambda _: pytest.fail("it was looked at"))
    sharing._remove_forgotten(tmp_path)
    assert found.exists()
