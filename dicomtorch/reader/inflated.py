"""Frames of deflated data sets (PS3.5 A.5): the data set that was inflated last is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dicomtorch._forks import ForkedLock
from dicomtorch.dicom.deflate import inflate
from dicomtorch.errors import HeaderError, StaleIndexError, StorageError
from dicomtorch.index.location import FrameLocation
from dicomtorch.reader.open_files import OpenFiles, identity_of


class LastInflated:
    """The data set that was inflated last: its frames are usually read one after the other."""

    def __init__(self) -> None:
        self.lock = ForkedLock()
        # One object, so that an interrupt or a fork never leaves the bytes of one file under the name of another.
        self._last: tuple[Any, bytes] = (None, b"")

    def get(self, key: Any, make: Callable[[], bytes]) -> bytes:
        """What was made last if `key` is the same, else what `make` gives."""
        with self.lock:
            if self._last[0] != key:
                self._last = (None, b"")  # room for the next one
                self._last = (key, make())
            return self._last[1]


_last_inflated = LastInflated()


def inflated_range(where: FrameLocation, files: OpenFiles) -> memoryview:
    """The bytes of a frame in the inflated data set of its file."""
    file = files.whole(where)  # each time: a file of this machine that was replaced is noticed here

    def make() -> bytes:
        frames = files.index.whole_file(where.position)
        end = int((np.asarray(frames.column("offset")) + frames.column("length")).max())
        read = file.read
        if files.is_remote:  # in one request
            data = file.read(0, file.identity.size)

            def read(offset: int, length: int) -> bytes:
                return data[offset : offset + length]

        try:
            return inflate(read, file.identity.size, end, files.index.limits)
        except HeaderError as error:
            raise StorageError(str(error)) from error

    data = _last_inflated.get((files.index.file_path(where.file), identity_of(where)), make)
    offset, length = where.span[:2]
    if len(data) < offset + length:
        raise StaleIndexError(
            f"the inflated data set has {len(data)} bytes and the frame ends at {offset + length}; refresh the index "
            "(DicomFrames(root), or scan(root, index=old)) and start again"
        )
    return memoryview(data)[offset : offset + length]
