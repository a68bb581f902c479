"""Random jobs for the compiled kernels, under sanitizers: no death, no foreign exception, no wrong number.

`python -m tests.long.fuzz_kernels --sanitizer address,undefined --seconds 60` builds the kernels with the sanitizer in
a folder of its own and runs itself there; `--sanitizer thread` likewise, `--sanitizer ""` as they are built for users.
`--tests` runs the tests of the kernels with that build.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

KERNELS = Path(__file__).parents[2] / "kernels"
TESTS = (
    "tests/reader/test_kernels.py",
    "tests/reader/test_rle_kernels.py",
    "tests/masks/test_compiled.py",
)
LIBRARIES = {"address": "libasan.so", "thread": "libtsan.so", "undefined": "libubsan.so"}


def build(folder: Path, sanitizer: str) -> dict[str, str]:
    """Builds into `folder`; the environment in which a child finds it."""
    environment = dict(os.environ)
    if sanitizer:
        flags = f"-fsanitize={sanitizer} -fno-sanitize-recover=all -g -O1"
        environment |= {"DICOMTORCH_KERNELS_CFLAGS": flags, "DICOMTORCH_KERNELS_LDFLAGS": flags}
    # A copy, or objects of an earlier build with other flags would be taken.
    copy = shutil.copytree(KERNELS, folder / "source", ignore=shutil.ignore_patterns("build"))
    install = ("install", "--quiet", "--no-deps", "--no-build-isolation", "--target", str(folder))
    subprocess.run([sys.executable, "-m", "pip", *install, str(copy)], env=environment, check=True)
    environment["PYTHONPATH"] = f"{folder}{os.pathsep}{KERNELS.parent}"
    if sanitizer:
        libraries = [
            subprocess.run(
                ["gcc", f"-print-file-name={LIBRARIES[name]}"],
                capture_output=True,
                text=True,
                check=True,
            ).stdout.strip()
            for name in sanitizer.split(",")
        ]
        environment["LD_PRELOAD"] = " ".join(libraries)
        # Python itself keeps memory until its end.
        environment["ASAN_OPTIONS"] = "detect_leaks=0"
        # Arrow and the like were built without it, so that their own locks and counters look like races.
        others = folder / "suppressions"
        others.write_text("race:libarrow\ndeadlock:libarrow\ncalled_from_lib:libarrow.so\n")
        environment["TSAN_OPTIONS"] = (
            "report_signal_unsafe=0 die_after_fork=0 ignore_noninstrumented_modules=1 "
            f"suppressions={others}"
        )
        environment["OPENBLAS_NUM_THREADS"] = "1"
    return environment


def fuzz(seed: int, seconds: float, folder: Path) -> dict[str, int]:
    """Calls with right and wrong jobs, from two threads, while files change; counts what came of them."""
    import dicomtorch_kernels as kernels

    from dicomtorch.reader.kernels import JOB
    from dicomtorch.reader.templates import TEMPLATE, together
    from tests.support.kernel_jobs import (
        ODD,
        expected,
        make_job,
        make_template,
        out_bytes,
        write_streams,
    )
    from tests.support.mask_planes import expected as planes_expected
    from tests.support.mask_planes import make_planes

    counts = dict.fromkeys(("calls", "refused", "failed", "right"), 0)
    deadline = time.monotonic() + seconds

    def run(number: int) -> None:
        rng = random.Random(seed * 1000 + number)
        own = folder / str(number)
        own.mkdir()
        paths: list[bytes] = []
        for k in range(6):
            path = own / f"{k}.bin"
            path.write_bytes(rng.randbytes(rng.choice([0, 1, 77, 5000, 300_000, 1_200_000])))
            paths.append(os.fsencode(path))
        while time.monotonic() < deadline:
            templates, taps = together([make_template(rng, wrong=0.01) for _ in range(4)])
            streams = write_streams(rng, own, templates, wrong=0.2)
            now = [*paths, *streams.values()]
            jobs = np.concatenate(
                [make_job(rng, now, templates, wrong=0.01) for _ in range(rng.randrange(1, 12))]
            )
            out = np.zeros(rng.choice([1 << 12, 1 << 22]), np.uint8)
            threads = rng.randrange(1, 4)
            if threads > 1:  # frames that overlap would be written at the same time
                lengths = [out_bytes(templates[job["template"] % 4]) for job in jobs]
                jobs["out"] = np.cumsum([0, *lengths[:-1]])
            else:
                jobs["out"] %= max(8, len(out) // 2)
                jobs["out"] -= jobs["out"] % 8
            if rng.random() < 0.05:
                victim = Path(os.fsdecode(rng.choice(paths)))
                with victim.open("r+b") as file:
                    file.truncate(rng.randrange(1 << 20))
            counts["calls"] += 1
            try:
                kernels.read(jobs, templates, taps, b"", b"".join(now), out, threads)
            except ValueError:
                counts["refused"] += 1
                continue
            counts["failed"] += int(np.count_nonzero(jobs["error"]))
            if len(jobs) == 1 and not jobs["error"][0]:
                (job,) = jobs
                right = expected(job, templates[job["template"]], taps, now)
                if right is not None:
                    got = out[job["out"] : job["out"] + right.nbytes].view(right.dtype)
                    assert np.array_equal(got, right, equal_nan=right.dtype.kind == "f")
                    counts["right"] += 1

    def paint(number: int) -> None:
        rng = random.Random(seed * 1000 + number)
        own = folder / f"paint{number}"
        own.mkdir()
        paths = []
        for k in range(4):
            path = own / f"{k}.bin"
            path.write_bytes(rng.randbytes(rng.choice([0, 9, 5000, 300_000])))
            paths.append(os.fsencode(path))
        while time.monotonic() < deadline:
            pixels, channels = rng.choice([1, 100, 512, 5000, 1_300_003]), rng.randrange(1, 4)
            planes = make_planes(rng, paths, pixels, channels, wrong=0.005)
            out = np.zeros(pixels * channels, np.uint8)
            runs = [np.array([rng.choice([0, 1, 5, *ODD]) for _ in range(3)]) for _ in range(3)]
            if rng.random() < 0.05:
                victim = Path(os.fsdecode(rng.choice(paths)))
                with victim.open("r+b") as file:
                    file.truncate(rng.randrange(300_000))
            counts["calls"] += 2
            with contextlib.suppress(ValueError):
                kernels.paint_runs(*runs, rng.choice([1, 7, 100]), 3, out)
            out[:] = 0
            try:
                failed = kernels.paint_planes(planes, b"", b"".join(paths), out, pixels)
            except ValueError:
                counts["refused"] += 1
                continue
            counts["failed"] += failed
            if not failed and pixels <= 5000:
                right, areas = planes_expected(planes, paths, pixels, channels)
                assert np.array_equal(out, right)
                assert planes["area"].tolist() == areas
                counts["right"] += 1

    def fill(number: int) -> None:
        rng = random.Random(seed * 1000 + number)
        while time.monotonic() < deadline:
            sizes = [rng.randrange(3, 40) for _ in range(rng.randrange(6))]
            points = np.array(
                [
                    rng.choice([0, 1, 2.5, -7, 1e8, rng.uniform(-9, 60)])
                    for _ in range(2 * sum(sizes))
                ],
                np.float64,
            ).reshape(-1, 2)
            given = [
                np.array(sizes, np.int64),
                np.array([rng.randrange(4) for _ in sizes], np.int64),
            ]
            if rng.random() < 0.1:
                points.flat[: rng.randrange(3)] = rng.choice([np.nan, np.inf, 1e300])
            if sizes and rng.random() < 0.1:
                given[rng.randrange(2)][0] = rng.choice(ODD)
            shape = [rng.choice([1, 50, 64, rng.choice([*ODD, 50])]) for _ in range(2)]
            near = rng.choice([-1.0, 0.01, 0.25, 5.0])
            counts["calls"] += 1
            try:
                found = kernels.fill_polygons(
                    points, *given, *shape, (0.7, rng.choice([0.5, 0.0])), near, near**2, 100_000
                )
            except ValueError:
                counts["refused"] += 1
                continue
            if found is None:
                counts["failed"] += 1
            else:
                line, first, end = np.frombuffer(found, np.int64).reshape(3, -1)
                assert (first >= 0).all()
                assert (first < end).all()
                assert (end <= shape[1]).all()
                assert ((line >= 0) & (line < 65 * shape[0])).all()

    with ThreadPoolExecutor(6) as threads:
        works = (run, paint, fill)
        for done in [threads.submit(work, k) for k in range(2) for work in works]:
            done.result()
    assert JOB.itemsize == kernels.JOB_BYTES
    assert TEMPLATE.itemsize == kernels.TEMPLATE_BYTES
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sanitizer", default="address,undefined")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--here", action="store_true", help="in this process, as it is")
    parser.add_argument("--tests", action="store_true", help="their tests in place of random jobs")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.here:
            print(fuzz(arguments.seed, arguments.seconds, Path(folder)))
            return
        environment = build(Path(folder), arguments.sanitizer)
        command = [sys.executable, "-m", "tests.long.fuzz_kernels", "--here"]
        command += ["--seconds", str(arguments.seconds), "--seed", str(arguments.seed)]
        if arguments.tests:
            command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider"]
            # The thread sanitizer knows no thread that a child starts after it was forked from several.
            left_out = "environment or forked" if arguments.sanitizer == "thread" else "environment"
            command += ["-k", f"not ({left_out})", *TESTS]
        done = subprocess.run(command, env=environment, check=False)
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
