"""`DicomVolumes`: every stack of slices as a tensor (C, D, H, W)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from dicomtorch.batches.metadata import FrameMeta
from dicomtorch.datasets.base import memory_for
from dicomtorch.datasets.drawn import DrawnDataset
from dicomtorch.datasets.masked import Mask, unresized
from dicomtorch.datasets.options import FrameOptions
from dicomtorch.datasets.source import FrameSource, Given
from dicomtorch.errors import OptionError, SourceError
from dicomtorch.masks.dose import DoseGrids, dose_of, without_dose
from dicomtorch.model.frame import AppliedVOI
from dicomtorch.pixels.memory import new_batch
from dicomtorch.pixels.resize import resized
from dicomtorch.reader.reader import Frame
from dicomtorch.series.geometry import Floats, Ints, scaled, to_ras
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


class StackDataset(DrawnDataset[int]):
    """What volumes and crops have in common: samples that are parts of stacks.

    Attributes:
        stacks: The stacks that there are.
    """

    def __init__(self, source: FrameSource, found: StackList) -> None:
        super().__init__(source)
        self.stacks = found

    @abstractmethod
    def shape(self, i: int) -> tuple[int, int, int, int]:
        """(C, D, H, W) of sample `i`, without reading it."""

    def _shape(self, asked: int) -> tuple[int, ...]:
        return self.shape(asked)

    def _planes(self, image: Tensor) -> Tensor:
        return image.movedim(1, 0)

    def _stacks_with(self, equals: dict[str, Any]) -> npt.NDArray[np.bool_]:
        """For each stack whether a slice of it is what `find` asks for."""
        matching = self.index.where(**equals)
        return np.array([matching[stack.positions].any() for stack in self.stacks], np.bool_)

    def _channels(self, stack: Stack) -> int:
        return self._reader.shape(int(stack.positions[0]))[0]

    def _scratch(self, shape: tuple[int, ...]) -> Tensor:
        """Memory for slices of which a part is kept; in a worker not of the segments that batches are sent in."""
        fresh = torch.empty if get_worker_info() else new_batch
        return fresh(shape, dtype=self._reader.dtype)

    def _read_slices(self, positions: Sequence[int], out: Tensor) -> AppliedVOI:
        """Slices of one sample into (C, D, H, W); says how they were made display values."""
        frames = self._source.reader.read_together(positions, out.movedim(1, 0))
        return frames[0].voi

    def _stack_meta(
        self, number: int, stack: Stack, positions: Sequence[int], affine: Floats, voi: AppliedVOI
    ) -> FrameMeta:
        """What the slices have in common; what differs among them is missing."""
        metas = self._source.metas(positions, [voi] * len(positions), positions)
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
        dose: `meta["dose"]` shall have the RT Dose of the same source on the voxels of each volume: (1, D, H, W)
            float32, trilinear, 0 outside of the dose grid, of which `dose_valid` has the first and end of slices, rows
            and columns, and `DoseUnits` the unit.
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

    sample_name = "volume"

    def __init__(
        self,
        source: Given,
        *,
        split_by: str | Sequence[str] | None = None,
        on_gap: OnGap = "raise",
        dose: bool = False,
        **options: Unpack[FrameOptions],
    ) -> None:
        frames = FrameSource(source, within=without_dose if dose else None, **options)
        found = stacks(frames.index, split_by=split_by, on_gap=on_gap, mosaic="sheet")
        if not found:
            raise SourceError(
                f"there is no volume among {len(frames.index)} frames: {found.reasons()}"
            )
        super().__init__(frames, found)
        self._dose = DoseGrids(frames.index, frames.index) if dose else None

    def __len__(self) -> int:
        return len(self.stacks)

    def __repr__(self) -> str:
        return f"DicomVolumes({len(self):,} volumes, {sum(map(len, self.stacks)):,} slices)"

    def shape(self, i: int) -> tuple[int, int, int, int]:
        """(C, D, H, W) of volume `i`, without reading it."""
        stack = self.stacks[self._asked(i)]
        channels, rows, columns = self._reader.shape(int(stack.positions[0]))
        return (channels, len(stack), rows, columns)

    def _positions(self, asked: int) -> list[int]:
        positions: list[int] = self.stacks[asked].positions.tolist()
        return positions

    def _matching(self, equals: dict[str, Any]) -> Ints:
        return np.flatnonzero(self._stacks_with(equals))

    def _read(self, asked: int, out: Tensor | None) -> Frame:
        image = memory_for(self.shape(asked), self._reader.dtype, out)
        return Frame(image, self._read_slices(self._positions(asked), image))

    def _mask(self, asked: int, out: Tensor) -> Mask:
        assert self._masks is not None
        positions = self._positions(asked)
        present = self._masks.read(positions, out.movedim(1, 0))
        return self._masks.finished(out, positions[0], present)

    def to_grid(self, i: int, prediction: Tensor) -> Tensor:
        """What was made on volume `i` as this dataset gives it on the voxels of its files, by nearest neighbour.

        Args:
            i: Of the volume.
            prediction: (..., D, H, W), as large as the volume.

        Returns:
            (..., D, rows, columns): of `stacks[i].shape`, whose affine is `stacks[i].affine`.

        Raises:
            OptionError: It has another size than the volume.
        """
        stack = self.stacks[self._asked(i)]
        return to_stack(prediction, self.shape(i)[1:], stack, self._reader.options.size)

    def _meta(self, asked: int, voi: AppliedVOI) -> FrameMeta:
        stack, positions = self.stacks[asked], self._positions(asked)
        affine = self._affine(stack)
        meta = self._stack_meta(asked, stack, positions, affine, voi)
        if self._dose is not None:
            shape = tuple(self._shape(asked)[1:])
            found = dose_of(self._dose, stack, positions, affine, shape)
            meta.update(found, dose=torch.from_numpy(found["dose"]))
        return meta

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


def to_stack(
    prediction: Tensor, shape: Sequence[int], stack: Stack, size: tuple[int, int] | None
) -> Tensor:
    """A prediction on a resized stack on the voxels of its files.

    Raises:
        OptionError: It has another size.
    """
    if tuple(prediction.shape[-3:]) != tuple(shape):
        raise OptionError(
            f"the prediction is {tuple(prediction.shape[-3:])} and the sample {tuple(shape)} (slices, rows, columns)"
        )
    return prediction if size is None else unresized(prediction, stack.shape[1:], size)


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
