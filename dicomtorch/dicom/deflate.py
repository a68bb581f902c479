"""Deflated data sets: the bytes behind the file meta, inflated as far as they are asked for (PS3.5 A.5)."""

from __future__ import annotations

import zlib

from dicomtorch.dicom.elements import Header
from dicomtorch.dicom.walk import Read
from dicomtorch.errors import HeaderError
from dicomtorch.model.limits import Limits


class _Deflated:
    """The data set of Deflated Explicit VR Little Endian (PS3.5 annex A.5: RFC 1951, no zlib header).

    A megabyte may inflate to a gigabyte. So the pixel data must begin in the first part, which is walked before
    anything else is inflated, and nothing is inflated that stands behind them.
    """

    def __init__(self, read: Read, start: int, size: int, limits: Limits) -> None:
        if size - start > limits.inflated_bytes:
            raise HeaderError(
                f"the deflated data set has {size - start} bytes, more than Limits.inflated_bytes = "
                f"{limits.inflated_bytes}"
            )
        data = read(start, size - start)
        by_ratio = limits.inflated_ratio * len(data) + (64 << 10)
        name, self.most = min(
            (("inflated_bytes", limits.inflated_bytes), ("inflated_ratio", by_ratio)),
            key=lambda limit: limit[1],
        )
        self.excess = (
            f"the data set inflates to more than {self.most} bytes, the most that Limits.{name} = "
            f"{getattr(limits, name)} allows for {len(data)} compressed bytes"
        )
        self.engine = zlib.decompressobj(-zlib.MAX_WBITS)
        self.tail = data
        self.is_cut = False
        self.first = self._take(min(limits.header_bytes, self.most + 1))
        self._check(self.first)

    @property
    def is_partial(self) -> bool:
        """Whether there is more than the first part."""
        return not self.engine.eof and not self.is_cut

    def whole(self, header: Header) -> bytes:
        """All bytes to the end of the pixel data."""
        pixels, inflated = header.pixel_data, self.first
        if self.is_partial and pixels is not None:
            end = self.most + 1
            if pixels.length >= 0:
                end = min(end, pixels.offset + pixels.length)
            if end > len(inflated):
                inflated += self._take(end - len(inflated))
                self._check(inflated)
        if self.is_cut:
            header.notices.append("the deflated data set is cut off")
        return inflated

    def _take(self, most: int) -> bytes:
        try:
            taken = self.engine.decompress(self.tail, most)
        except zlib.error as error:
            raise HeaderError(f"the deflated data set is damaged: {error}") from error
        self.tail = self.engine.unconsumed_tail
        self.is_cut = len(taken) < most and not self.engine.eof
        return taken

    def _check(self, inflated: bytes) -> None:
        if len(inflated) > self.most:
            raise HeaderError(self.excess)
