"""Passes and their threads when the process forks."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import pytest
from torch.utils.data import Dataset

from dicomtorch.batches import crew
from dicomtorch.batches.loader import FrameLoader
from dicomtorch.errors import OptionError

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="os.fork does not exist")


class Numbers(Dataset[Any]):
    def __len__(self) -> int:
        return 400

    def __getitem__(self, i: int) -> int:
        return i


def together(items: list[int]) -> list[int]:
    return items


def in_child(check: Any, seconds: float = 20.0) -> int:
    """Exit code of a child that runs `check`; one that hangs is ended."""
    if not (pid := os.fork()):
        code = 1
        try:
            check()
            code = 0
        finally:
            os._exit(code)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return -1


def test_a_child_is_told_that_the_pass_is_not_its_own() -> None:
    passing = iter(FrameLoader(Numbers(), 4, num_threads=2, collate_fn=together))
    next(passing)

    def check() -> None:
        with pytest.raises(OptionError, match=f"begun in process {os.getppid()}"):
            next(passing)
        assert not crew._running

    assert in_child(check) == 0
    assert next(passing) == [4, 5, 6, 7]


def test_a_child_begins_a_pass_of_its_own_whatever_its_parent_was_at() -> None:
    loader = FrameLoader(Numbers(), 4, num_threads=3, collate_fn=together)
    expected = list(loader)
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            list(loader)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()

    def check() -> None:
        assert list(FrameLoader(Numbers(), 4, num_threads=2, collate_fn=together)) == expected
        assert list(loader) == expected

    try:
        assert [in_child(check) for _ in range(10)] == [0] * 10
    finally:
        stop.set()
        for thread in threads:
            thread.join()
