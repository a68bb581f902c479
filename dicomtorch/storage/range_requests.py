"""Ranges that are asked for ahead: those of one object that lie near each other share a request."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator

from dicomtorch.storage.ahead import Ahead, Request
from dicomtorch.storage.base import ByteRange, Identity
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
        if wanted.length == self.size:
            return self._data
        start = wanted.offset - self._whole.offset
        return self._data[start : start + wanted.length]


class _Ranges:
    """Plans requests; see `ahead.Planner`."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch

    def group(self, wanted: ByteRange) -> Hashable:
        return wanted[:2]

    def requests(self, reads: dict[ByteRange, int]) -> Iterator[_RangeRequest]:
        of_object: dict[tuple[bytes, Identity], list[ByteRange]] = {}
        for one in reads:
            of_object.setdefault(one[:2], []).append(one)
        for group in of_object.values():
            if len(group) == 1:
                yield _RangeRequest(self._fetch, group[0], {group[0]: reads[group[0]]})
                continue
            for block in coalesce([one[2:] for one in group]):
                whole = group[0]._replace(offset=block.offset, length=block.length)
                within = {group[k]: reads[group[k]] for k in block.numbers}
                yield _RangeRequest(self._fetch, whole, within)


def ranges_ahead(fetch: Fetch, at_once: int, budget: int) -> Ahead[ByteRange, memoryview]:
    """Ranges that are asked for ahead.

    Args:
        fetch: Gets one range, and raises what is wrong with it.
        at_once: Requests at the same time.
        budget: Bytes that may be on their way or wait to be read.
    """
    return Ahead(_Ranges(fetch), at_once, budget)
