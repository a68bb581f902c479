"""The rows of some files on their way from a worker: arrays, compressed, behind a line with version and checksum.

A part has over a hundred columns, nearly all with one value throughout, which is sent once. As streams of Arrow they
took three to five times the CPU time, a third of that of reading the headers.
"""

from __future__ import annotations

import io
import pickle
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dicomtorch._version import __version__
from dicomtorch.errors import IndexFileError
from dicomtorch.index.builder import Part, part_columns
from dicomtorch.index.columns import ColumnData, Packed, Texts
from dicomtorch.index.merging import is_repeated
from dicomtorch.model.schema import FILES, LOOKUPS, Column

_SAID: Final = b"dicomtorch"
_CODEC: Final = "lz4"
_ALL: Final = -1  # rows of a column that is not repeated


class _Plain(pickle.Unpickler):
    """Of tuples, texts, numbers and bytes: nothing is called."""

    def find_class(self, module: str, name: str) -> Any:
        raise IndexFileError("rows of a worker are damaged (they name code)")


def part_to_bytes(part: Part, said: Mapping[str, str]) -> bytes:
    """A part as bytes.

    Args:
        part: Rows.
        said: What else the reader shall know.
    """
    part = part.shrunk()
    tables = [
        {name: _sent(data) for name, data in table.items()}
        for table in (part.frames, part.files, part.lookups)
    ]
    data = pickle.dumps((tables, part.groups, dict(said)), pickle.HIGHEST_PROTOCOL)
    packed: bytes = pa.compress(data, codec=_CODEC, asbytes=True)
    length = b"%d" % len(data)
    said_first = (_SAID, __version__.encode(), length, b"%d" % _checksum(length, packed))
    return b" ".join(said_first) + b"\n" + packed


def part_from_bytes(data: bytes, columns: Sequence[Column]) -> tuple[Part, dict[str, str]]:
    """The part of `part_to_bytes`, and what was said beside it.

    Args:
        data: The bytes.
        columns: Of the frames table that it is for.

    Raises:
        IndexFileError: The bytes are damaged, or of another version of this package.
    """
    head, _, packed = data.partition(b"\n")
    said, _, rest = head.partition(b" ")
    version, *numbers = rest.split(b" ")
    if said != _SAID or len(numbers) != 2:
        raise IndexFileError("rows of a worker are damaged (no header)")
    if version.decode("ascii", "replace") != __version__:
        raise IndexFileError(
            f"rows come from version {version.decode('ascii', 'replace')}, and this is {__version__}"
        )
    if numbers[1] != b"%d" % _checksum(numbers[0], packed):
        raise IndexFileError("rows of a worker are damaged (their checksum differs)")
    try:
        content = pa.decompress(packed, int(numbers[0]), codec=_CODEC, asbytes=True)
        sent, groups, told = _Plain(io.BytesIO(content)).load()
        return _part(sent, groups, columns), told
    except IndexFileError:
        raise
    except (ValueError, TypeError, KeyError, EOFError, OSError, pickle.UnpicklingError) as error:
        raise IndexFileError(f"rows of a worker are damaged ({type(error).__name__})") from error


def _checksum(length: bytes, packed: bytes) -> int:
    return zlib.crc32(packed, zlib.crc32(length))


def _part(sent: Any, groups: list[int], columns: Sequence[Column]) -> Part:
    wanted = (part_columns(columns), FILES, LOOKUPS)
    if any(
        table.keys() != {c.name for c in kinds} for table, kinds in zip(sent, wanted, strict=True)
    ):
        raise IndexFileError("rows of a worker have other columns than were asked for")
    frames, files, lookups = (
        {column.name: _received(table[column.name]) for column in kinds}
        for table, kinds in zip(sent, wanted, strict=True)
    )
    return Part(frames, files, lookups, groups)


def _sent(data: ColumnData) -> Any:
    """Bytes and what they are, of what is repeated one row: arrays themselves take ten times as long to pickle."""
    if isinstance(data, np.ndarray):
        count = len(data) if is_repeated(data) else _ALL
        rows = data if count == _ALL else data[:1]
        return rows.tobytes(), data.dtype.str, data.shape[1:], count
    if isinstance(data, Texts):
        data = data.compact()
        return _sent(data.codes), _sent(data.values.offsets), _sent(data.values.data)
    return _sent(data.offsets), _sent(data.data)


def _received(sent: Any) -> Any:
    if len(sent) == 4:
        return _numbers(*sent)
    if len(sent) == 3:
        return Texts(_numbers(*sent[0]), Packed(_numbers(*sent[1]), _numbers(*sent[2])))
    return Packed(_numbers(*sent[0]), _numbers(*sent[1]))


def _numbers(raw: bytes, kind: str, row: tuple[int, ...], count: int) -> npt.NDArray[Any]:
    if count == _ALL:
        return np.frombuffer(raw, kind).reshape(-1, *row) if row else np.frombuffer(raw, kind)
    dtype = np.dtype(kind)
    return np.ndarray((count, *row), dtype, raw, strides=(0, *((dtype.itemsize,) if row else ())))
