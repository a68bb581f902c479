"""Tables of labels beside an index: read from what users have, matched by key.

A joined table is kept once; frames refer to its rows by number, so that a label per patient costs four bytes a frame.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dicomtorch.errors import DicomTorchError, OptionError, format_count, have, without_path
from dicomtorch.index import columns as tables
from dicomtorch.index.codes import firsts, numbered
from dicomtorch.index.columns import HasColumns, Table, Texts
from dicomtorch.index.file_keys import (
    FILE_KEYS,
    HasFiles,
    file_key,
    given_keys,
    other_file_key,
    path_for,
)
from dicomtorch.index.merging import concatenate_tables
from dicomtorch.model.schema import Column, Kind

Key = Texts | npt.NDArray[Any]

RESERVED = frozenset({"index", "requested_index", "voi", "resized", "path"})
"""Names that samples or exported tables use for something else."""


class Joined(NamedTuple):
    """A table joined to an index.

    Attributes:
        rows: (len(index),) int32, the row of `table` for each position.
        columns: Of `table`.
        table: Its rows; one of them may be all missing values, for the frames without a match.
    """

    rows: npt.NDArray[np.int32]
    columns: tuple[Column, ...]
    table: Table

    def select(self, positions: npt.NDArray[np.int64]) -> Joined:
        """For some of the positions."""
        return self._replace(rows=self.rows[positions])


class Match(NamedTuple):
    """How a join went.

    Attributes:
        joined: The table beside the index.
        frames: Frames without a row.
        unused: Rows of the table without a frame.
        keyless: Rows of the table whose key is empty.
        matched: (frames,), whether each has a row.
    """

    joined: Joined
    frames: int
    unused: int
    keyless: int
    matched: npt.NDArray[np.bool_]


On = str | Sequence[str] | Mapping[str, str]
"""The keys of a join: columns of both, or columns of the table and what they are in the index."""


def join(index: HasFiles, table: Any, on: On, taken: Sequence[str]) -> Joined:
    """A table beside an index; a warning says how many frames and how many rows have no match.

    Args:
        index: The frames.
        table: What `read_table` takes.
        on: The keys.
        taken: Names that other columns of the table must not have.

    Raises:
        OptionError: A key is there twice or is no key, no row matches, or names clash.
    """
    names = [on] if isinstance(on, str) else list(on)
    if not names:
        raise OptionError("on= names no key; name a column, as in on='SOPInstanceUID'")
    meant = {name: on[name] if isinstance(on, Mapping) else name for name in names}
    keys = {
        name: file_key(index, key) if key in FILE_KEYS else key_column(index, key)
        for name, key in meant.items()
    }
    if "PatientID" in meant.values() and "IssuerOfPatientID" not in meant.values():
        _refuse_ambiguous_patients(index)
    found = match(index, keys, meant, read_table(table, names), taken)
    if FILE_KEYS.keys() & set(meant.values()) - {"path"}:
        _refuse_ambiguous_files(index, keys, found)
    _say(found, names, len(index))
    return found.joined


def _say(found: Match, names: Sequence[str], frames: int) -> None:
    """Warns of frames and rows without a match."""
    said = [
        (found.frames, f"{have(found.frames, 'frame', frames)} no row in the table"),
        (found.unused, f"{have(found.unused, 'table row')} no frame"),
        (found.keyless, f"{have(found.keyless, 'table row')} no key"),
    ]
    if not any(count for count, _ in said):
        return
    text = ", ".join(text for count, text in said if count)
    if found.frames:
        column = found.joined.columns[0]
        text += (
            f"; without a row, {column.name} is {column.missing!r}: leave such frames out, "
            f"{example_filter(column.name, found.joined.table[column.name])}"
        )
    warnings.warn(f"join on {', '.join(names)}: {text}", stacklevel=4)


def example_filter(name: str, data: Any) -> str:
    """How frames whose value in a column is known are kept, in code."""
    return f"as in index.filter({name}={['a', 'b'] if isinstance(data, Texts) else [0, 1]})"


def _refuse_ambiguous_files(index: HasFiles, keys: Mapping[str, Key], found: Match) -> None:
    """Two images may be called the same in two folders; a row for one of them is not one for the other."""
    codes = numbered(keys.values(), len(index))[found.matched]
    pairs = numbered([codes, np.asarray(index.column("file"))[found.matched]], len(codes))
    files = np.bincount(codes[firsts(pairs)])
    if (files > 1).any():
        several = int((files > 1).sum())
        raise OptionError(
            f"{format_count(several, 'key')} ({', '.join(keys)}) of the table {'is' if several == 1 else 'are'} the "
            f"name of several files, up to {int(files.max())}, so that it is unclear which is meant; give the table "
            f'paths and join on "path", or add a key'
        )


def key_column(index: HasColumns, name: str) -> Key:
    """A column that can be a key, of a join or of groups.

    Raises:
        OptionError: There is no such column, or it is neither text nor whole numbers.
    """
    data: Key = index.column(name)
    if not isinstance(data, Texts) and (data.ndim > 1 or data.dtype.kind != "i"):
        raise OptionError(f"{name} cannot be a key: it is neither text nor whole numbers")
    return data


def _refuse_ambiguous_patients(index: HasColumns) -> None:
    patients, issuers = index.column("PatientID"), index.column("IssuerOfPatientID")
    pairs = np.unique(np.stack([patients.codes, issuers.codes]), axis=1)
    codes, counts = np.unique(pairs[0], return_counts=True)
    shared = codes[(counts > 1) & (codes != patients.code(""))]
    if len(shared):
        raise OptionError(
            f"{format_count(len(shared), 'PatientID')} {'comes' if len(shared) == 1 else 'come'} from several "
            f"issuers and may be different people; join on "
            f'["PatientID", "IssuerOfPatientID"]'
        )


def read_table(table: Any, on: Sequence[str]) -> pa.Table:
    """An Arrow table of a CSV file, a pandas DataFrame, a dict of lists, or an Arrow table.

    Args:
        table: What there is. The key columns of a CSV file are read as text, because "0012" is no number; nothing,
            NA, N/A, NaN and null in it are missing values, as pandas has it.
        on: The key columns.

    Raises:
        OptionError: It is none of these, or lacks a key column.
    """
    try:
        if isinstance(table, str | os.PathLike):
            result = _read_csv(table, on)
        elif isinstance(table, pa.Table):
            result = table
        elif isinstance(table, pa.RecordBatch):
            result = pa.Table.from_batches([table])
        elif isinstance(table, Mapping):
            result = pa.table(dict(table))
        elif hasattr(table, "iloc") and hasattr(table, "columns"):
            # An index with a name is a column to those who use pandas.
            named = any(name is not None for name in table.index.names)
            result = pa.Table.from_pandas(
                table.reset_index() if named else table, preserve_index=False
            )
        else:
            raise OptionError(
                f"join takes a pandas DataFrame, an Arrow table, a dict of lists or the path of a CSV file; "
                f"got {type(table).__name__}"
            )
    except OSError as error:
        why = without_path(error)  # that of Arrow has the path among its words
        said = os.strerror(error.errno) if error.errno else getattr(why, "strerror", why) or why
        raise OptionError(
            f"the table cannot be read: {said}; join takes the path of a CSV file, or a table that is in memory"
        ) from why
    except (pa.ArrowException, ValueError, TypeError) as error:
        if isinstance(error, DicomTorchError):
            raise
        # Not the message of the other library: it quotes rows, and rows hold identifiers.
        where = re.search(r"(Row #\d+: )?Expected \d+ columns, got \d+", str(error))
        detail = where[0] if where else type(error).__name__
        raise OptionError(
            f"the table cannot be read ({detail}); columns need one type each"
        ) from None
    absent = [name for name in on if name not in result.column_names]
    if absent:
        raise OptionError(
            f"the table has no column {', '.join(absent)}; it has {', '.join(result.column_names)}. Name the "
            f"key columns as the index does"
        )
    return result


def _read_csv(path: str | os.PathLike[str], on: Sequence[str]) -> pa.Table:
    from pyarrow import csv

    text = {name: pa.string() for name in on}
    options = csv.ConvertOptions(column_types=text, strings_can_be_null=True)
    return csv.read_csv(os.fspath(path), convert_options=options)


def match(
    index: HasFiles,
    keys: Mapping[str, Key],
    meant: Mapping[str, str],
    read: pa.Table,
    taken: Sequence[str],
) -> Match:
    """Finds the row of a table for every frame.

    Args:
        index: The frames.
        keys: The key columns of the index, over its positions.
        meant: What each is in the index.
        read: What `read_table` gave.
        taken: Names that its other columns must not have.

    Raises:
        OptionError: A key is there twice, no row matches any frame, or a column cannot be kept.
    """
    on = list(keys)
    given = read
    for name, kind in meant.items():
        if kind in FILE_KEYS:
            column = given_keys(index, kind, given.column(name))
            given = given.set_column(given.column_names.index(name), name, column)
    names = [name for name in given.column_names if name not in on]
    _check_names(names, taken)
    refuse_repeated(given, on)
    left, right = _numbered(keys, given)
    present = np.flatnonzero(right >= 0)
    unique, counts = np.unique(right[present], return_counts=True)
    if (counts > 1).any():
        repeated = int((counts > 1).sum())
        raise OptionError(
            f"{format_count(repeated, 'key')} ({', '.join(on)}) {'is' if repeated == 1 else 'are'} in the table more "
            f"than once, up to {int(counts.max())} times, so that it is unclear which row is meant; keep one row a "
            f"key, or add a key column{path_for(meant)}"
        )
    at = np.searchsorted(unique, left)
    at[at == len(unique)] = 0
    found = (left >= 0) & (unique[at] == left) if len(unique) else np.zeros(len(left), np.bool_)
    if len(left) and not found.any():
        raise OptionError(_why_none(keys, given) + other_file_key(index, meant, read))
    order = present[np.argsort(right[present], kind="stable")]
    used, rows = np.unique(np.where(found, order[at] if len(order) else 0, -1), return_inverse=True)
    taken_rows = used[used >= 0]
    missing = bool(len(used)) and used[0] < 0
    columns, table = [], {}
    for name in names:
        column, data = to_column(name, given.column(name).take(pa.array(taken_rows)))
        columns.append(column)
        none = tables.make_column(column, [column.missing])
        table[name] = concatenate_tables([{name: none}, {name: data}])[name] if missing else data
    return Match(
        joined=Joined(rows.astype(np.int32), tuple(columns), table),
        frames=int((~found).sum()),
        unused=len(present) - len(taken_rows),
        keyless=given.num_rows - len(present),
        matched=found,
    )


def refuse_repeated(given: pa.Table, names: Sequence[str]) -> None:
    """Arrow knows columns of one name, and cannot say which is meant.

    Raises:
        OptionError: The table has one of `names` more than once.
    """
    for name in names:
        if given.column_names.count(name) > 1:
            raise OptionError(f"the table has several columns {name!r}; leave one")


def _check_names(names: Sequence[str], taken: Sequence[str]) -> None:
    if not names:
        raise OptionError("the table has no column beside its keys, so there is nothing to join")
    for name in names:
        if name in taken or name in RESERVED or names.count(name) > 1:
            raise OptionError(
                f"the table's column {name!r} has the name of another column; rename it, as in "
                f"{'label' if name == 'index' else f'label_{name}'!r}"
            )


def _numbered(
    keys: Mapping[str, Key], given: pa.Table
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The same number for equal keys, for the frames and for the rows of the table; -1 where there can be no match."""
    left: npt.NDArray[np.int64] | None = None
    right = np.zeros(0, np.int64)
    for name, key in keys.items():
        mine, its = _one_key(name, key, given.column(name))
        if left is None:
            left, right = mine, its
            continue
        # Densely numbered again after every column, so that the products stay small.
        step = int(its.max(initial=0)) + 1
        both = np.concatenate([_pairs(left, mine, step), _pairs(right, its, step)])
        known, dense = np.unique(both, return_inverse=True)
        dense = dense - int(len(known) > 0 and known[0] < 0)
        left, right = dense[: len(left)], dense[len(left) :]
    assert left is not None
    return left, right


def _pairs(a: npt.NDArray[Any], b: npt.NDArray[Any], step: int) -> npt.NDArray[np.int64]:
    return np.where((a < 0) | (b < 0), -1, a * step + b)


def _one_key(
    name: str, key: Key, column: pa.ChunkedArray
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    if isinstance(key, Texts):
        wanted = _text_keys(name, column)
        mine = tables.large_strings(key.values)
    else:
        wanted = _integer_keys(name, column)
        mine = pa.array(np.asarray(key, np.int64))
    distinct = wanted.drop_null().unique()
    its = _indices(wanted, distinct)
    found = _indices(mine, distinct)
    return (found[key.codes] if len(found) else found) if isinstance(key, Texts) else found, its


def _indices(values: pa.Array, among: pa.Array) -> npt.NDArray[np.int64]:
    found = pc.index_in(values, value_set=among).fill_null(-1)
    return np.asarray(found.to_numpy(zero_copy_only=False), np.int64)


def _text_keys(name: str, column: pa.ChunkedArray) -> pa.Array:
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    if pa.types.is_null(kind):
        column = column.cast(pa.large_string())
    elif pa.types.is_floating(kind):
        raise OptionError(
            f"the key {name} is text in the index and {kind} in the table; read it as text, as in "
            f'pandas.read_csv(..., dtype={{"{name}": str}})'
        )
    elif not (
        pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)
    ):
        raise OptionError(
            f"the key {name} is text in the index and {kind} in the table; make it text"
        )
    text = column.cast(pa.large_string()).combine_chunks()
    text = pc.utf8_trim_whitespace(text)
    return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.large_string()), text)


def _integer_keys(name: str, column: pa.ChunkedArray) -> pa.Array:
    try:
        return column.cast(pa.int64()).combine_chunks()
    except pa.ArrowException as error:
        raise OptionError(
            f"the key {name} is a whole number in the index and {column.type} in the table; make it int64"
        ) from error


def _why_none(keys: Mapping[str, Key], given: pa.Table) -> str:
    """No values: keys are identifiers."""
    parts = []
    for name, key in keys.items():
        if isinstance(key, Texts):
            used = np.unique(key.codes)
            mine = np.diff(key.values.offsets)[used]
            its = pc.utf8_length(_text_keys(name, given.column(name))).drop_null()
            its = np.asarray(its.to_numpy(zero_copy_only=False))
            lengths = [f"{a.min()} to {a.max()}" if len(a) else "no" for a in (mine, its)]
            parts.append(
                f"{name} has {lengths[0]} characters in the index, {lengths[1]} in the table"
            )
    detail = f" ({'; '.join(parts)})" if parts else ""
    return f"no row of the table has the {', '.join(keys)} of any frame{detail}"


def to_column(name: str, column: pa.ChunkedArray) -> tuple[Column, Any]:
    """A column of the table in one of the kinds of an index.

    Raises:
        OptionError: It holds something that an index does not.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    target: Kind
    try:
        if pa.types.is_boolean(kind) or pa.types.is_integer(kind):
            target, numbers = "int64", column.cast(pa.int64()).fill_null(-1)
        elif pa.types.is_floating(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind):
            target, numbers = "float64", column.cast(pa.float64()).fill_null(float("nan"))
        elif (
            pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_temporal(kind)
        ):
            text = column.cast(pa.large_string()).fill_null("").to_pylist()
            return Column(name, "text"), Texts.of(text)
        else:
            raise OptionError(
                f"the table's column {name!r} holds {kind}; join takes numbers, truth values, text and times"
            )
    except pa.ArrowException as error:
        raise OptionError(
            f"the table's column {name!r} ({kind}) has values outside int64 and float64"
        ) from error
    array = numbers.combine_chunks() if isinstance(numbers, pa.ChunkedArray) else numbers
    return Column(name, target), np.array(array.to_numpy(zero_copy_only=False))
