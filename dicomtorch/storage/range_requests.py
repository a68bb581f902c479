"""Ranges that are asked for ahead: those of one object that lie near each other share a request."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator

from dicomtorch.storage.ahead import Ahead, Request
from dicomtorch.storage.base import ByteRange
from dicomtorch.storage.spans import coalesce

Fetch = Callable[[ByteRange], memoryview]


class _RangeRequest(Request[ByteRange, memoryview]):
    """A range that others lie in."""

    __slots__ = ("_data", "_fetch", "_whole")

    def __init__(self, fetch: Fetch, whole: ByteRange, reads: dict[ByteRange, int]) -> None:
        super().__init__(reads, whole.length)
        self._fetch = fetch
        self._whole = whole
        self._data = memoryview(b"")

    def fetch(self) -> None:
        self._data = self._fetch(self._whole)

    def given(self, wanted: ByteRange) -> memoryview:
        start = wanted.offset - self._whole.offset
        return self._data[start : start + wanted.length]


class _Ranges:
    """Plans requests; see `ahead.Planner`."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch

    def group(self, wanted: ByteRange) -> Hashable:
        return wanted[:2]

    def requests(self, reads: dict[ByteRange, int]) -> Iterator[_RangeRequest]:
        group = list(reads)
        if len(group) == 1:
            yield _RangeRequest(self._fetch, group[0], reads)
            return
        for block in coalesce([one[2:] for one in group]):
            whole = group[0]._replace(offset=block.offset, length=block.length)
            yield _RangeRequest(
                self._fetch, whole, {group[k]: reads[group[k]] for k in block.numbers}
            )


def ranges_ahead(fetch: Fetch, at_once: int, budget: int) -> Ahead[ByteRange, memoryview]:
    """Ranges that are asked for ahead.

    Args:
        fetch: Gets one range, and raises what is wrong with it.
        at_once: Requests at the same time.
        budget: Bytes that may be on their way or wait to be read.
    """
    return Ahead(_Ranges(fetch), at_once, budget)
