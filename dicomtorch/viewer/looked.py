"""What the viewer looks at: a dataset of this package, and a loader of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch.utils.data import Subset

from dicomtorch.errors import OptionError
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.masks.mask_index import MaskIndex
from dicomtorch.reader.reader import FrameReader


class Looked(Protocol):
    """A dataset of this package that can be looked at."""

    sample_name: str
    transform: Any
    sample_transform: Any

    def __len__(self) -> int: ...

    @property
    def index(self) -> FrameIndex:
        """Of its frames."""

    @property
    def frame_reader(self) -> FrameReader:
        """Reads them."""

    @property
    def mask_index(self) -> MaskIndex | None:
        """Which pixels of them are what, if it has masks."""

    @property
    def legend(self) -> list[tuple[int, str]]:
        """Numbers and names of the labels of its masks or boxes."""

    @property
    def drawn_epoch(self) -> int | None:
        """With `seed=` the epoch that transforms draw for, else `None`."""

    @property
    def label_names(self) -> list[str]:
        """Keys of `meta` that the user brought or asked for."""

    def frames_of(self, i: int) -> Sequence[int]:
        """The frames that a sample is read from."""

    def whole_sample(self, i: int) -> tuple[Any, Any, Mapping[str, Any]]:
        """Image, mask and metadata of a sample."""

    def apart(self) -> Looked:
        """A copy whose epoch and failures are its own."""

    def set_epoch(self, epoch: int) -> None:
        """Which epoch transforms draw for."""

    def show_batch(self, i: Any = None) -> Any:
        """A picture of several samples."""


def decodable(index: FrameIndex) -> npt.NDArray[np.bool_]:
    """For each frame whether something that is installed decodes it."""
    return FrameReader(index).decodable()


class Opened:
    """A dataset with what is said of it: which of its samples are looked at, and the loader that they go through.

    Args:
        given: A dataset of this package, a `Subset` of one, or a loader of either.
        index: Frames to look at beyond those of the dataset, for datasets of frames: those that nothing decodes.
        positions: Where in `index` the frames of the dataset are.

    Attributes:
        dataset: The dataset.
        loader: The loader, or `None`.
        chosen: (N,), samples of the dataset that are looked at, in this order; `None`: all.
        index: The frames.
        reader: Reads them.
        numbers: (len(index),), the sample of each frame, -1 for none; of datasets of frames only.

    Raises:
        OptionError: It is nothing that can be looked at.
    """

    def __init__(
        self,
        given: Any,
        index: FrameIndex | None = None,
        positions: npt.NDArray[np.int64] | None = None,
    ) -> None:
        is_loader = hasattr(given, "batch_sampler") and hasattr(given, "dataset")
        self.loader: Any = given if is_loader else None
        dataset: Any = given.dataset if is_loader else given
        self.chosen: npt.NDArray[np.int64] | None = None
        while isinstance(dataset, Subset):
            part = np.asarray(dataset.indices, np.int64)
            self.chosen = part if self.chosen is None else part[self.chosen]
            dataset = dataset.dataset
        if not hasattr(dataset, "whole_sample"):
            raise OptionError(
                f"view takes DicomFrames, DicomClips, DicomVolumes, DicomCrops, a Subset of one, or a loader of these; "
                f'got {type(dataset).__name__}. Of a folder: view(DicomFrames("folder"))'
            )
        self.dataset: Looked = dataset
        self.index = dataset.index if index is None else index
        self.reader: FrameReader = dataset.frame_reader
        self.numbers: npt.NDArray[np.int64] | None = None
        if index is not None:
            assert positions is not None
            isolation = self.reader.fetcher.backends.isolation
            self.reader = FrameReader(index, isolation=isolation)
            self.numbers = np.full(len(index), -1, np.int64)
            self.numbers[positions] = np.arange(len(positions))

    @property
    def has_frames(self) -> bool:
        """Whether a sample is one frame."""
        return self.dataset.sample_name == "frame"

    @property
    def samples(self) -> npt.NDArray[np.int64]:
        """The samples that are looked at."""
        return np.arange(len(self.dataset)) if self.chosen is None else self.chosen

    def sample_of(self, position: int) -> int:
        """The sample that a frame of the index is, -1 for none."""
        return position if self.numbers is None else int(self.numbers[position])

    def name_of(self, number: int) -> str:
        """What a label is called, where the user named it."""
        return next((name for n, name in self.dataset.legend if n == number), "")
