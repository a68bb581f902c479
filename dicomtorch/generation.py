"""One scan as three immutable tables: made from what was learned of each file, written to a folder, read back.

A stored generation is a folder with `frames.arrow`, `files.arrow`, `lookups.arrow` (Arrow IPC files that pandas, polars
and DuckDB read as they are) and `manifest.json`, which has the size and CRC of each. It appears whole or not at all.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import shutil
import stat
import sys
import uuid as uuids
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dicomtorch import columns as tables
from dicomtorch.attributes import (
    FILE_CLASSES,
    FileClass,
    LookupTable,
    RealWorldValueMap,
)
from dicomtorch.columns import ColumnData, Table, Texts
from dicomtorch.errors import IndexFileError, OptionError
from dicomtorch.schema import (
    FILES,
    FRAME_VALUES,
    FRAMES,
    IMAGE_PIXEL,
    LOOKUPS,
    VERSION,
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


def _columns_of(name: str, tags: Mapping[str, Kind]) -> Sequence[Column]:
    return {"frames": frame_columns(tags), "files": FILES, "lookups": LOOKUPS}[name]


_TABLES = ("frames", "files", "lookups")


def serialize(generation: Generation) -> dict[str, bytes]:
    """Each table as the bytes of an Arrow IPC file."""
    result = {}
    for name in _TABLES:
        sink = pa.BufferOutputStream()
        tables.write_batch(sink, _batch(generation, name))
        result[name] = sink.getvalue().to_pybytes()
    return result


def deserialize(
    buffers: Mapping[str, Any],
    *,
    uuid: str,
    root: bytes,
    tags: Mapping[str, Kind],
    folder: Path | None = None,
    mapped: bool = False,
) -> Generation:
    """A generation over the bytes of its tables, fully checked.

    Raises:
        IndexFileError: They are damaged.
    """
    parts = {}
    for name in _TABLES:
        columns = _columns_of(name, tags)
        label = f"{folder / name}.arrow" if folder else f"the {name} table of an index"
        parts[name] = tables.from_arrow(tables.read_batch(buffers[name], columns, label), columns)
    generation = Generation(uuid, root, tags, **parts, folder=folder, mapped=mapped)
    _check(generation, f"the index {folder}" if folder else "an index")
    return generation


def write(generation: Generation, folder: Path, rows: Rows | None = None) -> None:
    """Writes a generation, and a selection of its rows, to `folder`, which must not exist.

    Raises:
        IndexFileError: There is something at `folder`.
        OSError: It could not be written; nothing is left behind.
    """
    if folder.exists():
        raise IndexFileError(f"{folder} exists already; remove it or choose another name")
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = folder.with_name(f".{folder.name}.{uuids.uuid4().hex}.tmp")
    draft.mkdir(mode=0o700)
    try:
        manifest: dict[str, Any] = {
            "format": "dicomtorch index",
            "version": VERSION,
            "uuid": generation.uuid,
            "root": generation.root.hex(),
            "tags": dict(generation.tags),
            "files": {},
        }
        contents: dict[str, bytes] = {
            f"{name}.arrow": data for name, data in serialize(generation).items()
        }
        if rows is not None:
            contents["rows"] = rows.astype("<i8").tobytes()
        for name, data in contents.items():
            write_durably(draft / name, data)
            manifest["files"][name] = [len(data), zlib.crc32(data)]
        text = json.dumps(manifest).encode()
        write_durably(draft / "manifest.json", b"%08x\n%s\n" % (zlib.crc32(text), text))
        os.rename(draft, folder)
        _sync_folder(folder.parent)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def write_durably(path: Path, data: bytes) -> None:
    """Writes a new file that only its owner may read, and waits until it is on the disk."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(folder: Path, *, mapped: bool = False) -> tuple[Generation, Rows | None]:
    """Opens a stored generation and checks all of it: size, CRC, schema, offsets, spans.

    Args:
        folder: What `write` made.
        mapped: Map the files instead of reading them. Only for a folder that nobody else writes to, on a local file
            system: a file truncated under its mapping ends the process.

    Raises:
        IndexFileError: It is missing, damaged, of another version, or belongs to another user.
    """
    manifest = _read_manifest(folder)
    buffers: dict[str, Any] = {}
    for name, (size, crc) in manifest["files"].items():
        buffers[name.removesuffix(".arrow")] = _read_file(folder / name, size, crc, mapped)
    rows_buffer = buffers.pop("rows", None)
    generation = deserialize(
        buffers,
        uuid=manifest["uuid"],
        root=bytes.fromhex(manifest["root"]),
        tags=manifest["tags"],
        folder=folder,
        mapped=mapped,
    )
    if rows_buffer is None:
        return generation, None
    rows = np.frombuffer(rows_buffer, "<i8")
    if len(rows) and not (rows.min() >= 0 and rows.max() < len(generation)):
        raise IndexFileError(f"{folder} is damaged: its rows are outside the table; scan again")
    return generation, rows


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    again = "scan again to rebuild it"
    try:
        content = path.read_bytes()
        if hasattr(os, "getuid") and folder.stat().st_uid not in (os.getuid(), 0):
            raise IndexFileError(f"{folder} belongs to another user; {again}")
    except OSError as error:
        raise IndexFileError(
            f"{folder} is no index ({error.strerror}: {path.name}); {again}"
        ) from error
    crc, _, text = content.partition(b"\n")
    text = text.rstrip(b"\n")
    if crc != b"%08x" % zlib.crc32(text):
        raise IndexFileError(f"{path} is damaged; {again}")
    manifest: dict[str, Any] = json.loads(text)
    if manifest.get("version") != VERSION:
        raise IndexFileError(
            f"{folder} has version {manifest.get('version')} and this release reads {VERSION}; {again}"
        )
    return manifest


def _read_file(path: Path, size: int, crc: int, mapped: bool) -> Any:
    try:
        with open(path, "rb") as file:
            info = os.fstat(file.fileno())
            if not stat.S_ISREG(info.st_mode) or info.st_size != size:
                raise IndexFileError(
                    f"{path} has {info.st_size} bytes, {size} expected; scan again to rebuild it"
                )
            data: Any = (
                mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
                if mapped and size
                else file.read()
            )
    except OSError as error:
        raise IndexFileError(f"{path} cannot be read ({error.strerror}); scan again") from error
    if zlib.crc32(data) != crc:
        raise IndexFileError(f"{path} is damaged (its CRC differs); scan again to rebuild it")
    return pa.py_buffer(data)


def _batch(generation: Generation, name: str) -> pa.RecordBatch:
    table: Table = getattr(generation, name)
    return tables.to_arrow(table, _columns_of(name, generation.tags))


def _check(generation: Generation, label: str) -> None:
    """A number that points outside its table, or a span outside its file, would be a wrong image."""
    frames, files = generation.frames, generation.files
    count = len(generation)
    if not count:
        return
    file = np.asarray(frames["file"])
    offset, length = np.asarray(frames["offset"]), np.asarray(frames["length"])
    sizes, inflated = np.asarray(files["size"]), np.asarray(files["deflated"])
    bad = not (file.min() >= 0 and file.max() < len(sizes)) or offset.min() < 0 or length.min() < 0
    if not bad:
        outside = (offset > sizes[file] - length) & (inflated[file] == 0)
        bad = bool(outside.any())
    lookups = len(generation.lookups["bits"])
    for name in LUT_COLUMNS:
        numbers = np.asarray(frames[name])
        bad = bad or not (numbers.min() >= -1 and numbers.max() < lookups)
    if bad:
        raise IndexFileError(f"{label} is damaged: it points outside its files; scan again")
