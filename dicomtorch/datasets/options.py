"""Options that every dataset takes, and what a dataset says of samples that failed."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

import torch
from torch import Tensor

from dicomtorch.backends.base import Backend
from dicomtorch.model.options import Values


@dataclass(frozen=True, slots=True)
class Failure:
    """A frame that could not be read, with `on_error="replace"`.

    Attributes:
        index: Its position in the dataset.
        error: The message, which names file and frame.
        replaced_by: The position that was read instead.
    """

    index: int
    error: str
    replaced_by: int


class ReadOptions(TypedDict, total=False):
    """The options of `DicomFrames` but `size`, for datasets whose samples have a size of their own."""

    backend: str | Backend
    values: Values
    window: Any
    padding: Literal["keep", "fill"] | float
    normalize: str | tuple[float, float] | None
    color: Literal["auto", "rgb", "gray"]
    dtype: torch.dtype | str | None
    tags: Sequence[str]
    transform: Callable[[Tensor], Any] | None
    on_error: Literal["raise", "replace"]
    refresh: bool
    cache_dir: str | os.PathLike[str] | None
    duplicates: Literal["keep", "first", "raise"]
    cache: str | os.PathLike[str] | None
    cache_bytes: int


class FrameOptions(ReadOptions, total=False):
    """The options of `DicomFrames`, for datasets that are made of one."""

    size: tuple[int, int] | None
