"""Runs benchmarks and keeps what they print: `python -m benchmarks.record [NAME ...]`.

Each program of `COMMANDS` runs by itself, on a machine that does nothing else; the tables that it prints go to
`results/NAME.json` with date, commit, machine and versions, and from there into README and documentation
(`benchmarks.tables`). `--list` says what there is. A commit that ends in `-dirty` had changes in what was measured.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from benchmarks import report, tables

COMMANDS: dict[str, list[str]] = {
    "loading": ["benchmarks", "--full", "--parts", "loading", "single", "trees"],
    "decoding": ["benchmarks", "--parts", "decoding"],
    "kernels": ["benchmarks.kernels"],
    "peers": ["benchmarks.peers"],
    "cache": ["benchmarks.cache"],
    "large": ["benchmarks.large"],
    "masks": ["benchmarks.masks"],
    "slides": ["benchmarks.slides"],
    "volumes": ["benchmarks.volumes"],
    "isolation": ["benchmarks.isolation"],
    "growth": ["benchmarks.growth"],
    "archives": ["benchmarks.archives"],
    "dicomweb": ["benchmarks.dicomweb"],
    "remote": ["benchmarks.remote"],
    "executors": ["benchmarks.executors"],
    "integrations": ["benchmarks.integrations"],
    "viewer": ["benchmarks.viewer"],
    "index": ["benchmarks.index"],
    "scan": ["benchmarks.scan"],
    "samplers": ["benchmarks.samplers"],
}


def record(name: str, more: list[str]) -> dict[str, Any]:
    """Runs one program and gives what is to be kept.

    Raises:
        RuntimeError: It failed.
    """
    command = [*COMMANDS[name], *more]
    begin = time.perf_counter()
    machine = report.machine()
    done = subprocess.run(
        [sys.executable, "-m", *command], stdout=subprocess.PIPE, text=True, check=False
    )
    sys.stdout.write(done.stdout)
    found = tables.parsed(done.stdout)
    if done.returncode:
        raise RuntimeError(f"python -m {' '.join(command)} ended with {done.returncode}")
    return {
        "date": datetime.date.today().isoformat(),
        "commit": _commit(),
        "command": f"python -m {' '.join(command)}",
        "seconds": round(time.perf_counter() - begin),
        "machine": machine,
        "versions": report.versions(),
        "tables": [asdict(one) for one in found],
        **({} if found else {"printed": done.stdout.splitlines()}),
    }


def _commit() -> str:
    """The commit, marked where code differs from it; what this program writes may."""
    commit = _git("rev-parse", "--short", "HEAD").strip()
    changed = _git("status", "--porcelain", "--", "*.py", "kernels", "*.toml", "constraints.txt")
    return commit + "-dirty" * bool(commit and changed)


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], capture_output=True, text=True, check=False, cwd=tables.ROOT
    )
    return done.stdout


def main(argv: Sequence[str] | None = None) -> int:
    """Runs what was asked for, then writes the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.record", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*COMMANDS, []], help="default: all")
    parser.add_argument("--list", action="store_true", help="what there is")
    parser.add_argument("--args", nargs=argparse.REMAINDER, default=[], help="for the one program")
    options = parser.parse_args(argv)
    if options.args and len(options.names) != 1:
        parser.error("--args are for one program: name it before them")
    if options.list:
        print(
            "\n".join(f"{name:12} python -m {' '.join(given)}" for name, given in COMMANDS.items())
        )
        return 0
    failed = 0
    for name in options.names or COMMANDS:
        try:
            kept = record(name, options.args)
        except RuntimeError as error:
            print(error, file=sys.stderr)
            failed += 1
            continue
        text = json.dumps(kept, indent=1, ensure_ascii=False)
        (tables.RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    subprocess.run([sys.executable, "-m", "benchmarks.tables"], check=True)
    return int(failed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
