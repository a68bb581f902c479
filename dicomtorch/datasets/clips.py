"""`DicomClips`: runs of frames that follow each other in time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple, Unpack, overload

import numpy as np
import numpy.typing as npt
from torch import Tensor

from dicomtorch.batches.epochs import ClipSampler, EpochOptions, ShuffleSampler
from dicomtorch.batches.metadata import FrameMeta
from dicomtorch.datasets.base import memory_for
from dicomtorch.datasets.drawn import DrawnDataset
from dicomtorch.datasets.kinds import (
    Batch_co,
    Pair,
    PairBatch,
    Sample_co,
    Several,
    Triple,
    TripleBatch,
)
from dicomtorch.datasets.masked import Mask
from dicomtorch.datasets.options import FrameOptions, UntransformedFrames, check_names
from dicomtorch.datasets.positions import integer_of, one_position
from dicomtorch.datasets.source import FrameSource, Given
from dicomtorch.errors import FrameIndexError, OptionError, SourceError, format_count, printable
from dicomtorch.model.frame import AppliedVOI
from dicomtorch.reader.reader import Frame
from dicomtorch.series.geometry import Ints
from dicomtorch.series.sequences import FrameSequences, time_sequences
from dicomtorch.series.stacks import OnGap

Policy = Literal["error", "repeat", "wrap", "drop"]


class Clip(NamedTuple):
    """Which frames: `number` is what the sampler or the user asked for."""

    number: int
    sequence: int
    start: int


class DicomClips(DrawnDataset[Clip, Sample_co, Batch_co]):
    """Clips of `length` frames from multi-frame files and time series, decoded when asked for.

    `clips[i]` is `(clip, meta)`: a tensor (T, C, H, W), float32 in [0, 1] unless `values=` or `dtype=` ask for others,
    with one mapping to display for all frames, and the metadata of the first one. In it `index` is i, and there are
    four keys more: `frames`, the positions of the frames in `clips.index`; `times`, in milliseconds since the first
    frame of the sequence, nan where the files do not tell; `sequence` and `start`, which sequence and where in it. Only
    the frames of the clip are read.

    A sequence is a multi-frame file, or the frames at one place of the successive volumes of a series;
    `clips.sequences` lists them, `sequences.time_sequences` says how they are found.

    Sources: PS3.3 C.7.6.5 (cine), C.7.6.16.2.2 (time of a frame).

    Args:
        source: As in `DicomFrames`.
        length: Frames of a clip.
        stride: 1: frames that follow each other; k: every k-th.
        clips: "all": every start, or every `step`-th. "uniform": `num_clips` starts of each sequence, or all if it has
            fewer, evenly from the first to the last; the middle one for 1. "random": `num_clips` starts of each
            sequence, drawn in each epoch by the sampler: `DataLoader(clips, sampler=clips.sampler(seed=0), ...)`.
        num_clips: See `clips`.
        step: See `clips`.
        policy: For sequences that are too short: "error" raises here, "drop" leaves them out, "repeat" repeats their
            last frame, "wrap" begins again with their first.
        on_gap: For copies of frames of a time series, frames that fit none of its volumes, volumes that lack places,
            and series that nothing orders: "raise", or "warn" or "keep", with which such frames are alone, and places
            that a volume lacks have one frame less.
        **options: Those of `DicomFrames`; `transform` gets the clip.

    Raises:
        GeometryError: `on_gap="raise"`, and there are some; the message names the files.
        OptionError: An option means nothing, or sequences are too short for the policy.

    Example:
        >>> clips = DicomClips("echo/", 16, stride=2, clips="random", policy="drop")     # doctest: +SKIP
        >>> loader = DataLoader(clips, batch_size=4, sampler=clips.sampler(seed=0))      # doctest: +SKIP
    """

    sample_name = "clip"
    _channel_axis = 1

    @overload
    def __init__(
        self: DicomClips[Pair, PairBatch],
        source: Given,
        length: int,
        stride: int = ...,
        clips: Literal["all", "uniform", "random"] = ...,
        policy: Policy = ...,
        *,
        num_clips: int = ...,
        step: int = ...,
        on_gap: OnGap = ...,
        masks: Literal[False] | None = None,
        **options: Unpack[UntransformedFrames],
    ) -> None: ...
    @overload
    def __init__(
        self: DicomClips[Triple, TripleBatch],
        source: Given,
        length: int,
        stride: int = ...,
        clips: Literal["all", "uniform", "random"] = ...,
        policy: Policy = ...,
        *,
        num_clips: int = ...,
        step: int = ...,
        on_gap: OnGap = ...,
        masks: Any,
        **options: Unpack[UntransformedFrames],
    ) -> None: ...
    @overload
    def __init__(
        self: DicomClips[Any, Any],
        source: Given,
        length: int,
        stride: int = ...,
        clips: Literal["all", "uniform", "random"] = ...,
        policy: Policy = ...,
        *,
        num_clips: int = ...,
        step: int = ...,
        on_gap: OnGap = ...,
        **options: Unpack[FrameOptions],
    ) -> None: ...
    def __init__(
        self,
        source: Given,
        length: int,
        stride: int = 1,
        clips: Literal["all", "uniform", "random"] = "all",
        policy: Policy = "error",
        *,
        num_clips: int = 1,
        step: int = 1,
        on_gap: OnGap = "raise",
        **options: Unpack[FrameOptions],
    ) -> None:
        check_names(DicomClips, options)
        numbers = {"length": length, "stride": stride, "num_clips": num_clips, "step": step}
        for name, value in numbers.items():
            if value < 1:
                raise OptionError(f"{name} must be 1 or more; got {value}")
        if clips not in ("all", "uniform", "random"):
            raise OptionError(f'clips must be "all", "uniform" or "random"; got {clips!r}')
        if policy not in ("error", "repeat", "wrap", "drop"):
            raise OptionError(f'policy must be "error", "repeat", "wrap" or "drop"; got {policy!r}')
        if step > 1 and clips != "all":
            raise OptionError('step goes with clips="all" only')
        if num_clips > 1 and clips == "all":
            raise OptionError('num_clips goes with clips="uniform" and "random" only')
        self.length, self.stride, self.clips, self.policy = length, stride, clips, policy
        self.num_clips = num_clips
        super().__init__(FrameSource(source, **options))
        span = (length - 1) * stride + 1
        self.sequences = self._long_enough(time_sequences(self.index, on_gap), span)
        self._num_starts = np.maximum(self.sequences.lengths - span + 1, 1)
        self._fixed = None if clips == "random" else self._listed(step)

    def _long_enough(self, found: FrameSequences, span: int) -> FrameSequences:
        short = found.lengths < span
        if not short.any() or self.policy in ("repeat", "wrap"):
            return found
        if self.policy == "error":
            first = int(np.flatnonzero(short)[np.argmin(found.starts[:-1][short])])
            path = printable(self.index.path(int(found.order[found.starts[first]])))
            raise OptionError(
                f"{short.sum()} of {len(found)} sequences have fewer than the {span} frames that a clip spans "
                f'({path}: {found.lengths[first]}); policy="drop" leaves them out, "repeat" repeats their last '
                f'frame, "wrap" begins them again'
            )
        kept = np.repeat(~short, found.lengths)
        if not kept.any():
            raise SourceError(
                f"no sequence has the {span} frames that a clip spans; the longest of {len(found)} has "
                f"{found.lengths.max()}"
            )
        starts = np.append(0, np.cumsum(found.lengths[~short]))
        return FrameSequences(found.order[kept], starts, found.times[kept])

    def _listed(self, step: int) -> npt.NDArray[np.int64]:
        """(sequence, start) of every clip."""
        if self.clips == "all":
            counts = -(-self._num_starts // step)
            sequences = np.repeat(np.arange(len(counts)), counts)
            before = np.repeat(np.cumsum(counts) - counts, counts)
            return np.stack([sequences, (np.arange(len(sequences)) - before) * step], axis=1)
        parts = np.array([0.5]) if self.num_clips == 1 else np.linspace(0, 1, self.num_clips)
        starts = np.floor(parts * (self._num_starts[:, None] - 1) + 0.5).astype(np.int64)
        sequences = np.repeat(np.arange(len(starts)), self.num_clips)
        return np.unique(np.stack([sequences, starts.ravel()], axis=1), axis=0)

    # What it holds

    def __len__(self) -> int:
        """Clips of an epoch."""
        if self._fixed is None:
            return len(self.sequences) * self.num_clips
        return len(self._fixed)

    def __repr__(self) -> str:
        return (
            f"DicomClips({format_count(len(self), 'clip')} of {format_count(self.length, 'frame')} from "
            f"{format_count(len(self.sequences), 'sequence')}, "
            f"clips={self.clips!r})"
        )

    def sampler(self, **options: Unpack[EpochOptions]) -> ClipSampler | ShuffleSampler:
        """The clips of an epoch in random order, and with `clips="random"` from random starts.

        Args:
            **options: `seed`, `num_replicas`, `rank`, `drop_last`, as in `epochs.EpochSampler`.
        """
        if self._fixed is None:
            return ClipSampler(self._num_starts, num_clips=self.num_clips, source=self, **options)
        return ShuffleSampler(self, **options)

    # Samples

    @overload
    def __getitem__(self, i: int | np.integer[Any] | tuple[int, int]) -> Sample_co: ...
    @overload
    def __getitem__(self, i: Several) -> Batch_co: ...
    @overload
    def __getitem__(self, i: Tensor) -> Any: ...
    def __getitem__(self, i: Any) -> Any:
        """One clip for an integer or (sequence, start), a collated batch for a slice, list, array or mask."""
        if isinstance(i, tuple) and len(i) == 2:
            i = self._asked(i)
            (sample,) = self._samples([i], None, None)
            return sample
        return super().__getitem__(i)

    def _asked(self, i: Any) -> Clip:
        if isinstance(i, tuple) and len(i) == 2:
            sequence = one_position(i[0], len(self.sequences), "sequence")
            start = integer_of(i[1], "start")
            if not 0 <= start < self._num_starts[sequence]:
                raise FrameIndexError(
                    f"sequence {sequence} has {self._num_starts[sequence]} starts; got {start}"
                )
            return Clip(sequence, sequence, start)
        number = one_position(i, len(self), self.sample_name)
        if self._fixed is None:
            raise OptionError(
                'with clips="random" the sampler draws the starts: '
                "DataLoader(clips, sampler=clips.sampler(seed=0)); clips[sequence, start] is one clip"
            )
        return Clip(number, *self._fixed[number].tolist())

    def _looked(self, i: int) -> Clip:
        if self._fixed is None:  # the first of those that the sampler may draw
            return self._asked((one_position(i, len(self), "clip") % len(self.sequences), 0))
        return self._asked(i)

    def _number(self, asked: Clip) -> int:
        return asked.number

    def _key(self, asked: Clip) -> tuple[int, ...]:
        return (asked.sequence, asked.start)

    def _others(self, asked: Clip) -> Iterable[Clip]:
        count = len(self.sequences) if self._fixed is None else len(self)
        for step in range(1, count):
            number = (asked.number + step) % count
            if self._fixed is None:
                yield Clip(number, number, min(asked.start, int(self._num_starts[number]) - 1))
            else:
                yield Clip(number, *self._fixed[number].tolist())

    def _positions(self, asked: Clip) -> list[int]:
        positions: list[int] = self.sequences.order[self._places(asked)].tolist()
        return positions

    def _places(self, asked: Clip) -> Ints:
        """Of its frames in the order of the sequences."""
        first, end = self.sequences.starts[asked.sequence : asked.sequence + 2]
        within = self._within(asked.start, int(end - first), np.arange(self.length))
        places: Ints = first + within
        return places

    def _within(self, start: Any, length: Any, steps: Any) -> Any:
        """Where in their sequences clips have their frames number `steps`."""
        within = start + self.stride * steps
        return within % length if self.policy == "wrap" else np.minimum(within, length - 1)

    def _shape(self, asked: Clip) -> tuple[int, ...]:
        """(T, C, H, W)."""
        first = self.sequences.order[self.sequences.starts[asked.sequence]]
        return (self.length, *self._reader.shape(int(first)))

    def _read(self, asked: Clip, out: Tensor | None) -> Frame:
        positions = self._positions(asked)
        image = memory_for(self._shape(asked), self._reader.dtype, out)
        distinct = list(dict.fromkeys(positions))
        if len(distinct) == self.length:
            frames = self._source.reader.read_together(positions, image)
            return Frame(image, frames[0].voi)
        frames = self._source.reader.read_together(distinct)
        for k, position in enumerate(positions):
            image[k] = frames[distinct.index(position)].image
        return Frame(image, frames[0].voi)

    def _mask_shape(self, asked: Clip) -> tuple[int, ...]:
        assert self._masks is not None
        return (self.length, *self._masks.shape(self._positions(asked)[0]))

    def _mask(self, asked: Clip, out: Tensor) -> Mask:
        assert self._masks is not None
        positions = self._positions(asked)
        areas = self._masks.read(positions, out)
        return self._masks.finished(out, positions, areas, axis=1)

    def _meta(self, asked: Clip, voi: AppliedVOI) -> FrameMeta:
        positions = self._positions(asked)
        (meta,) = self._source.metas(positions[:1], [voi], positions[:1], positions)
        times = self.sequences.times[self._places(asked)]
        meta.update(
            index=asked.number,
            sequence=asked.sequence,
            start=asked.start,
            frames=tuple(positions),
            times=tuple(times.tolist()),
        )
        return meta

    @property
    def _first(self) -> Any:
        return (0, 0) if self._fixed is None else 0

    def _covers(self) -> Ints:
        middles = self.sequences.starts[:-1] + self.sequences.lengths // 2
        covers: Ints = self.sequences.order[middles]
        return covers

    def _matching(self, equals: dict[str, Any]) -> Ints:
        order, starts = self.sequences.order, self.sequences.starts
        matching = self.index.where(**equals)[order]
        if self._fixed is None:  # what is numbered is sequences
            return np.flatnonzero(np.logical_or.reduceat(matching, starts[:-1]))
        first, length = starts[self._fixed[:, 0]], self.sequences.lengths[self._fixed[:, 0]]
        found = np.zeros(len(self), np.bool_)
        for k in range(self.length):
            found |= matching[first + self._within(self._fixed[:, 1], length, k)]
        return np.flatnonzero(found)
