"""Volumes as subjects of TorchIO: one from a sample, or a dataset of them that are read when they are used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from dicomtorch.errors import OptionError, import_library


def to_subject(image: Tensor, *rest: Any) -> Any:
    """A volume and its mask as a `torchio.Subject` with "image" and "mask"; axes are (C, W, H, D) there.

    It is a `sample_transform`: `DicomVolumes(..., masks=True, sample_transform=to_subject)`.

    Args:
        image: (C, D, H, W) of a volume or crop.
        rest: The mask, as large, where the dataset has masks, then meta: all of it but the affines become attributes of
            the subject.

    Raises:
        OptionError: It is no volume.
        MissingDependencyError: torchio is not installed.
    """
    torchio: Any = import_library("torchio", "torchio")
    *masks, meta = rest
    affine = _affine(image, meta)
    kept = {name: value for name, value in meta.items() if name not in ("affine", "affine_ras")}
    images = {"image": torchio.ScalarImage(tensor=_turned(image).float(), affine=affine)}
    if masks:
        images["mask"] = torchio.LabelMap(tensor=_turned(masks[0]), affine=affine)
    return torchio.Subject(**images, **kept)


def to_subjects(
    volumes: Any, transform: Callable[[Any], Any] | None = None, *, load: bool = True
) -> Any:
    """Volumes and their masks as a `torchio.SubjectsDataset`; each is read when it is used, and not kept.

    Its subjects have "image", "mask" where the volumes have masks, and "index", the position in `volumes`. TorchIO's
    `Queue`, samplers of patches and `SubjectsLoader` take it; with `num_workers` it is pickled as `volumes` is.

    Args:
        volumes: A `DicomVolumes` or another dataset of volumes, without `sample_transform`.
        transform: Of TorchIO; called with each subject.
        load: Whether a subject is read when it is taken from the dataset; `False`: when its first tensor is asked for.

    Raises:
        OptionError: The samples are no volumes (raised when one is read).
        MissingDependencyError: torchio is not installed.
    """
    torchio: Any = import_library("torchio", "torchio")
    has_masks = _has_masks(volumes)
    subjects = []
    for position in range(len(volumes)):
        sample = _Sample(volumes, position)
        images = {"image": torchio.ScalarImage(_NO_PATH, reader=_Part(sample, "image"))}
        if has_masks:
            images["mask"] = torchio.LabelMap(_NO_PATH, reader=_Part(sample, "mask"))
        subjects.append(torchio.Subject(images, index=position))
    return torchio.SubjectsDataset(subjects, transform=transform, load_getitem=load)


# An image that is read by a function has a path all the same, which must exist, and comes into batches: the one of a
# file of the user may name a patient.
_NO_PATH = Path(__file__)


class _Sample:
    """A sample that is read once for all its parts.

    Args:
        volumes: The dataset.
        position: In it.
    """

    def __init__(self, volumes: Any, position: int) -> None:
        self._volumes, self._position = volumes, position
        self._left: dict[str, tuple[Tensor, npt.NDArray[Any]]] = {}

    def take(self, name: str) -> tuple[Tensor, npt.NDArray[Any]]:
        """A part and its affine; what was taken is not kept here."""
        if name not in self._left:
            image, *masks, meta = self._volumes[self._position]
            affine = _affine(image, meta)
            self._left = {"image": (_turned(image).float(), affine)}
            if masks:
                self._left["mask"] = (_turned(masks[0]), affine)
        return self._left.pop(name)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Sample:
        # TorchIO copies a subject each time that it is used: the dataset is shared, tensors are not.
        copied = memo[id(self)] = _Sample(self._volumes, self._position)
        return copied

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_left": {}}


class _Part:
    """What TorchIO calls to read an image.

    Args:
        sample: Of which.
        name: "image" or "mask".
    """

    def __init__(self, sample: _Sample, name: str) -> None:
        self._sample, self._name = sample, name

    def __call__(self, _: Any) -> tuple[Tensor, npt.NDArray[Any]]:
        """The tensor (C, W, H, D), and the affine of these axes to RAS."""
        return self._sample.take(self._name)


def _has_masks(dataset: Any) -> bool:
    while hasattr(dataset, "dataset"):  # a `Subset`
        dataset = dataset.dataset
    try:
        return getattr(dataset, "masks", None) is not None
    except OptionError:
        return False


def _turned(tensor: Tensor) -> Tensor:
    """(C, D, H, W) as (C, W, H, D)."""
    return tensor.permute(0, 3, 2, 1)


def _affine(image: Tensor, meta: Any) -> npt.NDArray[np.float64]:
    """Of (W, H, D) to RAS.

    Raises:
        OptionError: It is no volume.
    """
    if image.ndim != 4 or "affine_ras" not in meta:
        raise OptionError("subjects are of volumes and crops, which have an affine")
    return np.asarray(meta["affine_ras"])[:, [2, 1, 0, 3]]
