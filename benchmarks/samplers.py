"""`python -m benchmarks.samplers`: what a local shuffle gains over a plain one, and what orders cost.

Multi-frame files are read once per epoch with a cold cache: before each epoch the system is told to drop their pages
(`posix_fadvise(DONTNEED)`, so Linux only). A disk that reads far more than it is asked for shows in the bytes column.
A second table says how long each sampler takes to make an order.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, UltrasoundMultiFrameImageStorage
from torch.utils.data import DataLoader, Sampler

from dicomtorch import (
    BalancedSampler,
    DicomFrames,
    GroupBatchSampler,
    GroupSampler,
    LocalShuffleSampler,
    ShuffleSampler,
)

ROOT_UID = "1.2.826.0.1.3680043.8.498.9"


class PlainShuffle(Sampler[int]):
    """Any order of all frames, another one in each epoch."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Begins another epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        """The order of this epoch."""
        yield from np.random.default_rng(self.epoch).permutation(self.count).tolist()

    def __len__(self) -> int:
        """Frames."""
        return self.count


def make(root: Path, files: int, frames: int, size: int) -> list[Path]:
    """Native 8-bit cine loops of noise, written once."""
    folder = root / f"cine-{files}x{frames}x{size}"
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:04d}.dcm" for number in range(files)]
    for number, path in enumerate(paths):
        if not path.exists():
            part = path.with_suffix(".part")
            _cine(number, frames, size).save_as(part, enforce_file_format=True)
            part.replace(path)
    return paths


def _cine(number: int, frames: int, size: int) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = UltrasoundMultiFrameImageStorage
    dataset.SOPInstanceUID = f"{ROOT_UID}.{number + 1}.1"
    dataset.SeriesInstanceUID = f"{ROOT_UID}.{number + 1}"
    dataset.StudyInstanceUID = ROOT_UID
    dataset.PatientID = f"phantom-{number}"
    dataset.Modality = "US"
    dataset.InstanceNumber = 1
    dataset.FrameTime = 40
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = frames, size, size
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    rng = np.random.default_rng(number)
    dataset.PixelData = rng.integers(0, 256, (frames, size, size), np.uint8).tobytes()
    dataset["PixelData"].VR = "OB"
    return dataset


def drop_cache(paths: Sequence[Path]) -> None:
    """Makes the next read of each file come from the disk."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def bytes_from_disk() -> int:
    """What this process has had fetched so far."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["read_bytes"])


def epoch(loader: DataLoader[Any], sampler: Any, number: int, paths: Sequence[Path]) -> list[float]:
    """Frames/s and bytes from the disk of one cold epoch."""
    sampler.set_epoch(number)
    drop_cache(paths)
    before, start = bytes_from_disk(), time.perf_counter()
    frames = sum(len(images) for images, _ in loader)
    return [frames / (time.perf_counter() - start), bytes_from_disk() - before]


def randomness(files: np.ndarray[Any, Any], order: Sequence[int], batch_size: int) -> float:
    """Files that a batch has frames of, on average."""
    numbers = files[list(order)]
    whole = numbers[: len(numbers) // batch_size * batch_size].reshape(-1, batch_size)
    return float(np.mean([len(np.unique(batch)) for batch in whole]))


def order_times(frames: DicomFrames, repeats: int) -> list[dict[str, Any]]:
    """Processor time that each sampler takes for an epoch of nothing but indices, per 100,000 of them."""
    samplers: dict[str, Any] = {
        "LocalShuffleSampler": LocalShuffleSampler(frames),
        "ShuffleSampler": ShuffleSampler(frames),
        "GroupSampler": GroupSampler(frames, num_frames=10),
        "BalancedSampler": BalancedSampler(frames, by="PatientID"),
        "BalancedSampler, replacement=False": BalancedSampler(
            frames, by="PatientID", replacement=False
        ),
        "GroupBatchSampler": GroupBatchSampler(frames, batch_size=32),
    }
    rows = []
    for name, sampler in samplers.items():
        taken = []
        for number in range(repeats):
            sampler.set_epoch(number)
            start = time.process_time()
            items = list(sampler)
            seconds = time.process_time() - start
            count = sum(len(item) if isinstance(item, list) else 1 for item in items)
            taken.append(seconds * 1e3 * 100_000 / count)
        rows.append({"sampler": name, "milliseconds_per_100000": statistics.median(taken)})
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints a table, and writes `samplers.json`."""
    options = _parser().parse_args(argv)
    paths = make(options.data, options.files, options.frames, options.size)
    frames = DicomFrames(paths, cache_dir=options.data / "cache")
    files = np.asarray(frames.index.column("file"))
    samplers: dict[str, Any] = {"plain shuffle": PlainShuffle(len(frames))}
    for window, block in options.orders:
        name = f"window {window}, block {block or 'None'}"
        samplers[name] = LocalShuffleSampler(frames, window=window, block=block)
    measured: dict[str, list[list[float]]] = {name: [] for name in samplers}
    for number in range(options.repeats):
        for name, sampler in samplers.items():
            loader = DataLoader(frames, batch_size=options.batch_size, sampler=sampler)
            measured[name].append(epoch(loader, sampler, number, paths))
    rows = []
    for name, sampler in samplers.items():
        rates, nbytes = zip(*measured[name], strict=True)
        rows.append(
            {
                "order": name,
                "frames_per_second": statistics.median(rates),
                "repeats": list(rates),
                "megabytes_from_disk": statistics.median(nbytes) / 1e6,
                "files_per_batch": randomness(files, list(sampler), options.batch_size),
            }
        )
    print(_table(rows))
    orders = order_times(frames, max(3, options.repeats))
    print("\n| sampler | ms for 100,000 indices |\n|---|---|")
    for row in orders:
        print(f"| {row['sampler']} | {row['milliseconds_per_100000']:.1f} |")
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "samplers.json").write_text(
        json.dumps({"epochs": rows, "orders": orders}, indent=1)
    )
    return 0


def _order(text: str) -> tuple[int, int | None]:
    window, _, block = text.partition(":")
    return int(window), int(block) if block else None


def _table(rows: list[dict[str, Any]]) -> str:
    plain = rows[0]["frames_per_second"]
    lines = [
        "| order | frames/s, cold | gain | MB from disk | files per batch |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['order']} | {row['frames_per_second']:,.0f} | {row['frames_per_second'] / plain:.2f} | "
        f"{row['megabytes_from_disk']:,.0f} | {row['files_per_batch']:.1f} |"
        for row in rows
    ]
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.samplers", description=__doc__)
    output = Path("out") / "benchmarks"
    parser.add_argument("--files", type=int, default=200, help="default: %(default)s")
    parser.add_argument("--frames", type=int, default=50, help="per file; default: %(default)s")
    parser.add_argument(
        "--size", type=int, default=256, help="rows and columns; default: %(default)s"
    )
    parser.add_argument("--batch-size", type=int, default=32, help="default: %(default)s")
    parser.add_argument(
        "--orders",
        type=_order,
        nargs="+",
        default=[(32, None), (32, 4), (128, None), (128, 8), (512, None), (512, 16)],
        metavar="WINDOW[:BLOCK]",
    )
    parser.add_argument("--repeats", type=int, default=3, help="epochs; default: %(default)s")
    parser.add_argument(
        "--data", type=Path, default=output / "data", help="made once; default: %(default)s"
    )
    parser.add_argument("--output", type=Path, default=output, help="default: %(default)s")
    return parser


if __name__ == "__main__":
    sys.exit(main())
