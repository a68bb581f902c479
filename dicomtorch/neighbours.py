"""`DicomFrames(context=k)`: the frames before and after a frame as further channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dicomtorch.attributes import PixelOptions
from dicomtorch.errors import DicomTorchError, GeometryError
from dicomtorch.index import FrameIndex, printable
from dicomtorch.reader import Frame, FrameReader
from dicomtorch.sequences import FrameSequences, time_sequences
from dicomtorch.stacking import REPEATED, StackList, stacks

Ints = npt.NDArray[np.int64]
Edge = Literal["repeat", "reflect"]

_LISTED = 4  # files in a message


def frame_order(index: FrameIndex) -> FrameSequences:
    """Every frame in one run of neighbours: slices of a stack by position, others by time.

    Raises:
        GeometryError: Slices lie at one place and nothing tells them apart, or some are copies.
    """
    runs = time_sequences(index)
    number = np.empty(len(index), np.int64)
    rank = np.empty(len(index), np.int64)
    number[runs.order] = np.repeat(np.arange(len(runs)), runs.lengths)
    rank[runs.order] = np.arange(len(index))
    found = stacks(index, on_gap="keep")
    _check_repeats(index, found)
    for k, stack in enumerate(found):
        number[stack.positions] = len(runs) + k
        rank[stack.positions] = np.arange(len(stack))
    order = np.lexsort((rank, number))
    starts = np.append(np.flatnonzero(np.diff(number[order], prepend=-1)), len(index))
    return FrameSequences(order, starts, np.full(len(index), np.nan))


def _check_repeats(index: FrameIndex, found: StackList) -> None:
    repeated = [part.positions for part in found.left_out if part.reason == REPEATED]
    names = [printable(index.path(i)) for part in repeated for i in part.tolist()]
    names += [name for stack in found for name in stack.report.duplicates]
    if names:
        more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
        raise GeometryError(
            f"several slices are at one place and nothing tells them apart, so that they have no neighbours: "
            f"{', '.join(names[:_LISTED])}{more}. Leave copies out with index.deduplicate(), others with index.select"
        )


class ContextReader:
    """Reads each frame with the `context` frames before and after it, all with one mapping to display.

    Has what datasets use of a `FrameReader`; images have (2 context + 1) C channels, earlier frames first.

    Args:
        reader: Reads the frames.
        context: Frames on each side.
        edge: Beyond the first and last frame: "repeat" those, or "reflect" at them.
    """

    def __init__(self, reader: FrameReader, context: int, edge: Edge) -> None:
        self._reader = reader
        self._context = context
        self._edge = edge
        runs = frame_order(reader.index)
        self._order = runs.order
        self._place = np.empty_like(runs.order)
        self._place[runs.order] = np.arange(len(runs.order))
        self._first = np.repeat(runs.starts[:-1], runs.lengths)
        self._length = np.repeat(runs.lengths, runs.lengths)
        self._independent = _is_independent(reader.options)

    @property
    def index(self) -> FrameIndex:
        """The index."""
        return self._reader.index

    @property
    def options(self) -> PixelOptions:
        """What is asked of the pixels."""
        return self._reader.options

    @property
    def dtype(self) -> torch.dtype:
        """Of the images."""
        return self._reader.dtype

    def neighbours(self, positions: Sequence[int] | Ints) -> Ints:
        """Positions of the frames of each sample, (len(positions), 2 context + 1)."""
        place = self._place[np.asarray(positions, np.int64)][:, None]
        first, length = self._first[place], self._length[place]
        within = place - first + np.arange(-self._context, self._context + 1)
        if self._edge == "repeat":
            within = np.clip(within, 0, length - 1)
        else:
            period = np.maximum(2 * (length - 1), 1)
            within = within % period
            within = np.where(within < length, within, period - within)
        frames: Ints = self._order[first + within]
        return frames

    def shape(self, position: int) -> tuple[int, int, int]:
        """(C, H, W) of a sample, without reading it."""
        channels, rows, columns = self._reader.shape(position)
        return (2 * self._context + 1) * channels, rows, columns

    def shapes(self, positions: Sequence[int]) -> set[tuple[int, int, int]]:
        """The (C, H, W) that occur among several samples."""
        many = 2 * self._context + 1
        return {(many * c, h, w) for c, h, w in self._reader.shapes(positions)}

    def will_need(self, positions: Sequence[int]) -> None:
        """See `FrameReader.will_need`."""
        self._reader.will_need(np.unique(self.neighbours(positions)).tolist())

    def read_many(
        self, positions: Sequence[int], out: Tensor | None = None
    ) -> list[Frame | DicomTorchError]:
        """Reads several samples; see `FrameReader.read_many`."""
        samples = self.neighbours(positions)
        images = [
            torch.empty(self.shape(position), dtype=self.dtype) if out is None else out[k]
            for k, position in enumerate(positions)
        ]
        if self._independent:
            return self._read_each_once(samples, images)
        return [self._read(row, image) for row, image in zip(samples, images, strict=True)]

    def _read(self, sample: Ints, image: Tensor) -> Frame | DicomTorchError:
        distinct, which = np.unique(sample, return_inverse=True)
        try:
            frames = self._reader.read_together(distinct.tolist())
        except DicomTorchError as error:
            return error
        return _joined([frames[k] for k in which], image)

    def _read_each_once(self, samples: Ints, images: list[Tensor]) -> list[Frame | DicomTorchError]:
        """Samples that lie beside each other share most of their frames."""
        distinct, which = np.unique(samples, return_inverse=True)
        frames = self._reader.read_many(distinct.tolist())
        results: list[Frame | DicomTorchError] = []
        for row, image in zip(which.reshape(samples.shape), images, strict=True):
            found = [frames[k] for k in row]
            error = next((each for each in found if isinstance(each, DicomTorchError)), None)
            results.append(error or _joined([f for f in found if isinstance(f, Frame)], image))
        return results


def _joined(frames: list[Frame], image: Tensor) -> Frame:
    torch.cat([frame.image for frame in frames], out=image)
    return Frame(image, frames[len(frames) // 2].voi)


def _is_independent(options: PixelOptions) -> bool:
    """Whether a frame becomes the same values whatever its neighbours are."""
    if isinstance(options.normalize, str):
        return False
    return options.values != "display" or not any(
        window is None or isinstance(window, int) for window in options.windows
    )
