"""Jobs and templates of the compiled kernels at random, some of them wrong, and what NumPy makes of a right one."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from dicomtorch import FrameReader, PixelOptions, scan
from dicomtorch.pixels.resize import taps as resize_taps
from dicomtorch.reader import kernels as k
from dicomtorch.reader.kernels import JOB
from dicomtorch.reader.templates import (
    CONSTANT,
    COPY,
    DOUBLE,
    HAS_BOUNDS,
    HAS_CLAMP,
    HAS_OFFSET,
    HAS_ORIGIN,
    HAS_SCALE,
    LOWEST,
    NORMALIZE,
    PLANES,
    RLE,
    SINGLE,
    SWAP,
    TAP,
    TEMPLATE,
    THRICE,
    TYPES,
    Template,
)

Record = npt.NDArray[Any]
ODD = (-1, -(1 << 63), (1 << 63) - 1, 1 << 40, 8, 64)


def make_template(rng: random.Random, wrong: float = 0.0) -> Template:
    """One template; each field is out of its range with the chance `wrong`."""
    record, taps = np.zeros(1, TEMPLATE), np.zeros(0, TAP)
    record["factor"] = 1
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
    if number < 4 and mode != COPY and rng.random() < 0.4:
        taps = _reduce(rng, record)
    if number < 6 and mode != COPY and rng.random() < 0.2:
        record["flags"] = (record["flags"] & ~HAS_CLAMP) | NORMALIZE
    if record["samples"] == 1 and mode != COPY and rng.random() < 0.2:
        record["flags"] |= THRICE
    if number < 6 and rng.random() < 0.2:
        record["flags"] = (record["flags"] & ~SWAP) | RLE | (PLANES if record["samples"] > 1 else 0)
        record["pixels"] = np.maximum(record["pixels"], 1)
        if len(taps) and rng.random() < wrong:
            taps["index"][rng.randrange(len(taps))] = rng.choice([-1, 1 << 20, (1 << 31) - 1])
    for name in TEMPLATE.names or ():
        if TEMPLATE[name].kind == "i" and rng.random() < wrong:
            record[name] = rng.choice(ODD)
    return Template(record, taps)


def _reduce(rng: random.Random, record: Record) -> Record:
    """Makes means of blocks part of a template; its taps."""
    factor = rng.choice([2, 4, 8])
    rows, columns = rng.choice([1, 7, 8, 9, 65]), rng.choice([1, 3, 8, 33, 1100])
    inner = [rng.randrange(1, side // factor + 2) for side in (rows, columns)]
    outside = [side + rng.randrange(3) for side in inner]
    record["factor"], record["rows"], record["columns"] = factor, rows, columns
    record["pixels"] = rows * columns
    record["inner_rows"], record["inner_columns"] = inner
    record["out_rows"], record["out_columns"] = outside
    for name, whole, part in zip(("top", "left_column"), outside, inner, strict=True):
        record[name] = rng.randrange(whole - part + 1)
    tables = [
        resize_taps(full, wanted, factor, (factor - 1) / 2, -(-full // factor))
        for full, wanted in zip((rows, columns), inner, strict=True)
    ]
    record["row_taps"], record["column_taps"] = map(len, tables)
    record["column_at"] = len(tables[0]) * inner[0]
    record["flags"] |= rng.choice([0, LOWEST, HAS_BOUNDS])
    record["around"], record["floor"], record["ceiling"] = rng.choice([0.0, -2.5]), 0.0, 1.0
    taps = np.zeros(sum(len(i) for table in tables for i, _ in table), TAP)
    taps["index"] = np.concatenate([i for table in tables for i, _ in table])
    taps["weight"] = np.concatenate([w for table in tables for _, w in table])
    return taps


def write_streams(
    rng: random.Random, folder: Path, templates: Record, wrong: float = 0.0
) -> dict[int, bytes]:
    """Writes a file with an item for each template of RLE, some of them damaged; their paths."""
    paths = {}
    for number, template in enumerate(templates):
        samples = int(template["pixels"]) * int(template["samples"])
        usual = 0 <= template["type"] < 6 and 1 <= template["samples"] <= 3
        if template["flags"] & RLE and usual and 0 < samples <= 300_000:
            path = folder / f"{number}.rle"
            item = rle_item(rng, template)
            if rng.random() < wrong:
                spoiled = bytearray(item)
                for _ in range(rng.choice([1, 3])):
                    spoiled[rng.randrange(len(item))] = rng.randrange(256)
                item = bytes(spoiled)
            path.write_bytes(item)
            paths[number] = os.fsencode(path)
    return paths


def rle_item(rng: random.Random, template: Any) -> bytes:
    """An item with random samples of a template in RLE."""
    width, pixels = np.dtype(TYPES[template["type"]]).itemsize, int(template["pixels"])
    planes = [rng.randbytes(pixels) for _ in range(int(template["samples"]) * width)]
    return item_of([packbits(rng, plane) for plane in planes])


def item_of(segments: list[bytes]) -> bytes:
    """An item of encapsulated pixel data with the segments of an RLE frame."""
    header = np.zeros(16, "<u4")
    header[0] = len(segments)
    header[1 : 1 + len(segments)] = 64 + np.cumsum([0, *map(len, segments)])[:-1]
    stream = header.tobytes() + b"".join(segments)
    return b"\xfe\xff\x00\xe0" + len(stream).to_bytes(4, "little") + stream


def packbits(rng: random.Random, octets: bytes) -> bytes:
    """Runs of PackBits at random that give `octets`, of which repeated ones replace some; a pad byte at an odd end."""
    runs, at = [], 0
    while at < len(octets):
        length = min(rng.choice([1, 2, 3, rng.randrange(1, 129), 128]), len(octets) - at)
        code = octets[at]
        if rng.random() < 0.05:
            runs.append(b"\x80")
        if length > 1 and (code & 1 or len({*octets[at : at + length]}) == 1):
            runs.append(bytes([257 - length, code]))
        else:
            runs.append(bytes([length - 1]) + octets[at : at + length])
        at += length
    packed = b"".join(runs)
    return packed + bytes(len(packed) % 2)


def unpacked(segment: bytes, most: int) -> bytes:
    """PS3.5 G.3.2, run by run."""
    out, at = bytearray(), 0
    while at < len(segment) and len(out) < most:
        code = segment[at]
        if code < 128:
            out += segment[at + 1 : at + 2 + code]
        elif code > 128:
            out += segment[at + 1 : at + 2] * (257 - code)
        at += code + 2 if code < 128 else 1 if code == 128 else 2
    return bytes(out)


def make_job(
    rng: random.Random, paths: list[bytes], templates: Record, wrong: float = 0.0
) -> Record:
    """One job for one of `paths` as it is now; each field is out of its range with the chance `wrong`.

    Of templates of RLE it is for the file that `write_streams` has written, if that is among them.
    """
    record = np.zeros(1, JOB)
    record["template"] = number = rng.randrange(len(templates))
    one = templates[number]
    streams = [n for n, path in enumerate(paths) if path.endswith(b"/%d.rle" % number)]
    k = streams[0] if streams else rng.randrange(len(paths))
    record["path"], record["path_length"] = sum(map(len, paths[:k])), len(paths[k])
    info = os.stat(paths[k])
    record["size"], record["mtime_ns"] = info.st_size, info.st_mtime_ns
    record["inode"] = rng.choice([0, info.st_ino])
    if one["flags"] & RLE:
        record["number"] = length = info.st_size
    else:
        width = np.dtype(TYPES[one["type"] % len(TYPES)]).itemsize
        length = max(0, int(one["pixels"]) % (1 << 30) * max(1, int(one["samples"]) % 5) * width)
    record["offset"] = rng.randrange(max(1, info.st_size - length + 1))
    record["out"] = rng.randrange(1 << 22)
    for name in JOB.names or ():
        if rng.random() < wrong:
            record[name] = rng.choice(ODD)
    return record


def out_bytes(template: Any) -> int:
    """Bytes of a frame in the output, rounded up to a whole number of the largest type; 0 for a wrong template."""
    pixels = int(template["pixels"])
    if template["factor"] > 1:
        pixels = int(template["out_rows"]) * int(template["out_columns"])
    length = pixels * int(template["samples"]) * (24 if template["flags"] & THRICE else 8)
    return length if 0 <= length < 1 << 40 else 0


def expected(job: Any, template: Any, taps: Record, paths: list[bytes]) -> Record | None:
    """What NumPy makes of the frame; `None` where the C standard leaves a conversion open."""
    offsets = [sum(map(len, paths[:k])) for k in range(len(paths))]
    data = Path(os.fsdecode(paths[offsets.index(int(job["path"]))])).read_bytes()
    dtype = np.dtype(TYPES[template["type"]])
    pixels, samples, flags = (int(template[name]) for name in ("pixels", "samples", "flags"))
    if flags & RLE:
        words = _rle_words(data, dtype, pixels, samples)
    else:
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
        if template["factor"] > 1:
            planes = _means(planes, template)
        image = _scaled(planes, template, flags)
        if flags & HAS_CLAMP:
            image = image.clip(np.float32(template["low"]), np.float32(template["high"]))
        if flags & NORMALIZE:
            image = (image - np.float32(template["low"])) / np.float32(template["high"])
        if template["factor"] > 1:
            image = _resized(image, template, taps, flags)
    times = 3 if flags & THRICE else 1
    return np.tile(np.ascontiguousarray(image).reshape(-1), times)


def _rle_words(data: bytes, dtype: np.dtype[Any], pixels: int, samples: int) -> Record:
    offsets = [*np.frombuffer(data, "<u4", 16, 8).tolist()[1:], 0]
    count = samples * dtype.itemsize
    edges = [*offsets[:count], len(data) - 8]
    planes = [unpacked(data[8 + edges[k] : 8 + edges[k + 1]], pixels) for k in range(count)]
    octets = np.frombuffer(b"".join(planes), np.uint8).reshape(samples, dtype.itemsize, pixels)
    words = np.ascontiguousarray(octets.transpose(0, 2, 1)).view(dtype.newbyteorder(">"))
    return words.astype(dtype).reshape(-1)


def _means(planes: Record, template: Any) -> Record:
    rows, columns, factor = (int(template[name]) for name in ("rows", "columns", "factor"))
    sums, counts = (
        np.add.reduceat(
            np.add.reduceat(values, np.arange(0, rows, factor), 1),
            np.arange(0, columns, factor),
            2,
        )
        for values in (
            planes.reshape(-1, rows, columns).astype(np.float64),
            np.ones((1, rows, columns)),
        )
    )
    return (sums / counts).astype(np.float32)


def _resized(image: Record, template: Any, taps: Record, flags: int) -> Record:
    inner = image
    names = (("row_at", "row_taps", "inner_rows"), ("column_at", "column_taps", "inner_columns"))
    for axis, (at, count, wanted) in enumerate(names, 1):
        start, number, length = (int(template[name]) for name in (at, count, wanted))
        total: Any = None
        for part in taps[start : start + number * length].reshape(number, length):
            weights = part["weight"][:, None] if axis == 1 else part["weight"]
            product = np.take(inner, part["index"], axis) * weights
            total = product if total is None else total + product
        inner = total
    if flags & HAS_BOUNDS:
        inner = inner.clip(np.float32(template["floor"]), np.float32(template["ceiling"]))
    finite = inner[np.isfinite(inner)]
    lowest = finite.min() if finite.size else 0.0
    around = lowest if flags & LOWEST else template["around"]
    shape = (len(inner), int(template["out_rows"]), int(template["out_columns"]))
    result = np.full(shape, around, np.float32)
    top, left = int(template["top"]), int(template["left_column"])
    result[:, top : top + inner.shape[1], left : left + inner.shape[2]] = inner
    return result


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


def without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(k, "kernels", lambda: k.Kernels(None, "left out"))


def both(path: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> torch.Tensor:
    """All frames as a batch, which must have the same bits without kernels."""
    index, _ = scan(path)
    reader = FrameReader(index, options=PixelOptions(**options))
    positions = range(len(index))
    with_them = torch.full((len(index), *reader.shape(0)), 77, dtype=reader.dtype)
    found = reader.read_many(positions, with_them)
    with monkeypatch.context() as inner:
        without(inner)
        reader = FrameReader(index, options=PixelOptions(**options))
        plain = torch.full_like(with_them, 99)
        expected = reader.read_many(positions, plain)
    assert [frame.voi for frame in found] == [frame.voi for frame in expected]  # type: ignore[union-attr]
    assert with_them.numpy().tobytes() == plain.numpy().tobytes()
    return with_them
