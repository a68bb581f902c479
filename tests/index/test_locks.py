"""Locks between processes: held by one, freed by its end, whatever the system says to that."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from dicomtorch.index import locks
from dicomtorch.index.locks import FileLock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lock"


def is_free(path: Path) -> bool:
    try:
        with FileLock(path, 0.0):
            return True
    except TimeoutError:
        return False


def test_one_holds_it(path: Path) -> None:
    with FileLock(path):
        assert not is_free(path)
        with pytest.raises(TimeoutError, match=r"0\.05 s"):
            FileLock(path, 0.05).acquire()
    assert is_free(path)
    assert path.stat().st_mode & 0o777 == 0o600
    held = FileLock(path).acquire()
    with held:  # acquired once
        assert not is_free(path)
    assert is_free(path)


def test_another_process_holds_it_until_it_ends(path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from dicomtorch.index.locks import FileLock\n"
        "lock = FileLock(Path(sys.argv[1])).acquire(); print('held', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    assert not is_free(path)
    child.kill()
    child.wait()
    child.stdout.close()
    with FileLock(path, 5.0):
        pass


def test_a_lock_whose_file_was_removed_is_another_lock(path: Path) -> None:
    first = FileLock(path).acquire()
    waiting = FileLock(path, 5.0)
    thread = threading.Thread(target=waiting.acquire)
    thread.start()
    time.sleep(0.05)
    path.unlink()
    path.touch()
    other = FileLock(path).acquire()
    first.release()
    thread.join(0.1)
    assert thread.is_alive()
    other.release()
    thread.join(5)
    assert not is_free(path)
    waiting.release()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK])
def test_a_file_system_without_locks(
    path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", failing(number))
    with FileLock(path) as lock:
        assert not lock.exists


def test_other_errors_are_raised_and_leave_nothing_open(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", failing(errno.EIO))
    with pytest.raises(OSError, match="Input/output"):
        FileLock(path).acquire()
    assert not locks._held


def test_unlocking_that_fails_frees_the_lock(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = FileLock(path).acquire()
    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", failing(errno.EIO))
        lock.release()
    assert is_free(path)


def failing(number: int) -> Any:
    def fail(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("unlocks", [True, False])
def test_a_forked_child_does_not_hold_what_its_parent_held(
    path: Path, unlocks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = FileLock(path).acquire()
    go_on, end = os.pipe()
    child = os.fork()
    if not child:
        os.close(end)
        lock.release()  # not its own
        os.read(go_on, 1)
        os._exit(0 if not is_free(path) else 1)
    os.write(end, b"x")
    assert os.waitpid(child, 0)[1] == 0

    child = os.fork()
    if not child:
        os.close(end)
        os.read(go_on, 1)  # until the parent is done
        os._exit(0)
    if not unlocks:
        monkeypatch.setattr(fcntl, "flock", failing(errno.EIO))
    lock.release()
    monkeypatch.undo()
    deadline = time.monotonic() + 5
    while not is_free(path) and time.monotonic() < deadline:
        time.sleep(0.01)
    free = is_free(path)
    os.write(end, b"x")
    os.waitpid(child, 0)
    os.close(end)
    os.close(go_on)
    assert free
