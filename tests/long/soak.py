"""Trains, so to speak, on files of which one in a hundred is damaged: `python -m tests.long.soak --seconds 60`.

Epochs by `FrameLoader` and by a `DataLoader` with workers, in this process and in child processes, with and without a
cache: every image must be that of the file that `meta` names, every damaged file must be told, memory must stay flat.
"""

from __future__ import annotations

import gc
import hashlib
import random
import resource
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import torch
from torch.utils.data import DataLoader

from dicomtorch import DicomFrames, FrameLoader, Limits, scan
from dicomtorch.errors import DicomTorchError
from tests.support.long_run import Tally, main
from tests.support.phantoms import ct, ct_pixels, encapsulated, write

FILES = 300
GROWTH_MB = 250
LIMITS = Limits(decode_memory_bytes=64 << 20, decode_seconds=2.0)


def write_archive(tree: Path, rng: random.Random) -> dict[str, bytes]:
    """Writes files, and damages one in a hundred; the digest of each image by the name of its file."""
    expected = {}
    for k in range(FILES):
        pixels = ct_pixels(k, 48, 64)
        dataset = ct(pixels, k)
        if k % 3:
            stream = imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="j2k")
            dataset = encapsulated(dataset, [bytes(stream)])
        path = write(dataset, tree / f"{k:03d}.dcm")
        expected[path.name] = digest(pixels)
    for name in rng.sample(sorted(expected), FILES // 100):
        path = tree / name
        data = bytearray(path.read_bytes())
        at = rng.randrange(len(data) // 2, len(data) - 40)
        data[at : at + 30] = b"\xff" * 30
        path.write_bytes(data if rng.random() < 0.5 else data[:at])
    return expected


def digest(pixels: np.ndarray[Any, Any]) -> bytes:
    """Of an image."""
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).digest()


def epoch(
    frames: DicomFrames[Any, Any], expected: dict[str, bytes], damaged: set[str], loader: Any
) -> str:
    """One epoch; every image is looked at."""
    for images, meta in loader:
        for image, i in zip(images, meta["index"].tolist(), strict=True):
            name = Path(frames.index.path(i)).name
            if name not in damaged:
                assert digest(image[0].numpy()) == expected[name], f"other pixels for {name}"
    return "epochs"


def readable(frames: DicomFrames[Any, Any], expected: dict[str, bytes]) -> set[str]:
    """Names of the files whose frames are not as they were written: refused, or decoded to other pixels."""
    found = set()
    for i in range(len(frames)):
        name = Path(frames.index.path(i)).name
        try:
            image, _ = frames[i]
        except DicomTorchError as error:
            found.add(name if name in str(error) else "no file is named")
        else:
            if digest(image[0].numpy()) != expected[name]:
                found.add(name)  # a damaged stream that decodes cannot be recognised
    return found


def rounds(seed: int, tally: Tally) -> Iterator[None]:
    """Epochs until the time is up."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "tree")
        expected = write_archive(tree, rng)
        index, _ = scan(tree, limits=LIMITS)
        damaged = readable(DicomFrames(index, values="stored", dtype="int16"), expected)
        assert len(damaged) <= FILES // 100, "more files are other than were damaged"
        first = 0.0
        number = 0
        while True:
            isolation: Any = rng.choice((None, "process"))
            cache = Path(folder, "cache") if rng.random() < 0.3 else None
            frames = DicomFrames(
                index,
                values="stored",
                dtype="int16",
                on_error="replace",
                isolation=isolation,
                cache=cache,
            )
            loader: Any = FrameLoader(frames, batch_size=16, num_threads=2, shuffle=True)
            if number % 4 == 3:
                loader = DataLoader(frames, batch_size=16, num_workers=1, shuffle=True)
            tally.timed(
                f"epoch {number} of seed {seed}",
                lambda frames=frames, loader=loader: epoch(frames, expected, damaged, loader),  # type: ignore[misc]
            )
            gc.collect()
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            if number == 8:
                first = peak
            if first and peak > first + GROWTH_MB:
                tally.problems.append(f"memory grew from {first:.0f} to {peak:.0f} MB")
            number += 1
            yield


if __name__ == "__main__":
    sys.exit(main("soak", rounds, most_seconds=60.0))
