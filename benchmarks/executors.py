"""`python -m benchmarks.executors`: a scan by each engine beside one process, and what a call costs.

Small files, whose headers are read in about a tenth of a millisecond, leave engines the least to do for each call.
Rounds are interleaved and the cache is warm; each engine has two workers, which were started and have imported what
they call: an engine that runs already is measured, not its start. The first round does not count. The overhead is that
of a call with 256 paths of which none is read, answer and its check included.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
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
SERIAL = "one process"
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
    entries = Entries(
        Entry(b"%08x.dcm" % k, 0, UNREAD, 0, "not_dicom", "not read") for k in range(TOGETHER)
    )
    job = Job(b"/", {}, LIMITS)
    began = time.perf_counter()
    scan_chunk("here", 0, job, entries)
    here = time.perf_counter() - began
    began = time.perf_counter()
    calls = [executor.submit(scan_chunk, "overhead", k, job, entries) for k in range(CALLS)]
    for call in calls:
        part_from_bytes(call.result(), job.columns)
    return (time.perf_counter() - began) / CALLS - here / WORKERS


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
    parser.add_argument("--data", type=Path, default=output / "data", help="default: %(default)s")
    parser.add_argument("--output", type=Path, default=output, help="default: %(default)s")
    options = parser.parse_args(argv)
    tree = small_files(options.data, options.files)
    seconds: dict[str, list[float]] = {SERIAL: []}
    costs: dict[str, list[float]] = {}
    with ExitStack() as stack:
        executors: dict[str, Executor] = {}
        for name in options.engines:
            if name in ("dask", "ray", "loky") and find_spec(name) is None:
                print(f"{name} is not installed")
                continue
            executors[name] = stack.enter_context(ENGINES[name]())
            seconds[name], costs[name] = [], []
        for repeat in range(options.repeats + 1):
            for name in seconds:
                how: dict[str, Any] = (
                    {"executor": executors[name]} if name in executors else {"num_workers": 0}
                )
                began = time.perf_counter()
                index, _ = scan(tree, **how)
                took = time.perf_counter() - began
                assert len(index) == options.files
                cost = overhead(executors[name]) if name in executors else None
                if repeat:  # the first round warms up
                    seconds[name].append(took)
                if repeat and cost is not None:
                    costs[name].append(cost)
    serial = statistics.median(seconds[SERIAL])
    rows = [
        {
            "engine": name,
            "files_per_second": options.files / statistics.median(taken),
            "times_one_process": serial / statistics.median(taken),
            "milliseconds_a_call": 1000 * statistics.median(costs[name])
            if costs.get(name)
            else "-",
        }
        for name, taken in seconds.items()
    ]
    title = f"Scans of {options.files:,} small files by {WORKERS} workers"
    print(plain_table(title, rows, tuple(rows[0])))
    options.output.mkdir(parents=True, exist_ok=True)
    results = {"machine": machine(), "versions": versions(), "workers": WORKERS, "rows": rows}
    path = options.output / "executors.json"
    path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
