"""Frames that a server gives, or gave before: what is asked for is what is not kept on this machine."""

from __future__ import annotations

from collections.abc import Sequence

from dicomtorch.errors import DicomTorchError
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.index.location import FrameLocation
from dicomtorch.model.image import ImagePixel
from dicomtorch.reader.kept import KeptRanges
from dicomtorch.reader.web import (
    FrameSource,
    GivenFrame,
    WantedFrame,
    given_frame,
    wanted_frames,
)
from dicomtorch.storage.base import Scratch


class GivenReader:
    """Reads frames of a source that gives them.

    Args:
        source: Gives them.
        kept: What it gave before, and gives from now on; `None`: nothing is kept.
        index: Of the frames.
    """

    __slots__ = ("_index", "_kept", "_source")

    def __init__(self, source: FrameSource, kept: KeptRanges | None, index: FrameIndex) -> None:
        self._source = source
        self._kept = kept
        self._index = index

    def missing(self, located: Sequence[FrameLocation]) -> list[WantedFrame]:
        """What the source is asked for: frames that are not kept, as often as there."""
        index, kept = self._index, self._kept
        if kept is not None:
            located = [where for where in located if not kept.has_frame(index, where)]
        return wanted_frames(index, located)

    def read(self, where: FrameLocation, pixel: ImagePixel, scratch: Scratch) -> memoryview:
        """The bytes of a frame that a decoder takes, in `scratch` or memory of their own.

        Raises:
            StaleIndexError: It is gone, or encoded otherwise.
            StorageError: It was not given, or has not the bytes that an uncompressed frame has.
        """
        data = self._found(where, scratch)
        if data is None:
            (wanted,) = wanted_frames(self._index, [where])
            data = self._checked(where, pixel, self._source.take(wanted))
        return data

    def read_many(self, located: Sequence[FrameLocation]) -> list[memoryview | DicomTorchError]:
        """The bytes of several frames, asked for together, each in memory of its own, or what is wrong with it."""
        found = {k: self._found(where, Scratch()) for k, where in enumerate(located)}
        left = [k for k, data in found.items() if data is None]
        wanted = wanted_frames(self._index, [located[k] for k in left])
        results: dict[int, memoryview | DicomTorchError] = {
            k: data for k, data in found.items() if data is not None
        }
        for k, given in zip(left, self._source.take_many(wanted), strict=True):
            try:
                pixel = self._index.image_pixel(located[k].position)
                results[k] = (
                    given
                    if isinstance(given, DicomTorchError)
                    else self._checked(located[k], pixel, given)
                )
            except DicomTorchError as error:
                results[k] = error
        return [results[k] for k in range(len(located))]

    def _found(self, where: FrameLocation, scratch: Scratch) -> memoryview | None:
        return None if self._kept is None else self._kept.read_frame(self._index, where, scratch)

    def _checked(self, where: FrameLocation, pixel: ImagePixel, given: GivenFrame) -> memoryview:
        """What came, if it is what the index says; then it is kept."""
        data = given_frame(given, pixel)
        if self._kept is not None:
            self._kept.write_frame(self._index, where, data)
        return data
