"""Where the bytes of frames are: the numbers of their rows that reading needs, looked up together."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dicomtorch.index.columns import Texts
from dicomtorch.index.generation import Generation, Rows
from dicomtorch.model.frame import FrameSpan

_OF_FILE = ("size", "mtime_ns", "inode", "deflated", "container")


class FrameLocation(NamedTuple):
    """Where the bytes of a frame are, and what they mean: the numbers of a row that reading needs.

    Attributes:
        position: In the index that was asked.
        file: Row of the files table.
        size: Bytes that the file must have; of a member, the archive.
        mtime_ns: Time of its last change.
        inode: Its number on its device; 0: not known.
        deflated: Whether offsets count in the inflated data set.
        container: Position in `schema.CONTAINERS`.
        value_group: Equal for frames that share their `FrameValues`, of the whole scan.
        span: Where its bytes are in the file.
        version: Of an object in a store, as in `storage.base.Identity`.
    """

    position: int
    file: int
    size: int
    mtime_ns: int
    inode: int
    deflated: bool
    container: int
    value_group: int
    span: FrameSpan
    version: str = ""


# What `_make` does, without a call of Python code for each frame.
_span_of: Callable[[Any], FrameSpan] = partial(tuple.__new__, FrameSpan)
_location_of: Callable[[Any], FrameLocation] = partial(tuple.__new__, FrameLocation)


def locate(
    generation: Generation, rows: Rows, positions: npt.NDArray[np.int64]
) -> list[FrameLocation]:
    """Where the frames of some rows are.

    Args:
        generation: The tables.
        rows: Of the frames table.
        positions: What each is called in the index that was asked.
    """
    frames: dict[str, Any] = generation.frames
    files: dict[str, Any] = generation.files
    if len(rows) == 1:
        return [_located(frames, files, rows.item(), positions.item())]
    numbers = frames["file"][rows]
    of_file = (files[name][numbers].tolist() for name in _OF_FILE)
    fields = (frames[name][rows].tolist() for name in FrameSpan._fields)
    spans = map(_span_of, zip(*fields, strict=True))
    groups = frames["frame_values"][rows].tolist()
    parts = (
        positions.tolist(),
        numbers.tolist(),
        *of_file,
        groups,
        spans,
        _versions(files, numbers),
    )
    return list(map(_location_of, zip(*parts, strict=True)))


def _located(
    frames: dict[str, Any], files: dict[str, Any], row: int, position: int
) -> FrameLocation:
    """Where one frame is: the same without arrays of one element, in a quarter of the time."""
    file = frames["file"].item(row)
    of_file = (files[name].item(file) for name in _OF_FILE)
    span = _span_of(frames[name].item(row) for name in FrameSpan._fields)
    group, version = frames["frame_values"].item(row), files["version"][file]
    return _location_of((position, file, *of_file, group, span, version))


def _versions(files: dict[str, Any], numbers: npt.NDArray[np.int32]) -> list[str]:
    texts: Texts = files["version"]
    if len(texts.values) <= 1:  # nearly always: none of any file
        return [texts[0] if len(texts) else ""] * len(numbers)
    return texts.values_of(numbers)
