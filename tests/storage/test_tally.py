"""Requests and bytes, counted without a lock."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from dicomtorch.storage.tally import Tally


def test_requests_of_threads_are_counted_together() -> None:
    tally = Tally()
    assert (tally.requests, tally.size) == (0, 0)
    with ThreadPoolExecutor(4) as pool:
        for each in [pool.submit(tally.add, 1, 10) for _ in range(1000)]:
            each.result()
    assert (tally.requests, tally.size) == (1000, 10_000)
