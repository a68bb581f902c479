"""`FrameCrops`: a part of a frame around each box or point of a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Unpack

import numpy as np

from dicomtorch.datasets.candidates import BoxCandidates, name_rows
from dicomtorch.datasets.masked import MASK_KEYS
from dicomtorch.datasets.options import ReadOptions
from dicomtorch.datasets.parts import PART_KEYS, Border, PartDataset, Window
from dicomtorch.datasets.source import FrameSource, Given
from dicomtorch.errors import GeometryError, OptionError, format_count
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.model.frame import AppliedVOI
from dicomtorch.series.geometry import Ints


class FrameCrops(PartDataset[Any, Any]):
    """The crops of `DicomCrops` in two dimensions; see there for what arguments mean.

    Attributes:
        candidates: The rows of the table that there are crops of.
        dropped: Numbers of the rows that `absent="drop"` has left out.
    """

    sample_name = "crop"

    def __init__(
        self,
        source: Given,
        candidates: Any,
        size: tuple[int, int] | None,
        *,
        columns: Mapping[str, str],
        border: Border,
        absent: Literal["raise", "drop"],
        **options: Unpack[ReadOptions],
    ) -> None:
        self.size, self.border = size, border
        self.candidates = BoxCandidates(candidates, columns)
        if size is None and self.candidates.are_points:
            raise OptionError("points x, y have no size: give size=(h, w), or boxes")
        self.dropped: Ints = np.empty(0, np.int64)

        def within(index: FrameIndex) -> FrameIndex:
            return index.select(np.unique(self._found(index, absent)))

        frames = FrameSource(source, within=within, **options)
        super().__init__(frames)
        self._frames = self._found(frames.index, absent)
        self.candidates.forget_table()
        self._place()
        meta = frames.metas([0], [AppliedVOI()], [0])[0]
        self.candidates.check_names((*meta, *PART_KEYS, *MASK_KEYS, "candidate", "box"))

    def _found(self, index: FrameIndex, absent: str) -> Ints:
        """The frame of each candidate; those without one are forgotten where that is asked for."""
        table = self.candidates
        if not len(table):
            raise OptionError("the table of candidates has no row")
        positions = table.frames(index)
        there = positions >= 0
        if there.all():
            return positions
        if absent == "raise" or not there.any():
            raise GeometryError(
                f"the frame of {name_rows(table.rows[~there])} of the table is not in the index; "
                f'absent="drop" leaves such rows out'
            )
        self.dropped = np.sort(np.append(self.dropped, table.rows[~there]))
        table.keep(there)
        return positions[there]

    def _place(self) -> None:
        """Finds the rectangle of every candidate."""
        boxes = self.candidates.boxes
        shape = np.stack(
            [
                np.asarray(self.index.values(name, self._frames), np.int64)
                for name in ("Rows", "Columns")
            ],
            1,
        )
        near, far = boxes[:, 1::-1], boxes[:, 3:1:-1]  # (row, column)
        if self.size is None:
            start = np.floor(near).astype(np.int64)
            size = np.maximum(np.ceil(far).astype(np.int64) - start, 1)
        else:
            size = np.tile(np.array(self.size, np.int64), (len(boxes), 1))
            # The pixel that holds the middle is number size // 2.
            start = np.floor((near + far) / 2).astype(np.int64) - size // 2
        low, high = np.clip(start, 0, shape), np.clip(start + size, 0, shape)
        outside = self.candidates.rows[(low >= high).any(1)]
        if len(outside):
            raise GeometryError(
                f"the crops of {name_rows(outside)} of the table are outside of their frame; are boxes and points in "
                "pixels, x the column and y the row?"
            )
        if self.border == "shift":
            start = np.clip(start, 0, np.maximum(shape - size, 0))
        elif self.border == "clip":
            start, size = low, high - low
        self._start, self._size = start, size

    # What it holds

    def __len__(self) -> int:
        return len(self.candidates)

    def __repr__(self) -> str:
        size = "boxes" if self.size is None else f"{self.size[0]} x {self.size[1]}"
        dropped = f", {format_count(len(self.dropped), 'row')} dropped" if len(self.dropped) else ""
        frames = format_count(len(self.index), "frame")
        return f"DicomCrops({format_count(len(self), 'crop')} of {size} from {frames}{dropped})"

    def _frame_of(self, asked: int) -> int:
        return int(self._frames[asked])

    def _window(self, asked: int) -> Window:
        return Window(
            self._frame_of(asked), *self._start[asked].tolist(), *self._size[asked].tolist()
        )

    def _matching(self, equals: dict[str, Any]) -> Ints:
        """Of the crops whose row of the table, or whose frame, has what is asked for."""
        found, of_frames = self.candidates.matching(equals)
        if of_frames:
            found &= self.index.where(**of_frames)[self._frames]
        return np.flatnonzero(found)

    def _part_meta(self, asked: int, window: Window) -> dict[str, Any]:
        left, top, right, bottom = self.candidates.boxes[asked].tolist()
        across, down = window.left, window.top
        return {
            "candidate": int(self.candidates.rows[asked]),
            "box": (left - across, top - down, right - across, bottom - down),
            **self.candidates.row(asked),
        }
