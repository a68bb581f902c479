"""Points of a table: where in which series."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dicomtorch.errors import OptionError
from dicomtorch.index.columns import Texts
from dicomtorch.index.joins import read_table, refuse_repeated, to_column
from dicomtorch.series.geometry import Floats, Ints

_NAMES = ("SeriesInstanceUID", "x", "y", "z")
_LISTED = 5


class Candidates:
    """The rows of a table of candidates.

    Args:
        table: A pandas DataFrame, an Arrow table, a dict of lists, or the path of a CSV file.
        columns: Names of its columns, where they are not `_NAMES`.

    Attributes:
        uids: The distinct series.
        series: (n,), which of `uids` each row is of.
        rows: (n,), numbers of the rows in the table as it was given.
        points: (n, 3): x, y, z.
        labels: The other columns.

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
        self.rows = np.arange(len(self.points))
        bad = np.flatnonzero(~np.isfinite(self.points).all(axis=1))
        if len(bad):
            raise OptionError(f"{name_rows(bad)} of the table lack one of {', '.join(names[1:])}")
        self.labels: dict[str, Any] = {
            name: to_column(name, given.column(name))[1]
            for name in given.column_names
            if name not in names
        }

    def __len__(self) -> int:
        return len(self.points)

    def keep(self, mask: npt.NDArray[np.bool_]) -> None:
        """Forgets the rows where `mask` is false."""
        self.series, self.rows, self.points = self.series[mask], self.rows[mask], self.points[mask]
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
