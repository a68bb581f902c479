"""Segments of a worker: who gets an address, who gets data, and what is never filled again."""

from __future__ import annotations

import copy
import errno
import gc
import io
import os
import pickle
import threading
from multiprocessing.reduction import ForkingPickler
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from dicomtorch.errors import OptionError
from dicomtorch.pixels import pool, slots
from dicomtorch.pixels.memory import new_batch
from dicomtorch.pixels.segment import FREE, HELD, SENT
from dicomtorch.pixels.slots import SharedBatch, Slots
from tests.support.numbered import NBYTES, SHAPE, Numbers, only

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="memfd is Linux's")


@pytest.fixture
def made() -> Slots:
    return Slots()


def batch_of(made: Slots, number: float = 0.0) -> torch.Tensor:
    return made.batch(SHAPE, torch.float32, NBYTES).fill_(number)


def sent(batch: Any) -> Any:
    return pickle.loads(ForkingPickler.dumps(batch))


def test_a_second_receiver_gets_a_copy(made: Slots) -> None:
    batch = batch_of(made, 3)
    first, second = sent(batch), sent(batch)
    assert type(first) is type(second) is torch.Tensor
    first.fill_(9)
    assert bool((batch == 9).all())
    assert bool((second == 3).all())


def test_a_batch_that_was_changed_in_its_worker_arrives_as_it_is(made: Slots) -> None:
    def filled() -> torch.Tensor:
        batch = batch_of(made)
        return batch.copy_(torch.arange(batch.numel()).view(SHAPE))

    turned, moved, copied = filled(), filled(), filled()
    turned.transpose_(2, 3)
    moved.data = moved * 2
    for batch in (turned, moved, copied):
        assert torch.equal(sent(copy.deepcopy(batch)), batch)
        assert torch.equal(sent(batch), batch)


def through_pickle(batch: torch.Tensor) -> torch.Tensor:
    copied: torch.Tensor = pickle.loads(pickle.dumps(batch))
    return copied


def through_save(batch: torch.Tensor) -> torch.Tensor:
    file = io.BytesIO()
    torch.save({"batch": batch}, file)
    file.seek(0)
    loaded: torch.Tensor = torch.load(file, weights_only=True)["batch"]
    return loaded


@pytest.mark.parametrize("way", [through_pickle, through_save, copy.copy, copy.deepcopy])
@pytest.mark.parametrize("requires_grad", [False, True])
def test_other_picklers_and_copies_get_data(made: Slots, way: Any, requires_grad: bool) -> None:
    batch = batch_of(made, 5)
    batch.requires_grad_(requires_grad)
    other = way(batch)
    assert type(other) is torch.Tensor
    assert other.requires_grad is requires_grad
    assert bool((other == 5).all())
    assert made.slots[0].mapping.state == FREE  # it may still be sent
    received = sent(batch)
    assert received.requires_grad is requires_grad
    assert made.slots[0].mapping.state == HELD
    # What was copied can be sent on, which shares it, if anything, in a way of torch's.
    assert bool((sent(other.detach()) == 5).all())
    assert bool((received == 5).all())


def test_what_was_computed_is_refused_as_torch_refuses_it(made: Slots) -> None:
    weight = torch.ones((), requires_grad=True)
    batch = batch_of(made, 5).mul_(weight)
    with pytest.raises(RuntimeError, match="non-leaf tensor"):
        ForkingPickler.dumps(batch)
    with pytest.raises(RuntimeError, match="deepcopy"):
        copy.deepcopy(batch)


class Archived(Numbers):
    """Keeps what it gives, as pickled bytes."""

    def __getitems__(self, indices: list[int]) -> list[Any]:
        (batch,) = super().__getitems__(indices)
        file = io.BytesIO()
        torch.save(batch, file)
        return [(batch, pickle.dumps(batch), file.getvalue(), copy.copy(batch))]


def test_what_a_worker_pickled_or_saved_is_the_data() -> None:
    kept = []
    for number, (batch, *others) in enumerate(
        DataLoader(Archived(80), 4, num_workers=2, collate_fn=only)
    ):
        kept.append((number, others))
        assert bool((batch == 4 * number).all())
    for number, (pickled, saved, copied) in kept:
        assert bool((pickle.loads(pickled) == 4 * number).all())
        assert bool((torch.load(io.BytesIO(saved), weights_only=True) == 4 * number).all())
        assert bool((copied == 4 * number).all())


def unpicklable() -> Any:
    return lambda: None


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_send_that_fails_leaks_nothing(made: Slots) -> None:
    assert bool((sent(batch_of(made, 1)) == 1).all())  # starts what sends descriptors
    before = descriptors()
    for number in range(20):
        batch = batch_of(made, number)
        with pytest.raises((AttributeError, pickle.PicklingError, TypeError)):
            ForkingPickler.dumps((batch, unpicklable()))
        del batch
        assert bool((sent(batch_of(made, number)) == number).all())
        assert len(made.slots) <= 3
    batch_of(made)
    assert descriptors() <= before + 4


def test_what_is_lost_is_never_filled_again(made: Slots) -> None:
    early = ForkingPickler.dumps(batch_of(made, 1)).tobytes()
    for number in range(5):
        assert bool((sent(batch_of(made, number)) == number).all())
    # It was overtaken, as by a queue of the user's own: the data or an error, never other data.
    with pytest.raises((OptionError, RuntimeError), match=r"is gone|exited unexpectedly"):
        pickle.loads(early)


def test_what_is_kept_is_bounded(made: Slots, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "BUDGET", 3 * NBYTES)
    for _ in range(2):
        batches = [batch_of(made) for _ in range(8)]
        del batches
        batch_of(made)
    assert made.kept() <= 4 * NBYTES
    made.empty()
    assert made.kept() == 0
    assert made.slots == []


@pytest.mark.parametrize("reason", [errno.EPERM, errno.ENOSYS, errno.EMFILE])
def test_a_system_that_refuses_segments(reason: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(name: str) -> int:
        raise OSError(reason, "refused")

    monkeypatch.setattr(os, "memfd_create", refused)
    monkeypatch.setattr(slots, "_has_memfd", True)
    for number, batch in enumerate(
        DataLoader(Numbers(40), 4, num_workers=1, collate_fn=only, multiprocessing_context="fork")
    ):
        assert bool((batch == 4 * number).all())


class Unmappable(Numbers):
    def __getitems__(self, indices: list[int]) -> list[Any]:
        if indices[0] >= 16:
            vars(slots)["Mapping"] = no_mapping
            slots._slots.empty()
        return super().__getitems__(indices)


def no_mapping(descriptor: int, size: int) -> Any:
    raise OSError(errno.ENOMEM, "a batch could not be mapped")


def test_a_batch_that_a_worker_cannot_map_is_a_memory_error() -> None:
    loader = DataLoader(Unmappable(400, sizes=True), 4, num_workers=1, collate_fn=only)
    with pytest.raises(MemoryError, match="no memory for a batch"):
        list(loader)


# --- Forks ------------------------------------------------------------------------------------------


class Forking(Numbers):
    """Forks while it has a batch; the child looks at it for as long as it lives."""

    def __getitems__(self, indices: list[int]) -> list[Any]:
        (batch,) = super().__getitems__(indices)
        read, write = -1, -1
        if indices[0] % 20 == 0:
            read, write = os.pipe()
            if not (pid := os.fork()):
                os.read(read, 1)  # until the parent writes
                os._exit(0 if bool((batch == indices[0]).all()) else 1)
            children.append((pid, read, write))
        elif indices[0] == 196:
            for pid, _, write in children:
                os.write(write, b"x")
                assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, "it changed"
        return [batch]


children: list[tuple[int, int, int]] = []


def test_a_child_of_a_worker_sees_no_other_batch() -> None:
    for number, batch in enumerate(DataLoader(Forking(200), 4, num_workers=1, collate_fn=only)):
        assert bool((batch == 4 * number).all())


def test_a_child_does_not_send_what_its_parent_made(made: Slots) -> None:
    batch = batch_of(made, 7)
    read, write = os.pipe()
    if not (pid := os.fork()):
        as_made = isinstance(batch, SharedBatch) and batch.is_as_made()
        os.write(write, b"\1" if as_made else b"\0")
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(read, 1) == b"\0"
    os.close(read)
    os.close(write)
    (slot,) = made.slots
    made.hold()
    del batch
    assert not slot.is_free
    assert slot.mapping.state != SENT


def test_a_fork_under_contention_leaves_no_lock_behind() -> None:
    stop = threading.Event()

    def claim() -> None:
        while not stop.is_set():
            slots._slots.batch(SHAPE, torch.float32, NBYTES)

    threads = [threading.Thread(target=claim) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(50):
            if not (pid := os.fork()):
                slots._slots.batch(SHAPE, torch.float32, NBYTES)
                new_batch(SHAPE, torch.float32)
                os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        slots._slots.empty()
        gc.collect()
