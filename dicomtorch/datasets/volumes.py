"""`DicomVolumes`: every stack of slices as a tensor (C, D, H, W)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Unpack, overload

import numpy as np
import torch
from torch import Tensor

from dicomtorch.batches.metadata import FrameMeta
from dicomtorch.datasets.base import memory_for
from dicomtorch.datasets.channels import Channels, Incomplete
from dicomtorch.datasets.kinds import Batch_co, Pair, PairBatch, Sample_co, Triple, TripleBatch
from dicomtorch.datasets.masked import Mask
from dicomtorch.datasets.options import FrameOptions, UntransformedFrames, check_names
from dicomtorch.datasets.regrid import Grid, Keep, Regrid, heights_of, lowest, resample
from dicomtorch.datasets.source import FrameSource, Given
from dicomtorch.datasets.stacked import (
    StackDataset,
    VolumeSample,
    check_size,
    is_label_map,
    planes_of,
    to_stack,
    windows_of,
)
from dicomtorch.errors import OptionError, SourceError, format_count
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.masks.dose import DoseGrids, dose_of, without_dose
from dicomtorch.model.frame import AppliedVOI
from dicomtorch.pixels.memory import keep_for
from dicomtorch.pixels.resize import resized
from dicomtorch.reader.reader import Frame
from dicomtorch.series.geometry import Floats, Ints, scaled
from dicomtorch.series.search import Mosaic, check_on_gap, say, stacks
from dicomtorch.series.stacks import OnGap, Stack, StackList
from dicomtorch.series.volumes import (
    b_values,
    common_values,
    gradient_directions,
    on_one_grid,
    series_volumes,
    volume_times,
)

Grouping = Literal["stack", "series"]


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
    - with an option on the grid, `orientation`, as of that option, and `resampled`: names of the options that made
      other voxels of those of the files, with ", " between two, "" for none; `tilt` and `position_error` are what is
      left;
    - `frame_of_reference`: "PATIENT", or "VOLUME" for ultrasound whose affine leads to its own frame of reference.

    Sources: PS3.3 C.7.6.2.1.1 (affine), C.8.13.5.9 (diffusion), C.8.8.3 (dose).

    Args:
        source: As in `DicomFrames`.
        group: "stack", or "series": the volumes of a series whose voxels are at the same places are one sample, in the
            order of time (PS3.3 has no order of its own); a series of several grids gives each volume alone, T = 1.
        split_by: See `stacks`.
        on_gap: "raise" for missing slices, unequal spacing and repeats, "warn", or "keep".
        mosaic: "slices" takes the slices out of Siemens mosaics and UIH VFRAME, "sheet" leaves such frames out.
        single_slices: Whether a slice alone at its place is a volume of one slice.
        spacing: (dz, dy, dx), millimetres between slices, rows and columns that volumes are resampled to: linear (label
            maps and masks: nearest voxel), without smoothing, by SimpleITK. New voxels lie between the centres of the
            old ones and in the middle of them.
        orientation: Where the axes of the tensor shall run, nearest: one of each of R or L, A or P, S or I, as in
            nibabel. Axes are exchanged and turned round, no value changes: "RAS" gives (C, x, y, z), the first axis
            to the right; "SPL" keeps axial slices as they are, (C, slice, row, column).
        tilt: "keep" has a gantry tilt as a shear in the affine; "resample" gives planes one above the other, with the
            lowest value of the volume where there are no slices.
        uneven: "keep" lets `on_gap` decide about slices with unequal steps; "resample" puts them at steps of about
            the median length, from the first to the last. Over missing slices too, where `on_gap` is "warn" or "keep".
        channels: Name -> what `index.filter` takes, or a part of the index: series that are the channels of one sample,
            on the grid of the first. `meta` is that of the first, with `channels` (names), `channel_series` (UIDs),
            `channel_resampled` and `same_frame_of_reference`; `masks=` are those of the first.
        by: Column whose values tell samples of `channels=` apart.
        regrid: Whether channels on other grids are resampled, as for `spacing`; else they are refused.
        dose: `meta["dose"]` shall have the RT Dose of the same source on the voxels of each volume: (1, D, H, W)
            float32, trilinear, 0 outside of the dose grid, of which `dose_valid` has the first and end of slices, rows
            and columns, and `DoseUnits` the unit.
        **options: Those of `DicomFrames`; `size` is (H, W), `transform` gets the volume.

    Attributes:
        incomplete: With `channels=`, what is no sample because a channel has no volume or several; said in a warning.
        stacks: What was found; `stacks.left_out` has the frames that are in none, with the reason.

    Raises:
        SourceError: There is no stack.
        GeometryError: `on_gap="raise"`, and a stack is irregular; the message lists the files. Or grids of channels
            differ, and `regrid` is not set.
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
        spacing: Sequence[float] | None = ...,
        orientation: str | None = ...,
        tilt: Keep = ...,
        uneven: Keep = ...,
        channels: Mapping[str, Any] | None = ...,
        by: str = ...,
        regrid: bool = ...,
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
        spacing: Sequence[float] | None = ...,
        orientation: str | None = ...,
        tilt: Keep = ...,
        uneven: Keep = ...,
        channels: Mapping[str, Any] | None = ...,
        by: str = ...,
        regrid: bool = ...,
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
        spacing: Sequence[float] | None = ...,
        orientation: str | None = ...,
        tilt: Keep = ...,
        uneven: Keep = ...,
        channels: Mapping[str, Any] | None = ...,
        by: str = ...,
        regrid: bool = ...,
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
        spacing: Sequence[float] | None = None,
        orientation: str | None = None,
        tilt: Keep = "keep",
        uneven: Keep = "keep",
        channels: Mapping[str, Any] | None = None,
        by: str = "StudyInstanceUID",
        regrid: bool = False,
        **options: Unpack[FrameOptions],
    ) -> None:
        check_names(DicomVolumes, options)
        if group not in ("stack", "series"):
            raise OptionError(f'group must be "stack" or "series"; got {group!r}')
        self._regrid = Regrid(spacing, orientation, tilt, uneven)
        self._regrid.check(options.get("size"), dose=dose)
        check_on_gap(on_gap)
        self._channels = None if channels is None else Channels(channels, by, regrid=regrid)
        within = without_dose if dose else None
        if self._channels is not None:
            if dose or group == "series" or uneven == "resample":
                raise OptionError(
                    'channels= go without dose=, group="series" and uneven="resample"'
                )
            within = self._channels.within
        columns = () if self._channels is None else self._channels.tags
        frames = FrameSource(source, within=within, columns=columns, **options)
        asked = {"split_by": split_by, "mosaic": mosaic, "single_slices": single_slices}
        found = self._found(frames.index, on_gap, asked)
        if group == "series" and frames.masks is not None:
            raise OptionError('masks= go with volumes of their own; use group="stack"')
        super().__init__(frames, found)
        keep_for(self)  # fresh memory for each volume costs as much as reading it
        isolation = frames.policy.isolation
        self._dose = DoseGrids(frames.index, frames.index, isolation) if dose else None
        self._by_series = group == "series"
        self._series = series_volumes(frames.index, found)
        self._of_series: dict[int, tuple[tuple[float, ...], tuple[float, ...]]] = {}
        self.incomplete: tuple[Incomplete, ...] = ()
        self._samples_of = list(self._grouped())
        if self._channels is not None:
            together, self.incomplete = self._channels.samples(frames.index, found, on_gap)
            alone = {sample.stacks[0]: sample for sample in self._samples_of}
            self._samples_of = [alone[k[0]]._replace(stacks=k) for k in together]
            if not together:
                raise SourceError(
                    f"no {by} has one volume of each channel: {self.incomplete[0].reason}"
                )

    def _found(self, index: FrameIndex, on_gap: OnGap, asked: dict[str, Any]) -> StackList:
        mends = self._regrid.uneven == "resample"
        find = stacks if self._channels is None else self._channels.find
        found = find(index, on_gap="keep" if mends else on_gap, **asked)
        if mends:
            mended = {stack.problems[-1] for stack in found if stack.report.is_only_uneven}
            say([problem for problem in found.problems if problem not in mended], on_gap)
        if not found:
            raise SourceError(f"there is no volume among {len(index)} frames: {found.reasons()}")
        return found

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
        slices = format_count(sum(map(len, self.stacks)), "slice")
        volumes = format_count(len(self.stacks), "volume")
        if self._by_series:
            return f"DicomVolumes({len(self):,} series of {volumes}, {slices})"
        return f"DicomVolumes({format_count(len(self), 'volume')}, {slices})"

    def shape(self, i: int) -> tuple[int, ...]:
        """(C, D, H, W) of volume `i`, or (T, C, D, H, W) of a series, without reading it."""
        return self._shape_on(self._asked(i), as_read=False)

    def _shape_on(self, asked: int, *, as_read: bool) -> tuple[int, ...]:
        """Of a sample, or of what it is resampled from."""
        found = self._stacks_of(asked)
        channels, rows, columns = self._slice_shape(found[0])
        if self._channels is not None:
            channels = sum(self._slice_shape(stack)[0] for stack in found)
        shape: tuple[int, ...] = (len(found[0]), rows, columns)
        if self._regrid.is_asked and not as_read:
            shape = self._grid(asked).shape
        return (len(found), channels, *shape) if self._by_series else (channels, *shape)

    def _grid(self, asked: int) -> Grid:
        stack = self._stacks_of(asked)[0]
        _, rows, columns = self._slice_shape(stack)
        return self._regrid.grid(stack, (len(stack), rows, columns), self._affine(stack))

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
        shape = self._shape_on(asked, as_read=True)
        is_as_read = not self._regrid.is_asked
        image = memory_for(shape, self._reader.dtype, out) if is_as_read else self._scratch(shape)
        found = self._stacks_of(asked)
        if self._channels is not None:
            voi = self._read_channels(found, image)
        else:
            slices = planes_of(image if self._by_series else image[None])
            voi = self._read_slices(self._positions(asked), windows_of(found), slices)
        return Frame(image if is_as_read else self._regridded(asked, image, out), voi)

    def _read_channels(self, found: list[Stack], image: Tensor) -> AppliedVOI:
        """Each channel into its part of (C, D, H, W), resampled to the grid of the first where its own is another."""
        begin, applied = 0, AppliedVOI()
        for k, stack in enumerate(found):
            channels, rows, columns = self._slice_shape(stack)
            target = image[begin : begin + channels]
            begin += channels
            same = on_one_grid([found[0], stack])
            volume = target if same else self._scratch((channels, len(stack), rows, columns))
            slices = planes_of(volume[None])
            voi = self._read_slices(stack.positions.tolist(), windows_of([stack]), slices)
            applied = voi if k == 0 else applied
            if not same:
                matrix = np.asarray(
                    np.linalg.solve(self._affine(stack), self._affine(found[0])), np.float64
                )
                shape = (target.shape[1], target.shape[2], target.shape[3])
                is_labels = is_label_map(self.index, int(stack.positions[0]))
                outside = 0.0 if is_labels else lowest(volume)
                target.copy_(resample(volume, matrix, shape, nearest=is_labels, outside=outside))
        return applied

    def _regridded(self, asked: int, image: Tensor, out: Tensor | None) -> Tensor:
        """An image that was read on the grid of its sample."""
        found, grid = self._stacks_of(asked), self._grid(asked)
        is_labels = is_label_map(self.index, int(found[0].positions[0]))
        target = memory_for(self.shape(asked), image.dtype, out)
        pairs = zip(image, target, strict=True) if self._by_series else [(image, target)]
        for stack, (volume, place) in zip(found, pairs, strict=False):
            heights = None if grid.heights is None else heights_of(stack)
            place.copy_(grid.of_files(volume, nearest=is_labels, heights=heights))
        return target

    def _mask(self, asked: int, out: Tensor) -> Mask:
        assert self._masks is not None
        positions = self._stacks_of(asked)[0].positions.tolist()
        if not self._regrid.is_asked:
            areas = self._masks.read(positions, out.movedim(1, 0))
            return self._masks.finished(out, positions, areas)
        whole = torch.empty((len(out), *self._shape_on(asked, as_read=True)[1:]), dtype=out.dtype)
        self._masks.read(positions, whole.movedim(1, 0))
        out.copy_(self._grid(asked).of_files(whole, nearest=True))
        return self._masks.finished(out, positions, None)

    def to_grid(self, i: int, prediction: Tensor) -> Tensor:
        """What was made on volume `i` as this dataset gives it on the voxels of its files, by nearest neighbour.

        Args:
            i: Of the volume.
            prediction: (..., D, H, W), as large as the volume, with its axes.

        Returns:
            (..., D, rows, columns): of `stacks[i].shape`, whose affine is `stacks[i].affine`.

        Raises:
            OptionError: It has another size than the volume.
        """
        asked = self._asked(i)
        stack, size = self._stacks_of(asked)[0], self._reader.options.size
        if not self._regrid.is_asked:
            return to_stack(prediction, self.shape(i)[-3:], stack, size)
        check_size(prediction, self.shape(i)[-3:])
        read = self._grid(asked).to_files(prediction)
        return to_stack(read, read.shape[-3:], stack, size)

    def _meta(self, asked: int, voi: AppliedVOI) -> FrameMeta:
        sample, found = self._samples_of[asked], self._stacks_of(asked)
        if self._channels is not None:
            more, found = self._channel_meta(self._channels, found), found[:1]
        else:
            more = {}
        positions = [k for stack in found for k in stack.positions.tolist()]
        affine = self._affine(found[0])
        meta = self._stack_meta(asked, found[0], positions, affine, voi)
        meta.update(self._volume_meta(sample, found), **more)
        if self._regrid.is_asked:
            meta.update(self._grid(asked).meta())
        if self._dose is not None:
            shape = tuple(self._shape(asked)[-3:])
            dose = dose_of(self._dose, found[0], found[0].positions.tolist(), affine, shape)
            meta.update(dose, dose=torch.from_numpy(dose["dose"]))
        return meta

    def _channel_meta(self, channels: Channels, found: list[Stack]) -> dict[str, Any]:
        firsts = np.array([int(stack.positions[0]) for stack in found])
        series = self.index.gather("SeriesInstanceUID", firsts)
        spaces = self.index.gather("FrameOfReferenceUID", firsts)
        return {
            "channels": channels.names,
            "channel_series": tuple(self._source.identity.shown(series)),
            "channel_resampled": tuple(int(not on_one_grid([found[0], one])) for one in found),
            "same_frame_of_reference": int(len(set(spaces)) == 1),
        }

    def _volume_meta(self, sample: VolumeSample, found: list[Stack]) -> dict[str, Any]:
        """What is said of the volumes of a sample, as parts of their series."""
        index, series = self.index, self._series[sample.series]
        if sample.series not in self._of_series:
            whole = [self.stacks[k] for k in series.stacks]
            self._of_series[sample.series] = volume_times(index, whole), b_values(index, whole)
        times, weights = self._of_series[sample.series]
        first, end = sample.volume, sample.volume + len(found)
        names = dict.fromkeys(name for stack in found for name in stack.separated_by)
        (coordinates,) = index.gather("coordinates", found[0].positions[:1])
        return {
            "series_index": sample.series,
            "volume_index": first,
            "volume_count": len(series.stacks),
            "separated_by": ", ".join(names),
            "times": times[first:end],
            "b_values": weights[first:end],
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
