"""`DicomVolumes`: every stack of slices as a tensor (C, D, H, W)."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from dicomtorch.batches.collate import FrameSample, FrameSamples, collate_frames
from dicomtorch.batches.metadata import FrameMeta
from dicomtorch.datasets.frames import DicomFrames
from dicomtorch.datasets.options import Failure, FrameOptions
from dicomtorch.errors import DicomTorchError, FrameIndexError, OptionError, SourceError
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.model.frame import AppliedVOI
from dicomtorch.pixels.memory import new_batch
from dicomtorch.pixels.resize import resized
from dicomtorch.reader.reader import FrameReader
from dicomtorch.scanner.tree import Source
from dicomtorch.series.geometry import Floats, scaled, to_ras
from dicomtorch.series.search import stacks
from dicomtorch.series.stacks import OnGap, Stack, StackList

VOLUME_KEYS = (
    "affine",
    "affine_ras",
    "spacing",
    "position_error",
    "tilt",
    "frames",
    "SOPInstanceUIDs",
)
"""What `meta` has beyond that of a frame."""

_MISSING: dict[type, Any] = {int: -1, float: float("nan"), str: ""}


class StackDataset(Dataset[FrameSample]):
    """What volumes and crops have in common: samples that are parts of stacks.

    Attributes:
        stacks: The stacks that there are.
    """

    _what: str  # a sample is called in messages

    def __init__(self, frames: DicomFrames, found: StackList) -> None:
        self._frames = frames
        self._failures: list[Failure] = []
        self.stacks = found

    @property
    def index(self) -> FrameIndex:
        """The index of the slices; `meta["frames"]` are positions in it."""
        return self._frames.index

    @property
    def _reader(self) -> FrameReader:
        reader = self._frames._reader
        assert isinstance(reader, FrameReader)  # FrameOptions has no context
        return reader

    @property
    def failures(self) -> list[Failure]:
        """With `on_error="replace"`: what could not be read in this process so far; see `DicomFrames.failures`."""
        return list(self._failures)

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def shape(self, i: int) -> tuple[int, int, int, int]:
        """(C, D, H, W) of sample `i`, without reading it."""

    @abstractmethod
    def _read(self, i: int, out: Tensor) -> FrameMeta:
        """Fills `out` and gives the metadata.

        Raises:
            DicomTorchError: A slice cannot be read.
        """

    @abstractmethod
    def _slices(self, i: int) -> list[int]:
        """Positions of the slices that sample `i` is read from."""

    def will_need(self, indices: Sequence[int]) -> None:
        """Says which samples are asked for soon; see `DicomFrames.will_need`."""
        self._frames.will_need([k for i in indices for k in self._slices(self._number(i))])

    def __iter__(self) -> Iterator[FrameSample]:
        for i in range(len(self)):
            yield self[i]

    def __getitem__(self, i: Any) -> Any:
        """One sample for an integer, a collated batch for a slice or list of positions."""
        if isinstance(i, slice):
            i = list(range(*i.indices(len(self))))
        if isinstance(i, list):
            if not i:
                raise OptionError(f"an empty list or slice of {self._what}s has no batch")
            return collate_frames(self.__getitems__(i))
        (sample,) = self.__getitems__([i])
        return sample

    def __getitems__(self, indices: Sequence[int]) -> FrameSamples:
        """Several samples, read straight into one batch if they have one shape; `DataLoader` calls this."""
        numbers = [self._number(i) for i in indices]
        shapes = {self.shape(i) for i in numbers}
        dtype = self._reader.dtype
        batch = new_batch((len(numbers), *shapes.pop()), dtype) if len(shapes) == 1 else None
        return FrameSamples(
            (self._sample(i, None if batch is None else batch[k]) for k, i in enumerate(numbers)),
            batch if self._frames.transform is None else None,
        )

    def _number(self, i: Any) -> int:
        try:
            number = int(i.__index__())
        except AttributeError:
            raise OptionError(
                f"a {self._what} is asked for by an integer, several by a slice or a list; got {type(i).__name__}"
            ) from None
        if not -len(self) <= number < len(self):
            raise FrameIndexError(
                f"{self._what} {number} is outside the dataset, which has {len(self)}"
            )
        return number % len(self)

    def _sample(self, asked: int, out: Tensor | None) -> FrameSample:
        dtype = self._reader.dtype
        image = torch.empty(self.shape(asked), dtype=dtype) if out is None else out
        try:
            meta = self._read(asked, image)
        except DicomTorchError as error:
            if self._frames.on_error == "raise":
                raise
            image, meta = self._replace(asked, error, out)
        meta["requested_index"] = asked
        transform = self._frames.transform
        return FrameSample((image if transform is None else transform(image), meta))

    def _replace(
        self, asked: int, error: DicomTorchError, out: Tensor | None
    ) -> tuple[Tensor, FrameMeta]:
        """The next one that can be read; in a tensor of its own where it does not fit into the batch."""
        for step in range(1, len(self)):
            other = (asked + step) % len(self)
            shape = self.shape(other)
            fits = out is not None and shape == out.shape
            image = out if fits else torch.empty(shape, dtype=self._reader.dtype)
            assert image is not None
            try:
                meta = self._read(other, image)
            except DicomTorchError:
                continue
            self._failures.append(Failure(asked, str(error), other))
            if len(self._failures) == 1:
                warnings.warn(
                    f"{error}. {self._what.capitalize()} {asked} was replaced by {other}; further ones are "
                    f"replaced without a warning and listed in .failures",
                    stacklevel=5,
                )
            return image, meta
        raise error

    def _channels(self, stack: Stack) -> int:
        return self._reader.shape(int(stack.positions[0]))[0]

    def _scratch(self, shape: tuple[int, ...]) -> Tensor:
        """Memory for slices of which a part is kept; in a worker not of the segments that batches are sent in."""
        fresh = torch.empty if get_worker_info() else new_batch
        return fresh(shape, dtype=self._reader.dtype)

    def _read_slices(self, positions: Sequence[int], out: Tensor) -> AppliedVOI:
        """Slices of one sample into (C, D, H, W); says how they were made display values."""
        frames = self._reader.read_together(positions, out.movedim(1, 0))
        return frames[0].voi

    def _meta(
        self, number: int, stack: Stack, positions: Sequence[int], affine: Floats, voi: AppliedVOI
    ) -> FrameMeta:
        """What the slices have in common; what differs among them is missing."""
        metas = self._frames._metas(positions, [voi] * len(positions), positions)
        meta = FrameMeta(metas[0])
        position = meta["ImagePositionPatient"]
        for key, value in metas[0].items():
            if not all(_same(value, other[key]) for other in metas):
                missing = _MISSING[type(value[0]) if isinstance(value, tuple) else type(value)]
                meta[key] = (missing,) * len(value) if isinstance(value, tuple) else missing
        meta.update(
            index=number,
            requested_index=number,
            ImagePositionPatient=position,
            affine=torch.from_numpy(affine),
            affine_ras=torch.from_numpy(to_ras(affine)),
            spacing=_spacing(stack, affine),
            position_error=stack.report.position_error,
            tilt=stack.report.tilt,
            frames=tuple(positions),
            SOPInstanceUIDs=tuple(one["SOPInstanceUID"] for one in metas),
        )
        return meta


class DicomVolumes(StackDataset):
    """Every stack of slices as a tensor (C, D, H, W), read when asked for.

    `volumes[i]` is `(volume, meta)`. The slices are in the order of their places along the normal, each with its own
    rescale, and have one mapping to display. `meta` has what all slices have in common (what differs is missing,
    `ImagePositionPatient` is that of the first), and
    - `affine`: (4, 4) float64, from voxel (slice, row, column, 1) to millimetres (x, y, z, 1) in LPS, of the tensor as
      it is, also after `size=`; `affine_ras`: the same to RAS;
    - `spacing`: millimetres between slices, rows, columns of the tensor;
    - `position_error`: most millimetres that a slice is from where the affine puts it; `tilt`: degrees of gantry tilt,
      which the affine has as a shear;
    - `frames`, `SOPInstanceUIDs`: of each slice, its position in `volumes.index` and its UID.

    Args:
        source: As in `DicomFrames`.
        split_by: See `stacks`, as for the next.
        on_gap: "raise" for missing slices, unequal spacing and repeats, "warn", or "keep".
        **options: Those of `DicomFrames`; `size` is (H, W), `transform` gets the volume.

    Attributes:
        stacks: What was found; `stacks.left_out` has the frames that are in none, with the reason.

    Raises:
        SourceError: There is no stack.
        GeometryError: `on_gap="raise"`, and a stack is irregular; the message lists the files.
        OptionError: An option means nothing.

    Example:
        >>> volumes = DicomVolumes("ct/", values="modality", on_gap="warn")     # doctest: +SKIP
        >>> volume, meta = volumes[0]                                           # doctest: +SKIP
    """

    _what = "volume"

    def __init__(
        self,
        source: Source | FrameIndex,
        *,
        split_by: str | Sequence[str] | None = None,
        on_gap: OnGap = "raise",
        **options: Unpack[FrameOptions],
    ) -> None:
        frames = DicomFrames(source, **options)
        found = stacks(frames.index, split_by=split_by, on_gap=on_gap)
        if not found:
            raise SourceError(f"there is no volume among {len(frames)} frames: {found.reasons()}")
        super().__init__(frames, found)

    def __len__(self) -> int:
        return len(self.stacks)

    def __repr__(self) -> str:
        return f"DicomVolumes({len(self):,} volumes, {sum(map(len, self.stacks)):,} slices)"

    def shape(self, i: int) -> tuple[int, int, int, int]:
        """(C, D, H, W) of volume `i`, without reading it."""
        stack = self.stacks[self._number(i)]
        channels, rows, columns = self._reader.shape(int(stack.positions[0]))
        return (channels, len(stack), rows, columns)

    def _slices(self, i: int) -> list[int]:
        positions: list[int] = self.stacks[i].positions.tolist()
        return positions

    def _read(self, i: int, out: Tensor) -> FrameMeta:
        stack = self.stacks[i]
        positions = self._slices(i)
        voi = self._read_slices(positions, out)
        return self._meta(i, stack, positions, self._affine(stack), voi)

    def _affine(self, stack: Stack) -> Floats:
        """Of the tensor: `size=` makes other voxels, around other centres."""
        size = self._reader.options.size
        if size is None:
            return stack.affine
        where = resized(*stack.shape[1:], size)
        factors = (1.0, stack.shape[1] / where.rows, stack.shape[2] / where.columns)
        first = [
            (0.5 - border) * factor - 0.5
            for border, factor in zip((where.top, where.left), factors[1:], strict=True)
        ]
        return scaled(stack.affine, factors, (0.0, *first))


def _spacing(stack: Stack, affine: Floats) -> tuple[float, float, float]:
    """Between planes along the normal, which is not the length of a sheared step."""
    normal = np.cross(affine[:3, 2], affine[:3, 1])
    normal /= np.linalg.norm(normal)
    rows, columns = np.linalg.norm(affine[:3, 1:3], axis=0).tolist()
    return (float(affine[:3, 0] @ normal), rows, columns)


def _same(a: Any, b: Any) -> bool:
    if a == b:
        return True
    if isinstance(a, tuple):
        return all(_same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a != a and b != b)  # nan
