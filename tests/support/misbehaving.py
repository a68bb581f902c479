"""A decoder that does to its process what damaged streams do: the first byte of a frame says what."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import numpy as np

from dicomtorch import ImagePixel
from dicomtorch.backends.base import say_once
from dicomtorch.errors import DecodeError

(
    FINE,
    CRASH,
    ABORT,
    LEAVE,
    HANG,
    HUNGRY,
    PANIC,
    BROKEN,
    SIGNED,
    WIDE,
    SPEAK,
    ALLOCATE,
    PAUSE,
    FREE,
    LENGTH,
) = range(15)


class PanicError(BaseException):
    """What a library of another language may raise."""


class Misbehaving:
    """Fills a frame with its second byte, or misbehaves."""

    name = "misbehaving"

    def supports(self, pixel: ImagePixel) -> bool:
        """Everything."""
        return True

    def decode(self, data: Any, pixel: ImagePixel, out: Any = None) -> Any:
        """Does what the first byte says."""
        what = data[0]
        if what == CRASH:
            os.kill(os.getpid(), signal.SIGSEGV)
        if what == ABORT:
            os.abort()
        if what == LEAVE:
            os._exit(3)
        if what == HANG:
            time.sleep(600)
        if what == HUNGRY:
            np.ones(1 << 31, np.uint8).sum()
        if what == ALLOCATE:
            np.ones(data[1] << 20, np.uint8).sum()
        if what == FREE:  # 60 MiB in pieces that glibc keeps for later
            del [np.ones(20 << 20, np.uint8) for _ in range(3)][:]
        if what == PAUSE:
            time.sleep(0.05)
        if what == PANIC:
            raise PanicError("index out of bounds")
        if what == BROKEN:
            raise DecodeError("marker FFC4: counts 300, expected at most 256")
        if what == SPEAK:
            say_once("a table is longer than it should be")
        kind = pixel.stored_dtype.str.replace("u", "i") if what == SIGNED else pixel.stored_dtype
        if what == LENGTH:
            return np.full(pixel.shape, len(data) % 251, kind)
        if what == WIDE:
            return np.zeros((99, *pixel.shape), np.float64)
        return np.full(pixel.shape, data[1], kind)


class Unloadable(Misbehaving):
    """Cannot be had in another process."""

    def __reduce__(self) -> Any:
        return _cannot_be_loaded, ()


def _cannot_be_loaded() -> None:
    raise RuntimeError("its library is gone")


class Needy(Misbehaving):
    """Takes 64 MiB when it is loaded."""

    def __reduce__(self) -> Any:
        return _loaded_at_length, ()


def _loaded_at_length() -> Needy:
    np.ones(64 << 20, np.uint8).sum()
    return Needy()
