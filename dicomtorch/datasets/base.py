"""`SampleDataset`: what frames, clips, volumes and crops have in common."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar, Generic, TypeVar, cast, overload

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from dicomtorch.batches.collate import FrameSamples, collate_frames
from dicomtorch.batches.metadata import FrameMeta
from dicomtorch.datasets.dicts import SampleDicts
from dicomtorch.datasets.failures import plural, shapes_of, warn_of, with_way_out
from dicomtorch.datasets.kinds import Batch_co, Sample_co, Several
from dicomtorch.datasets.masked import BoxTarget, Mask
from dicomtorch.datasets.options import Failure, ReadPolicy
from dicomtorch.datasets.positions import one_position, several_positions
from dicomtorch.datasets.samples import Finisher
from dicomtorch.datasets.source import FrameSource
from dicomtorch.errors import (
    DicomTorchError,
    FrameNotFoundError,
    OptionError,
)
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.masks.coded_names import LabelMap
from dicomtorch.masks.mask_index import MaskIndex
from dicomtorch.model.frame import AppliedVOI
from dicomtorch.model.report import ScanReport
from dicomtorch.pixels.memory import new_batch
from dicomtorch.reader.context import ContextReader
from dicomtorch.reader.reader import Frame, FrameReader, fresh
from dicomtorch.series.geometry import Ints

Asked = TypeVar("Asked")
Finish = Callable[..., Any]
"""`Finisher`, or what stands for it."""


class SampleDataset(Dataset[Sample_co], Generic[Asked, Sample_co, Batch_co]):
    """Samples of an index by position, several at once as a batch, and what happens where one cannot be read.

    A subclass says what its samples are; `Asked` is what a position means to it: mostly an integer from 0.
    For type checkers there are the types of a sample and of a batch, too.

    Args:
        source: What is read from.
    """

    sample_name: ClassVar[str]
    """What messages and the viewer call a sample: "frame", "clip", "volume", ..."""

    _channel_axis: ClassVar[int] = 0  # of the image of a sample

    def __init__(self, source: FrameSource) -> None:
        self._source = source
        self._finish = Finisher(source.policy)
        self._reader: FrameReader | ContextReader = source.reader
        self._masks = source.masks
        self._targets = source.boxes
        if self._targets is not None and self.sample_name != "frame":
            raise OptionError(f"{self._targets.kind}= goes with DicomFrames")
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
    def source(self) -> FrameSource:
        """What frames are read from, for datasets that are made of this one."""
        return self._source

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
    def transform(self) -> Any:
        """Called with the image tensor, if there is one; another may be put in its place."""
        return self._finish.transform

    @transform.setter
    def transform(self, transform: Any) -> None:
        self._finish.transform = transform

    @property
    def sample_transform(self) -> Any:
        """Called with image and metadata, if there is one; another may be put in its place."""
        return self._finish.sample_transform

    @sample_transform.setter
    def sample_transform(self, transform: Any) -> None:
        self._finish.sample_transform = transform

    @property
    def identifiers(self) -> dict[str, str]:
        """The keys of `meta` that identify, with what the profile of PS3.15 table E.1-1 does with each.

        "X" removes the attribute, "Z" empties it, "D" puts another value in its place, "U" another UID. Columns joined
        to the index are known by their names only, so those called like an attribute.
        """
        return dict(self._source.identity.identifiers)

    def set_epoch(self, epoch: int) -> None:
        """With `seed=`: which epoch the transforms draw random numbers for; it reaches workers that live on too.

        The samplers of this package that were made with this dataset call it when an epoch begins, and so does
        `FrameLoader`.
        """
        self._finish.set_epoch(epoch)

    @property
    def on_error(self) -> str:
        """What becomes of a frame that cannot be read: "raise" or "replace", as given."""
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
                f"{count} {plural(self.sample_name)} of {len(self):,} match {', '.join(equals) or 'nothing'}; find "
                f"needs exactly one{listed if len(found) else ''}"
            )
        return int(found[0])

    # Samples

    @overload
    def __getitem__(self, i: int | np.integer[Any]) -> Sample_co: ...
    @overload
    def __getitem__(self, i: Several) -> Batch_co: ...
    @overload
    def __getitem__(self, i: Tensor) -> Any: ...  # one of no dimension asks for a sample
    def __getitem__(self, i: Any) -> Any:
        """One sample for an integer, a collated batch for a slice, list, array, tensor or boolean mask."""
        if type(i) is not int:
            several = several_positions(i, len(self), self.sample_name)
            if several is not None:
                return self._collated(self.__getitems__(several))
        (sample,) = self._samples([self._asked(i)], None, None)
        return sample

    def __getitems__(self, indices: Sequence[Any]) -> Any:
        """Several samples, read straight into one batch if they have one shape; `DataLoader` calls this."""
        asked = self._all_asked(indices)
        return self._as_torch_wants(
            self._samples(asked, self._batch(asked), self._mask_batch(asked))
        )

    @property
    def draws(self) -> bool:
        """Whether transforms draw from generators that all threads share, so that one thread has to run them."""
        return self._finish.draws

    def read_unfinished(self, indices: Sequence[Any]) -> Callable[[], Any]:
        """Reads several samples in any thread; what is returned runs transforms, and gives what `__getitems__` does."""
        asked = self._all_asked(indices)
        masks = self._mask_batch(asked)
        read = self._samples(asked, self._batch(asked), masks, _kept)

        def finished() -> Any:
            return self._as_torch_wants(
                FrameSamples((self._finish(*parts) for parts in read), None, masks)
            )

        return finished

    def _as_torch_wants(self, samples: FrameSamples) -> Any:
        if self._finish.keeps_samples or not isinstance(samples[0], Tensor):
            return samples
        return list(samples)  # its collation wants bare tensors

    def __iter__(self) -> Iterator[Sample_co]:
        for i in range(len(self)):
            yield self[i]

    def as_dicts(self, image: str = "image", mask: str = "mask") -> SampleDicts:
        """The samples as dictionaries, for `Dataset`, `CacheDataset` and `PersistentDataset` of `monai.data`.

        Args:
            image: The key of the image; those of `meta` are keys beside it.
            mask: The key of the mask, if there are masks.

        Example:
            >>> data = frames.as_dicts(image="image")                                          # doctest: +SKIP
            >>> cached = monai.data.CacheDataset(data, [RandFlipd("image", prob=0.5)])         # doctest: +SKIP
        """
        return SampleDicts(self, image, mask)

    @property
    def is_remote(self) -> bool:
        """Whether samples are read over a network, so that they are asked for well before they are needed."""
        return self._reader.is_remote

    def will_need(self, indices: Sequence[Any]) -> None:
        """Says which samples are asked for soon, so that the system reads them into its cache; `FrameLoader` does."""
        self._reader.will_need(self._reads(self._all_asked(indices)))

    def needed_frames(self, indices: Sequence[Any]) -> list[int]:
        """The positions in the index of the frames that samples are of, each once."""
        return self._needed(map(self._asked, indices))

    def _needed(self, asked: Iterable[Asked]) -> list[int]:
        return list(dict.fromkeys(k for one in asked for k in self._positions(one)))

    def _reads(self, asked: Sequence[Asked]) -> list[int]:
        """The positions of the frames that are read for samples, each as often as it is read."""
        return [k for one in asked for k in dict.fromkeys(self._positions(one))]

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
        shapes = shapes_of(self._mask_shape, asked)
        return (
            new_batch((len(asked), *shapes.pop()), self._masks.dtype) if len(shapes) == 1 else None
        )

    def _shapes(self, asked: Sequence[Asked]) -> set[tuple[int, ...]]:
        return shapes_of(self._shape, asked)

    def _samples(
        self,
        asked: Sequence[Asked],
        batch: Tensor | None,
        masks: Tensor | None,
        finish: Finish | None = None,
    ) -> FrameSamples:
        """Samples, of which number k lies in `batch[k]` where it fits, and its mask in `masks[k]`."""
        ready = self._read_ahead(asked, batch)
        made = []
        for k, one in enumerate(asked):
            out = None if batch is None else batch[k]
            mask_out = None if masks is None else masks[k]
            made.append(self._sample(one, out, mask_out, finish, ready[k]))
        return FrameSamples(made, batch if self._finish.keeps_images else None, masks)

    def _read_ahead(
        self, asked: Sequence[Asked], batch: Tensor | None
    ) -> Sequence[Frame | DicomTorchError | None]:
        """What was read of several samples together; `None` for those that are read when it is their turn."""
        if len(asked) > 1 and self.is_remote:  # so that none is waited for alone
            with contextlib.suppress(DicomTorchError):
                self._reader.will_need(self._reads(asked), is_known=True)
        return [None] * len(asked)

    def _sample(
        self,
        asked: Asked,
        out: Tensor | None = None,
        mask_out: Tensor | None = None,
        finish: Finish | None = None,
        ready: Frame | DicomTorchError | None = None,
    ) -> Any:
        read = asked
        try:
            if isinstance(ready, DicomTorchError):
                raise ready
            frame, mask = ready or self._read(asked, out), self._mask_in(asked, mask_out)
        except DicomTorchError as error:
            read, frame, mask = self._replaced(asked, error, out, mask_out)
        if self._source.standardization is not None:
            self._source.standardization.apply(frame.image, self._channel_axis, self._num_frames)
        meta = self._meta(read, frame.voi)
        meta["requested_index"] = self._number(asked)
        return (finish or self._finish)(frame.image, meta, self._key(asked), mask)

    def _mask_in(self, asked: Asked, out: Tensor | None) -> Mask | BoxTarget | None:
        """The mask of a sample, in a tensor of its own where it does not fit into `out`; `None` without masks."""
        if self._masks is None:
            return None if self._targets is None else self._targets.of(self._number(asked))
        shape = self._mask_shape(asked)
        fits = out is not None and out.shape == shape
        return self._mask(asked, memory_for(shape, self._masks.dtype, out if fits else None))

    @property
    def _num_frames(self) -> int:
        """How many frames the channels of an image are of."""
        return 2 * self._reader.context + 1 if isinstance(self._reader, ContextReader) else 1

    def _key(self, asked: Asked) -> tuple[int, ...]:
        """Numbers that tell a sample from all others."""
        return (self._number(asked),)

    def _collated(self, samples: Sequence[Any]) -> Any:
        return (
            collate_frames(samples)
            if self._finish.keeps_samples
            else default_collate(list(samples))
        )

    def _replaced(
        self,
        asked: Asked,
        error: DicomTorchError,
        out: Tensor | None,
        mask_out: Tensor | None = None,
    ) -> tuple[Asked, Frame, Mask | BoxTarget | None]:
        """The next one that can be read; in a tensor of its own where it does not fit into `out`."""
        if self.on_error == "raise":
            raise with_way_out(error, self.sample_name)
        for other in self._others(asked):
            try:
                fits = out is not None and self._shape(other) == out.shape
                frame = self._read(other, out if fits else None)
                mask = self._mask_in(other, mask_out)
            except DicomTorchError:
                continue
            self._note(Failure(self._number(asked), str(error), self._number(other)))
            return other, frame, mask
        raise with_way_out(error, self.sample_name)

    def _note(self, failure: Failure) -> None:
        self._failures.append(failure)
        if len(self._failures) == 1:
            warn_of(failure, self.sample_name)


def _kept(*parts: Any) -> tuple[Any, ...]:
    """What a `Finisher` is called with."""
    return parts


def memory_for(shape: tuple[int, ...], dtype: torch.dtype, out: Tensor | None) -> Tensor:
    """`out`, or a tensor of its own; in a worker not in the segments that batches are sent in."""
    return fresh(shape, dtype) if out is None else out
