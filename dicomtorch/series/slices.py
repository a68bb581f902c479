"""What is known of every slice of an index: a frame, or a window of a frame that holds several (rule 10)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dicomtorch._forks import lazy
from dicomtorch.errors import printable
from dicomtorch.index.codes import numbered, plain
from dicomtorch.index.columns import Texts
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.series.geometry import Floats, Ints

VECTORS = (
    "TimeSlotVector",
    "RRIntervalVector",
    "PhaseVector",
    "EnergyWindowVector",
    "DetectorVector",
)
"""What tells frames of Nuclear Medicine apart, together the key "vectors"."""

TIMES_OF_DAY = frozenset(("AcquisitionTime", "ContentTime"))
"""Columns in seconds since midnight."""

Codes = npt.NDArray[Any]
"""Numbers, of 32 bits where there are many."""

_DAY = 86_400.0
_ROUNDED = 9  # digits of vectors of numbers


class Slices:
    """The slices of an index.

    Attributes:
        index: The index.
        rows: (n,), position of each slice's frame in the index.
        windows: (n, 4), first row, first column, rows and columns of each slice in its frame; `None`: all are whole.
        place: (n, 3), Image Position (Patient).
        orientation: (n, 6), Image Orientation (Patient).
        pixel: (n, 2), Pixel Spacing.
    """

    def __init__(self, index: FrameIndex, *, sheets: bool = True) -> None:
        self.index = index
        self.place, self.orientation, self.pixel = (
            np.asarray(index.column(name), np.float64)
            for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
        )
        self.rows: Ints = np.arange(len(index))
        self.windows: Ints | None = None
        mosaic = index.column("mosaic")
        assert isinstance(mosaic, Texts)
        self.is_sheet: npt.NDArray[np.bool_] = mosaic != ""
        if sheets and self.is_sheet.any():
            self._unfold(mosaic)
        self._codes: dict[str, Codes | None] = {}
        self._constant: dict[str, bool] = {}

    def __len__(self) -> int:
        return len(self.rows)

    @lazy
    def in_file(self) -> Ints:
        """(n,), slices of the file that each one is in."""
        frames = np.asarray(self.index.files["frames"])
        files = np.asarray(self.index.column("file"))[self.rows]
        slices: Ints = np.bincount(files, minlength=1)[files]
        if len(self.index) != int(frames.sum()):  # frames that were left out count, too
            slices = np.maximum(slices, frames[files])
        return slices

    def _unfold(self, mosaic: Texts) -> None:
        """A slice for each tile of each sheet, in the place of the sheet."""
        tiles = {code: _tiles(mosaic.value(code)) for code in np.unique(mosaic.codes).tolist()}
        counts = np.array([max(len(tiles[code][1]), 1) for code in mosaic.codes.tolist()])
        self.rows = np.repeat(self.rows, counts)
        self.is_sheet = self.is_sheet[self.rows]
        self.place = self.place[self.rows]
        self.orientation, self.pixel = self.orientation[self.rows], self.pixel[self.rows]
        sizes = [np.asarray(self.index.column(name)) for name in ("Rows", "Columns")]
        self.windows = np.zeros((len(self.rows), 4), np.int64)
        self.windows[:, 2:] = np.stack([size[self.rows] for size in sizes], axis=1)
        starts = np.cumsum(counts) - counts
        for position in np.flatnonzero(mosaic != "").tolist():
            (rows, columns), places = tiles[int(mosaic.codes[position])]
            part = slice(starts[position], starts[position] + counts[position])
            across = int(sizes[1][position]) // columns
            number = np.arange(counts[position])
            self.place[part] = places
            self.windows[part, 0] = number // across * rows
            self.windows[part, 1] = number % across * columns
            self.windows[part, 2:] = rows, columns

    @lazy
    def directions(self) -> Floats:
        """(n, 3), Diffusion Gradient Orientation."""
        return np.asarray(self.index.column("DiffusionGradientOrientation"))[self.rows]

    def size(self, k: int) -> tuple[int, int]:
        """Rows and columns of slice `k`."""
        if self.windows is not None:
            rows, columns = self.windows[k, 2:].tolist()
            return rows, columns
        rows, columns = (self.value(name, k) for name in ("Rows", "Columns"))
        return rows, columns

    def windows_of(self, chosen: Ints) -> Ints | None:
        """The windows of slices, `None` where all are whole frames."""
        if self.windows is None or not self.is_sheet[chosen].any():
            return None
        return self.windows[chosen]

    def value(self, name: str, k: int) -> int:
        """A number of slice `k`."""
        return int(self.index.gather(name, self.rows[k : k + 1])[0])

    def codes(self, name: str) -> Codes | None:
        """Numbers for the slices that are equal where the values of a column are; `None`: they are throughout.

        "vectors" stands for those of `VECTORS` together, "window" for the size of the slice.
        """
        if name not in self._codes:
            if name == "window":
                columns: list[Any] = [] if self.windows is None else [self.windows[:, 2:]]
            elif name == "vectors":
                columns = [self.index.column(vector) for vector in VECTORS]
            else:
                columns = [self.index.column(name)]
            codes: Codes | None = _one_number(columns, len(columns[0]) if columns else 0)
            is_of_frames = name != "window" and self.windows is not None
            self._codes[name] = codes[self.rows] if codes is not None and is_of_frames else codes
        return self._codes[name]

    def is_constant(self, name: str) -> bool:
        """Whether a column is the same throughout; numbers are not made to know that."""
        if name in self._codes:
            return self._codes[name] is None
        if name not in self._constant:
            self._constant[name] = _is_constant(plain(self.index.column(name)))
        return self._constant[name]

    def vary(self, name: str, sets: Ints) -> npt.NDArray[np.bool_]:
        """(k,), in which of (k, n) sets of slices a column of the index differs, as `codes` would have it.

        Only these slices are looked at, and no numbers are made.
        """
        if self.is_constant(name):
            return np.zeros(len(sets), np.bool_)
        values = _rounded(plain(self.index.column_at(name, self.rows[sets.ravel()])))
        there = values.reshape(*sets.shape, *values.shape[1:])
        first = there[:, :1]
        differ = there != first
        if there.dtype.kind == "f":
            differ &= ~(np.isnan(there) & np.isnan(first))
        return np.asarray(differ.any(axis=tuple(range(1, differ.ndim))), np.bool_)

    def numbers(self, name: str, chosen: Ints) -> Floats:
        """A column of numbers at `chosen` slices, nan where absent; times of day after midnight are a day later."""
        values = np.asarray(self.index.column_at(name, self.rows[chosen]))
        numbers = values.astype(np.float64)
        if values.dtype.kind != "f":
            numbers[values < 0] = np.nan
        return unwrapped(numbers) if name in TIMES_OF_DAY else numbers

    def differ(self, name: str, chosen: Ints) -> bool:
        """Whether the values of a column are not all equal at `chosen` slices."""
        codes = self.codes(name)
        if codes is None:
            return False
        there = codes[chosen]
        return bool((there != there[0]).any())

    def name(self, k: int) -> str:
        """The file of a slice, and its frame and tile if there are several."""
        position = int(self.rows[k])
        path = printable(self.index.path(position))
        if self.in_file[k] == 1:
            return path
        frame = f"{path}, frame {self.value('frame', k)}"
        if self.windows is None or not self.is_sheet[k]:
            return frame
        first = int(np.searchsorted(self.rows, position))
        return (
            f"{path}, tile {k - first}"
            if self.value("frame", k) == 0
            else f"{frame}, tile {k - first}"
        )

    def names(self, chosen: Sequence[int] | Ints) -> list[str]:
        """The files of several slices."""
        return [self.name(int(k)) for k in chosen]


def unwrapped(seconds: Floats) -> Floats:
    """Times of day, those after midnight a day later where they span more than half a day."""
    known = seconds[np.isfinite(seconds)]
    if len(known) and np.ptp(known) > _DAY / 2:
        return np.where(seconds < _DAY / 2, seconds + _DAY, seconds)
    return seconds


def unwrapped_within(seconds: Floats, numbers: Ints, count: int) -> Floats:
    """`unwrapped` of the times of each number, 0 to `count` - 1."""
    known = np.isfinite(seconds)
    earliest, latest = np.full(count, np.inf), np.full(count, -np.inf)
    np.minimum.at(earliest, numbers[known], seconds[known])
    np.maximum.at(latest, numbers[known], seconds[known])
    is_over = latest - earliest > _DAY / 2
    return np.where(is_over[numbers] & (seconds < _DAY / 2), seconds + _DAY, seconds)


def _tiles(text: str) -> tuple[tuple[int, int], Floats]:
    """(rows and columns of a tile, (slices, 3) positions) of a value of the column `mosaic`."""
    if not text:
        return (0, 0), np.empty((0, 3))
    rows, columns, *numbers = text.split("\\")
    return (int(rows), int(columns)), np.array(numbers, np.float64).reshape(-1, 3)


def _one_number(columns: Sequence[Any], count: int) -> npt.NDArray[np.int32] | None:
    """One number for each row of the columns together, `None` if they are the same throughout."""
    arrays = [plain(column) for column in columns]
    arrays = [values for values in arrays if len(values) and not _is_constant(values)]
    if not arrays:
        return None
    if len(columns) == 1 and isinstance(columns[0], Texts):
        return np.asarray(columns[0].codes)
    return numbered(map(_rounded, arrays), count).astype(np.int32)


def _rounded(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Several numbers a row within what files round."""
    return np.round(values, _ROUNDED) if values.ndim > 1 else values


def _is_constant(values: npt.NDArray[Any]) -> bool:
    if not len(values) or values.strides[0] == 0:
        return True
    same = values == values[0]
    if values.dtype.kind == "f":
        same |= np.isnan(values) & np.isnan(values[0])
    return bool(same.all())
