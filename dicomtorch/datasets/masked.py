"""Masks beside the images of a dataset: which objects, and the mask of a sample from those of its frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dicomtorch._forks import ForkedLock
from dicomtorch.masks.layers import MaskOutput
from dicomtorch.masks.mask_index import MaskIndex
from dicomtorch.masks.shape_index import ShapeIndex
from dicomtorch.pixels.resize import resize_nearest, resized
from dicomtorch.reader.reader import fresh

Areas = npt.NDArray[np.int64]

MASK_KEYS = ("mask_known", "mask_area", "mask_present")
"""What `meta` has of masks."""

_MOST_KEPT = 64 << 20  # bytes of masks of whole frames; the newest one aside
_FEW = 16  # labels up to which a pass for each takes less than one of `bincount`, which makes integers of all
_OWN = ("_whole", "_lock")  # of each process


class Mask(NamedTuple):
    """The mask of one sample.

    Attributes:
        image: (1 or K, ...), or (T, 1 or K, H, W) of a clip.
        known: (K,), 1 where an object of its series has the label.
        area: (K,), pixels of each label, -1 where not known.
        present: 1 if a plane lies on a frame of it.
    """

    image: Tensor
    known: tuple[int, ...]
    area: tuple[int, ...]
    present: int

    def meta(self) -> dict[str, Any]:
        """What `meta` says of it."""
        values = (self.known, self.area, self.present)
        return dict(zip(MASK_KEYS, values, strict=True))


def mask_columns(masks: Sequence[Mask | BoxTarget | None]) -> dict[str, Any]:
    """What `meta` says of several masks, by key."""
    there = [mask for mask in masks if isinstance(mask, Mask)]
    return {
        "mask_known": np.array([mask.known for mask in there], np.int64),
        "mask_area": np.array([mask.area for mask in there], np.int64),
        "mask_present": np.array([mask.present for mask in there], np.int64),
    }


def masks_fit(masks: Sequence[Mask | BoxTarget | None], batch: Tensor | None) -> bool:
    """Whether all masks lie in the batch."""
    return batch is not None and all(
        isinstance(mask, Mask) and mask.image.shape == batch.shape[1:] for mask in masks
    )


class BoxTarget(NamedTuple):
    """The boxes or points of one sample, in the place of a mask.

    Attributes:
        image: `boxes` (n, 4) or `points` (n, 2), float32, and `labels` (n,), int64.
    """

    image: dict[str, Tensor]

    def meta(self) -> dict[str, Any]:
        """What `meta` says of it: nothing."""
        return {}


class BoxSource:
    """Makes the targets of frames.

    Args:
        shapes: Of the frames of one index.
        kind: What targets are.
        size: What images are resized to, or `None`.
    """

    def __init__(
        self, shapes: ShapeIndex, kind: Literal["boxes", "points"], size: tuple[int, int] | None
    ) -> None:
        self.shapes = shapes
        self.kind = kind
        self._size = size

    def of(self, position: int) -> BoxTarget:
        """The target of a frame, on the resized image where there is one."""
        made = self.shapes.boxes if self.kind == "boxes" else self.shapes.points
        found, labels = made(position)
        if self._size is not None:
            rows, columns = self.shapes.images.shape[position].tolist()
            where = resized(rows, columns, self._size)
            times = found.shape[1] // 2
            scale = np.array([where.columns / columns, where.rows / rows] * times, np.float32)
            found = found * scale + np.array([where.left, where.top] * times, np.float32)
        target = {self.kind: torch.from_numpy(found.copy()), "labels": torch.from_numpy(labels)}
        return BoxTarget(target)


class MaskSource:
    """Makes the masks of frames of one index.

    Args:
        masks: Which pixels of which frame are what.
        output: What a mask is.
        size: What images are resized to, or `None`.
    """

    def __init__(self, masks: MaskIndex, output: MaskOutput, size: tuple[int, int] | None) -> None:
        self.masks = masks
        self.output: MaskOutput = output
        self.size = size
        kinds = {"uint8": torch.uint8, "int32": torch.int32, "float32": torch.float32}
        self.dtype = kinds[masks.dtype(output).name]
        self.channels = masks.channels(output)
        self._forget()

    def _forget(self) -> None:
        self._whole: dict[int, Tensor] = {}
        self._lock = ForkedLock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in _OWN}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def shape(self, position: int) -> tuple[int, int, int]:
        """(1 or K, H, W) of the mask of a frame."""
        return (self.channels, *(self.size or self.masks.shape(position)))

    def read(self, positions: Sequence[int], out: Tensor) -> Areas | None:
        """Fills (N, 1 or K, H, W), of which each channel is contiguous.

        Returns:
            (K,), pixels of each label; `None` where masks were resized.

        Raises:
            DicomTorchError: A mask cannot be made; the message names the frame.
        """
        target = out.numpy()
        areas = np.zeros(len(self.masks.labels), np.int64)
        for k, position in enumerate(positions):
            if self.size is None:
                areas += self.masks.mask(position, self.output, target[k])[1]
            else:
                whole, _ = self.masks.mask(position, self.output)
                target[k] = resize_nearest(whole, self.size)
        return areas if self.size is None else None

    def whole(self, position: int) -> Tensor:
        """(1 or K, H, W), the mask of a frame that parts are taken of; not to be changed.

        Those that were painted last are kept: what is painted for one part takes much longer than the part.

        Args:
            position: Of the frame.

        Raises:
            DicomTorchError: It cannot be made; the message names the frame.
        """
        with self._lock:
            found = self._whole.get(position)
        if found is not None:
            return found
        made = fresh(self.shape(position), self.dtype)
        self.read([position], made[None])
        with self._lock:
            self._whole[position] = made
            kept = sum(each.nbytes for each in self._whole.values())
            for oldest in list(self._whole)[:-1]:
                if kept <= _MOST_KEPT:
                    break
                kept -= self._whole.pop(oldest).nbytes
        return made

    def finished(
        self, image: Tensor, positions: Sequence[int], areas: Areas | None, axis: int = 0
    ) -> Mask:
        """A mask with what `meta` says of it.

        Args:
            image: The mask.
            positions: Of its frames.
            areas: What `read` gave; `None`: they are counted.
            axis: Of its channels.
        """
        known = self.masks.known(positions[0]).astype(int)
        area = self._areas(image.numpy(), axis) if areas is None else areas
        area = np.where(known, area, -1)
        present = any(self.masks.is_covered(position) for position in positions)
        return Mask(image, tuple(known.tolist()), tuple(area.tolist()), int(present))

    def _areas(self, mask: Any, axis: int) -> Any:
        if self.output == "labels":
            numbers = self.masks.labels.numbers
            if mask.dtype == np.uint8 and len(numbers) > _FEW:
                return np.bincount(mask.reshape(-1), minlength=256)[list(numbers)]
            return np.array([np.count_nonzero(mask == number) for number in numbers])
        return np.array([np.count_nonzero(part) for part in np.moveaxis(mask, axis, 0)])

    def original(self, image: Tensor, shape: tuple[int, int]) -> Tensor:
        """What was made on resized images on the pixels of the file, by nearest neighbour.

        Args:
            image: (..., H, W) of `size`.
            shape: (rows, columns) of the file.
        """
        if self.size is None:
            return image
        return unresized(image, shape, self.size)


def unresized(image: Tensor, shape: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """The way back from `size=`: each pixel of the file gets the one that its centre lies in."""
    where = resized(*shape, size)
    row = (torch.arange(shape[0]) + 0.5) * where.rows / shape[0]
    column = (torch.arange(shape[1]) + 0.5) * where.columns / shape[1]
    rows = where.top + row.long().clamp(max=where.rows - 1)
    columns = where.left + column.long().clamp(max=where.columns - 1)
    return image[..., rows, :][..., columns]
