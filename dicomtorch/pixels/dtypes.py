"""Which dtype holds which values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy.typing as npt
import torch

from dicomtorch.errors import OptionError
from dicomtorch.model.image import ImagePixel
from dicomtorch.model.options import PixelOptions

Array = npt.NDArray[Any]
STORED_DTYPES = (
    torch.uint8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.float32,
    torch.float64,
)
# Whole numbers up to here are exact.
EXACT = {
    torch.float16: 1 << 11,
    torch.bfloat16: 1 << 8,
    torch.float32: 1 << 24,
    torch.float64: 1 << 53,
}


def output_dtype(pixels: Iterable[ImagePixel], options: PixelOptions) -> torch.dtype:
    """The one type of all tensors of a dataset.

    For "stored" it is the smallest of uint8, int16, int32, int64, float32 and float64 that holds all that the headers
    admit; for everything else float32; the user's if that loses nothing.

    Raises:
        OptionError: No type holds them, or the one asked for does not.
    """
    wanted = None if options.dtype is None else torch_dtype(options.dtype)
    if options.values != "stored":
        return wanted or torch.float32
    distinct = list(pixels)
    if wanted is not None:
        for pixel in distinct:
            if not _holds(wanted, pixel):
                raise OptionError(
                    f"dtype={options.dtype!r} does not hold stored values with (0028,0101) BitsStored "
                    f"{pixel.bits_stored}, PixelRepresentation {pixel.pixel_representation} "
                    f"({pixel.stored_dtype}); use dtype=None, or leave such frames out"
                )
        return wanted
    for dtype in STORED_DTYPES:
        if all(_holds(dtype, pixel) for pixel in distinct):
            return dtype
    raise OptionError(
        "no one type holds all stored values: (0028,0101) BitsStored are "
        f"{sorted({pixel.bits_stored for pixel in distinct})}, of them float: "
        f"{any(pixel.is_float for pixel in distinct)}; use values='modality', or leave some frames out"
    )


def torch_dtype(name: str) -> torch.dtype:
    """The torch type of a name that `PixelOptions` accepts."""
    dtype = getattr(torch, name)
    assert isinstance(dtype, torch.dtype)
    return dtype


def _holds(dtype: torch.dtype, pixel: ImagePixel) -> bool:
    if pixel.is_float:
        # float32 and float64 are the only float types that pixel data have.
        return dtype == torch.float64 or (dtype == torch.float32 and pixel.pixel_data_vr == "OF")
    low = -(1 << (pixel.bits_stored - 1)) if pixel.pixel_representation else 0
    high = low + (1 << pixel.bits_stored) - 1
    return holds_range(dtype, low, high)


def holds_range(dtype: torch.dtype, low: int, high: int) -> bool:
    """Whether a type holds all whole numbers from `low` to `high`."""
    if dtype.is_floating_point:
        return max(-low, high) <= EXACT[dtype]
    info = torch.iinfo(dtype)
    return info.min <= low and high <= info.max
