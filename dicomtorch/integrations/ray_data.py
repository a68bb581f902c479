"""Frames of an index as a dataset of Ray Data, decoded by its tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from torch import Tensor

from dicomtorch.batches.collate import FrameSample
from dicomtorch.datasets.frames import DicomFrames
from dicomtorch.errors import OptionError, import_library
from dicomtorch.index.frame_index import FrameIndex

_TENSORS = ("image", "mask")
_BLOCKS = 64  # at most: tasks of a pass, each of which has a cost of its own


def frames_to_ray(
    index: FrameIndex,
    *,
    batch_size: int = 32,
    keys: Sequence[str] = (),
    num_replicas: int = 1,
    **options: Any,
) -> Any:
    """The frames as a `ray.data.Dataset` with columns "index", "image" (C, H, W), "mask" where there are masks.

    `iter_torch_batches` and Ray Train take it as it is. Workers open the index by its path, so where there are several
    machines it and the files have to be found by the same path on each.

    Args:
        index: In whose order frames come; `index.select(permutation)` for another one.
        batch_size: Frames that are decoded together.
        keys: Of `meta`, as further columns: joined labels, for example. `iter_torch_batches` refuses text.
        num_replicas: Workers of Ray Train that share the frames. It gives each as many as the others, and the rest to
            nobody; with the number of workers here the first frames come a second time to fill up.
        **options: Of `DicomFrames`.

    Raises:
        MissingDependencyError: ray is not installed.
        OptionError: An option means nothing, `meta` has no key of `keys`, or samples are not images, masks and `meta`.
        DicomTorchError: The first frame cannot be read.
    """
    data: Any = import_library("ray.data", "ray[data]")
    if batch_size < 1:
        raise OptionError(f"batch_size must be 1 or more; got {batch_size}")
    if num_replicas < 1:
        raise OptionError(f"num_replicas must be 1 or more; got {num_replicas}")
    frames = DicomFrames(index, **options)
    _check_sample(frames[0], keys)
    count = num_replicas * -(-len(frames) // num_replicas)
    rows = batch_size * -(-count // (batch_size * _BLOCKS))
    positions = pa.table({"index": np.resize(np.arange(len(frames)), count)})
    blocks = [positions.slice(first, rows) for first in range(0, count, rows)]
    decode = _Decode(frames, tuple(keys))
    return data.from_arrow(blocks).map_batches(decode, batch_size=batch_size, batch_format="numpy")


def _check_sample(sample: Any, keys: Sequence[str]) -> None:
    """Refuses here what tasks would fail at, one by one.

    Raises:
        OptionError: A sample has no such columns.
    """
    tensors = sample[:-1] if isinstance(sample, FrameSample) else ()
    if not tensors or not all(isinstance(one, Tensor) for one in tensors):
        raise OptionError(
            "columns are made of images, masks and meta: leave out target=, boxes=, points= and transforms that return "
            "something else"
        )
    if isinstance(keys, str):
        raise OptionError(f"keys is a list of keys of meta; got the text {keys!r}")
    if absent := [key for key in keys if key not in sample[-1]]:
        raise OptionError(f"keys: meta has no {', '.join(map(repr, absent))}")
    if taken := {"index", *_TENSORS}.intersection(keys):
        raise OptionError(f"keys: {', '.join(sorted(taken))} is a column already")


class _Decode:
    """What a task calls with the positions of a batch.

    Args:
        frames: The dataset.
        keys: Of `meta`.
    """

    def __init__(self, frames: DicomFrames[Any, Any], keys: tuple[str, ...]) -> None:
        self._frames, self._keys = frames, keys

    def __call__(self, batch: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """The columns of these frames."""
        samples = self._frames.__getitems__(batch["index"].tolist())
        found = {"index": batch["index"]}
        for k, name in enumerate(_TENSORS[: len(samples[0]) - 1]):
            found[name] = _stacked([sample[k].numpy() for sample in samples])
        for key in self._keys:
            found[key] = np.array([sample[-1][key] for sample in samples])
        return found


def _stacked(arrays: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """(B, C, H, W); where sizes differ (B,) of arrays, as Ray Data takes them."""
    if len({array.shape for array in arrays}) == 1:
        return np.stack(arrays)
    ragged = np.empty(len(arrays), object)
    ragged[:] = arrays
    return ragged
