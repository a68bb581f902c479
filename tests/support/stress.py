"""Loaders over one dataset under stress: any pixel of another frame is found.

Every pixel says which frame it is of and where. Several loaders take turns while threads switch as often as they can;
views are kept, passes are left early, and children are forked that hold what their parent had and look at it later.
"""

from __future__ import annotations

import gc
import os
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torch.utils.data import DataLoader

from dicomtorch import DicomFrames, FrameLoader
from tests.support.phantoms import ct, write

COUNT, ROWS, COLUMNS = 60, 128, 160
Ints = npt.NDArray[np.int16]


def pixels_of(position: int) -> Ints:
    """Which frame, and where: no two frames have a pixel in common at one place."""
    place = np.arange(ROWS)[:, None] * 3 + np.arange(COLUMNS) * 2
    return (position * 400 + place % 399).astype(np.int16)


def write_frames(folder: Path) -> DicomFrames:
    """Positions are those of the index, in which files are sorted by name."""
    for k in range(COUNT):
        write(ct(pixels_of(k), k), folder / f"{k:03}.dcm")
    frames = DicomFrames(folder, values="stored", cache_dir=folder.parent / "cache")
    assert np.array_equal(frames[7][0][0].numpy(), pixels_of(7))
    return frames


@dataclass
class Found:
    """What a run did."""

    batches: int = 0
    passes: int = 0
    left: int = 0
    kept: int = 0
    children: int = 0
    most_shm: int = 0
    wrong: list[str] = field(default_factory=list)


class Stress:
    """One run.

    Args:
        frames: From `write_frames`.
        seed: Of every choice.
    """

    def __init__(self, frames: DicomFrames, seed: int) -> None:
        self.frames = frames
        self.chosen = random.Random(seed)
        self.expected = [pixels_of(k) for k in range(COUNT)]
        self.found = Found()
        self.passes: list[Iterator[Any]] = []
        self.kept: list[tuple[Any, int]] = []  # a view, and the frame that it is of
        self.children: list[tuple[int, int]] = []

    def run(self, steps: int) -> Found:
        """So many batches."""
        with switching_often():
            for _ in range(steps):
                self.step()
            while self.children:
                self.end_child()
            self.look_at_kept()
            for passing in self.passes:
                close(passing)
            self.passes.clear()
        return self.found

    def step(self) -> None:
        if len(self.passes) < 4:
            self.passes.append(self.begin())
        number = self.chosen.randrange(len(self.passes))
        batch = next(self.passes[number], None)
        if batch is None:
            close(self.passes.pop(number))
            return
        self.look_at(batch)
        chance = self.chosen.random()
        if chance < 0.03:
            self.found.left += 1
            close(self.passes.pop(number))
        elif chance < 0.06 and len(self.children) < 4:
            self.fork()
        elif chance < 0.1 and self.children:
            self.end_child()
        elif chance < 0.2:
            self.look_at_kept()

    def begin(self) -> Iterator[Any]:
        self.found.passes += 1
        kind = self.chosen.randrange(3)
        if kind < 2:
            seed = self.chosen.randrange(1000)
            return iter(FrameLoader(self.frames, 4, shuffle=True, seed=seed, num_threads=1 + kind))
        return iter(
            DataLoader(self.frames, 4, shuffle=True, num_workers=1 + self.chosen.randrange(2))
        )

    def look_at(self, batch: Any) -> None:
        images, meta = batch
        self.found.batches += 1
        positions = meta["index"].tolist()
        for k, position in enumerate(positions):
            self.compare(images[k], position, "a batch")
        if self.chosen.random() < 0.4:
            k = self.chosen.randrange(len(positions))
            view: Any = images[k] if self.chosen.random() < 0.5 else images.numpy()[k]
            self.kept.append((view, positions[k]))
            self.found.kept += 1
        while len(self.kept) > 12:
            self.kept.pop(self.chosen.randrange(len(self.kept)))
        self.found.most_shm = max(self.found.most_shm, shm_bytes())

    def compare(self, image: Any, position: int, what: str) -> None:
        pixels = image.numpy() if isinstance(image, Tensor) else image
        if not np.array_equal(pixels[0], self.expected[position]):
            others = sorted({int(value) // 400 for value in np.unique(pixels)})
            self.found.wrong.append(f"{what} of frame {position} has pixels of {others}")

    def look_at_kept(self) -> None:
        for view, position in self.kept:
            self.compare(view, position, "a view kept")

    def fork(self) -> None:
        """A child that holds all views; it looks at them when it is told to."""
        self.found.children += 1
        read, write = os.pipe()
        if not (pid := os.fork()):
            os.read(read, 1)
            self.found.wrong.clear()
            self.look_at_kept()
            os._exit(min(len(self.found.wrong), 99))
        os.close(read)
        self.children.append((pid, write))

    def end_child(self) -> None:
        pid, write = self.children.pop(self.chosen.randrange(len(self.children)))
        os.write(write, b"x")
        os.close(write)
        if wrong := os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
            self.found.wrong.append(f"a child: {wrong}")


def close(passing: Any) -> None:
    """Ends a pass as the end of a loop does."""
    if hasattr(passing, "_shutdown_workers"):
        passing._shutdown_workers()


@contextmanager
def switching_often() -> Iterator[None]:
    """Threads switch, and the collector comes, as often as they can."""
    interval, threshold = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(1e-6)
    gc.set_threshold(50, 3, 3)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
        gc.set_threshold(*threshold)


def shm_bytes() -> int:
    """Bytes of /dev/shm that this process has mapped: what a worker sends there is mapped here."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return 0
    total = 0
    for line in maps.read_text().splitlines():
        if "/dev/shm/" in line:
            start, end = line.split()[0].split("-")
            total += int(end, 16) - int(start, 16)
    return total
