"""Tables as lines of CSV, made column by column; text is quoted, numbers are not.

Most columns of an index are the same throughout, or for thousands of rows: what is the same is written once for all
rows, and each value that repeats becomes text once.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Cell: TypeAlias = Any
"""`str` or `pa.Array`, a part of each line: the same text in all of them, or a text for each."""

_FORMULA_LETTERS: Final = "=+@\t\r\n-"
_FORMULA = rf"\A([{_FORMULA_LETTERS}])"
_BEGINS_FORMULA = np.isin(np.arange(256), list(_FORMULA_LETTERS.encode()))
_TEXT: Final = pa.large_string()


def write_csv(tables: Iterable[pa.Table], file: Any) -> None:
    """Writes a header and rows; several numbers of one column have a backslash between them.

    Args:
        tables: The rows, some at a time, because text takes many times the memory of a column; one at least.
        file: Binary.
    """
    rest = iter(tables)
    first = next(rest)
    file.write((",".join(map(_quoted, first.column_names)) + "\n").encode())
    for table in itertools.chain([first], rest):
        if len(table):
            file.write(_lines(table))


def _lines(table: pa.Table) -> Any:
    """The rows, as bytes or as a buffer."""
    columns = [_cells(column.combine_chunks()) for column in table.columns]
    ends = [","] * (len(columns) - 1) + ["\n"]
    parts = _merged(
        part for column, end in zip(columns, ends, strict=True) for part in (*column, end)
    )
    lines = _joined(parts)
    return lines.encode() * len(table) if isinstance(lines, str) else lines.buffers()[2]


def _joined(parts: Sequence[Cell]) -> Cell:
    """The parts of each line, one after the other."""
    if all(isinstance(part, str) for part in parts):
        return "".join(parts)
    scalars = [pa.scalar(part, _TEXT) if isinstance(part, str) else part for part in parts]
    return pc.binary_join_element_wise(*scalars, pa.scalar("", _TEXT))


def _merged(parts: Iterable[Cell]) -> list[Cell]:
    """With one text in place of several that follow each other."""
    merged: list[Cell] = []
    for part in parts:
        last = merged[-1] if merged else None
        if isinstance(part, str) and isinstance(last, str):
            merged[-1] = last + part
        else:
            merged.append(part)
    return merged


def _cells(column: Any) -> list[Cell]:
    """What a column writes between two commas."""
    kind = column.type
    if column.null_count:
        return [_with_nulls(column)]
    if pa.types.is_dictionary(kind):
        return ['"', _repeated(_written(column.dictionary), column.indices), '"']
    if pa.types.is_large_string(kind):
        return ['"', _written(column), '"']
    if pa.types.is_fixed_size_list(kind):
        table = _values(column.flatten()).reshape(-1, kind.list_size)
        parts = [_floats(values, _as_python_does) for values in table.T]
        return ['"', parts[0], *itertools.chain(*(("\\", part) for part in parts[1:])), '"']
    if pa.types.is_float64(kind):
        return [_floats(_values(column), _cast)]
    if pa.types.is_integer(kind):
        values = _values(column)
        return [str(values[0]) if (values == values[0]).all() else _cast(column)]
    return [_cast(column)]


def _with_nulls(column: Any) -> Any:
    """Nothing where there is nothing, which is not the empty text."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    filled = column.fill_null("" if pa.types.is_large_string(column.type) else 0)
    return pc.if_else(column.is_valid(), _joined(_cells(filled)), pa.scalar("", _TEXT))


def _repeated(texts: pa.Array, codes: Any) -> Cell:
    numbers = _values(codes)
    if (numbers == numbers[0]).all():
        return str(texts[int(numbers[0])].as_py())
    return texts.take(codes)


def _floats(values: npt.NDArray[np.float64], to_text: Callable[[Any], Any]) -> Cell:
    """Numbers as text, each distinct one made once."""
    bits = np.ascontiguousarray(values).view(np.int64)
    if (bits == bits[0]).all():
        bits = bits[:1]
        return str(to_text(_array(bits.view(np.float64), pa.float64()))[0].as_py())
    found = _array(bits, pa.int64()).dictionary_encode()
    known = _values(found.dictionary).view(np.float64)
    return _repeated(to_text(_array(known, pa.float64())), found.indices)


def _as_python_does(numbers: Any) -> Any:
    return pa.array([repr(number.as_py()) for number in numbers], _TEXT)


def _cast(numbers: Any) -> Any:
    return numbers.cast(_TEXT)


def _array(values: npt.NDArray[Any], kind: pa.DataType) -> Any:
    # Not `pa.array`, which imports pandas.
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values)])


def _values(array: Any) -> npt.NDArray[Any]:
    """A view of numbers; there are no nulls."""
    width = np.dtype(array.type.to_pandas_dtype())
    return np.frombuffer(array.buffers()[1], width)[array.offset :][: len(array)]


def _quoted(text: str) -> str:
    doubled = text.replace('"', '""')
    return f'"{doubled}"'


def _written(text: Any) -> Any:
    """Text that no spreadsheet runs, as it stands between quotation marks.

    Whoever writes a file can write `=HYPERLINK(...)` into its attributes.
    """
    firsts, letters = _letters(text)
    if _BEGINS_FORMULA[firsts].any():  # hardly ever, and known in a tenth of the time
        text = pc.replace_substring_regex(text, _FORMULA, r"'\1")
    if (letters == ord('"')).any():
        text = pc.replace_substring(text, '"', '""')
    return text


def _letters(text: Any) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """(The first byte of each text that has one, all bytes)."""
    _, offsets, data = text.buffers()
    if data is None or not len(text):
        return np.zeros(0, np.uint8), np.zeros(0, np.uint8)
    ends = np.frombuffer(offsets, np.int64)[text.offset :][: len(text) + 1]
    letters = np.frombuffer(data, np.uint8)
    return letters[ends[:-1][ends[1:] > ends[:-1]]], letters[ends[0] : ends[-1]]
