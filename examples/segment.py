"""A U-Net that finds an organ in CT slices, its targets straight from SEG and RTSTRUCT files.

    python examples/make_data.py segments data
    python examples/segment.py data/images

The first writes CT series, half of them with a SEG and half with an RTSTRUCT; any folder with images and such files
does. Patients are kept apart, and Dice is measured on those that were not trained on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn

from dicomtorch import BalancedSampler, DicomFrames, FrameLoader


def block(inputs: int, outputs: int) -> nn.Sequential:
    """Two convolutions that keep the size."""
    return nn.Sequential(
        *(nn.Conv2d(inputs, outputs, 3, padding=1), nn.GroupNorm(4, outputs), nn.ReLU()),
        *(nn.Conv2d(outputs, outputs, 3, padding=1), nn.GroupNorm(4, outputs), nn.ReLU()),
    )


class UNet(nn.Module):
    """Takes (B, 1, H, W), Hounsfield units clipped and scaled; gives a score for each label and the background."""

    def __init__(self, labels: int, width: int = 16) -> None:
        super().__init__()
        self.down = nn.ModuleList([block(1, width), block(width, 2 * width)])
        self.middle = block(2 * width, 4 * width)
        self.up = nn.ModuleList([block(6 * width, 2 * width), block(3 * width, width)])
        self.last = nn.Conv2d(width, labels + 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        values = images.clamp(-100, 200) / 100
        kept = []
        for layer in self.down:
            values = layer(values)
            kept.append(values)
            values = nn.functional.max_pool2d(values, 2)
        values = self.middle(values)
        for layer, beside in zip(self.up, reversed(kept), strict=True):
            wide = nn.functional.interpolate(values, size=beside.shape[-2:])
            values = layer(torch.cat([wide, beside], dim=1))
        scores: Tensor = self.last(values)
        return scores


def main() -> None:
    args = arguments()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    index = DicomFrames(args.images).index.images()
    train, validation = (
        DicomFrames(part, masks=True, labels=args.labels, values="modality")
        for part in index.split([0.7, 0.3], by="PatientID")
    )
    # Slices without the organ are most of a scan: half of each batch shall have it.
    sampler = BalancedSampler(train, by=train.masks.has(args.labels[0]), seed=args.seed)
    loader = FrameLoader(
        train, args.batch_size, sampler=sampler, num_threads=args.threads, device=device
    )
    unseen = FrameLoader(validation, args.batch_size, num_threads=args.threads, device=device)

    torch.manual_seed(args.seed)
    model = UNet(len(train.labels)).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), 4e-3)
    for epoch in range(args.epochs):
        loader.set_epoch(epoch)
        model.train()
        for images, masks, _ in loader:
            loss = loss_of(model(images), masks[:, 0].long())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch}  dice {dice(model, unseen):.3f} of {len(validation)}", flush=True)


def loss_of(scores: Tensor, truth: Tensor) -> Tensor:
    """Cross entropy, and what Dice lacks to 1: organs are few of all pixels."""
    shares = scores.softmax(1)[:, 1:]
    wanted = nn.functional.one_hot(truth, scores.shape[1]).movedim(-1, 1)[:, 1:]
    common = (shares * wanted).sum((0, 2, 3))
    both = (shares + wanted).sum((0, 2, 3))
    lacks: Tensor = 1 - (2 * common + 1) / (both + 1)
    return nn.functional.cross_entropy(scores, truth) + lacks.mean()


@torch.no_grad()
def dice(model: UNet, loader: FrameLoader) -> float:
    """Twice the common pixels of prediction and mask over the pixels of both."""
    model.eval()
    common = both = 0
    for images, masks, _ in loader:
        found, truth = model(images).argmax(1), masks[:, 0]
        common += int(((found == truth) & (truth > 0)).sum())
        both += int((found > 0).sum() + (truth > 0).sum())
    return 2 * common / max(both, 1)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("images", type=Path, help="folder of DICOM files, masks among them")
    parser.add_argument("--labels", nargs="+", default=["organ"], help="names, from number 1 on")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2, help="that make batches")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
