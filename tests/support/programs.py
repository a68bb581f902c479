"""Programs as users run them: another Python, which finds this package and is told nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path


def run_program(
    *arguments: object, cwd: Path, path: Iterable[object], seconds: float, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs `python arguments...` to its end, which must be a good one.

    Args:
        *arguments: A script and its arguments, or `-m` and a module.
        cwd: Where.
        path: Folders that modules are imported from.
        seconds: How long it may take.
        **environment: Further variables.
    """
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path)), **environment},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        cwd=cwd,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done
