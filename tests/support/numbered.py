"""Batches that are full of one number, so that a pixel from elsewhere shows."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import Dataset

from dicomtorch.pixels.memory import new_batch

SHAPE = (4, 1, 256, 128)
NBYTES = 4 * 256 * 128 * 4


class Numbers(Dataset[Any]):
    """Batches that are full of the number of their first item."""

    def __init__(self, count: int, sizes: bool = False, rows: int = 4) -> None:
        self.count, self.sizes, self.rows = count, sizes, rows

    def __len__(self) -> int:
        return self.count

    def __getitems__(self, indices: list[int]) -> list[torch.Tensor]:
        rows = self.rows + (indices[0] % 3 if self.sizes else 0)
        return [new_batch((rows, *SHAPE[1:]), torch.float32).fill_(indices[0])]


def only(samples: list[torch.Tensor]) -> torch.Tensor:
    return samples[0]
