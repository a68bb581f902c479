"""Tables as NumPy columns: packed text, dictionary-encoded text, and Arrow IPC files in and out.

A table that was read lies in the buffers of its file: a column is a view, a text is cut out when somebody asks for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dicomtorch.errors import IndexFileError
from dicomtorch.model.schema import Column

_MOST_SHOWN = 10  # distinct values

Ints = npt.NDArray[np.integer[Any]]
Rows = npt.NDArray[np.int64] | slice


class Packed(Sequence[bytes]):
    """Byte strings end to end, with the offset of each: (n + 1,) int64 and uint8."""

    __slots__ = ("data", "offsets")

    def __init__(self, offsets: npt.NDArray[np.int64], data: npt.NDArray[np.uint8]) -> None:
        self.offsets = offsets
        self.data = data

    @classmethod
    def of(cls, values: Iterable[bytes]) -> Packed:
        """Packs `values`."""
        values = list(values)
        offsets = np.zeros(len(values) + 1, np.int64)
        np.cumsum([len(value) for value in values], out=offsets[1:])
        return cls(offsets, np.frombuffer(b"".join(values), np.uint8))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        if i < 0:
            i += len(self)
        if not 0 <= i < len(self):
            raise IndexError(i)
        return self.data[self.offsets[i] : self.offsets[i + 1]].tobytes()

    def __iter__(self) -> Iterator[bytes]:
        ends = self.offsets.tolist()
        data = self.data[ends[0] : ends[-1]].tobytes()
        first = ends[0]
        return (data[a - first : b - first] for a, b in pairwise(ends))

    def take(self, rows: Ints) -> Packed:
        """The values at `rows`, packed anew."""
        offsets, data = (
            pa.py_buffer(np.ascontiguousarray(part)) for part in (self.offsets, self.data)
        )
        every = pa.Array.from_buffers(pa.large_binary(), len(self), [None, offsets, data])
        return arrow_to_packed(every.take(_to_arrow(rows, pa.int64())))

    @staticmethod
    def concatenate(parts: Sequence[Packed]) -> Packed:
        """One after the other."""
        if len(parts) == 1:
            return parts[0]
        offsets = [np.zeros(1, np.int64)]
        end = 0
        for part in parts:
            offsets.append(part.offsets[1:] - part.offsets[0] + end)
            end = int(offsets[-1][-1]) if len(part) else end
        data = [part.data[part.offsets[0] : part.offsets[-1]] for part in parts]
        return Packed(np.concatenate(offsets), np.concatenate(data))


class Texts(Sequence[str]):
    """A text column: int32 codes into packed UTF-8 values, each of which is there once."""

    __slots__ = ("_cache", "_numbers", "codes", "values")

    def __init__(self, codes: npt.NDArray[np.int32], values: Packed) -> None:
        self.codes = codes
        self.values = values
        self._cache: dict[int, str] = {}
        self._numbers: dict[str, int] | None = None

    @classmethod
    def of(cls, values: Iterable[str]) -> Texts:
        """Encodes `values`."""
        if isinstance(values, list | tuple) and values and values.count(values[0]) == len(values):
            # Of a file with 100,000 frames nearly all columns are like this.
            return cls(np.zeros(len(values), np.int32), Packed.of([values[0].encode()]))
        numbers: dict[str, int] = {}
        codes = np.fromiter((numbers.setdefault(v, len(numbers)) for v in values), np.int32)
        return cls(codes, Packed.of(text.encode() for text in numbers))

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return self.take(np.arange(*i.indices(len(self))))
        return self.value(int(self.codes[i]))

    def __eq__(self, other: object) -> Any:
        """Where the text is `other`, as a boolean array; so that columns compare as arrays do."""
        return self.codes == self.code(other) if isinstance(other, str) else NotImplemented

    def __ne__(self, other: object) -> Any:
        return self.codes != self.code(other) if isinstance(other, str) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """Without values, which may be identifiers: errors and debuggers show this."""
        distinct = np.count_nonzero(np.bincount(self.codes, minlength=1))
        return f"Texts({len(self):,} rows, {distinct:,} distinct)"

    def __str__(self) -> str:
        """The most frequent values and how many rows have each, as `print` shows them."""
        counts = np.bincount(self.codes, minlength=1)
        order = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
        lines = [f"{counts[k]:10,}  {self.value(int(k)) or '(empty)'}" for k in order[:_MOST_SHOWN]]
        more = len(order) - len(lines)
        lines += [f"            and {more:,} more"] if more else []
        return "\n".join([repr(self), *lines])

    def __iter__(self) -> Iterator[str]:
        return iter(self.tolist())

    def value(self, code: int) -> str:
        """The text that `code` stands for."""
        text = self._cache.get(code)
        if text is None:
            text = self.values[code].decode()
            # Distinct instance UIDs are as many as rows: remember only what is small and repeats.
            if len(self._cache) < 4096:
                self._cache[code] = text
        return text

    def values_of(self, rows: Ints) -> list[str]:
        """The texts of some rows; each has been asked for before, nearly always."""
        codes = self.codes[rows].tolist()
        try:
            return list(map(self._cache.__getitem__, codes))
        except KeyError:
            return list(map(self.value, codes))

    def code(self, text: str) -> int:
        """The code of `text`, -1 if no row ever had it."""
        if self._numbers is None:
            if len(self.values) > 4096:
                return int(pc.index(large_strings(self.values), text).as_py())
            self._numbers = {self.value(code): code for code in range(len(self.values))}
        return self._numbers.get(text, -1)

    def codes_of(self, texts: Iterable[str]) -> npt.NDArray[np.int32]:
        """The code of each text, -1 if no row ever had it."""
        texts = list(texts)
        if len(texts) == 1:
            return np.array([self.code(texts[0])], np.int32)
        wanted = Packed.of(text.encode() for text in texts)
        found = pc.index_in(large_strings(wanted), value_set=large_strings(self.values))
        return _view(found.fill_null(-1), np.dtype(np.int32))

    def take(self, rows: Ints) -> Texts:
        """The rows asked for; values are shared."""
        return Texts(self.codes[rows], self.values)

    def compact(self) -> Texts:
        """The same rows without the values that none of them has; itself if there are no such values."""
        if len(self.codes) and self.codes.strides[0] == 0:
            if len(self.values) == 1:
                return self
            one = self.values.take(self.codes[:1].astype(np.int64))
            return Texts(np.broadcast_to(np.int32(0), self.codes.shape), one)
        if len(self.values) > 4 * len(self.codes):
            few, inverse = np.unique(self.codes, return_inverse=True)
            return Texts(inverse.astype(np.int32), self.values.take(few.astype(np.int64)))
        used = np.bincount(self.codes, minlength=len(self.values)) > 0
        if used.all():
            return self
        codes = np.cumsum(used, dtype=np.int32) - np.int32(1)
        return Texts(codes[self.codes], self.values.take(np.flatnonzero(used)))

    def tolist(self) -> list[str]:
        """Every row as a `str`."""
        if len(self.values) <= 2 * len(self.codes):
            texts = [value.decode() for value in self.values]
            return [texts[code] for code in self.codes.tolist()]
        used, inverse = np.unique(self.codes, return_inverse=True)
        texts = [self.values[int(code)].decode() for code in used]
        return [texts[k] for k in inverse.tolist()]


ColumnData = npt.NDArray[Any] | Texts | Packed


class HasColumns(Protocol):
    """Rows with columns: an index, or another table like it."""

    def __len__(self) -> int:
        """Rows."""

    def column(self, name: str) -> Any:
        """An array with one value, or several, for each row, or `Texts`."""


def as_list(values: npt.NDArray[Any] | list[Any]) -> list[Any]:
    """Python's numbers and texts; a row of a table with several numbers as a tuple."""
    if isinstance(values, list):
        return values
    numbers: list[Any] = values.tolist()
    return [tuple(number) for number in numbers] if values.ndim > 1 else numbers


Table = dict[str, ColumnData]


def make_column(column: Column, values: Iterable[Any]) -> ColumnData:
    """A column of `values`, of the kind that `column` says."""
    if column.kind == "text":
        return Texts.of(values)
    if column.kind == "bytes":
        return Packed.of(values)
    array = np.array(list(values), column.dtype)
    return array.reshape(-1, column.width) if column.width > 1 else array


def take(table: Table, rows: Ints) -> Table:
    """The rows asked for, of every column."""
    return {
        name: data.take(rows) if isinstance(data, Texts | Packed) else data[rows]
        for name, data in table.items()
    }


def arrow_type(column: Column) -> pa.DataType:
    """The Arrow type of a column."""
    if column.kind == "text":
        return pa.dictionary(pa.int32(), pa.large_string())
    if column.kind == "bytes":
        return pa.large_binary()
    scalar = pa.from_numpy_dtype(column.dtype)
    return pa.list_(scalar, column.width) if column.width > 1 else scalar


def arrow_schema(columns: Sequence[Column]) -> pa.Schema:
    """The exact schema of a table's file; no column has nulls."""
    return pa.schema([pa.field(c.name, arrow_type(c), nullable=False) for c in columns])


def to_arrow(table: Mapping[str, ColumnData], columns: Sequence[Column]) -> pa.RecordBatch:
    """The table as one record batch over the same memory."""
    arrays = []
    for column in columns:
        data = table[column.name]
        if isinstance(data, Texts):
            values = large_strings(data.values)
            codes = _to_arrow(data.codes, pa.int32())
            arrays.append(pa.DictionaryArray.from_arrays(codes, values))
        elif isinstance(data, Packed):
            arrays.append(_packed_to_arrow(data, pa.large_binary()))
        elif column.width > 1:
            flat = _to_arrow(
                np.ascontiguousarray(data).reshape(-1), pa.from_numpy_dtype(data.dtype)
            )
            arrays.append(pa.FixedSizeListArray.from_arrays(flat, column.width))
        else:
            arrays.append(_to_arrow(data, arrow_type(column)))
    return pa.RecordBatch.from_arrays(arrays, schema=arrow_schema(columns))


def _to_arrow(data: npt.NDArray[Any], kind: pa.DataType) -> pa.Array:
    # Not `pa.array`, which imports pandas.
    wanted = np.ascontiguousarray(data, kind.to_pandas_dtype())
    return pa.Array.from_buffers(kind, len(wanted), [None, pa.py_buffer(wanted)])


def large_strings(packed: Packed) -> pa.Array:
    """Distinct values of a text column as an Arrow array over the same memory."""
    return _packed_to_arrow(packed, pa.large_string())


def large_binaries(packed: Packed) -> pa.Array:
    """Byte strings as an Arrow array over the same memory."""
    return _packed_to_arrow(packed, pa.large_binary())


def from_arrow(batch: pa.RecordBatch, columns: Sequence[Column]) -> Table:
    """NumPy views of a batch that `read_batch` has accepted."""
    table: Table = {}
    for column, array in zip(columns, batch.columns, strict=True):
        if column.kind == "text":
            codes = _view(array.indices, column.dtype)
            table[column.name] = Texts(codes, arrow_to_packed(array.dictionary))
        elif column.kind == "bytes":
            table[column.name] = arrow_to_packed(array)
        elif column.width > 1:
            table[column.name] = _view(array.flatten(), column.dtype).reshape(-1, column.width)
        else:
            table[column.name] = _view(array, column.dtype)
    return table


def _view(array: pa.Array, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    # Not `to_numpy`, which imports pandas.
    if not len(array):
        return np.zeros(0, dtype)
    buffer = array.buffers()[1]
    return np.frombuffer(buffer, dtype, count=array.offset + len(array))[array.offset :]


def write_batch(sink: Any, batch: pa.RecordBatch) -> None:
    """Writes one uncompressed batch as an Arrow IPC file, so that it can be mapped."""
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)


def column_names(source: Any) -> list[str]:
    """The columns of an Arrow IPC file, none if it is damaged: `read_batch` says so then."""
    try:
        return list(pa.ipc.open_file(source).schema.names)
    except (pa.ArrowException, OSError, ValueError):
        return []


def read_batch(
    source: Any, columns: Sequence[Column], label: str, *, is_checked: bool = False
) -> pa.RecordBatch:
    """Reads and checks the one batch of an Arrow IPC file.

    Arrow trusts what it reads: damaged offsets end the process when they are followed, so the batch is validated fully.

    Raises:
        IndexFileError: It is damaged, or its schema is not exactly that of `columns`.
    """
    try:
        reader = pa.ipc.open_file(source)
        if not reader.schema.equals(arrow_schema(columns)) or reader.num_record_batches != 1:
            raise IndexFileError(f"{label} has another schema; scan again to rebuild it")
        batch = reader.get_batch(0)
        batch.validate(full=not is_checked)
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        if isinstance(error, IndexFileError):
            raise
        raise IndexFileError(f"{label} is damaged ({error}); scan again to rebuild it") from error
    if any(array.null_count for array in batch.columns):
        raise IndexFileError(f"{label} is damaged: it has nulls; scan again to rebuild it")
    return batch


def _packed_to_arrow(packed: Packed, kind: pa.DataType) -> pa.Array:
    offsets = np.ascontiguousarray(packed.offsets - packed.offsets[0])
    data = np.ascontiguousarray(packed.data[packed.offsets[0] : packed.offsets[-1]])
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    return pa.Array.from_buffers(kind, len(packed), buffers)


def arrow_to_packed(array: pa.Array) -> Packed:
    """Byte strings or texts of an Arrow array, over the same memory."""
    _, offsets, data = array.buffers()
    count = len(array)
    start = array.offset
    if offsets is None or not offsets.size:
        return Packed(np.zeros(1, np.int64), np.zeros(0, np.uint8))
    view = np.frombuffer(offsets, np.int64, count=start + count + 1)[start:]
    content = (
        np.frombuffer(data, np.uint8) if data is not None and data.size else np.zeros(0, np.uint8)
    )
    return Packed(view, content)
