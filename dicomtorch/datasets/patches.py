"""`DicomPatches`: random parts of frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Unpack, overload

import numpy as np
import numpy.typing as npt
import torch

from dicomtorch.batches.epochs import EpochOptions, RunSampler
from dicomtorch.datasets.foreground import Foreground
from dicomtorch.datasets.kinds import Batch_co, Pair, PairBatch, Sample_co, Triple, TripleBatch
from dicomtorch.datasets.options import ReadOptions, UntransformedReading, check_names
from dicomtorch.datasets.parts import PartDataset, Window
from dicomtorch.datasets.source import FrameSource, Given
from dicomtorch.errors import OptionError
from dicomtorch.index.columns import Texts
from dicomtorch.reader.parts import will_need_parts
from dicomtorch.series.geometry import Ints

_DRAWS = 8  # numbers of a patch: whether it is drawn around foreground, where, and some to spare
_MOST_SPOTS = 1024  # places of patches that are remembered


class DicomPatches(PartDataset[Sample_co, Batch_co]):
    """Random patches (C, h, w) of large frames, others in each epoch, the same ones whatever reads them.

    An epoch has `per_frame` patches of each frame: patch i is of frame i // per_frame. Where it lies depends on (seed,
    epoch, i) alone, so that neither the number of workers nor the order changes it; `set_epoch` says which epoch it is,
    as the samplers of this package and `FrameLoader` do. Of uncompressed frames only the rows of a patch are read.
    Others are decoded once for all their patches in a batch: `sampler=patches.sampler()` puts those of a frame side by
    side.

    `meta` is that of `DicomFrames`. There are also `frames`, the position in `index`; `patch`, which of the frame, from
    0; `window`, the first row and column of the patch, its rows and columns; `window_valid`, the part of it that the
    frame has (first and end of rows, of columns); and `foreground`, 1 if it was drawn around foreground.

    Args:
        frames: What patches are of: as `source` of `DicomFrames`, which may be such a dataset.
        size: (h, w), in pixels. Smaller frames are padded as crops are; see `DicomCrops`.
        per_frame: Patches of each frame in an epoch.
        foreground: The chance that a patch is drawn around foreground, 0 to 1; the others are drawn anywhere, as are
            those of frames without any. With masks foreground is the pixels of labels: first a label of those that the
            frame has, then one of its pixels, which is the middle of the patch unless the patch would reach beyond the
            frame. Without masks it is what stands out: what is brighter in the frame as it is displayed with its first
            window than Otsu's threshold, and in colour what is more saturated than that, and than 0.05. For that every
            so-manieth row of a frame is looked at, 128 of the longer side, when its first patch is drawn.
        **options: Those of `DicomFrames` but `size` and `decode`; `transform` gets the patch. `seed` is that of the
            patches, too, 0 where there is none.

    Raises:
        OptionError: An option means nothing.
        SourceError: There is no frame.

    Example:
        >>> patches = DicomPatches("mammograms/", (512, 512), per_frame=8, foreground=0.5)     # doctest: +SKIP
        >>> loader = FrameLoader(patches, 32, sampler=patches.sampler())                       # doctest: +SKIP
    """

    sample_name = "patch"

    @overload
    def __init__(
        self: DicomPatches[Pair, PairBatch],
        frames: Given,
        size: tuple[int, int],
        *,
        per_frame: int = ...,
        foreground: float = ...,
        masks: Literal[False] | None = None,
        **options: Unpack[UntransformedReading],
    ) -> None: ...
    @overload
    def __init__(
        self: DicomPatches[Triple, TripleBatch],
        frames: Given,
        size: tuple[int, int],
        *,
        per_frame: int = ...,
        foreground: float = ...,
        masks: Any,
        **options: Unpack[UntransformedReading],
    ) -> None: ...
    @overload
    def __init__(
        self: DicomPatches[Any, Any],
        frames: Given,
        size: tuple[int, int],
        *,
        per_frame: int = ...,
        foreground: float = ...,
        **options: Unpack[ReadOptions],
    ) -> None: ...
    def __init__(
        self,
        frames: Given,
        size: tuple[int, int],
        *,
        per_frame: int = 1,
        foreground: float = 0.0,
        **options: Unpack[ReadOptions],
    ) -> None:
        check_names(DicomPatches, options)
        self.size = _patch_size(size)
        if type(per_frame) is not int or per_frame < 1:
            raise OptionError(f"per_frame must be 1 or more; got {per_frame!r}")
        if not 0 <= foreground <= 1:
            raise OptionError(f"foreground must be a chance, from 0 to 1; got {foreground!r}")
        seed = options.get("seed")
        if seed is not None and not (type(seed) is int and 0 <= seed < 1 << 64):
            raise OptionError(f"seed must be within 0 and 2**64 - 1; got {seed!r}")
        self.per_frame, self.foreground = per_frame, float(foreground)
        if not (options.get("transform") or options.get("sample_transform")):
            options["seed"] = (
                None  # nothing else draws, so that samples need not wait for each other
            )
        super().__init__(FrameSource(frames, **options))
        self._seed = seed or 0
        # In memory that workers share, so that another epoch reaches those that live on.
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]
        self._spots: dict[tuple[int, int], tuple[Window, bool]] = {}
        masks = None if self._masks is None else self._masks.masks
        self._foreground = Foreground(self._source.reader, masks) if foreground else None

    # What it holds

    def __len__(self) -> int:
        """Patches of an epoch."""
        return len(self.index) * self.per_frame

    def __repr__(self) -> str:
        return (
            f"DicomPatches({len(self):,} patches of {self.size[0]} x {self.size[1]}, {self.per_frame} of each of "
            f"{len(self.index):,} frames)"
        )

    def set_epoch(self, epoch: int) -> None:
        """Which epoch patches are drawn for; it reaches workers that live on too.

        The samplers of this package that were made with this dataset call it when an epoch begins, and so does
        `FrameLoader`.
        """
        if epoch < 0:
            raise OptionError(f"epochs count from 0; got {epoch}")
        self._epoch.fill_(epoch)
        super().set_epoch(epoch)

    def sampler(self, **options: Unpack[EpochOptions]) -> RunSampler:
        """All patches of a frame one after the other, frames in random order, so that each is decoded once.

        Args:
            **options: `seed`, `num_replicas`, `rank`, `drop_last`, as in `epochs.EpochSampler`.
        """
        return RunSampler(self, self.per_frame, **options)

    def column(self, name: str) -> Any:
        """A column of the index, one value for each patch; `BalancedSampler(patches, by="label")` reads it.

        Raises:
            OptionError: There is no such column.
        """
        of_frames: Any = self.index.column(name)
        rows = np.repeat(np.arange(len(self.index)), self.per_frame)
        return of_frames.take(rows) if isinstance(of_frames, Texts) else of_frames[rows]

    def _matching(self, equals: dict[str, Any]) -> Ints:
        others = {name: wanted for name, wanted in equals.items() if name != "patch"}
        found = np.repeat(self.index.where(**others), self.per_frame)
        if "patch" in equals:
            found &= np.arange(len(self)) % self.per_frame == equals["patch"]
        return np.flatnonzero(found)

    # Patches

    def _frame_of(self, asked: int) -> int:
        return asked // self.per_frame

    def _shape(self, asked: int) -> tuple[int, int, int]:
        return (self._reader.shape(self._frame_of(asked))[0], *self.size)

    def _drawn_numbers(self, asked: int) -> npt.NDArray[np.float64]:
        """In [0, 1), of (seed, epoch, patch)."""
        key = np.array([self._seed, int(self._epoch)], np.uint64)
        counter = np.array([0, 0, asked, 0], np.uint64)
        # Raw bits, because what NumPy makes of them may change from version to version.
        bits = np.random.Philox(key=key, counter=counter).random_raw(_DRAWS)
        return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def _is_around(self, chance: npt.NDArray[np.float64]) -> bool:
        return bool(chance[0] < self.foreground)

    def _spot(self, asked: int) -> tuple[Window, bool]:
        """Where a patch lies, and whether it was drawn around foreground; asked for several times for each patch."""
        key = (int(self._epoch), asked)
        known = self._spots.get(key)
        if known is None:
            if len(self._spots) >= _MOST_SPOTS:
                self._spots.clear()
            known = self._spots[key] = self._placed(asked)
        return known

    def _placed(self, asked: int) -> tuple[Window, bool]:
        position, chance = self._frame_of(asked), self._drawn_numbers(asked)
        shape = self._frame_shape(position)
        around = None
        if self._foreground is not None and self._is_around(chance):
            around = self._foreground.draw(position, shape, chance[1:5])
        starts = []
        for axis, (length, edge) in enumerate(zip(shape, self.size, strict=True)):
            last = max(length - edge, 0)
            start = (
                int(chance[5 + axis] * (last + 1)) if around is None else around[axis] - edge // 2
            )
            starts.append(min(max(start, 0), last))
        return Window(position, starts[0], starts[1], *self.size), around is not None

    def _window(self, asked: int) -> Window:
        return self._spot(asked)[0]

    def _part_meta(self, asked: int, window: Window) -> dict[str, Any]:
        return {"patch": asked % self.per_frame, "foreground": int(self._spot(asked)[1])}

    def will_need(self, indices: Sequence[Any]) -> None:
        """Says which patches are asked for soon, so that the system reads them into its cache; `FrameLoader` does.

        Not of those for which foreground has to be found first.
        """
        asked = [self._asked(i) for i in indices]
        known = [
            i
            for i in asked
            if self._foreground is None or not self._is_around(self._drawn_numbers(i))
        ]
        windows = [self._window(i) for i in known]
        will_need_parts(self._source.reader, [self._inside(window) for window in windows])


def _patch_size(size: Any) -> tuple[int, int]:
    sizes: tuple[Any, ...] = tuple(size)
    if len(sizes) != 2 or not all(isinstance(n, int | np.integer) and n > 0 for n in sizes):
        raise OptionError(f"size must be two numbers of pixels (h, w), 1 or more; got {size!r}")
    return (int(sizes[0]), int(sizes[1]))
