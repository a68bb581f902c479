"""What is opened to read the frames of an index, and where in it they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.index.location import FrameLocation
from dicomtorch.index.members import STORED
from dicomtorch.reader.open_files import identity_of
from dicomtorch.storage.base import ByteRange, Identity

_MOST = 8192  # that are kept


class KnownObjects:
    """The objects that the frames of an index were in of late.

    Args:
        index: Of the frames.
    """

    def __init__(self, index: FrameIndex) -> None:
        self._index = index
        self._of_file: dict[int, tuple[bytes, Identity]] = {}

    def of(self, where: FrameLocation) -> tuple[bytes, Identity]:
        """What is opened for a frame, and what it must be."""
        known = self._of_file.get(where.file)
        if known is None:
            if len(self._of_file) >= _MOST:
                self._of_file.clear()
            known = self._index.object_path(where.file), identity_of(where)
            self._of_file[where.file] = known
        return known

    def ranges(self, positions: npt.NDArray[np.int64]) -> list[ByteRange] | None:
        """Where the bytes of several frames are, with little of Python for each.

        Args:
            positions: (n,) int64, not negative.

        Returns:
            `None` if some object is not known yet, or what is inside of it is deflated.
        """
        files: Any = self._index.files
        file, offsets, lengths = (
            np.asarray(self._index.values(name, positions)) for name in ("file", "offset", "length")
        )
        if (files["deflated"][file] == 1).any() or (files["container"][file] > STORED).any():
            return None
        columns = zip(file.tolist(), offsets.tolist(), lengths.tolist(), strict=True)
        try:
            return [
                ByteRange(*self._of_file[number], offset, length)
                for number, offset, length in columns
            ]
        except KeyError:
            return None
