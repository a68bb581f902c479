"""DICOMTORCH_REQUIRE: what a run was promised may not be skipped."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """
import pytest

def test_samples(): pytest.skip("DICOMTORCH_SAMPLES names no folder of samples")
def test_absent(): pytest.skip("simpleitk is not installed")
def test_import(): pytest.importorskip("simpleitk")
def test_incapable(): pytest.skip("simpleitk says that it does not decode this")
@pytest.mark.skipif(True, reason="no CUDA device")
def test_cuda(): pass
"""


@pytest.fixture
def outcome(tmp_path):
    """Runs the tests above below the project's conftest: required words, samples -> (exit code, output)."""
    shutil.copy(Path(__file__).with_name("conftest.py"), tmp_path)
    (tmp_path / "test_it.py").write_text(TESTS)

    def run(required, samples=""):
        env = os.environ | {"DICOMTORCH_REQUIRE": required, "DICOMTORCH_SAMPLES": samples}
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:randomly",
            "-rA",
            tmp_path,
        ]
        done = subprocess.run(
            command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60
        )
        return done.returncode, done.stdout + done.stderr

    return run


def test_without_a_promise_skips_are_skips(outcome):
    code, out = outcome("")
    assert code == 0
    assert "5 skipped" in out


def test_a_broken_promise_fails(outcome, tmp_path):
    code, out = outcome("samples,simpleitk,cuda", str(tmp_path))
    assert code == 1
    for name in ("test_samples", "test_absent", "test_import"):
        assert f"FAILED test_it.py::{name}" in out
    assert "ERROR test_it.py::test_cuda" in out
    assert "1 skipped" in out


def test_other_promises_do_not_matter(outcome):
    code, out = outcome("cuda")
    assert code == 1
    assert "4 skipped" in out


def test_promised_samples_must_be_there(outcome, tmp_path):
    code, out = outcome("samples", str(tmp_path / "nowhere"))
    assert code == pytest.ExitCode.USAGE_ERROR
    assert "DICOMTORCH_SAMPLES" in out
