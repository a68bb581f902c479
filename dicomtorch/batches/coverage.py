"""Which samples an epoch gives, over all ranks of a distributed run."""

from __future__ import annotations

import itertools
import operator
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from dicomtorch.batches.epochs import EpochSampler
from dicomtorch.batches.progress import restore_sampler, sampler_state
from dicomtorch.errors import OptionError

_LISTED = 5


@dataclass(frozen=True)
class Coverage:
    """What the ranks of a run get in one epoch.

    Attributes:
        num_samples: Of the dataset.
        batches: That each rank gets.
        missing: Positions that no rank gets.
        repeated: Positions that come more than once, on one rank or several.
    """

    num_samples: int
    batches: tuple[int, ...]
    missing: tuple[int, ...]
    repeated: tuple[int, ...]

    @property
    def is_exact(self) -> bool:
        """Whether each sample comes once, and each rank gets as many batches as the others."""
        return not self.missing and not self.repeated and len(set(self.batches)) == 1

    def __str__(self) -> str:
        ranks = len(self.batches)
        counts = ", ".join(map(str, dict.fromkeys(self.batches)))
        said = [
            f"{self.num_samples:,} samples, {ranks} rank{'s' * (ranks > 1)} of {counts} batches"
        ]
        if len(set(self.batches)) > 1:
            said.append("ranks get different numbers of batches, and wait for each other for ever")
        for what, positions in (("missing", self.missing), ("more than once", self.repeated)):
            if positions:
                listed = ", ".join(map(str, positions[:_LISTED]))
                more = ", ..." if len(positions) > _LISTED else ""
                said.append(f"{len(positions):,} {what} ({listed}{more})")
        return "; ".join(said) if len(said) > 1 else f"{said[0]}: each sample once"


def coverage_of(batches: Iterable[Sequence[Any]], num_samples: int, group: Any = None) -> Coverage:
    """What all ranks get together; every rank calls this, and waits for the others.

    Args:
        batches: The indices of each batch of this rank.
        num_samples: Of the dataset.
        group: Of `torch.distributed`, whose ranks share the data; `None`: all.

    Raises:
        OptionError: Indices are no positions of a dataset.
    """
    mine = [[_position(i) for i in indices] for indices in batches]
    ranks: list[Any] = [mine]
    if dist.is_available() and dist.is_initialized():
        ranks = [None] * dist.get_world_size(group)
        dist.all_gather_object(ranks, mine, group=group)
    seen = Counter(i % num_samples for rank in ranks for indices in rank for i in indices)
    return Coverage(
        num_samples,
        tuple(map(len, ranks)),
        tuple(i for i in range(num_samples) if i not in seen),
        tuple(sorted(i for i, count in seen.items() if count > 1)),
    )


def _position(index: Any) -> int:
    try:
        return operator.index(index)
    except TypeError:
        raise OptionError(
            f"coverage is of positions in a dataset; this sampler gives {type(index).__name__}s"
        ) from None


def drawn(batch_sampler: Iterable[Any], order: Any, most: int | None = None) -> list[list[Any]]:
    """The indices of the first `most` batches of an epoch, or all; the sampler is left as it was."""
    state = sampler_state(order)
    if isinstance(order, EpochSampler):
        order.load_state_dict(order.state_dict(0))
    with torch.random.fork_rng(devices=[]):
        batches = [list(indices) for indices in itertools.islice(batch_sampler, most)]
    if state is not None:
        restore_sampler(order, state)
    return batches
