"""Checksums of what is stored: as fast as memory, because all of it is checked whenever it is opened."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

_BLOCK = 512  # words
_AT_ONCE = 1 << 24  # bytes, whole blocks


def checksum(data: Any) -> int:
    """The CRC of the sums of blocks of 4 KiB, each taken as 64-bit words, and of what is left over.

    Any change within one word changes it, and so do blocks that are lost or change places; words that change places
    inside a block do not. It is as fast as memory, several times faster than a CRC of everything.
    """
    return _of_parts([data])


def checksum_of_file(path: Path) -> int:
    """The same of a file."""
    with open(path, "rb") as file:  # buffered: a part that came short would be no whole blocks
        return _of_parts(iter(lambda: file.read(_AT_ONCE), b""))


def _of_parts(parts: Iterable[Any]) -> int:
    """The same of data in parts, of which all but the last are whole blocks."""
    crc, tail = 0, memoryview(b"")
    for part in parts:
        view = memoryview(part).cast("B")
        words = np.frombuffer(view, "<u8", count=len(view) // 8)
        whole = len(words) // _BLOCK * _BLOCK
        sums = words[:whole].reshape(-1, _BLOCK).sum(axis=1, dtype=np.uint64)
        crc, tail = zlib.crc32(sums.astype("<u8").tobytes(), crc), view[whole * 8 :]
    return zlib.crc32(tail, crc)
