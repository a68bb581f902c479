"""Indexes between runs: killed, crowded, full or damaged, the store holds an old index or the new one, whole."""

from __future__ import annotations

import errno
import gc
import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from pathlib import Path
from subprocess import PIPE
from typing import Any

import numpy as np
import pytest

from dicomtorch.errors import IndexFileError
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.index.store import IndexStore
from dicomtorch.scanner import file as scan_file
from dicomtorch.scanner import open as store
from dicomtorch.scanner import reading
from dicomtorch.scanner import scan as scanner
from dicomtorch.scanner import worker as scan_worker
from dicomtorch.scanner.open import open_index
from dicomtorch.scanner.reading import Reading
from tests.support import kill_refresh

HERE = Path(__file__).parent

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for k in range(4):
        kill_refresh.make_file(tmp_path / "tree" / f"{k}.dcm", k)
    return tmp_path / "tree"


def run(*arguments: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, *arguments], stdout=pipe, stderr=pipe, text=True)


@needs_fork
@pytest.mark.timeout(900)
def test_whatever_ends_a_refresh_the_store_is_whole(memory_path: Path) -> None:
    process = run(str(HERE.parent / "support" / "kill_refresh.py"), str(memory_path))
    output, errors = process.communicate(timeout=870)
    assert process.returncode == 0, errors
    results = json.loads(output)
    killed = [one for one in results if one["fault"] in ("kill", "half")]
    assert len(killed) >= 40
    assert {one["ended"] for one in killed} == {-9}
    assert {one["stored"] for one in killed if not one["first"]} == {"old", "new"}
    assert {one["stored"] for one in killed if one["first"]} == {"None", "new"}
    full = [one for one in results if one["fault"] in ("full", "no_space")]
    assert len(full) >= 10
    for one in full:
        assert one["ended"] == 0, one
        assert one["stored"] == ("None" if one["first"] else "old"), one
        assert one["drafts"] == [], one
        (said,) = one["said"]
        assert "cannot be kept" in said
        assert "cache_dir=" in said
    for one in results:
        assert one["right_after"], one
        assert one["left"] == [], one


def test_a_full_file_system(tree: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=20k", "tmpfs", str(disk)]
    if (
        shutil.which("mount") is None
        or subprocess.run(mount, capture_output=True, check=False).returncode
    ):
        pytest.skip("no right to mount a small file system")
    try:
        with pytest.warns(UserWarning, match="No space left on device"):
            index = open_index(tree, cache_dir=disk)
        assert len(index) == 4
        assert not [path for path in disk.rglob("*") if path.is_file() and path.name != "lock"]
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_several_processes_at_once(tree: Path, tmp_path: Path) -> None:
    for k in range(4, 150):
        kill_refresh.make_file(tree / f"{k}.dcm", k)
    program = (
        "import sys; from dicomtorch.scanner.open import open_index;"
        "index = open_index(sys.argv[1], cache_dir=sys.argv[2]);"
        "print(index.uuid, *index.column('SOPInstanceUID'))"
    )
    processes = [run("-c", program, str(tree), str(tmp_path / "cache")) for _ in range(3)]
    outputs = {process.communicate(timeout=120) for process in processes}
    assert len(outputs) == 1, outputs  # the first scanned, the others took what it stored
    ((output, errors),) = outputs
    assert errors == ""
    assert len(output.split()) == 151


def test_a_running_job_keeps_its_generation(tree: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    job = open_index(tree, cache_dir=cache)
    sent = pickle.dumps(job.select([3, 1]))
    for k in range(4, 8):
        kill_refresh.make_file(tree / f"{k}.dcm", k)
        os.unlink(tree / f"{k - 4}.dcm")
        newer = open_index(tree, cache_dir=cache)
        assert newer.uuid != job.uuid
    assert list(job.column("SOPInstanceUID")) == [f"1.2.3.{k}" for k in range(4)]
    program = (
        "import pickle, sys; print(*pickle.loads(sys.stdin.buffer.read()).column('SOPInstanceUID'))"
    )
    command = [sys.executable, "-c", program]
    received = subprocess.run(command, input=sent, capture_output=True, check=True, timeout=60)
    assert received.stdout.split() == [b"1.2.3.3", b"1.2.3.1"]


@pytest.mark.timeout(300)
def test_unused_generations_go_and_those_in_use_stay(tree: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = open_index(tree, cache_dir=cache)
    store = IndexStore([os.fsencode(os.path.realpath(tree))], cache)
    old = time.time() - 8 * 86_400
    os.utime(store.folder / first.uuid / "manifest.json", (old, old))
    kill_refresh.make_file(tree / "new.dcm", 9)
    sent = pickle.dumps(first)
    pickle.loads(sent)  # as a worker does when it starts
    second = open_index(tree, cache_dir=cache)
    assert (store.folder / first.uuid).exists()
    os.utime(store.folder / first.uuid / "manifest.json", (old, old))
    kill_refresh.make_file(tree / "newer.dcm", 10)
    third = open_index(tree, cache_dir=cache)
    # This process has it open, however long ago it opened it.
    assert (store.folder / first.uuid).exists()
    assert len(pickle.loads(sent)) == len(first)
    os.utime(store.folder / first.uuid / "manifest.json", (old, old))
    unused = first.uuid
    del first
    gc.collect()
    kill_refresh.make_file(tree / "newest.dcm", 11)
    fourth = open_index(tree, cache_dir=cache)
    folders = {path.name for path in store.folder.iterdir() if path.is_dir()}
    assert unused not in folders
    assert folders == {second.uuid, third.uuid, fourth.uuid}


def test_generations_that_nobody_uses_are_few(tree: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    store = IndexStore([os.fsencode(os.path.realpath(tree))], cache)
    first = open_index(tree, cache_dir=cache)
    earlier = time.time() - 3600
    uuids = []
    for k in range(6):
        kill_refresh.make_file(tree / f"new-{k}.dcm", 20 + k)
        uuids.append(open_index(tree, cache_dir=cache).uuid)
        gc.collect()
        for path in store.folder.glob("*/manifest.json"):
            os.utime(path, (earlier + k, earlier + k))
    folders = {path.name for path in store.folder.iterdir() if path.is_dir()}
    assert uuids[-1] in folders
    assert first.uuid in folders  # this process has it open
    assert len(folders) <= 5
    assert len(pickle.loads(pickle.dumps(first))) == len(first)


def test_a_generation_that_was_just_used_waits_for_its_workers(tree: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    sent = []
    for k in range(6):
        kill_refresh.make_file(tree / f"new-{k}.dcm", 20 + k)
        sent.append(pickle.dumps(open_index(tree, cache_dir=cache)))
        gc.collect()
    assert [len(pickle.loads(one)) for one in sent] == [5, 6, 7, 8, 9, 10]


@needs_fork
@pytest.mark.parametrize("how", ["opened", "forked"])
def test_what_another_process_has_open_stays(tree: Path, tmp_path: Path, how: str) -> None:
    cache = tmp_path / "cache"
    uuid = open_index(tree, cache_dir=cache).uuid
    gc.collect()
    store = IndexStore([os.fsencode(os.path.realpath(tree))], cache)
    program = (
        "import os, sys; from dicomtorch.scanner.open import open_index;"
        "index = open_index(sys.argv[1], cache_dir=sys.argv[2]);"
        "child = os.fork() if sys.argv[3] == 'forked' else 0;"
        "child and os._exit(0);"  # the parent ends, its child still has it
        "print('open', flush=True); sys.stdin.read(); print(len(index), flush=True)"
    )
    command = [sys.executable, "-c", program, str(tree), str(cache), how]
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        for k, there in ((20, True), (21, False)):
            old = time.time() - 8 * 86_400
            os.utime(store.folder / uuid / "manifest.json", (old, old))
            kill_refresh.make_file(tree / "changes.dcm", k)
            open_index(tree, cache_dir=cache)
            assert (store.folder / uuid).exists() is there
            if there:
                other.stdin.close()
                assert other.stdout.read() == "4\n"
                other.wait()


@pytest.mark.parametrize("name", ["current", "frames.arrow", "manifest.json"])
def test_a_damaged_store_is_made_anew(tree: Path, tmp_path: Path, name: str) -> None:
    cache = tmp_path / "cache"
    uuid = open_index(tree, cache_dir=cache).uuid
    store = IndexStore([os.fsencode(os.path.realpath(tree))], cache)
    path = store.folder / name if name == "current" else store.folder / uuid / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(IndexFileError, match="scan again"):
        open_index(tree, cache_dir=cache, refresh=False)
    with pytest.warns(UserWarning, match="made anew"):
        assert len(open_index(tree, cache_dir=cache)) == 4
    assert len(open_index(tree, cache_dir=cache, refresh=False)) == 4


def test_a_stored_index_is_small_on_the_way_to_workers(tree: Path, tmp_path: Path) -> None:
    index = open_index(tree, cache_dir=tmp_path / "cache")
    assert len(pickle.dumps(index)) < 10_000
    many = index.select(np.zeros(100_000, np.int64))
    assert len(pickle.dumps(many)) < 10_000 + 8 * 100_000
    many = index.select(np.arange(100_000) % 4)
    parts = many.split([0.5, 0.5], by="SOPInstanceUID")
    assert sum(len(pickle.dumps(part)) for part in parts) < 20_000 + 8 * 100_000
    # The tables are the mapped files, in this index and in what is selected from it.
    assert not index.column("offset").flags.owndata
    assert isinstance(many, FrameIndex)
    assert many._generation is index._generation


# A scan that is interrupted


class Interrupted:
    """Makes the scan end as by Ctrl-C at the file that comes after `files` others, and counts what is read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.read = 0
        self.files = 1_000_000
        read_file = scan_file.read_file

        def count(*args: Any) -> Any:
            if self.read == self.files:
                raise KeyboardInterrupt
            self.read += 1
            return read_file(*args)

        monkeypatch.setattr(scan_worker, "read_file", count)
        monkeypatch.setattr(reading, "_TOGETHER", 1)
        monkeypatch.setattr(reading, "_BETWEEN_CHECKPOINTS", 0.0)
        monkeypatch.setattr(Reading, "_stop_over", lambda _, checkpoint, part: checkpoint(part))


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Interrupted:
    return Interrupted(monkeypatch)


def test_the_next_scan_goes_on_where_one_was_interrupted(
    tree: Path, tmp_path: Path, interrupted: Interrupted
) -> None:
    interrupted.files = 3
    with pytest.raises(KeyboardInterrupt):
        open_index(tree, cache_dir=tmp_path)
    store = IndexStore([os.fsencode(os.path.realpath(tree))], tmp_path)
    assert store.load() is None
    interrupted.read, interrupted.files = 0, 1_000_000
    index = open_index(tree, cache_dir=tmp_path)
    assert (interrupted.read, len(index)) == (1, 4)
    assert store.load_partial() is None
    assert len(pickle.loads(pickle.dumps(index))) == 4
    assert open_index(tree, cache_dir=tmp_path).uuid == index.uuid
    assert interrupted.read == 1


def test_an_interrupted_refresh_leaves_the_index_and_is_gone_on_with(
    tree: Path, tmp_path: Path, interrupted: Interrupted
) -> None:
    first = open_index(tree, cache_dir=tmp_path)
    for k in range(10, 14):
        kill_refresh.make_file(tree / f"{k}.dcm", k)
    interrupted.read, interrupted.files = 0, 2
    with pytest.raises(KeyboardInterrupt):
        open_index(tree, cache_dir=tmp_path)
    assert open_index(tree, refresh=False, cache_dir=tmp_path).uuid == first.uuid
    interrupted.read, interrupted.files = 0, 1_000_000
    index = open_index(tree, cache_dir=tmp_path)
    assert (interrupted.read, len(index)) == (2, 8)


def test_what_was_kept_is_not_used_for_other_tags_or_when_damaged(
    tree: Path, tmp_path: Path, interrupted: Interrupted
) -> None:
    for tags, damage in (("PatientSex",), False), ((), True):
        interrupted.read, interrupted.files = 0, 2
        with pytest.raises(KeyboardInterrupt):
            open_index(tree, cache_dir=tmp_path)
        if damage:
            for path in tmp_path.glob("indexes/*/partial/frames.arrow"):
                path.write_bytes(path.read_bytes()[:-1])
        interrupted.read, interrupted.files = 0, 1_000_000
        index = open_index(tree, tags=tags, cache_dir=tmp_path)
        assert (interrupted.read, len(index)) == (4, 4)
        shutil.rmtree(tmp_path / "indexes")


def test_a_full_disk_does_not_end_a_scan(
    tree: Path, tmp_path: Path, interrupted: Interrupted, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    def full(self: IndexStore, index: FrameIndex) -> None:
        tries.append(index)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(IndexStore, "save_partial", full)
    with pytest.warns(UserWarning, match=r"No space left on device.*begins anew"):
        index = open_index(tree, cache_dir=tmp_path)
    assert (len(index), len(tries)) == (4, 1)
    assert interrupted.read == 4


def test_an_error_that_is_kept_does_not_keep_the_lock(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A notebook keeps the traceback of what was interrupted, and its frames."""
    with monkeypatch.context() as patch:
        patch.setattr(store, "scan", interrupt)
        with pytest.raises(KeyboardInterrupt) as kept:
            open_index(tree, cache_dir=tmp_path)
    assert len(open_index(tree, cache_dir=tmp_path)) == 4
    assert kept.tb is not None


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_what_was_kept_and_is_all_is_stored_once_more_after_a_kill(
    tree: Path, tmp_path: Path
) -> None:
    kept = IndexStore([os.fsencode(os.path.realpath(tree))], tmp_path)
    index, _ = scanner.scan(tree)
    with kept.lock():
        kept.save_partial(index)
    shutil.copytree(kept.folder / "partial", tmp_path / "copy")
    assert len(open_index(tree, cache_dir=tmp_path)) == 4
    # Killed before it was removed.
    shutil.copytree(tmp_path / "copy", kept.folder / "partial")
    assert len(open_index(tree, cache_dir=tmp_path)) == 4
    assert kept.load_partial() is None


def test_a_source_is_the_same_however_it_is_written(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tree.parent))
    monkeypatch.setenv("USERPROFILE", str(tree.parent))
    index = open_index("~/tree", cache_dir=tmp_path)
    for source in (tree, iter([tree])):
        assert open_index(source, cache_dir=tmp_path).uuid == index.uuid


def test_workers_find_an_index_from_another_folder(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    stored = open_index(tree, cache_dir="cache")
    assert open_index(tree, cache_dir="~/cache").uuid == stored.uuid
    stored.save("saved")
    pickled = [pickle.dumps(one) for one in (stored, FrameIndex.load("saved"))]
    del stored
    monkeypatch.chdir(tree)
    assert [len(pickle.loads(data)) for data in pickled] == [4, 4]


def test_a_store_that_may_only_be_read_is_used(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    stored = open_index(tree, cache_dir=tmp_path)

    def refuse(self: IndexStore) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(IndexStore, "lock", refuse)
    assert open_index(tree, cache_dir=tmp_path).uuid == stored.uuid
    assert not recwarn.list
    (tree / "0.dcm").unlink()
    with pytest.warns(UserWarning, match="cannot be kept in .*Read-only file system"):
        assert len(open_index(tree, cache_dir=tmp_path)) == 3


def test_a_store_without_locks_is_used_and_that_is_said(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.warns(UserWarning, match="file system without locks"):
        index = open_index(tree, cache_dir=tmp_path)
    assert len(index) == 4
    with pytest.warns(UserWarning, match="file system without locks"):
        assert open_index(tree, cache_dir=tmp_path).uuid == index.uuid


def test_a_lock_that_cannot_be_unlocked_is_no_error(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")
    real = fcntl.flock

    def flock(descriptor: int, how: int) -> None:
        if how == fcntl.LOCK_UN:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    index = open_index(tree, cache_dir=tmp_path)
    assert open_index(tree, cache_dir=tmp_path).uuid == index.uuid
