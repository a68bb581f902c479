"""Calls that an interrupt does not break off: wherever it comes, what belongs together is changed together."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any

import pytest

from dicomtorch.storage import uninterrupted as module
from dicomtorch.storage.ahead import Ahead
from dicomtorch.storage.base import ByteRange, Identity
from dicomtorch.storage.range_requests import ranges_ahead
from dicomtorch.storage.uninterrupted import uninterrupted

SIZE = 100
WAIT = 20.0


def interrupted(work: Callable[[], Any], step: int) -> bool:
    """Does work in which Ctrl-C comes at one of the steps of Python; whether there are so many.

    Args:
        work: What is interrupted.
        step: Line or call at which it is, in any module, from 0.
    """
    seen = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal seen
        if frame.f_code is not here and event in ("line", "call"):
            seen += 1
            if seen == step + 1:
                raise KeyboardInterrupt
        return trace

    here = sys._getframe().f_code
    sys.settrace(trace)
    try:
        work()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(None)
    return seen > step


def steps(work: Callable[[], Any]) -> Iterator[int]:
    """Interrupts work at each of its steps in turn; gives their numbers."""
    step = 0
    while interrupted(work, step):
        yield step
        step += 1


class Server:
    """Answers with the number of the range."""

    def __call__(self, wanted: ByteRange) -> memoryview:
        return memoryview(bytes([int(wanted.name) % 256]) * wanted.length)


def at(k: int) -> ByteRange:
    return ByteRange(str(k).encode(), Identity(SIZE, 0), 0, SIZE)


def is_settled(ahead: Ahead[Any, Any]) -> bool:
    """Whether nothing is under way, and what is held is what came and nobody has read."""
    with ahead._lock:
        requests = {id(one): one for one in ahead._where.values()}.values()
        held = sum(one.size for one in requests if one.unread)
        kept = sum(one.size for one in requests if not one.unread)
        return (
            all(one.came for one in requests)
            and all(ahead._where[one] is request for request in requests for one in request.reads)
            and not ahead._running
            and not ahead._queue
            and (ahead._held, ahead._kept_bytes) == (held, kept)
        )


@pytest.mark.parametrize("what", ["ask", "take", "take_many"])
def test_wherever_an_interrupt_comes_others_get_what_they_ask_for(what: str) -> None:
    ahead = ranges_ahead(Server(), 2, 4 * SIZE)
    wanted = [at(k) for k in range(5)]
    works: dict[str, Callable[[], Any]] = {
        "ask": lambda: ahead.ask([*wanted, wanted[0]], now=True),
        "take": lambda: [ahead.take(one) for one in wanted],
        "take_many": lambda: ahead.take_many(wanted),
    }
    with ThreadPoolExecutor(2) as others:
        count = 0
        for count in steps(works[what]):  # noqa: B007
            ahead.ask([wanted[1], wanted[1], wanted[4]])
            got = [others.submit(ahead.take_many, wanted[first:]) for first in (0, 2)]
            for first, each in zip((0, 2), got, strict=True):
                data = each.result(WAIT)
                assert [bytes(one)[0] for one in data] == list(range(first, 5))  # type: ignore[arg-type]
            until = time.monotonic() + WAIT
            while not is_settled(ahead):
                assert time.monotonic() < until
                time.sleep(0.001)
        assert count > 10


def test_an_interrupt_leaves_a_call_whole() -> None:
    done: list[int] = []

    def change() -> int:
        done.append(1)
        time.sleep(0)
        done.append(2)
        return len(done)

    for _ in steps(lambda: uninterrupted(change)):
        assert uninterrupted(lambda: None) is None  # those before it have ended
        assert done in ([], [1, 2])
        done.clear()
    assert done == [1, 2]


def test_what_a_call_raises_is_raised() -> None:
    def fail() -> None:
        raise ValueError("3")

    with pytest.raises(ValueError, match="3"):
        uninterrupted(fail)


def test_only_the_main_thread_has_calls_made() -> None:
    assert uninterrupted(threading.get_ident) != threading.get_ident()
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(lambda: uninterrupted(threading.get_ident) == threading.get_ident())
        assert call.result()


def test_without_another_thread_calls_are_made_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(module, "_maker", None)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert uninterrupted(threading.get_ident) == threading.get_ident()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_has_a_thread_of_its_own() -> None:
    parent = uninterrupted(threading.get_ident)
    assert parent != threading.get_ident()
    child = multiprocessing.get_context("fork").Process(target=uninterrupted, args=(os.getpid,))
    child.start()
    child.join(WAIT)
    child.kill()
    child.join()
    assert child.exitcode == 0
