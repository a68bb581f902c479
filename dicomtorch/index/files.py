"""A generation as a folder: written whole or not at all, checked in full when it is opened.

The folder has `frames.arrow`, `files.arrow` and `lookups.arrow` (Arrow IPC files that pandas, polars and DuckDB read as
they are) and `manifest.json`, which has the size and checksum of each. A column of the frames table with one value
throughout is in `constants.arrow`, which has one row; one of the files table in `file_constants.arrow`. A selection
adds `rows`; joined columns add `joined-0.arrow` and `joined-0.rows`, ...
"""

from __future__ import annotations

import dataclasses
import json
import mmap
import os
import stat
import uuid as uuids
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dicomtorch.errors import IndexFileError, paths_kept_out, printable, without_path
from dicomtorch.index import columns as tables
from dicomtorch.index.checksums import checksum, checksum_of_file
from dicomtorch.index.columns import Packed, Table, Texts
from dicomtorch.index.drafts import new_durable, whole_folder, write_durably
from dicomtorch.index.generation import Generation, Rows, frame_columns
from dicomtorch.index.joins import Joined
from dicomtorch.index.members import DEFLATED, STORED
from dicomtorch.index.private import is_ours, make_private_folder
from dicomtorch.model.limits import Limits
from dicomtorch.model.report import FILE_CLASSES
from dicomtorch.model.schema import (
    CONTAINERS,
    FILES,
    LOOKUPS,
    LUT_COLUMNS,
    VERSION,
    Column,
    Kind,
)

MANIFEST = "manifest.json"
_AGAIN = "scan again to rebuild it"
_KEPT = {"frames": "frame", "files": "path"}  # never constants: they tell how long a table is
_CONSTANTS = {"frames": "constants", "files": "file_constants"}
_TABLES = ("frames", "constants", "files", "file_constants", "lookups")


class Stored(NamedTuple):
    """What a folder holds: a generation, and the rows and joined columns of a selection of it."""

    generation: Generation
    rows: Rows | None
    joined: tuple[Joined, ...]


def serialize(generation: Generation) -> dict[str, bytes]:
    """Each table as the bytes of an Arrow IPC file."""
    return {name: to_bytes(*table) for name, table in _tables_of(generation).items()}


def _tables_of(generation: Generation) -> dict[str, tuple[Table, Sequence[Column]]]:
    """The tables of a folder, with their columns."""
    whole = {
        "frames": (generation.frames, frame_columns(generation.tags)),
        "files": (generation.files, FILES),
    }
    parts: dict[str, tuple[Table, Sequence[Column]]] = {"lookups": (generation.lookups, LOOKUPS)}
    for name, (table, columns) in whole.items():
        constant = [c for c in columns if c.name != _KEPT[name] and _is_constant(table[c.name])]
        first = tables.take({c.name: table[c.name] for c in constant}, np.zeros(1, np.intp))
        parts[name] = table, [c for c in columns if c not in constant]
        parts[_CONSTANTS[name]] = first, constant
    return parts


def to_bytes(table: Table, columns: Sequence[Column]) -> bytes:
    """A table as an Arrow IPC file."""
    sink = pa.BufferOutputStream()
    tables.write_batch(sink, tables.to_arrow(table, columns))
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def _is_constant(data: Any) -> bool:
    if isinstance(data, Packed):
        return len(data) > 0 and bool(data.offsets[-1] == data.offsets[0])  # all are b""
    values = data.codes if isinstance(data, Texts) else data
    if not len(values):
        return False
    if values.strides[0] == 0:
        return True
    # The bits, so that nan equals nan and 0.0 differs from -0.0.
    bits = values.view(f"u{values.itemsize}")
    return bool((bits[-1] == bits[0]).all() and (bits == bits[0]).all())


def deserialize(
    buffers: Mapping[str, Any],
    *,
    uuid: str,
    root: bytes,
    tags: Mapping[str, Kind],
    limits: Limits,
    folder: Path | None = None,
    mapped: bool = False,
    is_checked: bool = False,
) -> Generation:
    """A generation over the bytes of its tables, fully checked, unless another process has done that.

    Raises:
        IndexFileError: They are damaged.
    """

    def read(name: str, of: Sequence[Column]) -> Table:
        label = f"{folder / name}.arrow" if folder else f"the {name} table of an index"
        batch = tables.read_batch(buffers[name], of, label, is_checked=is_checked)
        return tables.from_arrow(batch, of)

    def read_whole(name: str, columns: Sequence[Column]) -> Table:
        names = set(tables.column_names(buffers[_CONSTANTS[name]])) - {_KEPT[name]}
        constants = read(_CONSTANTS[name], [c for c in columns if c.name in names])
        if any(len(data) != 1 for data in constants.values()):
            raise IndexFileError(f"the constants of {folder or 'an index'} are damaged; {_AGAIN}")
        table = read(name, [c for c in columns if c.name not in names])
        count = len(table[_KEPT[name]])
        table |= {name: _repeated(data, count) for name, data in constants.items()}
        return {c.name: table[c.name] for c in columns}

    frames, files = read_whole("frames", frame_columns(tags)), read_whole("files", FILES)
    lookups = read("lookups", LOOKUPS)
    generation = Generation(uuid, root, tags, frames, files, lookups, folder, mapped, limits)
    if not is_checked:
        _check(generation, f"the index {printable(folder)}" if folder else "an index")
    return generation


def _repeated(data: Any, count: int) -> Any:
    """One row as `count` rows that take no memory."""
    if isinstance(data, Texts):
        return Texts(_repeated(data.codes, count), data.values)
    if isinstance(data, Packed):
        return Packed(np.broadcast_to(data.offsets[:1], (count + 1,)), data.data[:0])
    return np.broadcast_to(data, (count, *data.shape[1:]))


@paths_kept_out()
def write(
    generation: Generation,
    folder: Path,
    rows: Rows | None = None,
    joined: Sequence[Joined] = (),
    *,
    replace: bool = False,
) -> None:
    """Writes a generation, and a selection of its rows and what was joined to it, to `folder`.

    Args:
        generation: All of it is written.
        folder: Must not exist, unless it is to be replaced.
        rows: The selection.
        joined: What was joined to it.
        replace: Whether an index that is there goes.

    Raises:
        IndexFileError: There is something at `folder`.
        OSError: It could not be written; nothing is left behind.
    """
    if folder.exists() and not (replace and is_index(folder)):
        what = "is no index" if replace else "exists already"
        raise IndexFileError(f"{printable(folder)} {what}; remove it or choose another name")
    make_private_folder(folder.parent)
    contents: dict[str, bytes] = {}
    if rows is not None:
        contents["rows"] = rows.astype("<i8").tobytes()
    for k, part in enumerate(joined):
        contents[f"joined-{k}.arrow"] = to_bytes(part.table, part.columns)
        contents[f"joined-{k}.rows"] = part.rows.astype("<i4").tobytes()
    manifest: dict[str, Any] = {
        "format": "dicomtorch index",
        "version": VERSION,
        "uuid": generation.uuid,
        "root": generation.root.hex(),
        "root_inode": inode_of(generation.root),
        "tags": dict(generation.tags),
        "limits": dataclasses.asdict(generation.limits),
        "joined": [{column.name: column.kind for column in part.columns} for part in joined],
        "files": {name: [len(data), checksum(data)] for name, data in contents.items()},
    }
    with whole_folder(folder, replace=replace) as draft:
        for name, (table, columns) in _tables_of(generation).items():
            path = draft / f"{name}.arrow"
            with new_durable(path) as file:  # column by column, not as bytes of all
                tables.write_batch(file, tables.to_arrow(table, columns))
            manifest["files"][path.name] = [path.stat().st_size, checksum_of_file(path)]
        for name, data in contents.items():
            write_durably(draft / name, data)
        text = json.dumps(manifest).encode()
        write_durably(draft / MANIFEST, b"%08x\n%s\n" % (zlib.crc32(text), text))


def inode_of(path: bytes) -> int:
    """The inode of a file or folder, 0 if there is none."""
    try:
        return os.stat(path).st_ino
    except OSError:
        return 0


def is_index(folder: Path) -> bool:
    """Whether a folder is one that `write` made, whole or damaged."""
    return (folder / MANIFEST).is_file()


Seen = Mapping[str, tuple[int, int, int]]
"""Size, time and inode of each file of a stored index."""


def look(folder: Path) -> Seen:
    """What the files of a folder are just now; nothing if they cannot be looked at."""
    try:
        with os.scandir(folder) as entries:
            infos = {entry.name: entry.stat() for entry in entries if entry.name != MANIFEST}
    except OSError:
        return {}
    return {name: (one.st_size, one.st_mtime_ns, one.st_ino) for name, one in infos.items()}


def read(folder: Path, *, mapped: bool = False, seen: Seen | None = None) -> Stored:
    """Opens a stored generation and checks all of it: sizes, checksums, schema, offsets, spans.

    Args:
        folder: What `write` made.
        mapped: Map the files instead of reading them. Only for a folder that nobody else writes to, on a local file
            system: a file truncated under its mapping ends the process.
        seen: What the files were when another process checked them: if they still are, they are not checked again.

    Raises:
        IndexFileError: It is missing, damaged, of another version, or belongs to another user.
    """
    manifest = read_manifest(folder)
    now = look(folder)
    is_checked = bool(now) and seen == now
    try:
        uuid, root = str(uuids.UUID(manifest["uuid"])), bytes.fromhex(manifest["root"])
        tags = _kinds(manifest["tags"])
        limits = Limits(**manifest["limits"])
        has_moved = manifest["root_inode"] != inode_of(root)
        joined = [_kinds(kinds) for kinds in manifest["joined"]]
        sizes = {
            str(name): (int(size), int(crc)) for name, (size, crc) in manifest["files"].items()
        }
        names = {f"{name}.arrow" for name in _TABLES}
        names |= {f"joined-{k}.{end}" for k in range(len(joined)) for end in ("arrow", "rows")}
        if sizes.keys() - {"rows"} != names:
            raise ValueError("it names other files than an index has")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise IndexFileError(
            f"{printable(folder / 'manifest.json')} is damaged ({error}); {_AGAIN}"
        ) from error
    buffers = {
        name: _read_file(folder / name, *expected, mapped, is_checked)
        for name, expected in sizes.items()
    }
    generation = deserialize(
        {name: buffers[f"{name}.arrow"] for name in _TABLES},
        uuid=uuid,
        root=root,
        tags=tags,
        limits=limits,
        folder=folder,
        mapped=mapped,
        is_checked=is_checked,
    )
    generation = dataclasses.replace(generation, seen=now)
    if has_moved:  # to another machine or disk: what its inodes were means nothing here
        unknown = np.zeros_like(generation.files["inode"])
        generation = dataclasses.replace(generation, files={**generation.files, "inode": unknown})
    count = len(generation)
    rows = None
    if "rows" in buffers:
        rows = _numbers(buffers["rows"], "<i8", count, folder)
        count = len(rows)
    parts = []
    for k, kinds in enumerate(joined):
        columns = [Column(name, kind) for name, kind in kinds.items()]
        label = f"{folder / f'joined-{k}.arrow'}"
        batch = tables.read_batch(buffers[f"joined-{k}.arrow"], columns, label)
        numbers = _numbers(buffers[f"joined-{k}.rows"], "<i4", batch.num_rows, folder)
        if len(numbers) != count:
            raise IndexFileError(
                f"{printable(folder)} is damaged: a joined table has other rows; {_AGAIN}"
            )
        parts.append(Joined(numbers, tuple(columns), tables.from_arrow(batch, columns)))
    return Stored(generation, rows, tuple(parts))


def _kinds(given: dict[str, str]) -> dict[str, Kind]:
    unknown = set(given.values()) - set(get_args(Kind))
    if unknown:
        raise ValueError(f"a column of unknown kind {unknown.pop()!r}")
    return {str(name): kind for name, kind in given.items()}  # type: ignore[misc]


def _numbers(buffer: Any, dtype: str, end: int, folder: Path) -> npt.NDArray[Any]:
    numbers = np.frombuffer(buffer, dtype, count=len(buffer) // np.dtype(dtype).itemsize)
    if len(numbers) and not (numbers.min() >= 0 and numbers.max() < end):
        raise IndexFileError(
            f"{printable(folder)} is damaged: its rows are outside the table; {_AGAIN}"
        )
    return numbers


def read_manifest(folder: Path) -> dict[str, Any]:
    """What the folder of an index says of itself, the checksums of its other files among it.

    Raises:
        IndexFileError: It is missing, damaged, of another version, or belongs to another user.
    """
    path = folder / MANIFEST
    try:
        content = path.read_bytes()
        if not is_ours(folder.stat()):
            raise IndexFileError(f"{printable(folder)} belongs to another user; {_AGAIN}")
    except OSError as error:
        raise IndexFileError(
            f"{printable(folder)} is no index ({error.strerror}: {path.name}); {_AGAIN}"
        ) from without_path(error)
    text = content[9:-1]
    if content != b"%08x\n%s\n" % (zlib.crc32(text), text):
        raise IndexFileError(f"{printable(path)} is damaged; {_AGAIN}")
    try:
        manifest = json.loads(text)
        version = manifest["version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise IndexFileError(f"{printable(path)} is damaged ({error}); {_AGAIN}") from error
    if version != VERSION:
        raise IndexFileError(
            f"{printable(folder)} has version {version} and this release reads {VERSION}; {_AGAIN}"
        )
    return manifest  # type: ignore[no-any-return]


def _read_file(path: Path, size: int, expected: int, mapped: bool, is_checked: bool) -> pa.Buffer:
    try:
        with open(path, "rb") as file:
            info = os.fstat(file.fileno())
            if not stat.S_ISREG(info.st_mode) or info.st_size != size:
                raise IndexFileError(
                    f"{printable(path)} has {info.st_size} bytes, {size} expected; {_AGAIN}"
                )
            if mapped and size:
                data: Any = _map(file.fileno(), size, at_once=not is_checked)
            else:
                data = file.read()
    except OSError as error:
        raise IndexFileError(
            f"{printable(path)} cannot be read ({error.strerror}); {_AGAIN}"
        ) from without_path(error)
    if len(data) != size or (not is_checked and checksum(data) != expected):
        raise IndexFileError(f"{printable(path)} is damaged (its checksum differs); {_AGAIN}")
    return pa.py_buffer(data)


def _map(descriptor: int, size: int, *, at_once: bool) -> mmap.mmap:
    populate = getattr(mmap, "MAP_POPULATE", 0)
    if populate and at_once:  # the checksum touches every page anyway, and one by one costs more
        flags = mmap.MAP_SHARED | populate
        return mmap.mmap(descriptor, size, flags=flags, prot=mmap.PROT_READ)
    return mmap.mmap(descriptor, size, access=mmap.ACCESS_READ)


def _check(generation: Generation, label: str) -> None:
    """A number that points outside its table, or a span outside its file, would be a wrong image."""
    frames: dict[str, Any] = dict(generation.frames)
    files: dict[str, Any] = dict(generation.files)
    bad = _lookups_are_bad(generation.lookups)
    for numbers, meanings in (("file_class", FILE_CLASSES), ("container", CONTAINERS)):
        among = files[numbers]
        bad |= bool(len(among)) and not (among.min() >= 0 and among.max() < len(meanings))
    if len(generation) and not bad:
        file, offset, length = frames["file"], frames["offset"], frames["length"]
        bad = not (file.min() >= 0 and file.max() < len(files["size"]))
        bad |= bool(offset.min() < 0 or length.min() < 0)
        bad |= _members_are_bad(files)
        if not bad:
            outside = offset > _readable(files)[file] - length
            bad = bool(outside.any())
        lookups = len(generation.lookups["bits"])
        for name in LUT_COLUMNS:
            bad |= not (frames[name].min() >= -1 and frames[name].max() < lookups)
    if bad:
        raise IndexFileError(f"{label} is damaged: it points outside its files; {_AGAIN}")


def _members_are_bad(files: Mapping[str, Any]) -> bool:
    """Whether a member with frames lies outside of its archive."""
    inside = np.isin(files["container"], (STORED, DEFLATED)) & (np.asarray(files["frames"]) > 0)
    if not inside.any():
        return False
    offset, length = (np.asarray(files[f"member_{name}"])[inside] for name in ("offset", "length"))
    lowest = min(offset.min(), length.min(), np.asarray(files["member_size"])[inside].min())
    return bool(lowest < 0) or bool((offset > np.asarray(files["size"])[inside] - length).any())


def _readable(files: Mapping[str, Any]) -> npt.NDArray[np.int64]:
    """The bytes of each file within which offsets lie; what is not known is as much as can be."""
    size = np.where(files["container"] == DEFLATED, files["member_size"], files["size"])
    unknown = (size < 0) | (files["deflated"] != 0)
    return np.where(unknown, np.iinfo(np.int64).max, size)


def _lookups_are_bad(lookups: Table) -> bool:
    kinds, data = lookups["kind"], lookups["data"]
    assert isinstance(kinds, Texts)
    assert isinstance(data, Packed)
    sizes = {"lut": 2, "real_world_value_map": 8}
    of_code = np.array([sizes.get(kinds.value(k), 0) for k in range(len(kinds.values))], np.int64)
    size = of_code[kinds.codes]
    return bool((size == 0).any()) or bool((np.diff(data.offsets) % size).any())
