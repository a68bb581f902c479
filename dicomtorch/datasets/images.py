"""`ImageDataset`: what datasets whose samples are single images have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from torch import Tensor

from dicomtorch.batches.collate import FrameSamples
from dicomtorch.batches.metadata import FrameMeta, MetaColumns, metas_of
from dicomtorch.datasets.base import Finish
from dicomtorch.datasets.drawn import DrawnDataset
from dicomtorch.datasets.kinds import Batch_co, Sample_co
from dicomtorch.datasets.looking import Titles, picture_of
from dicomtorch.datasets.masked import BoxTarget, Mask, mask_columns, masks_fit
from dicomtorch.datasets.overlays import overlaid
from dicomtorch.datasets.positions import several_positions
from dicomtorch.errors import DicomTorchError, OptionError
from dicomtorch.model.frame import AppliedVOI
from dicomtorch.pictures.plot import show_frames
from dicomtorch.reader.reader import Frame

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class ImageDataset(DrawnDataset[int, Sample_co, Batch_co]):
    """Samples are images (C, H, W), of which a batch is read together, and `index` has one row for each."""

    @abstractmethod
    def _read_many(
        self, asked: Sequence[int], batch: Tensor | None
    ) -> list[Frame | DicomTorchError]:
        """Several images or what is wrong with them, number k in `batch[k]` if there is a batch."""

    @abstractmethod
    def _columns(
        self,
        read: Sequence[int],
        applied: Sequence[AppliedVOI],
        asked: Sequence[int],
        *,
        listed: bool = False,
    ) -> MetaColumns:
        """Metadata of several samples; those read may be others than those that were asked for.

        `listed`: numbers as lists of Python's, for `metas_of`.
        """

    def _check_target(self) -> None:
        target = self._finish.target
        if not isinstance(target, str) or self.sample_transform is not None:
            return
        if target not in self._meta(0, AppliedVOI()):
            raise OptionError(
                f"target={target!r} is no key of meta; join a table that has it, or give a function of meta"
            )

    def _read(self, asked: int, out: Tensor | None) -> Frame:
        (found,) = self._read_many([asked], None if out is None else out[None])
        if isinstance(found, DicomTorchError):
            raise found
        return found

    def _meta(self, asked: int, voi: AppliedVOI) -> FrameMeta:
        (meta,) = metas_of(self._columns([asked], [voi], [asked], listed=True))
        return meta

    def _samples(
        self,
        asked: Sequence[int],
        batch: Tensor | None,
        mask_batch: Tensor | None,
        finish: Finish | None = None,
    ) -> FrameSamples:
        # In place of one after the other: read and decoded together, and no mapping made for each.
        results = self._read_many(asked, batch)
        positions = list(asked)
        masks: list[Mask | BoxTarget | None] = [None] * len(positions)
        for k, result in enumerate(results):
            mask_out = None if mask_batch is None else mask_batch[k]
            try:
                if isinstance(result, DicomTorchError):
                    raise result
                masks[k] = self._mask_in(asked[k], mask_out)
            except DicomTorchError as error:
                out = None if batch is None else batch[k]
                positions[k], results[k], masks[k] = self._replaced(asked[k], error, out, mask_out)
        frames = cast(list[Frame], results)
        self._standardize(frames, batch)
        applied = [frame.voi for frame in frames]
        columns = self._columns(positions, applied, asked, listed=batch is None)
        together = batch is not None and self._finish.keeps_images and _fit(frames, batch)
        fitting = self._targets is None and (self._masks is None or masks_fit(masks, mask_batch))
        if together and fitting and self._finish.keeps_samples:
            if self._masks is not None:
                columns |= mask_columns(masks)
            return FrameSamples.of(cast(Tensor, batch), columns, mask_batch)
        read = zip(asked, frames, metas_of(columns), masks, strict=True)
        finish = finish or self._finish
        return FrameSamples(
            (finish(frame.image, meta, (at,), mask) for at, frame, meta, mask in read),
            batch if together else None,
            mask_batch,
        )

    def _standardize(self, frames: Sequence[Frame], batch: Tensor | None) -> None:
        standard, many = self._source.standardization, self._num_frames
        if standard is None:
            return
        if batch is not None and _fit(frames, batch):
            standard.apply(batch, 1, many)
        else:
            for frame in frames:
                standard.apply(frame.image, 0, many)

    # Looking

    def show(self, i: Any = None) -> Figure:
        """Draws a sample, or several with a slider and the mouse wheel, and returns the matplotlib figure.

        The title says which frame it is, of which file, where in its series, and how it was made display values. Of the
        frames of `context=` the middle one is drawn; several windows are drawn side by side.

        Args:
            i: A position, or several, as in `dataset[i]`; `None` for all.

        Raises:
            MissingDependencyError: matplotlib is not installed.
        """
        several = several_positions(slice(None) if i is None else i, len(self), self.sample_name)
        positions = [i] if several is None else several
        if not isinstance(positions, range):
            positions = [self._asked(k) for k in positions]
        titles = Titles(self.index, self._reader.options)

        def get(k: int) -> tuple[np.ndarray[Any, Any], str]:
            image, mask, meta = self._drawn(positions[k])
            picture, note = picture_of(image, self._reader)
            if mask is not None:
                picture = overlaid(picture, mask)
            at = int(meta.get("index", positions[k]))
            return picture, titles.of(f"{self.sample_name} {at} of {len(self)}", at, meta, note)

        return show_frames(get, len(positions))


def _fit(frames: Sequence[Frame], batch: Tensor) -> bool:
    """Whether all lie in the batch: one that replaces another may have another size."""
    shape = batch.shape[1:]
    return all(frame.image.shape == shape for frame in frames)
