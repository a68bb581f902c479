"""`python -m benchmarks`: makes the data once, checks that everybody reads the same values, then times.

Without options: the main table, in a few minutes on two cores. `--full`: every syntax, and a tree of 100,000 files.
Repeats are interleaved, so that a machine that slows down slows everybody down, and medians are reported. Writes
`results.json`, `results.md` and `chart.png`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import decoding, loading, report, trees

PARTS = ("loading", "single", "decoding", "trees", "samples")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs what was asked for."""
    options = _parser().parse_args(argv)
    if options.quick:
        options.frames, options.size, options.repeats, options.files = 16, 128, 2, [100]
    cases = options.cases or (decoding.SYNTAXES if options.full else loading.CASES)
    syntaxes = options.cases or decoding.SYNTAXES
    files = options.files or ([1000, 10_000, 100_000] if options.full else [1000, 10_000])
    results: dict[str, Any] = {
        "machine": report.machine(),
        "versions": report.versions(),
        "settings": {
            "frames": options.frames,
            "size": options.size,
            "repeats": options.repeats,
            "batch_size": options.batch_size,
            "torch_threads": torch.get_num_threads(),
        },
    }
    options.output.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what other libraries say while they read
        text = _run(options, results, cases, syntaxes, files)
    results["settings"]["seconds"] = round(time.perf_counter() - begin)
    (options.output / "results.md").write_text(text + "\n", encoding="utf-8")
    (options.output / "results.json").write_text(
        json.dumps(results, indent=1) + "\n", encoding="utf-8"
    )
    print(f"\nWrote results.json, results.md and chart.png to {options.output}")
    return 0


def _run(
    options: argparse.Namespace,
    results: dict[str, Any],
    cases: Sequence[str],
    syntaxes: Sequence[str],
    files: Sequence[int],
) -> str:
    texts = []

    def add(part: str, found: list[report.Result], text: str) -> None:
        results.setdefault(part, []).extend(found)
        texts.append(text)
        print(text, flush=True)

    if "loading" in options.parts:
        for case in cases:
            found = loading.measure(case, options)
            add(
                "loading",
                found,
                report.table(f"Shuffled epoch: {case}", found, loading.COLUMNS[1:]),
            )
        texts.insert(0, report.summary(results["loading"]))
        print(texts[0], flush=True)
        report.chart(options.output / "chart.png", results["loading"])
    if "single" in options.parts:
        found = loading.measure_single(options)
        add("single", found, report.table("One frame, in random order", found, ("data",)))
    if "decoding" in options.parts:
        for syntax in syntaxes:
            found = decoding.measure(syntax, options)
            title = f"File to float32 display values: {syntax}"
            add("decoding", found, report.table(title, found, decoding.COLUMNS[1:]))
    if "trees" in options.parts:
        found = [row for count in files for row in trees.measure(count, options)]
        title = "Trees of one-frame files"
        add("trees", found, report.plain_table(title, found, trees.COLUMNS))
    if "samples" in options.parts:
        found = decoding.measure_samples(options)
        if found:
            add("samples", found, report.table("Real files", found, decoding.COLUMNS[:1]))
    return "\n".join(texts)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    output = Path("out") / "benchmarks"
    parser.add_argument(
        "--full", action="store_true", help="every syntax, trees of up to 100,000 files"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="small data, few repeats: whether it runs, not how fast",
    )
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=PARTS, help="default: all of them"
    )
    parser.add_argument(
        "--cases",
        nargs="+",
        choices=decoding.SYNTAXES,
        metavar="NAME",
        help="of decoding and loading",
    )
    parser.add_argument("--files", type=int, nargs="+", help="sizes of trees; default: 1000 10000")
    parser.add_argument("--frames", type=int, default=96, help="per syntax; default: %(default)s")
    parser.add_argument(
        "--size", type=int, default=512, help="rows and columns; default: %(default)s"
    )
    parser.add_argument("--repeats", type=int, default=3, help="timed rounds; default: %(default)s")
    parser.add_argument("--batch-size", type=int, default=32, help="default: %(default)s")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument(
        "--data", type=Path, default=output / "data", help="made once; default: %(default)s"
    )
    parser.add_argument("--output", type=Path, default=output, help="default: %(default)s")
    return parser


if __name__ == "__main__":
    sys.exit(main())
