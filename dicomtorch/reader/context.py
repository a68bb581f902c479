"""`DicomFrames(context=k)`: the frames before and after a frame as further channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dicomtorch.errors import DicomTorchError
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.model.options import PixelOptions
from dicomtorch.reader.reader import Frame, FrameReader, fresh
from dicomtorch.series.neighbours import frame_order
from dicomtorch.series.stacks import OnGap

Ints = npt.NDArray[np.int64]
Edge = Literal["repeat", "reflect"]


class ContextReader:
    """Reads each frame with the `context` frames before and after it, all with one mapping to display.

    Has what datasets use of a `FrameReader`; images have (2 context + 1) C channels, earlier frames first.

    Args:
        reader: Reads the frames.
        context: Frames on each side.
        edge: Beyond the first and last frame: "repeat" those, or "reflect" at them.

    Attributes:
        context: As given.
        on_gap: For frames whose neighbours nothing tells; see `frame_order`.
    """

    def __init__(
        self, reader: FrameReader, context: int, edge: Edge, on_gap: OnGap = "raise"
    ) -> None:
        self._reader = reader
        self.context = context
        self._edge = edge
        runs = frame_order(reader.index, on_gap)
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
        within = place - first + np.arange(-self.context, self.context + 1)
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
        return (2 * self.context + 1) * channels, rows, columns

    def shapes(self, positions: Sequence[int]) -> set[tuple[int, int, int]]:
        """The (C, H, W) that occur among several samples."""
        many = 2 * self.context + 1
        return {(many * c, h, w) for c, h, w in self._reader.shapes(positions)}

    @property
    def is_remote(self) -> bool:
        """Whether frames are read over a network."""
        return self._reader.is_remote

    def will_need(self, positions: Sequence[int], *, is_known: bool = False) -> None:
        """See `FrameReader.will_need`; of all frames that samples are made of."""
        self._reader.will_need(positions, is_known=is_known)

    def reads(self, positions: Sequence[int]) -> list[int]:
        """The frames that `read_many` reads for samples, each as often as it reads it."""
        samples = self.neighbours(positions)
        if self._independent:
            samples = samples.reshape(1, -1)
        return [int(k) for sample in samples for k in np.unique(sample)]

    def read_many(
        self, positions: Sequence[int], out: Tensor | None = None
    ) -> list[Frame | DicomTorchError]:
        """Reads several samples; see `FrameReader.read_many`."""
        samples = self.neighbours(positions)
        images = [None if out is None else out[k] for k in range(len(positions))]
        if self._independent:
            # Samples that lie beside each other share most of their frames.
            distinct, which = np.unique(samples, return_inverse=True)
            frames = self._reader.read_many(distinct.tolist(), self._memory(distinct))
            return [
                _joined([frames[k] for k in row], image)
                for row, image in zip(which.reshape(samples.shape), images, strict=True)
            ]
        return [self._read(row, image) for row, image in zip(samples, images, strict=True)]

    def _memory(self, distinct: Ints) -> Tensor | None:
        """Memory for frames that are read once and go into several samples; `None` if they differ in shape."""
        try:
            shapes = self._reader.shapes(distinct.tolist())
        except DicomTorchError:
            return None  # which reading them says
        return fresh((len(distinct), *shapes.pop()), self.dtype) if len(shapes) == 1 else None

    def _read(self, sample: Ints, image: Tensor | None) -> Frame | DicomTorchError:
        distinct, which = np.unique(sample, return_inverse=True)
        try:
            frames = self._reader.read_together(distinct.tolist(), self._memory(distinct))
        except DicomTorchError as error:
            return error
        return _joined([frames[k] for k in which], image)


def _joined(
    frames: Sequence[Frame | DicomTorchError], out: Tensor | None
) -> Frame | DicomTorchError:
    """One sample of its frames, or what is wrong with the first that could not be read."""
    images = []
    for frame in frames:
        if isinstance(frame, DicomTorchError):
            return frame
        images.append(frame.image)
    middle = frames[len(frames) // 2]
    assert isinstance(middle, Frame)
    return Frame(torch.cat(images, out=out), middle.voi)


def _is_independent(options: PixelOptions) -> bool:
    """Whether a frame becomes the same values whatever its neighbours are."""
    if isinstance(options.normalize, str):
        return False
    return options.values != "display" or not any(
        window is None or isinstance(window, int) for window in options.windows
    )
