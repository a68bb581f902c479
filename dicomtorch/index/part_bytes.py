"""The rows of some files on their way from a worker: three Arrow IPC streams, compressed, one after the other."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from dicomtorch._version import __version__
from dicomtorch.errors import IndexFileError
from dicomtorch.index import columns as tables
from dicomtorch.index.builder import Part, part_columns
from dicomtorch.index.columns import Table
from dicomtorch.model.schema import FILES, LOOKUPS, Column

_SAID: Final = b"dicomtorch"
# A hundred small buffers: LZ4 makes them nearly as small as Zstandard in a quarter of its time, and threads only wait.
_WRITE: Final = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
_READ: Final = pa.ipc.IpcReadOptions(use_threads=False)


def part_to_bytes(part: Part, columns: Sequence[Column], said: Mapping[str, str]) -> bytes:
    """A part as bytes.

    Args:
        part: Rows.
        columns: Of the frames table that they are for.
        said: What else the reader shall know.
    """
    sink = pa.BufferOutputStream()
    note = {_SAID: json.dumps({"version": __version__, "groups": part.groups, "said": dict(said)})}
    for table, kinds in _tables(part, columns):
        batch = tables.to_arrow(table, kinds).replace_schema_metadata(note)
        with pa.ipc.new_stream(sink, batch.schema, options=_WRITE) as writer:
            writer.write_batch(batch)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def _tables(part: Part, columns: Sequence[Column]) -> list[tuple[Table, Sequence[Column]]]:
    return [
        (part.frames, part_columns(columns)),
        (part.files, FILES),
        (part.lookups, LOOKUPS),
    ]


def part_from_bytes(data: bytes, columns: Sequence[Column]) -> tuple[Part, dict[str, str]]:
    """The part of `part_to_bytes`, fully checked, and what was said beside it.

    Raises:
        IndexFileError: The bytes are damaged, or of another version of this package.
    """
    source = pa.BufferReader(data)
    try:
        read = [_read(source, kinds) for kinds in (part_columns(columns), FILES, LOOKUPS)]
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, IndexFileError):
            raise
        raise IndexFileError(f"rows of a worker are damaged ({type(error).__name__})") from error
    (frames, note), (files, _), (lookups, _) = read
    return Part(frames, files, lookups, note["groups"]), note["said"]


def _read(source: Any, columns: Sequence[Column]) -> tuple[Table, Any]:
    with pa.ipc.open_stream(source, options=_READ) as reader:
        note = json.loads(reader.schema.metadata[_SAID])
        if note["version"] != __version__ or not reader.schema.equals(tables.arrow_schema(columns)):
            raise IndexFileError(
                f"rows come from version {note['version']}, and this is {__version__}"
            )
        batch = reader.read_next_batch()
        for _ in reader:  # to the end of this stream, where the next one begins
            raise IndexFileError("rows of a worker have more than one batch")
    batch.validate(full=True)
    return tables.from_arrow(batch, columns), note
