"""A nodule classifier on crops of CT, with candidates from a CSV file (SeriesInstanceUID, x, y, z in mm, nodule).

    python examples/make_data.py ct data
    python examples/crops.py data/images data/candidates.csv
    torchrun --nproc-per-node 2 examples/crops.py data/images data/candidates.csv

Only the slices that a crop touches are read. Patients are kept apart: candidates go where their series goes. It saves
where it is after every epoch and every --save-every batches; started again, it goes on there.
"""

from __future__ import annotations

import argparse
import gc
import os
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import Subset

from dicomtorch import BalancedSampler, DicomCrops, DicomFrames, FrameLoader

SIZE = (6, 10, 10)


class Network(nn.Module):
    """Takes (B, C, D, H, W), Hounsfield units clipped and scaled to [0, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv3d(1, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.ReLU(), nn.MaxPool3d(2)),
            *(nn.Conv3d(16, 32, 3, padding=1), nn.GroupNorm(4, 32), nn.ReLU()),
            *(nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(32, 2)),
        )

    def forward(self, crops: Tensor) -> Tensor:
        scores: Tensor = self.layers((crops.clamp(-1000, 400) + 1000) / 1400)
        return scores


def main() -> None:
    args = arguments()
    rank, world = 0, 1
    if "RANK" in os.environ:  # started by torchrun
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
        rank, world = dist.get_rank(), dist.get_world_size()
    device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"

    parts = DicomFrames(args.images).index.split([0.75, 0.25], by="PatientID")
    train, validation = (
        DicomCrops(index, args.candidates, SIZE, values="modality", absent="drop")
        for index in parts
    )
    # Real tables have hundreds of candidates for each nodule.
    sampler = BalancedSampler(train, by="nodule", seed=args.seed)
    loader = FrameLoader(
        train, args.batch_size, sampler=sampler, num_threads=args.threads, device=device
    )
    share = Subset(validation, range(rank, len(validation), world))
    validation_loader = FrameLoader(share, args.batch_size, num_threads=args.threads, device=device)

    torch.manual_seed(args.seed)
    model = Network().to(device)
    trained = nn.parallel.DistributedDataParallel(model) if world > 1 else model
    optimizer = torch.optim.AdamW(model.parameters(), 4e-3)
    if args.checkpoint.exists():
        state = torch.load(args.checkpoint, map_location=device)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        loader.load_state_dict(state["loader"])

    def save() -> None:
        if rank == 0:
            part = args.checkpoint.with_suffix(".part")
            saved = {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "loader": loader.state_dict(),
            }
            torch.save(saved, part)
            part.replace(args.checkpoint)

    for epoch in range(loader.state_dict()["epoch"], args.epochs):
        loader.set_epoch(epoch)
        trained.train()
        for step, (crops, meta) in enumerate(loader, 1):
            loss = nn.functional.cross_entropy(trained(crops), meta["nodule"].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step % args.save_every == 0:
                save()
        model.eval()
        sums = torch.zeros(4, device=device)  # right, all, nodules found, nodules
        with torch.no_grad():
            for crops, meta in validation_loader:
                found, nodule = model(crops).argmax(1) == 1, meta["nodule"].to(device) == 1
                counted = (found == nodule, torch.ones_like(nodule), found & nodule, nodule)
                sums += torch.stack([which.sum() for which in counted])
        if world > 1:
            dist.all_reduce(sums)
        if rank == 0:
            right, count, hits, nodules = sums
            print(
                f"epoch {epoch}  accuracy {right / count:.3f} of {count:.0f}  "
                f"sensitivity {hits / nodules:.3f} of {nodules:.0f}",
                flush=True,
            )
        save()
    if world > 1:
        del trained
        gc.collect()  # one that is alive at exit can end the process while gloo shuts down
        dist.destroy_process_group()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("images", type=Path, help="folder of DICOM files")
    parser.add_argument("candidates", type=Path, help="CSV file, a row for each candidate")
    parser.add_argument("--checkpoint", type=Path, default=Path("crops.pt"))
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=8, help="of each process")
    parser.add_argument("--threads", type=int, default=2, help="that make batches")
    parser.add_argument("--save-every", type=int, default=100, help="batches")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
