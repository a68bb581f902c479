"""Private memory: bounded by bytes, given back, and what happens when there is none."""

from __future__ import annotations

import gc
import importlib
import subprocess
import sys

import pytest
import torch

from dicomtorch.pixels import pool
from dicomtorch.pixels.pool import PrivatePool, keepers, with_memory


@pytest.fixture
def private(monkeypatch: pytest.MonkeyPatch) -> PrivatePool:
    """The only one that keeps anything."""
    made = PrivatePool()
    monkeypatch.setattr(pool, "keepers", {"pool": made})
    return made


def bytes_of(private: PrivatePool, nbytes: int) -> torch.Tensor:
    return private.batch((nbytes,), torch.uint8, nbytes)


def test_memory_kept_for_later_follows_the_size(private: PrivatePool) -> None:
    for nbytes in (1 << 16, 1 << 22):
        kept = [bytes_of(private, nbytes) for _ in range(20)]
        del kept
        for _ in range(8):
            pointer = bytes_of(private, nbytes).data_ptr()
        assert bytes_of(private, nbytes).data_ptr() == pointer


def test_memory_of_a_new_size_is_kept_at_once(private: PrivatePool) -> None:
    for nbytes in (1 << 16, 1 << 22, 1 << 16):
        pointers: list[set[int]] = []
        for _ in range(2):
            batches = [bytes_of(private, nbytes) for _ in range(5)]
            pointers.append({batch.data_ptr() for batch in batches})
            del batches
        assert pointers[0] == pointers[1]


def test_what_is_kept_is_bounded_in_bytes(private: PrivatePool) -> None:
    batches = [bytes_of(private, 64 << 20) for _ in range(6)]  # nothing is written: no memory
    assert private.kept() == 0
    del batches
    assert private.kept() == pool.BUDGET == 256 << 20
    batches = [bytes_of(private, 1 << 16) for _ in range(200)]
    del batches
    assert private.kept() <= pool.BUDGET


def test_a_batch_beyond_the_budget_is_recycled_while_a_loader_runs(
    private: PrivatePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "BUDGET", 1 << 20)
    bytes_of(private, 2 << 20)
    assert private.kept() == 0
    user = PrivatePool()
    private.add_user(user)
    batch = [bytes_of(private, 2 << 20) for _ in range(3)]
    pointers = {one.data_ptr() for one in batch}
    batch.clear()
    assert private.kept() == 2 << 20
    assert bytes_of(private, 2 << 20).data_ptr() in pointers
    del user
    gc.collect()
    assert private.kept() == 0


def test_the_last_user_empties_it(private: PrivatePool) -> None:
    users = [PrivatePool() for _ in range(2)]
    for user in users:
        private.add_user(user)
    del user
    bytes_of(private, 1 << 20)
    users.pop()
    assert private.kept() == 1 << 20
    users.pop()
    assert private.kept() == 0


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(12, "Cannot allocate memory"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 4 bytes"),
        RuntimeError("unable to mmap 64 bytes from file </torch_1>: Cannot allocate memory (12)"),
    ],
)
def test_out_of_memory_is_tried_once_more_and_then_said(
    private: PrivatePool, error: Exception
) -> None:
    bytes_of(private, 1 << 20)
    kept: list[int] = []

    def fails(times: int) -> str:
        kept.append(private.kept())
        if len(kept) <= times:
            raise error
        return "made"

    assert with_memory(5, lambda: fails(1)) == "made"
    assert kept == [1 << 20, 0]
    kept.clear()
    with pytest.raises(MemoryError, match="no memory for a batch of 5 bytes"):
        with_memory(5, lambda: fails(2))


def test_other_errors_are_not_tried_again(private: PrivatePool) -> None:
    tried = []

    def fails() -> None:
        tried.append(1)
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        with_memory(5, fails)
    assert len(tried) == 1


LIMITED = """
import resource, sys, torch
from torch.utils.data import DataLoader
from dicomtorch.pixels.memory import new_batch
from tests.support.numbered import Numbers, only
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * 4096 + (600 << 20),) * 2)
list_of = [new_batch((50 << 20,), torch.uint8) for _ in range(4)]
del list_of                          # 200 MiB are kept for later now
assert len(new_batch((500 << 20,), torch.uint8)) == 500 << 20
try:
    new_batch((700 << 20,), torch.uint8)
except MemoryError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space are Linux's")
def test_a_limit_of_the_system_is_a_memory_error() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "no memory for a batch of 734003200 bytes" in done.stdout


def test_all_memory_that_is_kept_is_on_one_list() -> None:
    importlib.import_module("dicomtorch.pixels.memory")
    assert keepers.keys() == {"pool", "segments made", "segments attached"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.bool, torch.int64])
def test_tensors_of_any_type_lie_in_it(private: PrivatePool, dtype: torch.dtype) -> None:
    nbytes = 256 * 300 * dtype.itemsize
    made = private.batch((1, 256, 300), dtype, nbytes)
    assert made.dtype == dtype
    assert made.shape == (1, 256, 300)
    assert made.is_contiguous()
    made.fill_(1)
    part, values = made[0, 5:7], None if dtype == torch.bfloat16 else made.numpy()[0, 3:]
    del made
    gc.collect()
    assert private.kept() == 0  # views of both kinds hold it
    assert part.eq(1).all()
    del part, values
    assert private.kept() >= nbytes
