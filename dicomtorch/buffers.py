"""Memory for batches."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.utils.data import get_worker_info


def new_batch(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """An uninitialised tensor; in a `DataLoader` worker in shared memory, so that it goes to the parent uncopied.

    Args:
        shape: (B, C, H, W), or any other.
        dtype: Of the elements.
    """
    if get_worker_info() is None:
        return torch.empty(shape, dtype=dtype)
    storage = torch.UntypedStorage._new_shared(  # type: ignore[no-untyped-call]
        math.prod(shape) * dtype.itemsize
    )
    return torch.empty(0, dtype=dtype).set_(storage, 0, shape)  # type: ignore[call-overload,no-any-return]
