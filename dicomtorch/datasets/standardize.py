"""Mean and standard deviation of each channel: measured over a split, and taken out of samples."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dicomtorch.errors import DicomTorchError, OptionError
from dicomtorch.model.options import FLOAT_DTYPES
from dicomtorch.reader.reader import Frame, FrameReader

_AT_ONCE = 16  # frames


class Statistics(NamedTuple):
    """What `DicomFrames.statistics` measured.

    Attributes:
        mean: Of each channel.
        std: Population standard deviation of each channel.
        frames: How many frames were read.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    frames: int


@dataclass(frozen=True, slots=True)
class Standardization:
    """Subtracts a mean and divides by a standard deviation, one for all channels or one for each.

    Attributes:
        mean: As many as `std`.
        std: Above 0.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def check(self, channels: int) -> None:
        """Refuses images with another number of channels.

        Raises:
            OptionError: There are neither one nor as many means.
        """
        if len(self.mean) not in (1, channels):
            raise OptionError(
                f"normalize has {len(self.mean)} means and deviations, but these images have {channels} channels; "
                f'give as many, or make them with color="rgb" or a list of windows'
            )

    def apply(self, images: Tensor, axis: int, frames: int = 1) -> None:
        """Changes images in place.

        Args:
            images: Floating point.
            axis: Of the channels.
            frames: How many frames the channels are of, each with as many.
        """
        channels = images.shape[axis] // frames
        self.check(channels)
        shape = [1] * images.ndim
        shape[axis] = -1
        times = frames * (channels if len(self.mean) == 1 else 1)
        mean, std = (
            torch.tensor(numbers * times, dtype=torch.float64).view(shape).to(images)
            for numbers in (self.mean, self.std)
        )
        images.sub_(mean).div_(std)


def standardization(normalize: Any, values: str, dtype: str | None) -> Standardization | None:
    """What `normalize=` asks for, where it is more than `PixelOptions` does: by channel, or on display values.

    Raises:
        OptionError: It means nothing.
    """
    if normalize is None or isinstance(normalize, str):
        return None
    if not _is_pair(normalize):
        return None  # refused there
    given = [_numbers(part) for part in normalize]
    if any(part is None for part in given):
        raise OptionError(
            f"normalize={normalize!r} is not a mean and a standard deviation, each a number or one number a channel, "
            f"as in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])"
        )
    plain = all(isinstance(part, int | float | np.number) for part in normalize)
    if plain and values != "display":
        return (
            None  # one mean on modality values: padding becomes 0, which takes the pixels to know
        )
    if values == "stored":
        raise OptionError("normalize acts on modality and display values, not on values='stored'")
    mean, std = given[0] or (), given[1] or ()
    count = max(len(mean), len(std))
    mean, std = (part * count if len(part) == 1 else part for part in (mean, std))
    if len(mean) != len(std) or not all(map(math.isfinite, (*mean, *std))) or min(std) <= 0:
        raise OptionError(
            f"normalize={normalize!r} needs as many finite means as deviations, and these above 0"
        )
    if dtype is not None and dtype not in FLOAT_DTYPES:
        raise OptionError(
            f"dtype={dtype!r} cannot hold what normalize= gives; use a floating point type"
        )
    return Standardization(mean, std)


def _is_pair(given: Any) -> bool:
    return hasattr(given, "__len__") and hasattr(given, "__iter__") and len(given) == 2


def _numbers(given: Any) -> tuple[float, ...] | None:
    """One number or several as a tuple; `None` of anything else."""
    if isinstance(given, Tensor):
        given = given.detach().cpu().numpy()
    array = np.atleast_1d(np.asarray(given, dtype=object if isinstance(given, str) else None))
    if array.ndim != 1 or not array.size or array.dtype.kind not in "iuf":
        return None
    return tuple(array.astype(np.float64).tolist())


def measure(reader: FrameReader, fraction: float, seed: int, skip_failures: bool) -> Statistics:
    """Mean and standard deviation of each channel over some of the frames of a reader, padding left out.

    Args:
        reader: Of the frames.
        fraction: Of the frames, above 0 and at most 1; at least one is read.
        seed: Which ones.
        skip_failures: Whether to pass over frames that cannot be read.

    Raises:
        OptionError: The fraction means nothing, or frames have different numbers of channels.
        DicomTorchError: A frame cannot be read, or none.
    """
    if not 0 < fraction <= 1:
        raise OptionError(f"fraction must be above 0 and at most 1; got {fraction!r}")
    count = len(reader.index)
    most = max(1, round(fraction * count))
    chosen = np.sort(np.random.default_rng(seed).permutation(count)[:most]).tolist()
    options = replace(reader.options, normalize=None, size=None, dtype=None)
    if options.values != "stored":
        options = replace(options, padding=math.nan)
    measured = reader.with_options(options)
    sums = _Sums()
    failure: DicomTorchError | None = None
    for first in range(0, len(chosen), _AT_ONCE):
        for frame in measured.read_many(chosen[first : first + _AT_ONCE]):
            if isinstance(frame, Frame):
                sums.add(frame.image.reshape(len(frame.image), -1).double().numpy())
            elif skip_failures:
                failure = failure or frame
            else:
                raise frame
    if not sums.frames and failure is not None:
        raise failure
    return sums.statistics()


class _Sums:
    """Count, mean and squared deviations of each channel, frame by frame (Chan's update)."""

    def __init__(self) -> None:
        self.frames = 0
        self._count: npt.NDArray[np.float64] = np.zeros(0)
        self._mean: npt.NDArray[np.float64] = np.zeros(0)
        self._squares: npt.NDArray[np.float64] = np.zeros(0)

    def add(self, pixels: npt.NDArray[np.float64]) -> None:
        """Takes in a frame, (channels, pixels)."""
        if not self.frames:
            self._count, self._mean, self._squares = np.zeros((3, len(pixels)))
        if len(pixels) != len(self._mean):
            raise OptionError(
                f"frames have {len(self._mean)} and {len(pixels)} channels, which have no statistics in common; use "
                f'color="rgb" or "gray", or filter the index'
            )
        self.frames += 1
        finite = np.isfinite(pixels)
        count = finite.sum(axis=1)
        mean = np.where(finite, pixels, 0).sum(axis=1) / np.maximum(count, 1)
        squares = (np.where(finite, pixels - mean[:, None], 0) ** 2).sum(axis=1)
        total = np.maximum(self._count + count, 1)
        apart = mean - self._mean
        self._squares = self._squares + squares + apart**2 * self._count * count / total
        self._mean = self._mean + apart * count / total
        self._count = self._count + count

    def statistics(self) -> Statistics:
        """Of all frames so far."""
        std = np.sqrt(self._squares / np.maximum(self._count, 1))
        return Statistics(tuple(self._mean.tolist()), tuple(std.tolist()), self.frames)
