"""`python -m benchmarks.integrations`: epochs of Ray Data beside threads of this process; an index for Hugging Face.

Frames are JPEG 2000 and native phantoms; ways take turns, each is measured `--rounds` times after one for warming up,
and the best round counts. Ray has as many CPUs as this process has threads. Prints JSON: frames a second, and what part
of local threads Ray Data reaches.
"""

from __future__ import annotations

import argparse
import json
import pickle
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.data import SYNTAXES, make
from benchmarks.index import synthetic
from dicomtorch import DicomFrames, FrameIndex, FrameLoader, scan

BATCH = 32


def frames_a_second(ways: dict[str, Callable[[], int]], rounds: int) -> dict[str, float]:
    """The best of some rounds, in turns."""
    best = dict.fromkeys(ways, 0.0)
    for number in range(rounds + 1):
        for name, go in ways.items():
            began = time.perf_counter()
            count = go()
            if number:
                best[name] = max(best[name], count / (time.perf_counter() - began))
    return best


def ray_beside_threads(index: FrameIndex, rounds: int, threads: int) -> dict[str, float]:
    """Frames a second of both, and their ratio."""
    from dicomtorch.integrations.ray_data import frames_to_ray

    data = frames_to_ray(index, batch_size=BATCH, values="modality")

    def by_ray() -> int:
        return sum(len(batch["image"]) for batch in data.iter_torch_batches(batch_size=BATCH))

    loader = FrameLoader(DicomFrames(index, values="modality"), BATCH, num_threads=threads)

    def by_threads() -> int:
        return sum(len(images) for images, _ in loader)

    found = frames_a_second({"threads": by_threads, "ray": by_ray}, rounds)
    return {**found, "ratio": found["ray"] / found["threads"]}


def hugging_face(rows: int, folder: Path) -> dict[str, float]:
    """Seconds and bytes of `to_hf` for a synthetic index."""
    FrameIndex(synthetic(rows)).save(folder / "index")
    index = FrameIndex.load(folder / "index")
    index.select(range(10)).to_hf()
    began, cpu = time.perf_counter(), time.process_time()
    data = index.to_hf()
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    return {"seconds": wall, "cpu_seconds": cpu, "pickled_bytes": len(pickle.dumps(data))}


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=320)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--cpus", type=int, default=2)
    options = parser.parse_args()
    import ray

    ray.init(num_cpus=options.cpus, include_dashboard=False, log_to_driver=False)
    context: Any = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in ("jpeg_2000", "uncompressed"):
            folder = Path(scratch) / name
            make(folder, SYNTAXES[name], options.frames, options.size)
            found[f"Ray Data, {name}"] = ray_beside_threads(
                scan(folder)[0], options.rounds, options.cpus
            )
        ray.shutdown()
        found[f"to_hf, {options.rows:,} rows"] = hugging_face(options.rows, Path(scratch))
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
