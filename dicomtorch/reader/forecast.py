"""How many requests reading frames of a server takes, and what they move, before any is made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.index.members import DEFLATED, WEB, is_inside, object_path
from dicomtorch.storage.address import is_address
from dicomtorch.storage.spans import coalesce
from dicomtorch.storage.web import client_for, is_web

Numbers = npt.NDArray[np.int64]


class Forecast(NamedTuple):
    """What reading frames asks for.

    Attributes:
        requests: For frames; what fails and is asked for again is not in it. 0 of files of this machine.
        bytes: That come, with what lies between frames that share a request.
        unsized: Frames of a server whose size only their answer tells; `bytes` is without them.
    """

    requests: int
    bytes: int
    unsized: int = 0


def forecast(index: FrameIndex, batches: Iterable[Sequence[int]]) -> Forecast:
    """What reading batches of frames asks for: frames of a batch that lie near each other share a request.

    It is exact where each frame is read once and nothing is kept on this machine (`cache=`, `range_cache`). Of deflated
    files and members it is the most that may be: one that was inflated lately is not asked for again; so it is of
    DICOMweb servers, where frames of batches that wait share requests.

    Args:
        index: Of what.
        batches: The positions of each.
    """
    if not is_remote(index):
        return Forecast(0, 0)
    each = [np.unique(np.asarray(positions, np.int64)) for positions in batches]
    positions = np.concatenate(each) if each else np.zeros(0, np.int64)
    batch = np.repeat(np.arange(len(each)), [len(one) for one in each])
    return _forecast(index, positions, batch)


def forecast_in_order(index: FrameIndex, size: int) -> Forecast:
    """The same of all frames in their order, `size` in a batch."""
    if not is_remote(index):
        return Forecast(0, 0)
    positions = np.arange(len(index))
    return _forecast(index, positions, positions // size)


def _forecast(index: FrameIndex, positions: Numbers, batch: Numbers) -> Forecast:
    return (_of_server if is_web(index.root) else _of_objects)(index, positions, batch)


def is_remote(index: FrameIndex) -> bool:
    """Whether the frames of an index are on a server."""
    return is_address(index.root)


def _of_server(index: FrameIndex, positions: Numbers, batch: Numbers) -> Forecast:
    file = np.asarray(index.column("file"), np.int64)[positions]
    length = np.asarray(index.column("length"), np.int64)[positions]
    most = client_for(index.root).settings.frames_per_request
    _, together = np.unique(np.stack([batch, file], axis=1), axis=0, return_counts=True)
    requests = int((-(-together // most)).sum())
    return Forecast(requests, int(length.sum()), int((length == 0).sum()))


def _of_objects(index: FrameIndex, positions: Numbers, batch: Numbers) -> Forecast:
    offset, length, group = _ranges(index, positions)
    # Batch by batch and object by object, in the order of the offsets; what is asked for twice is asked for once.
    rows = np.unique(np.stack([batch, group, offset, length], axis=1), axis=0)
    new = np.ones(len(rows), np.bool_)
    new[1:] = (rows[1:, :2] != rows[:-1, :2]).any(axis=1)
    first = np.append(np.flatnonzero(new), len(rows))
    alone = np.diff(first) == 1
    requests, size = int(alone.sum()), int(rows[first[:-1][alone], 3].sum())
    for k in np.flatnonzero(~alone).tolist():
        spans = rows[first[k] : first[k + 1], 2:].tolist()
        blocks = coalesce([(start, many) for start, many in spans])
        requests += len(blocks)
        size += sum(block.length for block in blocks)
    return Forecast(requests, size)


def _ranges(index: FrameIndex, positions: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """(offset, length, number of the object) of what is read for each frame."""
    files: Any = index.files
    file = np.asarray(index.column("file"), np.int64)[positions]
    offset = np.asarray(index.column("offset"), np.int64)[positions].copy()
    length = np.asarray(index.column("length"), np.int64)[positions].copy()
    whole = np.asarray(files["deflated"])[file] == 1
    container = np.asarray(files["container"])[file]
    offset[whole], length[whole] = 0, np.asarray(files["size"], np.int64)[file[whole]]
    group = file.copy()
    alone = whole & (container > 0)  # each has a request of its own
    if container.any():
        within = (container == DEFLATED) | (whole & (container != WEB) & (container > 0))
        for name, values in (("member_offset", offset), ("member_length", length)):
            values[within] = np.asarray(files[name], np.int64)[file[within]]
        group = np.where(alone, len(files["path"]) + file, _objects(files, file))
    return offset, length, group


def _objects(files: Any, file: Numbers) -> Numbers:
    """The number of what is opened for each file: members of one archive have the same."""
    known: dict[bytes, int] = {}
    used, which = np.unique(file, return_inverse=True)
    numbers = np.empty(len(used), np.int64)
    for k, row in enumerate(used.tolist()):
        path = files["path"][row]
        if is_inside(files, row):
            path = object_path(path, files["member"][row])
        numbers[k] = known.setdefault(path, len(known))
    return numbers[which]
