"""Uncompressed and RLE frames of remote objects by `dicomtorch_kernels`: what came for a batch is one call.

A thread waits once for all that it needs, and no Python runs for each frame: threads that wait for requests and those
that make batches share one interpreter's lock.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

from dicomtorch.errors import DicomTorchError
from dicomtorch.reader.fetch import FrameFetcher
from dicomtorch.reader.kernels import PlainReader
from dicomtorch.reader.plain_given import parts_of, read_plain_given
from dicomtorch.reader.templates import Template
from dicomtorch.storage.base import ByteRange
from dicomtorch.storage.remote import RemoteStorage


def read_plain_remote(
    plain: PlainReader,
    fetcher: FrameFetcher,
    positions: npt.NDArray[np.int64],
    templates: Sequence[Template | None],
    out: Tensor,
    num_threads: int,
) -> list[bool | DicomTorchError]:
    """Reads frames into a batch and says for each whether it is there, or what is wrong with it.

    Args:
        plain: Of the index.
        fetcher: Of the same index, its files in a `RemoteStorage` or its frames given by a server.
        positions: Frames.
        templates: How each is converted, `None` for those that are left out.
        out: (B, C, H, W), contiguous; frame k goes into `out[k]`.
        num_threads: At most so many at once.
    """
    if fetcher.giver is not None:
        return read_plain_given(plain, fetcher, positions, templates, out, num_threads)
    results: list[bool | DicomTorchError] = [False] * len(positions)
    batch = plain.batch(positions, templates, out)
    if batch is None or fetcher.kept is not None:
        return results
    assert isinstance(fetcher.storage, RemoteStorage)
    ranges = _ranges(fetcher, positions[batch.which])
    parts = list(parts_of([one.length for one in ranges]))
    if len(parts) > 1:
        fetcher.storage.need(ranges)
    for part in parts:
        got = fetcher.storage.take_many(ranges[part])
        converted = plain.read_memory(batch, part, got, num_threads)
        for number, data, is_there in zip(batch.which[part].tolist(), got, converted, strict=True):
            results[number] = is_there
            if isinstance(data, DicomTorchError):
                results[number] = fetcher.named(data, int(positions[number]))
    return results


def _ranges(fetcher: FrameFetcher, positions: npt.NDArray[np.int64]) -> list[ByteRange]:
    """Where the bytes of frames are that lie in one piece and are not deflated."""
    known = fetcher.objects.ranges(positions)
    if known is not None:  # nearly always: they were asked for ahead
        return known
    return [fetcher.byte_range(where) for where in fetcher.index.locate(positions)]
