"""What `dicomtorch_kernels` does for masks, where it is installed: with the same bits as without it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final, Protocol, cast

import numpy as np

from dicomtorch.reader.kernels import JOB, kernels

ABI: Final = 1
_OWN = ("bit", "value", "joins", "low", "high", "area", "first_set", "end_set")
PLANE: Final = np.dtype([(name, np.int64) for name in (*(JOB.names or ()), *_OWN)])


class Module(Protocol):
    """What is used of `dicomtorch_kernels` for masks."""

    def paint_planes(self, planes: Any, prefix: bytes, paths: Any, out: Any, pixels: int, /) -> int:
        """Frames of one bit a pixel, painted one over the other."""

    def paint_runs(
        self, line: Any, first: Any, end: Any, columns: int, value: int, out: Any, /
    ) -> None:
        """Runs of pixels of an image of bytes."""

    def fill_polygons(
        self,
        points: Any,
        counts: Any,
        planes: Any,
        rows: int,
        columns: int,
        scale: tuple[float, float],
        near: float,
        near_squared: float,
        most: int,
        /,
    ) -> bytes | None:
        """The runs of polygons: lines, first columns, columns behind the last."""


@lru_cache(maxsize=1)
def painting() -> Module | None:
    """The compiled kernels, `None` where there are none that paint."""
    module: Any = kernels().module
    found = tuple(getattr(module, name, 0) for name in ("MASKS_ABI", "PLANE_BYTES"))
    return cast(Module, module) if found == (ABI, PLANE.itemsize) else None
