"""Frames of a server that are asked for with their neighbours, and kept as they came: those of masks.

The frames of a SEG are small, and many images of a series need some of them in any order.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, islice
from typing import Final

import numpy as np

from dicomtorch.errors import DicomTorchError
from dicomtorch.reader.web import FrameSource, GivenFrame, WantedFrame, WebFrames
from dicomtorch.storage.kept_bytes import KEPT_BYTES, KeptBytes

_AT_ONCE: Final = 8
_MOST_AHEAD: Final = 16  # blocks that are made before the first of them is read
_BYTES_AHEAD: Final = KEPT_BYTES // 2  # of these, so that they are still there then
_LONGEST: Final = 64  # characters of a UID (PS3.5 section 9.1)
_kept: Final = KeptBytes()

_Block = tuple[str, range]


class KeptFrames(FrameSource):
    """A source of which as many frames as go into one request are asked for together, and the last ones are kept.

    Args:
        source: Gives frames.
    """

    def __init__(self, source: WebFrames) -> None:
        self._source = source

    def will_need(self, wanted: Sequence[WantedFrame], *, is_known: bool = False) -> None:
        """Asks for nothing: what is kept is there, other frames are read right away."""

    def need(self, wanted: Sequence[WantedFrame]) -> None:
        """Asks for frames that are read right away, several requests at once."""
        blocks = {self._block(one): self._source.size(one) for one in wanted}
        missing = [one for one in blocks.items() if not _kept.holds(self._key(one[0]))]
        sizes = accumulate(len(numbers) * size for (_, numbers), size in missing)
        most = sum(size <= _BYTES_AHEAD for size in islice(sizes, _MOST_AHEAD))
        if most > 1:
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                list(pool.map(lambda one: self._tried(*one), missing[:most]))

    def take(self, wanted: WantedFrame) -> GivenFrame:
        """One frame.

        Raises:
            StaleIndexError: It is gone.
            StorageError: It was not given.
        """
        block = self._block(wanted)
        data = self._tried(block, wanted.size)
        found = data and _frame(data, len(block[1]), wanted.number - block[1].start)
        return found or self._source.take(wanted)  # which says what is wrong

    def take_many(self, wanted: Sequence[WantedFrame]) -> list[GivenFrame | DicomTorchError]:
        """Several frames, or what is wrong with each."""
        self.need(wanted)
        found: list[GivenFrame | DicomTorchError] = []
        for one in wanted:
            try:
                found.append(self.take(one))
            except DicomTorchError as error:
                found.append(error)
        return found

    def _block(self, wanted: WantedFrame) -> _Block:
        """Which frames of its instance a frame is asked for with."""
        many = self._source.frames_per_request
        first = wanted.number - wanted.number % many
        return wanted.instance, range(
            first, max(min(first + many, wanted.count), wanted.number + 1)
        )

    def _key(self, block: _Block) -> object:
        return self._source.root, block

    def _tried(self, block: _Block, size: int) -> bytes | None:
        """The frames of a block, `None` if none was given: it is asked for again when one is read the next time."""
        try:
            return _kept.made(self._key(block), lambda: self._joined(block, size))
        except DicomTorchError:  # reading a frame says so
            return None

    def _joined(self, block: _Block, size: int) -> bytes:
        instance, numbers = block
        wanted = [WantedFrame(instance, number, size, numbers.stop) for number in numbers]
        if len(wanted) > 1:
            self._source.need(wanted)
        given: list[GivenFrame | None] = []
        problem: DicomTorchError | None = None
        for one in wanted:
            try:
                given.append(self._source.take(one))
            except DicomTorchError as error:
                given.append(None)
                problem = error
        if problem is not None and not any(given):
            raise problem
        return _joined(given)


def _joined(given: Sequence[GivenFrame | None]) -> bytes:
    """Frames of one encoding: its name, the length of each or -1, the bytes of all."""
    uid = next((one.transfer_syntax_uid for one in given if one is not None), "")
    kept = [one.data if one and one.transfer_syntax_uid == uid else None for one in given]
    lengths = np.array([-1 if data is None else len(data) for data in kept], np.int64)
    head = uid.encode("latin-1", "replace").ljust(_LONGEST)[:_LONGEST]
    return b"".join([head, lengths.tobytes(), *(data for data in kept if data is not None)])


def _frame(block: bytes, count: int, number: int) -> GivenFrame | None:
    """A frame of what `_joined` made of `count`; `None` if it was not given."""
    lengths = np.frombuffer(block, np.int64, count, _LONGEST)
    length = int(lengths[number])
    if length < 0:
        return None
    start = _LONGEST + lengths.nbytes + int(lengths[:number].clip(0).sum())
    uid = block[:_LONGEST].decode("latin-1").rstrip()
    return GivenFrame(memoryview(block)[start : start + length], uid)
