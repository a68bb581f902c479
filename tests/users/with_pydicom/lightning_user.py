"""The same with pydicom."""

import sys
from pathlib import Path

import lightning
import numpy as np
import pydicom
import torch
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from torch.utils.data import DataLoader, Dataset


class Frames(Dataset):
    def __init__(self, folder):
        self.paths = sorted(Path(folder).rglob("*.dcm"))

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        dcm = pydicom.dcmread(self.paths[i])
        values = apply_voi_lut(apply_modality_lut(dcm.pixel_array, dcm), dcm).astype(np.float32)
        low, high = values.min(), values.max()
        image = torch.from_numpy((values - low) / max(high - low, 1e-6))[None]
        return 1 - image if dcm.PhotometricInterpretation == "MONOCHROME1" else image


class Network(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Sequential(
            torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(), torch.nn.Linear(16, 1)
        )

    def training_step(self, images, _):
        return self.layer(images).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


if __name__ == "__main__":
    trainer = lightning.Trainer(
        accelerator="cpu", devices=2, strategy="ddp", max_epochs=1, barebones=True
    )
    trainer.fit(Network(), DataLoader(Frames(sys.argv[1]), batch_size=2, shuffle=True))
    if trainer.is_global_zero:
        print(trainer.global_step)
    torch.distributed.destroy_process_group()  # else its threads may end the process when it exits
