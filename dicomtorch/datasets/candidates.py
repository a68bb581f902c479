"""Points and boxes of a table: where in which series, or on which frame."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dicomtorch.datasets.box_tables import NAMES, boxes_of, frames_of, key_of, read_boxes
from dicomtorch.errors import OptionError
from dicomtorch.index.columns import Texts
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.index.joins import read_table, refuse_repeated, to_column
from dicomtorch.masks.shape_tables import KEYS
from dicomtorch.series.geometry import Floats, Ints

_NAMES = ("SeriesInstanceUID", "x", "y", "z")
_LISTED = 5


class TableRows:
    """The rows of a table of candidates.

    Args:
        given: The table.
        used: Its columns that say where candidates are.

    Attributes:
        rows: (n,), numbers of the rows in the table as it was given.
        labels: The other columns.
    """

    def __init__(self, given: pa.Table, used: Collection[str]) -> None:
        self.rows: Ints = np.arange(len(given))
        self.labels: dict[str, Any] = {
            name: to_column(name, given.column(name))[1]
            for name in given.column_names
            if name not in used
        }

    def __len__(self) -> int:
        return len(self.rows)

    def keep(self, mask: npt.NDArray[np.bool_]) -> None:
        """Forgets the rows where `mask` is false."""
        self.rows = self.rows[mask]
        kept = np.flatnonzero(mask)
        self.labels = {
            name: values.take(kept) if isinstance(values, Texts) else values[kept]
            for name, values in self.labels.items()
        }

    def row(self, i: int) -> dict[str, Any]:
        """The other columns of a row."""
        return {
            name: values[i] if isinstance(values, Texts) else values[i].item()
            for name, values in self.labels.items()
        }

    def column(self, name: str) -> Any:
        """One of the other columns.

        Raises:
            OptionError: There is no such column.
        """
        if name not in self.labels:
            raise OptionError(
                f"the table of candidates has no further column {name!r}; it has {', '.join(self.labels) or 'none'}"
            )
        return self.labels[name]

    def matching(self, equals: dict[str, Any]) -> tuple[npt.NDArray[np.bool_], dict[str, Any]]:
        """Which rows have what `find` asks for, and what it asks for that is no column of the table."""
        found, others = np.ones(len(self), np.bool_), {}
        for name, wanted in equals.items():
            if name == "candidate":
                found &= self.rows == wanted
            elif name in self.labels:
                found &= np.asarray(self.labels[name] == wanted)
            else:
                others[name] = wanted
        return found, others

    def check_names(self, taken: Collection[str]) -> None:
        """Whether `meta` can have the other columns.

        Raises:
            OptionError: It has another key of that name.
        """
        clashes = sorted(set(taken) & set(self.labels))
        if clashes:
            raise OptionError(
                f"the table's columns {', '.join(clashes)} have names that meta uses already; rename them"
            )


class Candidates(TableRows):
    """Points of series.

    Args:
        table: A pandas DataFrame, an Arrow table, a dict of lists, or the path of a CSV file.
        columns: Names of its columns, where they are not `_NAMES`.

    Attributes:
        uids: The distinct series.
        series: (n,), which of `uids` each row is of.
        points: (n, 3): x, y, z.

    Raises:
        OptionError: It lacks a column, or a coordinate.
    """

    def __init__(self, table: Any, columns: Mapping[str, str]) -> None:
        unknown = sorted(set(columns) - set(_NAMES))
        if unknown:
            raise OptionError(f"columns names {', '.join(_NAMES)}; got {', '.join(unknown)}")
        names = [columns.get(name, name) for name in _NAMES]
        given = read_table(table, names[:1])
        refuse_repeated(given, names)
        absent = [name for name in names if name not in given.column_names]
        if absent:
            raise OptionError(
                f"the table has no column {', '.join(absent)}; it has {', '.join(given.column_names)}. Say with "
                f'columns={{"{_NAMES[names.index(absent[0])]}": ...}} what it is called'
            )
        uids = pc.utf8_trim_whitespace(given.column(names[0]).cast(pa.string()).fill_null(""))
        encoded = uids.combine_chunks().dictionary_encode()
        self.uids: list[str] = encoded.dictionary.to_pylist()
        self.series = np.asarray(encoded.indices.to_numpy(zero_copy_only=False), np.int64)
        self.points = np.stack([_numbers(name, given.column(name)) for name in names[1:]], axis=1)
        bad = np.flatnonzero(~np.isfinite(self.points).all(axis=1))
        if len(bad):
            raise OptionError(f"{name_rows(bad)} of the table lack one of {', '.join(names[1:])}")
        super().__init__(given, names)

    def keep(self, mask: npt.NDArray[np.bool_]) -> None:
        """Forgets the rows where `mask` is false."""
        super().keep(mask)
        self.series, self.points = self.series[mask], self.points[mask]


class BoxCandidates(TableRows):
    """Boxes and points of frames.

    Args:
        table: See `box_tables.read_boxes`.
        columns: What its columns are called where that is not as there.

    Attributes:
        boxes: (n, 4): left, top, right, bottom in pixels, 0 being the corner of the first pixel; of points twice the
            point.
        are_points: Whether they are points.

    Raises:
        OptionError: It lacks a column, or a number.
        SourceError: There is no such file.
    """

    def __init__(self, table: Any, columns: Mapping[str, str]) -> None:
        unknown = sorted(set(columns) - set(NAMES))
        if unknown:
            raise OptionError(f"columns names {', '.join(NAMES)}; got {', '.join(unknown)}")
        self._table = read_boxes(table, columns)
        names = set(self._table.column_names)
        if names.isdisjoint(KEYS) and _NAMES[0] in names:
            raise OptionError(
                "the table names series: crops of volumes need size=(d, h, w), three numbers; crops of frames a "
                f"column {', '.join(KEYS[:-1])} or {KEYS[-1]}"
            )
        key = key_of(self._table)
        self.boxes, self.are_points = boxes_of(self._table)
        super().__init__(self._table, (key, *NAMES[len(KEYS) :]))

    def frames(self, index: FrameIndex) -> Ints:
        """(n,), position of the frame of each row in an index, -1 for none.

        Raises:
            OptionError: Several files are called as a row names them.
        """
        return frames_of(index, self._table)

    def keep(self, mask: npt.NDArray[np.bool_]) -> None:
        """Forgets the rows where `mask` is false."""
        super().keep(mask)
        self.boxes = self.boxes[mask]
        self._table = self._table.filter(pa.array(mask))

    def forget_table(self) -> None:
        """Drops what `frames` needs, so that it does not travel to workers."""
        self._table = self._table.slice(0, 0)


def _numbers(name: str, column: pa.ChunkedArray) -> Floats:
    try:
        numbers = column.cast(pa.float64()).fill_null(float("nan"))
    except pa.ArrowException as error:
        raise OptionError(
            f"the table's column {name!r} holds {column.type}, not numbers"
        ) from error
    return np.asarray(numbers.to_numpy(), np.float64)


def name_rows(numbers: Ints) -> str:
    """Names rows of the table, counted from 0."""
    listed = ", ".join(map(str, numbers[:_LISTED].tolist()))
    more = f" and {len(numbers) - _LISTED} more" if len(numbers) > _LISTED else ""
    return f"{'row' if len(numbers) == 1 else 'rows'} {listed}{more}"


def is_value(a: Any, b: Any) -> bool:
    """Whether a value of the index is one of the table, where numbers may have become texts or other numbers."""
    return bool(a == b or str(a) == str(b))
