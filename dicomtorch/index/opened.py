"""Stored generations that this process has open, each once, and indexes on their way to other processes."""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dicomtorch.errors import IndexFileError, printable
from dicomtorch.index import columns as tables
from dicomtorch.index import files as index_file
from dicomtorch.index import in_use, sharing
from dicomtorch.index.drafts import open_new
from dicomtorch.index.files import MANIFEST, Stored, deserialize, read, serialize, to_bytes, write
from dicomtorch.index.generation import Generation, Rows, moved
from dicomtorch.index.joins import Joined
from dicomtorch.index.private import is_local

_BYTES_A_ROW: Final = 200  # about

_open: weakref.WeakValueDictionary[str, Generation] = weakref.WeakValueDictionary()


def open_generation(
    folder: Path, uuid: str, *, mapped: bool, seen: index_file.Seen | None = None
) -> Generation:
    """The stored generation `uuid`, opened once per process.

    Args:
        folder: Where it is.
        uuid: Its name.
        mapped: See `files.read`.
        seen: See `files.read`.

    Raises:
        IndexFileError: It is gone or damaged, or another one is there.
    """
    generation = _open.get(uuid)
    if generation is None:
        held = in_use.hold(folder / MANIFEST)
        try:
            generation = read(folder, mapped=mapped, seen=seen).generation
            if generation.uuid != uuid:
                raise IndexFileError(
                    f"{printable(folder)} holds another scan than the one that this index was made from; scan again"
                )
        except BaseException:
            held.release()
            raise
        weakref.finalize(generation, held.release).atexit = False
        _open[uuid] = generation
    with contextlib.suppress(OSError):
        os.utime(folder / MANIFEST)  # unused ones are removed, by this time
    return generation


def to_state(generation: Generation, rows: Rows | None, joined: Sequence[Joined]) -> dict[str, Any]:
    """What a process that gets an index by pickle needs: where it is stored, or everything.

    A process that is being spawned maps what is large.
    """
    state: dict[str, Any] = {"uuid": generation.uuid, "root": generation.root}
    state["rows"] = None if rows is None else _numbers_state(rows)
    state["joined"] = [
        (_numbers_state(part.rows), part.columns, _table_state(part)) for part in joined
    ]
    if generation.folder is None and sharing.is_worth_sharing(_BYTES_A_ROW * len(generation)):
        with contextlib.suppress(OSError):  # no place for it: it is sent by value
            generation = _stored(generation)
    if generation.folder is not None:
        is_mapped = generation.mapped or sharing.is_worth_sharing(_BYTES_A_ROW * len(generation))
        where = {"folder": generation.folder, "mapped": is_mapped, "seen": generation.seen}
        return state | where
    return state | {
        "tables": serialize(generation),
        "tags": dict(generation.tags),
        "limits": generation.limits,
    }


def _numbers_state(numbers: npt.NDArray[Any]) -> Any:
    if not sharing.is_worth_sharing(numbers.nbytes):
        return numbers
    plain = np.ascontiguousarray(numbers)

    def write_numbers(path: Path) -> None:
        with open_new(path) as file:
            file.write(plain.data)

    try:
        return sharing.share(numbers, "rows", write_numbers), plain.dtype.str
    except OSError:
        return numbers


def _numbers_from(state: Any) -> npt.NDArray[Any]:
    if not isinstance(state, tuple):
        return state  # type: ignore[no-any-return]
    path, dtype = state
    return np.frombuffer(sharing.mapped(path), dtype)


def _table_state(part: Joined) -> Any:
    def write_table(path: Path) -> None:
        with open_new(path) as file:
            tables.write_batch(file, tables.to_arrow(part.table, part.columns))

    if sharing.is_worth_sharing(sum(map(_size, part.table.values()))):
        with contextlib.suppress(OSError):
            return sharing.share(part.rows, "arrow", write_table)
    return to_bytes(part.table, part.columns)


def _size(data: tables.ColumnData) -> int:
    if isinstance(data, tables.Texts):
        return int(data.codes.nbytes + data.values.data.nbytes)
    return int(data.data.nbytes if isinstance(data, tables.Packed) else data.nbytes)


def _stored(generation: Generation) -> Generation:
    """A generation of memory only as files, which this process made and nobody has to check."""
    folder = sharing.share(generation, "index", lambda path: write(generation, path))
    return replace(generation, folder=folder, mapped=True, seen=index_file.look(folder))


def from_state(state: Mapping[str, Any]) -> Stored:
    """What `to_state` was given.

    Raises:
        IndexFileError: The folder is gone, damaged, or holds another scan.
    """
    uuid = state["uuid"]
    if "folder" in state:
        mapped = state["mapped"] and is_local(state["folder"])
        generation = open_generation(state["folder"], uuid, mapped=mapped, seen=state["seen"])
        if generation.root != state["root"]:
            generation = moved(generation, state["root"])
    else:
        generation = deserialize(
            state["tables"],
            uuid=uuid,
            root=state["root"],
            tags=state["tags"],
            limits=state["limits"],
        )
    joined = []
    for rows, columns, data in state["joined"]:
        source = sharing.mapped(data) if isinstance(data, Path) else data
        batch = tables.read_batch(pa.py_buffer(source), columns, "a join")
        joined.append(Joined(_numbers_from(rows), columns, tables.from_arrow(batch, columns)))
    rows = None if state["rows"] is None else _numbers_from(state["rows"])
    return Stored(generation, rows, tuple(joined))
