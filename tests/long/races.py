"""Files that are replaced, cut off, grown, deleted and put back in an epoch: `python -m tests.long.races --seconds 60`.

Another process does that to the files while frames are read in several ways. What comes must be the pixels of the file
that was indexed, or an error of the package; never pixels of another image, never a blank one.
"""

from __future__ import annotations

import os
import random
import signal
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

from dicomtorch import DicomFrames, FrameLoader, scan
from dicomtorch.errors import DicomTorchError
from tests.support.long_run import Tally, main
from tests.support.phantoms import ct, encapsulated, write

FILES = 12
SHAPE = (64, 80)


def pixels_of(number: int, version: int) -> np.ndarray[Any, Any]:
    """An image that says which file and which version it is of, in every pixel."""
    return np.full(SHAPE, 100 * version + number, np.int16)


def write_version(path: Path, number: int, version: int) -> None:
    """Writes a file of a version, under another name first."""
    dataset = ct(pixels_of(number, version), number)
    if number % 3 == 2:
        stream = imagecodecs.jpeg2k_encode(
            pixels_of(number, version), level=0, codecformat="j2k", reversible=True
        )
        dataset = encapsulated(dataset, [bytes(stream)])
    write(dataset, path)


def disturb(tree: Path, seed: int) -> None:
    """Changes files until it is killed."""
    rng = random.Random(seed)
    version = 1
    while True:
        number = rng.randrange(FILES)
        path = tree / f"{number:02d}.dcm"
        kind = rng.randrange(5)
        try:
            if kind == 0:
                version = version % 300 + 1
                fresh = path.with_suffix(".new")
                write_version(fresh, number, version)
                if rng.random() < 0.5:
                    info = os.stat(path)
                    os.utime(fresh, ns=(info.st_atime_ns, info.st_mtime_ns))
                os.replace(fresh, path)
            elif kind == 1:
                os.truncate(path, rng.randrange(os.path.getsize(path) + 1))
            elif kind == 2:
                with open(path, "ab") as file:
                    file.write(bytes(rng.randrange(1, 5000)))
            elif kind == 3:
                os.unlink(path)
            else:
                fresh = path.with_suffix(".new")
                write_version(fresh, number, 0)
                os.replace(fresh, path)
        except OSError:
            continue


def right(image: torch.Tensor, number: int) -> None:
    """Fails where a pixel is not of the file that was indexed."""
    assert bool((image == number).all()), f"pixels {image.unique().tolist()[:5]} for file {number}"


def read(frames: DicomFrames[Any, Any], way: str, rng: random.Random) -> str:
    """One epoch in one way."""
    if way == "items":
        for i in range(len(frames)):
            try:
                image, meta = frames[i]
            except (DicomTorchError, MemoryError):
                continue
            else:
                right(image, int(frames.index.path(meta["index"])[-6:-4]))
        return "epochs of items"
    loader: Any = FrameLoader(frames, batch_size=3, num_threads=2, shuffle=True)
    if way == "workers":
        loader = DataLoader(frames, batch_size=3, num_workers=1, shuffle=True)
    try:
        for images, meta in loader:
            for image, i in zip(images, meta["index"].tolist(), strict=True):
                right(image, int(frames.index.path(i)[-6:-4]))
    except DicomTorchError:
        return f"epochs of {way} with an error"
    return f"epochs of {way}"


def rounds(seed: int, tally: Tally) -> Iterator[None]:
    """Epochs over files that change meanwhile; the index is of files as they were before."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rng = random.Random(seed)
    number = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "tree")
        while True:
            for k in range(FILES):
                path = tree / f"{k:02d}.dcm"
                path.unlink(missing_ok=True)
                write_version(path, k, 0)
                # A second name: were the number of the file used again, one of equal size and time would be this one.
                path.with_suffix(".kept").unlink(missing_ok=True)
                os.link(path, path.with_suffix(".kept"))
            index = scan(tree)[0]
            names = [index.path(i) for i in range(len(index))]
            index = index.select([i for i, name in enumerate(names) if name.endswith(".dcm")])
            process = os.fork()
            if not process:
                try:
                    disturb(tree, seed + number)
                finally:
                    os._exit(0)
            try:
                cache = Path(folder, "cache") if rng.random() < 0.5 else None
                isolation: Any = rng.choice((None, None, "process"))
                frames = DicomFrames(
                    index,
                    values="stored",
                    dtype="int16",
                    on_error=rng.choice(("raise", "replace")),
                    cache=cache,
                    isolation=isolation,
                )
                for way in ("items", "threads", "workers", "items"):
                    tally.timed(
                        f"epoch {number} of seed {seed} by {way}",
                        lambda way=way, frames=frames: read(frames, way, rng),  # type: ignore[misc]
                    )
                    number += 1
                    yield
            finally:
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)


if __name__ == "__main__":
    sys.exit(main("races", rounds))
