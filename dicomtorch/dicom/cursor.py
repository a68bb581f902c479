"""The bytes that a walk over a data set has at hand, and what that walk may cost."""

from __future__ import annotations

import time
from typing import Final

from dicomtorch.dicom.elements import Header, Read
from dicomtorch.dicom.meta import FIRST_READ
from dicomtorch.errors import HeaderError
from dicomtorch.model.limits import Limits

_READ_AFTER_JUMP: Final = 1 << 14
_LARGEST_READ: Final = 1 << 20
_CHECKED: Final = 2048  # elements and items between two looks at the clock


class Cursor:
    """A place in a data set, with the bytes around it.

    `pos` counts from `base`, the file offset of `buffer`.
    """

    def __init__(self, read: Read, size: int, header: Header, limits: Limits) -> None:
        self.read = read
        self.size = size
        self.header = header
        self.limits = limits
        self.buffer = b""
        self.base = self.pos = self.start = 0
        self.skipped = 0  # bytes jumped over without being read
        self.chunk = FIRST_READ
        self.began = time.thread_time()  # not wall time: a slow disk is no damage
        self.elements = self.items_met = 0
        self.clock = -_CHECKED  # elements and items at the last look at it

    def fill(self, at: int, need: int) -> None:
        """Makes `buffer` begin at file offset `at`, with at least `need` bytes."""
        jump = at - self.base - len(self.buffer)
        self.skipped += max(jump, 0)
        self.pos = at - self.base
        self.check(filling=True)
        self.chunk = min(self.chunk * 2, _LARGEST_READ) if jump <= 0 else _READ_AFTER_JUMP
        length = min(max(need, self.chunk), self.size - at)
        buffer = self.read(at, length) if length >= need else b""
        if len(buffer) < max(need, 1):
            raise self.truncated()
        if len(buffer) < length:
            self.size = at + len(buffer)
        self.buffer, self.base, self.pos = buffer, at, 0

    def need(self, length: int) -> None:
        """Makes `buffer` hold at least `length` bytes from `pos` on."""
        if self.pos + length > len(self.buffer):
            self.fill(self.base + self.pos, length)

    def check(self, *, filling: bool = False) -> None:
        """Compares what was walked with the limits; the clock is looked at now and then, and when bytes are read.

        Raises:
            HeaderError: The walk is beyond one; the message names it.
        """
        limits = self.limits
        if self.elements > limits.elements:
            raise self.beyond("elements", limits.elements)
        walked = self.base + self.pos - self.start - self.skipped
        if walked > limits.header_bytes:
            raise self.beyond("header_bytes", limits.header_bytes)
        met = self.elements + self.items_met
        if met - self.clock < _CHECKED and not filling:
            return
        self.clock = met
        allowed = limits.header_seconds + limits.header_seconds_per_16_mib * walked / (16 << 20)
        if time.thread_time() - self.began > allowed:
            raise self.beyond("header_seconds", limits.header_seconds)

    def beyond(self, limit: str, value: float) -> HeaderError:
        """The error that says which limit the header exceeds."""
        return HeaderError(
            f"the header exceeds Limits.{limit} = {value} at offset {self.base + self.pos}; "
            "raise the limit if the file is trusted"
        )

    def truncated(self) -> HeaderError:
        """The error that says that the file ends before its header does."""
        return HeaderError(
            f"the file ends inside its header: the element at offset {self.base + self.pos} does "
            f"not fit into {self.size} bytes; the file is incomplete, get it again"
        )

    def notice(self, text: str) -> None:
        """Adds a notice once."""
        if text not in self.header.notices:
            self.header.notices.append(text)
