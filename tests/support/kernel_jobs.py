"""Jobs and templates of the compiled kernels at random, some of them wrong, and what NumPy makes of a right one."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dicomtorch.reader.kernels import (
    CONSTANT,
    COPY,
    DOUBLE,
    HAS_CLAMP,
    HAS_OFFSET,
    HAS_ORIGIN,
    HAS_SCALE,
    JOB,
    PLANES,
    SINGLE,
    SWAP,
    TEMPLATE,
    TYPES,
)

Record = npt.NDArray[Any]
ODD = (-1, -(1 << 63), (1 << 63) - 1, 1 << 40, 8, 64)


def make_template(rng: random.Random, wrong: float = 0.0) -> Record:
    """One template; each field is out of its range with the chance `wrong`."""
    record = np.zeros(1, TEMPLATE)
    mode = rng.choice([COPY, CONSTANT, SINGLE, DOUBLE])
    number = rng.randrange(8)
    record["type"], record["mode"] = number, mode
    record["out_type"] = rng.choice([number, 8, 7]) if mode == COPY and number < 6 else 6
    if mode == COPY and number >= 6:
        record["out_type"] = number
    record["flags"] = rng.randrange(64)
    if number < 6:
        bits = 8 * np.dtype(TYPES[number]).itemsize
        record["right"] = rng.choice([0, 0, rng.randrange(bits)])
        record["left"] = rng.randrange(int(record["right"][0]) + 1)
    record["pixels"] = rng.choice([0, 1, 3, 64, 1000, 70_000])
    record["samples"] = rng.choice([1, 1, 3])
    for name in ("origin", "scale", "offset", "low", "high"):
        record[name] = rng.choice([0.0, 1.0, -1.5, 1 / 3, 1024.0, 1e30])
    for name in ("type", "out_type", "mode", "flags", "left", "right", "pixels", "samples"):
        if rng.random() < wrong:
            record[name] = rng.choice(ODD)
    return record


def make_job(
    rng: random.Random, paths: list[bytes], templates: Record, wrong: float = 0.0
) -> Record:
    """One job for one of `paths` as it is now; each field is out of its range with the chance `wrong`."""
    record = np.zeros(1, JOB)
    k = rng.randrange(len(paths))
    record["path"], record["path_length"] = sum(map(len, paths[:k])), len(paths[k])
    info = os.stat(paths[k])
    record["size"], record["mtime_ns"] = info.st_size, info.st_mtime_ns
    record["inode"] = rng.choice([0, info.st_ino])
    record["template"] = number = rng.randrange(len(templates))
    one = templates[number]
    width = np.dtype(TYPES[one["type"] % len(TYPES)]).itemsize
    length = max(0, int(one["pixels"]) % (1 << 30) * max(1, int(one["samples"]) % 5) * width)
    record["offset"] = rng.randrange(max(1, info.st_size - length + 1))
    record["out"] = rng.randrange(1 << 22)
    for name in JOB.names or ():
        if rng.random() < wrong:
            record[name] = rng.choice(ODD)
    return record


def expected(job: Any, template: Any, paths: list[bytes]) -> Record | None:
    """What NumPy makes of the frame; `None` where the C standard leaves a conversion open."""
    offsets = [sum(map(len, paths[:k])) for k in range(len(paths))]
    data = Path(os.fsdecode(paths[offsets.index(int(job["path"]))])).read_bytes()
    dtype = np.dtype(TYPES[template["type"]])
    pixels, samples, flags = (int(template[name]) for name in ("pixels", "samples", "flags"))
    words = np.frombuffer(data, dtype, pixels * samples, int(job["offset"]))
    if flags & SWAP:
        words = words.byteswap()
    if dtype.kind != "f":
        unsigned = words.view(f"u{dtype.itemsize}")
        shifted = np.left_shift(unsigned, int(template["left"]), dtype=unsigned.dtype).view(dtype)
        words = np.right_shift(shifted, int(template["right"]))
    planes = words.reshape((samples, -1) if flags & PLANES else (-1, samples))
    planes = planes if flags & PLANES else planes.T
    into = np.dtype(TYPES[template["out_type"]])
    if template["mode"] == COPY:
        return np.ascontiguousarray(planes.astype(into)).reshape(-1)
    if flags & HAS_CLAMP and template["low"] > template["high"]:
        return None
    with np.errstate(all="ignore"):
        image = _scaled(planes, template, flags)
        if flags & HAS_CLAMP:
            image = image.clip(np.float32(template["low"]), np.float32(template["high"]))
    return np.ascontiguousarray(image).reshape(-1)


def _scaled(planes: Record, template: Any, flags: int) -> Record:
    if template["mode"] == CONSTANT:
        return np.full(planes.shape, np.float32(template["offset"]))
    if template["mode"] == DOUBLE:
        product = np.multiply(planes, template["scale"], dtype=np.float64)
        rounded: Record = (product + template["offset"]).astype(np.float32)
        return rounded
    image = planes.astype(np.float32)
    if flags & HAS_ORIGIN:
        image = image - np.float32(template["origin"])
    if flags & HAS_SCALE:
        image = image * np.float32(template["scale"])
    if flags & HAS_OFFSET:
        image = image + np.float32(template["offset"])
    return image
