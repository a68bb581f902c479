"""`PartDataset`: what crops of frames and random patches have in common: samples that are rectangles of frames."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from dicomtorch.batches.metadata import FrameMeta
from dicomtorch.datasets.base import memory_for
from dicomtorch.datasets.drawn import DrawnDataset
from dicomtorch.datasets.kinds import Batch_co, Sample_co
from dicomtorch.datasets.masked import Mask
from dicomtorch.errors import DicomTorchError, OptionError
from dicomtorch.model.frame import AppliedVOI
from dicomtorch.model.options import PixelOptions
from dicomtorch.reader.parts import Part, read_parts, will_need_parts
from dicomtorch.reader.reader import Frame

Border = Literal["pad", "shift", "clip"]

PART_KEYS = ("frames", "window", "window_valid")
"""What `meta` has beyond that of a frame."""


class Window(NamedTuple):
    """A rectangle of a frame, which may reach beyond it.

    Attributes:
        position: Of the frame, in the index.
        top: First row, negative above the frame.
        left: First column, negative left of it.
        rows: How many.
        columns: How many.
    """

    position: int
    top: int
    left: int
    rows: int
    columns: int

    def inside(self, shape: tuple[int, int]) -> Part:
        """What of it a frame of (rows, columns) has."""
        top, left = max(self.top, 0), max(self.left, 0)
        bottom = min(self.top + self.rows, shape[0])
        right = min(self.left + self.columns, shape[1])
        return Part(self.position, top, left, bottom - top, right - left)

    def valid(self, part: Part) -> tuple[int, int, int, int]:
        """First and end of rows and of columns of what is inside, counted in the window."""
        top, left = part.top - self.top, part.left - self.left
        return top, top + part.rows, left, left + part.columns


class PartDataset(DrawnDataset[int, Sample_co, Batch_co]):
    """Samples (C, h, w) that are rectangles of frames, with the values that the frames have there.

    Of uncompressed frames only the rows of a rectangle are read; a frame that has to be decoded is decoded once for all
    its samples in a batch. Beyond the frame there is what `padding=` says if it is a number, else 0 in display and
    after `normalize`, else the lowest value of the sample; masks have 0.
    """

    @abstractmethod
    def _window(self, asked: int) -> Window:
        """The rectangle of a sample.

        Raises:
            DicomTorchError: It cannot be found.
        """

    @abstractmethod
    def _frame_of(self, asked: int) -> int:
        """Position of its frame in the index."""

    @abstractmethod
    def _part_meta(self, asked: int, window: Window) -> dict[str, Any]:
        """What `meta` has of a sample beside what all parts of frames have."""

    def shape(self, i: int) -> tuple[int, int, int]:
        """(C, h, w) of sample `i`, without reading it."""
        return self._shape(self._asked(i))

    def _shape(self, asked: int) -> tuple[int, int, int]:
        window = self._window(asked)
        return (self._reader.shape(window.position)[0], window.rows, window.columns)

    def _positions(self, asked: int) -> list[int]:
        return [self._frame_of(asked)]

    def _frame_shape(self, position: int) -> tuple[int, int]:
        pixel = self.index.image_pixel(position)
        return (pixel.rows, pixel.columns)

    def _inside(self, window: Window) -> Part:
        return window.inside(self._frame_shape(window.position))

    def will_need(self, indices: Sequence[Any]) -> None:
        """Says which samples are asked for soon, so that the system reads them into its cache; `FrameLoader` does."""
        windows = [self._window(self._asked(i)) for i in indices]
        will_need_parts(self._source.reader, [self._inside(window) for window in windows])

    # Samples

    def _read_ahead(
        self, asked: Sequence[int], batch: Tensor | None
    ) -> list[Frame | DicomTorchError | None]:
        results: list[Frame | DicomTorchError | None] = [None] * len(asked)
        images: list[tuple[int, Tensor, Tensor, Part, Window]] = []
        for k, one in enumerate(asked):
            try:
                window = self._window(one)
                shape = (
                    self._reader.shape(window.position)[0],
                    window.rows,
                    window.columns,
                )
                image = memory_for(shape, self._reader.dtype, None if batch is None else batch[k])
                part = self._inside(window)
            except DicomTorchError as error:
                results[k] = error
                continue
            first, end, left, right = window.valid(part)
            images.append((k, image, image[:, first:end, left:right], part, window))
        read = read_parts(
            self._source.reader, [each[3] for each in images], [each[2] for each in images]
        )
        for frame, (k, image, inner, _, window) in zip(read, images, strict=True):
            if isinstance(frame, DicomTorchError):
                results[k] = frame
                continue
            if inner.shape != image.shape:
                self._surround(image, inner, window)
            results[k] = Frame(image, frame.voi)
        return results

    def _surround(self, image: Tensor, inner: Tensor, window: Window) -> None:
        """Fills what lies beyond the frame."""
        first, end, left, right = window.valid(self._inside(window))
        value = outside_value(self._reader.options, inner)
        for beyond in (
            image[:, :first],
            image[:, end:],
            image[:, first:end, :left],
            image[:, first:end, right:],
        ):
            beyond.fill_(value)

    def _read(self, asked: int, out: Tensor | None) -> Frame:
        (frame,) = self._read_ahead([asked], None if out is None else out[None])
        if isinstance(frame, DicomTorchError):
            raise frame
        assert frame is not None
        return frame

    def _mask(self, asked: int, out: Tensor) -> Mask:
        masks = self._masks
        assert masks is not None
        window = self._window(asked)
        part = self._inside(window)
        whole = masks.whole(window.position)
        first, end, left, right = window.valid(part)
        if out.shape[1:] != (part.rows, part.columns):
            out.zero_()
        rows, columns = part.slices
        # By NumPy: for so little torch would wake up threads.
        out.numpy()[:, first:end, left:right] = whole.numpy()[:, rows, columns]
        return masks.finished(out, [window.position], None)

    def to_grid(self, i: int, prediction: Tensor) -> Tensor:
        """What was made on sample `i` on the pixels of its whole frame, 0 elsewhere.

        Args:
            i: Of the sample.
            prediction: (..., h, w), as large as the sample.

        Returns:
            (..., rows, columns).

        Raises:
            OptionError: It has another size than the sample.
        """
        window = self._window(self._asked(i))
        if tuple(prediction.shape[-2:]) != (window.rows, window.columns):
            raise OptionError(
                f"the prediction is {tuple(prediction.shape[-2:])} and the sample {(window.rows, window.columns)} "
                "(rows, columns)"
            )
        part = self._inside(window)
        first, end, left, right = window.valid(part)
        shape = self._frame_shape(window.position)
        whole = prediction.new_zeros((*prediction.shape[:-2], *shape))
        rows, columns = part.slices
        whole[..., rows, columns] = prediction[..., first:end, left:right]
        return whole

    def _meta(self, asked: int, voi: AppliedVOI) -> FrameMeta:
        window = self._window(asked)
        (meta,) = self._source.metas([window.position], [voi], [window.position])
        meta.update(
            index=asked,
            requested_index=asked,
            frames=(window.position,),
            window=tuple(window[1:]),
            window_valid=window.valid(self._inside(window)),
        )
        meta.update(self._part_meta(asked, window))
        return meta


def outside_value(options: PixelOptions, part: Tensor) -> float:
    """What pixels and voxels outside of frame or volume get.

    Args:
        options: What is asked of the pixels.
        part: What is inside.
    """
    if not isinstance(options.padding, str):
        return options.padding
    if options.values == "display" or options.normalize is not None:
        return 0.0
    counted = part[torch.isfinite(part)] if part.dtype.is_floating_point else part
    return float(counted.min()) if counted.numel() else 0.0
