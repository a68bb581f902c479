"""Frames of SEG objects as pixels (PS3.3 C.8.20.2.3): bits, fractions, or numbers of segments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dicomtorch.dicom.fragments import packs_into_big_endian_words
from dicomtorch.errors import DicomTorchError, PixelValueError
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.masks.bits import WORD, Bits, Found, bits_of, words_with_pixels
from dicomtorch.masks.objects import Source
from dicomtorch.reader.fetch import FrameFetcher
from dicomtorch.reader.reader import FrameReader

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]


class SegmentationReader:
    """Reads frames of the SEG objects of a scan.

    Args:
        index: All frames of the scan.
    """

    def __init__(self, index: FrameIndex) -> None:
        self._index = index
        self._fetcher = FrameFetcher(index)
        self._readers: dict[int, FrameReader] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_readers": {}}

    def stored(self, source: Source, planes: Sequence[int]) -> list[Array]:
        """Stored values of frames of one object, each (rows, columns); 0 and 1 where one bit is allocated.

        Raises:
            DicomTorchError: A frame cannot be read; the message names the file and the frame.
        """
        return self._each(source, planes, _unpacked) or [
            self._decoded(source, plane) for plane in planes
        ]

    def bits(self, source: Source, planes: Sequence[int]) -> list[Array | Bits]:
        """The pixels that are set in native frames of one bit, as bits or flat positions; [] of other objects.

        Raises:
            DicomTorchError: A frame cannot be read; the message names the file and the frame.
        """
        found = self._each(source, planes, _words)
        if not found:
            return []
        bits = bits_of(found)
        size = int(np.prod(self.shape(source)))
        return [each if not size % WORD else each.flat() for each in bits]

    def shape(self, source: Source) -> tuple[int, int]:
        """(rows, columns) of the frames of an object."""
        pixel = self._index.image_pixel(int(source.positions[0]))
        return pixel.rows, pixel.columns

    def counts(self, source: Source, planes: Sequence[int]) -> list[int]:
        """Pixels that are set in frames of one bit, without making an array of them."""
        counted = self._each(source, planes, _count)
        return counted or [int(np.count_nonzero(each)) for each in self.stored(source, planes)]

    def _each(
        self, source: Source, planes: Sequence[int], work: Callable[[Bytes, int, int], Any]
    ) -> list[Any]:
        """`work` of the bytes of native frames of one bit, each beginning on a byte; [] of others."""
        located = self._index.locate(source.positions[np.asarray(planes, np.int64)])
        pixel = self._index.image_pixel(located[0].position)
        if pixel.bits_allocated != 1 or pixel.is_encapsulated or packs_into_big_endian_words(pixel):
            return []
        result = []
        with self._fetcher.files() as files:
            for plane, where in zip(planes, located, strict=True):
                try:
                    data = self._fetcher.read_encoded(where, files, pixel)
                except DicomTorchError as error:
                    raise _named(error, source, plane) from error
                result.append(work(np.frombuffer(data, np.uint8), pixel.rows, pixel.columns))
        return result

    def _decoded(self, source: Source, plane: int) -> Array:
        reader = self._readers.get(source.number)
        if reader is None:
            reader = FrameReader(self._index.select(source.positions))
            self._readers[source.number] = reader
        try:
            return reader.read_stored(plane)
        except DicomTorchError as error:
            raise _named(error, source, plane) from error


def _count(data: Bytes, rows: int, columns: int) -> int:
    """Bits that are set among the first rows x columns, the least significant first."""
    whole, rest = divmod(rows * columns, 8)
    count = int(np.bitwise_count(data[:whole]).sum(dtype=np.int64))
    return count + (int(data[whole]) & (1 << rest) - 1).bit_count() if rest else count


def _words(data: Bytes, rows: int, columns: int) -> Found:
    """The words with pixels; most of a segment are 0, and only the others are looked at."""
    size = rows * columns
    if not size % WORD:
        return words_with_pixels(data[: size // 8].view(np.uint64))
    words = np.zeros(-(-size // WORD), np.uint64)
    whole = words.view(np.uint8)
    whole[: size // 8] = data[: size // 8]
    if size % 8:
        whole[size // 8] = data[size // 8] & (1 << size % 8) - 1
    return words_with_pixels(words)


def _unpacked(data: Bytes, rows: int, columns: int) -> Array:
    """Pixels of one bit; where rows begin on bytes, only those with pixels are unpacked."""
    if columns % 8:
        return np.unpackbits(data, count=rows * columns, bitorder="little").reshape(rows, columns)
    packed = data[: rows * columns // 8].reshape(rows, columns // 8)
    frame = np.zeros((rows, columns), np.uint8)
    some = np.flatnonzero(packed.any(1))
    if len(some):
        first, end = int(some[0]), int(some[-1]) + 1
        frame[first:end] = np.unpackbits(packed[first:end], axis=1, bitorder="little")
    return frame


def _named(error: DicomTorchError, source: Source, plane: int) -> DicomTorchError:
    return type(error)(f"masks: {source.name}, frame {plane}: {error}")


def segment_numbers(frame: Array, source: Source) -> Array:
    """Checks that a frame of a labelmap has only values that a segment describes.

    Raises:
        PixelValueError: It has another one.
    """
    known = np.zeros(int(frame.max(initial=0)) + 2, np.bool_)
    for segment in source.found.segments:
        if 0 <= segment.number < len(known):
            known[segment.number] = True
    known[min(source.found.background, len(known) - 1)] = True
    if not known[frame].all():
        value = int(frame[~known[frame]][0])
        raise PixelValueError(
            f"masks: {source.name}: a pixel is {value}, which no item of (0062,0002) SegmentSequence describes and "
            f"which is not the background ({source.found.background})"
        )
    return frame
