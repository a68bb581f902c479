"""What tests of the compiled kernels share."""

from __future__ import annotations

import os
from typing import Any

import pytest

from dicomtorch.reader import kernels as k
from tests.support.requirements import require


@pytest.fixture
def module() -> k.Module:
    require("dicomtorch_kernels")
    if os.environ.get("DICOMTORCH_KERNELS") == "0":
        pytest.skip("DICOMTORCH_KERNELS=0 leaves them out")
    found = k.kernels()
    assert found.module is not None, found.reason
    return found.module


class Calls(list[int]):
    """Frames that each call of the kernels delivered from files, from memory, and how many were converted alone."""

    converted = 0

    def __init__(self) -> None:
        super().__init__()
        self.from_memory: list[int] = []


@pytest.fixture
def counted(module: k.Module, monkeypatch: pytest.MonkeyPatch) -> Calls:
    """What the kernels did."""
    calls = Calls()

    class Counting:
        def __getattr__(self, name: str) -> Any:
            return getattr(module, name)

        def read(self, jobs: Any, *arguments: Any) -> int:
            failed = module.read(jobs, *arguments)
            calls.append(len(jobs) - failed)
            return failed

        def read_memory(self, jobs: Any, *arguments: Any) -> int:
            failed = module.read_memory(jobs, *arguments)
            calls.from_memory.append(len(jobs) - failed)
            return failed

        def convert(self, *arguments: Any) -> int:
            calls.converted += 1
            return module.convert(*arguments)

    monkeypatch.setattr(k, "kernels", lambda: k.Kernels(Counting()))
    return calls
