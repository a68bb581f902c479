"""One pass over the batches of an epoch, and the threads that make them."""

from __future__ import annotations

import atexit
import os
import queue
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from dicomtorch.batches.fetch import Fetch, Indices
from dicomtorch.batches.progress import Progress, checksum_with
from dicomtorch.errors import OptionError
from dicomtorch.reader.threads import limit_threads

_SIGNAL_SECONDS = (
    1.0  # how long a wait goes on before Ctrl-C is looked for, where waits cannot be interrupted
)


class Pass(Iterator[Any]):
    """One pass over the batches. Its threads do not know it, so they end when nobody else does either.

    Args:
        fetch: Makes a batch of indices.
        batches: The indices of each batch.
        progress: Where the pass is; counted on.
        num_threads: Batches that are made at once.
        prefetch: Batches that may wait beyond those.
    """

    def __init__(
        self,
        fetch: Fetch,
        batches: Iterator[Any],
        progress: Progress,
        num_threads: int,
        prefetch: int,
    ) -> None:
        self._fetch = fetch
        self._batches = batches
        self._progress = progress
        self._checksum = progress.checksum  # of what was handed out
        self._made: deque[tuple[_Task, int | None]] = deque()
        self._drawn: deque[Indices] = deque()
        self._most = num_threads + prefetch
        self._process = os.getpid()
        self._crew = _Crew(num_threads, fetch)
        weakref.finalize(self, self._crew.stop).atexit = False
        self._schedule()

    def __next__(self) -> Any:
        if os.getpid() != self._process:
            raise OptionError(
                f"this pass over the batches was begun in process {self._process}, whose threads make them; "
                f"begin one in process {os.getpid()}, which was forked from it"
            )
        try:
            self._schedule()
            if not self._made:
                self._progress.finished |= not self._crew.stopped
                raise StopIteration
            task, checksum = self._made.popleft()
            batch = self._fetch.deliver(task.result())
            self._schedule()
        except BaseException:
            self._crew.stop()
            self._made.clear()
            self._batches = iter(())
            self._drawn.clear()
            raise
        self._progress.batches += 1
        self._progress.checksum = checksum
        return batch

    def _schedule(self) -> None:
        """Gives the threads what they may make. What comes later is drawn too, for its files to be read ahead."""
        while len(self._made) < self._most:
            drawn: list[Indices] = []
            while len(self._drawn) <= self._fetch.lead * self._most:
                indices = next(self._batches, None)
                if indices is None:
                    break
                drawn.append(list(indices))
                self._drawn.append(drawn[-1])
            if not self._drawn:
                return
            ahead = self._fetch.announced(drawn)
            indices = self._drawn.popleft()
            self._checksum = checksum_with(self._checksum, indices)
            self._made.append((self._crew.give(indices, ahead), self._checksum))


class _Crew:
    """The threads of one pass."""

    def __init__(self, num_threads: int, fetch: Fetch) -> None:
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._state = _CrewState()
        self._num_threads = num_threads
        for k in range(num_threads):
            thread = threading.Thread(
                target=_work,
                args=(self._tasks, self._state, fetch),
                name=f"dicomtorch-batch-{k}",
                daemon=True,
            )
            try:
                thread.start()
            except RuntimeError as error:  # no memory for its stack, or too many threads
                self.stop()
                raise MemoryError(
                    f"thread {k + 1} of {num_threads} of a FrameLoader cannot be started; take fewer (num_threads=)"
                ) from error
            _running[thread] = self.stop

    @property
    def stopped(self) -> bool:
        return self._state.stopped

    def give(self, indices: Indices, ahead: Indices) -> _Task:
        task = _Task(indices, ahead)
        self._tasks.put(task)
        return task

    def stop(self) -> None:
        """Lets each thread end after the batch it is at.

        The collector calls it too, in any thread: it waits for nothing and takes no lock.
        """
        if not self._state.stopped:
            self._state.stopped = True
            for _ in range(self._num_threads):
                self._tasks.put(None)


class _CrewState:
    stopped = False


_running: dict[threading.Thread, Callable[[], None]] = {}


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_running.clear)  # a child has none of them


@atexit.register
def _end() -> None:
    # A thread inside a decoder must not outlive the interpreter.
    for thread, stop in list(_running.items()):
        stop()
        thread.join()


class _Task:
    """One batch to be made."""

    def __init__(self, indices: Indices, ahead: Indices) -> None:
        self._indices = indices
        self._ahead = ahead
        self._batch: Any = None
        self._error: BaseException | None = None
        # A bare lock wakes the loop once; each wake-up takes a core from a thread that decodes.
        self._pending = threading.Lock()
        self._pending.acquire()

    def run(self, fetch: Fetch) -> None:
        try:
            self._batch = fetch(self._indices, self._ahead)
        except BaseException as error:  # the loop raises it
            self._error = error
        finally:
            self._pending.release()
            del self  # the traceback of its error has this frame: a cycle would keep a batch

    def result(self) -> Any:
        """The batch, or its error, in the thread of the loop: once it is there."""
        while not self._pending.acquire(timeout=_SIGNAL_SECONDS):
            pass
        error, self._error = self._error, None
        try:
            if isinstance(error, StopIteration):  # would end the loop as if all were well
                raise RuntimeError("the dataset raised StopIteration") from error
            if error is not None:
                raise error
        finally:
            del error  # its traceback has this frame
        return self._batch


def _work(tasks: queue.SimpleQueue[_Task | None], state: _CrewState, fetch: Fetch) -> None:
    limit_threads(1)
    while True:
        task = tasks.get()
        if task is None or state.stopped:
            break
        task.run(fetch)
        del task  # it has the batch, whose memory shall be free as soon as the loop is done with it
    _running.pop(threading.current_thread(), None)
