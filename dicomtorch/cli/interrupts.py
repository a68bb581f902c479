"""Ctrl-C ends a command, whatever it falls into.

Python drops what a hook of `os.fork` raises, so that an interrupt that comes while a `DataLoader` starts its workers is
lost, and a library that it comes to may make another error of it. Children leave it to their parent.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Final

_SOON: Final = 0.02  # seconds
_START: Final = BaseProcess.start.__code__
_LOADER: Final = os.path.join("torch", "utils", "data", "dataloader.py")


class Interrupts:
    """What came while a command ran.

    Attributes:
        came: Whether an interrupt did.
    """

    def __init__(self) -> None:
        self.came = False
        self._process = os.getpid()

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Interrupts, but not while workers are being started: that is waited for.

        Raises:
            KeyboardInterrupt: None are.
        """
        if os.getpid() != self._process:
            return
        self.came = True
        if not _starts_workers(frame) or not hasattr(signal, "setitimer"):
            raise KeyboardInterrupt
        signal.signal(signal.SIGALRM, self.handle)
        signal.setitimer(signal.ITIMER_REAL, _SOON)


def _starts_workers(frame: FrameType | None) -> bool:
    while frame is not None:
        code = frame.f_code
        if code is _START or (code.co_name == "__init__" and code.co_filename.endswith(_LOADER)):
            return True
        frame = frame.f_back
    return False


@contextlib.contextmanager
def interrupts() -> Iterator[Interrupts]:
    """Handles interrupts, if nobody else does: not where this is no program of its own."""
    found = Interrupts()
    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not usual or threading.current_thread() is not threading.main_thread():
        yield found
        return
    alarm = signal.getsignal(signal.SIGALRM) if hasattr(signal, "SIGALRM") else None
    signal.signal(signal.SIGINT, found.handle)
    try:
        yield found
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if hasattr(signal, "SIGALRM") and signal.getsignal(signal.SIGALRM) == found.handle:
            signal.signal(signal.SIGALRM, alarm)
