"""Rows of tables put together column by column: one pass over each; what is the same throughout is not written out.

A column with one value is an array of stride 0, here as in what is mapped from a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dicomtorch.index.columns import ColumnData, Packed, Table, Texts, large_binaries

Numbers = npt.NDArray[Any]
Rows = npt.NDArray[np.int64]

_FEW_BYTES = 1 << 16
_NONE, _FIRST = np.zeros(1, np.int64), np.zeros(1, np.int32)


def is_repeated(values: Numbers) -> bool:
    """Whether it is one value that takes the memory of one."""
    return len(values) > 0 and values.strides[0] == 0


def repeated(value: Numbers, count: int) -> Numbers:
    """One row, (1, ...), as `count` rows that take no memory."""
    one = np.array(value[:1])
    one.flags.writeable = False
    # Several times faster than `np.broadcast_to`, and a scan has a hundred of them for each part.
    return np.ndarray((count, *one.shape[1:]), one.dtype, one, strides=(0, *one.strides[1:]))


def alike(data: ColumnData, count: int) -> ColumnData:
    """A column of `count` rows, each the one row of another."""
    if isinstance(data, np.ndarray):
        return repeated(data, count)
    if isinstance(data, Texts):
        return Texts(repeated(data.codes, count), data.values)
    return data.take(np.zeros(count, np.int64)) if len(data.data) else _empty(count)


def shrunk(data: ColumnData) -> ColumnData:
    """The column without the copies of its one value, if it has but one."""
    if isinstance(data, np.ndarray):  # first, because the others are asked in Python
        return _shrunk(data)
    if isinstance(data, Texts):
        return Texts(_shrunk(data.codes), data.values)
    if not len(data) or is_repeated(data.offsets) or data.offsets[-1] != data.offsets[0]:
        return data
    return _empty(len(data))


def _empty(count: int) -> Packed:
    return Packed(repeated(_NONE, count + 1), np.zeros(0, np.uint8))


def _shrunk(values: Numbers) -> Numbers:
    if not len(values) or is_repeated(values) or not _all_are(values, values):
        return values
    return repeated(values, len(values))


def _all_are(values: Numbers, value: Numbers) -> bool:
    """Whether all rows are the first of `value`, bit by bit: nan is nan, and 0.0 is not -0.0."""
    if not len(values):
        return True
    if values is value and values.nbytes <= _FEW_BYTES and values.flags.c_contiguous:
        raw = values.tobytes()
        row = len(raw) // len(values)
        return (
            raw[row:] == raw[:-row]
        )  # at once, where views of arrays take longer than their bytes
    one = np.ascontiguousarray(value[:1]).view(f"u{values.itemsize}")
    if is_repeated(values):
        values = values[:1]
    bits = np.ascontiguousarray(values).view(f"u{values.itemsize}")
    return bool((bits[-1] == one[0]).all()) and bool((bits == one).all())


def concatenate(parts: Sequence[Any]) -> ColumnData:
    """Columns of one kind, one after the other; texts that several have become one, those that no row has go."""
    if len(parts) == 1:
        return parts[0]  # type: ignore[no-any-return]
    if isinstance(parts[0], Texts):
        return _one_text(parts) or _concatenated_texts([part.compact() for part in parts])
    if isinstance(parts[0], Packed):
        if all(part.offsets[-1] == part.offsets[0] for part in parts):
            return _empty(sum(map(len, parts)))
        return Packed.concatenate(parts)
    return _concatenated(parts)


def _concatenated(parts: Sequence[Numbers]) -> Numbers:
    filled = [part for part in parts if len(part)]
    if filled and all(map(is_repeated, filled)):
        ones = np.concatenate([part[:1] for part in filled])
        if _all_are(ones, ones):
            return repeated(ones, sum(map(len, filled)))
    return np.concatenate(parts)


def _one_text(parts: Sequence[Texts]) -> Texts | None:
    """Texts that are the same throughout, as most of a scan are; `None` if they are not, or there are none."""
    filled = [part for part in parts if len(part)]
    if not filled or not all(is_repeated(part.codes) for part in filled):
        return None
    values = {part.values[int(part.codes[0])] for part in filled}
    if len(values) > 1:
        return None
    return Texts(repeated(_FIRST, sum(map(len, filled))), Packed.of(values))


def _concatenated_texts(parts: Sequence[Texts]) -> Texts:
    codes, values = _distinct(Packed.concatenate([part.values for part in parts]))
    ends = np.cumsum([len(part.values) for part in parts])
    mapped = []
    for part, end in zip(parts, ends.tolist(), strict=True):
        mine = codes[end - len(part.values) : end]
        is_one = is_repeated(part.codes)
        mapped.append(repeated(mine[part.codes[:1]], len(part)) if is_one else mine[part.codes])
    return Texts(_concatenated(mapped), values)


def _distinct(values: Packed) -> tuple[npt.NDArray[np.int32], Packed]:
    """(the number of each value, the values once each, in the order in which they come first)."""
    if not len(values):
        return np.zeros(0, np.int32), values
    encoded = pc.dictionary_encode(large_binaries(values))
    if isinstance(encoded, pa.ChunkedArray):  # pragma: no cover
        encoded = encoded.combine_chunks()
    codes = np.asarray(encoded.indices).astype(np.int32, copy=False)
    if len(encoded.dictionary) == len(values):
        return codes, values
    first = np.full(len(encoded.dictionary), len(values))
    np.minimum.at(first, codes, np.arange(len(values)))
    return codes, values.take(first)


def concatenate_tables(parts: Sequence[Table]) -> Table:
    """Tables with the same columns, one after the other."""
    return {name: concatenate([part[name] for part in parts]) for name in parts[0]}


def none_of(table: Table) -> Table:
    """A table with the same columns and no rows."""
    return {
        name: _empty(0) if isinstance(data, Packed) else data[:0] for name, data in table.items()
    }


class Picked:
    """Which rows of two tables make a third one.

    Args:
        first: How many rows the first table has.
        rows: Rows of the first table, and, counted on from its end, of the second.
    """

    def __init__(self, first: int, rows: Rows) -> None:
        self._rows, self._first, self._count = rows, first, len(rows)
        is_first = rows < first
        self._own = None if is_first.all() else np.flatnonzero(is_first)
        self._other = np.flatnonzero(~is_first)
        self._from_first = rows if self._own is None else rows[self._own]
        self._from_second = rows[self._other] - first

    def of(self, first: Table, second: Table) -> Table:
        """The rows of every column; both tables have the same."""
        return {name: self._column(data, second[name]) for name, data in first.items()}

    def _column(self, first: Any, second: Any) -> ColumnData:
        if isinstance(first, Texts):
            return self._texts(first, second)
        if isinstance(first, Packed):
            both = concatenate([first, second])
            assert isinstance(both, Packed)
            return _empty(self._count) if not len(both.data) else both.take(self._rows)
        return self._numbers(first, second)

    def _numbers(self, first: Numbers, second: Numbers) -> Numbers:
        if self._own is None:
            return repeated(first, self._count) if is_repeated(first) else first[self._rows]
        there = second[self._from_second]
        if is_repeated(first) and _all_are(there, first):
            return repeated(first, self._count)
        picked = np.empty((self._count, *first.shape[1:]), first.dtype)
        picked[self._own] = first[self._from_first]
        picked[self._other] = there
        return picked

    def _texts(self, first: Texts, second: Texts) -> Texts:
        known, news = first.values, second.values
        if not len(self._other):
            return Texts(self._numbers(first.codes, second.codes), known).compact()
        found = pc.index_in(large_binaries(news), value_set=large_binaries(known))
        mapping = np.asarray(found.fill_null(-1)).astype(np.int32)
        new = np.flatnonzero(mapping < 0)
        mapping[new] = len(known) + np.arange(len(new), dtype=np.int32)
        values = Packed.concatenate([known, news.take(new)]) if len(new) else known
        codes = self._numbers(first.codes, mapping[second.codes])
        return Texts(codes, values).compact()
