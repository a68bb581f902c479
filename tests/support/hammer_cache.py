"""Several processes at one cache: `python -m tests.support.hammer_cache FOLDER MAX_BYTES SEED ROUNDS`.

Imports no torch.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np

from dicomtorch.model.image import ImagePixel
from dicomtorch.model.syntaxes import JPEG_2000
from dicomtorch.reader.cache import FrameCache
from dicomtorch.storage.base import Scratch

PIXEL = ImagePixel(JPEG_2000, 24, 32, pixel_representation=1)
KEYS = 20


def key(k: int) -> bytes:
    """Of an entry."""
    return bytes([k]) * 32


def values(k: int) -> np.ndarray[tuple[int, int], np.dtype[np.int16]]:
    """What the entry has."""
    return np.random.default_rng(k).integers(-1024, 2000, (24, 32)).astype(np.int16)


def hammer(folder: Path, max_bytes: int, seed: int, rounds: int) -> None:
    """Reads entries in no order, and writes those that are not there; 0 rounds: until somebody ends it."""
    cache = FrameCache(folder, max_bytes)
    cache._since += 3600  # everything may be evicted
    rng, scratch = np.random.default_rng(seed), Scratch()
    for _ in range(rounds) if rounds else itertools.count():
        k = int(rng.integers(0, KEYS))
        found = cache.read(key(k), PIXEL, scratch, None)
        if found is None:
            cache.write(key(k), values(k))
        elif not np.array_equal(found, values(k)):
            raise AssertionError(f"entry {k} holds something else")


if __name__ == "__main__":
    print("ready", flush=True)
    hammer(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
