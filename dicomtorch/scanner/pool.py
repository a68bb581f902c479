"""Child processes as an executor, for programs without a `__main__` guard, and what becomes of calls when one dies."""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import BrokenExecutor, Executor, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

from dicomtorch.scanner.child import greeted, packed, receive, send

_AHEAD: Final = 2  # calls that a child has: while it makes one, the next is on its way

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def usable_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True, slots=True, eq=False)
class _Call:
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    future: Future[Any]


class ChildProcesses(Executor):
    """An executor whose processes import what they call and nothing of the program that they serve.

    A call whose process dies, whatever killed it, is made again in this process; so are all if none can be started.

    Args:
        processes: How many.
    """

    def __init__(self, processes: int) -> None:
        self._max_workers = processes  # the name that the executors of Python have for it
        self._calls: queue.Queue[_Call | None] = queue.Queue()
        self._closing = False
        self._children: list[subprocess.Popen[bytes]] = []
        with contextlib.suppress(OSError):  # what cannot be started is not missed
            while len(self._children) < processes:
                self._children.append(_start())
        self._threads = [
            threading.Thread(target=self._work, args=(child,), daemon=True, name="dicomtorch-scan")
            for child in self._children or (None,)
        ]
        self._working = set(self._threads)
        for thread in self._threads:
            thread.start()

    def submit(
        self,
        fn: Callable[Parameters, Result],
        /,
        *args: Parameters.args,
        **kwargs: Parameters.kwargs,
    ) -> Future[Result]:
        """Has a function of a module called.

        Args:
            fn: The function.
            *args: Its arguments.
            **kwargs: None.

        Raises:
            RuntimeError: `shutdown` was called.
        """
        if self._closing or kwargs:
            raise RuntimeError("no calls after shutdown, and none with keyword arguments")
        future: Future[Result] = Future()
        self._calls.put(_Call(fn, args, future))
        return future

    def _work(self, child: subprocess.Popen[bytes] | None) -> None:
        """Has a child make calls; when it is gone, the last of these threads makes them itself."""
        pipes = _pipes(child)
        if pipes is not None and not self._until_gone(*pipes):
            return
        while self._is_last():
            call = self._calls.get()
            if call is None:
                return
            if call.future.set_running_or_notify_cancel():
                self._settle_here(call)

    def _until_gone(self, requests: Any, answers: Any) -> bool:
        """Has a child make calls until it is gone, or there are no more; what it leaves is made here.

        Returns:
            Whether it is gone.
        """
        sent: deque[_Call] = deque()
        try:
            while True:
                with contextlib.suppress(queue.Empty):
                    while call := self._next(len(sent)):
                        if data := _begun(call):
                            sent.append(call)
                            send(requests, data)
                    return False
                is_well, result = receive(answers)
                _settle(sent.popleft().future, is_well, result)
        except Exception:  # the end of a pipe, or no answer of ours
            return True
        finally:
            for call in sent:
                self._settle_here(call)

    def _next(self, under_way: int) -> _Call | None:
        """The next call for a child: a second one while it makes the first, as long as there are enough for all.

        Raises:
            queue.Empty: It gets none now.
        """
        if under_way and (under_way == _AHEAD or self._calls.qsize() <= len(self._threads)):
            raise queue.Empty
        return self._calls.get(block=not under_way)

    def _is_last(self) -> bool:
        self._working.discard(threading.current_thread())
        return not self._working

    def _settle_here(self, call: _Call) -> None:
        try:
            answer = True, self._call_here(call)
        except BaseException as error:  # out of memory, for one: nobody must wait for ever
            answer = False, error
        _settle(call.future, *answer)

    def _call_here(self, call: _Call) -> Any:
        if self._closing:
            raise BrokenExecutor("the processes were ended")
        return call.function(*call.arguments)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Ends the children, whatever they are doing; calls that wait are cancelled, and those under way fail.

        Args:
            wait: Always `True`: no thread is left behind.
            cancel_futures: Always `True`.
        """
        self._closing = True
        for child in self._children:
            child.kill()
        with contextlib.suppress(queue.Empty):
            while True:
                if call := self._calls.get_nowait():
                    call.future.cancel()
        for _ in self._threads:
            self._calls.put(None)
        for thread in self._threads:
            thread.join()
        for child in self._children:
            child.wait()
            for pipe in (child.stdin, child.stdout):
                assert pipe is not None
                with contextlib.suppress(OSError):
                    pipe.close()


def _pipes(child: subprocess.Popen[bytes] | None) -> tuple[Any, Any] | None:
    """To and from a child that is ready; `None` if there is none."""
    if child is None:
        return None
    try:
        greeted(child.stdout)  # type: ignore[arg-type]
    except (OSError, EOFError, ValueError):
        return None
    return child.stdin, child.stdout


def _begun(call: _Call) -> bytes:
    """A call as a child gets it; nothing if it was cancelled, or fails because it cannot be sent."""
    if not call.future.set_running_or_notify_cancel():
        return b""
    try:
        return packed((call.function, call.arguments))
    except Exception as error:
        call.future.set_exception(error)
        return b""


def _settle(future: Future[Any], is_well: bool, result: Any) -> None:
    if is_well:
        future.set_result(result)
    else:
        future.set_exception(result)


def _start() -> subprocess.Popen[bytes]:
    if not sys.executable:
        raise OSError("this interpreter has no program of its own")
    return subprocess.Popen(
        # -P: a module in the current folder must not stand in for one of Python's.
        [sys.executable, "-P", "-m", "dicomtorch.scanner.child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=_environment(),
        start_new_session=True,  # Ctrl-C is for the parent
    )


def _environment() -> Mapping[str, Any]:
    """This process's, with the folder of the package among those that modules are looked for in."""
    here = str(Path(__file__).resolve().parents[2])
    found = os.environ.get("PYTHONPATH")
    return os.environ | {"PYTHONPATH": f"{found}{os.pathsep}{here}" if found else here}
