"""Names of files as keys of a join: tables of labels often know an image by its file, not by its UIDs."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import numpy as np
import pyarrow as pa

from dicomtorch.index.columns import HasColumns, Packed, Texts


class HasFiles(HasColumns, Protocol):
    """Rows that each belong to a file."""

    @property
    def root(self) -> bytes:
        """What the paths are below, absolute."""

    def file_path(self, file: int) -> bytes:
        """The path of a row of the files table, absolute."""


def _relative(path: str, root: str) -> str:
    """A path below the root of the index, however it is written; another one as it is."""
    path = os.path.normpath(path)
    if not os.path.isabs(path):
        return path
    for one in (path, os.path.realpath(path)):
        if one.startswith(os.path.join(root, "")):
            return one[len(os.path.join(root, "")) :]
    return path


def _name(path: str, _: str) -> str:
    return os.path.basename(path)


def stem(path: str, _: str = "") -> str:
    """The name of a file without its suffix; digits alone are none, because UIDs are names of files too."""
    name = os.path.basename(path)
    first, suffix = os.path.splitext(name)
    return name if suffix[1:].isdigit() else first


FILE_KEYS: Final[dict[str, Callable[[str, str], str]]] = {
    "path": _relative,
    "name": _name,
    "stem": stem,
}
"""What a key may be besides a column: the path of the file, below the root or absolute, its name, or that without
suffix."""


def file_key(index: HasFiles, kind: str) -> Texts:
    """The key of each frame's file.

    Args:
        index: The frames.
        kind: One of `FILE_KEYS`.
    """
    files, inverse = np.unique(np.asarray(index.column("file")), return_inverse=True)
    of_path, root = FILE_KEYS[kind], _text(index.root)
    values: dict[str, int] = {}
    codes = [
        values.setdefault(of_path(_text(index.file_path(file)), root), len(values))
        for file in files.tolist()
    ]
    return Texts(np.array(codes, np.int32)[inverse], Packed.of(name.encode() for name in values))


def given_keys(index: HasFiles, kind: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A key column of a table in the form of `file_key`: paths below the root, names as they are."""
    if kind != "path":
        return column
    root = _text(index.root)
    values: list[Any] = column.cast(pa.large_string()).to_pylist()
    paths = [
        _relative(value.strip(), root) if value and value.strip() else None for value in values
    ]
    return pa.chunked_array([pa.array(paths, pa.large_string())])


def other_file_key(index: HasFiles, meant: Mapping[str, str], table: pa.Table) -> str:
    """What to join on where no row matches a frame: what keys of the table are of the files; "" if nothing.

    Args:
        index: The frames.
        meant: Columns of the table, and what they are in the index.
        table: Has these columns.
    """
    for name, key in meant.items():
        for kind in FILE_KEYS if key in FILE_KEYS else ():
            if kind != key:
                column = given_keys(index, kind, table.column(name)).cast(pa.large_string())
                known = file_key(index, kind)
                if (known.codes_of(column.drop_null().unique().to_pylist()) >= 0).any():
                    return (
                        f'; the table has the {kind} of files: join with on={{"{name}": "{kind}"}}'
                    )
    return ""


def path_for(meant: Mapping[str, str]) -> str:
    """How keys that are names of files are told apart where several folders have them; "" if none is."""
    for name, key in meant.items():
        if key in FILE_KEYS and key != "path":
            return f', or, if they are files of several folders, give paths and join with on={{"{name}": "path"}}'
    return ""


def _text(path: bytes) -> str:
    """As a CSV file in UTF-8 has it; what is no UTF-8 matches nothing there."""
    return path.decode("utf-8", "backslashreplace")
