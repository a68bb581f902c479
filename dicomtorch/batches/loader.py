"""`FrameLoader`: batches made by threads of this process, in place of worker processes.

A thread makes a whole batch: reads, decodes, converts, collates, and copies it to the device. Decoders, conversion and
reads release the interpreter's lock, so threads do what processes do, without a second copy of the dataset, and a batch
is never sent anywhere.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypedDict, Unpack, overload

import torch
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    Dataset,
    IterableDataset,
    SequentialSampler,
    Subset,
    default_collate,
)

from dicomtorch.batches.coverage import Coverage, coverage_of, drawn
from dicomtorch.batches.crew import Pass
from dicomtorch.batches.epochs import ShuffleSampler
from dicomtorch.batches.fetch import Fetch, forecast_of
from dicomtorch.batches.progress import (
    Progress,
    check_sampler,
    first_checksum,
    restore_sampler,
    sampler_state,
)
from dicomtorch.batches.transfer import device_of
from dicomtorch.errors import OptionError
from dicomtorch.pixels.memory import keep_for
from dicomtorch.reader.forecast import Forecast
from dicomtorch.reader.threads import usable_threads

if TYPE_CHECKING:
    from PIL.Image import Image

    # Known to every checker; at run time Python before 3.13 has no defaults.
    from typing_extensions import TypeVar

    Batch = TypeVar("Batch")
    Batch_co = TypeVar("Batch_co", covariant=True, default=Any)
else:
    from typing import TypeVar

    Batch_co = TypeVar("Batch_co", covariant=True)


class GivesBatches(Protocol[Batch_co]):
    """A dataset of this package, of which several samples at once are a batch."""

    def __len__(self) -> int:
        """Of samples."""

    def __getitem__(self, i: slice, /) -> Batch_co:
        """A batch."""

    def will_need(self, indices: Sequence[Any]) -> None:
        """Says which samples are asked for soon."""


class LoaderOptions(TypedDict, total=False):
    """Arguments of `FrameLoader` that do not change what a batch is."""

    sampler: Iterable[Any] | None
    shuffle: bool
    drop_last: bool
    num_threads: int | None
    prefetch: int
    device: torch.device | str | None
    seed: int


class FrameLoader(Generic[Batch_co]):
    """Batches of a dataset, made by threads: the same ones, in the same order, as `DataLoader` with this sampler gives.

    Works with every map-style dataset that may be read from several threads; `DicomFrames` may. So must its transforms:
    one that keeps what it drew between two calls needs a copy in each thread, as `integrations.monai.MonaiTransform`
    makes them. Transforms of datasets with `seed=` run in the thread of the loop, since they set generators that all
    threads share.

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
        OptionError: Arguments contradict each other, or there is no such device here.

    Example:
        >>> loader = FrameLoader(frames, batch_size=32, shuffle=True)          # doctest: +SKIP
        >>> for images, meta in loader: ...                                    # doctest: +SKIP
    """

    @overload
    def __init__(
        self: FrameLoader[Batch],
        dataset: GivesBatches[Batch],
        batch_size: int | None,
        *,
        collate_fn: None = None,
        batch_transform: None = None,
        **options: Unpack[LoaderOptions],
    ) -> None: ...
    @overload
    def __init__(
        self: FrameLoader[Batch],
        dataset: Dataset[Any] | Sequence[Any],
        batch_size: int | None,
        *,
        collate_fn: Callable[[Any], Any] | None = None,
        batch_transform: Callable[[Any], Batch],
        **options: Unpack[LoaderOptions],
    ) -> None: ...
    @overload
    def __init__(
        self: FrameLoader[Batch],
        dataset: Dataset[Any] | Sequence[Any],
        batch_size: int | None,
        *,
        collate_fn: Callable[[Any], Batch],
        batch_transform: None = None,
        **options: Unpack[LoaderOptions],
    ) -> None: ...
    @overload
    def __init__(
        self: FrameLoader[Any],
        dataset: Dataset[Any] | Sequence[Any],
        batch_size: int | None,
        *,
        collate_fn: Callable[[Any], Any] | None = None,
        batch_transform: Callable[[Any], Any] | None = None,
        **options: Unpack[LoaderOptions],
    ) -> None: ...
    def __init__(
        self,
        dataset: Dataset[Any] | Sequence[Any] | GivesBatches[Any],
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
        self.device = device_of(device)
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
        self._fetch = Fetch(dataset, collate_fn or default_collate, batch_transform, self.device)
        keep_for(self._fetch)
        self._epoch = 0
        self._progress: Progress | None = None  # of the pass that began last
        self._resumed: dict[str, Any] | None = None

    def __len__(self) -> int:
        """Batches of an epoch."""
        return len(self.batch_sampler)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Batch_co]:
        """Begins a pass; where a state was loaded, behind the last batch that it knows."""
        state, self._resumed = self._resumed, None
        if state is not None:
            self._epoch = state["epoch"]
            restore_sampler(self._order, state["sampler"])
        progress = self._begin(self._next_epoch)
        batches = iter(self.batch_sampler)
        if state is not None:
            progress.skip(itertools.islice(batches, state["batches"]), state)
        _tell_epoch(self.dataset, progress.epoch)
        begun = Pass(self._fetch, batches, progress, self.num_threads, self.prefetch)
        self._progress = progress
        self._epoch = progress.epoch + 1
        if self._shuffled is not None:
            self._shuffled.set_epoch(self._epoch)
        return begun

    def _begin(self, epoch: int) -> Progress:
        return Progress(epoch, sampler_state(self._order), first_checksum(self._order))

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
            progress = self._begin(epoch)
        if progress.sampler is None:
            raise OptionError(
                f"{type(self._order).__name__} without a generator draws an order that cannot be drawn again: give it "
                "generator=torch.Generator(), or use shuffle=True or a sampler of this package"
            )
        return {
            "epoch": progress.epoch,
            "batches": progress.batches,
            "checksum": progress.checksum,
            "batch_size": getattr(self.batch_sampler, "batch_size", None),
            "drop_last": self.drop_last,
            "num_samples": len(self.dataset),  # type: ignore[arg-type]
            "sampler": progress.sampler,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The next pass goes on behind the last batch that `state` knows.

        Raises:
            OptionError: It is of a loader with other batches, or of a sampler that draws another order.
        """
        mine = {
            "batch_size": getattr(self.batch_sampler, "batch_size", None),
            "drop_last": self.drop_last,
            "num_samples": len(self.dataset),  # type: ignore[arg-type]
        }
        for name, value in mine.items():
            if state.get(name) != value:
                raise OptionError(
                    f"the run cannot continue from this state: its {name} is {state.get(name)!r}, here it is {value!r}"
                )
        check_sampler(self._order, state.get("sampler", {}))
        restore_sampler(self._order, state["sampler"])
        self._resumed = dict(state)

    def check_coverage(self, group: Any = None) -> Coverage:
        """Which samples the ranks get in an epoch: what is missing, what comes twice, how many batches each gets.

        Reads no frame. In a distributed run every rank calls it, after the process group is there; a loader that a
        framework shards a second time shows samples that are missing.

        Args:
            group: The ranks among which data is shared: of a device mesh `mesh["dp"].get_group()`; `None`: all.

        Raises:
            OptionError: The sampler gives something else than positions.
        """
        batches = drawn(self.batch_sampler, self._order)
        return coverage_of(batches, len(self.dataset), group)  # type: ignore[arg-type]

    def forecast(self) -> Forecast:
        """What the next epoch asks a server for, and what it moves, before it does; nothing for files of this machine.

        Exact where each frame is read once and none is kept on this machine (`cache=`, `range_cache`), else the most
        that may be. Masks and boxes are not counted.

        Raises:
            OptionError: The dataset is not of this package.
        """
        return forecast_of(self.dataset, drawn(self.batch_sampler, self._order))

    def show_batch(self, *, columns: int = 8, tile: int = 128) -> Image:
        """Draws the first batch of the next epoch as a grid, as the loop gets it, with its labels below.

        The sampler is left as it was, so the loop gets that batch too.

        Args:
            columns: Pictures in a row.
            tile: Edge of a picture in pixels.

        Returns:
            The picture, RGB; notebooks show it, `.show()` and `.save("batch.png")` do it elsewhere.

        Raises:
            MissingDependencyError: Pillow is not installed.
            OptionError: The dataset is not of this package, or `collate_fn` or `batch_transform` gives no images.
        """
        drawing: Any = self.dataset
        while isinstance(drawing, Subset):
            drawing = drawing.dataset
        if not hasattr(drawing, "draw_batch"):
            raise OptionError(
                f"show_batch draws batches of datasets of this package; this is a {type(drawing).__name__}"
            )
        (indices,) = drawn(self.batch_sampler, self._order, most=1)
        picture: Image = drawing.draw_batch(self.make_batch(indices), columns=columns, tile=tile)
        return picture

    def make_batch(self, indices: Sequence[Any]) -> Batch_co:
        """The batch of some samples, as a loop gets it; the sampler is not asked."""
        batch: Batch_co = self._fetch.deliver(self._fetch(indices, ()))
        return batch


def _tell_epoch(dataset: Any, epoch: int) -> None:
    """Lets datasets know for which epoch their transforms draw random numbers."""
    if hasattr(dataset, "set_epoch"):
        dataset.set_epoch(epoch)
    elif isinstance(dataset, Subset):
        _tell_epoch(dataset.dataset, epoch)
    elif isinstance(dataset, ConcatDataset):
        for one in dataset.datasets:
            _tell_epoch(one, epoch)


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
