"""Lightning on two processes: every rank has its share of a balanced epoch, no sample twice."""

import sys

import lightning
import torch
from torch.utils.data import DataLoader

from dicomtorch import DicomFrames, ShuffleSampler


class Network(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Sequential(
            torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(), torch.nn.Linear(16, 1)
        )

    def training_step(self, batch, _):
        images, _meta = batch
        loss = self.layer(images).square().mean()
        self.log("loss", loss, batch_size=len(images))  # else it guesses from all of the batch
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


if __name__ == "__main__":
    frames = DicomFrames(sys.argv[1])
    quiet = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    trainer = lightning.Trainer(accelerator="cpu", devices=2, strategy="ddp", max_epochs=1, **quiet)
    trainer.fit(Network(), DataLoader(frames, batch_size=2, sampler=ShuffleSampler(frames)))
    if trainer.is_global_zero:
        print(trainer.global_step)
    torch.distributed.destroy_process_group()  # else its threads may end the process when it exits
