"""A forked child never waits for a lock that a thread of its parent held, and one list names every lock and pool."""

from __future__ import annotations

import ast
import contextlib
import gc
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydicom.uid import DeflatedExplicitVRLittleEndian

import dicomtorch._forks
from dicomtorch import DicomFrames, FrameLoader, FrameReader, PixelOptions, scan
from dicomtorch._forks import ForkedLock, lazy
from dicomtorch.datasets import samples
from dicomtorch.index.locks import FileLock
from dicomtorch.pixels import slots
from dicomtorch.reader import inflated, threads
from dicomtorch.reports.verify import Verification
from tests.support.phantoms import ct, ct_pixels, write

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

PACKAGE = Path(dicomtorch._forks.__file__).parent
LOCKS = {
    *("Lock", "RLock", "Condition", "Semaphore", "BoundedSemaphore", "Event", "Barrier"),
    *("Thread", "ThreadPoolExecutor", "ProcessPoolExecutor", "Pool", "flock", "lockf"),
    *("Queue", "SimpleQueue", "LifoQueue", "PriorityQueue", "ForkedLock", "FileLock"),
}


# --- the list ---------------------------------------------------------------------------------------------------------


def named(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def locks_of(source: str) -> set[str]:
    """The locks, threads and pools that a module makes."""
    tree = ast.parse(source)
    return {
        named(node.func)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and named(node.func) in LOCKS
        and not (isinstance(node.func, ast.Attribute) and named(node.func.value) == "cuda")
    }


def test_every_lock_and_pool_is_on_the_list() -> None:
    made = {
        path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", ".")
        for path in PACKAGE.rglob("*.py")
        if locks_of(path.read_text(encoding="utf-8"))
    }
    rows = re.findall(r"^\| (`.*?) \|", dicomtorch._forks.__doc__ or "", re.MULTILINE)
    assert made - {"_forks"} == set(re.findall("`(.*?)`", " ".join(rows)))


def test_no_attribute_is_computed_under_a_lock() -> None:
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                found = [named(one) for one in node.decorator_list]
                assert "cached_property" not in found, f"{path}: {node.name}"


def test_the_search_can_find_something() -> None:
    assert locks_of("import threading\nx = threading.Lock()") == {"Lock"}
    assert locks_of("lock()") == set()


# --- forks ------------------------------------------------------------------------------------------------------------


def ends(work: Callable[[], object], seconds: float = 30.0) -> bool:
    """Whether a forked child that does `work` ends well in time."""
    child = os.fork()
    if not child:
        try:
            torch.set_num_threads(1)  # as a worker of a DataLoader has it
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return status == 0
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


@contextlib.contextmanager
def held(lock: AbstractContextManager[Any]) -> Iterator[None]:
    """Another thread holds a lock meanwhile."""
    holds, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            holds.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    holds.wait()
    try:
        yield
    finally:
        done.set()
        thread.join()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for k in range(6):
        dataset = ct(ct_pixels(k), k)
        del dataset.WindowCenter, dataset.WindowWidth
        if k % 2:
            dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        write(dataset, tmp_path / "tree" / f"{k}.dcm")
    return tmp_path / "tree"


def reader_of(frames: DicomFrames) -> FrameReader:
    assert isinstance(frames._reader, FrameReader)
    return frames._reader


def read_all(frames: DicomFrames) -> None:
    for k in range(len(frames)):
        np.testing.assert_array_equal(frames[k][0][0].numpy(), ct_pixels(k))


def test_a_held_lock_makes_a_child_wait_that_has_no_rule_for_it() -> None:
    lock = threading.Lock()
    with held(lock):
        assert not ends(lock.acquire, 0.3)


@pytest.mark.parametrize("which", ["inflated", "pool"])
def test_a_child_reads_whatever_lock_of_a_reader_is_held(tree: Path, which: str) -> None:
    frames = DicomFrames(tree, values="stored")
    lock: Any = inflated._last_inflated.lock if which == "inflated" else threads._executor_lock
    with held(lock):
        assert ends(lambda: read_all(frames))
        assert ends(lambda: reader_of(frames).read_many(range(6), num_threads=3))


def test_a_child_has_threads_of_its_own(tree: Path) -> None:
    frames = DicomFrames(tree, values="stored")
    reader_of(frames).read_many(range(6), num_threads=3)
    busy = threading.Event()
    waiting = [threads.decode_pool().submit(busy.wait) for _ in range(os.cpu_count() or 1)]
    try:
        assert ends(lambda: reader_of(frames).read_many(range(6), num_threads=3))
    finally:
        busy.set()
        for task in waiting:
            task.result()


def test_locks_that_are_made_anew() -> None:
    with held(slots._slots._lock):
        assert ends(lambda: slots._slots.batch((4, 256, 256), torch.float32, 1 << 20))
    with held(samples._global_generators):
        assert ends(lambda: samples._global_generators.acquire())
    lock = ForkedLock()

    def take(lock: ForkedLock = lock) -> None:
        with lock:
            pass

    with held(lock):
        assert ends(take)
    assert id(lock) in dicomtorch._forks._locks
    number = id(lock)
    del lock, take
    gc.collect()
    assert number not in dicomtorch._forks._locks


def test_an_interrupt_leaves_no_lock_taken() -> None:
    lock = ForkedLock()

    def interrupt(frame: Any, event: str, _: object) -> Any:
        if event == "return" and frame.f_code.co_filename == dicomtorch._forks.__file__:
            raise KeyboardInterrupt
        return interrupt

    before = sys.gettrace()
    sys.settrace(interrupt)
    try:
        with pytest.raises(KeyboardInterrupt), lock:
            pass
    finally:
        sys.settrace(before)
    assert lock._lock.acquire(blocking=False)


def test_a_lock_of_the_frame_cache_goes_with_the_thread_that_held_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    ready, wait = os.pipe()
    with held(FileLock(path)):
        child = os.fork()
        if not child:
            os.read(ready, 1)
            try:
                with FileLock(path, 10.0):
                    os._exit(0)
            except BaseException:
                os._exit(1)
    os.write(wait, b"x")
    assert os.waitpid(child, 0)[1] == 0
    os.close(ready)
    os.close(wait)


def test_an_attribute_that_is_being_computed(tree: Path) -> None:
    started, go_on = threading.Event(), threading.Event()
    parent = os.getpid()

    class Slow:
        @lazy
        def value(self) -> int:
            """A number."""
            if os.getpid() == parent:
                started.set()
                go_on.wait()
            return 7

    slow = Slow()
    thread = threading.Thread(target=lambda: slow.value)
    thread.start()
    started.wait()
    assert ends(lambda: slow.value)
    assert ends(lambda: Slow().value)
    go_on.set()
    thread.join()
    assert (slow.value, Slow.value.__doc__) == (7, "A number.")
    assert slow.__dict__ == {"value": 7}


def test_children_that_are_forked_while_threads_read_all_end(tree: Path, tmp_path: Path) -> None:
    index, _ = scan(tree)
    stored = DicomFrames(tree, values="stored", cache=tmp_path / "cache")
    readers = [FrameReader(index, options=PixelOptions(window="series")), reader_of(stored)]
    stop = threading.Event()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def hammer() -> None:
        while not stop.is_set():
            fresh = FrameReader(index, options=PixelOptions(window="series"))
            for reader in (*readers, fresh):
                for frame in reader.read_many(range(6), num_threads=2):
                    assert not isinstance(frame, Exception)

    def work() -> None:
        sys.setswitchinterval(interval)
        read_all(stored)
        assert len(readers[0].read_many(range(6))) == 6

    try:
        with ThreadPoolExecutor(3) as pool:
            tasks = [pool.submit(hammer) for _ in range(3)]
            try:
                assert all(ends(work, 60.0) for _ in range(6))
            finally:
                stop.set()
            for task in tasks:
                task.result()
    finally:
        sys.setswitchinterval(interval)


def load_all(frames: DicomFrames) -> None:
    for images, meta in FrameLoader(frames, 2, num_threads=2):
        for image, number in zip(images, meta["index"].tolist(), strict=True):
            np.testing.assert_array_equal(image[0].numpy(), ct_pixels(number))


def scan_all(tree: Path) -> None:
    index, _ = scan(tree, num_workers=2)
    assert len(index) == 6


def verify_all(tree: Path) -> None:
    index, _ = scan(tree, num_workers=0)
    assert Verification(index, num_threads=2).run().decoded == 6


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("what", ["load", "scan", "verify"])
def test_children_that_are_forked_while_a_pool_is_at_work(tree: Path, what: str) -> None:
    frames = DicomFrames(tree, values="stored")
    works: dict[str, Callable[[], None]] = {
        "load": lambda: load_all(frames),
        "scan": lambda: scan_all(tree),
        "verify": lambda: verify_all(tree),
    }
    ended, failures = threading.Event(), []

    def go_on() -> None:
        while not ended.is_set():
            try:
                works[what]()
            except BaseException as error:
                failures.append(error)
                raise

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        assert all(ends(works[what]) for _ in range(6))
    finally:
        ended.set()
        thread.join()
    assert failures == []
