"""Uncompressed and RLE frames that a server gives by `dicomtorch_kernels`: what came for a batch is one call."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from torch import Tensor

from dicomtorch.errors import DicomTorchError
from dicomtorch.reader.fetch import FrameFetcher
from dicomtorch.reader.given import GivenReader
from dicomtorch.reader.kernels import PlainReader
from dicomtorch.reader.templates import Template

_AT_ONCE: Final = 32 << 20  # bytes of frames that wait for each other
_ITEM: Final = struct.Struct("<HHI")
"""Tag and length of an item (PS3.5 A.4), which frames of files have before them."""


def read_plain_given(
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
        fetcher: Of the same index, its frames given by a server.
        positions: Frames.
        templates: How each is converted, `None` for those that are left out.
        out: (B, C, H, W), contiguous; frame k goes into `out[k]`.
        num_threads: At most so many at once.
    """
    results: list[bool | DicomTorchError] = [False] * len(positions)
    batch = plain.batch(positions, templates, out)
    if batch is None or fetcher.giver is None:
        return results
    given = GivenReader(fetcher.giver, fetcher.kept, fetcher.index)
    numbers = batch.which.tolist()
    located = fetcher.index.locate(positions[batch.which])
    nbytes = {id(one): one.nbytes for one in templates if one is not None}
    parts = list(parts_of([nbytes[id(templates[number])] for number in numbers]))
    if len(parts) > 1:
        fetcher.need(located)
    rle = {id(one): one.is_rle for one in templates if one is not None}
    for part in parts:
        got: list[memoryview | bytes | DicomTorchError] = [*given.read_many(located[part])]
        for k, number in enumerate(numbers[part]):
            data = got[k]
            if rle[id(templates[number])] and not isinstance(data, DicomTorchError):
                got[k] = _ITEM.pack(0xFFFE, 0xE000, len(data)) + data
        batch.jobs["number"][part] = [
            0 if isinstance(data, DicomTorchError) else len(data) for data in got
        ]
        converted = plain.read_memory(batch, part, got, num_threads)
        for number, data, is_there in zip(numbers[part], got, converted, strict=True):
            results[number] = is_there
            if isinstance(data, DicomTorchError):
                results[number] = fetcher.named(data, int(positions[number]))
    return results


def parts_of(sizes: Sequence[int]) -> Iterator[slice]:
    """Frames of these bytes that are waited for together."""
    bounds = np.flatnonzero(np.diff(np.cumsum(sizes) // _AT_ONCE)) + 1
    for first, end in itertools.pairwise((0, *bounds.tolist(), len(sizes))):
        yield slice(first, end)
