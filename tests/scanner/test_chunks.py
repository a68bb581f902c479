"""Scanning by executors: the same index whatever runs the calls, and no file lost when calls fail."""

from __future__ import annotations

import functools
import multiprocessing
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import dicomtorch
from dicomtorch.datasets.frames import DicomFrames
from dicomtorch.errors import ExecutorError, OptionError
from dicomtorch.index import part_bytes
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.scanner import chunks
from dicomtorch.scanner.entries import UNREAD, Entry
from dicomtorch.scanner.scan import scan, with_tags
from dicomtorch.scanner.worker import scan_chunk
from tests.support.phantoms import ct, ct_pixels, write
from tests.support.scanned import Ending, assert_same, table_bytes

Call = Callable[..., Any]


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "_SMALLEST", 2)
    monkeypatch.setattr(chunks, "_FIRST", 4)


class Inline(Executor):
    """Calls at once, in this thread; `before` may raise, or return another call in place of the one it is given."""

    def __init__(self, before: Callable[[Call, tuple[Any, ...]], Call | None]) -> None:
        self.before = before
        self.calls: list[tuple[Any, ...]] = []

    def submit(self, fn: Call, /, *args: Any, **kwargs: Any) -> Future[Any]:
        assert not kwargs
        self.calls.append(args)
        future: Future[Any] = Future()
        try:
            future.set_result((self.before(fn, args) or fn)(*args))
        except Exception as error:
            future.set_exception(error)
        return future


def paths_of(call: tuple[Any, ...]) -> list[bytes]:
    return [entry.path for entry in call[3]]


def spawned(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))


# The same index


@pytest.mark.parametrize("make", [ThreadPoolExecutor, spawned], ids=["threads", "processes"])
def test_the_table_is_that_of_one_process(tree: Path, make: Callable[[int], Executor]) -> None:
    alone, report = scan(tree, num_workers=0, tags=["PatientSex"])
    with make(2) as executor:
        together, other = scan(tree, executor=executor, tags=["PatientSex"])
        assert executor.submit(len, "not shut down").result() == 13
    assert len(alone) == 44
    assert table_bytes(alone) == table_bytes(together)
    assert (report.read, report.counts) == (other.read, other.counts)
    assert_same(alone, together)


class Backwards(Executor):
    """Makes the last of the calls that wait first, in a thread, until it is shut down."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Future[Any], Call, tuple[Any, ...]]] = []
        self._change = threading.Condition()
        self._ends = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def submit(self, fn: Call, /, *args: Any, **_: Any) -> Future[Any]:
        future: Future[Any] = Future()
        with self._change:
            self._waiting.append((future, fn, args))
            self._change.notify()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        with self._change:
            self._ends = True
            self._change.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._change:
                while not self._ends and len(self._waiting) < 4 and self._change.wait(0.2):
                    pass
                if not self._waiting and self._ends:
                    return
                if not self._waiting:
                    continue
                future, fn, args = self._waiting.pop()
            future.set_result(fn(*args))


def test_rows_are_in_order_when_answers_are_not(tree: Path) -> None:
    with Backwards() as executor:
        assert table_bytes(scan(tree, executor=executor)[0]) == table_bytes(scan(tree)[0])
    assert not executor._thread.is_alive()


def test_no_call_is_like_an_earlier_one(tree: Path) -> None:
    executor = Inline(lambda *_: None)
    first = scan(tree, executor=executor)[0]
    write(ct(ct_pixels(50), 50), tree / "c" / "39.dcm")
    second = scan(tree, executor=executor)[0]
    assert len(executor.calls) > 8
    assert len({call[:2] for call in executor.calls}) == len(executor.calls)
    assert len({call[0] for call in executor.calls}) == 2
    assert len(first) == len(second)
    assert list(first.column("SOPInstanceUID")) != list(second.column("SOPInstanceUID"))


@pytest.mark.parametrize(("seconds", "largest"), [(0.0, 5), (1e9, 9)])
def test_calls_have_more_files_where_these_are_read_fast(
    tree: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, largest: int
) -> None:
    monkeypatch.setattr(chunks, "_LARGEST", 5)
    monkeypatch.setattr(chunks, "_LARGEST_FAST", 9)
    monkeypatch.setattr(chunks, "_FAST", seconds)
    executor = Inline(lambda *_: None)
    index, _ = scan(tree, executor=executor)
    assert max(len(paths_of(call)) for call in executor.calls) == largest
    assert table_bytes(index) == table_bytes(scan(tree, num_workers=0)[0])


def test_few_calls_are_under_way_at_a_time(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "_IN_FLIGHT", 3)
    monkeypatch.setattr(chunks, "_FIRST", 1)
    waiting: list[Future[Any]] = []
    most = 0

    class Counting(ThreadPoolExecutor):
        def submit(self, fn: Call, /, *args: Any, **kwargs: Any) -> Future[Any]:
            nonlocal most
            future = super().submit(fn, *args, **kwargs)
            waiting[:] = [one for one in waiting if not one.done()] + [future]
            most = max(most, len(waiting))
            return future

    with Counting(1) as executor:
        assert len(scan(tree, executor=executor)[0]) == 44
    assert most <= 3


def test_few_files_are_handed_out_before_any_tells_how_fast_it_is_read(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "_FIRST", 1)
    waiting: list[tuple[Future[Any], Call, tuple[Any, ...]]] = []
    counts: list[int] = []

    class Late(Executor):
        """Answers the first of its calls when somebody waits."""

        def submit(self, fn: Call, /, *args: Any, **_: Any) -> Future[Any]:
            waiting.append((Future(), fn, args))
            return waiting[-1][0]

    def wait(pending: Any, **_: Any) -> None:
        counts.append(len(pending))
        future, fn, args = waiting.pop(0)
        future.set_result(fn(*args))

    monkeypatch.setattr(chunks, "wait", wait)
    assert len(scan(tree, executor=Late())[0]) == 44
    first = chunks._BEFORE_ANY
    assert counts[:3] == [first, first + 1, first + 2]


def test_calls_shrink_at_the_end_so_that_all_workers_end_together() -> None:
    executor = Inline(lambda *_: None)
    executor._max_workers = 4  # type: ignore[attr-defined]
    reader = chunks.ChunkReader(executor, None, None)  # type: ignore[arg-type]
    reader._largest = 100
    given = [Entry(b"%d" % k, 0, UNREAD, 0) for k in range(5000)]
    made = list(reader._chunks(iter(given)))
    assert [entry for chunk in made for entry in chunk.entries] == given
    assert [chunk.number for chunk in made] == [(k,) for k in range(len(made))]
    sizes = [len(chunk.entries) for chunk in made]
    assert max(sizes) == sizes[len(sizes) // 2] == 100
    assert max(sizes[-4:]) <= 27
    assert sum(size < 100 for size in sizes) < 25


def test_changed_files_and_tags_are_read_by_an_executor(tree: Path) -> None:
    old, _ = scan(tree)
    for k in range(20, 30):
        write(ct(ct_pixels(k), k), tree / "new" / f"{k}.dcm")
    executor = Inline(lambda *_: None)
    found, report = scan(tree, index=old, executor=executor)
    assert sum(len(call[3]) for call in executor.calls) == report.read == 10
    assert_same(found, scan(tree)[0])
    before = len(executor.calls)
    tagged = with_tags(found, ["PatientSex"], executor=executor)
    assert len(executor.calls) > before
    assert list(tagged.column("PatientSex")) == list(
        scan(tree, tags=["PatientSex"])[0].column("PatientSex")
    )


def test_a_dataset_scans_by_an_executor_and_goes_to_workers(tree: Path, tmp_path: Path) -> None:
    executor = Inline(lambda *_: None)
    frames = DicomFrames(tree, executor=executor, cache_dir=tmp_path / "cache")
    assert executor.calls
    assert len(pickle.loads(pickle.dumps(frames))) == len(frames) == 44
    before = len(executor.calls)
    assert len(DicomFrames(tree, executor=executor, cache_dir=tmp_path / "cache")) == 44
    assert len(executor.calls) == before


# Failures


def test_a_chunk_that_fails_once_is_tried_again(tree: Path) -> None:
    failed: set[bytes] = set()

    def before(_: Call, call: tuple[Any, ...]) -> None:
        first = paths_of(call)[0]
        if first not in failed:
            failed.add(first)
            raise RuntimeError("a worker was lost")

    assert table_bytes(scan(tree, executor=Inline(before))[0]) == table_bytes(scan(tree)[0])


def test_of_a_chunk_that_fails_always_one_file_is_reported(tree: Path) -> None:
    def before(_: Call, call: tuple[Any, ...]) -> None:
        if b"a/b/10.dcm" in paths_of(call):
            raise RuntimeError("Doe^Jane")

    executor = Inline(before)
    index, report = scan(tree, executor=executor)
    (finding,) = [f for f in report.findings if "RuntimeError" in f.reason]
    assert finding.path.endswith("a/b/10.dcm")
    assert finding.file_class == "unreadable"
    assert "Doe" not in finding.reason
    tries = [len(call[3]) for call in executor.calls if b"a/b/10.dcm" in paths_of(call)]
    assert tries == [9, 9, 4, 2, 1]
    whole, _ = scan(tree)
    assert len(index) == len(whole) - 1
    assert index.files["mtime_ns"][list(index.files["path"]).index(b"a/b/10.dcm")] == UNREAD
    again, report = scan(tree, index=index)
    assert report.read == 1
    assert_same(again, whole, numbers=False)


def test_where_no_call_succeeds_the_scan_says_so(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def before(*_: Any) -> None:
        raise RuntimeError("no memory for workers")

    executor = Inline(before)
    monkeypatch.setattr(chunks, "_MOST_FAILURES", 12)
    with pytest.raises(
        ExecutorError, match="each of 12 calls failed, the last one with RuntimeError"
    ):
        scan(tree, executor=executor)
    assert len(executor.calls) <= 12 + chunks._IN_FLIGHT


def test_what_is_missing_where_workers_run_is_named(tree: Path) -> None:
    def before(*_: Any) -> None:
        raise ModuleNotFoundError("No module named 'dicomtorch'", name="dicomtorch")

    with pytest.raises(ExecutorError, match=r"cannot import .*dicomtorch\); install dicomtorch"):
        scan(tree, executor=Inline(before))


def test_workers_of_another_version_are_refused(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(*call: Any) -> bytes:
        with monkeypatch.context() as context:
            context.setattr(part_bytes, "__version__", "0.0.1")
            return scan_chunk(*call)

    with pytest.raises(ExecutorError, match=r"version 0\.0\.1, and this is .*; install dicomtorch"):
        scan(tree, executor=Inline(lambda *_: other))


def test_a_path_that_a_worker_cannot_open_is_named(tree: Path, tmp_path: Path) -> None:
    def elsewhere(token: str, number: int, job: Any, entries: Any) -> bytes:
        return scan_chunk(
            token, number, replace(job, below=bytes(tmp_path / "other") + b"/"), entries
        )

    executor = Inline(lambda *_: elsewhere)
    with pytest.raises(
        ExecutorError, match=r"cannot open .*/tree/.*\.dcm \(No such file .*same path"
    ):
        scan(tree, executor=executor)
    assert len(executor.calls) > 1  # tried again: another machine may have it


def test_what_one_worker_misses_is_read_here(tree: Path) -> None:
    def missing_one(*call: Any) -> bytes:
        path = tree / "a" / "0.dcm"
        path.rename(tree / "away")
        try:
            return scan_chunk(*call)
        finally:
            (tree / "away").rename(path)

    assert table_bytes(scan(tree, executor=Inline(lambda *_: missing_one))[0]) == table_bytes(
        scan(tree)[0]
    )


def test_what_nobody_can_open_is_reported_as_ever(tree: Path) -> None:
    (tree / "c" / "dangling.dcm").symlink_to(tree / "nowhere")
    found = [
        scan(tree, executor=Inline(lambda *_: None), follow_symlinks=True),
        scan(tree, follow_symlinks=True),
    ]
    assert found[0][1].findings == found[1][1].findings
    assert any("No such file" in finding.reason for finding in found[0][1].findings)


def test_too_little_memory_for_one_file_is_no_fault_of_it(tree: Path) -> None:
    def before(_: Call, call: tuple[Any, ...]) -> None:
        if b"c/3.dcm" in paths_of(call):
            raise MemoryError

    executor = Inline(before)
    with pytest.raises(MemoryError):
        scan(tree, executor=executor)
    assert len(executor.calls[-1][3]) == 1


def test_a_cancelled_call_is_made_again(tree: Path) -> None:
    class Cancelling(ThreadPoolExecutor):
        cancelled = 0

        def submit(self, fn: Call, /, *args: Any, **kwargs: Any) -> Future[Any]:
            if self.cancelled < 3:
                self.cancelled += 1
                future: Future[Any] = Future()
                future.cancel()
                return future
            return super().submit(fn, *args, **kwargs)

    with Cancelling(1) as executor:
        assert table_bytes(scan(tree, executor=executor)[0]) == table_bytes(scan(tree)[0])


# Broken executors


def test_a_broken_pool_ends_the_scan_and_what_was_read_is_kept(tree: Path, tmp_path: Path) -> None:
    kept: list[FrameIndex] = []
    with (
        spawned(1) as pool,
        pytest.raises(ExecutorError, match="that were read are kept") as caught,
    ):
        scan(tree, executor=Ending(pool, 4, tmp_path / "ended"), checkpoint=kept.append)
    assert isinstance(caught.value.__cause__, ExecutorError)
    assert isinstance(caught.value.__cause__.__cause__, BrokenProcessPool)
    (some,) = kept
    count = len(some.files["path"])
    assert 4 <= count < 43
    with spawned(1) as pool:
        index, report = scan(tree, executor=pool, index=some)
    assert (report.reused, report.read) == (count, 43 - count)
    assert_same(index, scan(tree)[0], numbers=False)


def test_a_dataset_goes_on_after_a_broken_pool(tree: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with spawned(1) as pool, pytest.raises(ExecutorError):
        DicomFrames(tree, executor=Ending(pool, 4, tmp_path / "ended"), cache_dir=cache)
    frames = DicomFrames(tree, cache_dir=cache)
    assert frames.report.reused >= 4
    assert_same(frames.index, scan(tree)[0], numbers=False)


def test_an_executor_that_was_shut_down_is_told(tree: Path) -> None:
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    with pytest.raises(ExecutorError, match=r"broken \(RuntimeError\)"):
        scan(tree, executor=executor)


def test_what_waits_is_cancelled_when_the_scan_is_interrupted(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Callable[[], Any]] = []
    waiting: list[Future[Any]] = []

    class Slow(ThreadPoolExecutor):
        def submit(self, fn: Call, /, *args: Any, **kwargs: Any) -> Future[Any]:
            calls.append(functools.partial(fn, *args, **kwargs))
            waiting.append(Future())  # nobody runs it, but the first once another waits
            if len(waiting) == 2:
                waiting[0].set_result(calls[0]())
            return waiting[-1]

    def interrupt(_: FrameIndex) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(dicomtorch.scanner.reading, "_BETWEEN_CHECKPOINTS", 0.0)
    with Slow(1) as executor, pytest.raises(KeyboardInterrupt):
        scan(tree, executor=executor, checkpoint=interrupt)
    assert len(waiting) > 1
    assert all(future.cancelled() for future in waiting[1:])


@pytest.mark.parametrize("is_closed", [False, True])
def test_an_engine_without_workers_so_far_reads_when_some_come(tree: Path, is_closed: bool) -> None:
    class Client:
        def ncores(self) -> dict[str, int]:
            if is_closed:
                raise AttributeError("scheduler")
            return {}

    before, _ = scan(tree, num_workers=0)
    executor = Inline(lambda *_: None)
    executor._client = Client()  # type: ignore[attr-defined]
    assert table_bytes(scan(tree, executor=executor)[0]) == table_bytes(before)
    reader = chunks.ChunkReader(executor, None, 100)  # type: ignore[arg-type]
    assert reader._largest == 25


# What is no executor


def test_a_client_of_dask_gets_advice(tree: Path) -> None:
    class Client:
        def get_executor(self) -> None: ...

    with pytest.raises(OptionError, match=r"is Client, .*get_executor\(pure=False\)"):
        scan(tree, executor=Client())  # type: ignore[arg-type]
    with pytest.raises(OptionError, match=r"is int, which is no executor"):
        scan(tree, executor=2)  # type: ignore[arg-type]


def test_an_executor_and_workers_are_one_too_many(tree: Path) -> None:
    with ThreadPoolExecutor(1) as executor, pytest.raises(OptionError, match="give one of them"):
        scan(tree, executor=executor, num_workers=2)
