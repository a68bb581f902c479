"""`python -m benchmarks.executors`: a scan by each engine beside one process, and what a call costs.

Two kinds of files. The smallest: their headers are read in about a tenth of a millisecond, which leaves engines the
least to do for each call, the worst case. And, with `DICOMTORCH_SAMPLES` or `--samples`, files with the headers that
vendors write: links to copies of the samples that have frames, one after the other; those whose data sets are deflated
are left out, because one of them takes as long as a hundred others.

Each engine is measured on its own: it has two workers, which were started and have read some of the files, so that an
engine that runs already is measured, not its start. Then the scan of one process, nothing of which is spared, and that
by the engine take turns in each round, with files in the cache of the system. The ratio is the median of those of the
rounds. The overhead is that of a call with 256 paths of which none is read, answer and its check included.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dicomtorch import scan
from dicomtorch.index.part_bytes import part_from_bytes
from dicomtorch.model.limits import LIMITS
from dicomtorch.scanner.entries import UNREAD, Entries, Entry
from dicomtorch.scanner.pool import ChildProcesses
from dicomtorch.scanner.worker import Job, scan_chunk

WORKERS = 2
TOGETHER = 256  # paths of a call
CALLS = 32  # in flight


def processes() -> ProcessPoolExecutor:
    """A pool of Python's, whose workers share nothing with this process."""
    return ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("spawn"))


@contextmanager
def dask() -> Iterator[Executor]:
    """A cluster of processes on this machine."""
    distributed: Any = import_module("distributed")  # which types it has depends on its version
    options = {"processes": True, "threads_per_worker": 1, "dashboard_address": None}
    cluster = distributed.LocalCluster(n_workers=WORKERS, **options)
    with cluster, distributed.Client(cluster) as client:
        yield client.get_executor(pure=False)


@contextmanager
def ray() -> Iterator[Executor]:
    """Ray on this machine."""
    from dicomtorch.integrations.ray import RayExecutor

    engine: Any = import_module("ray")
    engine.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False)
    try:
        yield RayExecutor()
    finally:
        engine.shutdown()


@contextmanager
def loky() -> Iterator[Executor]:
    """Its reusable executor; workers that wait for ten seconds would be ended, and started while others are timed."""
    reusable = import_module("loky").get_reusable_executor
    executor: Executor = reusable(max_workers=WORKERS, timeout=3600)
    yield executor
    executor.shutdown()


ENGINES: dict[str, Callable[[], Any]] = {
    "threads": lambda: ThreadPoolExecutor(WORKERS),
    "process pool": processes,
    "child processes": lambda: ChildProcesses(WORKERS),
    "loky": loky,
    "dask": dask,
    "ray": ray,
}


def overhead(executor: Executor) -> float:
    """Seconds of a call beyond what it takes here, `CALLS` in flight."""
    unread = Entry(b"", 0, UNREAD, 0, "not_dicom", "not read")
    entries = Entries([replace(unread, path=b"%08x.dcm" % k) for k in range(TOGETHER)])
    job = Job(b"/", {}, LIMITS)
    began = time.perf_counter()
    scan_chunk("here", 0, job, entries)
    here = time.perf_counter() - began
    began = time.perf_counter()
    calls = [executor.submit(scan_chunk, "overhead", k, job, entries) for k in range(CALLS)]
    for call in calls:
        part_from_bytes(call.result(), job.columns)
    return (time.perf_counter() - began) / CALLS - here / WORKERS


def vendors_files(root: Path, samples: Path, files: int) -> Path:
    """A folder of links to copies of the samples with frames, written unless it is there."""
    folder = root / f"vendors-{files}"
    if not folder.exists():
        making = root / "vendors-making"
        shutil.rmtree(making, ignore_errors=True)
        index, _ = scan(samples, num_workers=0)
        rows = index.files
        chosen = [
            os.fsdecode(index.file_path(k))
            for k in range(len(rows["size"]))
            if rows["frames"][k] and not rows["deflated"][k]
        ]
        for k in range(files):
            place = making / "files" / f"{k // 500:03}" / f"{k:06}.dcm"
            copy = making / f"copy-{k % len(chosen):03}"
            if k < len(chosen):
                making.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(chosen[k], copy)
            place.parent.mkdir(parents=True, exist_ok=True)
            os.link(copy, place)
        (making / "files").rename(folder)
        shutil.rmtree(making)
    return folder


def rounds(executor: Executor, folder: Path, repeats: int) -> dict[str, float]:
    """Files a second of one process and of an engine, their ratio, and what a call costs."""
    alone: list[float] = []
    together: list[float] = []
    costs: list[float] = []
    expected = len(scan(folder, executor=executor)[0])
    overhead(executor)
    for _ in range(repeats):
        ways: tuple[tuple[dict[str, Any], list[float]], ...] = (
            ({"num_workers": 0}, alone),
            ({"executor": executor}, together),
        )
        for how, taken in ways:
            gc.collect()
            began = time.perf_counter()
            index, report = scan(folder, **how)
            taken.append(time.perf_counter() - began)
            assert len(index) == expected
        costs.append(overhead(executor))
    files = report.read
    ratios = [one / other for one, other in zip(alone, together, strict=True)]
    return {
        "one_process_files_per_second": files / statistics.median(alone),
        "files_per_second": files / statistics.median(together),
        "times_one_process": statistics.median(ratios),
        "milliseconds_a_call": 1000 * statistics.median(costs),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints and writes `executors.json`."""
    # Not above: workers import this module, and these import much.
    from benchmarks.report import machine, plain_table, versions
    from benchmarks.scan import small_files

    parser = argparse.ArgumentParser(prog="python -m benchmarks.executors", description=__doc__)
    output = Path("out") / "benchmarks"
    parser.add_argument("--files", type=int, default=20_000, help="default: %(default)s")
    parser.add_argument("--repeats", type=int, default=3, help="rounds; default: %(default)s")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--samples", type=Path, default=os.environ.get("DICOMTORCH_SAMPLES"))
    parser.add_argument("--data", type=Path, default=output / "data", help="default: %(default)s")
    parser.add_argument("--output", type=Path, default=output, help="default: %(default)s")
    options = parser.parse_args(argv)
    folders = {"the smallest (worst case)": small_files(options.data, options.files)}
    if options.samples:
        vendors = vendors_files(options.data, options.samples, options.files)
        folders["with headers of vendors"] = vendors
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in folders}
    for engine in options.engines:
        if engine in ("dask", "ray", "loky") and find_spec(engine) is None:
            print(f"{engine} is not installed")
            continue
        with ENGINES[engine]() as executor:
            for name, folder in folders.items():
                rows[name].append({"engine": engine, **rounds(executor, folder, options.repeats)})
    for name, found in rows.items():
        if found:
            title = f"Scans of {options.files:,} files, {name}, by {WORKERS} workers"
            print(plain_table(title, found, tuple(found[0])))
    options.output.mkdir(parents=True, exist_ok=True)
    results = {"machine": machine(), "versions": versions(), "workers": WORKERS, "rows": rows}
    path = options.output / "executors.json"
    path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
