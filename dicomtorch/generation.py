"""One scan as three immutable tables, made from what was learned of each file."""

from __future__ import annotations

import math
import uuid as uuids
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dicomtorch import columns as tables
from dicomtorch.attributes import (
    FILE_CLASSES,
    FileClass,
    LookupTable,
    RealWorldValueMap,
)
from dicomtorch.columns import ColumnData, Table, Texts
from dicomtorch.errors import OptionError
from dicomtorch.schema import (
    FILES,
    FRAME_VALUES,
    FRAMES,
    IMAGE_PIXEL,
    LOOKUPS,
    Column,
    Kind,
)

Rows = npt.NDArray[np.int64]
LUT_COLUMNS = ("modality_lut", "voi_lut", "palette", "real_world_value_map")
_NUMBERED = frozenset({"file", "patient", "image_pixel", "frame_values"})
_CHUNK = 1 << 14  # rows kept as Python objects while a table is built


@dataclass
class FileRows:
    """What a scan learned of one file.

    Attributes:
        path: Below the root, as the file system has it.
        size: Bytes.
        mtime_ns: Time of the last change.
        inode: Inode number, which tells a replaced file of the same size and time.
        file_class: One of `attributes.FILE_CLASSES`.
        reason: Why it has no frames, or "".
        notices: What was odd, "; " between two.
        deflated: Whether the data set is deflated, so that spans are offsets into the inflated bytes.
        claimed_frames: NumberOfFrames in the header, -1 if absent.
        count: Frames.
        columns: Name of a column -> one value for all frames, or a list or array of `count`. What is absent is
            missing. `file`, `patient`, `image_pixel` and `frame_values` are numbered here.
        lookups: What the `*_lut`, `palette` and `real_world_value_map` columns number.
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
    count: int = 0
    columns: dict[str, Any] = field(default_factory=dict)
    lookups: list[LookupTable | RealWorldValueMap] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Generation:
    """The tables of one scan; never changed once made.

    Attributes:
        uuid: Names it.
        root: What the paths of the files table are below, absolute.
        tags: Further columns, by keyword, that were asked for.
        frames: Columns of `schema.FRAMES` and `tags`.
        files: Columns of `schema.FILES`.
        lookups: Columns of `schema.LOOKUPS`.
        folder: Where it is stored; `None` if it is in memory only.
        mapped: Whether the tables are views of the mapped files in `folder`.
    """

    uuid: str
    root: bytes
    tags: Mapping[str, Kind]
    frames: Table
    files: Table
    lookups: Table
    folder: Path | None = None
    mapped: bool = False

    def __len__(self) -> int:
        return len(self.frames["frame"])


def frame_columns(tags: Mapping[str, Kind]) -> tuple[Column, ...]:
    """The columns of a frames table that also holds `tags`."""
    return FRAMES + tuple(Column(name, kind) for name, kind in tags.items())


def build_tables(
    files: Iterable[FileRows], columns: Sequence[Column]
) -> tuple[Table, Table, Table]:
    """Frames, files and lookups tables of `files`, in the order given; `finish` numbers and orders them."""
    wanted = [c for c in columns if c.name not in _NUMBERED]
    pending: dict[str, list[Any]] = {c.name: [] for c in wanted}
    chunks: list[Table] = []
    file_rows: list[tuple[Any, ...]] = []
    lookups: list[LookupTable | RealWorldValueMap] = []
    file_of_row: list[npt.NDArray[np.int32]] = []
    total = 0
    for number, item in enumerate(files):
        count = item.count
        file_rows.append(
            (
                item.path,
                item.size,
                item.mtime_ns,
                item.inode,
                int(item.deflated),
                FILE_CLASSES.index(item.file_class),
                item.reason,
                item.notices,
                total if count else -1,
                count,
                item.claimed_frames,
            )
        )
        if not count:
            continue
        total += count
        file_of_row.append(np.full(count, number, np.int32))
        _append(pending, wanted, item, len(lookups))
        lookups.extend(item.lookups)
        if len(pending["frame"]) >= _CHUNK:
            chunks.append({c.name: tables.make_column(c, pending[c.name]) for c in wanted})
            pending = {c.name: [] for c in wanted}
    chunks.append({c.name: tables.make_column(c, pending[c.name]) for c in wanted})
    frames = tables.concatenate(chunks)
    frames["file"] = np.concatenate([*file_of_row, np.zeros(0, np.int32)])
    file_table = {
        column.name: tables.make_column(column, [row[k] for row in file_rows])
        for k, column in enumerate(FILES)
    }
    lookup_rows = [_lookup_row(lookup) for lookup in lookups]
    lookup_table = {
        column.name: tables.make_column(column, [row[k] for row in lookup_rows])
        for k, column in enumerate(LOOKUPS)
    }
    return frames, file_table, lookup_table


def _append(
    pending: dict[str, list[Any]], columns: Sequence[Column], item: FileRows, first_lookup: int
) -> None:
    count = item.count
    given = item.columns
    for column in columns:
        name = column.name
        value = given.get(name)
        target = pending[name]
        if value is None:
            target.extend([column.missing] * count)
            continue
        if name in LUT_COLUMNS:
            value = np.asarray(value)
            value = np.where(value < 0, -1, value + first_lookup).tolist()
        # A tuple is one value of several numbers; lists and arrays have one value per frame.
        if isinstance(value, list | np.ndarray):
            if len(value) != count:
                raise OptionError(f"column {name} has {len(value)} values for {count} frames")
            target.extend(value)
        else:
            target.extend([value] * count)


def _lookup_row(lookup: LookupTable | RealWorldValueMap) -> tuple[Any, ...]:
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


def shift(table: Table, name: str, by: int) -> None:
    """Adds `by` to the row numbers in a column, where there are any."""
    column = np.asarray(table[name])
    table[name] = np.where(column < 0, column, column + by).astype(column.dtype)


def take_files(generation: Generation, chosen: npt.NDArray[np.intp]) -> tuple[Table, Table]:
    """The files `chosen`, in that order, and their frames."""
    files = tables.take(generation.files, chosen)
    counts = np.asarray(files["rows"])
    ends = np.cumsum(counts)
    starts = np.asarray(files["first_row"])
    rows = np.arange(int(ends[-1]) if len(ends) else 0)
    rows += np.repeat(starts - (ends - counts), counts)
    frames = tables.take(generation.frames, rows)
    frames["file"] = np.repeat(np.arange(len(chosen), dtype=np.int32), counts)
    files["first_row"] = np.where(counts > 0, ends - counts, -1)
    return frames, files


def finish(
    root: bytes, tags: Mapping[str, Kind], frames: Table, files: Table, lookups: Table
) -> Generation:
    """Orders by path and numbers what is distinct."""
    draft = Generation(str(uuids.uuid4()), root, tags, frames, files, lookups)
    paths = list(files["path"])
    order = sorted(range(len(paths)), key=paths.__getitem__)
    if order != list(range(len(paths))):
        frames, files = take_files(draft, np.array(order, np.intp))
    frames["patient"] = _number_patients(frames)
    frames["image_pixel"] = _number(frames, IMAGE_PIXEL)
    frames["frame_values"] = _number(frames, FRAME_VALUES)
    frames = {column.name: frames[column.name] for column in frame_columns(tags)}
    return Generation(draft.uuid, root, tags, frames, files, lookups)


def _codes(data: ColumnData) -> npt.NDArray[Any]:
    return data.codes if isinstance(data, Texts) else np.asarray(data)


def _number(frames: Table, names: Sequence[str]) -> npt.NDArray[np.int32]:
    """Numbers the distinct combinations of the columns `names`, in order of first appearance."""
    key = np.zeros(len(frames["frame"]), np.int64)
    for name in names:
        values = _codes(frames[name])
        if len(values) == 0 or (values == values[0]).all() or _all_nan(values):
            continue
        _, inverse = np.unique(values, return_inverse=True)
        _, key = np.unique(key * (int(inverse.max()) + 1) + inverse, return_inverse=True)
    return _by_appearance(key)


def _all_nan(values: npt.NDArray[Any]) -> bool:
    return values.dtype.kind == "f" and bool(np.isnan(values).all())


def _by_appearance(key: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int32)
    rank[np.argsort(first)] = np.arange(len(first), dtype=np.int32)
    return rank[inverse]


def _number_patients(frames: Table) -> npt.NDArray[np.int32]:
    patients, issuers, studies = (
        frames[name] for name in ("PatientID", "IssuerOfPatientID", "StudyInstanceUID")
    )
    assert isinstance(patients, Texts)
    assert isinstance(issuers, Texts)
    assert isinstance(studies, Texts)
    key = patients.codes.astype(np.int64) * (len(issuers.values) + 1) + issuers.codes
    # Without an ID, the study is the smallest group that surely is one person.
    nobody = patients.codes == patients.code("")
    return _by_appearance(np.where(nobody, -1 - studies.codes.astype(np.int64), key))
