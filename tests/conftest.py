"""What every test gets: its own cache folder, seeded randomness, and skips that fail where a run was promised."""

from __future__ import annotations

import os
import re
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, settings

from tests.support.left_behind import nothing_left_behind

# A slow machine is no failure, so there are no deadlines.
settings.register_profile(
    "default", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "ci", settings.get_profile("default"), max_examples=20, derandomize=True, print_blob=True
)
settings.load_profile("ci" if os.environ.get("CI") else "default")

REQUIRED = frozenset(filter(None, os.environ.get("DICOMTORCH_REQUIRE", "").lower().split(",")))
"""What this run was promised, as in DICOMTORCH_REQUIRE=samples,series,simpleitk,cuda.

A test that skips for want of one of these fails instead: its reason then has DICOMTORCH_SAMPLES, DICOMTORCH_SERIES or
CUDA in it, or says "could not import 'simpleitk'" (as `pytest.importorskip` does) or "simpleitk is not installed".
"""
_REASONS = [
    {"samples": "dicomtorch_samples", "series": "dicomtorch_series", "cuda": "cuda"}.get(
        word, rf"could not import '{re.escape(word)}\b|{re.escape(word)} is not installed"
    )
    for word in REQUIRED
]

_SCRATCH = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    # A shell starts what it runs in the background with Ctrl-C ignored, and children inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # In the environment, and not in a fixture, so that worker and child processes have it too.
    scratch = tempfile.mkdtemp(prefix="dicomtorch-tests-")
    config.stash[_SCRATCH] = scratch
    os.environ["XDG_CACHE_HOME"] = scratch
    os.environ["MPLBACKEND"] = "Agg"
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # tests tell nobody that they run
    for promised, name in (("samples", "DICOMTORCH_SAMPLES"), ("series", "DICOMTORCH_SERIES")):
        folder = os.environ.get(name, "")
        if promised in REQUIRED and not (folder and Path(folder).is_dir()):
            raise pytest.UsageError(
                f"DICOMTORCH_REQUIRE names {promised}, but {name} is {folder!r}, which is no folder"
            )


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(config.stash.get(_SCRATCH, ""), ignore_errors=True)


def _broken_promise(report: pytest.TestReport | pytest.CollectReport) -> str | None:
    """The skip's reason if it is one that this run excludes."""
    if not report.skipped or hasattr(report, "wasxfail"):
        return None
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return reason if any(re.search(pattern, reason.lower()) for pattern in _REASONS) else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = yield
    if reason := _broken_promise(report):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid}: required by DICOMTORCH_REQUIRE, but {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Any:
    report = yield
    if reason := _broken_promise(report):
        report.outcome = "failed"
        report.longrepr = f"{collector.nodeid}: required by DICOMTORCH_REQUIRE, but {reason}"
    return report


@pytest.fixture
def rng() -> np.random.Generator:
    """The same numbers in every run."""
    return np.random.default_rng(20_260_101)


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    """What all tests share is the same for each."""
    with nothing_left_behind():
        yield


@pytest.fixture
def memory_path(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: for thousands of small files that are written and synced."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="dicomtorch-tests-", dir=memory) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def bundled() -> Path:
    """The folder of DICOM files that comes with pydicom."""
    return Path(pydicom.__file__).parent / "data" / "test_files"


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder of real samples."""
    folder = os.environ.get("DICOMTORCH_SAMPLES", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("DICOMTORCH_SAMPLES does not name a folder of samples")
    return Path(folder)
