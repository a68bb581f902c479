"""An index as a `datasets.Dataset` of Hugging Face, whose rows are decoded when they are asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from dicomtorch.batches.metadata import DEFAULT_KEYS
from dicomtorch.datasets.frames import DicomFrames
from dicomtorch.errors import OptionError, import_library
from dicomtorch.index.exports import HASHED, arrow_table, withhold
from dicomtorch.index.frame_index import FrameIndex

datasets: Any = import_library("datasets", "datasets")

POSITION = "index"
"""The column that says which frame a row is."""


def to_hf(index: FrameIndex, *, keep: Sequence[str] = (), **options: Any) -> Any:
    """See `FrameIndex.to_hf`."""
    frames = DicomFrames(index, **options)
    names = tuple(keep)
    table = _Columns(columns_of(frames.index, names), frames.index, names)
    return datasets.Dataset(table).with_transform(_Decode(frames))


def columns_of(index: FrameIndex, keep: Sequence[str]) -> pa.Table:
    """The position of each frame, what samples have in `meta` without UIDs and joined columns, and those of `keep`.

    Raises:
        OptionError: There is no column of `keep`.
    """
    known = [name for name in DEFAULT_KEYS if name not in HASHED]
    columns = {column.name: column for column in index.columns}
    if absent := [name for name in keep if name not in columns]:
        raise OptionError(f"keep: there is no column {', '.join(absent)}")
    chosen = [columns[name] for name in dict.fromkeys((*known, *keep))]
    given = arrow_table({column.name: index.column(column.name) for column in chosen}, chosen)
    table = withhold(given, keep)
    position = pa.array(np.arange(len(index)))
    plain = [_plain(column) for column in table.columns]
    return pa.table([position, *plain], names=[POSITION, *table.column_names])


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column as datasets has it: without a dictionary."""
    if pa.types.is_dictionary(column.type):
        return column.cast(pa.string())
    return column


class _Columns(datasets.table.InMemoryTable):  # type: ignore[misc]
    """A table that is pickled as the index that it comes from.

    Args:
        table: Of `columns_of`.
        index: The index.
        keep: As in `columns_of`.
    """

    def __init__(self, table: pa.Table, index: FrameIndex, keep: Sequence[str]) -> None:
        super().__init__(table)
        self._source = (index, tuple(keep))

    def replace_schema_metadata(self, *args: Any, **kwargs: Any) -> _Columns:
        """The same columns; datasets writes what it knows of them into the schema."""
        return _Columns(self.table.replace_schema_metadata(*args, **kwargs), *self._source)

    def __reduce__(self) -> tuple[Any, ...]:
        return _opened, (*self._source, self.table.schema.metadata)


def _opened(
    index: FrameIndex, keep: Sequence[str], metadata: Mapping[bytes, bytes] | None
) -> _Columns:
    table = columns_of(index, keep).replace_schema_metadata(metadata)
    return _Columns(table, index, keep)


class _Decode:
    """What a `datasets.Dataset` calls with the columns of the rows that are asked for.

    Args:
        frames: The dataset.
    """

    def __init__(self, frames: DicomFrames[Any, Any]) -> None:
        self._frames = frames

    def __call__(self, columns: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
        """The columns, with images, masks and metadata."""
        if POSITION not in columns:
            raise OptionError(
                f"the column {POSITION!r}, which says which frames are meant, is gone"
            )
        found: dict[str, list[Any]] = dict(columns)
        samples = self._frames.__getitems__(columns[POSITION])
        for k, sample in enumerate(samples):
            *tensors, meta = sample
            named = dict(zip(("image", "mask"), tensors, strict=False)) | dict(meta)
            for name, value in named.items():
                if k == 0:
                    found[name] = []
                found[name].append(value)
        return found
