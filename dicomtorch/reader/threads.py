"""How many threads decode at once, and the pool that has them."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

from torch.utils.data import get_worker_info


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
