"""One rank under Lightning: `torchrun --nproc-per-node 2 lightning_ranks.py FOLDER OUT`; goes on in an epoch."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer

from dicomtorch import DicomFrames, FrameLoader, ShuffleSampler

STOP = 4  # batches


class Model(LightningModule):
    """Notes what it is given, and writes a checkpoint after `STOP` batches."""

    def __init__(self, checkpoint: Path | None) -> None:
        super().__init__()
        self.checkpoint = checkpoint
        self.layer = torch.nn.Linear(1, 1)
        self.seen: list[tuple[int, list[int]]] = []

    def training_step(self, batch: Any, number: int) -> Any:
        """One batch."""
        images, meta = batch
        self.seen.append((self.current_epoch, meta["index"].tolist()))
        return self.layer(images.mean((1, 2, 3))[:, None]).mean()

    def on_train_batch_end(self, *_: Any) -> None:
        """After each batch."""
        if self.global_step == STOP and self.checkpoint is not None:
            self.trainer.save_checkpoint(self.checkpoint)

    def configure_optimizers(self) -> Any:
        """Any."""
        return torch.optim.SGD(self.parameters(), 0.1)


def run(
    folder: Path, drop_last: bool, write: Path | None = None, resume: Path | None = None
) -> Model:
    """Trains two epochs."""
    frames = DicomFrames(folder)
    loader = FrameLoader(frames, 2, sampler=ShuffleSampler(frames, seed=3, drop_last=drop_last))
    model = Model(write)
    Trainer(
        max_epochs=2, devices=2, accelerator="cpu", strategy="ddp", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    ).fit(model, loader, ckpt_path=resume, weights_only=False)  # fmt: skip
    return model


def main() -> None:
    """Two epochs at once, and from the checkpoint, both ways of `drop_last`."""
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`")  # Lightning's of torch
    folder, out = map(Path, sys.argv[1:3])
    found = {}
    for drop_last in (False, True):
        stopped = out / f"{drop_last}.ckpt"
        whole = run(folder, drop_last, write=stopped)
        rest = run(folder, drop_last, resume=stopped)
        found[str(drop_last)] = {"whole": whole.seen, "rest": rest.seen}
    (out / f"{whole.global_rank}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
