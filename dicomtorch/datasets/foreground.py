"""Where frames have what training looks for: pixels of labels, or what stands out from the ground."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dicomtorch.datasets.tissue import otsu_tissue
from dicomtorch.errors import DicomTorchError
from dicomtorch.masks.mask_index import MaskIndex
from dicomtorch.model.options import PixelOptions
from dicomtorch.reader.parts import Part, read_parts
from dicomtorch.reader.reader import FrameReader

_CELLS = 128  # of the longer side of a frame
_MOST_PICTURES, _MOST_MASKS = 4096, 8  # frames whose foreground is remembered in a process

Spots = npt.NDArray[np.int64]


class Foreground:
    """Pixels of the foreground of frames, found once for each frame that is asked for.

    With masks: the pixels of labels, of which each is as likely as any other. Without: square cells, 128 along the
    longer side of the frame, that stand out (`tissue.otsu_tissue`) in the frame as it is displayed with its first
    window. One row of each cell is looked at. Picklable, and safe to use from several threads.

    Args:
        reader: Of the frames.
        masks: Of the same frames, or `None`.
    """

    def __init__(self, reader: FrameReader, masks: MaskIndex | None) -> None:
        self._reader = reader.with_options(PixelOptions(values="display"))
        self._masks = masks
        self._renew()

    def _renew(self) -> None:
        self._cells = lru_cache(maxsize=_MOST_PICTURES)(self._find_cells)
        self._pixels = lru_cache(maxsize=_MOST_MASKS)(self._find_pixels)

    def draw(
        self, position: int, shape: tuple[int, int], chance: npt.NDArray[np.float64]
    ) -> tuple[int, int] | None:
        """A pixel (row, column) of the foreground of a frame, `None` if it has none.

        Args:
            position: Of the frame.
            shape: Its rows and columns.
            chance: Four numbers in [0, 1).

        Raises:
            DicomTorchError: The frame or its mask cannot be read.
        """
        if self._masks is not None:
            labels = self._pixels(position)
            if not labels:
                return None
            pixels = labels[int(chance[0] * len(labels))]
            row, column = divmod(int(pixels[int(chance[1] * len(pixels))]), shape[1])
            return row, column
        cells = self._cells(position)
        if not len(cells):
            return None
        edge = cell_edge(shape)
        across = -(-shape[1] // edge)
        row, column = divmod(int(cells[int(chance[0] * len(cells))]), across)
        return (
            min(row * edge + int(chance[1] * edge), shape[0] - 1),
            min(column * edge + int(chance[2] * edge), shape[1] - 1),
        )

    def _find_pixels(self, position: int) -> tuple[Spots, ...]:
        assert self._masks is not None
        columns = self._masks.shape(position)[1]
        found = (layer.flat(columns) for layer in self._masks.layers(position))
        return tuple(pixels for pixels in found if len(pixels))

    def _find_cells(self, position: int) -> npt.NDArray[np.int32]:
        return np.flatnonzero(otsu_tissue(self.picture(position))).astype(np.int32)

    def picture(self, position: int) -> npt.NDArray[np.float32]:
        """(rows, columns, C): display values of the cells of a frame, means of pieces of one row.

        Raises:
            DicomTorchError: It cannot be read.
        """
        channels, rows, columns = self._reader.shape(position)
        edge = cell_edge((rows, columns))
        tops = range(min(edge // 2, rows - 1), rows, edge)
        lines = torch.empty((len(tops), channels, 1, columns))
        parts = [Part(position, top, 0, 1, columns) for top in tops]
        for found in read_parts(self._reader, parts, list(lines)):
            if isinstance(found, DicomTorchError):
                raise found
        begins = np.arange(0, columns, edge)
        sums = np.add.reduceat(lines[:, :, 0].numpy(), begins, axis=2)
        means = sums / np.diff(begins, append=columns)
        return np.ascontiguousarray(means.transpose(0, 2, 1), np.float32)

    def __getstate__(self) -> dict[str, Any]:
        return {"_reader": self._reader, "_masks": self._masks}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._renew()


def cell_edge(shape: tuple[int, int]) -> int:
    """Pixels of the edge of the cells that a frame of (rows, columns) is looked at in."""
    return max(1, -(-max(shape) // _CELLS))
