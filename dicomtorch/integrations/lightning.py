"""A `LightningDataModule` over one source, split by patient."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from dicomtorch.batches.epochs import ShuffleSampler
from dicomtorch.batches.loader import FrameLoader
from dicomtorch.datasets.frames import DicomFrames
from dicomtorch.errors import MissingDependencyError, OptionError, import_library

PARTS: Final = ("train", "val", "test", "predict")


def _base() -> Any:
    try:
        return import_library("lightning.pytorch", "lightning").LightningDataModule
    except MissingDependencyError:
        # The same library under its older name, whose trainer takes modules of its own class only.
        return import_library("pytorch_lightning", "lightning").LightningDataModule


class DicomDataModule(_base()):  # type: ignore[misc]
    """Datasets and loaders for `Trainer.fit(model, datamodule=...)`, of parts that have no patient in common.

    Every rank gets as many batches as the others; a checkpoint in the middle of an epoch is gone on from exactly.

    Args:
        source: A folder, a file, a list of either, or a `FrameIndex`.
        split: The fractions of "train", "val" and, of three, "test", by patient as `FrameIndex.split` makes them; or
            the parts themselves, as in `{"train": index, "val": another}`; "predict" may be one of them.
        batch_size: Samples in a batch of one rank.
        dataset: What makes a dataset of a part: `DicomFrames`, `DicomVolumes`, ...
        sampler: What makes the sampler of the training part of its dataset; `None`: `ShuffleSampler` with `seed`. The
            other parts come in order.
        loader: Further options of `FrameLoader`.
        seed: Of the split and of the order.
        train: Options of the dataset for this part alone, transforms for example.
        val: The same.
        test: The same.
        predict: The same.
        **options: Options of all datasets.

    Attributes:
        datasets: By part, after `setup`.

    Raises:
        OptionError: The split means nothing; or, later, an option does not, or there is no such part.
    """

    def __init__(
        self,
        source: Any,
        *,
        split: float | Sequence[float] | Mapping[str, Any] = (0.8, 0.2),
        batch_size: int = 32,
        dataset: Callable[..., Any] = DicomFrames,
        sampler: Callable[[Any], Iterable[Any]] | None = None,
        loader: Mapping[str, Any] | None = None,
        seed: int = 0,
        train: Mapping[str, Any] | None = None,
        val: Mapping[str, Any] | None = None,
        test: Mapping[str, Any] | None = None,
        predict: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        if isinstance(split, Mapping) and not split.keys() <= {*PARTS}:
            raise OptionError(
                f"the parts of a split are {', '.join(PARTS)}; got {', '.join(split)}"
            )
        self._source, self._split, self._seed = source, split, seed
        self._dataset, self._options = dataset, options
        self._sampler, self._loader = sampler, {"batch_size": batch_size, **(loader or {})}
        own = zip(PARTS, (train, val, test, predict), strict=True)
        self._own = {part: dict(given or {}) for part, given in own}
        self.datasets: dict[str, Any] = {}

    def prepare_data(self) -> None:
        """Scans the source, on one rank of each machine, so that the others find its index."""
        self._parts()

    def setup(self, stage: str | None = None) -> None:
        """Makes the datasets; on every rank.

        Raises:
            OptionError: An option means nothing.
        """
        if self.datasets:
            return
        for part, source in self._parts().items():
            self.datasets[part] = self._dataset(source, **{**self._options, **self._own[part]})

    def _parts(self) -> dict[str, Any]:
        if isinstance(self._split, Mapping):
            return dict(self._split)
        index = self._dataset(self._source, **self._options).index
        parts = index.split(self._split, seed=self._seed)
        if len(parts) > 3:
            raise OptionError(
                f"split has {len(parts)} fractions; there are train, val and test to be made of it"
            )
        return dict(zip(PARTS, parts, strict=False))

    def train_dataloader(self) -> FrameLoader[Any]:
        """Of the part "train", in another order each epoch."""
        dataset = self._of("train")
        make = self._sampler or (lambda samples: ShuffleSampler(samples, seed=self._seed))
        return FrameLoader(dataset, **self._loader, sampler=make(dataset))

    def val_dataloader(self) -> FrameLoader[Any] | list[Any]:
        """Of the part "val", in order; nothing where there is none."""
        return self._in_order("val") if "val" in self.datasets else []

    def test_dataloader(self) -> FrameLoader[Any]:
        """Of the part "test", in order."""
        return self._in_order("test")

    def predict_dataloader(self) -> FrameLoader[Any]:
        """Of the part "predict", in order."""
        return self._in_order("predict")

    def _in_order(self, part: str) -> FrameLoader[Any]:
        dataset = self._of(part)
        return FrameLoader(dataset, **self._loader, sampler=ShuffleSampler(dataset, shuffle=False))

    def _of(self, part: str) -> Any:
        if part not in self.datasets:
            known = ", ".join(self.datasets) or "none before setup() was called"
            raise OptionError(f"there is no part {part!r} in split=; there are: {known}")
        return self.datasets[part]
