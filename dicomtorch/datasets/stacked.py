"""`StackDataset`: what volumes and crops have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dicomtorch.batches.metadata import FrameMeta
from dicomtorch.datasets.drawn import DrawnDataset
from dicomtorch.datasets.kinds import Batch_co, Sample_co
from dicomtorch.datasets.masked import unresized
from dicomtorch.datasets.regrid import spacing_of
from dicomtorch.datasets.source import FrameSource
from dicomtorch.errors import OptionError
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.model.frame import AppliedVOI
from dicomtorch.model.mask_object import KINDS
from dicomtorch.pixels.resize import resized
from dicomtorch.reader.reader import fresh
from dicomtorch.reader.windows import read_windows, window_shape
from dicomtorch.series.geometry import Floats, Ints, to_ras
from dicomtorch.series.stacks import Stack, StackList

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


class StackDataset(DrawnDataset[int, Sample_co, Batch_co]):
    """What volumes and crops have in common: samples that are parts of stacks.

    Attributes:
        stacks: The stacks that there are.
    """

    def __init__(self, source: FrameSource, found: StackList) -> None:
        if source.masks is not None and any(stack.windows is not None for stack in found):
            raise OptionError(
                'masks= are of whole frames, and some slices lie beside each other in one; use mosaic="sheet", or '
                "filter the index"
            )
        super().__init__(source)
        self.stacks = found

    @abstractmethod
    def shape(self, i: int) -> tuple[int, ...]:
        """(C, D, H, W) of sample `i`, without reading it."""

    def _shape(self, asked: int) -> tuple[int, ...]:
        return self.shape(asked)

    def _planes(self, image: Tensor) -> Tensor:
        return image.movedim(1, 0)

    def _stacks_with(self, equals: dict[str, Any]) -> npt.NDArray[np.bool_]:
        """For each stack whether a slice of it is what `find` asks for."""
        matching = self.index.where(**equals)
        return np.array([matching[stack.positions].any() for stack in self.stacks], np.bool_)

    def _slice_shape(self, stack: Stack) -> tuple[int, int, int]:
        """(C, H, W) of a slice of a stack."""
        first = int(stack.positions[0])
        if stack.windows is None:
            return self._reader.shape(first)
        return window_shape(self._source.reader, first, *stack.shape[1:])

    def _scratch(self, shape: tuple[int, ...]) -> Tensor:
        """Memory for slices of which a part is kept; in a worker not of the segments that batches are sent in."""
        return fresh(shape, self._reader.dtype)

    def _read_slices(
        self, positions: Sequence[int], windows: Ints | None, out: Sequence[Tensor] | Tensor
    ) -> AppliedVOI:
        """Slices of one sample, each into its (C, H, W) of `out`; says how they were made display values."""
        reader = self._source.reader
        if windows is None:
            return reader.read_together(positions, out)[0].voi
        return read_windows(reader, positions, windows.tolist(), out)[0].voi

    def _stack_meta(
        self, number: int, stack: Stack, positions: Sequence[int], affine: Floats, voi: AppliedVOI
    ) -> FrameMeta:
        """What the slices have in common; what differs among them is missing."""
        metas = self._source.metas(positions, [voi] * len(positions), positions, positions)
        meta = FrameMeta(metas[0])
        position = meta["ImagePositionPatient"]
        if stack.windows is not None:  # a sheet has no position of its own
            position = tuple(affine[:3, 3].tolist())
        for key, value in metas[0].items():
            if not all(_same(value, other[key]) for other in metas):
                missing = _MISSING[type(value[0]) if isinstance(value, tuple) else type(value)]
                meta[key] = (missing,) * len(value) if isinstance(value, tuple) else missing
        if stack.windows is not None:
            meta.update(Rows=stack.shape[1], Columns=stack.shape[2])
            size = self._reader.options.size
            if size is not None:
                meta["resized"] = tuple(map(float, resized(*stack.shape[1:], size)))
        meta.update(
            index=number,
            requested_index=number,
            ImagePositionPatient=position,
            affine=torch.from_numpy(affine),
            affine_ras=torch.from_numpy(to_ras(affine)),
            spacing=spacing_of(affine),
            position_error=stack.report.position_error,
            tilt=stack.report.tilt,
            frames=tuple(positions),
            SOPInstanceUIDs=tuple(one["SOPInstanceUID"] for one in metas),
        )
        return meta


def to_stack(
    prediction: Tensor, shape: Sequence[int], stack: Stack, size: tuple[int, int] | None
) -> Tensor:
    """A prediction on a resized stack on the voxels of its files.

    Raises:
        OptionError: It has another size.
    """
    check_size(prediction, shape)
    return prediction if size is None else unresized(prediction, stack.shape[1:], size)


def check_size(prediction: Tensor, shape: Sequence[int]) -> None:
    """Whether a prediction is as large as a sample.

    Raises:
        OptionError: It is not.
    """
    if tuple(prediction.shape[-3:]) != tuple(shape):
        raise OptionError(
            f"the prediction is {tuple(prediction.shape[-3:])} and the sample {tuple(shape)} (slices, rows, columns)"
        )


class VolumeSample(NamedTuple):
    """Which volumes make a sample.

    Attributes:
        series: Number of their series.
        volume: Number of the first in its series.
        stacks: Numbers in the list of stacks.
    """

    series: int
    volume: int
    stacks: tuple[int, ...]


def planes_of(volumes: Tensor) -> Sequence[Tensor] | Tensor:
    """The slices (C, H, W) of (T, C, D, H, W), one after the other: one tensor where they follow each other."""
    if volumes.shape[1] == 1 and volumes.is_contiguous():
        return volumes.view(-1, 1, *volumes.shape[3:])
    return [plane for volume in volumes for plane in volume.unbind(1)]


def windows_of(found: Sequence[Stack]) -> Ints | None:
    """The windows of all slices of some stacks, `None` if all slices are whole frames."""
    if all(stack.windows is None for stack in found):
        return None
    parts = []
    for stack in found:
        whole = np.broadcast_to(np.array([0, 0, *stack.shape[1:]]), (len(stack), 4))
        parts.append(whole if stack.windows is None else stack.windows)
    return np.concatenate(parts)


def is_label_map(index: FrameIndex, position: int) -> bool:
    """Whether the values of a frame are numbers of labels, between which there is nothing."""
    (sop_class,) = index.gather("SOPClassUID", np.array([position]))
    return sop_class in KINDS


def _same(a: Any, b: Any) -> bool:
    if a == b:
        return True
    if isinstance(a, tuple):
        return all(_same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a != a and b != b)  # nan
