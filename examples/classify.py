"""A 2-D classifier with labels from a CSV file (SOPInstanceUID, label), split by patient.

    python examples/make_data.py xrays data
    python examples/classify.py data/images data/labels.csv
    torchrun --nproc-per-node 2 examples/classify.py data/images data/labels.csv

It saves where it is every --save-every batches; started again, it goes on there.
"""

from __future__ import annotations

import argparse
import gc
import os
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import DataLoader, Subset

from dicomtorch import BalancedSampler, DicomFrames

SIZE = (48, 48)


def network() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 5, stride=2), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 32, 5, stride=2), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(32, 2)),
    )


def main() -> None:
    args = arguments()
    rank, world = 0, 1
    if "RANK" in os.environ:  # started by torchrun
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
        rank, world = dist.get_rank(), dist.get_world_size()
    device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"

    # No patient is in both parts, and every joined column is in `meta`.
    index = DicomFrames(args.images).index.join(args.labels, on="SOPInstanceUID")
    train_index, validation_index = index.filter(label=[0, 1]).split([0.75, 0.25], by="PatientID")
    train = DicomFrames(train_index, size=SIZE, color="gray")
    validation = DicomFrames(validation_index, size=SIZE, color="gray")

    sampler = BalancedSampler(train, by="label", seed=args.seed)
    loader = DataLoader(
        train, args.batch_size, sampler=sampler, num_workers=args.workers, drop_last=True
    )
    # Every frame once, also where ranks get unequal shares.
    share = Subset(validation, range(rank, len(validation), world))
    validation_loader = DataLoader(share, args.batch_size, num_workers=args.workers)

    torch.manual_seed(args.seed)
    model = network().to(device)
    trained = nn.parallel.DistributedDataParallel(model) if world > 1 else model
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    if args.checkpoint.exists():
        state = torch.load(args.checkpoint, map_location=device)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        sampler.load_state_dict(state["sampler"])

    def save(used: int) -> None:
        if rank == 0:
            part = args.checkpoint.with_suffix(".part")
            saved = {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "sampler": sampler.state_dict(used),
            }
            torch.save(saved, part)
            part.replace(args.checkpoint)

    for epoch in range(sampler.epoch, args.epochs):
        sampler.set_epoch(epoch)
        used = sampler.start  # samples of this epoch that an earlier run has used
        trained.train()
        for images, meta in loader:
            scores = trained(images.to(device))
            loss = nn.functional.cross_entropy(scores, meta["label"].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            used += len(images)
            if used // args.batch_size % args.save_every == 0:
                save(used)
        correct = torch.zeros(2, device=device)  # and how many
        model.eval()
        with torch.no_grad():
            for images, meta in validation_loader:
                right = model(images.to(device)).argmax(1) == meta["label"].to(device)
                correct += torch.tensor([right.sum(), len(right)], device=device)
        if world > 1:
            dist.all_reduce(correct)
        if rank == 0:
            accuracy = correct[0] / correct[1]
            print(f"epoch {epoch}  accuracy {accuracy:.3f} of {int(correct[1])}", flush=True)
        sampler.set_epoch(epoch + 1)
        save(0)
    if world > 1:
        del trained
        gc.collect()  # one that is alive at exit can end the process while gloo shuts down
        dist.destroy_process_group()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("images", type=Path, help="folder of DICOM files")
    parser.add_argument("labels", type=Path, help="CSV file: SOPInstanceUID, label (0 or 1)")
    parser.add_argument("--checkpoint", type=Path, default=Path("classify.pt"))
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch-size", type=int, default=8, help="of each process")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--save-every", type=int, default=100, help="batches")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
