"""Paths from a table in place of a listing: what a storage, `find` or an earlier scan wrote down; and parts of them."""

from __future__ import annotations

import math
import operator
import os
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from dicomtorch.errors import DicomTorchError, OptionError, SourceError, printable, without_path
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.index.joins import read_table
from dicomtorch.model.limits import Limits
from dicomtorch.scanner.archives import archive_entries
from dicomtorch.scanner.entries import UNREAD, Entry, _stat_entry
from dicomtorch.scanner.given import PathLike
from dicomtorch.scanner.listing import Listing

Part = tuple[int, int]
"""(k, n): the k-th of n parts, counted from 1."""

_KINDS: Final = {"path": pa.binary(), "size": pa.int64(), "mtime": pa.string()}
_NUMBER: Final = re.compile(r"(\d{1,11})(?:\.(\d*))?")
_UNITS: Final = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_SECOND: Final = 10**9
_END: Final = 1 << 63  # of the numbers that an index has
_OF_FLOATS: Final = 10**3  # nanoseconds that a float64 of seconds since 1970 tells apart


class Time(NamedTuple):
    """When a file was changed, as a table has it.

    Attributes:
        ns: Since 1970.
        step: How exact that is, in nanoseconds.
    """

    ns: int
    step: int


class Inventory:
    """The files that a table names, in the order of their paths.

    Args:
        table: As `inventory` of `scan`.
        source: The folder that paths are below; `None`: they are absolute.
        limits: What an archive may cost.
        index: An earlier scan, if there is one.

    Attributes:
        root: What all paths are below.
        storage: `None`: they are files of this machine.

    Raises:
        SourceError: It cannot be read, names nothing, or a path that is not below `source`.
        OptionError: A column is none that `scan` knows the meaning of.
    """

    storage = None

    def __init__(
        self, table: Any, source: PathLike | None, limits: Limits, index: FrameIndex | None
    ) -> None:
        self._limits = limits
        self._index = index
        columns = _columns(table)
        paths = [_absolute(path, source) for path in columns["path"]]
        if not paths:
            raise SourceError("the inventory names no file")
        order = sorted(range(len(paths)), key=paths.__getitem__)
        first, last = paths[order[0]], paths[order[-1]]
        self.root = _absolute(b".", source) if source is not None else _folder_of(first, last)
        below = os.path.join(self.root, b"")
        outside = next((path for path in (first, last) if not path.startswith(below)), None)
        if outside is not None:
            raise SourceError(
                f"the inventory names {printable(outside)}, which is not below {printable(self.root)}; name a folder "
                f"that all of its files are below, or none"
            )
        once = [
            k
            for k, before in zip(order, [-1, *order], strict=False)
            if before < 0 or paths[k] != paths[before]
        ]
        self._paths = [paths[k][len(below) :] for k in once]
        self._sizes: list[int | None] = [columns["size"][k] for k in once]
        self._times: list[Time | None] = [columns["mtime"][k] for k in once]

    def entries(self) -> Iterator[Entry]:
        """Every file and every member of an archive; no file but archives was looked at yet."""
        files = (Entry(path, 0, UNREAD, 0) for path in self._paths)
        return self._opened(files)

    def listing(self) -> Listing:
        """The same with what tells whether files are as they were in the index.

        Where the table has size and time they are believed; of other files, and of archives, the system is asked.
        """
        assert self._index is not None
        return Listing(self._opened(self._compared(self._index)))

    def _opened(self, files: Iterable[Entry]) -> Iterator[Entry]:
        """Files, with the members of an archive in its place."""
        for entry in files:
            absolute = os.path.join(self.root, entry.path)
            inside = archive_entries(absolute, entry.path, look=False, limits=self._limits)
            if inside is None:
                yield entry
            else:
                yield from inside

    def _compared(self, index: FrameIndex) -> Iterator[Entry]:
        files: Any = index.files
        known = {path: k for k, path in enumerate(files["path"])}
        identities = zip(
            *(np.asarray(files[name]).tolist() for name in ("mtime_ns", "inode")), strict=True
        )
        before = list(identities)
        for path, size, time in zip(self._paths, self._sizes, self._times, strict=True):
            if size is None or time is None:
                yield _stat_entry(path, os.path.join(self.root, path))
                continue
            time_ns, inode = before[known[path]] if path in known else (UNREAD, 0)
            is_same = 0 <= time_ns - time.ns < time.step
            yield Entry(path, size, time_ns, inode) if is_same else Entry(path, size, time.ns, 0)


def check_part(part: Any) -> Part:
    """A part that there is.

    Raises:
        OptionError: It is none.
    """
    try:
        k, n = map(operator.index, part)
    except (TypeError, ValueError):
        raise OptionError(
            f"part is (k, n), the k-th of n parts; got {type(part).__name__}"
        ) from None
    if not 1 <= k <= n:
        raise OptionError(f"part={part} is none; (1, {max(n, 1)}) is the first")
    return k, n


def of_part(entries: Iterable[Entry], part: Part) -> Iterator[Entry]:
    """Those of a part: which one a file is in depends on its path below the root alone.

    Raises:
        OptionError: There is no such part.
    """
    k, n = check_part(part)
    return (entry for entry in entries if _hash(entry.path) % n == k - 1)


def _hash(path: bytes) -> int:
    return int.from_bytes(blake2b(path, digest_size=8).digest())


def _columns(given: Any) -> dict[str, list[Any]]:
    """The columns of a table; size and mtime `None` where they are not known.

    Raises:
        SourceError: It cannot be read.
        OptionError: It has no paths, or a column cannot be understood.
    """
    table = _read(given)
    if "path" not in table.column_names:
        raise OptionError(
            f"the inventory has no column path among its {len(table.column_names)}; the first row of a CSV file names "
            f"its columns: path, and size, mtime where they are known"
        )
    for name in _KINDS:
        if table.column_names.count(name) > 1:
            raise OptionError(f"the inventory has {table.column_names.count(name)} columns {name}")
    paths = table.column("path").to_pylist()
    if not all(isinstance(path, str | bytes) and path for path in paths):
        raise OptionError("the inventory has rows without a path, or paths that are no text")
    nothing = [None] * len(paths)
    sizes = _sizes(table.column("size").to_pylist()) if "size" in table.column_names else nothing
    times = _times(table.column("mtime")) if "mtime" in table.column_names else nothing
    return {"path": list(map(os.fsencode, paths)), "size": sizes, "mtime": times}


def _sizes(values: list[Any]) -> list[int | None]:
    """Bytes; numbers of pandas are floats where one is missing."""
    sizes = [None if _is_missing(value) else value for value in values]
    for size in sizes:
        if size is not None and not (
            isinstance(size, int | float) and size == size // 1 and 0 <= size < _END
        ):
            raise OptionError("the inventory has sizes that are no whole numbers")
    return [None if size is None else int(size) for size in sizes]


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _read(given: Any) -> pa.Table:
    if not isinstance(given, str | bytes | os.PathLike):
        return read_table(given, ())
    path = os.fsdecode(given)
    try:
        if re.search(r"\.(parquet|pq)\Z", path, re.IGNORECASE):
            from pyarrow import parquet

            there = parquet.read_schema(path).names
            return parquet.read_table(path, columns=[name for name in _KINDS if name in there])
        if re.search(r"\.(arrow|feather)\Z", path, re.IGNORECASE):
            return _read_arrow(path)
        return _read_csv(path)
    except OSError as error:
        why = without_path(error)
        raise SourceError(
            f"the inventory {printable(path)} cannot be read ({getattr(why, 'strerror', why) or type(why).__name__})"
        ) from why
    except (pa.ArrowException, ValueError) as error:
        if isinstance(error, DicomTorchError):
            raise
        # Not the words of the other library, which has rows among them.
        raise SourceError(
            f"the inventory {printable(path)} cannot be read ({type(error).__name__}): it must be a Parquet or Arrow "
            f"file by that name, or CSV whose first row names the columns"
        ) from None


def _read_arrow(path: str) -> pa.Table:
    with pa.memory_map(path) as source:
        there = pa.ipc.open_file(source).schema.names
        wanted = [k for k, name in enumerate(there) if name in _KINDS]
        options = pa.ipc.IpcReadOptions(included_fields=wanted)
        table = pa.ipc.open_file(source, options=options).read_all()
        table.validate(full=True)  # offsets of a damaged file would lead anywhere
        return table


def _read_csv(path: str) -> pa.Table:
    from pyarrow import csv

    with csv.open_csv(path) as reader:
        there = [name for name in _KINDS if name in reader.schema.names]
    options = csv.ConvertOptions(
        column_types={name: _KINDS[name] for name in there},
        include_columns=there,
        null_values=[""],
        strings_can_be_null=True,
    )
    return csv.read_csv(path, convert_options=options)


def _absolute(path: bytes, source: PathLike | None) -> bytes:
    if not os.path.isabs(path):
        if source is None:
            raise SourceError(
                f"the inventory has the path {printable(path)}, which is not absolute; name the folder that its paths "
                f"are below as the source"
            )
        path = os.path.join(os.path.abspath(os.path.expanduser(os.fsencode(source))), path)
    return os.path.normpath(path)


def _folder_of(first: bytes, last: bytes) -> bytes:
    """The deepest folder that the first and the last of some sorted paths are below, and so all between."""
    return os.path.commonpath([os.path.dirname(first), os.path.dirname(last)])


def _times(column: pa.ChunkedArray) -> list[Time | None]:
    kind = column.type
    if pa.types.is_timestamp(kind):
        unit = _UNITS[kind.unit]
        numbers = column.cast(pa.int64()).to_pylist()
        times = [None if number is None else Time(number * unit, unit) for number in numbers]
    else:
        times = _times_of(column.to_pylist())
    if any(time is not None and not -_END <= time.ns < _END for time in times):
        raise OptionError(
            "the inventory has times that no file has: a number is seconds since 1970"
        )
    return times


def _times_of(values: list[Any]) -> list[Time | None]:
    try:
        return [None if _is_missing(value) else _time(value) for value in values]
    except (ValueError, TypeError, OverflowError):
        raise OptionError(
            "the inventory has times that are none: mtime is a timestamp, a number of seconds since 1970, or text like "
            "2026-01-31T12:00:00Z"
        ) from None


def _time(value: Any) -> Time:
    if isinstance(value, float):
        return Time(round(value * _SECOND) - _OF_FLOATS // 2, _OF_FLOATS)
    if isinstance(value, int):
        return Time(value * _SECOND, _SECOND)
    if number := _NUMBER.fullmatch(value):
        digits = (number[2] or "")[:9]
        return Time(int(number[1] + digits.ljust(9, "0")), 10 ** (9 - len(digits)))
    moment = datetime.fromisoformat(value)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    seconds = round(
        (moment.replace(microsecond=0) - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()
    )
    digits = re.search(r"[.,](\d{1,6})", value)
    step = 10 ** (9 - len(digits[1])) if digits else _SECOND
    return Time(seconds * _SECOND + moment.microsecond * 1000, step)
