"""Short calls that an interrupt does not break off half way.

Python raises what handlers of signals raise, as Ctrl-C does, in the main thread and there between any two steps. What
changes several things that belong together is therefore done by another thread while the main one waits: an interrupt
ends the wait, and the change is made in whole.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Result = TypeVar("Result")


class _Call(Generic[Result]):
    """A call that another thread makes."""

    __slots__ = ("_call", "_error", "_pending", "_result")

    def __init__(self, call: Callable[[], Result]) -> None:
        self._call = call
        self._error: BaseException | None = None
        self._pending = threading.Lock()
        self._pending.acquire()

    def make(self) -> None:
        try:
            self._result = self._call()
        except BaseException as error:
            self._error = error
        finally:
            self._pending.release()

    def result(self) -> Result:
        """What it gave, once it has ended."""
        self._pending.acquire()
        if self._error is not None:
            raise self._error
        return self._result


_calls: queue.SimpleQueue[_Call[object]] = queue.SimpleQueue()
_maker: threading.Thread | None = None


def uninterrupted(call: Callable[[], Result]) -> Result:
    """What a call gives that waits for nothing but locks that are held shortly.

    Raises:
        BaseException: What the call raised, or, while it goes on by itself, what a handler of a signal did.
    """
    if threading.get_ident() != threading.main_thread().ident or not _has_maker():
        return call()
    one = _Call(call)
    _calls.put(one)  # type: ignore[arg-type]
    return one.result()


def _has_maker() -> bool:
    """Starts the thread that makes calls, if there is none yet; whether there is one now."""
    global _maker
    if sys.is_finalizing():  # it does not run any more
        return False
    if _maker is None:
        maker = threading.Thread(
            target=_make_calls, args=(_calls,), name="dicomtorch-uninterrupted", daemon=True
        )
        try:
            maker.start()  # interrupted here, there may be a second one, which does no harm
        except RuntimeError:
            return False
        _maker = maker
    return True


def _make_calls(calls: queue.SimpleQueue[_Call[object]]) -> None:
    while True:
        calls.get().make()


def _forget_maker() -> None:
    global _calls, _maker
    _calls, _maker = queue.SimpleQueue(), None  # a forked child does not have the thread


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_maker)
