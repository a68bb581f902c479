"""From files to tables: the rows of some files as columns, and several such parts as one.

Columns are filled as a whole: what files share is written once per group of files, not once per file.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from dicomtorch.errors import OptionError
from dicomtorch.index import columns as tables
from dicomtorch.index.columns import ColumnData, Table
from dicomtorch.index.merging import alike, concatenate_tables, shrunk
from dicomtorch.model.frame import LookupTable, RealWorldValueMap
from dicomtorch.model.report import FILE_CLASSES, FileClass
from dicomtorch.model.schema import FILES, LOOKUPS, LUT_COLUMNS, Column

_NUMBERED: Final = frozenset({"file", "patient", "image_pixel", "frame_values"})
_CHUNK: Final = 1 << 14  # rows kept as Python objects while a table is built


class Member(NamedTuple):
    """A member of an archive; the defaults stand for a file that is in none.

    Attributes:
        container: Position in `schema.CONTAINERS`.
        name: In the archive, for people.
        offset: Of its first byte in the archive.
        length: Bytes in the archive.
        size: Bytes when inflated.
        crc: CRC-32 of these; -1: not known.
    """

    container: int = 0
    name: str = ""
    offset: int = -1
    length: int = -1
    size: int = -1
    crc: int = -1


NO_MEMBER: Final = Member()

_Lookup = LookupTable | RealWorldValueMap
_LookupRow = tuple[Any, ...]
_Given = tuple[list[int], dict[str, tuple[Any, ...]]]


@dataclass(slots=True)
class FileRows:
    """What a scan learned of one file.

    Attributes:
        path: Below the root, as the file system has it.
        size: Bytes.
        mtime_ns: Time of the last change.
        inode: Inode number, which tells a replaced file of the same size and time.
        file_class: One of `report.FILE_CLASSES`.
        reason: Why it has no frames, or "".
        notices: What was odd, "; " between two.
        deflated: Whether the data set is deflated, so that spans are offsets into the inflated bytes.
        claimed_frames: NumberOfFrames in the header, -1 if absent.
        mask_object: A `MaskObject` as bytes, or b"".
        found_frames: Frames that the pixel data hold, -1 if nobody looked.
        count: Frames that become rows.
        columns: Name of a column -> one value for all frames, or a list or array of `count`. What is absent is
            missing. `file`, `patient`, `image_pixel` and `frame_values` are numbered here.
        shared: The same for what is not in `columns`, one value each; the same object for files that share it.
        lookups: What the `*_lut`, `palette` and `real_world_value_map` columns number.
        version: What the store says tells this version of an object from others.
        member: Where in an archive it is.
    """

    path: bytes
    size: int
    mtime_ns: int
    inode: int
    file_class: FileClass
    reason: str = ""
    notices: str = ""
    deflated: bool = False
    claimed_frames: int = -1
    mask_object: bytes = b""
    found_frames: int = -1
    count: int = 0
    columns: dict[str, Any] = field(default_factory=dict)
    shared: dict[str, Any] = field(default_factory=dict)
    lookups: list[_Lookup] = field(default_factory=list)
    version: str = ""
    member: Member = NO_MEMBER


def part_columns(columns: Sequence[Column]) -> list[Column]:
    """Those of the columns of a frames table that a `Part` has, in its order."""
    return [c for c in columns if c.name not in _NUMBERED or c.name == "file"]


@dataclass(slots=True)
class Part:
    """The rows of some files.

    Attributes:
        frames: Columns of the frames table but for the numbered ones; `file` counts from 0.
        files: The files table.
        lookups: The lookup table.
        groups: Lookups of which one file has all, in order: how many there are in each such group.
    """

    frames: Table
    files: Table
    lookups: Table
    groups: list[int]

    def shrunk(self) -> Part:
        """The same, without the copies of what is alike in all rows: while others are read, parts wait."""
        tables = (self.frames, self.files)
        frames, files = ({name: shrunk(data) for name, data in table.items()} for table in tables)
        return Part(frames, files, self.lookups, self.groups)


class PartBuilder:
    """Takes files one by one.

    Args:
        columns: Of the frames table.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = [c for c in columns if c.name not in _NUMBERED]
        self._chunks: list[Table] = []
        self._file_rows: list[tuple[Any, ...]] = []
        self._file_chunks: list[Table] = []
        self._counts: list[int] = []
        self._groups: dict[tuple[_LookupRow, ...], int] = {}
        self._lookups: list[_LookupRow] = []
        self._total = 0
        self._begin()

    def _begin(self) -> None:
        self._shared: dict[tuple[int, int], tuple[int, dict[str, Any], int]] = {}
        self._shared_of_row: list[int] = []
        # Names of columns -> (rows, their values), for the files that give these columns themselves.
        self._given: dict[tuple[str, ...], tuple[list[int], list[tuple[Any, ...]]]] = {}

    def add(self, item: FileRows) -> None:
        """Takes one more file.

        Raises:
            OptionError: A column does not have one value for each frame.
        """
        count = item.count
        self._counts.append(count)
        self._file_rows.append(
            (
                item.path,
                item.size,
                item.mtime_ns,
                item.inode,
                item.version,
                *item.member,
                int(item.deflated),
                FILE_CLASSES.index(item.file_class),
                item.reason,
                item.notices,
                self._total if count else -1,
                count,
                item.claimed_frames,
                item.mask_object,
                item.found_frames,
            )
        )
        if count:
            self._total += count
            self._add_frames(item, count)
        if len(self._shared_of_row) >= _CHUNK or len(self._file_rows) >= _CHUNK:
            self._flush()

    def _add_frames(self, item: FileRows, count: int) -> None:
        first = self._first_lookup(item.lookups) if item.lookups else 0
        key = (id(item.shared), first)
        shared = self._shared.get(key)
        if shared is None:
            # The dictionary is kept, so that no other one gets its id.
            shared = self._shared[key] = (len(self._shared), item.shared, first)
        start = len(self._shared_of_row)
        names = tuple(item.columns)
        given = self._given.get(names)
        if given is None:
            given = self._given[names] = [], []
        if item.shared and count == 1:
            given[0].append(start)
            given[1].append(tuple(item.columns.values()))
            self._shared_of_row.append(shared[0])
            return
        given[0].extend(range(start, start + count))
        given[1].extend(zip(*self._expanded(item, first), strict=True))
        self._shared_of_row.extend([shared[0]] * count)

    def _expanded(self, item: FileRows, first: int) -> Iterator[list[Any]]:
        """The columns of a file with one value for each frame."""
        for name, value in item.columns.items():
            if isinstance(value, np.ndarray):
                value = value.tolist()
            if name in LUT_COLUMNS:
                value = _shifted(value, first)
            # A tuple is one value of several numbers; lists and arrays have one value per frame.
            if not isinstance(value, list):
                value = [value] * item.count
            if len(value) != item.count:
                raise OptionError(f"column {name} has {len(value)} values for {item.count} frames")
            yield value

    def _first_lookup(self, lookups: Sequence[_Lookup]) -> int:
        """Where these are in the table; what several files have is there once."""
        rows = tuple(map(_lookup_row, lookups))
        first = self._groups.setdefault(rows, len(self._lookups))
        if first == len(self._lookups):
            self._lookups.extend(rows)
        return first

    def _flush(self) -> None:
        """Turns what was collected into columns."""
        if self._shared_of_row:
            shared = np.array(self._shared_of_row, np.int32)
            given = [
                (rows, dict(zip(names, zip(*values, strict=True), strict=True)))
                for names, (rows, values) in self._given.items()
            ]
            self._chunks.append({c.name: self._column(c, shared, given) for c in self._columns})
        self._file_chunks.append(
            {
                column.name: tables.make_column(column, [row[k] for row in self._file_rows])
                for k, column in enumerate(FILES)
            }
        )
        self._file_rows = []
        self._begin()

    def _column(
        self, column: Column, shared: npt.NDArray[np.int32], given: list[_Given]
    ) -> ColumnData:
        name = column.name
        given = [part for part in given if name in part[1]]
        if len(given) == 1 and len(given[0][0]) == len(shared):
            return tables.make_column(column, given[0][1][name])
        missing = column.missing
        bases = []
        for _, columns, first in self._shared.values():
            value = columns.get(name, missing)
            bases.append(_shifted(value, first) if name in LUT_COLUMNS else value)
        if not given:
            made = tables.make_column(column, bases)
            if len(bases) == 1:
                return alike(made, len(shared))
            return tables.take({name: made}, shared)[name]
        values = [bases[number] for number in self._shared_of_row]
        for rows, columns in given:
            for row, value in zip(rows, columns[name], strict=True):
                values[row] = value
        return tables.make_column(column, values)

    def finish(self) -> Part:
        """The tables of all files taken."""
        if self._file_rows or not self._file_chunks:
            self._flush()
        if not self._chunks:
            self._chunks.append({c.name: tables.make_column(c, []) for c in self._columns})
        frames = concatenate_tables(self._chunks)
        counts = np.array(self._counts, np.int64)
        frames["file"] = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        groups = [len(rows) for rows in self._groups]
        lookups = _lookup_table(self._lookups)
        return Part(frames, concatenate_tables(self._file_chunks), lookups, groups)


def _shifted(value: Any, by: int) -> Any:
    if isinstance(value, list):
        return [-1 if number < 0 else number + by for number in value]
    return -1 if value < 0 else value + by


def _lookup_row(lookup: _Lookup) -> _LookupRow:
    if isinstance(lookup, LookupTable):
        last = lookup.first_mapped + len(lookup.data) - 1
        data = lookup.data.astype("<u2").tobytes()
        return ("lut", lookup.first_mapped, last, lookup.bits, math.nan, math.nan, "", data)
    data = b"" if lookup.data is None else lookup.data.astype("<f8").tobytes()
    return (
        "real_world_value_map",
        lookup.first,
        lookup.last,
        -1,
        lookup.slope,
        lookup.intercept,
        lookup.units,
        data,
    )


def build_part(files: Iterable[FileRows], columns: Sequence[Column]) -> Part:
    """The tables of `files`, in the order given."""
    builder = PartBuilder(columns)
    for item in files:
        builder.add(item)
    return builder.finish()


def merge_parts(parts: Sequence[Part]) -> Part:
    """Parts one after the other as one; lookups that several have are there once."""
    if len(parts) == 1:
        return parts[0]
    groups: dict[Any, int] = {}
    lookups: list[_LookupRow] = []
    all_frames: list[Table] = []
    all_files: list[Table] = []
    rows = numbers = 0
    for part in parts:
        frames, files = dict(part.frames), dict(part.files)
        _shift(files, "first_row", rows)
        frames["file"] = np.asarray(frames["file"]) + np.int32(numbers)
        if part.groups:
            moved = _merge_lookups(part, groups, lookups)
            for name in LUT_COLUMNS:
                old = np.asarray(frames[name])
                frames[name] = np.where(old < 0, old, moved[old]).astype(np.int32)
        rows += len(frames["file"])
        numbers += len(files["size"])
        all_frames.append(frames)
        all_files.append(files)
    return Part(
        concatenate_tables(all_frames),
        concatenate_tables(all_files),
        _lookup_table(lookups),
        list(map(len, groups)),
    )


def _merge_lookups(
    part: Part, groups: dict[Any, int], lookups: list[_LookupRow]
) -> npt.NDArray[np.int32]:
    """Adds the lookups of a part that are not there yet; row of its table -> row of the merged one."""
    columns: list[Any] = [part.lookups[column.name] for column in LOOKUPS]
    moved = np.empty(len(part.lookups["bits"]), np.int32)
    at = 0
    for size in part.groups:
        group = [tuple(column[k] for column in columns) for k in range(at, at + size)]
        # nan differs from nan
        key = tuple(tuple(None if value != value else value for value in row) for row in group)
        first = groups.setdefault(key, len(lookups))
        if first == len(lookups):
            lookups.extend(group)
        moved[at : at + size] = np.arange(first, first + size)
        at += size
    return moved


def _lookup_table(rows: Sequence[_LookupRow]) -> Table:
    return {
        column.name: tables.make_column(column, [row[k] for row in rows])
        for k, column in enumerate(LOOKUPS)
    }


def _shift(table: Table, name: str, by: int) -> None:
    column = np.asarray(table[name])
    table[name] = np.where(column < 0, column, column + by).astype(column.dtype)
