"""`SampleDataset`: what frames, clips, volumes and crops have in common."""

from __future__ import annotations

import sys
import warnings
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from dicomtorch.batches.collate import FrameSample, FrameSamples, collate_frames
from dicomtorch.batches.metadata import FrameMeta
from dicomtorch.datasets import looking
from dicomtorch.datasets.masked import Mask
from dicomtorch.datasets.options import Failure, ReadPolicy
from dicomtorch.datasets.positions import one_position, several_positions
from dicomtorch.datasets.source import FrameSource
from dicomtorch.errors import (
    DicomTorchError,
    FrameNotFoundError,
    OptionError,
    StaleIndexError,
    StorageError,
)
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.masks.coded_names import LabelMap
from dicomtorch.masks.mask_index import MaskIndex
from dicomtorch.model.frame import AppliedVOI
from dicomtorch.model.report import ScanReport
from dicomtorch.pictures.plot import contact_sheet, show_frames
from dicomtorch.pixels.memory import new_batch
from dicomtorch.reader.context import ContextReader
from dicomtorch.reader.reader import Frame, FrameReader
from dicomtorch.series.geometry import Ints

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

Asked = TypeVar("Asked")
_MOST_COVERS = 32
_PACKAGE = str(Path(__file__).parents[1])


class SampleDataset(Dataset[FrameSample], Generic[Asked]):
    """Samples of an index by position, several at once as a batch, and what happens where one cannot be read.

    A subclass says what its samples are; `Asked` is what a position means to it: mostly an integer from 0.

    Args:
        source: What is read from.

    Attributes:
        transform: Called with the image tensor, if there is one.
    """

    sample_name: ClassVar[str]
    """What a sample is called in messages."""

    def __init__(self, source: FrameSource) -> None:
        self._source = source
        self.transform = source.policy.transform
        self._reader: FrameReader | ContextReader = source.reader
        self._masks = source.masks
        self._failures: list[Failure] = []

    # What a subclass says

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def _shape(self, asked: Asked) -> tuple[int, ...]:
        """Of the tensor of a sample, without reading it.

        Raises:
            PixelValueError: The options have no meaning for its frames.
        """

    @abstractmethod
    def _positions(self, asked: Asked) -> Sequence[int]:
        """The frames that a sample is read from, in the index."""

    @abstractmethod
    def _read(self, asked: Asked, out: Tensor | None) -> Frame:
        """The tensor of a sample, which is `out` if given, and how it was made display values.

        Raises:
            DicomTorchError: It cannot be read.
        """

    def _mask_shape(self, asked: Asked) -> tuple[int, ...]:
        """Of the mask of a sample."""
        assert self._masks is not None
        *front, rows, columns = self._shape(asked)
        return (self._masks.channels, *front[1:], rows, columns)

    @abstractmethod
    def _mask(self, asked: Asked, out: Tensor) -> Mask:
        """The mask of a sample, made in `out`.

        Raises:
            DicomTorchError: It cannot be made.
        """

    @abstractmethod
    def _meta(self, asked: Asked, voi: AppliedVOI) -> FrameMeta:
        """What is said of a sample that was read."""

    @abstractmethod
    def _matching(self, equals: dict[str, Any]) -> Ints:
        """Positions of the samples for which `find` asks."""

    def _planes(self, image: Tensor) -> Tensor:
        """The pictures (N, C, H, W) that a sample is drawn as, one for each of its frames."""
        return image

    def _asked(self, i: Any) -> Asked:
        """What an item of a batch asks for."""
        position: Any = one_position(i, len(self), self.sample_name)
        return position  # type: ignore[no-any-return]

    def _number(self, asked: Asked) -> int:
        """Its position."""
        return cast(int, asked)

    def _others(self, asked: Asked) -> Iterable[Asked]:
        """What is tried in its place, in this order."""
        count = len(self)
        return (cast(Asked, (self._number(asked) + k) % count) for k in range(1, count))

    # What it holds

    @property
    def index(self) -> FrameIndex:
        """The index of the frames; for `DicomFrames` its positions are those of the dataset."""
        return self._source.index

    @property
    def masks(self) -> MaskIndex:
        """Which pixels of which frame are what; its positions are those of `index`.

        Raises:
            OptionError: The dataset has none.
        """
        if self._masks is None:
            raise OptionError("this dataset has no masks; make it with masks=")
        return self._masks.masks

    @property
    def labels(self) -> LabelMap:
        """The labels of the masks: names and numbers.

        Raises:
            OptionError: The dataset has no masks.
        """
        return self.masks.labels

    @property
    def read_policy(self) -> ReadPolicy:
        """Where frames come from and what becomes of samples."""
        return self._source.policy

    @property
    def on_error(self) -> str:
        """As given."""
        return self.read_policy.on_error

    @property
    def report(self) -> ScanReport:
        """What the scan met, file by file, also those without frames, and how many files it had to read."""
        return self._source.report

    @property
    def failures(self) -> list[Failure]:
        """With `on_error="replace"`: what could not be read in this process so far.

        A `DataLoader` with workers reads in theirs; there `meta["index"] != meta["requested_index"]` tells.
        """
        return list(self._failures)

    def find(self, **equals: Any) -> int:
        """The position of the one sample with a frame whose columns equal the values given.

        Raises:
            FrameNotFoundError: There is none, or more than one.
            OptionError: There is no such column.
        """
        found = self._matching(equals)
        if len(found) != 1:
            count = f"{len(found):,}" if len(found) else "no"
            listed = f" (positions {', '.join(map(str, found[:5].tolist()))}{', ...' if len(found) > 5 else ''})"
            raise FrameNotFoundError(
                f"{count} {self.sample_name}s of {len(self):,} match {', '.join(equals) or 'nothing'}; find needs "
                f"exactly one{listed if len(found) else ''}"
            )
        return int(found[0])

    # Looking

    def show(self, i: Any = None) -> Figure:
        """Draws the slices or frames of one sample with a slider, and returns the matplotlib figure.

        The title says which slice it is, of which file, and how it was made display values.

        Args:
            i: As in `dataset[i]`; `None`: the first.

        Raises:
            MissingDependencyError: matplotlib is not installed.
        """
        asked = self._asked(self._first if i is None else i)
        (sample,) = self._samples([asked], None, None)
        image, meta = sample[0], sample[-1]
        drawn = looking.drawn_masks(sample, self._planes)
        if not isinstance(image, Tensor) or image.ndim != 4:
            raise OptionError(
                f"show draws {self.sample_name}s; this transform gives something else"
            )
        planes, positions = self._planes(image), meta["frames"]
        titles = looking.Titles(self.index, self._reader.options)

        def get(k: int) -> tuple[Any, str]:
            picture, note = looking.picture_of(planes[k], self._reader)
            picture = picture if drawn is None else looking.overlaid(picture, drawn[k])
            what = f"{self.sample_name} {meta['index']} of {len(self)}, {k + 1} of {len(planes)}"
            known = len(positions) == len(planes) and positions[k] >= 0
            return picture, titles.of(what, positions[k], meta, note) if known else what

        return show_frames(get, len(planes), len(planes) // 2)

    def show_batch(self, i: Any = None, *, columns: int = 8, tile: int = 128) -> Image:
        """Draws several samples as a grid, as training gets them: after `transform`, with their labels below.

        Of volumes, clips and crops the frame in the middle is drawn. Labels are the columns joined to the index and the
        tags asked for. `contact_sheet` says how values become gray.

        Args:
            i: Positions, as in `dataset[i]`; `None`: the first 16.
            columns: Pictures in a row.
            tile: Edge of a picture in pixels.

        Returns:
            The picture, RGB; notebooks show it, `.show()` and `.save("batch.png")` do it elsewhere.

        Raises:
            MissingDependencyError: Pillow is not installed.
        """
        chosen = range(min(16, len(self))) if i is None else i
        several = several_positions(chosen, len(self), self.sample_name)
        pictures, captions = [], []
        for one in [i] if several is None else several:
            asked = self._asked(one)
            (sample,) = self._samples([asked], None, None)
            image, meta = sample[0], sample[-1]
            if isinstance(image, Tensor) and image.ndim == 4:
                planes = self._planes(image)
                image = planes[len(planes) // 2]
            pictures.append(looking.picture_of(image, self._reader)[0])
            captions.append(looking.caption(self._number(asked), meta, self._label_names()))
        return contact_sheet(pictures, captions, columns=columns, tile=tile)

    def _label_names(self) -> list[str]:
        """Keys of `meta` that the user brought or asked for."""
        return [*self.index.joined, *self.read_policy.keywords]

    @property
    def _first(self) -> Any:
        """What `show` draws where nothing is said."""
        return 0

    def _overview(self) -> dict[str, str]:
        """Rows of what notebooks show."""
        counted = {f"{self.sample_name.capitalize()}s": f"{len(self):,}"}
        return counted | self.index.overview() | {"Values": self._reader.options.values}

    def _covers(self) -> Ints:
        """Frames that may be thumbnails: of some samples the one in the middle."""
        chosen = np.unique(np.linspace(0, len(self) - 1, _MOST_COVERS).astype(int)).tolist()
        several = (self._positions(self._asked(k)) for k in chosen)
        return np.array([frames[len(frames) // 2] for frames in several], np.int64)

    def _repr_html_(self) -> str:
        return looking.overview_html(
            type(self).__name__, self._overview(), self._reader, self._covers()
        )

    # Samples

    def __getitem__(self, i: Any) -> Any:
        """One sample for an integer, a collated batch for a slice, list, array, tensor or boolean mask."""
        if type(i) is not int:
            several = several_positions(i, len(self), self.sample_name)
            if several is not None:
                return self._collated(self.__getitems__(several))
        (sample,) = self._samples([self._asked(i)], None, None)
        return sample

    def __getitems__(self, indices: Sequence[Any]) -> FrameSamples:
        """Several samples, read straight into one batch if they have one shape; `DataLoader` calls this."""
        asked = self._all_asked(indices)
        return self._samples(asked, self._batch(asked), self._mask_batch(asked))

    def __iter__(self) -> Iterator[Any]:
        for i in range(len(self)):
            yield self[i]

    def will_need(self, indices: Sequence[Any]) -> None:
        """Says which samples are asked for soon, so that the system reads them into its cache; `FrameLoader` does."""
        frames = [k for i in indices for k in self._positions(self._asked(i))]
        self._reader.will_need(list(dict.fromkeys(frames)))

    def _all_asked(self, indices: Sequence[Any]) -> list[Asked]:
        return [self._asked(i) for i in indices]

    def _batch(self, asked: Sequence[Asked]) -> Tensor | None:
        """Memory for samples of one shape; one that has none cannot be read, which its own error says."""
        shapes = self._shapes(asked)
        if len(shapes) != 1:
            return None
        return new_batch((len(asked), *shapes.pop()), self._reader.dtype)

    def _mask_batch(self, asked: Sequence[Asked]) -> Tensor | None:
        """Memory for their masks, where they have some of one shape."""
        if self._masks is None:
            return None
        shapes = set()
        for one in asked:
            try:
                shapes.add(self._mask_shape(one))
            except DicomTorchError:
                continue
        return (
            new_batch((len(asked), *shapes.pop()), self._masks.dtype) if len(shapes) == 1 else None
        )

    def _shapes(self, asked: Sequence[Asked]) -> set[tuple[int, ...]]:
        shapes = set()
        for one in asked:
            try:
                shapes.add(self._shape(one))
            except DicomTorchError:
                continue
        return shapes

    def _samples(
        self, asked: Sequence[Asked], batch: Tensor | None, masks: Tensor | None
    ) -> FrameSamples:
        """Samples, of which number k lies in `batch[k]` where it fits, and its mask in `masks[k]`."""
        return FrameSamples(
            (
                self._sample(
                    one, None if batch is None else batch[k], None if masks is None else masks[k]
                )
                for k, one in enumerate(asked)
            ),
            batch if self.transform is None else None,
            masks,
        )

    def _sample(self, asked: Asked, out: Tensor | None, mask_out: Tensor | None) -> FrameSample:
        read = asked
        try:
            frame, mask = self._read(asked, out), self._mask_in(asked, mask_out)
        except DicomTorchError as error:
            read, frame, mask = self._replaced(asked, error, out, mask_out)
        meta = self._meta(read, frame.voi)
        meta["requested_index"] = self._number(asked)
        return self._finished(frame.image, mask, meta)

    def _mask_in(self, asked: Asked, out: Tensor | None) -> Mask | None:
        """The mask of a sample, in a tensor of its own where it does not fit into `out`; `None` without masks."""
        if self._masks is None:
            return None
        shape = self._mask_shape(asked)
        fits = out is not None and out.shape == shape
        return self._mask(asked, memory_for(shape, self._masks.dtype, out if fits else None))

    def _finished(self, image: Tensor, mask: Mask | None, meta: FrameMeta) -> FrameSample:
        changed = image if self.transform is None else self.transform(image)
        if mask is None:
            return FrameSample((changed, meta))
        meta.update(mask.meta())
        return FrameSample((changed, mask.image, meta))

    def _collated(self, samples: FrameSamples) -> Any:
        return collate_frames(samples)

    def _replaced(
        self,
        asked: Asked,
        error: DicomTorchError,
        out: Tensor | None,
        mask_out: Tensor | None = None,
    ) -> tuple[Asked, Frame, Mask | None]:
        """The next one that can be read; in a tensor of its own where it does not fit into `out`."""
        if self.on_error == "raise":
            raise self._with_way_out(error)
        for other in self._others(asked):
            try:
                fits = out is not None and self._shape(other) == out.shape
                frame = self._read(other, out if fits else None)
                mask = self._mask_in(other, mask_out)
            except DicomTorchError:
                continue
            self._note(Failure(self._number(asked), str(error), self._number(other)))
            return other, frame, mask
        raise self._with_way_out(error)

    def _note(self, failure: Failure) -> None:
        self._failures.append(failure)
        if len(self._failures) == 1:
            warnings.warn(
                f"{failure.error}. {self.sample_name.capitalize()} {failure.index} was replaced by "
                f"{self.sample_name} {failure.replaced_by}; further ones are replaced without a warning and listed in "
                f"{self.sample_name}s.failures",
                stacklevel=_level_of_caller(),
            )

    def _with_way_out(self, error: DicomTorchError) -> DicomTorchError:
        """The error as it is raised: where a sample can be left out, saying how."""
        if isinstance(error, StaleIndexError | StorageError):
            return error
        named = type(error)(
            f'{error}. Leave it out with {self.sample_name}s.index.select(...), or use on_error="replace"'
        )
        named.__cause__ = error
        return named


def _level_of_caller() -> int:
    """For `warnings.warn` in the function that calls this: the first frame outside of the package."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    return level


def memory_for(shape: tuple[int, ...], dtype: torch.dtype, out: Tensor | None) -> Tensor:
    """`out`, or a tensor of its own."""
    return torch.empty(shape, dtype=dtype) if out is None else out
