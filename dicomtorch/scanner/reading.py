"""Files read here, in child processes or by an executor of the caller, with progress and checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from concurrent.futures import Executor
from itertools import chain, islice
from typing import Any

from tqdm import tqdm

from dicomtorch.errors import ExecutorError, OptionError
from dicomtorch.index.builder import FileRows, Part, PartBuilder, merge_parts
from dicomtorch.scanner.chunks import ChunkReader, Number, checked
from dicomtorch.scanner.entries import Entry
from dicomtorch.scanner.pool import ChildProcesses, usable_cores
from dicomtorch.scanner.worker import EntryReader, Job

_PROGRESS_DELAY = 2.0  # seconds
_FEW = 4000  # files that are read in the time in which processes start
_TOGETHER = 1000  # files whose rows become columns together
_LARGEST_OF_CHILDREN = 2048  # files in a chunk: what a pipe of this machine carries costs less
_BETWEEN_CHECKPOINTS = 30.0  # seconds, and at most a tenth of the time

Checkpoint = Callable[[Part], None]


class Reading:
    """Reads files.

    Args:
        job: What to read of each.
        progress: As in `scan`.
        num_workers: As in `scan`.
        executor: As in `scan`.

    Attributes:
        count: Files read so far.
        requests: Made so far for remote objects.
        bytes_read: What came.

    Raises:
        OptionError: `executor` is none, or stands beside `num_workers`.
    """

    def __init__(
        self, job: Job, progress: bool | None, num_workers: int | None, executor: Executor | None
    ) -> None:
        if executor is not None and num_workers is not None:
            raise OptionError(
                "num_workers= are processes of this machine, and executor= has workers of its own; give one of them"
            )
        self.count = 0
        self.requests = self.bytes_read = 0
        self._job = job
        self._num_workers = num_workers
        self._executor = None if executor is None else checked(executor)
        self._progress = progress
        self._next = time.monotonic() + _BETWEEN_CHECKPOINTS

    def rows(self, entries: Iterable[Entry]) -> Iterator[FileRows]:
        """Reads files in this process."""
        reader = EntryReader(self._job)
        with self._bar(entries) as bar:
            for entry in entries:
                yield reader.read(entry)
                self.count += 1
                bar.update()

    def part(self, entries: Iterable[Entry], checkpoint: Checkpoint | None) -> Part:
        """Reads files and gives what came out, in the order of the files.

        Raises:
            ExecutorError: The executor broke; `checkpoint` has what was read until then.
        """
        waiting = iter(entries)
        wanted = self._num_workers
        first: list[Entry] = []
        storage = self._job.storage
        if storage is not None and storage.is_shared and wanted is None:
            wanted = usable_cores()  # never here: connections that were used do not outlive a fork
        elif wanted is None and self._executor is None:
            first = list(islice(waiting, _FEW))
            cores = usable_cores()
            wanted = cores if len(first) == _FEW and cores > 1 else 0
        everything = chain(first, waiting)
        with self._bar(entries) as bar:
            expected = len(entries) if isinstance(entries, Sized) else None
            if self._executor is not None:
                reader = ChunkReader(self._executor, self._job, expected)
                return self._by(reader, everything, bar, checkpoint)
            if not wanted:
                return self._here(everything, bar, checkpoint)
            with ChildProcesses(wanted) as children:
                reader = ChunkReader(children, self._job, expected, _LARGEST_OF_CHILDREN)
                return self._by(reader, everything, bar, checkpoint)

    def _by(
        self,
        reader: ChunkReader,
        entries: Iterable[Entry],
        bar: tqdm[Any],
        checkpoint: Checkpoint | None,
    ) -> Part:
        parts: dict[Number, Part] = {}
        try:
            for number, part in reader.read(entries):
                parts[number] = part.shrunk()
                self.count += len(part.files["size"])
                self._tell(bar, reader.requests, reader.bytes_read)
                bar.update(len(part.files["size"]))
                if checkpoint is not None and time.monotonic() >= self._next:
                    self._stop_over(checkpoint, _merged(parts, self._job))
        except ExecutorError as error:
            if checkpoint is None:
                raise
            checkpoint(_merged(parts, self._job))
            raise ExecutorError(
                f"{error}. The {self.count} files that were read are kept: the next scan, with a new executor, goes on "
                f"with the others"
            ) from error
        return _merged(parts, self._job)

    def _here(
        self, entries: Iterable[Entry], bar: tqdm[Any], checkpoint: Checkpoint | None
    ) -> Part:
        reader = EntryReader(self._job)
        parts: dict[Number, Part] = {}
        waiting = iter(entries)
        while True:
            some = self._together(waiting, until_checkpoint=checkpoint is not None)
            part = reader.part(some, bar.update)
            files = len(part.files["size"])
            if parts and not files:
                return _merged(parts, self._job)
            parts[(len(parts),)] = part.shrunk()
            self.count += files
            if self._job.storage is not None:
                self._tell(bar, self._job.storage.requests, self._job.storage.bytes_read)
            if checkpoint is not None and time.monotonic() >= self._next:
                self._stop_over(checkpoint, _merged(parts, self._job))

    def _tell(self, bar: tqdm[Any], requests: int, size: int) -> None:
        """Shows what was asked for and moved, where that is remote."""
        self.requests, self.bytes_read = requests, size
        if requests:
            bar.set_postfix_str(f"{requests:,} requests, {size / 1e6:,.1f} MB", refresh=False)

    def _together(self, entries: Iterator[Entry], *, until_checkpoint: bool) -> Iterator[Entry]:
        """The next files whose rows become columns together."""
        for entry in islice(entries, _TOGETHER):
            yield entry
            if until_checkpoint and time.monotonic() >= self._next:
                return

    def _stop_over(self, checkpoint: Checkpoint, part: Part) -> None:
        began = time.monotonic()
        checkpoint(part)
        now = time.monotonic()
        self._next = now + max(_BETWEEN_CHECKPOINTS, 9 * (now - began))

    def _bar(self, entries: Iterable[Entry]) -> tqdm[Any]:
        return tqdm(
            total=len(entries) if isinstance(entries, Sized) else None,
            desc="scan",
            unit="file",
            delay=_PROGRESS_DELAY,
            disable=None if self._progress is None else not self._progress,
            leave=False,
        )


def _merged(parts: Mapping[Number, Part], job: Job) -> Part:
    if not parts:
        return PartBuilder(job.columns).finish()
    return merge_parts([parts[number] for number in sorted(parts)])
