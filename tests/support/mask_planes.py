"""Planes for `paint_planes` of the compiled kernels at random, some of them wrong, and what NumPy makes of them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dicomtorch.masks.compiled import PLANE
from tests.support.kernel_jobs import ODD

Record = npt.NDArray[Any]


def make_planes(
    rng: random.Random, paths: list[bytes], pixels: int, channels: int, wrong: float = 0.0
) -> Record:
    """Some planes of files; each field is out of its range with the chance `wrong`."""
    planes = np.zeros(rng.randrange(1, 9), PLANE)
    for k in range(len(planes)):
        chosen = rng.randrange(len(paths))
        planes["path"][k] = sum(len(path) for path in paths[:chosen])
        planes["path_length"][k] = len(paths[chosen])
        info = Path(paths[chosen].decode()).stat()
        planes["size"][k], planes["mtime_ns"][k] = info.st_size, info.st_mtime_ns
        planes["inode"][k] = rng.choice([0, info.st_ino])
        planes["bit"][k] = bit = rng.choice([0, 0, rng.randrange(8)])
        planes["offset"][k] = rng.randrange(max(1, info.st_size - (bit + pixels + 7) // 8 + 1))
        planes["out"][k] = pixels * rng.randrange(channels)
        planes["value"][k] = rng.randrange(1, 256)
        planes["low"][k] = rng.choice([0, 0, rng.randrange(pixels + 1) // 64 * 64, pixels])
        planes["high"][k] = rng.choice([pixels, pixels, rng.randrange(pixels + 1) // 64 * 64])
        if k and rng.random() < 0.4:
            planes["joins"][k] = 1
            planes["out"][k], planes["value"][k] = planes["out"][k - 1], planes["value"][k - 1]
        for name in PLANE.names or ():
            if rng.random() < wrong:
                planes[name][k] = rng.choice(ODD)
    return planes


def expected(
    planes: Record, paths: list[bytes], pixels: int, channels: int
) -> tuple[Record, list[int]]:
    """The image, and the area of each plane."""
    out = np.zeros(channels * pixels, np.uint8)
    starts = np.cumsum([0, *map(len, paths)])
    united, areas = np.zeros(pixels, np.uint8), []
    for k, plane in enumerate(planes):
        path = paths[int(np.searchsorted(starts, plane["path"], "right")) - 1]
        data = np.frombuffer(Path(path.decode()).read_bytes(), np.uint8)[plane["offset"] :]
        bits = np.unpackbits(data, bitorder="little")[plane["bit"] :][:pixels]
        bits[: plane["low"]] = bits[plane["high"] :] = 0
        united = united | bits if plane["joins"] else bits
        is_last = k + 1 == len(planes) or not planes["joins"][k + 1]
        areas.append(int(united.sum()) if is_last else 0)
        if is_last:
            part = out[plane["out"] :][:pixels]
            part[united == 1] = plane["value"]
    return out, areas
