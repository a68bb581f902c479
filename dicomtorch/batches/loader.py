"""`FrameLoader`: batches made by threads of this process, in place of worker processes.

A thread makes a whole batch: reads, decodes, converts, collates, and copies it to the device. Decoders, conversion and
reads release the interpreter's lock, so threads do what processes do, without a second copy of the dataset, and a batch
is never sent anywhere.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import queue
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    Dataset,
    IterableDataset,
    SequentialSampler,
    Subset,
    default_collate,
)

from dicomtorch.batches.collate import FrameSamples
from dicomtorch.batches.epochs import EpochSampler, ShuffleSampler
from dicomtorch.batches.metadata import FrameMeta
from dicomtorch.errors import DicomTorchError, OptionError
from dicomtorch.pixels.memory import allocated_by
from dicomtorch.reader.threads import limit_threads, usable_threads

Indices = Sequence[Any]
Hint = Callable[[Indices], None]
_SIGNAL_SECONDS = (
    1.0  # how long a wait goes on before Ctrl-C is looked for, where waits cannot be interrupted
)


class FrameLoader:
    """Batches of a dataset, made by threads: the same ones, in the same order, as `DataLoader` with this sampler gives.

    Works with every map-style dataset that may be read from several threads; `DicomFrames` may.

    Args:
        dataset: Has `__getitems__`, or `__getitem__` only.
        batch_size: Samples in a batch; `None` if `sampler` gives lists of indices, as a `BatchSampler` does.
        sampler: Indices, or lists of them with `batch_size=None`.
        shuffle: A new order every epoch, drawn from `seed` and the epoch, the same on every rank; in a distributed
            run pass a sampler that gives every rank its own.
        drop_last: Leave out the last batch if it is smaller than the others.
        num_threads: Batches that are made at once; `None`: as many as there are cores to use.
        prefetch: Batches that may wait beyond those being made; at most `num_threads + prefetch` exist before the loop
            takes one.
        collate_fn: Samples -> batch; `None` does what `DataLoader` does.
        batch_transform: Batch -> batch, called in the thread that made it, and on `device` if there is one, as in
            `lambda batch: frames.to_values(*batch)`.
        device: Where tensors of the batch go, as in "cuda": through pinned memory and on a stream of their own. A
            `FrameMeta` stays on the CPU.
        seed: Of `shuffle`.

    Attributes:
        dataset: As given.
        batch_size: As given.
        sampler: As given, or the one made for `shuffle`.
        batch_sampler: What gives the indices of each batch.
        drop_last: As given.
        num_threads: Batches that are made at once.
        prefetch: As given.
        device: As given.

    Raises:
        OptionError: Arguments contradict each other.

    Example:
        >>> loader = FrameLoader(frames, batch_size=32, shuffle=True)          # doctest: +SKIP
        >>> for images, meta in loader: ...                                    # doctest: +SKIP
    """

    def __init__(
        self,
        dataset: Dataset[Any] | Sequence[Any],
        batch_size: int | None,
        *,
        sampler: Iterable[Any] | None = None,
        shuffle: bool = False,
        drop_last: bool = False,
        num_threads: int | None = None,
        prefetch: int = 2,
        collate_fn: Callable[[Any], Any] | None = None,
        batch_transform: Callable[[Any], Any] | None = None,
        device: torch.device | str | None = None,
        seed: int = 0,
    ) -> None:
        _check(dataset, batch_size, sampler, shuffle, drop_last, num_threads, prefetch)
        self.dataset = dataset
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.num_threads = num_threads or usable_threads()
        self.prefetch = prefetch
        self.device = None if device is None else torch.device(device)
        self._shuffled = (
            ShuffleSampler(dataset, seed=seed, num_replicas=1, rank=0) if shuffle else None  # type: ignore[arg-type]
        )
        if sampler is None:
            sampler = self._shuffled or SequentialSampler(dataset)  # type: ignore[arg-type]
        self.sampler: Iterable[Any] = sampler
        self.batch_sampler: Iterable[Any] = (
            sampler if batch_size is None else BatchSampler(sampler, batch_size, drop_last)
        )
        self._order: Any = sampler  # what draws
        if type(sampler) is BatchSampler:
            self._order = sampler.sampler
        self._fetch = _Fetch(dataset, collate_fn or default_collate, batch_transform, self.device)
        self._epoch = 0
        self._progress: _Progress | None = None  # of the pass that began last
        self._resumed: dict[str, Any] | None = None

    def __len__(self) -> int:
        """Batches of an epoch."""
        return len(self.batch_sampler)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        """Begins a pass; where a state was loaded, behind the last batch that it knows."""
        state, self._resumed = self._resumed, None
        if state is not None:
            self._epoch = state["epoch"]
            _restore_sampler(self._order, state["sampler"])
        progress = _Progress(self._next_epoch, _sampler_state(self._order))
        batches = iter(self.batch_sampler)
        if state is not None:
            progress.batches = sum(1 for _ in itertools.islice(batches, state["batches"]))
        begun = _Pass(self, batches, progress)
        self._progress = progress
        self._epoch = progress.epoch + 1
        if self._shuffled is not None:
            self._shuffled.set_epoch(self._epoch)
        return begun

    @property
    def _next_epoch(self) -> int:
        return int(getattr(self._order, "epoch", self._epoch))

    def set_epoch(self, epoch: int) -> None:
        """Which epoch the next pass is; without it each is one more than the last. The sampler is told too.

        The epoch of a state that was just loaded changes nothing.
        """
        if self._resumed is not None:
            if self._resumed["epoch"] == epoch and self._resumed["batches"]:
                return
            self._resumed = None
        self._epoch = epoch
        if hasattr(self._order, "set_epoch"):
            self._order.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Where the loop is: what it has been given counts, what was made ahead of it does not.

        Raises:
            OptionError: The order of the sampler cannot be had again.
        """
        if self._resumed is not None:
            return dict(self._resumed)
        progress = self._progress
        if progress is None or progress.finished:
            epoch = self._next_epoch if progress is None else self._epoch
            progress = _Progress(epoch, _sampler_state(self._order))
        if progress.sampler is None:
            raise OptionError(
                f"{type(self._order).__name__} without a generator draws an order that cannot be drawn again: give it "
                "generator=torch.Generator(), or use shuffle=True or a sampler of this package"
            )
        return {
            "epoch": progress.epoch,
            "batches": progress.batches,
            "batch_size": getattr(self.batch_sampler, "batch_size", None),
            "drop_last": self.drop_last,
            "num_samples": len(self.dataset),  # type: ignore[arg-type]
            "sampler": progress.sampler,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The next pass goes on behind the last batch that `state` knows.

        Raises:
            OptionError: It is of a loader with other batches.
        """
        mine = {
            "batch_size": getattr(self.batch_sampler, "batch_size", None),
            "drop_last": self.drop_last,
            "num_samples": len(self.dataset),  # type: ignore[arg-type]
        }
        for name, value in mine.items():
            if state.get(name) != value:
                raise OptionError(
                    f"this state cannot be gone on from: its {name} is {state.get(name)!r}, here it is {value!r}"
                )
        kind = state.get("sampler", {}).get("kind")
        if kind != type(self._order).__name__:
            raise OptionError(
                f"this state is of a {kind}, but here the sampler is a {type(self._order).__name__}"
            )
        _restore_sampler(self._order, state["sampler"])
        self._resumed = dict(state)


def _check(
    dataset: Any,
    batch_size: int | None,
    sampler: Any,
    shuffle: bool,
    drop_last: bool,
    num_threads: int | None,
    prefetch: int,
) -> None:
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__"):
        raise OptionError(
            f"FrameLoader takes datasets that are indexed; got {type(dataset).__name__}"
        )
    if batch_size is None and (sampler is None or shuffle or drop_last):
        raise OptionError(
            "batch_size=None needs a sampler that gives lists of indices, and no shuffle= or drop_last="
        )
    if batch_size is not None and batch_size < 1:
        raise OptionError(f"batch_size must be 1 or more; got {batch_size}")
    if sampler is not None and shuffle:
        raise OptionError("sampler= and shuffle=True both decide the order; give one of them")
    if num_threads is not None and num_threads < 1:
        raise OptionError(f"num_threads must be 1 or more; got {num_threads}")
    if prefetch < 0:
        raise OptionError(f"prefetch must be 0 or more; got {prefetch}")


# --- Where a pass is --------------------------------------------------------------------------------


class _Progress:
    """What a state says of one pass."""

    def __init__(self, epoch: int, sampler: dict[str, Any] | None) -> None:
        self.epoch = epoch
        self.sampler = sampler  # its state when the pass began
        self.batches = 0  # that the loop has been given
        self.finished = False


def _sampler_state(sampler: Any) -> dict[str, Any] | None:
    """What makes a sampler draw the same order again; `None` if nothing does."""
    state: dict[str, Any] = {"kind": type(sampler).__name__}
    if isinstance(sampler, EpochSampler):
        # Of the pass that begins: what an earlier one gave out is no part of it.
        return state | {"state": sampler.state_dict(sampler.start)}
    if hasattr(sampler, "state_dict"):
        return state | {"state": sampler.state_dict()}
    if hasattr(sampler, "epoch"):
        state["epoch"] = sampler.epoch
    if hasattr(sampler, "generator"):
        if sampler.generator is None:
            return None
        state["generator"] = sampler.generator.get_state()
    return state


def _restore_sampler(sampler: Any, state: dict[str, Any]) -> None:
    if "state" in state:
        sampler.load_state_dict(state["state"])
    if "epoch" in state:
        sampler.set_epoch(state["epoch"])
    if "generator" in state:
        sampler.generator.set_state(state["generator"])


# --- One pass ---------------------------------------------------------------------------------------


class _Pass(Iterator[Any]):
    """One pass over the batches. Its threads do not know it, so they end when nobody else does either."""

    def __init__(self, loader: FrameLoader, batches: Iterator[Any], progress: _Progress) -> None:
        self._fetch = loader._fetch
        self._batches = batches
        self._progress = progress
        self._made: deque[_Task] = deque()
        self._drawn: deque[Indices] = deque()
        self._most = loader.num_threads + loader.prefetch
        self._crew = _Crew(loader.num_threads, self._fetch)
        weakref.finalize(self, self._crew.stop).atexit = False
        self._schedule()

    def __next__(self) -> Any:
        try:
            self._schedule()
            if not self._made:
                self._progress.finished |= not self._crew.stopped
                raise StopIteration
            batch = self._fetch.deliver(self._made.popleft().result())
            self._schedule()
        except BaseException:
            self._crew.stop()
            self._made.clear()
            self._batches = iter(())
            self._drawn.clear()
            raise
        self._progress.batches += 1
        return batch

    def _schedule(self) -> None:
        """Gives the threads what they may make. What comes later is drawn too, for its files to be read ahead."""
        while len(self._made) < self._most:
            ahead: Indices = ()
            while len(self._drawn) <= self._fetch.lead * self._most:
                indices = next(self._batches, None)
                if indices is None:
                    break
                ahead = list(indices)
                self._drawn.append(ahead)
            if not self._drawn:
                return
            self._made.append(self._crew.give(self._drawn.popleft(), ahead))


class _Crew:
    """The threads of one pass."""

    def __init__(self, num_threads: int, fetch: _Fetch) -> None:
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
            except RuntimeError:  # there are too many
                self.stop()
                raise
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

    def run(self, fetch: _Fetch) -> None:
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


def _work(tasks: queue.SimpleQueue[_Task | None], state: _CrewState, fetch: _Fetch) -> None:
    limit_threads(1)
    while True:
        task = tasks.get()
        if task is None or state.stopped:
            break
        task.run(fetch)
        del task  # it has the batch, whose memory shall be free as soon as the loop is done with it
    _running.pop(threading.current_thread(), None)


class _Fetch:
    """Indices -> batch, in any thread."""

    def __init__(
        self,
        dataset: Any,
        collate_fn: Callable[[Any], Any],
        batch_transform: Callable[[Any], Any] | None,
        device: torch.device | None,
    ) -> None:
        self._dataset = dataset
        self._many = getattr(dataset, "__getitems__", None)
        self._collate = collate_fn
        self._transform = batch_transform
        self._transfer = None if device is None or device.type == "cpu" else _Transfer(device)
        self._hint = _hint(dataset)
        self._waits = True  # whether reads were waited for of late

    @property
    def lead(self) -> int:
        """How far ahead of the batches being made indices are wanted, in units of those that may exist."""
        return int(self._hint is not None)

    def __call__(self, indices: Indices, ahead: Indices) -> Any:
        if self._hint is not None and self._waits and ahead:
            with contextlib.suppress(DicomTorchError):  # raised where the frames are read
                self._hint(ahead)
        began, worked = time.perf_counter(), time.thread_time()
        if self._transfer is None:
            batch = self._transformed(self._collated(indices))
        else:
            with allocated_by(self._transfer.allocate):
                batch = self._collated(indices)
            batch = self._transfer.send(batch, self._transformed)
        passed = time.perf_counter() - began
        self._waits = passed > 2 * (time.thread_time() - worked)
        return batch

    def _collated(self, indices: Indices) -> Any:
        if self._many is not None:
            return self._collate(self._many(indices))
        return self._collate([self._dataset[i] for i in indices])

    def _transformed(self, batch: Any) -> Any:
        return batch if self._transform is None else self._transform(batch)

    def deliver(self, batch: Any) -> Any:
        """What the loop gets, in the thread of the loop."""
        return batch if self._transfer is None else self._transfer.receive(batch)


def _hint(dataset: Any) -> Hint | None:
    if isinstance(dataset, Subset):
        inner, chosen = _hint(dataset.dataset), dataset.indices
        return None if inner is None else lambda indices: inner([chosen[i] for i in indices])
    hint: Hint | None = getattr(dataset, "will_need", None)
    return hint


# --- To a device ------------------------------------------------------------------------------------


class _Transfer:
    """Pinned memory, a stream for the copies, and the order between that stream and the loop's."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: Any = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def allocate(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Pinned memory; torch uses it again once the copies from it are done."""
        return torch.empty(shape, dtype=dtype, pin_memory=self._stream is not None)

    def send(self, batch: Any, transform: Callable[[Any], Any]) -> Any:
        """Begins to copy, and to transform what was copied."""
        if self._stream is None:
            return transform(_mapped(batch, self._copy)), None
        with torch.cuda.stream(self._stream):
            moved = transform(_mapped(batch, self._copy))
            done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            done.record(self._stream)
        return moved, done

    def _copy(self, tensor: Tensor) -> Tensor:
        if self._stream is not None and tensor.device.type == "cpu" and not tensor.is_pinned():
            tensor = tensor.pin_memory()
        return tensor.to(self._device, non_blocking=self._stream is not None)

    def receive(self, sent: Any) -> Any:
        """The batch, once the loop's stream may use it; its memory is not given away before that stream is done."""
        batch, done = sent
        if done is not None:
            stream = torch.cuda.current_stream(self._device)
            stream.wait_event(done)
            _mapped(batch, lambda tensor: _recorded(tensor, stream), with_meta=True)
        return batch


def _recorded(tensor: Tensor, stream: Any) -> Tensor:
    if tensor.is_cuda:
        tensor.record_stream(stream)
    return tensor


def _mapped(batch: Any, function: Callable[[Tensor], Tensor], *, with_meta: bool = False) -> Any:
    """`batch` with `function` of its tensors in their place, those of a `FrameMeta` only if asked."""

    def inner(value: Any) -> Any:
        return _mapped(value, function, with_meta=with_meta)

    if isinstance(batch, Tensor):
        return function(batch)
    if isinstance(batch, FrameMeta) and not with_meta:
        return batch
    if isinstance(batch, dict):
        return {key: inner(value) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*map(inner, batch))
    if isinstance(batch, FrameSamples):
        return FrameSamples(map(inner, batch))
    if isinstance(batch, list | tuple):
        return type(batch)(map(inner, batch))
    return batch
