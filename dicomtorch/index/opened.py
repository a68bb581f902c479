"""Stored generations that this process has open, each once, and indexes on their way to other processes."""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dicomtorch.errors import IndexFileError, printable
from dicomtorch.index import columns as tables
from dicomtorch.index import in_use
from dicomtorch.index.files import MANIFEST, Stored, deserialize, read, serialize, to_bytes
from dicomtorch.index.generation import Generation, Rows, moved
from dicomtorch.index.joins import Joined

_open: weakref.WeakValueDictionary[str, Generation] = weakref.WeakValueDictionary()


def open_generation(folder: Path, uuid: str, *, mapped: bool) -> Generation:
    """The stored generation `uuid`, opened once per process.

    Raises:
        IndexFileError: It is gone or damaged, or another one is there.
    """
    generation = _open.get(uuid)
    if generation is None:
        held = in_use.hold(folder / MANIFEST)
        try:
            generation = read(folder, mapped=mapped).generation
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
    """What a process that gets an index by pickle needs: where it is stored, or everything."""
    state: dict[str, Any] = {"rows": rows, "uuid": generation.uuid}
    state["joined"] = [
        (part.rows, part.columns, to_bytes(part.table, part.columns)) for part in joined
    ]
    state["root"] = generation.root
    if generation.folder is not None:
        return state | {"folder": generation.folder, "mapped": generation.mapped}
    return state | {
        "tables": serialize(generation),
        "tags": dict(generation.tags),
        "limits": generation.limits,
    }


def from_state(state: Mapping[str, Any]) -> Stored:
    """What `to_state` was given.

    Raises:
        IndexFileError: The folder is gone, damaged, or holds another scan.
    """
    uuid = state["uuid"]
    if "folder" in state:
        generation = open_generation(state["folder"], uuid, mapped=state["mapped"])
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
    joined = [
        Joined(
            rows,
            columns,
            tables.from_arrow(tables.read_batch(data, columns, "a join"), columns),
        )
        for rows, columns, data in state["joined"]
    ]
    return Stored(generation, state["rows"], tuple(joined))
