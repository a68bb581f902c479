"""Scanning with child processes: the same result, no file lost, no process left behind."""

from __future__ import annotations

import operator
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.scanner import chunks, reading
from dicomtorch.scanner import pool as scan_pool
from dicomtorch.scanner.scan import scan
from tests.support.phantoms import ct, ct_pixels, write
from tests.support.scanned import assert_same, waits_for

POSIX = pytest.mark.skipif(os.name != "posix", reason="needs signals")
ROOT = Path(scan_pool.__file__).parents[2]


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "_SMALLEST", 3)
    monkeypatch.setattr(chunks, "_FIRST", 3)
    monkeypatch.setattr(reading, "_LARGEST_OF_CHILDREN", 5)


@pytest.mark.parametrize("workers", [1, 3])
def test_the_result_is_that_of_one_process(tree: Path, workers: int) -> None:
    alone, report = scan(tree, num_workers=0, tags=["PatientSex"])
    together, other = scan(tree, num_workers=workers, tags=["PatientSex"])
    assert len(alone) == 44
    assert (report.read, report.counts) == (other.read, other.counts)
    assert_same(alone, together)


def test_changed_files_are_read_in_processes_too(tree: Path) -> None:
    old, _ = scan(tree, num_workers=0)
    for k in range(20, 30):
        write(ct(ct_pixels(k), k), tree / "new" / f"{k}.dcm")
    (tree / "a" / "0.dcm").unlink()
    alone, _ = scan(tree, index=old, num_workers=0)
    together, report = scan(tree, index=old, num_workers=2)
    assert (report.read, report.removed) == (10, 1)
    assert_same(alone, together)


def test_processes_are_used_where_there_are_many_files(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[int] = []

    def count(processes: int) -> Any:
        used.append(processes)
        return scan_pool.ChildProcesses(processes)

    monkeypatch.setattr(reading, "ChildProcesses", count)
    monkeypatch.setattr(reading, "usable_cores", lambda: 2)
    scan(tree)
    assert used == []
    monkeypatch.setattr(reading, "_FEW", 10)
    index, report = scan(tree)
    assert used == [2]
    assert report.read == 43
    assert_same(index, scan(tree, num_workers=0)[0])
    monkeypatch.setattr(reading, "usable_cores", lambda: 1)
    scan(tree)
    assert used == [2]


DYING = {
    "at once": "pass",
    "after something that is no answer": """
import os, sys
from dicomtorch.scanner import child
answers = os.fdopen(os.dup(1), "wb")
answers.write(child._GREETING)
answers.flush()
child.receive(sys.stdin.buffer)
child.send(answers, child.packed(5))
child.receive(sys.stdin.buffer)
""",
    "after a batch": """
import os, sys
from dicomtorch.scanner import child
answers = os.fdopen(os.dup(1), "wb")
answers.write(child._GREETING)
answers.flush()
function, arguments = child.receive(sys.stdin.buffer)
child.send(answers, child.packed((True, function(*arguments))))
child.receive(sys.stdin.buffer)
answers.write(child._LENGTH.pack(1000) + b"half an answer")
answers.flush()
os._exit(1)
""",
}


@pytest.mark.parametrize("when", DYING)
def test_a_child_that_dies_loses_no_file(
    tree: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    start = subprocess.Popen

    def dying(command: list[str], **options: Any) -> Any:
        return start([command[0], "-c", DYING[when]], **options)

    monkeypatch.setattr(subprocess, "Popen", dying)
    together, report = scan(tree, num_workers=2)
    assert report.read == 43
    monkeypatch.undo()
    assert_same(scan(tree, num_workers=0)[0], together)


@pytest.mark.parametrize("said", ["words", "a line\n", "\n" * 20], ids=["words", "line", "lines"])
def test_what_an_interpreter_says_as_it_starts_is_passed_over(
    tree: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    folder = tmp_path_factory.mktemp("site")
    (folder / "sitecustomize.py").write_text(f"print({said!r}, end='', flush=True)\n")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setattr(
        scan_pool.ChildProcesses, "_call_here", lambda *_: pytest.fail("not in a child")
    )
    assert len(scan(tree, num_workers=2)[0]) == 44


def test_where_no_child_can_be_started_files_are_read_here(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    assert len(scan(tree, num_workers=2)[0]) == 44


def test_an_error_in_the_scan_ends_the_children(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []
    start = scan_pool._start

    def remember() -> Any:
        started.append(start())
        return started[-1]

    def interrupt(_: FrameIndex) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(scan_pool, "_start", remember)
    monkeypatch.setattr(reading, "_BETWEEN_CHECKPOINTS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        scan(tree, num_workers=2, checkpoint=interrupt)
    assert len(started) == 2
    assert all(child.poll() is not None for child in started)


# What children have at a time


def test_calls_and_answers_that_fill_their_pipes_pass_each_other() -> None:
    with scan_pool.ChildProcesses(1) as pool:
        made = [pool.submit(operator.mul, bytes([k]) * 500_000, 2) for k in range(8)]
        assert [call.result(60) for call in made] == [bytes([k]) * 1_000_000 for k in range(8)]


def test_no_call_waits_behind_a_slow_one_while_another_child_has_nothing_to_do(
    tmp_path: Path,
) -> None:
    with scan_pool.ChildProcesses(2) as pool:
        slow = pool.submit(waits_for, tmp_path / "last")
        for name in ("one", "two", "last"):
            pool.submit(Path.touch, tmp_path / name).result(60)
        assert slow.result(60)


def test_what_cannot_be_sent_fails_alone() -> None:
    with scan_pool.ChildProcesses(1) as pool:
        calls = [pool.submit(os.getpid), pool.submit(lambda: 1), pool.submit(os.getpid)]
        child = calls[0].result(60)
        with pytest.raises((AttributeError, pickle.PicklingError)):
            calls[1].result(60)
        assert child == calls[2].result(60) != os.getpid()


def test_a_child_that_cannot_send_what_it_made_ends_quietly(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with scan_pool.ChildProcesses(1) as pool:
        (child,) = pool._children
        assert not pool.submit(threading.Lock).result(60).locked()  # made here
        assert child.wait(60) == 0
    assert capfd.readouterr().err == ""


def run(code: str, folder: Path, **options: Any) -> subprocess.Popen[str]:
    script = folder / "script.py"
    script.write_text(code)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment, **options
    )


@pytest.mark.timeout(60)
def test_a_script_without_a_guard_is_run_once(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "struct.py").write_text("raise SystemExit('the module of another')")
    code = f"""
import sys
sys.path.pop(0)
from dicomtorch.scanner.scan import scan
print("here")
index, report = scan({str(tree)!r}, num_workers=2)
print(len(index), report.read)
"""
    process = run(code, tmp_path, cwd=tmp_path)
    out, _ = process.communicate()
    assert (process.returncode, out.split()) == (0, ["here", "44", "43"])


WAITING = """
import sys, time
from dicomtorch.scanner.pool import ChildProcesses
pool = ChildProcesses(2)
calls = [pool.submit(time.sleep, 60) for _ in range({calls})]
print(*[child.pid for child in pool._children], flush=True)
try:
    time.sleep(30)
finally:
    pool.shutdown()
"""


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    try:  # a zombie that nobody has waited for yet is gone too
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return False


@POSIX
@pytest.mark.timeout(60)
@pytest.mark.parametrize("calls", [0, 6])
@pytest.mark.parametrize("number", ["SIGINT", "SIGKILL"])
def test_no_child_outlives_its_parent(tmp_path: Path, number: str, calls: int) -> None:
    process = run(WAITING.format(calls=calls), tmp_path, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    children = [int(pid) for pid in process.stdout.readline().split()]
    assert len(children) == 2
    time.sleep(0.3)
    assert not any(gone(pid) for pid in children)
    process.send_signal(getattr(signal, number))
    process.wait(10)
    deadline = time.monotonic() + 10
    while not all(gone(pid) for pid in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert all(gone(pid) for pid in children)
    process.stdout.close()


# Checkpoints


@pytest.mark.parametrize("workers", [0, 2])
def test_a_checkpoint_spares_what_was_read(
    tree: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr(reading, "_BETWEEN_CHECKPOINTS", 0.0)
    seen: list[FrameIndex] = []
    whole, _ = scan(tree, num_workers=workers, checkpoint=seen.append)
    assert seen
    counts = [len(index.files["path"]) for index in seen]
    assert counts == sorted(counts)
    assert counts[0] < 43
    some = seen[0]
    again, report = scan(tree, index=some, num_workers=workers)
    assert (report.read, report.reused) == (43 - counts[0], counts[0])
    for column in ("SOPInstanceUID", "offset", "patient", "WindowCenter"):
        assert list(again.column(column)) == list(whole.column(column))
