"""One rank of a distributed run: `torchrun --nproc-per-node 2 ranks.py FOLDER OUT`.

Goes over an epoch with every loader of the table in docs/how-to/distributed.md, stops in the middle, goes on from the
state in another loader, and writes what it was given to OUT.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch.utils.data import DataLoader, DistributedSampler

from dicomtorch import (
    DicomFrames,
    FrameLoader,
    GroupBatchSampler,
    LocalShuffleSampler,
    ShuffleSampler,
)

STOP = 2  # batches


def loaders(frames: DicomFrames, drop_last: bool) -> dict[str, Callable[[], Any]]:
    """By name, what makes a loader for this rank."""
    keep: dict[str, Any] = {"drop_last": drop_last}
    found: dict[str, Callable[[], Any]] = {
        "FrameLoader, ShuffleSampler": lambda: FrameLoader(
            frames, 4, sampler=ShuffleSampler(frames, seed=3, **keep)
        ),
        "FrameLoader, LocalShuffleSampler": lambda: FrameLoader(
            frames, 4, sampler=LocalShuffleSampler(frames, window=8, **keep)
        ),
        "FrameLoader, GroupBatchSampler": lambda: FrameLoader(
            frames, None, sampler=GroupBatchSampler(frames, batch_size=3, **keep)
        ),
        "FrameLoader, DistributedSampler": lambda: FrameLoader(
            frames, 4, sampler=DistributedSampler(frames, seed=3, **keep)
        ),
    }
    try:
        from torchdata.stateful_dataloader import StatefulDataLoader
    except ImportError:
        return found
    return found | {
        "StatefulDataLoader, ShuffleSampler": lambda: StatefulDataLoader(
            frames, 4, sampler=ShuffleSampler(frames, seed=3, **keep)
        )
    }


def indices(batches: Iterable[Any], most: int | None = None) -> list[list[int]]:
    """Of each batch, up to so many."""
    found: list[list[int]] = []
    for _, meta in batches:
        found.append(meta["index"].tolist())
        if len(found) == most:
            break
    return found


def one_way(make: Callable[[], Any]) -> dict[str, Any]:
    """What a rank is given: a whole epoch, and another in two parts."""
    whole = make()
    order = getattr(whole.sampler, "sampler", whole.sampler)
    order.set_epoch(1)
    result: dict[str, Any] = {"length": len(whole), "whole": indices(whole)}
    first = make()
    getattr(first.sampler, "sampler", first.sampler).set_epoch(1)
    result["first"] = indices(first, STOP)
    state = first.state_dict()
    second = make()
    second.load_state_dict(state)
    result["rest"] = indices(second)
    if isinstance(whole, FrameLoader):
        result["coverage"] = str(make().check_coverage())
    return result


def with_accelerate(frames: DicomFrames) -> dict[str, Any]:
    """The two ways of the table."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    whole = ShuffleSampler(frames, seed=3, num_replicas=1, rank=0)
    prepared = accelerator.prepare(DataLoader(frames, 4, sampler=whole))
    own = FrameLoader(frames, 4, sampler=ShuffleSampler(frames, seed=3))
    return {
        "Accelerate, DataLoader": {"whole": indices(prepared)},
        "Accelerate, FrameLoader": {"whole": indices(accelerator.prepare(own))},
    }


def main() -> None:
    """Runs one rank."""
    folder, out = map(Path, sys.argv[1:3])
    dist.init_process_group("gloo")
    frames = DicomFrames(folder)
    result: dict[str, Any] = {}
    for drop_last in (False, True):
        for name, make in loaders(frames, drop_last).items():
            result[f"{name}, drop_last={drop_last}"] = one_way(make)
    if "accelerate" in sys.argv:
        result |= with_accelerate(frames)
    (out / f"{dist.get_rank()}.json").write_text(json.dumps(result))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
