"""`python -m benchmarks.device`: batches on a CUDA device: the copy alone, the loader, and both under a training step.

Needs a CUDA device. What `FrameLoader(device="cuda")` gives is compared first with what the CPU gives, frame by frame.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler

from benchmarks import data, report
from dicomtorch import DicomFrames, DicomTorchError, FrameLoader, scan

BATCH = 32
OPTIONS: dict[str, dict[str, Any]] = {
    "display, the file's window": {"values": "display"},
    "display, one window": {"values": "display", "window": (40.0, 400.0)},
    "modality": {"values": "modality"},
}


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints tables and writes them as JSON."""
    options = _parser().parse_args(argv)
    if not torch.cuda.is_available():
        print(f"torch {torch.__version__} finds no CUDA device here")
        return 2
    paths = data.make(options.data, data.SYNTAXES["uncompressed"], options.frames, options.size)
    index, _ = scan(paths)
    frames = DicomFrames(index)
    results: dict[str, Any] = {
        "machine": {**report.machine(), "device": torch.cuda.get_device_name()},
        "versions": report.versions(),
        "settings": {"frames": options.frames, "size": options.size, "batch_size": BATCH},
    }
    parts: tuple[tuple[str, Callable[[], list[report.Result]], tuple[str, ...]], ...] = (
        ("values", lambda: compare(options.samples), ("values", "frames", "equal", "largest ulp", "largest")),
        ("copy", lambda: copies(options.size), ("what", "frames/s", "GB/s")),
        ("loader", lambda: loaders(frames, options), ("loader", "frames/s", "share of copy")),
        ("step", lambda: steps(frames, options), ("loader", "step ms", "load ms", "both ms", "overlap")),
        ("memory", lambda: memory(frames, options), ("batches", "device MB", "pinned MB", "process MB")),
    )  # fmt: skip
    for name, measure, columns in parts:
        results[name] = measure()
        print(report.plain_table(name, results[name], columns), flush=True)
    if options.output:
        options.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return 0


def compare(samples: Path | None) -> list[report.Result]:
    """Late conversion on the device beside conversion while reading: how many frames have the same bits."""
    if samples is None:
        from pydicom.data import get_testdata_file

        samples = Path(str(get_testdata_file("CT_small.dcm"))).parent
    index = scan(samples)[0].images()
    stored = DicomFrames(index, values="stored")
    found = []
    for name, options in OPTIONS.items():
        direct = DicomFrames(index, **options)
        counts = {"frames": 0, "equal": 0}
        ulp, largest = 0.0, 0.0
        for i in range(len(index)):
            try:
                image, meta = stored[i]
                expected = direct[i][0].numpy()
                batch, _ = stored.to_values(image[None].cuda(), _batched(meta), **options)
            except DicomTorchError:  # what both refuse
                continue
            result = batch[0].cpu().numpy()
            counts["frames"] += 1
            counts["equal"] += int(np.array_equal(result, expected, equal_nan=True))
            apart = np.abs(result.astype(np.float64) - expected.astype(np.float64))
            unit = np.spacing(np.maximum(np.abs(expected), np.float32(2**-24)))
            ulp = max(ulp, float(np.nanmax(apart / unit)))
            largest = max(largest, float(np.nanmax(apart)))
        found.append({"values": name, **counts, "largest ulp": ulp, "largest": largest})
    return found


def _batched(meta: Any) -> Any:
    return {"index": [meta["index"]]}


def copies(size: int) -> list[report.Result]:
    """Pinned batches to the device, nothing else: what a loader cannot exceed."""
    found = []
    for dtype in (torch.float32, torch.int16):
        batches = [torch.zeros((BATCH, 1, size, size), dtype=dtype).pin_memory() for _ in range(4)]
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

        def once(batches: list[Tensor] = batches, stream: Any = stream) -> int:
            with torch.cuda.stream(stream):
                for _ in range(16):
                    for batch in batches:
                        batch.to("cuda", non_blocking=True)
            stream.synchronize()
            return 64 * BATCH

        rate = statistics.median(report.interleaved({"copy": once}, 3)["copy"])
        moved = rate * size * size * batches[0].element_size() / 1e9
        found.append({"what": f"copy alone, {dtype}", "frames/s": rate, "GB/s": moved})
    return found


def _order(frames: DicomFrames, options: argparse.Namespace) -> RandomSampler:
    """More frames than there are files, so that the start of an epoch counts little."""
    return RandomSampler(frames, replacement=True, num_samples=options.epoch)


def _loaders(frames: DicomFrames, options: argparse.Namespace) -> dict[str, Iterable[Any]]:
    stored = DicomFrames(frames.index, values="stored")
    able: dict[str, Iterable[Any]] = {}
    for threads in options.threads:
        on_cpu = FrameLoader(frames, BATCH, sampler=_order(frames, options), num_threads=threads)
        able[f"FrameLoader, {threads} threads, CPU"] = on_cpu
        to_device = FrameLoader(
            frames, BATCH, sampler=_order(frames, options), num_threads=threads, device="cuda"
        )
        able[f"FrameLoader, {threads} threads, cuda"] = to_device
        late = FrameLoader(
            stored,
            BATCH,
            sampler=_order(frames, options),
            num_threads=threads,
            device="cuda",
            batch_transform=lambda batch: stored.to_values(*batch),
        )
        able[f"FrameLoader, {threads} threads, cuda, converted there"] = late
    for workers in options.workers:
        pinned = DataLoader(
            frames, BATCH, sampler=_order(frames, options), num_workers=workers,
            persistent_workers=True, pin_memory=True,
        )  # fmt: skip
        able[f"DataLoader, {workers} workers, pinned, .cuda()"] = _Moved(pinned)
    return able


class _Moved:
    """Batches of a `DataLoader` that pins, sent to the device by the loop, as users write it."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.loader = loader

    def __iter__(self) -> Any:
        for images, meta in self.loader:
            yield images.to("cuda", non_blocking=True), meta


def _epoch(loader: Iterable[Any]) -> int:
    count = 0
    for images, _ in loader:
        count += len(images)
    torch.cuda.synchronize()
    return count


def loaders(frames: DicomFrames, options: argparse.Namespace) -> list[report.Result]:
    """Frames/s of an epoch that does nothing with its batches, and the share of the copy alone."""
    able = _loaders(frames, options)
    rates = report.interleaved(
        {name: lambda loader=loader: _epoch(loader) for name, loader in able.items()},  # type: ignore[misc]
        options.repeats,
    )
    limit = copies(options.size)[0]["frames/s"]
    del able
    gc.collect()
    return [
        {"loader": name, "frames/s": (rate := statistics.median(values)), "share of copy": rate / limit}
        for name, values in rates.items()
    ]  # fmt: skip


def _step(size: int, milliseconds: float) -> Callable[[Tensor], None]:
    """A training step of a small network that keeps the device busy for about so long."""
    model = nn.Sequential(nn.Conv2d(1, 64, 7, 4, 3), nn.ReLU(), nn.Conv2d(64, 64, 3, 2, 1), nn.ReLU(),
                          nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 2)).cuda()  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    matrix = torch.randn(4096, 4096, device="cuda", dtype=torch.bfloat16)
    target = torch.zeros(BATCH, dtype=torch.long, device="cuda")

    def step(images: Tensor, products: int) -> None:
        with torch.autocast("cuda", torch.bfloat16):
            loss = nn.functional.cross_entropy(model(images), target[: len(images)])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        for _ in range(products):
            matrix @ matrix

    images = torch.zeros(BATCH, 1, size, size, device="cuda")

    def timed(products: int) -> float:
        for _ in range(3):
            step(images, products)
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(10):
            step(images, products)
        torch.cuda.synchronize()
        return (time.perf_counter() - start) * 100

    each = (timed(20) - timed(0)) / 20
    products = max(0, round((milliseconds - timed(0)) / each))
    return lambda images: step(images, products)


def steps(frames: DicomFrames, options: argparse.Namespace) -> list[report.Result]:
    """Milliseconds a batch of loading alone, of a training step alone, and of both in one loop.

    `overlap` is the longer of the two over what the loop takes: 1 where reading, copying and training hide one another.
    """
    threads = max(options.threads)
    stored = DicomFrames(frames.index, values="stored")
    able: dict[str, Iterable[Any]] = {
        "FrameLoader, cuda": FrameLoader(
            frames, BATCH, sampler=_order(frames, options), num_threads=threads, device="cuda"
        ),
        "FrameLoader, cuda, converted there": FrameLoader(
            stored, BATCH, sampler=_order(frames, options), num_threads=threads, device="cuda",
            batch_transform=lambda batch: stored.to_values(*batch),
        ),
        "DataLoader, pinned, .cuda()": _Moved(
            DataLoader(frames, BATCH, sampler=_order(frames, options), num_workers=max(options.workers),
                       persistent_workers=True, pin_memory=True)
        ),
    }  # fmt: skip
    found = []
    for name, loader in able.items():
        load = _milliseconds(loader, None, options.repeats)
        for share in (0.5, 1.0, 2.0):
            step = _step(options.size, load * share)
            resting = torch.zeros(BATCH, 1, options.size, options.size, device="cuda")
            alone = _milliseconds(
                [(resting, None)] * (options.epoch // BATCH), step, options.repeats
            )
            both = _milliseconds(loader, step, options.repeats)
            row = {"loader": name, "step ms": alone, "load ms": load, "both ms": both}
            found.append({**row, "overlap": max(alone, load) / both})
    return found


def _milliseconds(
    loader: Iterable[Any], step: Callable[[Tensor], None] | None, repeats: int
) -> float:
    """Of a batch, in the median epoch; the first warms up."""
    spent = []
    for _ in range(repeats + 1):
        start, batches = time.perf_counter(), 0
        for images, _meta in loader:
            batches += 1
            if step is not None:
                step(images)
        torch.cuda.synchronize()
        spent.append((time.perf_counter() - start) * 1000 / batches)
    return statistics.median(spent[1:])


def memory(frames: DicomFrames, options: argparse.Namespace) -> list[report.Result]:
    """What a thousand batches leave behind."""
    loader = FrameLoader(frames, BATCH, sampler=_order(frames, options), device="cuda")
    found, seen = [], 0
    torch.cuda.empty_cache()
    for mark in (20, 200, 1000):
        while seen < mark:
            for _ in loader:
                seen += 1
                if seen == mark:
                    break
        torch.cuda.synchronize()
        stats = torch.cuda.host_memory_stats() if hasattr(torch.cuda, "host_memory_stats") else {}
        status = Path("/proc/self/status").read_text(encoding="ascii")
        resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        found.append(
            {
                "batches": mark,
                "device MB": torch.cuda.memory_reserved() / 1e6,
                "pinned MB": stats.get("allocated_bytes.current", float("nan")) / 1e6,
                "process MB": int(resident.split()[1]) / 1e3,
            }
        )
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.device", description=__doc__)
    folder = Path("out") / "benchmarks"
    parser.add_argument("--data", type=Path, default=folder / "data", help="made once")
    parser.add_argument("--samples", type=Path, help="real files; default: those of pydicom")
    parser.add_argument("--frames", type=int, default=768, help="default: %(default)s")
    parser.add_argument("--epoch", type=int, default=8192, help="frames; default: %(default)s")
    parser.add_argument("--size", type=int, default=512, help="default: %(default)s")
    parser.add_argument("--repeats", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--threads", type=int, nargs="+", default=[2, 4, 8, 16])
    parser.add_argument("--workers", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--output", type=Path, help="JSON")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
