"""Nothing grows worse than n log n: from 10^4 to 10^5 frames memory grows by 13 times at most, and so does CPU time.

n log n is 12.5 times, n to the power of 1.5 is 32, n squared a hundred. CPU time of a process, the least of three runs
of either size, or of fifteen where that is not enough: the larger table leaves the processor's caches, which others use
too. Peak memory, the most of these. Never less than what a loaded machine makes of nothing; no wall time.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.growth import LEAST_CPU, MOST_GROWTH, STEPS, Cost

LEAST_PEAK = 4.0  # MB


@pytest.fixture(scope="module")
def costs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Cost, Cost]]:
    folder = tmp_path_factory.mktemp("growth")
    command = [sys.executable, "-m", "benchmarks.growth", "--growth", str(folder)]
    root = Path(__file__).parents[2]
    # Of memory that small objects leave, more goes back to the system, so that it counts when it is used again.
    environment = os.environ | {"PYTHONMALLOC": "malloc"}
    done = subprocess.run(
        command, text=True, capture_output=True, check=False, cwd=root, env=environment
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {step: (Cost(**few), Cost(**many)) for step, few, many in lines}


@pytest.mark.timeout(900)  # the first one runs them all
@pytest.mark.skipif(sys.platform != "linux", reason="peaks are those of /proc")
@pytest.mark.parametrize("step", STEPS)
def test_a_step_grows_no_worse_than_its_rows(
    costs: dict[str, tuple[Cost, Cost]], step: str
) -> None:
    few, many = costs[step]
    assert many.cpu <= MOST_GROWTH * max(few.cpu, LEAST_CPU)
    if not math.isnan(many.peak):
        assert many.peak <= MOST_GROWTH * max(few.peak, LEAST_PEAK)
