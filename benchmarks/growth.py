"""`python -m benchmarks.growth`: what each step costs with 10^4, 10^5, 10^6 (and with --full 10^7) frames.

CPU time, the most memory above what was there before, and the memory that stays; each step and size in a process of its
own, without the time that preparing takes. The index is synthetic (`benchmarks.index`); for the steps that compare it
with files there is a tree of links to a few files, which the index describes, so that listing it is real. The headers
of a first scan are not read: `first scan, parent` is what the process has to do that reads none of them, with answers
as children send them.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import gc
import io
import json
import os
import pickle
import queue
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.index import synthetic
from dicomtorch.index import files as index_file
from dicomtorch.index import opened
from dicomtorch.index.columns import Packed, Texts
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.index.generation import Generation, finish, take_files
from dicomtorch.index.opened import open_generation
from dicomtorch.index.store import IndexStore

Action = Callable[[], object]
LINKS = 50_000  # of one file; file systems have limits
IN_A_FOLDER = 500
FEW = 10_000
MOST_GROWTH = 13  # of CPU time and memory from 10^4 to 10^5 rows; n log n is 12.5 times
LEAST_CPU = 0.05  # seconds that a loaded machine makes of nothing


class Place:
    """A folder with what a step needs; what is made once is found again.

    Args:
        folder: Where to keep it.
        rows: Of the index, and files.
    """

    def __init__(self, folder: Path, rows: int) -> None:
        self.folder = folder / str(rows)
        self.rows = rows
        self.folder.mkdir(parents=True, exist_ok=True)

    def generation(self, name: str, make: Callable[[], Generation]) -> Generation:
        """A stored generation, made in a process of its own."""
        path = self.folder / name
        if not path.exists():
            index_file.write(make(), path)
        return index_file.read(path, mapped=True).generation

    def index(self) -> FrameIndex:
        """The synthetic one."""
        return FrameIndex(self.generation("series", lambda: synthetic(self.rows)))

    def single_slices(self) -> FrameIndex:
        """Every frame a series of its own."""

        def make() -> Generation:
            made = synthetic(self.rows)
            series = made.frames["SOPInstanceUID"]
            return dataclasses.replace(made, frames=made.frames | {"SeriesInstanceUID": series})

        return FrameIndex(self.generation("single", make))

    def partitions(self) -> list[Path]:
        """The synthetic one as ten, each of a folder of its own."""
        paths = [self.folder / f"partition-{k}" for k in range(10)]
        if not all(map(index_file.is_index, paths)):
            whole = self.index()
            for k, path in enumerate(paths):
                rows = np.arange(k * self.rows // 10, (k + 1) * self.rows // 10)
                frames, files = take_files(whole._generation, rows)
                for name, data in frames.items():
                    if isinstance(data, Texts):
                        frames[name] = data.compact()
                root = b"/archive/%d" % k
                lookups = whole._generation.lookups
                shutil.rmtree(path, ignore_errors=True)
                index_file.write(finish(root, {}, frames, files, lookups), path)
        return paths

    def tree(self) -> Path:
        """As many files, links to a few, in folders of 500; a tenth of the folders lie in others."""
        root = self.folder / "tree"
        if not root.exists():
            making = self.folder / "making"
            making.mkdir()
            for k in range(self.rows):
                if k % LINKS == 0:
                    real = self.folder / f"real-{k:09}"
                    real.write_bytes(b"\0" * 128 + b"DICM")
                if k % IN_A_FOLDER == 0:
                    folder = making / f"{k // 10 // IN_A_FOLDER:05}" / f"{k // IN_A_FOLDER:06}"
                    folder.mkdir(parents=True)
                os.link(real, folder / f"IM{k:09}")
            making.rename(root)
        return root.resolve()  # a link to a disk with room, where that is another one

    def tree_index(self) -> tuple[Path, FrameIndex]:
        """The tree, and the synthetic index as one of it."""
        root = self.tree()

        def make() -> Generation:
            found = []
            for folder, _, names in os.walk(os.fsencode(root)):
                below = os.path.relpath(folder, os.fsencode(root)) + b"/"
                found += [(b"" if below == b"./" else below) + name for name in names]
            found.sort()
            looked = np.empty((3, len(found)), np.int64)  # 10^7 results of `stat` would be 6 GB
            for k, path in enumerate(found):
                one = os.stat(os.path.join(os.fsencode(root), path))
                looked[:, k] = one.st_size, one.st_mtime_ns, one.st_ino
            made = synthetic(len(found))
            files = dict(made.files)
            files["path"] = Packed.of(found)
            files["size"], files["mtime_ns"], files["inode"] = looked
            # The files are short, and spans must lie in them.
            zero = np.broadcast_to(np.int64(0), (len(found),))
            frames = made.frames | {"offset": zero, "length": zero}
            return dataclasses.replace(made, root=os.fsencode(root), files=files, frames=frames)

        return root, FrameIndex(self.generation("of-tree", make))


class Answers(Executor):
    """In place of children that read headers: gives the bytes that these would answer, made once.

    Args:
        index: Of all files.
    """

    _max_workers = 1

    def __init__(self, index: FrameIndex) -> None:
        self._whole = index.whole()._generation
        files: Any = self._whole.files
        self._rows = {path: row for row, path in enumerate(files["path"])}
        self._made: dict[tuple[bytes, int], bytes] = {}

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """The answer to `scan_chunk`."""
        _, _, job, entries = args
        key = entries[0].path, len(entries)
        if key not in self._made:
            self._made[key] = self._answer(job, [self._rows[entry.path] for entry in entries])
        future: Future[Any] = Future()
        future.set_result(self._made[key])
        return future

    def _answer(self, job: Any, rows: list[int]) -> bytes:
        from dicomtorch.index.builder import Part, part_columns
        from dicomtorch.index.part_bytes import part_to_bytes
        from dicomtorch.model.schema import FRAMES

        taken, files = take_files(self._whole, np.array(rows))
        frames = {column.name: taken[column.name] for column in part_columns(FRAMES)}
        return part_to_bytes(Part(frames, files, self._whole.lookups, []), {})


def first_scan(place: Place) -> Action:
    """What the parent does while children read: it lists, takes their answers, and makes an index of them."""
    from dicomtorch.scanner import reading
    from dicomtorch.scanner.scan import scan

    root, index = place.tree_index()
    answers = Answers(index)

    def run() -> object:
        with mock.patch.object(reading, "ChildProcesses", return_value=answers):
            found, _ = scan(root, num_workers=1, progress=False)
        assert len(found) == place.rows
        return found

    run()  # makes the answers
    answers._rows.clear()
    return run


def _stored(place: Place, changed: int = 0) -> tuple[Path, Path]:
    root, index = place.tree_index()
    cache = Path(tempfile.mkdtemp(dir=place.folder))
    generation = index._generation
    if changed:
        times = np.array(generation.files["mtime_ns"])
        times[:: len(times) // changed] -= 1
        generation = dataclasses.replace(generation, files=generation.files | {"mtime_ns": times})
    store = IndexStore([os.path.realpath(os.fsencode(root))], cache)
    with store.lock():
        store.save(FrameIndex(generation))
    return root, cache


def refresh_unchanged(place: Place) -> Action:
    """What every start does."""
    from dicomtorch.scanner.open import open_source

    root, cache = _stored(place)

    def run() -> object:
        index, report = open_source(root, cache_dir=cache)
        assert report.read == 0
        assert report.reused == place.rows
        return index

    return run


def refresh_changed(place: Place) -> Action:
    """A hundredth of the files has another time. They are read, and found to be no DICOM, which costs least."""
    from dicomtorch.scanner.open import open_source

    root, cache = _stored(place, place.rows // 100)

    def run() -> object:
        index, report = open_source(root, cache_dir=cache, num_workers=0)
        assert 0 < report.read <= place.rows // 100 + 1
        return index

    return run


def _without_listing(prepare: Callable[[Place], Action]) -> Callable[[Place], Action]:
    """A refresh for which all files are listed beforehand, from the index: what this package does beside the system."""

    def prepared(place: Place) -> Action:
        from dicomtorch.scanner import place as places
        from dicomtorch.scanner.listing import Listing

        files: Any = place.tree_index()[1].whole()._generation.files
        listing = Listing.__new__(Listing)
        listing.odd, listing.versions, listing.paths = {}, {}, files["path"]
        listing._identity = np.stack([files[name] for name in ("size", "mtime_ns", "inode")])
        listing.size, listing.mtime_ns, listing.inode = listing._identity
        action = prepare(place)

        def run() -> object:
            with mock.patch.object(places, "list_all", return_value=listing):
                return action()

        return run

    return prepared


def _of_index(step: Callable[[FrameIndex], object]) -> Callable[[Place], Action]:
    def prepare(place: Place) -> Action:
        index = place.index()
        return lambda: step(index)

    return prepare


def open_checked(place: Place) -> Action:
    """A stored index, mapped, with all checks."""
    place.index()
    path = place.folder / "series"
    uuid = index_file.read(path, mapped=True).generation.uuid
    return lambda: FrameIndex(open_generation(path, uuid, mapped=True))


def open_believed(place: Place) -> Action:
    """The same in a process whose parent checked it."""
    place.index()
    path = place.folder / "series"
    uuid, seen = index_file.read(path, mapped=True).generation.uuid, index_file.look(path)
    return lambda: FrameIndex(open_generation(path, uuid, mapped=True, seen=seen))


def _partitions(place: Place) -> Action:
    """Ten stored indexes, put together and kept."""
    paths = place.partitions()
    cache = Path(tempfile.mkdtemp(dir=place.folder))
    return lambda: FrameIndex.load(paths, cache_dir=cache)


def _partitions_again(place: Place) -> Action:
    paths = place.partitions()
    cache = place.folder / "together"
    if not cache.exists():
        FrameIndex.load(paths, cache_dir=cache)
        opened._open.clear()
        trim()
    return lambda: FrameIndex.load(paths, cache_dir=cache)


def _join(place: Place) -> Action:
    index = place.index()
    uids = index.column("SOPInstanceUID")
    data = uids.values
    offsets = pa.py_buffer(np.ascontiguousarray(data.offsets))
    text = pa.Array.from_buffers(
        pa.large_string(), len(data), [None, offsets, pa.py_buffer(np.ascontiguousarray(data.data))]
    )
    table = pa.table({"SOPInstanceUID": text, "label": np.arange(len(index)) % 7})
    return lambda: index.join(table)


def split(index: FrameIndex) -> object:
    return index.split([0.7, 0.3])


def kfold(index: FrameIndex) -> object:
    return index.kfold(5)


def filtered(index: FrameIndex) -> object:
    found = index.filter(Modality="CT")
    assert 0 < len(found) < len(index)
    return found


def by_expression(index: FrameIndex) -> object:
    return index.filter(pc.field("SliceThickness") <= 2.0)


def find(index: FrameIndex) -> object:
    uid = index.column("SOPInstanceUID")[len(index) // 2]
    assert index.find(SOPInstanceUID=uid) == len(index) // 2
    return None


def leakage(index: FrameIndex) -> object:
    from dicomtorch.reports.leakage import check_leakage

    half = len(index) // 2
    return check_leakage(
        index.select(np.arange(half)), index.select(np.arange(half, len(index))), pixels=False
    )


def _export(suffix: str, *, deidentified: bool = True) -> Callable[[Place], Action]:
    def prepare(place: Place) -> Action:
        index = place.index()
        path = place.folder / f"table{suffix}"
        return lambda: index.export(path, deidentified=deidentified)

    return prepare


def report(index: FrameIndex) -> object:
    """What `frames.report` prints, and the files with something to say."""
    made = index.report()
    assert repr(made)
    return made.counts


def summary(index: FrameIndex) -> object:
    from dicomtorch.reports.summary import format_summary, summarize

    return format_summary(summarize(index, index.report()))


def doctor(index: FrameIndex) -> object:
    from dicomtorch.reports.doctor import examine

    return examine(index, index.report())


def overview(index: FrameIndex) -> object:
    return repr(index)


def images(index: FrameIndex) -> object:
    return index.images(duplicates="first")


def series_of_slices(index: FrameIndex) -> object:
    from dicomtorch.series.search import stacks

    return stacks(index)


def _incomplete(place: Place) -> Action:
    """A selection in which each series lacks slices, so that it is looked at by itself."""
    from dicomtorch.series.search import stacks

    index = place.index()
    index = index.select(np.arange(len(index)) % 97 > 0)
    return lambda: stacks(index, on_gap="keep")


def _single(single_slices: bool) -> Callable[[Place], Action]:
    def prepare(place: Place) -> Action:
        from dicomtorch.series.search import stacks

        index = place.single_slices()
        return lambda: stacks(index, single_slices=single_slices)

    return prepare


def _local_shuffle(place: Place) -> Action:
    from dicomtorch.batches.samplers import LocalShuffleSampler

    index = place.index()
    return lambda: LocalShuffleSampler(index)


def _local_shuffle_epoch(place: Place) -> Action:
    from dicomtorch.batches.samplers import LocalShuffleSampler

    sampler = LocalShuffleSampler(place.index())
    return lambda: next(iter(sampler))


def _balanced(place: Place) -> Action:
    from dicomtorch.batches.samplers import BalancedSampler

    index = place.index()
    return lambda: BalancedSampler(index, by="Modality")


def _balanced_epoch(place: Place) -> Action:
    from dicomtorch.batches.samplers import BalancedSampler

    sampler = BalancedSampler(place.index(), by="Modality")
    return lambda: next(iter(sampler))


def _spawned(kind: str) -> Callable[[Place], Action]:
    """A worker gets the index as a spawned one does, and reads of it what an epoch reads."""

    def prepare(place: Place) -> Action:
        index = place.index()
        if kind == "joined":
            table = pa.table(
                {
                    "SeriesInstanceUID": list(dict.fromkeys(index.column("SeriesInstanceUID"))),
                }
            )
            table = table.append_column(
                "label", pa.array(np.arange(table.num_rows) % 7, pa.int64())
            )
            index = index.filter(Modality="CT").join(table.to_pydict(), on="SeriesInstanceUID")
        else:
            path = place.folder / "series"
            index = FrameIndex.load(path)
        pickled = spawning(index)
        del index

        def run() -> object:
            found = pickle.loads(pickled)
            found.locate(np.arange(0, len(found), max(1, len(found) // 1000)))
            return found

        return run

    return prepare


def spawning(index: FrameIndex) -> bytes:
    """What a spawned process is sent."""
    from multiprocessing import context

    context.set_spawning_popen(object())  # type: ignore[arg-type]
    try:
        buffer = io.BytesIO()
        pickle.Pickler(buffer, pickle.HIGHEST_PROTOCOL).dump(index)
    finally:
        context.set_spawning_popen(None)
    return buffer.getvalue()


def _full_cache(folder: Path, count: int) -> tuple[Path, int]:
    """(a folder, bytes) of a frame cache that so many entries fill, the first the oldest."""
    from dicomtorch.reader.cache import FrameCache

    folder = Path(tempfile.mkdtemp(dir=folder))
    cache = FrameCache(folder, 1 << 40)
    size = 0
    for k in range(count):
        key = k.to_bytes(32, "big")[::-1]
        path = cache._path(key)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"\0" * 160)
        os.utime(path, (k, k))
        size += 160
    (cache.folder / "used").write_bytes(b"%020d" % size)
    return folder, size


def _evict(place: Place) -> Action:
    """All of one eviction: a full cache of rows / 10 entries is listed, and a tenth of it removed in portions."""
    from dicomtorch.reader.cache import FrameCache

    folder, size = _full_cache(place.folder, max(place.rows // 10, 1000))
    values = np.zeros(8, np.int16)
    small = FrameCache(folder, size)

    def run() -> object:
        small.write(b"\xff" * 32, values)
        while small._room._plan is not None:
            small._room.make(1, small._since)
        used = int((small.folder / "used").read_text())
        assert 0.8 * size < used < 0.92 * size, "nothing was removed, or too much"
        return None

    return run


def _write_on(
    folder: Path, size: int, writer: int, barrier: Any, report: Callable[[Any], Any]
) -> None:
    """Writes into a full cache until a tenth of it is gone, and reports seconds of each write."""
    from dicomtorch.reader.cache import FrameCache

    cache = FrameCache(folder, size)
    values = np.zeros(8, np.int16)
    took: list[float] = []
    barrier.wait()
    gone, end = cache.folder / "evicted", time.monotonic() + 60
    while not gone.exists() or int(gone.read_bytes() or 0) < 0.09 * size:
        assert time.monotonic() < end, "a tenth of the cache does not go"
        began = time.perf_counter()
        cache.write(b"%032d" % (writer << 40 | len(took)), values)
        took.append(time.perf_counter() - began)
    report(took)


def waits(folder: Path, kind: str, writers: int, entries: int = 10**5) -> list[float]:
    """Seconds of each write of some "threads" or "processes" while a tenth of a full cache is removed."""
    path, size = _full_cache(folder, entries)
    context = get_context("spawn")
    maker: Any = threading if kind == "threads" else context
    results: Any = queue.Queue() if kind == "threads" else context.Queue()
    barrier = maker.Barrier(writers)
    make = threading.Thread if kind == "threads" else context.Process
    running = [
        make(target=_write_on, args=(path, size, k, barrier, results.put)) for k in range(writers)
    ]
    for one in running:
        one.start()
    took = [second for _ in running for second in results.get(timeout=90)]
    for one in running:
        one.join()
    shutil.rmtree(path)
    return took


def print_waits(folder: Path) -> None:
    """The longest waits of writers for an eviction of 10^4 of 10^5 entries."""
    print("| Writers | writes | longest, ms | next | 99 %, ms |")
    print("|---|---|---|---|---|")
    for kind, writers in (("threads", 1), ("threads", 2), ("threads", 4), ("processes", 2)):
        took = np.sort(waits(folder, kind, writers))[::-1] * 1000
        print(
            f"| {writers} {kind} | {len(took):,} | {took[0]:.1f} | {took[1]:.1f} | {took[len(took) // 100]:.1f} |",
            flush=True,
        )


STEPS: dict[str, Callable[[Place], Action]] = {
    "first scan, parent": first_scan,
    "refresh, unchanged": refresh_unchanged,
    "refresh, 1 % changed": refresh_changed,
    "refresh, unchanged, listing not counted": _without_listing(refresh_unchanged),
    "refresh, 1 % changed, listing not counted": _without_listing(refresh_changed),
    "open with checks": open_checked,
    "open where the parent checked": open_believed,
    "load of ten partitions, put together": _partitions,
    "load of ten partitions, as kept": _partitions_again,
    "eviction of a tenth of the frame cache (rows / 10 entries)": _evict,
    "stacks, series of 200": _of_index(series_of_slices),
    "stacks, series of 200 in a selection, slices missing": _incomplete,
    "stacks, series of one slice": _single(False),
    "stacks, series of one slice, single_slices": _single(True),
    "export CSV": _export(".csv"),
    "export CSV, everything": _export(".csv", deidentified=False),
    "export Parquet": _export(".parquet"),
    "export Arrow": _export(".arrow"),
    "LocalShuffleSampler": _local_shuffle,
    "LocalShuffleSampler, an epoch begins": _local_shuffle_epoch,
    "BalancedSampler": _balanced,
    "BalancedSampler, an epoch begins": _balanced_epoch,
    "spawned worker, loaded index": _spawned("loaded"),
    "spawned worker, selected and joined": _spawned("joined"),
    "report": _of_index(report),
    "summary": _of_index(summary),
    "doctor": _of_index(doctor),
    "repr": _of_index(overview),
    "images, without duplicates": _of_index(images),
    "join by instance": _join,
    "split": _of_index(split),
    "kfold": _of_index(kfold),
    "filter": _of_index(filtered),
    "filter by expression": _of_index(by_expression),
    "find": _of_index(find),
    "leakage without pixels": _of_index(leakage),
}


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a step took.

    Attributes:
        cpu: Seconds of this process and its children.
        peak: MB above what there was before.
        kept: MB that are there when its result is kept; those of mapped files, which processes share, left out.
    """

    cpu: float
    peak: float
    kept: float


def measure(step: str, rows: int, folder: Path, *, is_warm: bool = False) -> Cost:
    """Runs one step in this process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not is_warm:
            STEPS[step](Place(folder, FEW))()  # imports, and what is made once
        action = STEPS[step](Place(folder, rows))
        trim()
        forgot = _forget_peak()
        resident, own = _status("VmRSS"), _status("RssAnon")
        began = _cpu()
        result = action()
        cpu = _cpu() - began
        peak = _status("VmHWM") - resident if forgot else float("nan")
        gc.collect()
        kept = _status("RssAnon") - own
        del result
    return Cost(cpu, peak, kept)


def growth(step: str, folder: Path, repeats: int = 3) -> tuple[Cost, Cost]:
    """What a step costs with 10^4 and with 10^5 rows, in this process: the least CPU time of several, the most memory.

    Memory that an earlier time left free is not counted again. Where CPU time grows by more than `MOST_GROWTH`, all of
    it again, up to four times: others use caches, too.
    """
    costs: dict[int, list[Cost]] = {10**4: [], 10**5: []}
    for _ in range(5):
        for rows, found in costs.items():
            found += [measure(step, rows, folder, is_warm=bool(found)) for _ in range(repeats)]
        few, many = map(_of_several, costs.values())
        if many.cpu <= MOST_GROWTH * max(few.cpu, LEAST_CPU):
            break
    return few, many


def _of_several(costs: Sequence[Cost]) -> Cost:
    cpu, peak, kept = zip(*map(dataclasses.astuple, costs), strict=True)
    return Cost(min(cpu), max(peak), max(kept))


def _print_growth(step: str, folder: Path) -> None:
    pair = [dataclasses.asdict(one) for one in growth(step, folder)]
    print(json.dumps([step, *pair]), flush=True)


def trim() -> None:
    """Gives memory that nobody uses back to the system."""
    gc.collect()
    pa.default_memory_pool().release_unused()
    if sys.platform == "linux":
        with_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if with_trim is not None:
            with_trim(0)


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _forget_peak() -> bool:
    """Whether the peak begins anew."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _status(name: str) -> float:
    """MB, of a line of /proc/self/status; nan where there is none."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return float("nan")
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith(f"{name}:"))


def in_process_of_its_own(step: str, rows: int, folder: Path) -> Cost:
    """The same in another process, after one that makes what it needs."""
    command = [sys.executable, "-m", "benchmarks.growth", "--child", step, str(rows), str(folder)]
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, check=True)
    return Cost(**json.loads(done.stdout.splitlines()[-1]))


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints."""
    options = _parser().parse_args(argv)
    if options.growth:
        for step in STEPS:  # each in memory that no other has used
            child = get_context("fork").Process(target=_print_growth, args=(step, options.growth))
            child.start()
            child.join()
            if child.exitcode:
                return 1
        return 0
    if options.child:
        step, rows, folder = options.child
        print(json.dumps(dataclasses.asdict(measure(step, int(rows), Path(folder)))))
        return 0
    if options.waits:
        with tempfile.TemporaryDirectory(dir=options.folder) as made:
            print_waits(Path(made))
        return 0
    sizes = options.rows or [10**4, 10**5, 10**6] + [10**7] * options.full
    with tempfile.TemporaryDirectory(dir=options.folder) as made:
        folder = options.keep or Path(made)
        print(
            f"| {'Step':58} | {' | '.join(f'{rows:,} rows: s / peak MB / kept MB' for rows in sizes)} |"
        )
        print(f"|{'---|' * (len(sizes) + 1)}")
        for step in STEPS:
            if options.only and not any(part in step for part in options.only):
                continue
            cells = []
            for rows in sizes:
                began = time.monotonic()
                in_process_of_its_own(step, rows, folder) if options.twice else None
                cost = in_process_of_its_own(step, rows, folder)
                cells.append(f"{cost.cpu:.2f} / {cost.peak:.0f} / {cost.kept:.0f}")
                if options.verbose:
                    print(f"{step} {rows}: {time.monotonic() - began:.0f} s", file=sys.stderr)
            print(f"| {step:58} | {' | '.join(cells)} |", flush=True)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--rows", type=int, action="append", help="sizes; default: 10^4 to 10^6")
    parser.add_argument("--full", action="store_true", help="10^7 too, which takes an hour")
    parser.add_argument("--only", action="append", help="steps that have this in their name")
    parser.add_argument("--folder", type=Path, help="where to make what is needed")
    parser.add_argument("--keep", type=Path, help="the same, and leave it there for the next time")
    parser.add_argument("--twice", action="store_true", help="the second run of each counts")
    parser.add_argument("--verbose", action="store_true", help="wall time, to stderr")
    parser.add_argument("--waits", action="store_true", help="of writers to a full frame cache")
    parser.add_argument("--growth", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
