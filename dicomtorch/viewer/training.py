"""The training pane: samples as training gets them, planes of them, their masks, and the batches of a loader.

What this calls of a user (transforms, samplers, collate functions) may draw random numbers and keep states; `apart`
says where it is called so that a training does not notice.
"""

from __future__ import annotations

import contextlib
import random
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from dicomtorch.batches.coverage import drawn
from dicomtorch.errors import OptionError
from dicomtorch.viewer.answer import Answer, NotThereError, of_array, plain
from dicomtorch.viewer.looked import Looked, Opened

Array = npt.NDArray[Any]

_MOST_BYTES = 1 << 30  # of samples that are kept
_MOST_SAMPLES = 16
_MOST_LISTED = 100_000  # batches of an epoch


class Sample:
    """A sample as training gets it.

    Args:
        made: Image, mask and metadata.
    """

    def __init__(self, made: tuple[Any, Any, Mapping[str, Any]]) -> None:
        image, self.mask, self.meta = made
        if not isinstance(image, Tensor) or image.ndim not in (3, 4, 5) or not image.numel():
            what = (
                f"shape {tuple(image.shape)}" if isinstance(image, Tensor) else type(image).__name__
            )
            raise OptionError(
                f"images (C, H, W), clips and volumes can be drawn; the transforms give {what}"
            )
        self.image = image.detach().cpu()

    @property
    def bytes(self) -> int:
        """Of its image."""
        return self.image.numel() * self.image.element_size()


class Training:
    """Answers about samples and batches.

    Args:
        opened: What is looked at.
        draws: Whether there is code of a user, which may draw random numbers; else the generators are not touched.
    """

    def __init__(self, opened: Opened, draws: bool) -> None:
        self._opened = opened
        self._drawn_as: Any = drawn_as if draws else _untouched
        self._dataset: Looked = opened.dataset.apart()
        self._seeded = opened.dataset.drawn_epoch
        self._samples: OrderedDict[tuple[int, int], Sample] = OrderedDict()
        self._batches: list[list[Any]] | None = None
        self._batch: tuple[int, Any] = (-1, None)

    # Samples

    def describe(self, i: int, draw: int = 0) -> dict[str, Any]:
        """What is said of a sample: metadata, shape, type, boxes."""
        sample = self._sample(i, draw)
        image, name = sample.image, self._opened.dataset.sample_name
        meta = {key: value for key, value in sample.meta.items() if key != "path"}
        said: dict[str, Any] = {
            "kind": name,
            "shape": list(image.shape),
            "dtype": str(image.dtype).removeprefix("torch."),
            "meta": plain(meta),
            "labels": [key for key in self._dataset.label_names if key in meta],
            "frames": list(sample.meta.get("frames", ())) if image.ndim > 3 else [],
            "spacing": plain(sample.meta.get("spacing")) if name in ("volume", "crop") else None,
            "resized": plain(sample.meta.get("resized")),
            "replaced": sample.meta.get("index") != sample.meta.get("requested_index"),
            "mask": isinstance(sample.mask, Tensor),
            "boxes": _boxes(sample.mask),
        }
        if sample.meta.get("resampled"):
            said["frames"] = []
        return said

    def image(
        self, i: int, draw: int, axis: int, plane: int | None, time: int, edge: int
    ) -> Answer:
        """The tensor's own values: all of them, or one plane (C, rows, columns) of a clip or volume.

        Args:
            i: The sample.
            draw: Which draw of random transforms.
            axis: Along which planes are counted: 0, or 1 and 2 of volumes.
            plane: Which; `None` for all.
            time: Which volume of a series.
            edge: Leave out rows and columns so that at most so many remain; 0 for none.
        """
        image = self._sample(i, draw).image
        if plane is not None and image.ndim > 3:
            image = _plane(image, self._opened.dataset.sample_name, axis, plane, time)
        return _values(_thinned(image, edge))

    def mask(self, i: int, draw: int, axis: int, plane: int | None, time: int) -> Answer:
        """Labels (rows, columns): 0, or 1 + the place of a label in the legend."""
        sample = self._sample(i, draw)
        if not isinstance(sample.mask, Tensor):
            raise NotThereError("this dataset has no masks")
        mask = sample.mask.detach().cpu()
        if mask.ndim > 3:
            name = self._opened.dataset.sample_name
            mask = _plane(mask, name, axis, plane or 0, time)
        return of_array(legend_places(mask.numpy(), self._opened.dataset.legend))

    def _sample(self, i: int, draw: int) -> Sample:
        key = (i, draw)
        found = self._samples.get(key)
        if found is None:
            if self._seeded is not None:
                self._dataset.set_epoch(self._seeded + draw)
            with self._drawn_as(i, draw):
                found = Sample(self._dataset.whole_sample(i))
            self._samples[key] = found
            kept = sum(sample.bytes for sample in list(self._samples.values()))
            while len(self._samples) > 1 and (
                len(self._samples) > _MOST_SAMPLES or kept > _MOST_BYTES
            ):
                kept -= self._samples.popitem(last=False)[1].bytes
        return found

    # Batches

    def batches(self, offset: int, limit: int) -> dict[str, Any]:
        """The samples of each batch of the next epoch, in the order in which training gets them."""
        batches = self._order()
        part = batches[offset : offset + limit]
        return {
            "count": len(batches),
            "epoch": int(getattr(self._sampler(), "epoch", 0)),
            "batches": [[plain(one) for one in indices] for indices in part],
            "repeats": _repeats(self._opened.loader),
        }

    def batch(self, number: int) -> dict[str, Any]:
        """What is said of one batch: its samples, the shape of its images, labels where metadata have them."""
        made = self._made(number)
        images, meta = made[0], made[-1]
        names = self._dataset.label_names
        labels: dict[str, Any] = {}
        if isinstance(meta, Mapping):
            labels = {name: plain(meta[name]) for name in names if name in meta}
        elif len(made) > 1 and len(meta) == len(images):
            labels = {"target": [plain(one) for one in meta]}
        return {
            "samples": [plain(one) for one in self._order()[number]],
            "shape": list(images.shape),
            "dtype": str(images.dtype).removeprefix("torch."),
            "labels": labels,
        }

    def batch_image(self, number: int, item: int, edge: int) -> Answer:
        """One image of a batch; of clips and volumes the plane in the middle."""
        images = self._made(number)[0]
        if item >= len(images):
            raise NotThereError(f"there is no such image; the batch has {len(images)}")
        image = images[item].detach().cpu()
        if image.ndim > 3:
            name = self._opened.dataset.sample_name
            axis = 0 if name == "clip" else image.ndim - 3
            image = _plane(image, name, 0, image.shape[axis] // 2, 0)
        return _values(_thinned(image, edge))

    def _made(self, number: int) -> Sequence[Any]:
        batches = self._order()
        if number >= len(batches):
            raise NotThereError(f"there is no such batch; the epoch has {len(batches)}")
        if self._batch[0] != number:
            with self._drawn_as(number, -1):
                made = _collated(self._opened.loader, batches[number])
            made = made if isinstance(made, tuple | list) else (made,)
            if not isinstance(made[0], Tensor) or made[0].ndim < 4:
                raise OptionError(
                    "batches that begin with images (B, C, H, W) can be drawn; collate_fn or batch_transform gives "
                    "something else"
                )
            self._batch = (number, made)
        found: Sequence[Any] = self._batch[1]
        return found

    def _order(self) -> list[list[Any]]:
        if self._opened.loader is None:
            raise NotThereError("there is no loader; view(loader) shows batches")
        if self._batches is None:
            self._batches = _epoch(self._opened.loader, self._sampler())
        return self._batches

    def _sampler(self) -> Any:
        loader = self._opened.loader
        order = getattr(loader, "sampler", None)
        return getattr(order, "sampler", order) if loader.batch_size is None else order


def _epoch(loader: Any, order: Any) -> list[list[Any]]:
    """The indices of each batch of the next epoch."""
    batches = loader.batch_sampler
    if isinstance(loader, DataLoader):
        if batches is None:
            raise OptionError("batches need a loader with a batch size")
        # What an iterator of it draws before the sampler does.
        torch.empty((), dtype=torch.int64).random_(generator=loader.generator)
    return drawn(batches, order, _MOST_LISTED)


def _repeats(loader: Any) -> bool:
    """Whether training gets this order: a sampler that draws from the global generator draws another one."""
    order = getattr(loader, "sampler", None)
    return getattr(order, "generator", loader) is not None


def _collated(loader: Any, indices: Sequence[Any]) -> Any:
    """The batch that the loader makes of some samples."""
    make = getattr(loader, "make_batch", None)
    if make is not None:
        return make(indices)
    dataset = loader.dataset
    several = getattr(dataset, "__getitems__", None)
    samples = several(list(indices)) if several else [dataset[i] for i in indices]
    return (loader.collate_fn or default_collate)(samples)


@contextlib.contextmanager
def drawn_as(*key: int) -> Iterator[None]:
    """The global generators of Python, NumPy and torch (CPU) draw the same for the same key, and go on as before."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    words = np.random.SeedSequence([k % (1 << 32) for k in key]).generate_state(2).tolist()
    try:
        random.seed(words[0])
        np.random.seed(words[1])
        torch.default_generator.manual_seed(words[0])
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


@contextlib.contextmanager
def _untouched(*_: int) -> Iterator[None]:
    # Putting the generators back would take from a training what it drew meanwhile.
    yield


def legend_places(mask: Array, legend: Sequence[tuple[int, str]]) -> Array:
    """(1 or K, H, W) of numbers, channels or fractions -> (H, W) of 0, or 1 + the place of the label in the legend."""
    if len(mask) == len(legend) and (len(mask) > 1 or mask.dtype.kind == "f"):
        places = np.arange(1, len(mask) + 1)[:, None, None]
        highest: Array = np.max(np.where(mask > 0.5, places, 0), axis=0)
        return highest.astype(np.uint16)
    labels = mask[0].astype(np.int64)
    result = np.zeros(labels.shape, np.uint16)
    for place, (number, _) in enumerate(legend, 1):
        result[labels == number] = place
    return result


def _plane(image: Tensor, name: str, axis: int, plane: int, time: int) -> Tensor:
    """(C, rows, columns) of a clip (T, C, H, W), a volume (C, D, H, W), or volumes (T, C, D, H, W)."""
    if name == "clip":
        image, axis = image.movedim(0, 1), 0
    elif image.ndim == 5:
        if time >= len(image):
            raise NotThereError(f"there is no such volume; the sample has {len(image)}")
        image = image[time]
    if axis > 2 or plane >= image.shape[1 + axis]:
        raise NotThereError(f"there is no such plane; the sample has {tuple(image.shape)}")
    return image.select(1 + axis, plane)


def _thinned(image: Tensor, edge: int) -> Tensor:
    step = -(-max(image.shape[-2:]) // edge) if edge else 1
    return image[..., ::step, ::step]


def _values(image: Tensor) -> Answer:
    """A tensor in a type that a page has: bfloat16, float16 and float64 become float32, int64 int32."""
    if image.dtype in (torch.bfloat16, torch.float16, torch.float64):
        image = image.float()
    elif image.dtype == torch.int64:
        image = image.clamp(-(1 << 31), (1 << 31) - 1).int()
    return of_array(image.contiguous().numpy())


def _boxes(target: Any) -> list[list[float]] | None:
    """[left, top, right, bottom, number of the label] of each box of a target; points are boxes without extent."""
    if not isinstance(target, Mapping) or not target.keys() & {"boxes", "points"}:
        return None
    boxes = target["boxes"] if "boxes" in target else target["points"].repeat(1, 2)
    boxes, labels = boxes.tolist(), target["labels"].tolist()
    return [[*box, label] for box, label in zip(boxes, labels, strict=True)]
