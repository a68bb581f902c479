"""One rank of a distributed run: `torchrun --nproc-per-node 2 ranks.py FOLDER OUT [FRAMEWORK ...]`.

Goes over an epoch with every loader of the table in docs/how-to/distributed.md, stops in the middle, goes on from the
state in another loader, and writes what it was given to OUT.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.utils.data import DataLoader, DistributedSampler

from dicomtorch import (
    DicomFrames,
    FrameLoader,
    GroupBatchSampler,
    LocalShuffleSampler,
    ShuffleSampler,
)

STOP = 2  # batches

Found = dict[str, dict[str, Any]]


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


def order_of(loader: Any) -> Any:
    """What draws."""
    return getattr(loader.sampler, "sampler", loader.sampler)


def one_way(make: Callable[[], Any], take: Any = indices) -> dict[str, Any]:
    """What a rank is given: a whole epoch, and another in two parts.

    Args:
        make: Gives a loader.
        take: Goes over a loader, to its end or for a number of batches, and gives their indices.
    """
    whole = make()
    order_of(whole).set_epoch(1)
    result: dict[str, Any] = {"length": len(whole), "whole": take(whole)}
    first = make()
    order_of(first).set_epoch(1)
    result["first"] = take(first, STOP)
    state = first.state_dict()
    second = make()
    second.load_state_dict(state)
    result["rest"] = take(second)
    if isinstance(whole, FrameLoader):
        result["coverage"] = str(make().check_coverage())
    return result


def with_accelerate(frames: DicomFrames, drop_last: bool) -> Found:
    """The two ways of the table."""
    from accelerate import Accelerator, skip_first_batches

    accelerator = Accelerator(cpu=True)

    def prepared() -> Any:
        alone = ShuffleSampler(frames, seed=3, num_replicas=1, rank=0)
        return accelerator.prepare(DataLoader(frames, 4, sampler=alone, drop_last=drop_last))

    def own() -> Any:
        sampler = ShuffleSampler(frames, seed=3, drop_last=drop_last)
        return accelerator.prepare(FrameLoader(frames, 4, sampler=sampler))

    whole = prepared()
    first = {"length": len(whole), "whole": indices(whole), "first": indices(prepared(), STOP)}
    first["rest"] = indices(skip_first_batches(prepared(), STOP))
    return {"Accelerate, DataLoader": first, "Accelerate, FrameLoader": one_way(own)}


def with_ignite(frames: DicomFrames, drop_last: bool) -> Found:
    """An engine of Ignite over a `FrameLoader`."""
    from ignite.engine import Engine

    def take(loader: FrameLoader[Any], most: int | None = None) -> list[list[int]]:
        seen: list[list[int]] = []
        left = len(loader) - int(loader.state_dict()["batches"])

        def step(engine: Any, batch: Any) -> None:
            seen.append(batch[1]["index"].tolist())
            if len(seen) == most:
                engine.terminate()

        Engine(step).run(loader, max_epochs=1, epoch_length=left)
        return seen

    return {"Ignite, FrameLoader": one_way(_frame_loader(frames, drop_last), take)}


def with_monai(frames: DicomFrames, drop_last: bool) -> Found:
    """A trainer of MONAI over a `FrameLoader`, with our `prepare_batch`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what its import says of its own
        from monai.engines import SupervisedTrainer  # type: ignore[attr-defined]
    from dicomtorch.integrations.monai import prepare_batch

    prepare = prepare_batch("InstanceNumber")

    def take(loader: FrameLoader[Any], most: int | None = None) -> list[list[int]]:
        seen: list[list[int]] = []
        net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(1))

        def noted(batch: Any, device: Any, non_blocking: bool, **options: Any) -> Any:
            seen.append(batch[1]["index"].tolist())
            return prepare(batch, device, non_blocking, **options)

        trainer = SupervisedTrainer(
            device=torch.device("cpu"), max_epochs=1, train_data_loader=loader, network=net,
            optimizer=torch.optim.SGD(net.parameters(), 1e-9), prepare_batch=noted,
            loss_function=lambda scores, numbers: (scores[:, 0] - numbers).square().mean(),
            epoch_length=most or len(loader) - int(loader.state_dict()["batches"]),
        )  # fmt: skip
        trainer.run()
        return seen

    return {"MONAI, FrameLoader": one_way(_frame_loader(frames, drop_last), take)}


def _frame_loader(frames: DicomFrames, drop_last: bool) -> Callable[[], Any]:
    return lambda: FrameLoader(
        frames, 4, sampler=ShuffleSampler(frames, seed=3, drop_last=drop_last)
    )


def with_meshes(frames: DicomFrames, drop_last: bool) -> Found:
    """The data dimension of a mesh: two ranks of data, under FSDP; and one, whose two ranks share a model."""
    from torch.distributed.fsdp import fully_shard

    found: Found = {}
    for shape in ((2, 1), (1, 2)):
        mesh = init_device_mesh("cpu", shape, mesh_dim_names=("dp", "tp"))
        data = mesh["dp"]
        part = {"rank": data.get_local_rank(), "num_replicas": data.size()}

        def make(part: Any = part) -> Any:
            return FrameLoader(
                frames, 4, sampler=ShuffleSampler(frames, seed=3, drop_last=drop_last, **part)
            )

        way = one_way(make)
        way["coverage"] = str(make().check_coverage(group=data.get_group()))
        found[f"mesh {shape[0]} x {shape[1]}, FrameLoader"] = way
        if shape == (2, 1):
            model = torch.nn.Linear(1, 1)
            fully_shard(model, mesh=data)
            for images, _ in make():
                model(images.mean((1, 2, 3))[:, None]).mean().backward()
    return found


FRAMEWORKS = {"accelerate": with_accelerate, "ignite": with_ignite, "monai": with_monai}


def main() -> None:
    """Runs one rank."""
    folder, out = map(Path, sys.argv[1:3])
    dist.init_process_group("gloo")
    frames = DicomFrames(folder)
    result: Found = {}
    warnings.simplefilter("error")
    # What torchdata and MONAI ask of torch.
    warnings.filterwarnings("ignore", r"('set_vital'|`torch\.jit\.\w+`) is deprecated")
    for drop_last in (False, True):
        found: Found = {}
        for name, make in loaders(frames, drop_last).items():
            found[name] = one_way(make)
        found |= with_meshes(frames, drop_last)
        for framework, ways in FRAMEWORKS.items():
            if framework in sys.argv:
                found |= ways(frames, drop_last)
        result |= {f"{name}, drop_last={drop_last}": way for name, way in found.items()}
    (out / f"{dist.get_rank()}.json").write_text(json.dumps(result))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
