"""`DicomVolumes`: every stack of slices as a tensor (C, D, H, W)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, Unpack, overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from dicomtorch.batches.metadata import FrameMeta
from dicomtorch.datasets.base import memory_for
from dicomtorch.datasets.drawn import DrawnDataset
from dicomtorch.datasets.kinds import Batch_co, Pair, PairBatch, Sample_co, Triple, TripleBatch
from dicomtorch.datasets.masked import Mask, unresized
from dicomtorch.datasets.options import FrameOptions, UntransformedFrames
from dicomtorch.datasets.source import FrameSource, Given
from dicomtorch.errors import OptionError, SourceError
from dicomtorch.masks.dose import DoseGrids, dose_of, without_dose
from dicomtorch.model.frame import AppliedVOI
from dicomtorch.pixels.memory import new_batch
from dicomtorch.pixels.resize import resized
from dicomtorch.reader.reader import Frame
from dicomtorch.reader.windows import read_windows, window_shape
from dicomtorch.series.geometry import Floats, Ints, scaled, to_ras
from dicomtorch.series.search import Mosaic, stacks
from dicomtorch.series.stacks import OnGap, Stack, StackList
from dicomtorch.series.volumes import (
    common_values,
    gradient_directions,
    series_volumes,
    volume_times,
)

Grouping = Literal["stack", "series"]

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
        fresh = torch.empty if get_worker_info() else new_batch
        return fresh(shape, dtype=self._reader.dtype)

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
        metas = self._source.metas(positions, [voi] * len(positions), positions)
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


class DicomVolumes(StackDataset[Sample_co, Batch_co]):
    """Every stack of slices as a tensor (C, D, H, W), or every series as (T, C, D, H, W), read when asked for.

    `volumes[i]` is `(volume, meta)`. The slices are in the order of their places along the normal, each with its own
    rescale, and have one mapping to display. `meta` has what all slices have in common (what differs is missing,
    `ImagePositionPatient` is that of the first), and
    - `affine`: (4, 4) float64, from voxel (slice, row, column, 1) to millimetres (x, y, z, 1) in LPS, of the tensor as
      it is, also after `size=`; `affine_ras`: the same to RAS;
    - `spacing`: millimetres between slices, rows, columns of the tensor;
    - `position_error`: most millimetres that a slice is from where the affine puts it; `tilt`: degrees of gantry tilt,
      which the affine has as a shear;
    - `frames`, `SOPInstanceUIDs`: of each slice, its position in `volumes.index` and its UID; of several volumes one
      after the other;
    - `series_index`, from 0; `volume_index` and `volume_count`, of the (first) volume in its series;
    - `separated_by`: names of the attributes that tell it from other volumes of its series, with ", " between two;
    - for each volume of the sample, nan where unknown: `times` in ms from the first of the series, `b_values`,
      `gradient_directions` ((T, 3), patient coordinates, LPS), `echo_times`;
    - `frame_of_reference`: "PATIENT", or "VOLUME" for ultrasound whose affine leads to its own frame of reference.

    Args:
        source: As in `DicomFrames`.
        group: "stack", or "series": the volumes of a series whose voxels are at the same places are one sample, in the
            order of time (PS3.3 has no order of its own); a series of several grids gives each volume alone, T = 1.
        split_by: See `stacks`.
        on_gap: "raise" for missing slices, unequal spacing and repeats, "warn", or "keep".
        mosaic: "slices" takes the slices out of Siemens mosaics and UIH VFRAME, "sheet" leaves such frames out.
        single_slices: Whether a slice alone at its place is a volume of one slice.
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

    @overload
    def __init__(
        self: DicomVolumes[Pair, PairBatch],
        source: Given,
        *,
        group: Grouping = ...,
        split_by: str | Sequence[str] | None = ...,
        on_gap: OnGap = ...,
        dose: bool = ...,
        mosaic: Mosaic = ...,
        single_slices: bool = ...,
        masks: Literal[False] | None = None,
        **options: Unpack[UntransformedFrames],
    ) -> None: ...
    @overload
    def __init__(
        self: DicomVolumes[Triple, TripleBatch],
        source: Given,
        *,
        group: Grouping = ...,
        split_by: str | Sequence[str] | None = ...,
        on_gap: OnGap = ...,
        dose: bool = ...,
        mosaic: Mosaic = ...,
        single_slices: bool = ...,
        masks: Any,
        **options: Unpack[UntransformedFrames],
    ) -> None: ...
    @overload
    def __init__(
        self: DicomVolumes[Any, Any],
        source: Given,
        *,
        group: Grouping = ...,
        split_by: str | Sequence[str] | None = ...,
        on_gap: OnGap = ...,
        dose: bool = ...,
        mosaic: Mosaic = ...,
        single_slices: bool = ...,
        **options: Unpack[FrameOptions],
    ) -> None: ...
    def __init__(
        self,
        source: Given,
        *,
        group: Grouping = "stack",
        split_by: str | Sequence[str] | None = None,
        on_gap: OnGap = "raise",
        dose: bool = False,
        mosaic: Mosaic = "slices",
        single_slices: bool = False,
        **options: Unpack[FrameOptions],
    ) -> None:
        if group not in ("stack", "series"):
            raise OptionError(f'group must be "stack" or "series"; got {group!r}')
        frames = FrameSource(source, within=without_dose if dose else None, **options)
        found = stacks(
            frames.index,
            split_by=split_by,
            on_gap=on_gap,
            mosaic=mosaic,
            single_slices=single_slices,
        )
        if not found:
            raise SourceError(
                f"there is no volume among {len(frames.index)} frames: {found.reasons()}"
            )
        if group == "series" and frames.masks is not None:
            raise OptionError('masks= go with volumes of their own; use group="stack"')
        super().__init__(frames, found)
        self._dose = DoseGrids(frames.index, frames.index) if dose else None
        self._by_series = group == "series"
        self._series = series_volumes(frames.index, found)
        self._times: dict[int, tuple[float, ...]] = {}
        self._samples_of = list(self._grouped())

    def _grouped(self) -> Iterator[VolumeSample]:
        """The samples: which stacks each is made of."""
        for number, series in enumerate(self._series):
            if self._by_series and series.share_grid:
                yield VolumeSample(number, 0, series.stacks)
            else:
                for k, stack in enumerate(series.stacks):
                    yield VolumeSample(number, k, (stack,))

    def __len__(self) -> int:
        return len(self._samples_of)

    def __repr__(self) -> str:
        slices = f"{sum(map(len, self.stacks)):,} slices"
        if self._by_series:
            return f"DicomVolumes({len(self):,} series of {len(self.stacks):,} volumes, {slices})"
        return f"DicomVolumes({len(self):,} volumes, {slices})"

    def shape(self, i: int) -> tuple[int, ...]:
        """(C, D, H, W) of volume `i`, or (T, C, D, H, W) of a series, without reading it."""
        found = self._stacks_of(self._asked(i))
        channels, rows, columns = self._slice_shape(found[0])
        shape = (channels, len(found[0]), rows, columns)
        return (len(found), *shape) if self._by_series else shape

    def _stacks_of(self, asked: int) -> list[Stack]:
        return [self.stacks[k] for k in self._samples_of[asked].stacks]

    def _positions(self, asked: int) -> list[int]:
        return [k for stack in self._stacks_of(asked) for k in stack.positions.tolist()]

    def _planes(self, image: Tensor) -> Tensor:
        return image.movedim(2, 1).flatten(0, 1) if self._by_series else super()._planes(image)

    def _matching(self, equals: dict[str, Any]) -> Ints:
        matching = self._stacks_with(equals)
        return np.flatnonzero([matching[list(sample.stacks)].any() for sample in self._samples_of])

    def _read(self, asked: int, out: Tensor | None) -> Frame:
        image = memory_for(self.shape(asked), self._reader.dtype, out)
        found = self._stacks_of(asked)
        windows = windows_of(found)
        slices = planes_of(image if self._by_series else image[None])
        return Frame(image, self._read_slices(self._positions(asked), windows, slices))

    def _mask(self, asked: int, out: Tensor) -> Mask:
        assert self._masks is not None
        positions = self._positions(asked)
        areas = self._masks.read(positions, out.movedim(1, 0))
        return self._masks.finished(out, positions, areas)

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
        stack = self._stacks_of(self._asked(i))[0]
        return to_stack(prediction, self.shape(i)[-3:], stack, self._reader.options.size)

    def _meta(self, asked: int, voi: AppliedVOI) -> FrameMeta:
        sample, found = self._samples_of[asked], self._stacks_of(asked)
        positions, affine = self._positions(asked), self._affine(found[0])
        meta = self._stack_meta(asked, found[0], positions, affine, voi)
        meta.update(self._volume_meta(sample, found))
        if self._dose is not None:
            shape = tuple(self._shape(asked)[-3:])
            dose = dose_of(self._dose, found[0], found[0].positions.tolist(), affine, shape)
            meta.update(dose, dose=torch.from_numpy(dose["dose"]))
        return meta

    def _volume_meta(self, sample: VolumeSample, found: list[Stack]) -> dict[str, Any]:
        """What is said of the volumes of a sample, as parts of their series."""
        index, series = self.index, self._series[sample.series]
        if sample.series not in self._times:
            whole = [self.stacks[k] for k in series.stacks]
            self._times[sample.series] = volume_times(index, whole)
        first = sample.volume
        names = dict.fromkeys(name for stack in found for name in stack.separated_by)
        (coordinates,) = index.gather("coordinates", found[0].positions[:1])
        return {
            "series_index": sample.series,
            "volume_index": first,
            "volume_count": len(series.stacks),
            "separated_by": ", ".join(names),
            "times": self._times[sample.series][first : first + len(found)],
            "b_values": common_values(index, "DiffusionBValue", found),
            "gradient_directions": torch.tensor(
                gradient_directions(index, found), dtype=torch.float64
            ),
            "echo_times": common_values(index, "EchoTime", found),
            "frame_of_reference": coordinates or "PATIENT",
        }

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
