"""What a worker of Ray Train is given, by the recipe of docs/how-to/distributed.md and by our loaders."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import ray.train
import torch

from dicomtorch import DicomFrames
from tests.support.ranks import loaders, one_way


class Noting:
    """A shard that notes which frames it gives, and compares them with those of the files.

    Args:
        shard: The one of Ray.
        frames: Of the files.
    """

    def __init__(self, shard: Any, frames: DicomFrames) -> None:
        self._shard, self._frames = shard, frames
        self.batches: list[list[int]] = []

    def iter_torch_batches(self, **options: Any) -> Iterator[Any]:
        """Those of Ray."""
        for batch in self._shard.iter_torch_batches(**options):
            positions = batch["index"].tolist()
            for position, image in zip(positions, batch["image"], strict=True):
                assert torch.equal(image, self._frames[position][0])
            self.batches.append(positions)
            yield batch


def note(train: Callable[[], None], folder: str, out: str) -> None:
    """Calls what a worker calls, goes over our loaders, and writes what came to a file of this rank."""
    frames = DicomFrames(folder)
    shard = Noting(ray.train.get_dataset_shard("train"), frames)
    with mock.patch.object(ray.train, "get_dataset_shard", return_value=shard):
        train()
    found: dict[str, Any] = {"shards": shard.batches}
    for drop_last in (False, True):
        for name, make in loaders(frames, drop_last).items():
            found[f"{name}, drop_last={drop_last}"] = one_way(make)
    rank = ray.train.get_context().get_world_rank()
    Path(out, f"{rank}.json").write_text(json.dumps(found))
