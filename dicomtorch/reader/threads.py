"""How many threads decode at once, and the pool that has them."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from torch.utils.data import get_worker_info

from dicomtorch.model.image import ImagePixel
from dicomtorch.model.syntaxes import (
    HTJ2K_FAMILY,
    JPEG_2000_FAMILY,
    JPEG_DCT,
    JPEG_LOSSLESS_FAMILY,
    JPEG_LS_FAMILY,
    JPEG_XL_FAMILY,
    RLE_LOSSLESS,
)


class _Limit(threading.local):
    threads = 0


_limit = _Limit()


def limit_threads(threads: int) -> None:
    """What the calling thread reads from now on is decoded by at most so many; its caller has threads of its own."""
    _limit.threads = threads


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usable_threads() -> int:
    """Threads that this process should decode with: its cores, shared among the workers of a `DataLoader`."""
    if _limit.threads:
        return _limit.threads
    worker = get_worker_info()
    return usable_cores() if worker is None else max(1, usable_cores() // worker.num_workers)


FEW = 16
"""Frames up to which it is asked whether threads are worth it."""

_WORTH = 2e6  # nanoseconds of work that are worth another thread: waking one up costs a part of a millisecond
_COSTS = (
    (JPEG_DCT, 1.5),
    ({RLE_LOSSLESS}, 2.0),
    (HTJ2K_FAMILY, 13.0),
    (JPEG_LOSSLESS_FAMILY, 14.0),
    (JPEG_LS_FAMILY, 40.0),
    (JPEG_XL_FAMILY, 50.0),
    (JPEG_2000_FAMILY, 200.0),
)
"""Nanoseconds of a sample, about; uncompressed ones take 0.5."""


def worthwhile_threads(pixels: Sequence[ImagePixel]) -> int:
    """Threads that a few frames should be decoded with, so that each has some milliseconds to do; 1 or more.

    Args:
        pixels: Of the frames.
    """
    work = sum(_cost(pixel) * math.prod(pixel.shape) for pixel in pixels)
    return max(1, int(work / _WORTH))


def _cost(pixel: ImagePixel) -> float:
    for family, cost in _COSTS:
        if pixel.transfer_syntax_uid in family:
            return cost
    return 0.5


_executor: ThreadPoolExecutor | None = None
_executor_lock = threading.Lock()


def decode_pool() -> ThreadPoolExecutor:
    """The threads of this process that decode; made when they are first needed."""
    global _executor
    with _executor_lock:
        if _executor is None:
            _executor = ThreadPoolExecutor(usable_cores(), "dicomtorch-decode")
        return _executor


def _forget_pool() -> None:
    # The threads of an executor do not exist in a forked child, and the lock may be held by one of them.
    global _executor, _executor_lock
    _executor, _executor_lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)
