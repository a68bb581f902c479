"""States: which a run can continue from, and which it refuses."""

from __future__ import annotations

import pickle
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DistributedSampler, RandomSampler, Sampler, WeightedRandomSampler

from dicomtorch.batches.loader import FrameLoader
from dicomtorch.batches.progress import checksum_with
from dicomtorch.errors import OptionError

ITEMS = list(range(48))


def loader_of(sampler: Any, **options: Any) -> FrameLoader:
    return FrameLoader(ITEMS, 8, sampler=sampler, **options)


def after(loader: FrameLoader, batches: int) -> Any:
    """The state in the middle of an epoch, as a file would have it."""
    passing = iter(loader)
    for _ in range(batches):
        next(passing)
    return pickle.loads(pickle.dumps(loader.state_dict()))


class Forgetful(Sampler[int]):
    """A user's own random order, drawn anew each time."""

    def __init__(self, seed: int | None = None) -> None:
        self.random = random.Random(seed)

    def __len__(self) -> int:
        return len(ITEMS)

    def __iter__(self) -> Iterator[int]:
        return iter(self.random.sample(ITEMS, len(ITEMS)))


def test_an_order_that_nobody_can_draw_again_is_refused() -> None:
    state = after(loader_of(Forgetful()), 2)
    resumed = loader_of(Forgetful())
    resumed.load_state_dict(state)
    with pytest.raises(OptionError, match="other indices for the first 2 batches of epoch 0"):
        iter(resumed)
    at_start = loader_of(Forgetful())
    at_start.load_state_dict(loader_of(Forgetful()).state_dict())
    assert sorted(i for batch in at_start for i in batch.tolist()) == ITEMS


def test_an_order_that_comes_out_the_same_is_taken() -> None:
    expected = [batch.tolist() for batch in loader_of(Forgetful(5))]
    state = after(loader_of(Forgetful(5)), 2)
    resumed = loader_of(Forgetful(5))
    resumed.load_state_dict(state)
    assert [batch.tolist() for batch in resumed] == expected[2:]


def test_a_shorter_order_is_refused() -> None:
    state = after(loader_of(ITEMS), 5)
    resumed = loader_of(ITEMS[:16])
    with pytest.raises(OptionError, match="length of its list is 48, here it is 16"):
        resumed.load_state_dict(state)
    resumed = FrameLoader(ITEMS, None, sampler=([0, 1], [2, 3]))
    state = after(resumed, 1) | {"batches": 2, "sampler": {"kind": "tuple"}}
    resumed.load_state_dict(state)
    with pytest.raises(OptionError, match="other indices"):
        iter(resumed)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"num_replicas": 4}, "num_replicas of its DistributedSampler is 2, here it is 4"),
        ({"seed": 1}, "seed of its DistributedSampler is 0, here it is 1"),
        ({"shuffle": False}, "shuffle of its DistributedSampler is True, here it is False"),
    ],
)
def test_a_distributed_sampler_that_draws_another_order_is_refused(
    change: dict[str, Any], problem: str
) -> None:
    def sampler(**options: Any) -> DistributedSampler[Any]:
        return DistributedSampler(ITEMS, **{"num_replicas": 2, "rank": 1} | options)  # type: ignore[arg-type]

    state = after(loader_of(sampler()), 2)
    with pytest.raises(OptionError, match=problem):
        loader_of(sampler(**change)).load_state_dict(state)
    other_rank = loader_of(sampler(rank=0))  # trainers keep the state of one rank for all
    other_rank.load_state_dict(state)
    expected = [batch.tolist() for batch in loader_of(sampler(rank=0))]
    assert [batch.tolist() for batch in other_rank] == expected[2:]


def test_a_generator_over_other_weights_is_refused() -> None:
    def sampler(weights: list[float]) -> WeightedRandomSampler:
        return WeightedRandomSampler(weights, 48, generator=torch.Generator().manual_seed(1))

    state = after(loader_of(sampler([1.0] * 48)), 3)
    resumed = loader_of(sampler([1.0] * 24 + [0.0] * 24))
    resumed.load_state_dict(state)
    with pytest.raises(OptionError, match="other indices"):
        iter(resumed)
    drawn = RandomSampler(ITEMS, replacement=True, generator=torch.Generator())
    state = after(loader_of(drawn), 1)
    with pytest.raises(OptionError, match="replacement of its RandomSampler is True"):
        loader_of(RandomSampler(ITEMS, generator=torch.Generator())).load_state_dict(state)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([1, 2], [np.int64(1), torch.tensor(2)]),
        ([(1, 2), "a"], [(np.int32(1), 2), "a"]),
    ],
)
def test_equal_indices_have_equal_checksums(one: list[Any], other: list[Any]) -> None:
    assert checksum_with(0, one) == checksum_with(0, other)
    assert checksum_with(0, one) != checksum_with(0, one[::-1])
    assert checksum_with(0, one) != checksum_with(1, one)


def test_indices_that_cannot_be_compared_have_none() -> None:
    assert checksum_with(0, [object()]) is None
    assert checksum_with(None, [1]) is None
