"""Frames of SEG objects as pixels (PS3.3 C.8.20.2.3): bits, fractions, or numbers of segments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dicomtorch.dicom.fragments import packs_into_big_endian_words
from dicomtorch.errors import DicomTorchError, PixelValueError
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.masks.bits import WORD, Bits, bits_of
from dicomtorch.masks.objects import Source
from dicomtorch.model.image import ImagePixel
from dicomtorch.reader.choice import Isolation
from dicomtorch.reader.fetch import FrameFetcher
from dicomtorch.reader.kept_frames import KeptFrames
from dicomtorch.reader.reader import FrameReader
from dicomtorch.reader.web import WebFrames
from dicomtorch.storage.base import Scratch

Array = npt.NDArray[Any]


class _Sheets(Scratch):
    """Memory that frames are read into one after the other, so that all can be looked at together.

    Args:
        count: Of frames.
        length: Bytes of each, of which a frame may fill fewer.

    Attributes:
        bytes: (count, length).
    """

    def __init__(self, count: int, length: int) -> None:
        self.bytes = np.empty((count, length), np.uint8)
        self._next = 0
        self._row: Any = None

    def view(self, length: int) -> memoryview:
        """The memory of the next frame."""
        if length > self.bytes.shape[1]:
            return memoryview(bytearray(length))
        self._row = self.bytes[self._next]
        return memoryview(self._row)[:length]

    def keep(self, data: memoryview | bytes, pixel: ImagePixel) -> bool:
        """Takes the bytes of the next frame, which mostly are where they belong."""
        if not isinstance(data, memoryview) or data.obj is not self._row:
            some = min(len(data), self.bytes.shape[1])
            self.bytes[self._next, :some] = np.frombuffer(data, np.uint8, some)
        self._next += 1
        return True

    def cut(self, size: int) -> None:
        """Clears what lies behind the last pixel of each frame."""
        whole, rest = divmod(size, 8)
        if rest:
            self.bytes[:, whole] &= (1 << rest) - 1
            whole += 1
        self.bytes[:, whole:] = 0


class SegmentationReader:
    """Reads frames of the SEG objects of a scan.

    Args:
        index: All frames of the scan.
        isolation: See `ChosenBackends`.
    """

    def __init__(self, index: FrameIndex, isolation: Isolation = None) -> None:
        self._index, self._isolation = index, isolation
        self._fetcher = FrameFetcher(index)
        self._readers: dict[int, FrameReader] = {}
        if isinstance(self._fetcher.giver, WebFrames):
            self._fetcher.giver = KeptFrames(self._fetcher.giver)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_readers": {}}

    def stored(self, source: Source, planes: Sequence[int]) -> list[Array]:
        """Stored values of frames of one object, each (rows, columns); 0 and 1 where one bit is allocated.

        Raises:
            DicomTorchError: A frame cannot be read; the message names the file and the frame.
        """
        unpacked = self._each(source, planes, _unpacked, Scratch())
        if unpacked:
            return unpacked
        reader = self._reader(source)
        if reader.is_remote and len(planes) > 1:
            reader.fetcher.need(reader.index.locate(planes))
        return [self._decoded(reader, source, plane) for plane in planes]

    def bits(self, source: Source, planes: Sequence[int]) -> list[Array | Bits]:
        """The pixels that are set in native frames of one bit, as bits or flat positions; [] of other objects.

        Raises:
            DicomTorchError: A frame cannot be read; the message names the file and the frame.
        """
        pixel = self._index.image_pixel(int(source.positions[0]))
        size = pixel.rows * pixel.columns
        words = -(-size // WORD)
        sheets = _Sheets(len(planes), 8 * words)
        if not self._each(source, planes, sheets.keep, sheets):
            return []
        if size % WORD:
            sheets.cut(size)
        found = bits_of(sheets.bytes.view(np.uint64))
        return [each if not size % WORD else each.flat() for each in found]

    def shape(self, source: Source) -> tuple[int, int]:
        """(rows, columns) of the frames of an object."""
        pixel = self._index.image_pixel(int(source.positions[0]))
        return pixel.rows, pixel.columns

    def counts(self, source: Source, planes: Sequence[int]) -> list[int]:
        """Pixels that are set in frames of one bit, without making an array of them."""
        counted = self._each(source, planes, _count, Scratch())
        return counted or [int(np.count_nonzero(each)) for each in self.stored(source, planes)]

    def _each(
        self,
        source: Source,
        planes: Sequence[int],
        work: Callable[[memoryview | bytes, ImagePixel], Any],
        scratch: Scratch,
    ) -> list[Any]:
        """`work` of the bytes of native frames of one bit, each beginning on a byte; [] of others."""
        located = self._index.locate(source.positions[np.asarray(planes, np.int64)])
        pixel = self._index.image_pixel(located[0].position)
        if pixel.bits_allocated != 1 or pixel.is_encapsulated or packs_into_big_endian_words(pixel):
            return []
        if self._fetcher.is_remote:
            self._fetcher.need(located)
        result = []
        with self._fetcher.files() as files:
            for plane, where in zip(planes, located, strict=True):
                try:
                    data = self._fetcher.read_encoded(where, files, pixel, scratch)
                except DicomTorchError as error:
                    raise _named(error, source, plane) from error
                result.append(work(data, pixel))
        return result

    def _reader(self, source: Source) -> FrameReader:
        """Decodes frames of one object."""
        reader = self._readers.get(source.number)
        if reader is None:
            frames = self._index.select(source.positions)
            reader = FrameReader(frames, isolation=self._isolation)
            reader.fetcher.giver = self._fetcher.giver
            self._readers[source.number] = reader
        return reader

    def _decoded(self, reader: FrameReader, source: Source, plane: int) -> Array:
        try:
            return reader.read_stored(plane)
        except DicomTorchError as error:
            raise _named(error, source, plane) from error


def _count(data: memoryview | bytes, pixel: ImagePixel) -> int:
    """Bits that are set among the first rows x columns, the least significant first."""
    whole, rest = divmod(pixel.rows * pixel.columns, 8)
    count = int(np.bitwise_count(np.frombuffer(data, np.uint8, whole)).sum(dtype=np.int64))
    return count + (data[whole] & (1 << rest) - 1).bit_count() if rest else count


def _unpacked(data: memoryview | bytes, pixel: ImagePixel) -> Array:
    """Pixels of one bit."""
    size = pixel.rows * pixel.columns
    bits = np.unpackbits(np.frombuffer(data, np.uint8), count=size, bitorder="little")
    return bits.reshape(pixel.rows, pixel.columns)


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
