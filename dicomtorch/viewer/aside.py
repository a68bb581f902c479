"""Where the code of a user runs for the viewer: in a forked child, so that no random state of a training changes."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
from multiprocessing.connection import Connection
from typing import Any

import torch

from dicomtorch._forks import ForkedLock
from dicomtorch.errors import DicomTorchError
from dicomtorch.viewer.answer import NotThereError
from dicomtorch.viewer.looked import Opened
from dicomtorch.viewer.training import Training


class UsersError(Exception):
    """The code of a user raised something."""


class Aside:
    """`Training`, of which every method can be asked for; where code of a user may draw random numbers, in a child.

    The child is a fork of this process as it is when it is first asked: what it draws and counts is its own. Where
    there is no fork (Windows) the global generators are put back after each call instead.

    Args:
        opened: What is looked at.
    """

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        dataset = opened.dataset
        calls_user = dataset.transform is not None or dataset.sample_transform is not None
        self._draws = calls_user or opened.loader is not None
        self._lock = ForkedLock()
        forks = hasattr(os, "fork") and self._draws
        self._here = None if forks else Training(opened, self._draws)
        self._child: Any = None
        self._pipe: Connection | None = None

    def ask(self, method: str, *arguments: Any) -> Any:
        """What a method of `Training` returns.

        Raises:
            DicomTorchError: What it raises; `UsersError` for what code of a user raised.
        """
        if self._here is not None and not self._draws:
            return _answered(self._here, method, arguments)[1]
        with self._lock:
            if self._here is not None:
                return _answered(self._here, method, arguments)[1]
            if self._child is None or not self._child.is_alive():
                self._start()
            assert self._pipe is not None
            try:
                self._pipe.send((method, arguments))
                failed, result = self._pipe.recv()
            except (EOFError, OSError) as error:
                self._end()
                raise UsersError(
                    "the process that makes samples for the viewer ended unexpectedly, perhaps in a transform or for "
                    "want of memory; the next look starts it again"
                ) from error
        if failed:
            raise result
        return result

    def renew(self) -> None:
        """Forgets what was made: the next look is at the dataset, the loader and its sampler as they are then."""
        with self._lock:
            self._end()
            if self._here is not None:
                self._here = Training(self._opened, self._draws)

    close = renew

    def _start(self) -> None:
        context: Any = multiprocessing.get_context("fork")
        self._pipe, other = context.Pipe()
        self._child = context.Process(
            target=_serve, args=(self._opened, self._pipe, other), daemon=True
        )
        self._child.start()
        other.close()

    def _end(self) -> None:
        if self._pipe is not None:
            self._pipe.close()
        if self._child is not None:
            self._child.join(1)
            if self._child.is_alive():
                self._child.kill()
                self._child.join()
        self._child = self._pipe = None


def _serve(opened: Opened, parents: Connection, pipe: Connection) -> None:
    """What the child does until the other end is closed."""
    parents.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)  # those of the parent are not here
    training = Training(opened, draws=True)
    with contextlib.suppress(EOFError, OSError):
        while True:
            method, arguments = pipe.recv()
            try:
                pipe.send(_answered(training, method, arguments))
            except (DicomTorchError, NotThereError, UsersError, MemoryError) as error:
                pipe.send((True, type(error)(str(error))))
    sys.stdout.flush()
    os._exit(0)  # nothing that the parent would do at its end


def _answered(training: Training, method: str, arguments: tuple[Any, ...]) -> tuple[bool, Any]:
    try:
        return False, getattr(training, method)(*arguments)
    except (DicomTorchError, NotThereError, MemoryError):
        raise
    except Exception as error:
        kind = type(error).__name__
        raise UsersError(f"making this sample raised {kind}: {error}") from error
