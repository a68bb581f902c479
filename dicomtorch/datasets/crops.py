"""`DicomCrops`: parts of volumes and of frames around the candidates of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Unpack, overload

import numpy as np
from torch import Tensor

from dicomtorch.batches.metadata import FrameMeta
from dicomtorch.datasets.candidates import BoxCandidates, Candidates
from dicomtorch.datasets.drawn import DrawnDataset
from dicomtorch.datasets.frame_crops import FrameCrops
from dicomtorch.datasets.kinds import Batch_co, Pair, PairBatch, Sample_co, Triple, TripleBatch
from dicomtorch.datasets.masked import Mask
from dicomtorch.datasets.options import ReadOptions, UntransformedReading, check_names
from dicomtorch.datasets.parts import Border
from dicomtorch.datasets.source import Given
from dicomtorch.datasets.volume_crops import VolumeCrops
from dicomtorch.errors import DicomTorchError, OptionError
from dicomtorch.model.frame import AppliedVOI
from dicomtorch.reader.reader import Frame
from dicomtorch.series.geometry import Ints
from dicomtorch.series.stacks import OnGap, StackList

Size = tuple[int, int, int] | tuple[int, int] | None
Coordinates = Literal["mm", "voxel"] | None


class DicomCrops(DrawnDataset[int, Sample_co, Batch_co]):
    """A crop around each candidate of a table: of a volume (C, d, h, w), or of a frame (C, h, w).

    `size` says which: three numbers are crops of volumes, of which only the slices that a crop touches are read; two,
    or `None`, crops of frames, as of mammograms, radiographs and tiles of slides, of which only the rows are read where
    the file is not compressed.

    The voxel or pixel that holds the candidate's point, or the middle of its box, is number `size // 2` of the crop.
    Where a crop reaches beyond volume or frame, `border` says what happens:

    - "pad": what is outside is filled: with the number of `padding=` if there is one, else with 0 in display and after
      `normalize`, else with the lowest value of the crop (air in a CT);
    - "shift": the crop is moved inside; where the volume is smaller than the crop, the rest is filled as with "pad";
    - "clip": the crop is smaller there.

    `meta` of crops of volumes is that of `DicomVolumes`, of the slices read (`frames` is -1 and `SOPInstanceUIDs` ""
    for slices outside); `affine` describes the crop. There are also `start`, the crop's first voxel in its volume;
    `valid`, the part of the crop that is inside (first and end of slices, rows, columns); `center`, the candidate's
    point in voxels of the crop; `point`, the same in millimetres (LPS).

    `meta` of crops of frames is that of `DicomFrames`, its geometry that of the file. There are also `frames`, the
    position in `index`; `window`, the crop's first row and column in its frame, which are negative outside of it, and
    its rows and columns; `window_valid`, the part of the crop that is inside (first and end of rows, of columns);
    `box`, the candidate's box in pixels of the crop (left, top, right, bottom; of a point twice the point).

    Both have `candidate`, the row in the table, from 0, and every further column of it.

    In a series of several volumes a column of the table says which is meant: `volume_index`, from 0, or one with the
    name of an attribute that tells them apart (`stack.separated_by`). Between two stacks that follow each other the
    nearer one is.

    Source of patient coordinates: PS3.3 C.7.6.2.1.1.

    Args:
        source: As in `DicomFrames`. Only the series that the candidates name are put into stacks.
        candidates: A pandas DataFrame, an Arrow table, a dict of lists, or the path of a CSV file: one row each. For
            frames also a COCO file, or what `read_annotations` gives, of which the boxes are taken. Rows are boxes or
            points: a column SOPInstanceUID, or file_name, file, path or image, perhaps `frame` (from 0), and xmin,
            ymin, xmax, ymax, or x, y, width, height, or x, y; see `masks.shape_index.ShapeIndex`.
        size: (d, h, w), in voxels; (h, w), in pixels; `None`: each box of a frame as large as it is, rounded outwards.
        coordinates: Of volumes. "mm": x, y, z are millimetres in LPS, as in DICOM and ITK. "voxel": x is the column, y
            the row, z the slice, from 0, in the order of `stacks`. `None`: "mm". Points and boxes of frames are in
            pixels, 0 being the corner of the first pixel: x runs along its row, y down.
        columns: What columns are called where they are not called as above: {"SeriesInstanceUID": "seriesuid", "x":
            "coordX"}, or {"xmin": "x0"}.
        border: See above.
        absent: For candidates whose series or frame is not in the index, as after a split: "raise", or "drop", which
            keeps the numbers of their rows in `dropped`.
        split_by: Of volumes; see `stacks`, as for the next.
        on_gap: Of volumes: "raise" for missing slices, unequal spacing and repeats, "warn", or "keep".
        **options: Those of `DicomFrames` but `size`; `transform` gets the crop.

    Attributes:
        size: As given.
        border: As given.

    Raises:
        GeometryError: A series makes no stack, or a candidate is outside of its volume or frame.
        OptionError: An option means nothing, or the table lacks something.

    Example:
        >>> crops = DicomCrops("ct/", "candidates.csv", size=(32, 48, 48), values="modality")   # doctest: +SKIP
        >>> for images, meta in DataLoader(crops, batch_size=8): meta["label"]                 # doctest: +SKIP
        >>> DicomCrops("mammograms/", "boxes.csv", size=(512, 512))                            # doctest: +SKIP
    """

    sample_name = "crop"

    @overload
    def __init__(
        self: DicomCrops[Pair, PairBatch],
        source: Given,
        candidates: Any,
        size: Size,
        *,
        coordinates: Coordinates = ...,
        columns: Mapping[str, str] | None = ...,
        border: Border = ...,
        absent: Literal["raise", "drop"] = ...,
        split_by: str | Sequence[str] | None = ...,
        on_gap: OnGap = ...,
        masks: Literal[False] | None = None,
        **options: Unpack[UntransformedReading],
    ) -> None: ...
    @overload
    def __init__(
        self: DicomCrops[Triple, TripleBatch],
        source: Given,
        candidates: Any,
        size: Size,
        *,
        coordinates: Coordinates = ...,
        columns: Mapping[str, str] | None = ...,
        border: Border = ...,
        absent: Literal["raise", "drop"] = ...,
        split_by: str | Sequence[str] | None = ...,
        on_gap: OnGap = ...,
        masks: Any,
        **options: Unpack[UntransformedReading],
    ) -> None: ...
    @overload
    def __init__(
        self: DicomCrops[Any, Any],
        source: Given,
        candidates: Any,
        size: Size,
        *,
        coordinates: Coordinates = ...,
        columns: Mapping[str, str] | None = ...,
        border: Border = ...,
        absent: Literal["raise", "drop"] = ...,
        split_by: str | Sequence[str] | None = ...,
        on_gap: OnGap = ...,
        **options: Unpack[ReadOptions],
    ) -> None: ...
    def __init__(
        self,
        source: Given,
        candidates: Any,
        size: Size,
        *,
        coordinates: Coordinates = None,
        columns: Mapping[str, str] | None = None,
        border: Border = "pad",
        absent: Literal["raise", "drop"] = "raise",
        split_by: str | Sequence[str] | None = None,
        on_gap: OnGap = "raise",
        **options: Unpack[ReadOptions],
    ) -> None:
        check_names(DicomCrops, options)
        if border not in ("pad", "shift", "clip"):
            raise OptionError(f'border must be "pad", "shift" or "clip"; got {border!r}')
        if coordinates not in (None, "mm", "voxel"):
            raise OptionError(f'coordinates must be "mm" or "voxel"; got {coordinates!r}')
        if absent not in ("raise", "drop"):
            raise OptionError(f'absent must be "raise" or "drop"; got {absent!r}')
        self.size, self.border = _crop_size(size), border
        self._crops: VolumeCrops | FrameCrops
        if self.size is not None and len(self.size) == 3:
            self._crops = VolumeCrops(
                source,
                candidates,
                self.size,
                coordinates=coordinates or "mm",
                columns=columns or {},
                border=border,
                absent=absent,
                split_by=split_by,
                on_gap=on_gap,
                **options,
            )
        else:
            if coordinates == "mm" or split_by is not None or on_gap != "raise":
                raise OptionError(
                    'coordinates="mm", split_by= and on_gap= go with crops of volumes, whose size is (d, h, w); '
                    f"got size={size!r}"
                )
            self._crops = FrameCrops(
                source,
                candidates,
                self.size,
                columns=columns or {},
                border=border,
                absent=absent,
                **options,
            )
        super().__init__(self._crops.source)

    # What it holds

    @property
    def candidates(self) -> Candidates | BoxCandidates:
        """The rows of the table that there are crops of."""
        return self._crops.candidates

    @property
    def dropped(self) -> Ints:
        """(n,) int64: numbers of the rows that `absent="drop"` has left out."""
        return self._crops.dropped

    @property
    def stacks(self) -> StackList:
        """The volumes that crops are of.

        Raises:
            OptionError: They are crops of frames.
        """
        if isinstance(self._crops, FrameCrops):
            raise OptionError("these are crops of frames, which are in no stack")
        return self._crops.stacks

    def __len__(self) -> int:
        return len(self._crops)

    def __repr__(self) -> str:
        return repr(self._crops)

    def column(self, name: str) -> Any:
        """A further column of the table, one value for each crop; `BalancedSampler(crops, by="label")` reads it.

        Returns:
            An array, (len,), or a `Texts` sequence of `str`. What is missing is -1, nan or "", as in `meta`.

        Raises:
            OptionError: There is no such column.
        """
        return self.candidates.column(name)

    def shape(self, i: int) -> tuple[int, ...]:
        """(C, d, h, w) or (C, h, w) of crop `i`, without reading it."""
        return self._crops.shape(i)

    def to_grid(self, i: int, prediction: Tensor) -> Tensor:
        """What was made on crop `i` on the voxels of its whole volume or frame, 0 outside of the crop.

        Args:
            i: Of the crop.
            prediction: (..., d, h, w) or (..., h, w), as large as the crop.

        Returns:
            (..., D, rows, columns) or (..., rows, columns).

        Raises:
            OptionError: It has another size than the crop.
        """
        return self._crops.to_grid(i, prediction)

    def will_need(self, indices: Sequence[Any]) -> None:
        """Says which crops are asked for soon, so that the system reads them into its cache; `FrameLoader` does."""
        self._crops.will_need(indices)

    # What a crop is, the crops of volumes or of frames say

    def _shape(self, asked: int) -> tuple[int, ...]:
        return self._crops.shape(asked)

    def _positions(self, asked: int) -> Sequence[int]:
        return self._crops._positions(asked)

    def _planes(self, image: Tensor) -> Tensor:
        return self._crops._planes(image)

    def _label_names(self) -> list[str]:
        return [*super()._label_names(), *self.candidates.labels]

    def _matching(self, equals: dict[str, Any]) -> Ints:
        return self._crops._matching(equals)

    def _read_ahead(
        self, asked: Sequence[int], batch: Tensor | None
    ) -> Sequence[Frame | DicomTorchError | None]:
        return self._crops._read_ahead(asked, batch)

    def _read(self, asked: int, out: Tensor | None) -> Frame:
        return self._crops._read(asked, out)

    def _mask(self, asked: int, out: Tensor) -> Mask:
        return self._crops._mask(asked, out)

    def _meta(self, asked: int, voi: AppliedVOI) -> FrameMeta:
        return self._crops._meta(asked, voi)


def _crop_size(size: Any) -> Size:
    if size is None:
        return None
    sizes: tuple[Any, ...] = tuple(size)
    if len(sizes) not in (2, 3) or not all(
        isinstance(n, int | np.integer) and n > 0 for n in sizes
    ):
        raise OptionError(
            f"size must be three numbers of voxels (d, h, w) or two of pixels (h, w), 1 or more; got {size!r}"
        )
    return tuple(map(int, sizes))  # type: ignore[return-value]
