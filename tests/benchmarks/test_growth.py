"""Nothing is quadratic: from 10^4 to 10^5 frames CPU time grows by 30 times at most, and memory by 13.

n log n is 12.5 times, n squared a hundred. CPU time of a process and its peak memory, the least of three runs of either
size, and never less than what a loaded machine makes of nothing; no wall time. The larger table leaves the processor's
caches, which others on a loaded machine share, so that its CPU time has room for that.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.growth import STEPS, Cost

MOST_CPU, MOST_PEAK = 30, 13
LEAST_CPU = 0.05  # seconds
LEAST_PEAK = 4.0  # MB
OBJECTS = (
    "stacks, series of one slice, single_slices"  # small ones lie in memory that was there before
)


@pytest.fixture(scope="module")
def costs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Cost, Cost]]:
    folder = tmp_path_factory.mktemp("growth")
    command = [sys.executable, "-m", "benchmarks.growth", "--growth", str(folder)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, text=True, capture_output=True, check=False, cwd=root)
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
    assert many.cpu <= MOST_CPU * max(few.cpu, LEAST_CPU)
    if not math.isnan(many.peak) and step != OBJECTS:
        assert many.peak <= MOST_PEAK * max(few.peak, LEAST_PEAK)
