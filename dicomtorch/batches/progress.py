"""Where a pass over an epoch is, as a state that another run can go on from, and which states it refuses."""

from __future__ import annotations

import operator
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

from torch.utils.data import DistributedSampler

from dicomtorch.batches.epochs import EpochSampler
from dicomtorch.errors import OptionError

_SETTINGS = ("seed", "num_replicas", "shuffle", "drop_last", "replacement")  # of torch's samplers


class Progress:
    """What a state says of one pass.

    Args:
        epoch: Which it is of.
        sampler: The state of the sampler when the pass began.
        checksum: Of the indices of all batches that the loop was given; `None` if not to be had.

    Attributes:
        epoch: As given.
        sampler: As given.
        checksum: As given, and counted on.
        batches: That the loop has been given.
        finished: Whether they were all.
    """

    def __init__(
        self, epoch: int, sampler: dict[str, Any] | None, checksum: int | None = None
    ) -> None:
        self.epoch = epoch
        self.sampler = sampler
        self.checksum = checksum
        self.batches = 0
        self.finished = False

    def skip(self, batches: Iterable[Sequence[Any]], state: dict[str, Any]) -> None:
        """Counts what was given before `state` was made.

        Raises:
            OptionError: The sampler gives others now.
        """
        for indices in batches:
            self.batches += 1
            self.checksum = checksum_with(self.checksum, list(indices))
        expected = state.get("checksum")
        known = expected is not None and self.checksum is not None
        if self.batches != state["batches"] or (known and self.checksum != expected):
            raise OptionError(
                f"the run cannot continue from this state: the sampler gives other indices for the first "
                f"{state['batches']} batches of epoch {self.epoch} now than when the state was made. Use shuffle=True, "
                f"a sampler of this package, or one whose order follows from a seed and its epoch"
            )


def first_checksum(sampler: Any) -> int | None:
    """Where checksums begin; `None` for samplers whose states say all, and may go to another rank."""
    ranked = type(sampler) is DistributedSampler or hasattr(sampler, "state_dict")
    return None if ranked else 0


def checksum_with(checksum: int | None, indices: Sequence[Any]) -> int | None:
    """`checksum` continued with the indices of one batch; `None` if they are nothing that can be compared."""
    if checksum is None:
        return None
    try:
        return zlib.crc32(repr([_plain(i) for i in indices]).encode(), checksum)
    except TypeError:
        return None


def _plain(index: Any) -> Any:
    if isinstance(index, str):
        return index
    if isinstance(index, tuple | list):
        return [_plain(i) for i in index]
    return operator.index(index)


def sampler_state(sampler: Any) -> dict[str, Any] | None:
    """What makes a sampler draw the same order again; `None` if nothing does."""
    state: dict[str, Any] = {"kind": type(sampler).__name__}
    if isinstance(sampler, EpochSampler):
        # Of the pass that begins: what an earlier one gave out is no part of it.
        return state | {"state": sampler.state_dict(sampler.start)}
    if hasattr(sampler, "state_dict"):
        return state | {"state": sampler.state_dict()}
    state["settings"] = _settings(sampler)
    if hasattr(sampler, "epoch"):
        state["epoch"] = sampler.epoch
    if hasattr(sampler, "generator"):
        if sampler.generator is None:
            return None
        state["generator"] = sampler.generator.get_state()
    return state


def _settings(sampler: Any) -> dict[str, Any]:
    """What decides the order, as far as it can be seen."""
    found = {name: getattr(sampler, name, None) for name in _SETTINGS}
    kept = {name: v for name, v in found.items() if isinstance(v, bool | int | float | str)}
    return kept | ({"length": len(sampler)} if hasattr(sampler, "__len__") else {})


def check_sampler(sampler: Any, state: dict[str, Any]) -> None:
    """Refuses the state of another sampler.

    Raises:
        OptionError: Its kind, or what decides its order, differs.
    """
    kind = type(sampler).__name__
    if state.get("kind") != kind:
        raise OptionError(
            f"this state is of a {state.get('kind')}, but here the sampler is a {kind}"
        )
    mine = _settings(sampler) if "settings" in state else {}
    for name, theirs in state.get("settings", {}).items():
        if mine.get(name) != theirs:
            raise OptionError(
                f"the run cannot continue from this state: {name} of its {kind} is {theirs!r}, "
                f"here it is {mine.get(name)!r}"
            )


def restore_sampler(sampler: Any, state: dict[str, Any]) -> None:
    """Makes a sampler draw again what it drew after `sampler_state`."""
    if "state" in state:
        sampler.load_state_dict(state["state"])
    if "epoch" in state:
        sampler.set_epoch(state["epoch"])
    if "generator" in state:
        sampler.generator.set_state(state["generator"])
