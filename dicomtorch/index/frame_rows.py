"""`FrameRows`: rows of a scan's tables, column by column and frame by frame.

Nothing copies the tables, so that worker processes share one mapping.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dicomtorch.errors import FrameIndexError, OptionError
from dicomtorch.index.builder import Member
from dicomtorch.index.columns import ColumnData, Packed, Table, Texts, as_list
from dicomtorch.index.generation import Generation, Rows, frame_columns
from dicomtorch.index.joins import Joined
from dicomtorch.index.location import FrameLocation, locate
from dicomtorch.index.members import is_inside, member_of, object_path
from dicomtorch.index.values import FrameObjects
from dicomtorch.model.frame import FrameSpan, FrameValues
from dicomtorch.model.image import ImagePixel
from dicomtorch.model.limits import Limits
from dicomtorch.model.schema import Columns, Kind


class FrameRows:
    """Some rows of a scan, with what was joined to them; position `i` is the i-th of them."""

    def __init__(
        self, generation: Generation, rows: Rows | None = None, joined: Sequence[Joined] = ()
    ) -> None:
        self._generation = generation
        self._prefix = os.path.join(generation.root, b"")
        self._rows = rows
        self._joined = tuple(joined)
        self._joined_names = {c.name: part for part in self._joined for c in part.columns}
        self._objects = FrameObjects(generation)
        self._last_object = (-1, b"")

    def __len__(self) -> int:
        return len(self._generation.frames["frame"]) if self._rows is None else len(self._rows)

    @property
    def root(self) -> bytes:
        """What the paths are below, absolute."""
        return self._generation.root

    @property
    def tags(self) -> Mapping[str, Kind]:
        """Keywords beyond the fixed columns that were read, and their kinds."""
        return self._generation.tags

    @property
    def limits(self) -> Limits:
        """What the scan admitted; reading and decoding admit the same."""
        return self._generation.limits

    @property
    def files(self) -> Table:
        """The table of all files of the scan, with frames or without: column name -> (files,) of its dtype."""
        return self._generation.files

    @property
    def uuid(self) -> str:
        """Names the scan that this index comes from."""
        return self._generation.uuid

    @property
    def rows(self) -> Rows:
        """(frames,) int64: the row of the scan's frames table for each position."""
        return np.arange(len(self)) if self._rows is None else self._rows

    @property
    def columns(self) -> Columns:
        """The columns that there are, joined ones last; `print(index.columns)` shows names and kinds."""
        joined = [column for part in self._joined for column in part.columns]
        return Columns((*frame_columns(self.tags), *joined))

    @property
    def joined(self) -> tuple[str, ...]:
        """Names of the columns that `join` added; samples have them in `meta`."""
        return tuple(self._joined_names)

    def column(self, name: str) -> Any:
        """One column over the rows of this index.

        Returns:
            An array, (len,) or (len, width), or a `Texts` sequence of `str`.

        Raises:
            OptionError: There is no such column.
        """
        data, rows = self._column(name)
        if rows is None:
            return data
        return data.take(rows) if isinstance(data, Texts | Packed) else data[rows]

    def column_at(self, name: str, positions: npt.NDArray[np.int64]) -> Any:
        """A column at some positions, not negative; the others are not looked at, which `column` does of a selection.

        Args:
            name: Of the column.
            positions: (n,) int64.

        Returns:
            An array, (n,) or (n, width), or a `Texts` sequence of `str`; not to be written to.

        Raises:
            OptionError: There is no such column.
        """
        data, chosen = self._column(name)
        rows = positions if chosen is None else chosen[positions]
        if isinstance(data, Packed):
            return data.take(rows)
        if isinstance(data, Texts):
            return Texts(_at(data.codes, rows), data.values)
        return _at(data, rows)

    def values(self, name: str, positions: npt.NDArray[np.int64]) -> npt.NDArray[Any] | list[str]:
        """A column at some positions, not negative: (n,) or (n, numbers) int64, float64 or bool, or a list of n `str`.

        Args:
            name: Of the column.
            positions: (n,) int64.
        """
        data: Any
        data, chosen = self._column(name)
        rows = positions if chosen is None else chosen[positions]
        if isinstance(data, Texts):
            return data.values_of(rows)
        values: npt.NDArray[Any] = data[rows]
        return values

    def gather(self, name: str, positions: npt.NDArray[np.int64]) -> list[Any]:
        """A column at some positions as a list of n `int`, `float`, `str`, or tuples of `float`.

        Args:
            name: Of the column.
            positions: (n,) int64, not negative.
        """
        return as_list(self.values(name, positions))

    def gather_all(
        self, names: Sequence[str], positions: npt.NDArray[np.int64]
    ) -> dict[str, list[Any]]:
        """Several columns at some positions, each as `gather` gives it; of one frame they take a third of the time.

        Args:
            names: Of the columns.
            positions: (n,) int64, not negative.
        """
        if len(positions) != 1:
            return {name: self.gather(name, positions) for name in names}
        position = int(positions[0])
        found: dict[str, list[Any]] = {}
        for name in names:
            data, chosen = self._column(name)
            row = position if chosen is None else chosen.item(position)
            if isinstance(data, Texts):
                found[name] = [data.value(data.codes.item(row))]
            elif isinstance(data, np.ndarray) and data.ndim == 1:
                found[name] = [data.item(row)]
            else:
                found[name] = as_list(data[row : row + 1])
        return found

    # One frame

    def row(self, i: int) -> int:
        """The row of the frames table for position `i`.

        Raises:
            FrameIndexError: `i` is not within -len and len - 1.
        """
        count = len(self)
        if not -count <= i < count:
            raise FrameIndexError(
                f"frame {i} is outside the index, which has {count} frames "
                f"(positions 0 to {count - 1})"
                if count
                else f"frame {i} is outside the index, which is empty"
            )
        i = i + count if i < 0 else i
        return i if self._rows is None else int(self._rows[i])

    def record(self, i: int) -> dict[str, Any]:
        """The row of frame `i`: its path, and every column by name.

        Raises:
            FrameIndexError: `i` is not within -len and len - 1.
        """
        row = {"path": self.path(i)}
        at = np.array([i % len(self)], np.int64)
        return row | {column.name: self.gather(column.name, at)[0] for column in self.columns}

    def path(self, i: int) -> str:
        """The file of frame `i`, absolute, as `os.fsdecode` has it; `file_path` gives bytes."""
        return os.fsdecode(self.file_path(int(self._generation.frames["file"][self.row(i)])))

    @property
    def path_prefix(self) -> bytes:
        """What stands before every path of the files table: the root, with a separator at its end."""
        return self._prefix

    def file_path(self, file: int) -> bytes:
        """The path of a row of the files table, absolute; of a member of an archive its label, which nobody opens."""
        path: bytes = self._generation.files["path"][file]
        return self._prefix + path

    def object_path(self, file: int) -> bytes:
        """What is opened for a row of the files table, absolute: the file, or the archive that it is a member of."""
        last, path = self._last_object
        if last != file:  # frames of one file are mostly read one after the other
            path = self.file_path(file)
            if is_inside(self._generation.files, file):
                path = object_path(path, self.member(file).name)
            self._last_object = (file, path)
        return path

    def member(self, file: int) -> Member:
        """Where in an archive a row of the files table is; `NO_MEMBER` if in none."""
        return member_of(self._generation.files, file)

    def locate(self, positions: Sequence[int] | npt.NDArray[np.int64]) -> list[FrameLocation]:
        """Where frames are; looked up together, which costs little more than one.

        Args:
            positions: (n,) integers, not negative.
        """
        at = np.asarray(positions, np.int64)
        return locate(self._generation, at if self._rows is None else self._rows[at], at)

    def span(self, i: int) -> FrameSpan:
        """Where the bytes of frame `i` are."""
        frames: dict[str, Any] = self._generation.frames
        row = self.row(i)
        return FrameSpan._make(int(frames[name][row]) for name in FrameSpan._fields)

    def image_pixel(self, i: int) -> ImagePixel:
        """How the bytes of frame `i` become stored values.

        Source: PS3.3 C.7.6.3.
        """
        return self._objects.image_pixel(self.row(i))

    def frame_values(self, i: int) -> FrameValues:
        """What turns the stored values of frame `i` into others; frames that share all of it share the object."""
        return self._objects.frame_values(self.row(i))

    def image_pixels(self) -> list[tuple[ImagePixel, int]]:
        """Each distinct `ImagePixel` of this index with the number of frames that have it."""
        numbers = np.asarray(self.column("image_pixel"))
        _, first, counts = np.unique(numbers, return_index=True, return_counts=True)
        return [
            (self.image_pixel(int(position)), int(count))
            for position, count in zip(first, counts, strict=True)
        ]

    def _column(self, name: str) -> tuple[ColumnData, npt.NDArray[Any] | None]:
        """(a column of a table, the rows of it that the positions are; `None` for all)."""
        part = self._joined_names.get(name)
        if part is not None:
            return part.table[name], part.rows
        data = self._generation.frames.get(name)
        if data is None:
            close = [c.name for c in self.columns if c.name.lower() == name.lower()]
            hint = f"; did you mean {close[0]}?" if close else "."
            joined = f"; joined are {', '.join(self._joined_names)}" if self._joined_names else ""
            raise OptionError(
                f"the index has no column {name!r}{hint} Scan with tags=[{name!r}] if it is a DICOM "
                f"keyword; index.columns lists what there is{joined}"
            )
        return data, self._rows


def _at(values: npt.NDArray[Any], rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """Some rows of an array; of one with the same in all of them nothing is copied."""
    if len(values) and values.strides[0] == 0:
        return np.broadcast_to(values[0], (len(rows), *values.shape[1:]))
    return values[rows]
