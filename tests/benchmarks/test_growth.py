"""Nothing grows worse than n log n: from 10^4 to 10^5 frames memory grows by 13 times at most, and so does CPU time.

n log n is 12.5 times, n to the power of 1.5 is 32, n squared a hundred. CPU time of a process and its peak memory, the
least of three runs of either size, or of fifteen where that is not enough: the larger table leaves the processor's
caches, which others use too. Never less than what a loaded machine makes of nothing; no wall time.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.growth import LEAST_CPU, MOST_GROWTH, STEPS, Cost

LEAST_PEAK = 4.0  # MB
OBJECTS = "stacks, series of one slice, single_slices"
"""Makes as many objects as rows: few lie in memory that was there before, and in the processor's caches."""
MOST_OF_OBJECTS = 30


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
    most = MOST_OF_OBJECTS if step == OBJECTS else MOST_GROWTH
    assert many.cpu <= most * max(few.cpu, LEAST_CPU)
    if not math.isnan(many.peak):
        assert many.peak <= most * max(few.peak, LEAST_PEAK)
