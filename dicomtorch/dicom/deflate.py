"""Deflated data sets: the bytes behind the file meta, inflated as far as they are asked for (PS3.5 A.5)."""

from __future__ import annotations

import zlib

from dicomtorch.dicom.elements import Read
from dicomtorch.dicom.meta import FIRST_READ, read_file_meta
from dicomtorch.errors import HeaderError
from dicomtorch.model.limits import LIMITS, Limits


class Inflater:
    """The data set of Deflated Explicit VR Little Endian (RFC 1951, no zlib header), inflated piece by piece.

    A megabyte may inflate to a gigabyte, so nothing is inflated beyond what is asked for.

    Args:
        read: Positioned read of the file.
        start: Where the deflated bytes begin.
        size: Bytes of the file.
        limits: `inflated_bytes` and `inflated_ratio` bound what comes out.

    Attributes:
        data: What was inflated so far.
        is_cut: The deflated bytes ended before the data set did.

    Raises:
        HeaderError: There are more deflated bytes than may come out.
    """

    def __init__(self, read: Read, start: int, size: int, limits: Limits = LIMITS) -> None:
        if size - start > limits.inflated_bytes:
            raise HeaderError(
                f"the deflated data set has {size - start} bytes, more than Limits.inflated_bytes = "
                f"{limits.inflated_bytes}"
            )
        self._tail = read(start, size - start)
        by_ratio = limits.inflated_ratio * len(self._tail) + (64 << 10)
        name, self._most = min(
            (("inflated_bytes", limits.inflated_bytes), ("inflated_ratio", by_ratio)),
            key=lambda limit: limit[1],
        )
        self._excess = (
            f"the data set inflates to more than {self._most} bytes, the most that Limits.{name} = "
            f"{getattr(limits, name)} allows for {len(self._tail)} compressed bytes"
        )
        self._engine = zlib.decompressobj(-zlib.MAX_WBITS)
        self.data = b""
        self.is_cut = False

    @property
    def is_partial(self) -> bool:
        """Whether there is more than `data`."""
        return not self._engine.eof and not self.is_cut

    def inflate_to(self, end: int) -> bytes:
        """The first `end` bytes of the data set, or all if it has fewer; more if more were asked for before.

        Raises:
            HeaderError: It is damaged, or goes beyond a limit.
        """
        missing = min(end, self._most + 1) - len(self.data)
        if missing > 0 and self.is_partial:
            try:
                taken = self._engine.decompress(self._tail, missing)
            except zlib.error as error:
                raise HeaderError(f"the deflated data set is damaged: {error}") from error
            self._tail = self._engine.unconsumed_tail
            self.is_cut = len(taken) < missing and not self._engine.eof
            self.data += taken
            if len(self.data) > self._most:
                raise HeaderError(self._excess)
        return self.data


def inflate(read: Read, size: int, end: int, limits: Limits = LIMITS) -> bytes:
    """The first `end` bytes of the deflated data set of a file; fewer if it has no more.

    Args:
        read: Positioned read of the file.
        size: Bytes of the file.
        end: How far to inflate.
        limits: What may come out.

    Raises:
        HeaderError: File meta or data set are damaged or cut off, or beyond a limit.
    """
    meta = read_file_meta(read, size, read(0, min(size, FIRST_READ)))
    return Inflater(read, meta.end, size, limits).inflate_to(end)
