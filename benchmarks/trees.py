"""What grows with the number of files: the first scan, opening again, the first batch, the memory of a worker.

Each library starts in a process of its own; its imports are not counted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, Subset

from benchmarks import data, report
from benchmarks.competitors import FrameDataset, Item
from dicomtorch import DicomFrames

COLUMNS = (
    *("files", "library", "first_start_s", "later_start_s", "first_batch_s", "worker_private_mb"),
)
LIBRARIES = (report.OURS, "pydicom")


def measure(files: int, options: argparse.Namespace) -> list[report.Result]:
    """Seconds and MB, medians. `first_start_s`: until the dataset exists; `later_start_s`: again, files unchanged."""
    root = data.tree(options.data, files)
    with tempfile.TemporaryDirectory() as cache:
        found: dict[str, list[dict[str, float]]] = {library: [] for library in LIBRARIES}
        for _ in range(options.repeats):
            for library in LIBRARIES:
                found[library].append(_in_process_of_its_own(library, root, Path(cache)))
    results: list[report.Result] = []
    for library, runs in found.items():
        row: report.Result = {"files": files, "library": library, "runs": runs}
        row["first_start_s"] = runs[0]["start_s"]
        later = runs[1:] or runs
        row["later_start_s"] = statistics.median(run["start_s"] for run in later)
        row["first_batch_s"] = statistics.median(run["first_batch_s"] for run in later)
        row["worker_private_mb"] = statistics.median(run["worker_private_mb"] for run in runs)
        results.append(row)
    return results


def _in_process_of_its_own(library: str, root: Path, cache: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.trees", library, str(root), str(cache)]
    done = subprocess.run(command, text=True, capture_output=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _start(library: str, root: Path, cache: Path) -> Any:
    if library == report.OURS:
        return DicomFrames(root, cache_dir=cache)
    return FrameDataset(library, [Item(path, -1, path) for path in sorted(root.rglob("*.dcm"))])


def _run(library: str, root: Path, cache: Path) -> dict[str, float]:
    begin = time.perf_counter()
    dataset = _start(library, root, cache)
    start = time.perf_counter() - begin
    next(iter(DataLoader(dataset, batch_size=32, shuffle=True)))
    first_batch = time.perf_counter() - begin
    few = Subset(dataset, range(0, len(dataset), max(1, len(dataset) // 512)))
    loader = DataLoader(few, batch_size=32, num_workers=2, persistent_workers=True)
    batches = iter(loader)
    for _ in batches:
        pass
    memory = statistics.median(private_mb(worker.pid) for worker in batches._workers)  # type: ignore[attr-defined]
    return {"start_s": start, "first_batch_s": first_batch, "worker_private_mb": memory}


def private_mb(pid: int) -> float:
    """Memory that a process shares with nobody; nan where the system does not say."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return float("nan")
    private = [int(line.split()[1]) for line in lines if line.startswith("Private_")]
    return sum(private) / 1024


if __name__ == "__main__":
    print(json.dumps(_run(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))))
