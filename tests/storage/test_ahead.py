"""Ranges that were asked for ahead: each is asked for once while somebody will read it, within a budget."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from dicomtorch.errors import StorageError
from dicomtorch.storage import ahead as module
from dicomtorch.storage.base import ByteRange, Identity
from dicomtorch.storage.range_requests import ranges_ahead

SIZE = 1000


def at(k: int, name: bytes = b"x") -> ByteRange:
    """A range of a thousand bytes; those of one name lie beside each other."""
    return ByteRange(name, Identity(1 << 40, 0), k * SIZE, SIZE)


def alone(k: int) -> ByteRange:
    """The only range of its object."""
    return at(k, str(k).encode())


class Server:
    """Answers with bytes that tell their offsets, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[ByteRange] = []
        self.fails: set[bytes] = set()
        self.goes_on = threading.Event()
        self.goes_on.set()

    def __call__(self, wanted: ByteRange) -> memoryview:
        self.asked.append(wanted)
        assert self.goes_on.wait(30)
        if wanted.name in self.fails:
            raise StorageError("not given")
        first, count = wanted.offset // SIZE, wanted.length // SIZE
        return memoryview(b"".join(bytes([k % 256]) * SIZE for k in range(first, first + count)))


def content(wanted: ByteRange) -> bytes:
    return bytes([wanted.offset // SIZE % 256]) * SIZE


def test_many_ranges_are_waited_for_together() -> None:
    server = Server()
    ahead = ranges_ahead(server, 8, 1 << 30)
    wanted = [alone(5), at(0), at(1), at(0), alone(6)]
    for _ in range(2):
        got = ahead.take_many(wanted)
        assert [bytes(data) for data in got if not isinstance(data, Exception)] == [
            content(one) for one in wanted
        ]
    assert len(server.asked) == 6
    assert (ahead._held, ahead._kept_bytes, ahead._where) == (0, 0, {})


def test_what_is_wrong_with_a_range_is_said_of_it_alone() -> None:
    server = Server()
    server.fails = {b"1", b"x"}
    ahead = ranges_ahead(server, 8, 1 << 30)
    wanted = [alone(0), alone(1), at(0), at(1)]
    ahead.ask([*wanted, *wanted])
    for _ in range(2):
        first, *others = ahead.take_many(wanted)
        assert bytes(first) == content(alone(0))  # type: ignore[arg-type]
        assert all(isinstance(one, StorageError) for one in others)
    assert len({id(one) for one in others}) == 3
    assert (ahead._held, ahead._kept_bytes, ahead._where) == (0, 0, {})


def test_ranges_that_go_with_an_error_are_told_of_it_too() -> None:
    server = Server()
    server.fails = {b"x"}
    ahead = ranges_ahead(server, 8, 1 << 30)
    ahead.ask([at(0), at(0), at(1)])
    with pytest.raises(StorageError):
        ahead.take(at(0))
    assert all(isinstance(one, StorageError) for one in ahead.take_many([at(1), at(0)]))
    assert (ahead._held, ahead._kept_bytes, ahead._where) == (0, 0, {})


def test_what_several_will_read_is_asked_for_once() -> None:
    server = Server()
    ahead = ranges_ahead(server, 8, 1 << 30)
    clips = [[at(k) for k in range(first, first + 16)] for first in range(20)]
    for clip in clips:
        ahead.ask(clip)
    ahead.ask([one for clip in clips[:4] for one in clip], is_known=True)
    for clip in clips:
        ahead.ask(clip, now=True)
        for one in clip:
            assert bytes(ahead.take(one) or b"") == content(one)
    assert sum(one.length for one in server.asked) == 35 * SIZE
    assert len(server.asked) == 20
    assert (ahead._held, ahead._kept_bytes, ahead._where) == (0, 0, {})


def test_what_will_be_read_again_makes_room_for_what_nobody_has_read() -> None:
    server = Server()
    ahead = ranges_ahead(server, 1, 4 * SIZE)
    ahead.ask([alone(0), alone(0), alone(1), alone(1)])
    for k in (0, 1):
        assert ahead.take(alone(k)) is not None
    assert ahead._kept_bytes == 2 * SIZE
    ahead.ask([alone(k) for k in (2, 3, 4, 5)])
    for _ in range(1000):
        if ahead._held == 4 * SIZE:
            break
        time.sleep(0.01)
    assert (ahead._held, ahead._kept_bytes) == (4 * SIZE, 0)
    ahead.take_many([alone(k) for k in (2, 3, 4, 5)])
    assert (ahead._held, ahead._kept_bytes, ahead._where) == (0, 0, {})
    assert ahead.take(alone(0)) is None  # who wants it asks


def test_what_is_kept_is_taken_before_it_makes_room() -> None:
    server = Server()
    ahead = ranges_ahead(server, 4, 2 * SIZE)
    ahead.ask([alone(0), alone(0), alone(1), alone(1)])
    for k in (0, 1):
        assert ahead.take(alone(k)) is not None
    got = ahead.take_many([alone(k) for k in (2, 0, 3, 1)])
    assert [bytes(data)[0] for data in got if not isinstance(data, Exception)] == [2, 0, 3, 1]
    assert len(server.asked) == 4
    assert (ahead._held, ahead._kept_bytes, ahead._where) == (0, 0, {})


def test_a_request_that_somebody_waits_for_is_not_taken_over() -> None:
    server = Server()
    server.goes_on.clear()
    ahead = ranges_ahead(server, 1, 1 << 30)
    ahead.ask([alone(9), at(0), at(1)])  # the first is under way, the others are one request
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(ahead.take_many, [at(0)])
        while not any(one.waiters for one in list(ahead._queue)):
            time.sleep(0.01)
        second = pool.submit(ahead.take, at(1))
        server.goes_on.set()
        (data,) = first.result(30)
        assert bytes(data) == content(at(0))  # type: ignore[arg-type]
        assert bytes(second.result(30) or b"") == content(at(1))


def test_who_waits_goes_first_whatever_is_held() -> None:
    server = Server()
    ahead = ranges_ahead(server, 1, 2 * SIZE)
    ahead.ask([alone(k) for k in range(6)])
    (data,) = ahead.take_many([alone(5)])
    assert bytes(data) == content(alone(5))  # type: ignore[arg-type]
    assert len(server.asked) <= 3
    assert all(ahead.take_many([alone(k) for k in range(5)]))
    assert ahead._held == 0


def test_no_more_are_under_way_than_may_be() -> None:
    server = Server()
    server.goes_on.clear()
    ahead = ranges_ahead(server, 3, 1 << 30)
    ahead.ask([alone(k) for k in range(10)])
    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(ahead.take_many, [alone(k) for k in range(10)])
        with pytest.raises(TimeoutError):
            waits.result(0.2)
        assert len(server.asked) == 3
        server.goes_on.set()
        assert len(waits.result(30)) == 10
    assert len(server.asked) == 10


def test_threads_that_want_the_same_wait_for_one_request() -> None:
    server = Server()
    server.goes_on.clear()
    ahead = ranges_ahead(server, 4, 1 << 30)
    ahead.ask([alone(0)] * 8)
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(ahead.take, alone(0)) for _ in range(8)]
        server.goes_on.set()
        assert all(bytes(one.result(30) or b"") == content(alone(0)) for one in waiting)
    assert len(server.asked) == 1
    assert (ahead._held, ahead._kept_bytes) == (0, 0)


@pytest.mark.parametrize("is_queued", [False, True])
def test_where_no_thread_can_be_started_nobody_waits(
    monkeypatch: pytest.MonkeyPatch, is_queued: bool
) -> None:
    queued: list[tuple[Any, ...]] = []

    class Pool:
        def submit(self, *call: Any) -> None:
            if is_queued:
                queued.append(call)
            raise RuntimeError("can't start new thread")

    server = Server()
    ahead = ranges_ahead(server, 2, 1 << 30)
    with monkeypatch.context() as patch:
        patch.setattr(module, "request_pool", Pool)
        ahead.ask([alone(k) for k in range(5)])
        assert [ahead.take(alone(k)) for k in range(5)] == [None] * 5  # read by who wants them
        (error,) = ahead.take_many([alone(0)])
        assert isinstance(error, StorageError)
        assert "no thread" in str(error)
        assert (ahead._held, ahead._running, ahead._where) == (0, 0, {})
    for work, *arguments in queued:
        work(*arguments)
    assert server.asked == []
    (data,) = ahead.take_many([alone(0)])
    assert bytes(data) == content(alone(0))  # type: ignore[arg-type]
    assert (ahead._held, ahead._running, ahead._where) == (0, 0, {})
