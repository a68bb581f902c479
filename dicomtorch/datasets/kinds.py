"""What samples and batches of a dataset are, for type checkers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
from torch import Tensor

from dicomtorch.batches.metadata import BatchMeta, FrameMeta

Pair = tuple[Tensor, FrameMeta]
"""A sample of a dataset without masks, boxes, targets and transforms."""

PairBatch = tuple[Tensor, BatchMeta]

Triple = tuple[Tensor, Tensor, FrameMeta]
"""A sample of a dataset with masks, without targets and transforms."""

TripleBatch = tuple[Tensor, Tensor, BatchMeta]

Several = slice | Sequence[int] | npt.NDArray[Any]
"""What asks for a batch."""

if TYPE_CHECKING:
    # Known to every checker; at run time Python before 3.13 has no defaults.
    from typing_extensions import TypeVar

    Sample_co = TypeVar("Sample_co", covariant=True, default=Pair)
    Batch_co = TypeVar("Batch_co", covariant=True, default=PairBatch)
else:
    from typing import TypeVar

    Sample_co = TypeVar("Sample_co", covariant=True)
    Batch_co = TypeVar("Batch_co", covariant=True)
