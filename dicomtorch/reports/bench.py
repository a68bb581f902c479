"""How fast somebody's own data load here: each backend, each number of workers and of threads, and which is best."""

from __future__ import annotations

import gc
import multiprocessing
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from dicomtorch.backends.base import BACKENDS
from dicomtorch.batches.loader import FrameLoader
from dicomtorch.datasets.frames import DicomFrames
from dicomtorch.errors import (
    DicomTorchError,
    OptionError,
    SourceError,
    UnsupportedError,
    format_count,
)
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.model.options import PixelOptions
from dicomtorch.reader.cache import EXPENSIVE
from dicomtorch.reader.reader import Frame, FrameReader
from dicomtorch.reader.threads import usable_threads
from dicomtorch.reports.page import PLAIN, Page, Sentence, group, table

REPEATS = 3


@dataclass(slots=True)
class Way:
    """One way of loading.

    Attributes:
        backend: Its name.
        loader: "DataLoader" or "FrameLoader".
        count: Worker processes of the one, threads of the other.
        rates: Frames/s of each repeat; empty if it cannot be.
        error: Why not.
        start: How workers are started, where that is not the default: frames of servers are read before they are.
    """

    backend: str
    loader: str
    count: int
    rates: list[float] = field(default_factory=list)
    error: str = ""
    start: str | None = None

    @property
    def frames_per_second(self) -> float:
        """The median of the repeats; 0 if it cannot be."""
        return statistics.median(self.rates) if self.rates else 0.0

    @property
    def code(self) -> str:
        """What to write."""
        frames = f"DicomFrames(..., backend={self.backend!r})"
        if self.loader == "FrameLoader":
            return f"FrameLoader({frames}, batch_size, shuffle=True, num_threads={self.count})"
        start = f", multiprocessing_context={self.start!r}" if self.start else ""
        return f"DataLoader({frames}, batch_size, shuffle=True, num_workers={self.count}{start})"


@dataclass(slots=True)
class Measurement:
    """What was measured, and on what.

    Attributes:
        frames: Of the index.
        measured: Frames of an epoch that was timed; some of them are the same if there are few.
        shape: (C, H, W) of a sample.
        left_out: Frames that are not in the epoch because their shape is another one.
        failed: Frames of the sample that could not be read.
        first_pass: Frames/s when they were read for the first time, maybe from the disk.
        batch_size: Of the batches.
        cores: That may be used.
        cacheable: Share of the frames that `DicomFrames(cache=)` would keep.
        ways: All that were tried.
    """

    frames: int
    measured: int
    shape: tuple[int, ...]
    left_out: int
    failed: int
    first_pass: float
    batch_size: int
    cores: int
    cacheable: float
    ways: list[Way]

    @property
    def best(self) -> Way:
        """The fastest."""
        return max(self.ways, key=lambda way: way.frames_per_second)


def measure(
    index: FrameIndex,
    *,
    batch_size: int = 32,
    size: tuple[int, int] | None = None,
    counts: Sequence[int] | None = None,
    seconds: float = 60.0,
) -> Iterator[Measurement]:
    """Times shuffled epochs over a sample of the frames, all ways in turn, after one round that does not count.

    Args:
        index: The data.
        batch_size: Frames in a batch.
        size: As in `DicomFrames`; `None` measures the frames of the most frequent shape only.
        counts: Numbers of workers and threads; `None`: 1, 2, 4, ... up to the cores. 0 workers are always tried.
        seconds: What all of it may take, about; the sample is as large as that allows, and at least two batches for
            each worker.

    Yields:
        The same measurement after each round, so that progress can be shown; the last one is whole.

    Raises:
        SourceError: There is no frame.
        OptionError: No frame of the sample can be read, or no backend reads all of them.
    """
    if not len(index):
        raise SourceError("there is no frame to measure; `dicomtorch scan` says what is there")
    cores = usable_threads()
    steps = counts or sorted(
        {*(1 << k for k in range(cores.bit_length()) if 1 << k <= cores), cores}
    )
    options = PixelOptions(size=size)
    alike, shape = _most_frequent_shape(index, options)
    chosen, failed, first_pass = _sample(alike, options, batch_size)
    ways = [
        Way(backend, loader, count)
        for backend in BACKENDS
        for loader, some in (("DataLoader", (0, *steps)), ("FrameLoader", steps))
        for count in some
    ]
    wanted = int(first_pass * seconds / (len(ways) * (REPEATS + 1)))
    # Each worker needs batches to make; a few files are read several times.
    least, most = 2 * batch_size * max(steps), max(len(chosen), 2 * batch_size * max(steps))
    chosen = chosen.select(np.resize(np.arange(len(chosen)), min(max(wanted, least), most)))
    kept = sum(n for pixel, n in index.image_pixels() if pixel.transfer_syntax_uid in EXPENSIVE)
    result = Measurement(
        frames=len(index),
        measured=len(chosen),
        shape=shape,
        left_out=len(index) - len(alike),
        failed=failed,
        first_pass=first_pass,
        batch_size=batch_size,
        cores=cores,
        cacheable=kept / len(index),
        ways=ways,
    )
    loaders = {id(way): loader for way in ways if (loader := _loader(way, chosen, result, size))}
    for repeat in range(REPEATS + 1):
        for way in ways:
            if id(way) in loaders:
                try:
                    rate = _epoch(loaders[id(way)])
                except DicomTorchError as error:  # others may read that frame
                    way.error = str(error)
                    way.rates.clear()
                    del loaders[id(way)]
                    continue
                if repeat:
                    way.rates.append(rate)
        if not loaders:
            raise OptionError(
                "no backend alone reads all frames of the sample; `dicomtorch verify` says which each cannot"
            )
        yield result
    loaders.clear()
    gc.collect()  # ends the workers


def _most_frequent_shape(
    index: FrameIndex, options: PixelOptions
) -> tuple[FrameIndex, tuple[int, ...]]:
    reader = FrameReader(index, options=options)
    able = np.flatnonzero(reader.decodable())
    if not len(able):
        raise UnsupportedError(str(next(iter(reader.unsupported.values()))))
    numbers = np.asarray(index.column("frame_values"))[able]
    known, first, inverse = np.unique(numbers, return_index=True, return_inverse=True)
    shapes = [reader.shape(int(able[k])) for k in first]
    counts: Counter[tuple[int, ...]] = Counter()
    for k, count in enumerate(np.bincount(inverse, minlength=len(known)).tolist()):
        counts[shapes[k]] += count
    ((shape, _),) = counts.most_common(1)
    alike = np.array([one == shape for one in shapes])[inverse]
    return index.select(able[alike]), shape


def _sample(
    index: FrameIndex, options: PixelOptions, batch_size: int
) -> tuple[FrameIndex, int, float]:
    """Frames that can be read, how many others were met, and frames/s of reading them the first time."""
    order = np.random.default_rng(0).permutation(len(index))[: 64 * batch_size]
    reader = FrameReader(index, options=options)
    good: list[int] = []
    tried, begin = 0, time.perf_counter()
    while tried < len(order) and (tried < batch_size or time.perf_counter() - begin < 5):
        part = order[tried : tried + batch_size].tolist()
        found = reader.read_many(part)
        good += [i for i, one in zip(part, found, strict=True) if isinstance(one, Frame)]
        tried += len(part)
    if not good:
        raise OptionError(
            f"none of {tried} frames that were tried can be read; `dicomtorch verify` says why"
        )
    return index.select(good), tried - len(good), len(good) / (time.perf_counter() - begin)


def _loader(
    way: Way, index: FrameIndex, result: Measurement, size: tuple[int, int] | None
) -> Any | None:
    try:
        frames = DicomFrames(index, backend=way.backend, size=size)
        frames[0]
    except DicomTorchError as error:
        way.error = str(error)
        return None
    if way.loader == "FrameLoader":
        return FrameLoader(frames, result.batch_size, shuffle=True, num_threads=way.count)
    if frames.is_remote and way.count:
        methods = multiprocessing.get_all_start_methods()
        way.start = "forkserver" if "forkserver" in methods else "spawn"
    return DataLoader(
        frames,
        multiprocessing_context=way.start,
        batch_size=result.batch_size,
        shuffle=True,
        num_workers=way.count,
        persistent_workers=way.count > 0,
        generator=torch.Generator().manual_seed(0),
    )


def _epoch(loader: Any) -> float:
    begin = time.perf_counter()
    count = sum(len(images) for images, _ in loader)
    return float(count / (time.perf_counter() - begin))


def to_json(result: Measurement) -> dict[str, Any]:
    """Everything, without paths or identifiers."""
    found = asdict(result)
    for row, way in zip(found["ways"], result.ways, strict=True):
        row["frames_per_second"] = way.frames_per_second
        row["error"] = _why(way) if way.error else ""
    found["best"] = {**asdict(result.best), "code": result.best.code}
    return found


def format_result(result: Measurement, page: Page = PLAIN) -> str:
    """A table for a terminal, and what to write."""
    shape = " x ".join(map(str, result.shape))
    about = [
        f"{result.frames:,} frames; epochs of {result.measured:,}, {shape}, in batches of {result.batch_size}, "
        f"on {result.cores} cores; float32 display values; medians of {REPEATS} shuffled epochs, files in memory"
    ]
    if result.left_out:
        about.append(
            f"{result.left_out:,} frames of other shapes are left out; --size measures all"
        )
    if result.failed:
        verb = "is" if result.failed == 1 else "are"
        about.append(f"{format_count(result.failed, 'frame')} that cannot be read {verb} left out")
    rows = []
    for way in result.ways:
        threads = way.loader == "FrameLoader"
        number = f"{way.count} {'thread' if threads else 'worker'}{'s' * (way.count != 1)}"
        rate = f"{way.frames_per_second:,.0f}" if way.rates else _why(way)
        rows.append((way.backend, way.loader, number, rate))
    best = result.best
    seconds = result.frames / best.frames_per_second
    after = [
        f"Best: {best.code}",
        f"An epoch of {result.frames:,} frames takes {seconds:,.1f} s that way. Read for the first time they came at "
        f"{result.first_pass:,.0f} frames/s; if that is much slower, the disk decides.",
    ]
    if result.cacheable:
        after.append(
            f"{result.cacheable:.0%} of the frames are in syntaxes that DicomFrames(cache=FOLDER) decodes only once."
        )
    return page.render(
        [
            group([Sentence(line, 0) for line in about]),
            table(("backend", "loader", "with", "frames/s"), rows, most=len(rows)),
            group([Sentence(line, 0) for line in after]),
        ]
    )


def _why(way: Way) -> str:
    return "not decoded by it" if "does not decode" in way.error else "fails"
