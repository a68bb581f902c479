"""What pixels of a slide are that no tile has.

PS3.3 C.8.12.4 (Recommended Absent Pixel CIELab Value), C.10.7.1.1 (how it is encoded).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dicomtorch.errors import OptionError
from dicomtorch.reader.reader import FrameReader
from dicomtorch.series.geometry import Floats
from dicomtorch.series.levels import SlideLevel

Fill = str | float | Sequence[float]
"""The option: "background", or a number for all channels, or one for each."""

_D50 = np.array([0.9642, 1.0, 0.8251])
# XYZ under D50 to linear sRGB, with the Bradford adaptation to D65 (IEC 61966-2-1).
_TO_SRGB = np.array(
    [
        [3.1338561, -1.6168667, -0.4906146],
        [-0.9787684, 1.9161415, 0.0334540],
        [0.0719453, -0.2289914, 1.4052427],
    ]
)
_LUMA = np.array([0.299, 0.587, 0.114])


def srgb_of_cielab(encoded: Sequence[float]) -> Floats:
    """(3,), sRGB in [0, 1] of a CIELab value as DICOM encodes it, relative to D50; clipped to what sRGB has.

    Args:
        encoded: L*, a* and b*, 0 to 65535 each.
    """
    lightness, a, b = np.asarray(encoded, np.float64) / 65535 * (100, 255, 255) - (0, 128, 128)
    y = (lightness + 16) / 116
    cubes = np.array([y + a / 500, y, y - b / 200])
    linear = np.where(cubes > 6 / 29, cubes**3, 3 * (6 / 29) ** 2 * (cubes - 4 / 29))
    rgb = (_TO_SRGB @ (linear * _D50)).clip(0, 1)
    bright = 1.055 * np.power(rgb, 1 / 2.4) - 0.055
    return np.asarray(np.where(rgb <= 0.0031308, 12.92 * rgb, bright))


def fill_of(fill: Any, reader: FrameReader, level: SlideLevel) -> Tensor:
    """(C, 1, 1) in the values of `reader`: what is put where a level has no pixels.

    Args:
        fill: "background": what the files recommend, else white for colour and 0 (dark) for gray; or numbers.
        reader: Of the frames.
        level: Of a slide.

    Raises:
        OptionError: It is something else, or as many numbers as there are no channels.
        DicomTorchError: The options of the reader have no meaning for the frames.
    """
    channels = reader.shape(int(level.positions[0]))[0]
    if isinstance(fill, str) and fill == "background":
        values = _background(reader, level, channels)
    else:
        values = np.atleast_1d(_numbers(fill))
    if len(values) not in (1, channels):
        raise OptionError(
            f"fill has {len(values)} numbers, and tiles of this slide have {channels} channels"
        )
    filled = np.broadcast_to(values, channels).copy()
    return torch.from_numpy(filled).to(reader.dtype).view(-1, 1, 1)


def _numbers(fill: Any) -> Floats:
    try:
        if not isinstance(fill, str | bytes):
            values = np.asarray(fill, np.float64)
            if values.ndim < 2 and values.size and np.isfinite(values).all():
                return values
    except (TypeError, ValueError):
        pass
    raise OptionError(f'fill must be "background", a number, or one for each channel; got {fill!r}')


def _background(reader: FrameReader, level: SlideLevel, channels: int) -> Floats:
    position = int(level.positions[0])
    (lab,) = level.index.gather("RecommendedAbsentPixelCIELabValue", np.array([position]))
    pixel = level.index.image_pixel(position)
    gray = pixel.samples_per_pixel == 1
    known = all(map(math.isfinite, lab))
    color = srgb_of_cielab(lab) if known else np.full(3, 0.0 if gray else 1.0)
    shown = color if channels == 3 else np.array([_LUMA @ color])
    if reader.options.values == "display":
        return shown
    if pixel.photometric_interpretation == "MONOCHROME1":
        shown = 1 - shown
    stored = np.asarray(np.rint(shown * ((1 << pixel.bits_stored) - 1)))
    if reader.options.values == "stored":
        return stored
    values = level.index.frame_values(position)
    rescale = (values.rescale_slope, values.rescale_intercept)
    slope, intercept = rescale if all(map(math.isfinite, rescale)) else (1.0, 0.0)
    modality = stored * slope + intercept
    if isinstance(reader.options.normalize, tuple):
        mean, deviation = reader.options.normalize
        return np.asarray((modality - mean) / deviation)
    return np.asarray(modality)
