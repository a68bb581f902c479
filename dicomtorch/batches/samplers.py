"""Orders over the frames of an index: local shuffles, groups, balanced classes, batches of groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol, TypeGuard, Unpack

import numpy as np
import numpy.typing as npt

from dicomtorch.batches.epochs import EpochOptions, EpochSampler, Ints, checksum, shuffle_within
from dicomtorch.batches.orders import in_order, searched, shuffle_windows, starts_of
from dicomtorch.errors import OptionError, have
from dicomtorch.index.columns import Texts
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.index.joins import example_filter


class HasIndex(Protocol):
    """A dataset with one sample for each frame of its index, as `DicomFrames` is."""

    @property
    def index(self) -> FrameIndex:
        """The index."""

    def __len__(self) -> int:
        """Samples."""


class HasColumns(Protocol):
    """A table with one row for each sample, as `DicomCrops` is."""

    def column(self, name: str) -> Any:
        """One column."""

    def __len__(self) -> int:
        """Samples."""


HasFrames = FrameIndex | HasIndex
By = str | Sequence[Any] | npt.NDArray[Any]


class LocalShuffleSampler(EpochSampler[int]):
    """Every frame once, in an order that is random enough and keeps reads near.

    Blocks of `block` consecutive frames of a file are shuffled, then frames inside windows of `window`. So a batch has
    frames that lie beside each other, and what the system reads ahead is used before it is forgotten. The cost: a batch
    has frames of fewer files than a plain shuffle has, and the other frames of a block come within the same window or
    the next (`python -m benchmarks.samplers` measures both on your disk). Every rank gets a stretch of the order.

    Args:
        source: A `DicomFrames` or a `FrameIndex`.
        window: Frames that are shuffled together; 1 keeps those of a block in order, all are a plain shuffle.
        block: Frames of one file that stay together at first; `None`: all of them.
        **options: `seed`, `num_replicas`, `rank`, `drop_last`, as in `EpochSampler`.

    Raises:
        OptionError: `window` or `block` is below 1.
    """

    _contiguous = True

    def __init__(
        self,
        source: HasFrames,
        *,
        window: int = 128,
        block: int | None = 8,
        **options: Unpack[EpochOptions],
    ) -> None:
        for name, value in (("window", window), ("block", block)):
            if value is not None and value < 1:
                raise OptionError(f"{name} must be 1 or more; got {value}")
        index = _index_of(source)
        super().__init__(len(index), source=source, **options)
        self.window, self.block = window, block
        files = np.asarray(index.column("file"))
        self._reading: Ints = in_order(
            files, np.asarray(index.column("offset")), np.asarray(index.column("bit_offset"))
        )
        starts = starts_of(files[self._reading])
        if block is not None:
            counts = -(-np.diff(starts, append=len(files)) // block)
            within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
            starts = np.repeat(starts, counts) + block * within
        self._starts = starts

    def _order(self, epoch: int) -> Ints:
        count = self._num_items
        blocks = self._permutation(epoch, len(self._starts))
        lengths = np.diff(self._starts, append=count)[blocks]
        ends = np.cumsum(lengths)
        near = np.arange(count) + np.repeat(self._starts[blocks] - (ends - lengths), lengths)
        shuffled = shuffle_windows(self.window, self._bits(epoch, count, 1))
        order: Ints = self._reading[near[shuffled]]
        return order

    def _fingerprint(self) -> list[Any]:
        return [self.window, self.block, checksum(self._reading, self._starts)]


class GroupSampler(EpochSampler[int]):
    """Some frames of each group per epoch, as in ten slices of every series.

    Args:
        source: A `DicomFrames` or a `FrameIndex`.
        by: A column of the index, or (frames,) integers, floats or texts. "PatientID" means the patient as the index
            numbers them: with the issuer, and the study where the ID is empty.
        num_frames: How many of each group; a smaller group gives all it has. `None` with mode "all" only.
        mode: "random": others in each epoch. "uniform": the middles of `num_frames` equal parts of the group, in the
            order of series, InstanceNumber and frame. "all": every frame.
        shuffle: Mix the frames of all groups; else group after group, in that order.
        **options: `seed`, `num_replicas`, `rank`, `drop_last`, as in `EpochSampler`.

    Raises:
        OptionError: `mode` or `num_frames` is none, or they do not go together.
    """

    def __init__(
        self,
        source: HasFrames,
        by: By = "SeriesInstanceUID",
        num_frames: int | None = None,
        mode: Literal["random", "uniform", "all"] = "random",
        *,
        shuffle: bool = True,
        **options: Unpack[EpochOptions],
    ) -> None:
        if mode not in ("random", "uniform", "all"):
            raise OptionError(f'mode must be "random", "uniform" or "all"; got {mode!r}')
        if (mode == "all") != (num_frames is None):
            raise OptionError(
                'num_frames is needed with mode "random" and "uniform", and not with "all"'
            )
        if num_frames is not None and num_frames < 1:
            raise OptionError(f"num_frames must be 1 or more; got {num_frames}")
        self._groups = _Groups(_index_of(source), by)
        sizes = self._groups.sizes
        self._taken = sizes if num_frames is None else np.minimum(sizes, num_frames)
        super().__init__(int(self._taken.sum()), source=source, **options)
        self.mode = mode
        self.shuffle = shuffle

    def _order(self, epoch: int) -> Ints:
        groups = self._groups
        rank = np.arange(self._num_items) - np.repeat(
            np.cumsum(self._taken) - self._taken, self._taken
        )
        first = np.repeat(groups.starts, self._taken)
        if self.mode == "uniform":
            sizes, taken = (np.repeat(a, self._taken) for a in (groups.sizes, self._taken))
            chosen = groups.order[first + (2 * rank + 1) * sizes // (2 * taken)]
        elif self.mode == "random":
            shuffled = shuffle_within(groups.codes, self._bits(epoch, len(groups.order), 1))
            within = np.sort(shuffled[first + rank]) if not self.shuffle else shuffled[first + rank]
            chosen = groups.order[within]
        else:
            chosen = groups.order
        order: Ints = chosen[self._permutation(epoch, len(chosen))] if self.shuffle else chosen
        return order

    def _fingerprint(self) -> list[Any]:
        return [self.mode, self.shuffle, int(self._taken.max()), self._groups.checksum()]


class BalancedSampler(EpochSampler[int]):
    """Frames, or candidates of a table, with an equal chance per class, or with the weights given.

    Args:
        source: A `DicomFrames`, a `FrameIndex`, or a `DicomCrops`, whose candidates are drawn: what follows on frames
            and columns of the index goes for candidates and columns of their table.
        by: The class of each frame: a column of the index, or (frames,) integers, bool or texts. Or give `weights`.
        weights: (frames,) floats, 0 or more; chances are proportional to them.
        num_samples: Of an epoch, over all ranks. `None`: as many as frames with replacement; without, as many as give
            every class the frames of the smallest one. Needed for weights without replacement.
        replacement: Whether a frame may come again within an epoch. Without, classes are equally frequent exactly.
        **options: `seed`, `num_replicas`, `rank`, `drop_last`, as in `EpochSampler`.

    Raises:
        OptionError: Not one of `by` and `weights` is given, or not one per frame.
    """

    def __init__(
        self,
        source: HasFrames | HasColumns,
        by: By | None = None,
        weights: Sequence[float] | npt.NDArray[Any] | None = None,
        *,
        num_samples: int | None = None,
        replacement: bool = True,
        **options: Unpack[EpochOptions],
    ) -> None:
        if (by is None) == (weights is None):
            raise OptionError("give the classes (by=) or weights=, one of them")
        table = source if _has_columns(source) else _index_of(source)
        self._groups = None if by is None else _Groups(table, by)
        if self._groups is not None:
            self._weights = np.empty(len(table))
            sizes = np.repeat(self._groups.sizes, self._groups.sizes)
            self._weights[self._groups.order] = 1.0 / sizes
        else:
            self._weights = _check_weights(weights, len(table))
        self._cumulative = np.cumsum(self._weights)
        self.replacement = replacement
        super().__init__(self._check_number(num_samples), source=source, **options)

    def _check_number(self, number: int | None) -> int:
        if number is not None and number < 1:
            raise OptionError(f"num_samples must be 1 or more; got {number}")
        if self.replacement:
            return number or len(self._weights)
        if self._groups is not None:
            classes, smallest = len(self._groups.sizes), int(self._groups.sizes.min())
            number = number or classes * smallest
            if -(-number // classes) > smallest:
                raise OptionError(
                    f"{number} samples of {classes} classes without replacement need {-(-number // classes)} of "
                    f"each, but the smallest has {smallest}; ask for at most {classes * smallest}"
                )
            return number
        possible = int((self._weights > 0).sum())
        if number is None or number > possible:
            raise OptionError(
                f"weights without replacement need num_samples, at most {possible} (frames with a weight); "
                f"got {number}"
            )
        return number

    def _order(self, epoch: int) -> Ints:
        count = self._num_items
        if self.replacement:
            drawn = self._uniform(epoch, count) * self._cumulative[-1]
            found = searched(self._cumulative, drawn)
            # Rounding may make a draw equal to the sum.
            return np.asarray(np.minimum(found, np.flatnonzero(self._weights)[-1]))
        if self._groups is None:
            # Efraimidis and Spirakis 2006: the smallest exponential variates with the weights as rates.
            with np.errstate(divide="ignore"):
                keys = -np.log1p(-self._uniform(epoch, len(self._weights))) / self._weights
            return np.argsort(keys, kind="stable")[:count]
        groups = self._groups
        shuffled = shuffle_within(groups.codes, self._bits(epoch, len(groups.order), 1))
        each, rest = divmod(count, len(groups.sizes))
        taken = np.full(len(groups.sizes), each)
        taken[self._permutation(epoch, len(taken), 2)[:rest]] += 1
        rank = np.arange(count) - np.repeat(np.cumsum(taken) - taken, taken)
        chosen = groups.order[shuffled[np.repeat(groups.starts, taken) + rank]]
        order: Ints = chosen[self._permutation(epoch, count)]
        return order

    def _fingerprint(self) -> list[Any]:
        groups = None if self._groups is None else self._groups.checksum()
        return [self.replacement, checksum(self._weights), groups]


class GroupBatchSampler(EpochSampler[list[int]]):
    """Batches by group: each of one group, or of `num_groups` groups with `num_frames` frames each.

    For contrastive learning, bags, and statistics per series. Pass it as `batch_sampler=`; with a trainer that replaces
    samplers as `DataLoader(frames, sampler=..., batch_size=None)`, which `DicomFrames` reads as batches too. It shards
    batches: `drop_last`, `len` and states count those.

    Args:
        source: A `DicomFrames` or a `FrameIndex`.
        by: A column of the index, or (frames,) integers, floats or texts; see `GroupSampler`.
        batch_size: Every frame of every group once, in batches of so many frames of one group; the last of a group may
            be smaller, or is left out with `drop_last`.
        num_groups: Groups of a batch; every group once per epoch; the last batch may have fewer groups, or is left out
            with `drop_last`. Not with `batch_size`.
        num_frames: Frames of each group, others in each epoch. Goes with `num_groups`.
        small_groups: What to do with groups of fewer than `num_frames` frames: "raise", "skip", or "repeat" frames.
        **options: See `EpochSampler`; `drop_last` also leaves out batches that are not full.

    Raises:
        OptionError: The sizes are below 1 or do not go together, or a group is too small.
    """

    def __init__(
        self,
        source: HasFrames,
        by: By = "SeriesInstanceUID",
        *,
        batch_size: int | None = None,
        num_groups: int | None = None,
        num_frames: int | None = None,
        small_groups: Literal["raise", "skip", "repeat"] = "raise",
        **options: Unpack[EpochOptions],
    ) -> None:
        both = num_groups is not None and num_frames is not None
        neither = num_groups is None and num_frames is None
        if not (both or neither) or (batch_size is None) == neither:
            raise OptionError("give batch_size=, or num_groups= with num_frames=")
        if min(batch_size or 1, num_groups or 1, num_frames or 1) < 1:
            raise OptionError("batch_size, num_groups and num_frames must be 1 or more")
        self.batch_size, self.num_groups, self.num_frames = batch_size, num_groups, num_frames
        self.small_groups = small_groups
        drop_last = options.get("drop_last", False)
        self._groups = _Groups(_index_of(source), by)
        self._kept = np.arange(len(self._groups.sizes))
        self._firsts = self._ends = np.empty(0, np.int64)
        if batch_size is not None:
            self._cut(batch_size, drop_last)
            count = len(self._firsts)
        else:
            self._kept = self._large_enough(num_frames or 1)
            whole, rest = divmod(len(self._kept), num_groups or 1)
            count = whole + (rest > 0 and not drop_last)
        super().__init__(count, source=source, **options)

    def _cut(self, batch_size: int, drop_last: bool) -> None:
        """Where batches begin and end among the frames that are ordered by group."""
        starts, sizes = self._groups.starts, self._groups.sizes
        counts = sizes // batch_size if drop_last else -(-sizes // batch_size)
        rank = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        self._firsts = np.repeat(starts, counts) + rank * batch_size
        self._ends = np.minimum(self._firsts + batch_size, np.repeat(starts + sizes, counts))

    def _large_enough(self, num_frames: int) -> Ints:
        if self.small_groups not in ("raise", "skip", "repeat"):
            raise OptionError(
                f'small_groups must be "raise", "skip" or "repeat"; got {self.small_groups!r}'
            )
        small = self._groups.sizes < num_frames
        if small.any() and self.small_groups == "raise":
            raise OptionError(
                f'{small.sum()} of {len(small)} groups have fewer than {num_frames} frames; small_groups="skip" '
                f'leaves them out, "repeat" repeats their frames'
            )
        return np.flatnonzero(~small) if self.small_groups == "skip" else np.arange(len(small))

    def _order(self, epoch: int) -> list[list[int]]:
        groups = self._groups
        shuffled = groups.order[
            shuffle_within(groups.codes, self._bits(epoch, len(groups.order), 1))
        ]
        if self.num_frames is None or self.num_groups is None:
            frames = shuffled.tolist()
            batches = self._permutation(epoch, self._num_items)
            firsts, ends = self._firsts[batches].tolist(), self._ends[batches].tolist()
            return [frames[a:b] for a, b in zip(firsts, ends, strict=True)]
        chosen = self._kept[self._permutation(epoch, len(self._kept))][:, None]
        within = np.arange(self.num_frames) % groups.sizes[chosen]
        drawn = shuffled[groups.starts[chosen] + within]
        step = self.num_groups
        return [
            drawn[first : first + step].ravel().tolist()
            for first in range(0, self._num_items * step, step)
        ]

    def _fingerprint(self) -> list[Any]:
        options = [self.batch_size, self.num_groups, self.num_frames, self.small_groups]
        return [*options, self._groups.checksum()]


class _Groups:
    """Positions ordered by group, and where each group begins.

    Attributes:
        order: Positions of the index, group after group; within one by series, InstanceNumber and frame; those of
            another table as they come.
        codes: The group of each of `order`, ascending from 0.
        starts: Where each group begins in `order`.
        sizes: Frames of each group.
    """

    def __init__(self, table: FrameIndex | HasColumns, by: By) -> None:
        codes = group_codes(table, by)
        within: tuple[Any, ...] = ()
        if isinstance(table, FrameIndex):
            names = ("frame", "file", "InstanceNumber")
            series = table.column("SeriesInstanceUID").codes
            within = (*(table.column(name) for name in names), series)
        self.order: Ints = np.lexsort((*within, codes))
        self.codes: Ints = codes[self.order]
        self.starts = starts_of(self.codes)
        self.sizes = np.diff(self.starts, append=len(self.codes))

    def checksum(self) -> int:
        return checksum(self.order, self.starts)


def group_codes(table: FrameIndex | HasColumns, by: By) -> Ints:
    """The number of each frame's group, from 0 without gaps.

    Raises:
        OptionError: A frame has no value, there is no such column, or it holds several numbers.
    """
    frames = isinstance(table, FrameIndex)
    what, name, data = "frame" if frames else "candidate", "by", by
    if isinstance(by, str):
        name, data = by, table.column("patient" if frames and by == "PatientID" else by)
    values = data.codes if isinstance(data, Texts) else np.asarray(data)
    if values.shape != (len(table),):
        raise OptionError(
            f"{name} must have one value per {what}: got shape {values.shape} for {len(table)} {what}s"
        )
    if isinstance(data, Texts):
        missing = values == data.code("")
    else:
        missing = _missing(values, isinstance(by, str))
        if values.dtype.kind == "O":
            values = values.astype(str)
    if missing.any():
        out = example_filter(name, data) if isinstance(by, str) else "with index.select"
        raise OptionError(
            f"{have(int(missing.sum()), what, len(missing))} no {name}; leave them out"
            f"{f', {out}' if frames else ' of the table'}, or give one value per {what} instead of a column"
        )
    return np.unique(values, return_inverse=True)[1].astype(np.int64)


def _missing(values: npt.NDArray[Any], is_column: bool) -> npt.NDArray[np.bool_]:
    if values.dtype.kind == "O":
        return np.array([value is None or value != value for value in values])
    if values.dtype.kind == "f":
        return np.asarray(np.isnan(values))
    return np.asarray(values == -1) if is_column else np.zeros(len(values), np.bool_)


def _has_columns(source: Any) -> TypeGuard[FrameIndex | HasColumns]:
    return hasattr(source, "column")


def _index_of(source: HasFrames | HasColumns) -> FrameIndex:
    if isinstance(source, FrameIndex):
        return source
    index = getattr(source, "index", None)
    # Crops and clips may by chance be as many as their frames.
    draws_others = _has_columns(source) or hasattr(source, "sequences")
    if not isinstance(index, FrameIndex) or draws_others:
        raise OptionError(
            f"a sampler takes a FrameIndex or a dataset of frames; got {type(source).__name__}"
        )
    if len(source) != len(index):
        raise OptionError(
            f"{type(source).__name__} has {len(source)} samples of {len(index)} frames: this sampler draws frames"
        )
    return index


def _check_weights(weights: Any, count: int) -> npt.NDArray[np.float64]:
    found = np.asarray(weights, np.float64)
    if found.shape != (count,):
        raise OptionError(
            f"weights must be one per frame or candidate: got shape {found.shape} for {count}"
        )
    if not (np.isfinite(found).all() and (found >= 0).all() and found.any()):
        raise OptionError("weights must be finite, not negative, and not all 0")
    return found
