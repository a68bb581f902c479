"""How many requests were made, and what came."""

from __future__ import annotations

from threading import get_ident


class Tally:
    """Counted by each thread for itself: at a lock that all of them take for each request they would wait."""

    def __init__(self) -> None:
        self._of_thread: dict[int, list[int]] = {}

    def add(self, requests: int, size: int) -> None:
        """Counts requests and bytes of the calling thread."""
        thread = get_ident()
        mine = self._of_thread.get(thread)
        if mine is None:
            mine = self._of_thread[thread] = [0, 0]
        mine[0] += requests
        mine[1] += size

    @property
    def requests(self) -> int:
        """Of all threads."""
        return sum(mine[0] for mine in list(self._of_thread.values()))

    @property
    def size(self) -> int:
        """Bytes of all threads."""
        return sum(mine[1] for mine in list(self._of_thread.values()))
