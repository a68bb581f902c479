"""`DicomClips`: runs of frames that follow each other in time."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Unpack

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from dicomtorch.batches.collate import FrameSample, FrameSamples, collate_frames
from dicomtorch.batches.epochs import ClipSampler, EpochOptions, ShuffleSampler
from dicomtorch.batches.metadata import FrameMeta
from dicomtorch.datasets.frames import DicomFrames
from dicomtorch.datasets.options import Failure, FrameOptions
from dicomtorch.errors import DicomTorchError, FrameIndexError, OptionError, SourceError, printable
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.model.frame import AppliedVOI
from dicomtorch.pixels.memory import new_batch
from dicomtorch.reader.reader import FrameReader
from dicomtorch.scanner.tree import Source
from dicomtorch.series.sequences import FrameSequences, time_sequences

Policy = Literal["error", "repeat", "wrap", "drop"]


class Clip(NamedTuple):
    """Which frames: `number` is what the sampler or the user asked for."""

    number: int
    sequence: int
    start: int


class DicomClips(Dataset[FrameSample]):
    """Clips of `length` frames from multi-frame files and time series, decoded when asked for.

    `clips[i]` is `(clip, meta)`: a tensor (T, C, H, W), with one mapping to display for all frames, and the metadata of
    the first one. In it `index` is i, and there are four keys more: `frames`, the positions of the frames in
    `clips.index`; `times`, in milliseconds since the first frame of the sequence, nan where the files do not tell;
    `sequence` and `start`, which sequence and where in it. Only the frames of the clip are read.

    A sequence is a multi-frame file, or the frames of a series that show one place over time; `clips.sequences` lists
    them, `sequences.time_sequences` says how they are found.

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
        **options: Those of `DicomFrames`; `transform` gets the clip.

    Raises:
        OptionError: An option means nothing, or sequences are too short for the policy.

    Example:
        >>> clips = DicomClips("echo/", 16, stride=2, clips="random", policy="drop")     # doctest: +SKIP
        >>> loader = DataLoader(clips, batch_size=4, sampler=clips.sampler(seed=0))      # doctest: +SKIP
    """

    def __init__(
        self,
        source: Source | FrameIndex,
        length: int,
        stride: int = 1,
        clips: Literal["all", "uniform", "random"] = "all",
        policy: Policy = "error",
        *,
        num_clips: int = 1,
        step: int = 1,
        **options: Unpack[FrameOptions],
    ) -> None:
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
        self._frames = DicomFrames(source, **options)
        self._failures: list[Failure] = []
        span = (length - 1) * stride + 1
        self.sequences = self._long_enough(time_sequences(self._frames.index), span)
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

    @property
    def index(self) -> FrameIndex:
        """The index; `meta["frames"]` are positions in it."""
        return self._frames.index

    @property
    def failures(self) -> list[Failure]:
        """With `on_error="replace"`: what could not be read in this process so far; see `DicomFrames.failures`."""
        return list(self._failures)

    @property
    def _reader(self) -> FrameReader:
        reader = self._frames._reader
        assert isinstance(reader, FrameReader)  # FrameOptions has no context
        return reader

    def __len__(self) -> int:
        """Clips of an epoch."""
        if self._fixed is None:
            return len(self.sequences) * self.num_clips
        return len(self._fixed)

    def __repr__(self) -> str:
        return (
            f"DicomClips({len(self):,} clips of {self.length} frames from {len(self.sequences):,} sequences, "
            f"clips={self.clips!r})"
        )

    def sampler(self, **options: Unpack[EpochOptions]) -> ClipSampler | ShuffleSampler:
        """The clips of an epoch in random order, and with `clips="random"` from random starts.

        Args:
            **options: `seed`, `num_replicas`, `rank`, `drop_last`, as in `epochs.EpochSampler`.
        """
        if self._fixed is None:
            return ClipSampler(self._num_starts, num_clips=self.num_clips, **options)
        return ShuffleSampler(self, **options)

    # Samples

    def __getitem__(self, i: Any) -> Any:
        """One clip for an integer or (sequence, start), a collated batch for a list or slice of them."""
        if isinstance(i, slice):
            i = list(range(*i.indices(len(self))))
        if isinstance(i, list):
            if not i:
                raise OptionError("an empty list or slice of clips has no batch")
            return collate_frames(self.__getitems__(i))
        (sample,) = self.__getitems__([i])
        return sample

    def __getitems__(self, indices: Sequence[Any]) -> FrameSamples:
        """Several clips, read together; `DataLoader` calls this."""
        clips = [self._find(i) for i in indices]
        shapes = {self._shape(clip) for clip in clips}
        batch = None
        if len(shapes) == 1:
            batch = new_batch((len(clips), *shapes.pop()), self._reader.dtype)
        return FrameSamples(
            (self._sample(c, None if batch is None else batch[k]) for k, c in enumerate(clips)),
            batch if self._frames.transform is None else None,
        )

    def _find(self, i: Any) -> Clip:
        if isinstance(i, tuple) and len(i) == 2:
            sequence, start = (int(number) for number in i)
            if not 0 <= sequence < len(self.sequences):
                raise FrameIndexError(
                    f"sequence {sequence} is outside the dataset, which has {len(self.sequences)}"
                )
            if not 0 <= start < self._num_starts[sequence]:
                raise FrameIndexError(
                    f"sequence {sequence} has {self._num_starts[sequence]} starts; got {start}"
                )
            return Clip(sequence, sequence, start)
        try:
            number = int(i.__index__())
        except AttributeError:
            raise OptionError(
                f"clips[i] takes an integer, (sequence, start), a slice or a list; got {type(i).__name__}"
            ) from None
        if self._fixed is None:
            raise OptionError(
                'with clips="random" the sampler draws the starts: '
                "DataLoader(clips, sampler=clips.sampler(seed=0)); clips[sequence, start] is one clip"
            )
        if not -len(self) <= number < len(self):
            raise FrameIndexError(f"clip {number} is outside the dataset, which has {len(self)}")
        number %= len(self)
        return Clip(number, *self._fixed[number].tolist())

    def _positions(self, clip: Clip) -> npt.NDArray[np.int64]:
        """Its frames, in the index."""
        first, end = self.sequences.starts[clip.sequence : clip.sequence + 2]
        within = self._within(clip, int(end - first))
        frames: npt.NDArray[np.int64] = self.sequences.order[first + within]
        return frames

    def _within(self, clip: Clip, count: int) -> npt.NDArray[np.int64]:
        within = clip.start + self.stride * np.arange(self.length)
        return within % count if self.policy == "wrap" else np.minimum(within, count - 1)

    def _shape(self, clip: Clip) -> tuple[int, ...]:
        """(T, C, H, W)."""
        first = self.sequences.order[self.sequences.starts[clip.sequence]]
        return (self.length, *self._reader.shape(int(first)))

    def _sample(self, clip: Clip, out: Tensor | None) -> FrameSample:
        try:
            image, voi = self._read(clip, out)
        except DicomTorchError as error:
            if self._frames.on_error == "raise":
                raise
            read, image, voi = self._replace(clip, error, out)
        else:
            read = clip
        transform = self._frames.transform
        return FrameSample(
            (image if transform is None else transform(image), self._meta(clip, read, voi))
        )

    def _read(self, clip: Clip, out: Tensor | None) -> tuple[Tensor, AppliedVOI]:
        positions = self._positions(clip).tolist()
        image = torch.empty(self._shape(clip), dtype=self._reader.dtype) if out is None else out
        distinct = list(dict.fromkeys(positions))
        if len(distinct) == self.length:
            frames = self._reader.read_together(positions, image)
            return image, frames[0].voi
        frames = self._reader.read_together(distinct)
        for k, position in enumerate(positions):
            image[k] = frames[distinct.index(position)].image
        return image, frames[0].voi

    def _replace(
        self, clip: Clip, error: DicomTorchError, out: Tensor | None
    ) -> tuple[Clip, Tensor, AppliedVOI]:
        """The next clip that can be read."""
        count = len(self.sequences) if self._fixed is None else len(self)
        for step in range(1, count):
            number = (clip.number + step) % count
            if self._fixed is None:
                start = min(clip.start, int(self._num_starts[number]) - 1)
                other = Clip(number, number, start)
            else:
                other = Clip(number, *self._fixed[number].tolist())
            fits = out is not None and self._shape(other) == out.shape
            try:
                image, voi = self._read(other, out if fits else None)
            except DicomTorchError:
                continue
            self._failures.append(Failure(clip.number, str(error), number))
            if len(self._failures) == 1:
                warnings.warn(
                    f"{error}. Clip {clip.number} was replaced by {number}; further ones are replaced without a "
                    f"warning and listed in clips.failures",
                    stacklevel=6,
                )
            return other, image, voi
        raise error

    def _meta(self, asked: Clip, read: Clip, voi: AppliedVOI) -> FrameMeta:
        positions = self._positions(read).tolist()
        (meta,) = self._frames._metas(positions[:1], [voi], positions[:1])
        first, end = self.sequences.starts[read.sequence : read.sequence + 2]
        times = self.sequences.times[first + self._within(read, int(end - first))]
        meta.update(
            index=read.number,
            requested_index=asked.number,
            sequence=read.sequence,
            start=read.start,
            frames=tuple(positions),
            times=tuple(times.tolist()),
        )
        return meta
