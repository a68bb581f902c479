"""Scanning by an executor: files in chunks, their rows in order, and what becomes of chunks that fail."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from dataclasses import dataclass, replace
from itertools import count, islice
from typing import Any, Final

import numpy as np

from dicomtorch._forks import lazy
from dicomtorch._version import __version__
from dicomtorch.errors import ExecutorError, IndexFileError, OptionError, printable
from dicomtorch.index.builder import FileRows, Part, build_part
from dicomtorch.index.part_bytes import part_from_bytes
from dicomtorch.scanner.entries import UNREAD, Entries, Entry, is_fault
from dicomtorch.scanner.worker import EntryReader, Job, scan_chunk

_SMALLEST: Final = 16  # files in a chunk
_FIRST: Final = 128
_LARGEST: Final = 256
_LARGEST_FAST: Final = 2048
"""The same where files are read so fast that engines take longer to pass on a call."""
_FAST: Final = 0.1  # seconds that all workers take for such a chunk
_MOST_AHEAD: Final = 16384  # files that are listed and in no chunk yet
_IN_FLIGHT: Final = 32  # chunks at least that an executor has at a time
_BEFORE_ANY: Final = 4
"""The same until one tells how fast files are read; then one more for each answer."""
_MOST_FAILURES: Final = 100  # before anything was read: it is not the files then

Number = tuple[int, ...]
"""Of a chunk: its halves are (*number, 0) and (*number, 1), so that numbers are in the order of the files."""


def checked(executor: Any) -> Executor:
    """An executor, as a user gave it.

    Raises:
        OptionError: It is none.
    """
    if isinstance(executor, Executor):
        return executor
    advice = (
        "give client.get_executor(pure=False)"
        if hasattr(executor, "get_executor")
        else "give a concurrent.futures.Executor, or an object of a class derived from it"
    )
    raise OptionError(f"executor= is {type(executor).__name__}, which is no executor; {advice}")


@dataclass(frozen=True, slots=True)
class _Chunk:
    number: Number
    entries: Sequence[Entry]
    failures: int = 0


class ChunkReader:
    """Reads files with an executor, which stays the caller's to shut down.

    Args:
        executor: Any.
        job: What to read of each file.
        expected: How many files there are, `None` if nobody knows yet.
        largest: Files of a chunk at most; `None`: 256, and up to 2048 as far as workers read these in no time.

    Attributes:
        requests: Made so far for remote objects.
        bytes_read: What came.
    """

    def __init__(
        self, executor: Executor, job: Job, expected: int | None, largest: int | None = None
    ) -> None:
        self._executor = executor
        self._job = job
        self._token = uuid.uuid4().hex
        self._calls = count()
        self._again: deque[_Chunk] = deque()
        self._pending: dict[Future[bytes], _Chunk] = {}
        self.requests = self.bytes_read = 0
        self._failures: int | None = 0  # so far, `None` once something was read
        self._workers = workers = _workers_of(executor)
        self._most_in_flight = max(_IN_FLIGHT, 2 * workers)
        self._in_flight = min(self._most_in_flight, max(_BEFORE_ANY, 2 * workers))
        most = largest or _LARGEST_FAST
        share = most if expected is None else -(-expected // (4 * workers))
        self._most_files = min(max(share, _SMALLEST), most)
        self._largest = min(largest or _LARGEST, self._most_files)
        self._files_read, self._seconds = 0, 0.0

    @lazy
    def _reader(self) -> EntryReader:
        """Reads files in this process."""
        return EntryReader(self._job)

    def read(self, entries: Iterable[Entry]) -> Iterator[tuple[Number, Part]]:
        """Reads files, which are listed while others are read.

        A chunk that fails is tried again, then its halves are; what is left in the end is one file, which is reported
        as unreadable. The next scan tries that again.

        Yields:
            (number of the chunk, what came out), in any order.

        Raises:
            ExecutorError: The executor is broken, or its workers cannot read what this process can.
            MemoryError: There was not enough for one file.
        """
        waiting = self._chunks(iter(entries))
        try:
            while True:
                chunk = self._next(waiting) if len(self._pending) < self._in_flight else None
                if chunk is not None:
                    self._submit(chunk)
                elif self._pending:
                    wait(self._pending, return_when=FIRST_COMPLETED)
                else:
                    return
                done = [future for future in self._pending if future.done()]
                # What is broken ends the scan: what came before goes first.
                for future in sorted(done, key=_has_failed):
                    yield from self._result(self._pending.pop(future), future)
        finally:
            for future in self._pending:
                future.cancel()

    def _chunks(self, entries: Iterator[Entry]) -> Iterator[_Chunk]:
        """Chunks that grow, so that all workers begin at once, and shrink, so that all end at once."""
        size = min(_FIRST, self._largest)
        ahead: list[Entry] = []
        for number in count():
            wanted = max(min(2 * self._workers * size, _MOST_AHEAD), size)
            ahead += islice(entries, wanted - len(ahead))
            if not ahead:
                return
            files = size
            if len(ahead) < wanted:  # that is all
                share = -(-len(ahead) // self._workers)
                files = min(size, max(share, size // 4, _SMALLEST))
            yield _Chunk((number,), ahead[:files])
            del ahead[:files]
            size = min(size + size // 2, self._largest)

    def _next(self, waiting: Iterator[_Chunk]) -> _Chunk | None:
        return self._again.popleft() if self._again else next(waiting, None)

    def _submit(self, chunk: _Chunk) -> None:
        call = (self._token, next(self._calls), self._job, Entries(chunk.entries))
        try:
            future = self._executor.submit(scan_chunk, *call)
        except Exception as error:
            future = Future()
            broken = BrokenExecutor(type(error).__name__)
            future.set_exception(error if isinstance(error, BrokenExecutor) else broken)
        self._pending[future] = chunk

    def _result(self, chunk: _Chunk, future: Future[bytes]) -> Iterator[tuple[Number, Part]]:
        try:
            part, said = part_from_bytes(future.result(), self._job.columns)
            self.requests += int(said.get("requests", 0))
            self.bytes_read += int(said.get("bytes", 0))
            part = self._completed(chunk, part, said.get("host", ""))
        except BrokenExecutor as error:
            name = str(error) if type(error) is BrokenExecutor else type(error).__name__
            raise ExecutorError(
                f"the executor is broken ({name}): a worker died, or it was shut down"
            ) from error
        except ImportError as error:
            raise ExecutorError(
                f"the workers of the executor cannot import what reads headers ({type(error).__name__}: {error.name}); "
                f"install dicomtorch {__version__} where they run"
            ) from error
        except IndexFileError as error:
            raise ExecutorError(
                f"the workers of the executor answer something else than this process reads: {error}; install "
                f"dicomtorch {__version__} where they run"
            ) from error
        except Exception as error:
            yield from self._failed(chunk, error)
        else:
            self._failures = None
            self._grow(len(chunk.entries), float(said.get("seconds", "inf")))
            yield chunk.number, part

    def _grow(self, files: int, seconds: float) -> None:
        """Makes later chunks more, and larger if workers read files fast."""
        self._in_flight = min(self._in_flight + 1, self._most_in_flight)
        self._files_read += files
        self._seconds += seconds
        fast = int(_FAST * self._workers * self._files_read / (self._seconds + 1e-9))
        self._largest = max(self._largest, min(fast, self._most_files))

    def _completed(self, chunk: _Chunk, part: Part, host: str) -> Part:
        """What a worker read, or all of it read here if the worker could not open files that this process can.

        Raises:
            ExecutorError: It could open none of them.
        """
        if self._job.storage is not None:
            return part  # all of them ask the same place
        unread = np.asarray(part.files["mtime_ns"]) == UNREAD
        reasons: Any = part.files["reason"]
        failed = [
            k
            for k in np.flatnonzero(unread).tolist()
            if not chunk.entries[k].reason and not is_fault(reasons[k])
        ]
        readable = [k for k in failed if self._reader.read(chunk.entries[k]).mtime_ns != UNREAD]
        if not readable:
            return part
        if len(failed) < len(chunk.entries):
            return self._reader.part(chunk.entries)
        path = printable(self._job.below + chunk.entries[readable[0]].path)
        raise ExecutorError(
            f"a worker of the executor ({host}) cannot open {path} ({reasons[readable[0]]}), which this process can: "
            f"workers need the same files at the same path, as a file system that the machines share gives them"
        )

    def _failed(self, chunk: _Chunk, error: Exception) -> Iterator[tuple[Number, Part]]:
        """Has a chunk tried again, whole or in halves; of one file that it is not read."""
        if self._failures is not None:
            self._failures += 1
            if self._failures >= _MOST_FAILURES:
                raise ExecutorError(
                    f"the workers of the executor read nothing: each of {self._failures} calls failed, the last one "
                    f"with {type(error).__name__}"
                ) from error
        if not chunk.failures:
            self._again.append(replace(chunk, failures=1))
        elif isinstance(error, ExecutorError):
            raise error
        elif (half := len(chunk.entries) // 2) > 0:
            for k, some in enumerate((chunk.entries[:half], chunk.entries[half:])):
                self._again.append(_Chunk((*chunk.number, k), some, 1))
        elif isinstance(error, MemoryError):
            raise error
        else:
            (entry,) = chunk.entries
            reason = f"no worker of the executor could read it ({type(error).__name__})"
            known = (entry.path, entry.size, UNREAD, entry.inode)
            rows = FileRows(*known, "unreadable", reason, member=entry.member)
            yield chunk.number, build_part([rows], self._job.columns)


def _workers_of(executor: Any) -> int:
    """How many there are, 1 if the executor does not say: Python's, loky, MPI, Ray and Dask do."""
    for name in ("_max_workers", "num_workers"):
        workers = getattr(executor, name, None)
        if isinstance(workers, int):
            return max(workers, 1)
    client: Any = getattr(executor, "_client", None)
    try:  # workers may come later, and a client that is closed says nothing: the calls tell
        return max(sum(client.ncores().values()), 1) if hasattr(client, "ncores") else 1
    except Exception:
        return 1


def _has_failed(future: Future[Any]) -> bool:
    return future.cancelled() or future.exception() is not None
