"""Processes that read headers for a scan, and what becomes of their batches when one of them dies."""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from dicomtorch.index.builder import Part
from dicomtorch.scanner.entries import Entry
from dicomtorch.scanner.worker import EntryReader, Job, greeted, receive, send

_SMALLEST: Final = 128
_LARGEST: Final = 2048
_AHEAD: Final = 4  # batches per process that wait to be read

Batch = tuple[int, list[Entry]]


def usable_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def read_in_processes(
    entries: Iterable[Entry], job: Job, processes: int, expected: int | None
) -> Iterator[tuple[int, Part]]:
    """Reads files in child processes.

    A batch whose process dies, whatever killed it, is read again in this process; so are all if none can be started.

    Args:
        entries: The files, taken while others are read.
        job: What to read of each.
        processes: Children.
        expected: How many files there are, `None` if nobody knows yet.

    Yields:
        (number of the batch, what came out), in any order.
    """
    pool = _Pool(job, processes)
    try:
        yield from pool.read(_batches(entries, processes, expected))
    finally:
        pool.close()


def _batches(entries: Iterable[Entry], processes: int, expected: int | None) -> Iterator[Batch]:
    """Batches that grow, so that all children begin at once, and that are small against what each has to do."""
    largest = _LARGEST if expected is None else expected // (8 * processes)
    largest = min(max(largest, _SMALLEST), _LARGEST)
    size, number = _SMALLEST, 0
    batch: list[Entry] = []
    for entry in entries:
        batch.append(entry)
        if len(batch) >= size:
            yield number, batch
            number, batch = number + 1, []
            size = min(size + size // 2, largest)
    if batch:
        yield number, batch


class _Pool:
    """Child processes, each with a thread that feeds it."""

    def __init__(self, job: Job, processes: int) -> None:
        self._job = job
        self._reader: EntryReader | None = None
        self._batches: queue.Queue[Batch | None] = queue.Queue(_AHEAD * processes)
        self._results: queue.Queue[tuple[Batch, Part | BaseException | None] | None] = queue.Queue()
        self._closing = False
        self._children: list[subprocess.Popen[bytes]] = []
        with contextlib.suppress(OSError):  # what cannot be started is not missed: see `read`
            while len(self._children) < processes:
                self._children.append(_start())
        self._threads = [
            threading.Thread(target=self._feed, args=(child,), daemon=True, name="dicomtorch-scan")
            for child in self._children
        ]
        for thread in self._threads:
            thread.start()

    def read(self, batches: Iterator[Batch]) -> Iterator[tuple[int, Part]]:
        """Hands out `batches`, and yields what comes back as it comes.

        With two children, batches 0, 1 and 2: 0 and 1 are given out; 1 comes back first and is yielded, and its child
        takes 2; the other child dies with 0, which its thread hands back, and 0 is read here.
        """
        unanswered = 0
        for batch in batches:
            if self._give(batch):
                unanswered += 1
            else:
                yield batch[0], self._read_here(batch)
            while (done := self._take(timeout=0)) is not None:
                unanswered -= 1
                yield done
        while unanswered:
            done = self._take(timeout=0.2)
            if done is None and not self._has_children():
                done = self._left()
            if done is not None:
                unanswered -= 1
                yield done

    def _has_children(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def _give(self, batch: Batch) -> bool:
        """Waits until there is room for a batch; `False` if no child is left to take it."""
        while self._has_children():
            with contextlib.suppress(queue.Full):
                self._batches.put(batch, timeout=0.05)
                return True
        return False

    def _take(self, timeout: float) -> tuple[int, Part] | None:
        """The next result, `None` if there is none in time."""
        try:
            item = self._results.get(timeout=timeout)
        except queue.Empty:
            return None
        assert item is not None
        batch, result = item
        if isinstance(result, BaseException):
            raise result
        return batch[0], self._read_here(batch) if result is None else result

    def _left(self) -> tuple[int, Part] | None:
        """A batch that nobody took, read here; `None` if all were taken."""
        done = self._take(timeout=0)
        if done is not None:
            return done
        try:
            batch = self._batches.get_nowait()
        except queue.Empty:
            return None
        assert batch is not None
        return batch[0], self._read_here(batch)

    def _read_here(self, batch: Batch) -> Part:
        if self._reader is None:
            self._reader = EntryReader(self._job)
        return self._reader.part(batch[1])

    def _feed(self, child: subprocess.Popen[bytes]) -> None:
        """Gives a child one batch after the other, until there are no more or it is gone."""
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            send(child.stdin, self._job)
            greeted(child.stdout)
            receive(child.stdout)
        except (OSError, EOFError, ValueError):
            return
        while True:
            batch = self._batches.get()
            if batch is None or self._closing:
                return
            try:
                send(child.stdin, batch[1])
                part: Part | None = receive(child.stdout)
            except (OSError, EOFError, ValueError):
                self._results.put((batch, None))
                return
            except BaseException as error:  # out of memory, for one: the scan must not wait forever
                self._results.put((batch, error))
                return
            self._results.put((batch, part))

    def close(self) -> None:
        """Ends the children, whatever they are doing."""
        self._closing = True
        for child in self._children:
            child.kill()
        with contextlib.suppress(queue.Empty):
            while True:
                self._batches.get_nowait()
        for _ in self._threads:
            with contextlib.suppress(queue.Full):
                self._batches.put_nowait(None)
        for child, thread in zip(self._children, self._threads, strict=True):
            child.wait()
            thread.join()
            for pipe in (child.stdin, child.stdout):
                assert pipe is not None
                with contextlib.suppress(OSError):
                    pipe.close()


def _start() -> subprocess.Popen[bytes]:
    if not sys.executable:
        raise OSError("this interpreter has no program of its own")
    return subprocess.Popen(
        # -P: a module in the current folder must not stand in for one of Python's.
        [sys.executable, "-P", "-m", "dicomtorch.scanner.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=_environment(),
        start_new_session=True,  # Ctrl-C is for the parent
    )


def _environment() -> Mapping[str, Any]:
    """This process's, with the folder of the package among those that modules are looked for in."""
    here = str(Path(__file__).resolve().parents[2])
    found = os.environ.get("PYTHONPATH")
    return os.environ | {"PYTHONPATH": f"{found}{os.pathsep}{here}" if found else here}
