"""Uncompressed frames: each loader beside the loop of the compiled kernels alone, in as many processes.

`python -m benchmarks.kernels` reads shuffled epochs of 512 x 512 CT. The limit is that loop: prepared jobs, nothing of
Python between them, into the same kind of memory (huge pages of this process for `FrameLoader` and no workers, segments
that processes share for workers). Everything takes its turn in every round, and ratios are of one run. CPU time is that
of all processes at work, by the scheduler's own clock (Linux).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader

from benchmarks import competitors, loading, report
from dicomtorch import DicomFrames, FrameIndex, FrameLoader, FrameReader, scan
from dicomtorch.pixels import slots
from dicomtorch.pixels.memory import keep_for, new_batch
from dicomtorch.reader import kernels

BATCH = 32
COLUMNS = ("what", "frames/s", "CPU ms a frame", "of the limit", "of it by CPU", "times pydicom")


class Spent(NamedTuple):
    """What some frames took."""

    frames: int
    wall: float
    cpu: float


Contestant = Callable[[float], Spent]
"""Reads for so many seconds."""


# --- The loop alone ---------------------------------------------------------------------------------


class _Recorder:
    """The kernels, with what they were called with."""

    def __init__(self, module: Any) -> None:
        self.module, self.calls = module, list[Any]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, name)

    def read(
        self, jobs: Any, templates: Any, taps: Any, prefix: Any, paths: Any, *rest: Any
    ) -> int:
        self.calls.append((jobs, templates, taps, prefix, paths))
        failed: int = self.module.read(jobs, templates, taps, prefix, paths, *rest)
        return failed


def prepared_calls(index: FrameIndex, seed: int) -> tuple[Any, list[Any], tuple[int, ...]]:
    """The kernels, what they are called with in one epoch, and the shape of a batch."""
    found = kernels.kernels()
    if found.module is None:
        raise SystemExit(f"nothing to measure: {found.reason}")
    recorder, before = _Recorder(found.module), kernels.kernels
    kernels.kernels = lambda: kernels.Kernels(recorder)  # type: ignore[assignment]
    try:
        reader = FrameReader(index)
        order = np.random.default_rng(seed).permutation(len(index))
        shape = (BATCH, *reader.shape(0))
        for start in range(0, len(index) - BATCH + 1, BATCH):
            out = new_batch(shape, torch.float32)
            reader.read_many(order[start : start + BATCH].tolist(), out, num_threads=1)
    finally:
        kernels.kernels = before
    return found.module, recorder.calls, shape


def child(kind: str, paths: Sequence[Path], seed: int) -> None:
    """Reads for as many seconds as each line of the standard input says, and prints what that took."""
    index, _ = scan(paths)
    if kind in LOADERS:
        run = LOADERS[kind](DicomFrames(index))
        run(0.0)
        print("ready", flush=True)
        for line in sys.stdin:
            print(json.dumps(run(float(line))), flush=True)
        return
    module, calls, shape = prepared_calls(index, seed)
    keep_for(module)
    nbytes = 4 * int(np.prod(shape))
    batches = [
        slots.new_batch(shape, torch.float32, nbytes) if kind == "shared" else new_batch(shape, torch.float32)
        for _ in range(3)
    ]  # fmt: skip
    targets = [batch.numpy().reshape(-1).view(np.uint8) for batch in batches]
    number = 0
    print("ready", flush=True)
    for line in sys.stdin:
        frames, begin, worked = 0, time.perf_counter(), time.process_time()
        while time.perf_counter() - begin < float(line):
            jobs, templates, taps, prefix, joined = calls[number % len(calls)]
            module.read(jobs, templates, taps, prefix, joined, targets[number % 3], 1)
            number += 1
            frames += BATCH
        spent = Spent(frames, time.perf_counter() - begin, time.process_time() - worked)
        print(json.dumps(spent), flush=True)


class Loops:
    """The loop of the kernels, or a loader, in some processes at once.

    A process for each, because loaders that wait their turn would share the memory that one process keeps for later.
    """

    def __init__(self, kind: str, number: int, paths: Sequence[Path]) -> None:
        command = [sys.executable, "-m", "benchmarks.kernels", "--child", kind]
        self._processes = [
            subprocess.Popen(
                [*command, "--seed", str(k), "--paths", *map(str, paths)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for k in range(number)
        ]
        for process in self._processes:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise SystemExit(f"{kind}: the process did not start")

    def __call__(self, seconds: float) -> Spent:
        """Frames and CPU time of all, and the wall time of the slowest."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(f"{seconds}\n")
            process.stdin.flush()
        found = []
        for process in self._processes:
            assert process.stdout is not None
            found.append(Spent(*json.loads(process.stdout.readline())))
        frames, walls, cpus = zip(*found, strict=True)
        return Spent(sum(frames), max(walls), sum(cpus))

    def close(self) -> None:
        """Ends the processes."""
        for process in self._processes:
            process.communicate()


# --- Loaders ----------------------------------------------------------------------------------------


def cpu_seconds() -> float:
    """Of this process and its children, those that ended too."""
    times = os.times()
    mine = time.process_time() + times.children_user + times.children_system
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    if not children.exists():
        return mine
    return mine + sum(map(_cpu_of, children.read_text().split()))


def _cpu_of(process: str) -> float:
    nanoseconds = 0
    for task in Path(f"/proc/{process}/task").glob("*/schedstat"):
        nanoseconds += int(task.read_text().split()[0])
    return nanoseconds / 1e9


def epochs_of(loader: Any) -> Contestant:
    """Epoch after epoch, each to its end."""

    def run(seconds: float) -> Spent:
        frames, begin, worked = 0, time.perf_counter(), cpu_seconds()
        while time.perf_counter() - begin < seconds:
            frames += sum(len(images) for images, _ in loader)
        return Spent(frames, time.perf_counter() - begin, cpu_seconds() - worked)

    return run


def batches_of(loader: Any) -> Contestant:
    """Batch after batch, epochs joined: the steady state, without the beginning of an epoch."""

    def endless() -> Iterator[Any]:
        while True:
            yield from loader

    batches = endless()

    def run(seconds: float) -> Spent:
        frames, begin, worked = 0, time.perf_counter(), cpu_seconds()
        while time.perf_counter() - begin < seconds:
            frames += len(next(batches)[0])
        return Spent(frames, time.perf_counter() - begin, cpu_seconds() - worked)

    return run


def _worked(frames: Any, workers: int, persistent: bool) -> Any:
    return DataLoader(
        frames,
        BATCH,
        shuffle=True,
        num_workers=workers,
        persistent_workers=persistent,
        generator=torch.Generator().manual_seed(0),
    )


LOADERS: dict[str, Callable[[DicomFrames], Contestant]] = {
    "FrameLoader, 1 thread": lambda frames: epochs_of(
        FrameLoader(frames, BATCH, shuffle=True, num_threads=1)
    ),
    "FrameLoader, 2 threads": lambda frames: epochs_of(
        FrameLoader(frames, BATCH, shuffle=True, num_threads=2)
    ),
    "DataLoader, 0 workers": lambda frames: epochs_of(_worked(frames, 0, False)),
    "DataLoader, 2 workers, persistent, steady": lambda frames: batches_of(
        _worked(frames, 2, True)
    ),
    "DataLoader, 2 workers, persistent, epochs": lambda frames: epochs_of(_worked(frames, 2, True)),
    "DataLoader, 2 workers, new each epoch": lambda frames: epochs_of(_worked(frames, 2, False)),
    "pydicom, 0 workers": lambda frames: epochs_of(_worked(_plain(frames), 0, False)),
    "pydicom, 2 workers": lambda frames: epochs_of(_worked(_plain(frames), 2, True)),
}


def _plain(frames: DicomFrames) -> Any:
    return competitors.FrameDataset("pydicom", competitors.items_of(frames.index, cine=False))


def _limit_of(name: str) -> str:
    if name in LIMITS:
        return name
    if "2 workers" in name and "pydicom" not in name:
        return "C loop, 2 processes, shared"
    return "C loop, 1 process" if "1 thread" in name else "C loop, 2 processes"


LIMITS = {
    "C loop, 1 process": ("private", 1),
    "C loop, 2 processes": ("private", 2),
    "C loop, 2 processes, shared": ("shared", 2),
}


# --- All of it ----------------------------------------------------------------------------------------


def measure(paths: Sequence[Path], options: argparse.Namespace) -> list[report.Result]:
    """One row a contestant; ratios are medians of those of each round."""
    able = {name: Loops(kind, number, paths) for name, (kind, number) in LIMITS.items()}
    for name in LOADERS:
        if not (options.no_peers and "pydicom" in name):
            able[name] = Loops(name, 1, paths)
    spent: dict[str, list[Spent]] = {name: [] for name in able}
    for repeat in range(options.repeats + 1):
        for name, run in able.items():
            found = run(options.seconds)
            if repeat:
                spent[name].append(found)
    for loops in able.values():
        loops.close()
    return [_row(name, spent, _limit_of(name)) for name in spent]


def _row(name: str, spent: dict[str, list[Spent]], limit: str) -> report.Result:
    def rates(who: str) -> list[float]:
        return [each.frames / each.wall for each in spent[who]]

    def costs(who: str) -> list[float]:
        return [1e3 * each.cpu / each.frames for each in spent[who]]

    best = max((statistics.median(rates(who)) for who in spent if "pydicom" in who), default=0.0)
    ratios = [a / b for a, b in zip(rates(name), rates(limit), strict=True)]
    by_cpu = [b / a for a, b in zip(costs(name), costs(limit), strict=True)]
    rate = statistics.median(rates(name))
    return {
        "what": name,
        "frames/s": f"{rate:,.0f}",
        "CPU ms a frame": f"{statistics.median(costs(name)):.3f}",
        "of the limit": f"{statistics.median(ratios):.2f}",
        "of it by CPU": f"{statistics.median(by_cpu):.2f}",
        "times pydicom": f"{rate / best:.1f}" if best else "-",
    }


def main() -> None:
    """Prints one table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0, help="of one contestant in a round")
    parser.add_argument("--repeats", type=int, default=7, help="rounds; default: %(default)s")
    parser.add_argument("--frames", type=int, default=192, help="a quarter of the files made")
    parser.add_argument("--size", type=int, default=512, help="rows and columns")
    parser.add_argument("--no-peers", action="store_true", help="without pydicom")
    parser.add_argument("--data", type=Path, default=Path("out") / "benchmarks" / "data")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--paths", type=Path, nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.child:
        child(options.child, options.paths, options.seed)
        return
    rows = measure(loading.paths_of("uncompressed", options), options)
    print(report.plain_table("Uncompressed frames, batches of 32", rows, COLUMNS))


if __name__ == "__main__":
    main()
