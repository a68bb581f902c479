"""How much memory this process may take for a frame; only Linux says how much it has."""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
from collections.abc import Callable

_NAMES = [
    "arena",
    "ordblks",
    "smblks",
    "hblks",
    "hblkhd",
    "usmblks",
    "fsmblks",
    "uordblks",
    "fordblks",
    "keepcost",
]


class MemoryLimit:
    """How many bytes this process may take more than it uses.

    It stays from one frame to the next, since each of its steps is a call of the system.
    """

    def __init__(self) -> None:
        self._before, self._highest = resource.getrlimit(resource.RLIMIT_AS)
        self._now = self._before
        self._set: tuple[int, int] | None = None
        self._free = _what_says_how_much_is_free()
        try:
            self._pages = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._pages = -1

    def set(self, most: int) -> None:
        """Allows `most` bytes more than are in use.

        What frames before have freed and the C library keeps counts as free: else each frame could take as much again.
        """
        if self._pages < 0:
            return
        pages = int(os.pread(self._pages, 64, 0).split(None, 1)[0])
        if self._set == (pages, most):
            return
        allowed = pages * mmap.PAGESIZE - self._free() + most
        if self._highest != resource.RLIM_INFINITY:
            allowed = min(allowed, self._highest)
        self._become(allowed)
        self._set = pages, most

    def lift(self) -> None:
        """Allows what was allowed when the process began."""
        self._become(self._before)
        self._set = None

    def _become(self, allowed: int) -> None:
        if allowed != self._now:
            resource.setrlimit(resource.RLIMIT_AS, (allowed, self._highest))
            self._now = allowed


def _what_says_how_much_is_free() -> Callable[[], int]:
    """Counts the bytes that `malloc` has from the system and nobody uses; 0 where it does not say."""
    library = ctypes.CDLL(None)
    for name, number in (("mallinfo2", ctypes.c_size_t), ("mallinfo", ctypes.c_uint)):
        function = getattr(library, name, None)
        if function is not None:  # glibc, before 2.33 in numbers of 32 bits
            fields = [(field, number) for field in _NAMES]
            function.restype = type("_Mallinfo", (ctypes.Structure,), {"_fields_": fields})
            return lambda: int(function().fordblks)
    return lambda: 0
