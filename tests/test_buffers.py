"""Recycled batch memory: never given out twice, always given back."""

from __future__ import annotations

import gc
import os
import pickle
import random
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from dicomtorch import buffers
from dicomtorch.buffers import new_batch

SHAPE = (4, 1, 256, 128)


@pytest.fixture
def eager_gc():
    old = gc.get_threshold()
    gc.set_threshold(10, 2, 2)
    yield
    gc.set_threshold(*old)


class Cycle:
    """Keeps a tensor alive until the collector comes."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor, self.me = tensor, self


def keep_something(batch: torch.Tensor, chosen: random.Random) -> object:
    kind = chosen.randrange(7)
    if kind == 0:
        return batch[chosen.randrange(len(batch))]
    if kind == 1:
        return np.asarray(batch.numpy()[::2])
    if kind == 2:
        return torch.from_numpy(batch.numpy()[1:])
    if kind == 3:
        return batch.view(-1)[5:90]
    if kind == 4:
        try:
            raise ValueError(batch)
        except ValueError as error:
            return error
    if kind == 5:
        Cycle(batch)
        return None
    return batch.detach()


def first_value(kept: object) -> float:
    if isinstance(kept, Exception):
        kept = kept.args[0]
    return float(kept.reshape(-1)[0])  # type: ignore[attr-defined]


def all_equal(kept: object, value: float) -> bool:
    if isinstance(kept, Exception):
        kept = kept.args[0]
    return bool((kept == value).all())  # type: ignore[attr-defined]


@pytest.mark.usefixtures("eager_gc")
@pytest.mark.parametrize("seed", range(3))
def test_private_batches_never_alias_what_is_alive(seed: int) -> None:
    chosen = random.Random(seed)
    kept: list[tuple[object, float]] = []
    for number in range(400):
        rows = chosen.choice([4, 4, 4, 3, 8])
        batch = new_batch((rows, *SHAPE[1:]), torch.float32)
        batch.fill_(number)
        thing = keep_something(batch, chosen)
        if thing is not None and chosen.random() < 0.3:
            kept.append((thing, float(number)))
        del batch, thing
        if len(kept) > 12:
            kept.pop(chosen.randrange(len(kept)))
        for thing, value in kept:
            assert all_equal(thing, value)


def test_private_memory_comes_back() -> None:
    pointers = set()
    for _ in range(20):
        batch = new_batch(SHAPE, torch.float32)
        pointers.add(batch.data_ptr())
        del batch
    assert len(pointers) <= 2


class Numbers(Dataset):
    """Batches that are full of the number of their first item."""

    def __init__(self, count: int, sizes: bool = False) -> None:
        self.count, self.sizes = count, sizes

    def __len__(self) -> int:
        return self.count

    def __getitems__(self, indices: list[int]) -> list[torch.Tensor]:
        rows = len(indices) + (indices[0] % 3 if self.sizes else 0)
        batch = new_batch((rows, *SHAPE[1:]), torch.float32)
        batch.fill_(indices[0])
        return [batch]


def only(samples: list[torch.Tensor]) -> torch.Tensor:
    return samples[0]


@pytest.mark.usefixtures("eager_gc")
@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("persistent", [False, True])
def test_shared_batches_never_alias_what_is_alive(method: str, persistent: bool) -> None:
    chosen = random.Random(7)
    loader = DataLoader(
        Numbers(160, sizes=True), batch_size=4, num_workers=2, collate_fn=only,
        multiprocessing_context=method, persistent_workers=persistent,
    )  # fmt: skip
    kept: list[tuple[object, float]] = []
    for epoch in range(2 if method == "spawn" else 3):
        for step, batch in enumerate(loader):
            assert all_equal(batch, 4.0 * step)
            thing = keep_something(batch, chosen)
            if thing is not None and chosen.random() < 0.4:
                kept.append((thing, 4.0 * step))
            del batch, thing
            if len(kept) > 10:
                kept.pop(chosen.randrange(len(kept)))
            for thing, value in kept:
                assert all_equal(thing, value)
            if epoch == 1 and step == 20:
                break  # leaving early must not lose or mix anything


def test_batches_kept_take_no_descriptors() -> None:
    loader = DataLoader(Numbers(200), batch_size=4, num_workers=1, collate_fn=only)
    kept, counts = [], []
    for batch in loader:
        kept.append(batch)
        counts.append(len(os.listdir("/proc/self/fd")))
    assert max(counts[5:]) - min(counts[5:]) <= 2, counts
    assert [first_value(batch) for batch in kept] == [4.0 * k for k in range(50)]


def test_segments_are_reused_and_dropped_with_their_workers() -> None:
    loader = DataLoader(Numbers(400), batch_size=4, num_workers=1, collate_fn=only)
    known = set(buffers._attached._mappings)
    for _ in range(3):
        pointers = set()
        for batch in loader:
            pointers.add(batch.data_ptr())
            del batch
        assert len(pointers) <= 6
        assert len(buffers._attached._mappings.keys() - known) <= 8


def test_a_fork_does_not_give_away_the_memory_of_its_parent() -> None:
    known = set(buffers._attached._mappings)
    (batch,) = list(DataLoader(Numbers(4), batch_size=4, num_workers=1, collate_fn=only))
    (key,) = buffers._attached._mappings.keys() - known
    mapping = buffers._attached._mappings[key]
    pid = os.fork()
    if not pid:
        del batch
        gc.collect()
        os._exit(mapping.state)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 1
    del batch
    assert mapping.state == 0


def test_a_second_receiver_gets_a_copy() -> None:
    slots = buffers._Slots()
    batch = slots.batch(SHAPE, torch.float32, 4 * 4 * 256 * 128)
    batch.fill_(3)
    first = pickle.loads(ForkingPickler.dumps(batch))
    second = pickle.loads(ForkingPickler.dumps(batch))
    assert type(first) is type(second) is torch.Tensor
    first.fill_(9)
    assert all_equal(batch, 9)
    assert all_equal(second, 3)


def test_small_batches_are_plain() -> None:
    assert new_batch((2, 3), torch.int16).shape == (2, 3)
