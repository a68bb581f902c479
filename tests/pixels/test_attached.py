"""Batches of workers in the process that receives them: opened once, by the right process, and given back."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import time
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from dicomtorch.errors import OptionError
from dicomtorch.pixels import attached, pool
from dicomtorch.pixels.attached import Attached
from dicomtorch.pixels.segment import FREE, HELD, RETIRED, Claims, Mapping
from dicomtorch.pixels.slots import Slots
from tests.support.numbered import NBYTES, SHAPE, Numbers, only

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="memfd is Linux's")


def mappings() -> list[Mapping]:
    return list(attached.attached.mappings())


def batch_of(slots: Slots, number: float = 0.0) -> torch.Tensor:
    return slots.batch(SHAPE, torch.float32, NBYTES).fill_(number)


def test_segments_are_reused() -> None:
    loader = DataLoader(Numbers(400), batch_size=4, num_workers=1, collate_fn=only)
    for _ in range(3):
        pointers = set()
        for batch in loader:
            pointers.add(batch.data_ptr())
            del batch
        assert len(pointers) <= 6


def test_an_address_is_opened_once() -> None:
    message = ForkingPickler.dumps(batch_of(Slots(), 3)).tobytes()
    batch = pickle.loads(message)
    with pytest.raises(OptionError, match="opened before or is gone"):
        pickle.loads(message)
    assert bool((batch == 3).all())
    del batch
    with pytest.raises(OptionError, match="opened before or is gone"):
        pickle.loads(message)


class Sharing(Numbers):
    """Also sends each batch to a third process, by a queue of the user's own."""

    def __init__(self, count: int, queue: Any) -> None:
        super().__init__(count)
        self.queue = queue

    def __getitems__(self, indices: list[int]) -> list[torch.Tensor]:
        (batch,) = super().__getitems__(indices)
        self.queue.put(batch)
        self.queue.close()
        self.queue.join_thread()
        return [batch]


def third(queue: Any, answer: Any) -> None:
    try:
        batch = queue.get()
        answer.send(f"data {float(batch.min())} {float(batch.max())}")
    except OptionError as error:
        answer.send(str(error))


def test_a_third_process_is_told_what_it_got() -> None:
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    mine, theirs = context.Pipe()
    process = context.Process(target=third, args=(queue, theirs))
    process.start()
    (batch,) = list(DataLoader(Sharing(4, queue), 4, num_workers=1, collate_fn=only))
    assert bool((batch == 0).all())
    assert mine.poll(30)
    answer = mine.recv()
    process.join()
    assert "made for process" in answer
    assert f"process {process.pid} cannot open it. Send batch.clone()" in answer


def test_a_batch_that_cannot_be_mapped_is_a_memory_error(monkeypatch: pytest.MonkeyPatch) -> None:
    slots = Slots()
    batch = batch_of(slots)
    monkeypatch.setattr(attached, "Mapping", no_mapping)
    before = len(os.listdir("/proc/self/fd"))
    message = ForkingPickler.dumps(batch)
    with pytest.raises(MemoryError, match=f"no memory for a batch of {NBYTES} bytes"):
        pickle.loads(message)
    del batch
    monkeypatch.undo()
    assert bool((pickle.loads(ForkingPickler.dumps(batch_of(slots, 2))) == 2).all())
    batch_of(slots)
    assert len(slots.slots) == 1
    assert len(os.listdir("/proc/self/fd")) <= before + 3


def no_mapping(descriptor: int, size: int) -> Any:
    raise OSError(12, "a batch could not be mapped")


# --- Given back -------------------------------------------------------------------------------------


def shared_bytes() -> int:
    """Of all segments of batches that this process has mapped."""
    text = Path("/proc/self/maps").read_text()
    ranges = [
        line.split()[0].split("-") for line in text.splitlines() if "dicomtorch-batch" in line
    ]
    return sum(int(end, 16) - int(start, 16) for start, end in ranges)


@pytest.mark.parametrize("persistent", [False, True])
def test_segments_of_ended_workers_are_given_back_when_memory_is_short(persistent: bool) -> None:
    gc.collect()
    pool.give_back()
    before = shared_bytes()
    loader: Any = DataLoader(
        Numbers(400), 4, num_workers=2, collate_fn=only, persistent_workers=persistent
    )
    kept = list(loader)
    assert shared_bytes() - before >= 100 * NBYTES
    if persistent:
        loader._iterator._shutdown_workers()
    del loader
    gc.collect()
    assert all(bool((batch == 4 * k).all()) for k, batch in enumerate(kept))
    del kept
    gc.collect()
    pool.give_back()
    assert shared_bytes() == before


def settled() -> None:
    """Waits for what the collector has to do about the workers of a loader that ended."""
    gc.collect()
    deadline = time.monotonic() + 10
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.01)
    gc.collect()


def test_workers_of_the_next_epoch_go_on_with_the_segments_of_the_last() -> None:
    settled()
    pool.give_back()
    made = []
    for _ in range(5):
        loader: Any = DataLoader(Numbers(200), 4, num_workers=2, collate_fn=only)
        for k, batch in enumerate(loader):
            assert bool((batch == 4 * k).all())
            del batch
        del loader
        settled()
        made.append({id(mapping) for mapping in mappings()})
    # Where the second worker of an epoch needs more than are left, it makes one: not each of them in every epoch.
    assert len(made[-1] & made[1]) >= 2
    assert len(set().union(*made)) <= len(made[0]) + 6
    assert all(mapping.state == FREE for mapping in mappings())


def test_what_was_on_its_way_when_a_loader_was_left_is_free_again() -> None:
    settled()
    pool.give_back()
    for _ in range(4):
        loader: Any = DataLoader(Numbers(400), 4, num_workers=2, collate_fn=only, prefetch_factor=4)
        for k, batch in enumerate(loader):
            assert bool((batch == 4 * k).all())
            if k == 5:
                break
        del loader, batch
        settled()
    assert {mapping.state for mapping in mappings()} == {FREE}
    assert len(mappings()) <= 24


def test_two_loaders_at_once_never_fill_the_same_segment() -> None:
    settled()
    pool.give_back()
    list(DataLoader(Numbers(200), 4, num_workers=2, collate_fn=only))
    settled()
    assert any(mapping.claim for mapping in mappings())
    first, second = (
        iter(DataLoader(Numbers(200), 4, num_workers=2, collate_fn=only)) for _ in "ab"
    )
    kept = []
    for k, (a, b) in enumerate(zip(first, second, strict=True)):
        kept += [(k, a), (k, b)]
        del a, b
        if len(kept) > 12:
            del kept[:4]
        assert all(bool((batch == 4 * n).all()) for n, batch in kept)


def test_a_claim_is_of_one_process_and_ends_with_it() -> None:
    claims = Claims()
    one, other = claims.new(), claims.new()
    there, here = multiprocessing.Pipe()
    context = multiprocessing.get_context("fork")

    def child() -> None:
        there.send((claims.take(one), claims.is_taken(other)))
        there.recv()

    process = context.Process(target=child)
    process.start()
    assert here.recv() == (True, False)
    assert not claims.take(one)
    assert claims.is_taken(one)
    assert not claims.is_taken(other)
    here.send(None)
    process.join()
    assert not claims.is_taken(one)
    assert claims.take(one)


def test_what_is_kept_is_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "BUDGET", 3 * NBYTES)
    slots, parent = Slots(), Attached()
    monkeypatch.setattr(attached, "attached", parent)
    monkeypatch.setattr(pool, "keepers", {"segments": parent})
    batches = [pickle.loads(ForkingPickler.dumps(batch_of(slots, k))) for k in range(8)]
    assert [float(batch.max()) for batch in batches] == list(range(8))
    del batches
    assert parent.kept() == 3 * NBYTES
    assert len(list(parent.mappings())) == 3
    batch_of(slots)
    assert sum(slot.size for slot in slots.slots) <= 3 * NBYTES


def test_a_single_segment_is_kept_whatever_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "BUDGET", NBYTES // 2)
    slots, parent = Slots(), Attached()
    monkeypatch.setattr(attached, "attached", parent)
    monkeypatch.setattr(pool, "keepers", {"segments": parent})
    pointers = {pickle.loads(ForkingPickler.dumps(batch_of(slots))).data_ptr() for _ in range(5)}
    assert len(pointers) == 1


# --- Forks ------------------------------------------------------------------------------------------


def test_a_fork_does_not_give_away_the_memory_of_its_parent() -> None:
    slots = Slots()
    batch = pickle.loads(ForkingPickler.dumps(batch_of(slots, 5)))
    (slot,) = slots.slots
    pid = os.fork()
    if not pid:
        del batch
        gc.collect()
        os._exit(slot.mapping.state)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == HELD
    del batch
    assert slot.mapping.state == RETIRED


def test_a_child_sees_no_other_batch() -> None:
    passing = iter(DataLoader(Numbers(400), 4, num_workers=1, collate_fn=only))
    next(passing)
    held = next(passing)
    read, write = os.pipe()
    if not (pid := os.fork()):
        os.read(read, 1)  # until the parent writes
        os._exit(0 if bool((held.numpy() == 4).all()) else 1)  # threads of torch end at a fork
    del held
    for number, batch in enumerate(passing, 2):
        assert bool((batch == 4 * number).all())
        del batch
    os.write(write, b"x")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_batch_without_a_child_is_filled_again_after_a_fork() -> None:
    slots = Slots()
    first = pickle.loads(ForkingPickler.dumps(batch_of(slots, 1)))
    pointer = first.data_ptr()
    del first
    if not (pid := os.fork()):
        os._exit(0)
    os.waitpid(pid, 0)
    assert [slot.mapping.state for slot in slots.slots] == [FREE]
    assert pickle.loads(ForkingPickler.dumps(batch_of(slots, 2))).data_ptr() == pointer
