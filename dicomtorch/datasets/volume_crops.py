"""`VolumeCrops`: a part of a volume around each candidate of a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Unpack

import numpy as np
from torch import Tensor

from dicomtorch.batches.metadata import FrameMeta
from dicomtorch.datasets.base import memory_for
from dicomtorch.datasets.candidates import Candidates, is_value, name_rows
from dicomtorch.datasets.masked import MASK_KEYS, Mask
from dicomtorch.datasets.options import ReadOptions
from dicomtorch.datasets.parts import Border, outside_value
from dicomtorch.datasets.source import FrameSource, Given
from dicomtorch.datasets.stacked import VOLUME_KEYS, StackDataset, to_stack
from dicomtorch.errors import GeometryError, OptionError, format_count
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.model.frame import AppliedVOI
from dicomtorch.reader.reader import Frame, fresh
from dicomtorch.series.geometry import Floats, Ints, shifted
from dicomtorch.series.search import stacks
from dicomtorch.series.stacks import OnGap, Stack

_SAME_DISTANCE = 1e-3  # millimetres

_OWN = ("candidate", "start", "valid", "center", "point")


class VolumeCrops(StackDataset[Any, Any]):
    """The crops of `DicomCrops` in three dimensions; see there for what arguments mean.

    Attributes:
        candidates: The rows of the table that there are crops of.
        dropped: Numbers of the rows that `absent="drop"` has left out.
    """

    sample_name = "crop"

    def __init__(
        self,
        source: Given,
        candidates: Any,
        size: tuple[int, int, int],
        *,
        coordinates: Literal["mm", "voxel"],
        columns: Mapping[str, str],
        border: Border,
        absent: Literal["raise", "drop"],
        split_by: str | Sequence[str] | None,
        on_gap: OnGap,
        **options: Unpack[ReadOptions],
    ) -> None:
        self.size, self.border = size, border
        self.candidates = Candidates(candidates, columns)
        self.dropped: Ints = np.empty(0, np.int64)
        frames = FrameSource(source, within=lambda index: self._in_table(index, absent), **options)
        super().__init__(frames, stacks(frames.index, split_by=split_by, on_gap=on_gap))
        self._place(coordinates)
        taken = (*frames.metas([0], [AppliedVOI()], [0])[0], *VOLUME_KEYS, *MASK_KEYS, *_OWN)
        self.candidates.check_names(taken)

    def _in_table(self, index: FrameIndex, absent: str) -> FrameIndex:
        """The frames of the series that the candidates name."""
        table = self.candidates
        if not len(table):
            raise OptionError("the table of candidates has no row")
        series = index.column("SeriesInstanceUID")
        codes = series.codes_of(table.uids)
        wanted = np.isin(series.codes, codes[codes >= 0])
        there = np.isin(codes, series.codes[wanted])[table.series]
        if not there.all():
            if absent == "raise" or not there.any():
                raise GeometryError(
                    f"the series of {name_rows(table.rows[~there])} of the table is not in the index; "
                    f'absent="drop" leaves such rows out'
                )
            self.dropped = table.rows[~there]
            table.keep(there)
        return index.select(wanted)

    def _place(self, coordinates: str) -> None:
        """Finds stack, voxel and point of every candidate."""
        table = self.candidates
        self._stack = np.full(len(table), -1)
        self._voxel, self._point = np.zeros((len(table), 3)), np.zeros((len(table), 3))
        series = self.index.column("SeriesInstanceUID")
        of_series: dict[str, list[int]] = {}
        for number, stack in enumerate(self.stacks):
            of_series.setdefault(series[int(stack.positions[0])], []).append(number)
        order = np.argsort(table.series, kind="stable")
        ends = np.cumsum(np.bincount(table.series, minlength=len(table.uids)))[:-1]
        for uid, rows in zip(table.uids, np.split(order, ends), strict=True):
            numbers = of_series.get(uid, [])
            if not numbers and len(rows):
                raise GeometryError(
                    f"the series of {name_rows(table.rows[rows])} of the table makes no volume "
                    f"({self.stacks.reasons()})"
                )
            for part, chosen in self._named_volumes(rows, numbers):
                self._place_in(part, chosen, coordinates)

    def _named_volumes(self, rows: Ints, numbers: list[int]) -> Iterator[tuple[Ints, list[int]]]:
        """Rows of one series, with the stacks that columns of the table leave to them.

        Such a column is `volume_index`, or has the name of an attribute that tells the stacks apart.
        """
        if len(numbers) < 2 or not len(rows):
            yield rows, numbers
            return
        labels = self.candidates.labels
        names = [name for name in self._choices(numbers) if name in labels]
        if not names:
            yield rows, numbers
            return
        stated = [[labels[name][k] for name in names] for k in rows.tolist()]
        known = [[self._is(name, number, k) for name in names] for k, number in enumerate(numbers)]
        for wanted in {tuple(values): None for values in stated}:
            part = rows[[tuple(values) == wanted for values in stated]]
            chosen = [
                number
                for number, values in zip(numbers, known, strict=True)
                if all(is_value(a, b) for a, b in zip(values, wanted, strict=True))
            ]
            if not chosen:
                said = " and ".join(names)
                if names == ["volume_index"]:
                    said = f"volume_index {wanted[0]}"
                raise GeometryError(
                    f"the series of {name_rows(self.candidates.rows[part])} of the table has {len(numbers)} volumes, "
                    f"none with the {said} of the table"
                )
            yield part, chosen

    def _choices(self, numbers: list[int]) -> list[str]:
        """Names of columns that a table may have to say which of some stacks is meant."""
        names = [name for number in numbers for name in self.stacks[number].separated_by]
        return list(dict.fromkeys(("volume_index", *names)))

    def _is(self, name: str, number: int, k: int) -> Any:
        """What a stack has for one of those columns."""
        if name == "volume_index":
            return k
        return self.index.gather(name, self.stacks[number].positions[:1])[0]

    def _place_in(self, rows: Ints, numbers: list[int], coordinates: str) -> None:
        if coordinates == "voxel" and len(numbers) > 1:
            raise self._ambiguous(rows, numbers, 'coordinates="voxel" do not say which is meant')
        points = self.candidates.points[rows]
        hits = np.zeros(len(rows), np.int64)
        nearest = np.full(len(rows), np.inf)
        for number in numbers:
            stack = self.stacks[number]
            if coordinates == "voxel":
                voxels, places = points[:, ::-1], stack.voxel_to_patient(points[:, ::-1])
            else:
                voxels, places = stack.patient_to_voxel(points), points
            _, _, low, high = self._boxes(stack, voxels, "pad")  # not yet shifted inside
            inside = (low < high).all(axis=1)
            away = np.zeros(len(rows))
            if len(numbers) > 1:  # then it is the point itself that tells
                rounded = np.floor(voxels + 0.5)
                inside = ((rounded >= 0) & (rounded < stack.shape)).all(axis=1)
                away = np.abs(voxels[:, 0] - rounded[:, 0]) * stack.spacing[0]
            nearer = inside & (away < nearest - _SAME_DISTANCE)
            hits = np.where(nearer, 1, hits + (inside & (away < nearest + _SAME_DISTANCE)))
            nearest = np.where(nearer, away, nearest)
            chosen = rows[nearer]
            self._stack[chosen] = number
            self._voxel[chosen], self._point[chosen] = voxels[nearer], places[nearer]
        outside, several = (rows[mask] for mask in (hits == 0, hits > 1))
        if len(outside):
            unit = "voxels" if coordinates == "voxel" else "millimetres in LPS"
            raise GeometryError(
                f"the crops of {name_rows(self.candidates.rows[outside])} of the table are outside of their volume; "
                f"are x, y, z {unit}?"
            )
        if len(several):
            raise self._ambiguous(several, numbers, "its point is inside of several")

    def _ambiguous(self, rows: Ints, numbers: list[int], why: str) -> GeometryError:
        choices = " or ".join(self._choices(numbers))
        return GeometryError(
            f"the series of {name_rows(self.candidates.rows[rows])} of the table has {len(numbers)} volumes, and "
            f"{why}; name one in a column {choices} (volume_index is 0 to {len(numbers) - 1}), or filter the index"
        )

    def _boxes(self, stack: Stack, voxels: Floats, border: Border) -> tuple[Ints, Ints, Ints, Ints]:
        """Of crops around (n, 3) voxels: first voxel, size, and first and end of the part that the volume has."""
        shape, size = np.array(stack.shape), np.broadcast_to(self.size, voxels.shape)
        start = np.floor(voxels + 0.5).astype(np.int64) - size // 2
        if border == "shift":
            start = np.clip(start, 0, np.maximum(shape - size, 0))
        low, high = np.clip(start, 0, shape), np.clip(start + size, 0, shape)
        if border == "clip":
            start, size = low, high - low
        return start, size, low, high

    def _box(self, i: int) -> tuple[Stack, Ints, Ints, Ints, Ints]:
        stack = self.stacks[int(self._stack[i])]
        start, size, low, high = self._boxes(stack, self._voxel[i : i + 1], self.border)
        return stack, start[0], size[0], low[0], high[0]

    # What it holds

    def __len__(self) -> int:
        return len(self.candidates)

    def __repr__(self) -> str:
        size = " x ".join(map(str, self.size))
        dropped = f", {format_count(len(self.dropped), 'row')} dropped" if len(self.dropped) else ""
        volumes = format_count(len(self.stacks), "volume")
        return f"DicomCrops({format_count(len(self), 'crop')} of {size} from {volumes}{dropped})"

    def shape(self, i: int) -> tuple[int, int, int, int]:
        """(C, d, h, w) of crop `i`, without reading it."""
        stack, _, size, _, _ = self._box(self._asked(i))
        depth, rows, columns = size.tolist()
        return (self._slice_shape(stack)[0], depth, rows, columns)

    def _positions(self, asked: int) -> list[int]:
        stack, _, _, low, high = self._box(asked)
        positions: list[int] = stack.positions[low[0] : high[0]].tolist()
        return positions

    # Samples

    def _matching(self, equals: dict[str, Any]) -> Ints:
        """Of the crops whose row of the table, or a slice of whose volume, has what is asked for."""
        found, of_frames = self.candidates.matching(equals)
        if of_frames:
            found &= self._stacks_with(of_frames)[self._stack]
        return np.flatnonzero(found)

    def _read(self, asked: int, out: Tensor | None) -> Frame:
        stack, start, _, low, high = self._box(asked)
        image = memory_for(self.shape(asked), self._reader.dtype, out)
        positions = self._positions(asked)
        whole = self._scratch((len(image), len(positions), *stack.shape[1:]))
        windows = None if stack.windows is None else stack.windows[low[0] : high[0]]
        voi = self._read_slices(positions, windows, whole.movedim(1, 0))
        part = whole[:, :, low[1] : high[1], low[2] : high[2]]
        first, end = (low - start).tolist(), (high - start).tolist()
        if part.shape != image.shape:
            image.fill_(outside_value(self._reader.options, part))
        image[:, first[0] : end[0], first[1] : end[1], first[2] : end[2]] = part
        return Frame(image, voi)

    def _mask(self, asked: int, out: Tensor) -> Mask:
        masks = self._masks
        assert masks is not None
        stack, start, _, low, high = self._box(asked)
        positions = self._positions(asked)
        whole = fresh((len(out), len(positions), *stack.shape[1:]), masks.dtype)
        masks.read(positions, whole.movedim(1, 0))
        part = whole[:, :, low[1] : high[1], low[2] : high[2]]
        first, end = (low - start).tolist(), (high - start).tolist()
        if part.shape != out.shape:
            out.zero_()
        out[:, first[0] : end[0], first[1] : end[1], first[2] : end[2]] = part
        return masks.finished(out, positions, None)

    def to_grid(self, i: int, prediction: Tensor) -> Tensor:
        """What was made on crop `i` on the voxels of its whole volume, 0 outside of the crop.

        Args:
            i: Of the crop.
            prediction: (..., d, h, w), as large as the crop.

        Returns:
            (..., D, rows, columns).

        Raises:
            OptionError: It has another size than the crop.
        """
        asked = self._asked(i)
        stack, start, _, low, high = self._box(asked)
        to_stack(prediction, self.shape(i)[1:], stack, None)
        whole = prediction.new_zeros((*prediction.shape[:-3], *stack.shape))
        first, end = (low - start).tolist(), (high - start).tolist()
        part = prediction[..., first[0] : end[0], first[1] : end[1], first[2] : end[2]]
        whole[..., low[0] : high[0], low[1] : high[1], low[2] : high[2]] = part
        return whole

    def _meta(self, asked: int, voi: AppliedVOI) -> FrameMeta:
        stack, start, size, low, high = self._box(asked)
        first, end = (low - start).tolist(), (high - start).tolist()
        affine = stack.affine_of(int(low[0]), int(high[0]))
        affine = shifted(affine, (start[0] - low[0], start[1], start[2]))
        meta = self._stack_meta(asked, stack, self._positions(asked), affine, voi)
        before, after = first[0], int(size[0]) - end[0]
        meta.update(
            candidate=int(self.candidates.rows[asked]),
            frames=(-1,) * before + meta["frames"] + (-1,) * after,
            SOPInstanceUIDs=("",) * before + meta["SOPInstanceUIDs"] + ("",) * after,
            start=tuple(start.tolist()),
            valid=tuple(number for pair in zip(first, end, strict=True) for number in pair),
            center=tuple((self._voxel[asked] - start).tolist()),
            point=tuple(self._point[asked].tolist()),
        )
        meta.update(self.candidates.row(asked))
        return meta
