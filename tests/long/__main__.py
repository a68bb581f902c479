"""`python -m tests.long`: every loop of this folder for some time each, with one line that says how it went.

`--minutes` is for each loop, `--only NAME ...` for a few. A loop that is not done long after its time has failed. Ends
with 1 if any failed; what those said is in `--output`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.long.fuzz_backends import FAMILIES

Command = Callable[[float, str], Sequence[str]]
"""Arguments of a module, made of seconds and an empty folder."""


def _for_seconds(*arguments: str) -> Command:
    return lambda seconds, _: (*arguments, "--seconds", f"{seconds}")


def _always(*arguments: str) -> Command:
    return lambda *_: arguments


_SIMPLE = (
    *("mutate_files", "mutate_indexes", "metamorphic", "system_faults", "kill_points"),
    *("races", "soak", "leaks"),
)
_SANITIZERS = {"address": "address,undefined", "thread": "thread"}
LOOPS: dict[str, tuple[str, Command]] = {
    **{
        f"fuzz_backends {name}": ("fuzz_backends", _for_seconds("--family", name))
        for name in FAMILIES
    },
    "fuzz_segments": ("fuzz_segments", _for_seconds()),
    **{
        f"fuzz_kernels {name}": ("fuzz_kernels", _for_seconds("--sanitizer", flags))
        for name, flags in _SANITIZERS.items()
    },
    **{
        f"fuzz_kernels tests, {name}": ("fuzz_kernels", _always("--sanitizer", flags, "--tests"))
        for name, flags in _SANITIZERS.items()
    },
    **{name: (name, _for_seconds()) for name in ("stress_batches", *_SIMPLE)},
    "hammer_cache": (
        "support.hammer_cache",
        lambda seconds, at: (at, "40000", "0", f"{seconds * 20:.0f}"),
    ),
    "kill_refresh": ("support.kill_refresh", lambda _, at: (at,)),
    "remote_faults": ("remote_faults", _always()),
    "web_faults": ("web_faults", _always()),
    "measure_backends guard": ("support.measure_backends", _always("guard")),
}
"""What is run: the module, of this folder or as named below `tests`, and its arguments."""

_NEEDS_SAMPLES = {"support.measure_backends"}
_GRACE = 300.0  # seconds beyond its time: building, importing, the last round, sanitizers


def run(name: str, seconds: float, output: Path) -> bool:
    """Runs one loop, prints its line, and says whether all was well."""
    module, arguments = LOOPS[name]
    if module in _NEEDS_SAMPLES and not os.environ.get("DICOMTORCH_SAMPLES"):
        print(f"{name:32} skipped: DICOMTORCH_SAMPLES names no folder", flush=True)
        return True
    began = time.monotonic()
    log = output / f"{name.replace(' ', '-').replace(',', '')}.txt"
    with tempfile.TemporaryDirectory() as folder, log.open("w", encoding="utf-8") as said:
        path = f"tests.{module}" if "." in module else f"tests.long.{module}"
        command = [sys.executable, "-m", path, *arguments(seconds, folder)]
        try:
            code: int | None = subprocess.run(
                command,
                stdout=said,
                stderr=subprocess.STDOUT,
                check=False,
                timeout=seconds + _GRACE,
            ).returncode
        except subprocess.TimeoutExpired:
            code = None
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["-"]
    state = {0: "ok", None: "not done in time"}.get(code, f"failed ({code})")
    print(f"{name:32} {state}, {time.monotonic() - began:.0f} s: {lines[-1][:100]}", flush=True)
    return code == 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.long", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0, help="of each; default: %(default)s")
    parser.add_argument("--only", nargs="+", choices=LOOPS, default=list(LOOPS), metavar="NAME")
    parser.add_argument("--output", type=Path, default=Path("out") / "long")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    well = [run(name, 60 * options.minutes, options.output) for name in options.only]
    print(f"{sum(well)} of {len(well)} loops ended well; what they said is in {options.output}")
    return int(not all(well))


if __name__ == "__main__":
    sys.exit(main())
