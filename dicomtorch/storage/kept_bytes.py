"""Bytes that take time to get, of which the last ones are kept for all threads of a process."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from dicomtorch._forks import ForkedLock
from dicomtorch.storage.uninterrupted import uninterrupted

KEPT_BYTES: Final = 256 << 20
"""That are kept of one kind by a process; what is larger is kept alone."""
_LOCKS: Final = 16


class KeptBytes:
    """The bytes that were made last; a thread that wants some that another is making waits for them.

    Args:
        most: Bytes that are kept.

    Attributes:
        size: Bytes that are there.
    """

    def __init__(self, most: int = KEPT_BYTES) -> None:
        self._most = most
        self._kept: OrderedDict[object, bytes] = OrderedDict()
        self._lock = ForkedLock()
        self._making = [ForkedLock() for _ in range(_LOCKS)]
        self.size = 0

    def made(self, key: object, make: Callable[[], bytes]) -> bytes:
        """What is kept by the name of `key`, else what `make` gives, which is kept then."""
        data = self._find(key)
        if data is None:
            with self._making[hash(key) % _LOCKS]:
                data = self._find(key)
                if data is None:
                    made = data = make()
                    uninterrupted(lambda: self._keep(key, made))
        return data

    def holds(self, key: object) -> bool:
        """Whether nothing has to be made."""
        with self._lock:
            return key in self._kept

    def _find(self, key: object) -> bytes | None:
        with self._lock:
            data = self._kept.get(key)
            if data is not None:
                self._kept.move_to_end(key)
            return data

    def _keep(self, key: object, data: bytes) -> None:
        with self._lock:
            self._kept[key] = data
            self.size += len(data)
            while self.size > self._most and len(self._kept) > 1:
                self.size -= len(self._kept.popitem(last=False)[1])
