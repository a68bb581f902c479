"""`python -m benchmarks.index`: an index of a million synthetic rows, opened, pickled, shared among workers, read.

Prints what was measured as JSON. Memory is what a worker has for itself (Private_Dirty, Linux) beyond what it had
before it touched the index; an epoch reads the location and 20 keys of every row in random order, 64 at a time.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import pickle
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dicomtorch.index import files as index_file
from dicomtorch.index.columns import Packed, Texts, make_column
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.index.generation import Generation, finish
from dicomtorch.index.opened import open_generation
from dicomtorch.model.schema import FILES, FRAMES, LOOKUPS

UID = b"1.2.826.0.1.3680043.8.498.12345678901234567890123."
KEYS = (
    *("frame", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "patient", "Modality"),
    *("InstanceNumber", "Rows", "Columns", "PhotometricInterpretation", "PixelSpacing"),
    *("SliceThickness", "ImagePositionPatient", "ImageOrientationPatient", "RescaleSlope"),
    *("RescaleIntercept", "FrameTime", "BurnedInAnnotation", "KVP", "ConvolutionKernel"),
)
CONSTANTS: dict[str, Any] = {
    "frame": 0,
    "offset": 1500,
    "length": 524_288,
    "fragments": 0,
    "bit_offset": 0,
    "TransferSyntaxUID": "1.2.840.10008.1.2.1",
    "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
    "Rows": 512,
    "Columns": 512,
    "SamplesPerPixel": 1,
    "PhotometricInterpretation": "MONOCHROME2",
    "BitsAllocated": 16,
    "BitsStored": 16,
    "HighBit": 15,
    "PixelRepresentation": 1,
    "PlanarConfiguration": 0,
    "pixel_data_vr": "OW",
    "RescaleSlope": 1.0,
    "RescaleIntercept": -1024.0,
    "ImageType": "ORIGINAL\\PRIMARY\\AXIAL",
    "voi_lut_count": 0,
    "ImageOrientationPatient": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
}


def numbered(prefix: bytes, count: int, digits: int) -> Packed:
    """`count` texts: the prefix and a number with leading zeros."""
    text = np.empty((count, len(prefix) + digits), np.uint8)
    text[:, : len(prefix)] = np.frombuffer(prefix, np.uint8)
    rest = np.arange(count)
    for at in range(len(prefix) + digits - 1, len(prefix) - 1, -1):
        rest, text[:, at] = np.divmod(rest, 10)
    text[:, len(prefix) :] += ord("0")
    return Packed(np.arange(count + 1, dtype=np.int64) * text.shape[1], text.reshape(-1))


def synthetic(rows: int) -> Generation:
    """Files of one slice: series of 200, four to a study, two studies to a patient."""
    row = np.arange(rows, dtype=np.int32)
    series, place = row // 200, row % 200
    study = series // 4
    patient = study // 2

    def texts(number: npt.NDArray[np.int32], prefix: bytes) -> Texts:
        return Texts(number, numbered(prefix, int(number[-1]) + 1, 9))

    spacing = 0.5 + series % 40 / 100
    corner = np.full(rows, -250.0)
    given: dict[str, Any] = {
        "file": row,
        "SOPInstanceUID": texts(row, UID),
        "SeriesInstanceUID": texts(series, UID + b"1."),
        "StudyInstanceUID": texts(study, UID + b"2."),
        "FrameOfReferenceUID": texts(study, UID + b"3."),
        "PatientID": texts(patient, b"PAT"),
        "ImagePositionPatient": np.stack([corner, corner, place * 1.25], axis=1),
        "PixelSpacing": np.stack([spacing, spacing], axis=1),
        "SliceThickness": np.where(series % 2, 1.25, 2.5),
        "InstanceNumber": place + 1,
        "Modality": Texts((series % 5 == 0).astype(np.int32), Packed.of([b"CT", b"MR"])),
        "WindowCenter": np.where(series % 2, 40.0, 300.0 + series % 7),
        "WindowWidth": np.where(series % 2, 400.0, 1500.0),
        "AcquisitionTime": 36_000.0 + place * 0.1 + series % 3600,
        "KVP": np.where(series % 3, 120.0, 100.0),
        "ConvolutionKernel": Texts(series % 9, numbered(b"K", 9, 1)),
    }
    frames = {}
    for column in FRAMES:
        one = make_column(column, [CONSTANTS.get(column.name, column.missing)])
        repeated = one.take(row * 0) if isinstance(one, Texts | Packed) else one[row * 0]
        frames[column.name] = given.get(column.name, repeated)
    constant: dict[str, Any] = {"frames": 1, "size": 525_788}
    constant |= dict.fromkeys(("deflated", "file_class", "container"), 0)
    files: dict[str, Any] = {}
    for column in FILES:
        if column.name == "path":
            files["path"] = numbered(b"patient/study/series/IM", rows, 9)
        elif column.kind == "bytes":
            files[column.name] = Packed(np.zeros(rows + 1, np.int64), np.zeros(0, np.uint8))
        elif column.kind == "text":
            files[column.name] = Texts(row * 0, Packed.of([b""]))
        elif column.name in ("mtime_ns", "inode", "first_row"):
            files[column.name] = row.astype(np.int64)
        else:
            files[column.name] = np.full(rows, constant.get(column.name, -1), column.dtype)
    lookups = {column.name: make_column(column, []) for column in LOOKUPS}
    return finish(b"/archive", {}, frames, files, lookups)


def private_dirty() -> float:
    """MB that only this process has, 0 where the system does not say."""
    rollup = Path("/proc/self/smaps_rollup")
    if not rollup.exists():
        return 0.0
    lines = rollup.read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty")) / 1000


def epoch(index: FrameIndex, seed: int, share: int) -> None:
    """Reads every `share`-th part of the rows in random order."""
    order = np.random.default_rng(seed).permutation(len(index))[:: max(share, 1)]
    for start in range(0, len(order), 64):
        at = order[start : start + 64]
        index.locate(at)
        for key in KEYS:
            index.gather(key, at)


def worker(
    pickled: bytes | None, inherited: FrameIndex | None, seed: int, share: int, results: Any
) -> None:
    """One worker: what it needed for itself."""
    before = private_dirty()
    index = pickle.loads(pickled) if pickled is not None else inherited
    assert index is not None
    epoch(index, seed, share)
    results.put(private_dirty() - before)


def measure_workers(index: FrameIndex, method: str, workers: int) -> float:
    """The most that a worker needed, in MB."""
    context: Any = multiprocessing.get_context(method)
    results = context.Queue()
    pickled = pickle.dumps(index) if method == "spawn" else None
    inherited = None if method == "spawn" else index
    processes = [
        context.Process(target=worker, args=(pickled, inherited, n, workers, results))
        for n in range(workers)
    ]
    for process in processes:
        process.start()
    most = max(results.get() for _ in processes)
    for process in processes:
        process.join()
    return float(most)


def median_of(repeats: int, action: Callable[[], object]) -> float:
    """Seconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def measure(folder: Path, rows: int, workers: int) -> dict[str, Any]:
    """Everything; the index is made in `folder`."""
    generation = synthetic(rows)
    path = folder / generation.uuid
    index_file.write(generation, path)
    uuid = generation.uuid
    del generation
    index = FrameIndex(open_generation(path, uuid, mapped=True))
    chosen = {
        "all": index,
        "filter": index.filter(Modality="CT"),
        "split": index.split([0.7, 0.3])[0],
    }
    order = np.random.default_rng(0).permutation(rows)[:2000]

    def keys_of_rows() -> None:
        for k in range(len(order)):
            at = order[k : k + 1]
            for key in KEYS:
                index.gather(key, at)

    keys_of_rows()
    return {
        "rows": rows,
        "megabytes": sum(part.stat().st_size for part in path.iterdir()) / 1e6,
        "open_ms": 1e3 * median_of(7, lambda: index_file.read(path, mapped=True)),
        "overview_ms": 1e3 * median_of(3, index.overview),
        "pickle_bytes_beyond_8_a_row": {
            name: len(pickle.dumps(one)) - 8 * (0 if name == "all" else len(one))
            for name, one in chosen.items()
        },
        "row_of_20_keys_us": 1e6 * median_of(5, keys_of_rows) / len(order),
        "private_dirty_mb": {
            f"{method}, {name}": measure_workers(one, method, workers)
            for method in ("fork", "spawn")
            for name, one in chosen.items()
        },
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.index", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="default: %(default)s")
    parser.add_argument("--workers", type=int, default=4, help="default: %(default)s")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(Path(folder), options.rows, options.workers), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
