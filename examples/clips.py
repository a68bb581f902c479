"""A clip model: which way something moves in cine loops, with labels from a CSV file (SOPInstanceUID, right).

    python examples/make_data.py cines data
    python examples/clips.py data/images data/labels.csv
    torchrun --nproc-per-node 2 examples/clips.py data/images data/labels.csv

It trains on a random clip of each loop and validates on several that lie evenly, whose scores are averaged. It saves
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

from dicomtorch import DicomClips, DicomFrames, FrameLoader

LENGTH, SIZE = 8, (32, 32)


class Network(nn.Module):
    """Takes (B, T, C, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv3d(1, 16, (3, 5, 5), stride=(1, 2, 2)), nn.BatchNorm3d(16), nn.ReLU()),
            *(nn.Conv3d(16, 32, (3, 5, 5), stride=(1, 2, 2)), nn.BatchNorm3d(32), nn.ReLU()),
            *(nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(32, 2)),
        )

    def forward(self, clips: Tensor) -> Tensor:
        scores: Tensor = self.layers(clips.transpose(1, 2) - 0.3)
        return scores


def main() -> None:
    args = arguments()
    rank, world = 0, 1
    if "RANK" in os.environ:  # started by torchrun
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
        rank, world = dist.get_rank(), dist.get_world_size()
    device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"

    index = DicomFrames(args.images).index.join(args.labels, on="SOPInstanceUID")
    train_index, validation_index = index.filter(right=[0, 1]).split([0.75, 0.25], by="PatientID")
    train = DicomClips(train_index, LENGTH, clips="random", policy="drop", size=SIZE, color="gray")
    validation = DicomClips(
        *(validation_index, LENGTH), clips="uniform", num_clips=3, policy="drop", size=SIZE, color="gray"
    )  # fmt: skip

    sampler = train.sampler(seed=args.seed)
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
        for step, (clips, meta) in enumerate(loader, 1):
            loss = nn.functional.cross_entropy(trained(clips), meta["right"].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step % args.save_every == 0:
                save()
        model.eval()
        # One row for each loop: its scores, its label, and how many clips.
        sums = torch.zeros(len(validation.sequences), 4, device=device)
        with torch.no_grad():
            for clips, meta in validation_loader:
                ones = torch.ones(len(clips), 1, device=device)
                label = meta["right"][:, None].to(device, torch.float32)
                row = torch.cat([model(clips).softmax(1), label, ones], dim=1)
                sums.index_add_(0, meta["sequence"].to(device), row)
        if world > 1:
            dist.all_reduce(sums)
        if rank == 0:
            right = (sums[:, 1] > sums[:, 0]) == (sums[:, 2] > 0)
            print(f"epoch {epoch}  accuracy {right.float().mean():.3f} of {len(sums)}", flush=True)
        save()
    if world > 1:
        del trained
        gc.collect()  # one that is alive at exit can end the process while gloo shuts down
        dist.destroy_process_group()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("images", type=Path, help="folder of DICOM files")
    parser.add_argument("labels", type=Path, help="CSV file: SOPInstanceUID, right (0 or 1)")
    parser.add_argument("--checkpoint", type=Path, default=Path("clips.pt"))
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=8, help="of each process")
    parser.add_argument("--threads", type=int, default=2, help="that make batches")
    parser.add_argument("--save-every", type=int, default=100, help="batches")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
