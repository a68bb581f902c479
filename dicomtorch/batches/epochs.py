"""What all samplers have in common: positions of an epoch, shards of it, and states to go on from.

Position i of epoch e is a pure function of (seed, e, i): the random numbers come from a counter-based generator whose
key is (seed, epoch), so that neighbouring seeds and epochs have nothing in common and a run can go on anywhere. Every
sampler shards itself, and is a `torch.utils.data.DistributedSampler` because trainers shard any other one again.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence, Sized
from typing import Any, TypedDict, TypeVar, Unpack

import numpy as np
import numpy.typing as npt
import torch.distributed as dist
from torch.utils.data import DistributedSampler

from dicomtorch.errors import OptionError

Ints = npt.NDArray[np.int64]
T_co = TypeVar("T_co", covariant=True)

_CHUNK = 1 << 14  # items that become Python objects at a time


class EpochOptions(TypedDict, total=False):
    """What every sampler takes; see `EpochSampler`."""

    seed: int
    num_replicas: int | None
    rank: int | None
    drop_last: bool


class EpochSampler(DistributedSampler[T_co]):
    """What all samplers have in common: shards, epochs and states.

    Every rank gets the same number of items; `len(sampler)` is that number. Call `set_epoch` before each
    epoch, as with any distributed sampler. Lightning does, and leaves the sampler alone. Accelerate's `prepare` shards
    the batches of every loader: give it a sampler with `num_replicas=1, rank=0`.

    Args:
        num_items: Of one epoch, over all ranks; the same in every epoch.
        seed: 0 to 2**64 - 1.
        num_replicas: Processes that share an epoch. `None`: those of `torch.distributed` once it is
            initialised, else 1.
        rank: Which of them this is; goes with `num_replicas`.
        drop_last: Leave out the last items so that ranks have equally many; else the first are given again.
        source: A dataset whose `set_epoch` is called when the first item of an epoch is drawn.

    Attributes:
        epoch: The current one; change it with `set_epoch`.
    """

    _contiguous = (
        False  # whether a rank gets a stretch of the epoch, and not every num_replicas-th item
    )

    def __init__(
        self,
        num_items: int,
        *,
        seed: int = 0,
        num_replicas: int | None = None,
        rank: int | None = None,
        drop_last: bool = False,
        source: Any = None,
    ) -> None:
        if not 0 <= seed < 1 << 64:
            raise OptionError(f"seed must be within 0 and 2**64 - 1; got {seed}")
        if (num_replicas is None) != (rank is None):
            raise OptionError("num_replicas and rank go together: give both or none")
        if num_replicas is not None and rank is not None and not 0 <= rank < num_replicas:
            raise OptionError(
                f"rank must be within 0 and num_replicas - 1; got rank {rank} of {num_replicas}"
            )
        if not num_items:
            raise OptionError("there is nothing to draw: the source has no frame that fits")
        super().__init__(
            range(num_items),  # type: ignore[arg-type]
            num_replicas=num_replicas or 1,
            rank=rank or 0,
            seed=seed,
            drop_last=drop_last,
        )
        self._follows_process_group = num_replicas is None
        self._num_items = num_items
        self._start = 0  # where the next iteration begins
        self._position = 0  # how many items of this epoch this rank has given out
        self._tell: Callable[[int], None] | None = getattr(source, "set_epoch", None)
        self._shard()

    def _shard(self) -> None:
        # Looked up whenever it matters: trainers make the process group after the loaders.
        if self._follows_process_group and dist.is_available() and dist.is_initialized():
            self.num_replicas, self.rank = dist.get_world_size(), dist.get_rank()
        each, rest = divmod(self._num_items, self.num_replicas)
        self.num_samples = each if self.drop_last else each + (rest > 0)
        self.total_size = self.num_samples * self.num_replicas
        if not self.num_samples:
            raise OptionError(
                f"{self._num_items} items are too few for {self.num_replicas} ranks with drop_last=True"
            )

    def _order(self, epoch: int) -> Any:
        """All items of an epoch, over all ranks: an array of positions, or a list."""
        raise NotImplementedError

    def _fingerprint(self) -> list[Any]:
        """What else decides the order: options, and checksums of data."""
        raise NotImplementedError

    def _bits(self, epoch: int, count: int, stream: int = 0) -> npt.NDArray[np.uint64]:
        """Random bits that depend on seed, epoch and position only; each `stream` has others."""
        key = np.array([self.seed, epoch], np.uint64)
        counter = np.array([0, 0, 0, stream], np.uint64)
        # Raw bits, because what NumPy makes of them may change from version to version.
        bits: npt.NDArray[np.uint64] = np.random.Philox(key=key, counter=counter).random_raw(count)
        return bits

    def _permutation(self, epoch: int, count: int, stream: int = 0) -> Ints:
        return np.argsort(self._bits(epoch, count, stream), kind="stable")

    def _uniform(self, epoch: int, count: int, stream: int = 0) -> npt.NDArray[np.float64]:
        """In [0, 1)."""
        return (self._bits(epoch, count, stream) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def __len__(self) -> int:
        """Items that this rank gets in an epoch."""
        self._shard()
        return self.num_samples

    def __iter__(self) -> Iterator[T_co]:
        """The items of this rank in this epoch, from where a loaded state says."""
        self._shard()
        start, self._start = self._start, 0
        self._position = start
        if self._tell is not None:
            self._tell(self.epoch)
        return self._items(self.epoch, start)

    def _items(self, epoch: int, start: int) -> Iterator[T_co]:
        order = self._order(epoch)
        for first in range(start, self.num_samples, _CHUNK):
            mine = np.arange(first, min(first + _CHUNK, self.num_samples))
            at = (
                self.rank * self.num_samples + mine
                if self._contiguous
                else mine * self.num_replicas + self.rank
            ) % self._num_items
            chunk = order[at].tolist() if isinstance(order, np.ndarray) else [order[k] for k in at]
            for k, item in zip(mine.tolist(), chunk, strict=True):
                self._position = k + 1
                yield item

    @property
    def start(self) -> int:
        """Item of this rank at which the next iteration begins: not 0 where a state was loaded."""
        return self._start

    def set_epoch(self, epoch: int) -> None:
        """Begins another epoch; the same one again changes nothing, so that a resumed epoch goes on.

        Args:
            epoch: From 0.

        Raises:
            OptionError: It is negative.
        """
        if epoch < 0:
            raise OptionError(f"epochs count from 0; got {epoch}")
        if epoch != self.epoch:
            self.epoch = epoch
            self._start = self._position = 0

    def state_dict(self, position: int | None = None) -> dict[str, Any]:
        """Where this rank is.

        Args:
            position: Items of this epoch that were used. `None`: those given out; a plain `DataLoader` with workers
                asks for some ahead of time, so count there (`batches * batch_size`). torchdata's `StatefulDataLoader`
                does it right without.
        """
        self._shard()
        return {
            "sampler": type(self).__name__,
            "seed": self.seed,
            "epoch": self.epoch,
            "position": self._position if position is None else position,
            "num_items": self._num_items,
            "num_replicas": self.num_replicas,
            "drop_last": self.drop_last,
            "options": self._fingerprint(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where `state` says.

        Raises:
            OptionError: It was made by another sampler, with other options, or over other data.
        """
        mine = self.state_dict()
        for name, value in mine.items():
            if name in ("epoch", "position"):
                continue
            if state.get(name) != value:
                raise OptionError(
                    f"the run cannot continue from this state: its {name} is {state.get(name)!r}, here it is {value!r}"
                )
        if not 0 <= state["position"] <= self.num_samples:
            raise OptionError(
                f"this state is at item {state['position']}, but an epoch has {self.num_samples}"
            )
        self.epoch = state["epoch"]
        self._start = self._position = state["position"]


class ShuffleSampler(EpochSampler[int]):
    """Every item once, in another order in each epoch: for volumes, crops, clips, or any other dataset.

    Args:
        source: A dataset, or anything with a length.
        shuffle: `False`: in order, as for validation.
        **options: `seed`, `num_replicas`, `rank`, `drop_last`, as in `EpochSampler`.
    """

    def __init__(
        self, source: Sized, *, shuffle: bool = True, **options: Unpack[EpochOptions]
    ) -> None:
        super().__init__(len(source), source=source, **options)
        self.shuffle = shuffle

    def _order(self, epoch: int) -> Ints:
        if self.shuffle:
            return self._permutation(epoch, self._num_items)
        return np.arange(self._num_items)

    def _fingerprint(self) -> list[Any]:
        return [self.shuffle]


class ClipSampler(EpochSampler[tuple[int, int]]):
    """A random clip of each sequence; made by `DicomClips.sampler`.

    Gives (sequence, start).

    Args:
        starts: (sequences,) integers, how many starts each has.
        num_clips: Of each sequence per epoch; drawn anew each.
        source: As in `EpochSampler`.
        **options: `seed`, `num_replicas`, `rank`, `drop_last`, as in `EpochSampler`.
    """

    def __init__(
        self,
        starts: Sequence[int] | Ints,
        *,
        num_clips: int = 1,
        source: Any = None,
        **options: Unpack[EpochOptions],
    ) -> None:
        self._starts = np.asarray(starts, np.int64)
        self.num_clips = num_clips
        super().__init__(len(self._starts) * num_clips, source=source, **options)

    def _order(self, epoch: int) -> list[tuple[int, int]]:
        sequences = self._permutation(epoch, self._num_items) // self.num_clips
        starts = (self._uniform(epoch, self._num_items, 1) * self._starts[sequences]).astype(
            np.int64
        )
        return list(zip(sequences.tolist(), starts.tolist(), strict=True))

    def _fingerprint(self) -> list[Any]:
        return [self.num_clips, checksum(self._starts)]


class RunSampler(EpochSampler[int]):
    """Runs of items that follow each other, in random order; made by `DicomPatches.sampler`.

    Every rank gets a stretch of the order.

    Args:
        source: A dataset, whose samples k * length to (k + 1) * length - 1 are run k.
        length: Items of a run.
        **options: `seed`, `num_replicas`, `rank`, `drop_last`, as in `EpochSampler`.
    """

    _contiguous = True

    def __init__(self, source: Sized, length: int, **options: Unpack[EpochOptions]) -> None:
        super().__init__(len(source), source=source, **options)
        self._length = length

    def _order(self, epoch: int) -> Ints:
        runs = self._permutation(epoch, self._num_items // self._length)
        order: Ints = (runs[:, None] * self._length + np.arange(self._length)).reshape(-1)
        return order

    def _fingerprint(self) -> list[Any]:
        return [self._length]


def shuffle_within(codes: Ints, bits: npt.NDArray[np.uint64]) -> Ints:
    """A permutation that shuffles within runs of equal codes; `codes` ascend."""
    return np.lexsort((bits, codes))


def checksum(*arrays: npt.NDArray[Any]) -> int:
    """Tells other data, for a state."""
    total = 0
    for array in arrays:
        total = zlib.crc32(np.ascontiguousarray(array).tobytes(), total)
    return total
