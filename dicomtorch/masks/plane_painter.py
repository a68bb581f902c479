"""Frames of SEGs read and painted in one call of `dicomtorch_kernels`, where it is installed.

Whatever it cannot do, and whatever fails, goes the way of `layers`, which gives the same bits and the messages.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

from dicomtorch.dicom.fragments import packs_into_big_endian_words
from dicomtorch.index.members import STORED, object_length
from dicomtorch.masks.assigning import OnImages
from dicomtorch.masks.compiled import PLANE, painting
from dicomtorch.masks.objects import Source
from dicomtorch.masks.placing import Ints
from dicomtorch.storage.address import scheme_of

Array = npt.NDArray[Any]


class PlanePainter:
    """Paints native frames of one bit a pixel that lie exactly on images; picklable, and safe to use from threads.

    Args:
        on: What lies on which image.
        labels: How many there are.
    """

    def __init__(self, on: OnImages, labels: int) -> None:
        self._on, self._sources, planes = on, on.sources, on.planes
        shapes = on.images.shape
        self._count = labels
        self._records: dict[int, Array | None] = {}
        order = np.lexsort((planes.label, planes.row))
        row, self._label, self._source, plane, down, right = (each[order] for each in planes)
        self._offset = np.zeros(len(row), np.int64)
        self._bit = np.zeros(len(row), np.int8)
        # Which pixels of each plane may be set, as far as is known: no others are read.
        self._low = np.zeros(len(row), np.int64)
        self._high = shapes[row].prod(1)
        fits = (self._label >= 0) & (down == 0) & (right == 0)
        for number in np.unique(self._source).tolist():
            of = np.flatnonzero(self._source == number)
            fits[of] &= self._look(self._sources[number], shapes[row[of]], plane[of], of)
        self._fits = np.bincount(row[~fits], minlength=len(shapes)) == 0

    def _look(self, source: Source, shape: Ints, plane: Ints, of: Ints) -> Any:
        """Whether planes of an object are as large as their images, and each in one piece."""
        if source.is_contours:
            return False
        names = ("offset", "bit_offset", "length", "fragments", "Rows", "Columns")
        offset, bit, length, fragments, rows, columns = (
            np.asarray(source.index.values(name, source.positions[plane]), np.int64)
            for name in names
        )
        self._offset[of], self._bit[of] = offset, bit
        whole = (fragments == 0) & (8 * length - bit >= rows * columns)
        whole &= offset + length <= int(source.index.files["size"][source.file])
        return whole & (shape[:, 0] == rows) & (shape[:, 1] == columns)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_records": {}}

    def paint(self, row: int, out: Array, numbers: Ints | None, descending: bool) -> Ints | None:
        """Paints the labels of an image.

        Args:
            row: Of the image.
            out: (1 or K, rows, columns) uint8, each channel C-contiguous; all of it is written.
            numbers: (K,), the number of each label in a label map; `None`: `out` has a channel for each.
            descending: Whether the first of several labels of a pixel stays, not the last.

        Returns:
            (K,), pixels of each label; `None` if it is to be done the other way, and `out` is undefined.
        """
        module = painting()
        if module is None or not len(out) or not self._fits[row]:
            return None
        overlaps = len(out) > 1 and out.strides[0] < out[0].size
        if overlaps or not out[0].flags.c_contiguous:
            return None
        here = self._on.on(row)
        planes = self._files(self._source[here])
        if planes is None:
            return None
        out[...] = 0
        areas = np.zeros(self._count, np.int64)
        if not len(planes):
            return areas
        label = self._label[here]
        planes["offset"], planes["bit"] = self._offset[here], self._bit[here]
        planes["low"], planes["high"] = self._low[here], self._high[here]
        if numbers is None:
            planes["out"] = label * out.strides[0]
        else:
            planes["value"] = numbers[label]
        if descending:
            planes, label = planes[::-1].copy(), label[::-1]
        planes["joins"][1:] = label[1:] == label[:-1]
        index = self._sources[0].index
        paths: Any = index.files["path"]
        memory = _from_first_to_last(out)
        if module.paint_planes(planes, index.path_prefix, paths.data, memory, out[0].size):
            return None
        seen = planes[::-1] if descending else planes
        self._low[here], self._high[here] = seen["first_set"], seen["end_set"]
        areas[label] = planes["area"]  # of united planes the last has it
        return areas

    def _files(self, numbers: Ints) -> Array | None:
        """A record for each plane with what is known of its file; `None` if one cannot be painted."""
        if not len(numbers):
            return np.empty(0, PLANE)
        one = int(numbers[0])
        if (numbers == one).all():
            record = self._record(one)
            return None if record is None else record.repeat(len(numbers))
        records = [self._record(number) for number in numbers.tolist()]
        known = [record for record in records if record is not None]
        return np.concatenate(known) if len(known) == len(records) else None

    def _record(self, number: int) -> Array | None:
        if number not in self._records:
            source = self._sources[number]
            files: Any = source.index.files
            pixel = source.index.image_pixel(int(source.positions[0]))
            native = pixel.bits_allocated == 1 and not pixel.is_encapsulated
            # Offsets count in the file, or in the archive that has it as it is.
            in_place = not source.is_deflated and files["container"][source.file] <= STORED
            is_local = not scheme_of(source.index.root)
            right = native and in_place and is_local and not packs_into_big_endian_words(pixel)
            self._records[number] = _record(files, source.file) if right else None
        return self._records[number]


def _from_first_to_last(out: Array) -> Array:
    """The bytes from the first channel to the last; those of a volume have other slices between them."""
    if out.flags.c_contiguous:
        return out
    length = out.strides[0] * (len(out) - 1) + out[0].size
    return as_strided(out[0].reshape(-1), (length,), (1,))


def _record(files: Any, file: int) -> Array:
    paths = files["path"]
    record = np.zeros(1, PLANE)
    record["path"] = paths.offsets[file]
    record["path_length"] = object_length(files, file)
    for name in ("size", "mtime_ns"):
        record[name] = files[name][file]
    record["inode"] = max(int(files["inode"][file]), 0)  # 0: not known
    record["value"] = 1
    return record
