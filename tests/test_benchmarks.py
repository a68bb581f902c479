"""The benchmark runs, checks what it times, and says what it could not measure. It is not timed here."""

from __future__ import annotations

import json
import os
import re

import numpy as np
import pydicom
import pytest

from benchmarks import __main__ as benchmark
from benchmarks import competitors, data, samplers

TINY = ["--frames", "5", "--size", "32", "--repeats", "1", "--batch-size", "2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("benchmark")


def run(folder, *arguments):
    places = ["--data", str(folder / "data"), "--output", str(folder)]
    assert benchmark.main([*TINY, *places, *arguments]) == 0
    return json.loads((folder / "results.json").read_text())


def test_measures_everything_or_says_why_not(folder, capsys):
    results = run(folder, "--workers", "0", "2")
    out = capsys.readouterr().out
    libraries = {"dicomtorch", "pydicom", "SimpleITK"}
    decoded = {(row["syntax"], row["library"]): row for row in results["decode"]}
    assert set(decoded) == {(s, library) for s in data.SYNTAXES for library in libraries}
    loaded = {(row["syntax"], row["workers"], row["library"]) for row in results["loader"]}
    assert loaded == {
        (s, workers, library)
        for s in benchmark.LOADER_SYNTAXES
        for workers in (0, 2)
        for library in libraries
    }
    for row in [*results["decode"], *results["loader"]]:
        if "missing" in row:
            assert row["library"] != "dicomtorch"
            assert row["missing"]
            assert "not measured" in out
        else:
            assert row["frames_per_second"] > 0
            assert len(row["repeats"]) == 1
    assert not decoded["uncompressed", "pydicom"].get("missing")
    assert results["versions"]["pydicom"] == pydicom.__version__


def test_results_name_no_host_and_no_path(folder):
    text = json.dumps(run(folder, "--workers", "0", "--syntaxes", "uncompressed"))
    assert str(folder) not in text
    assert not re.search(r"node|host|/home|/root|/tmp", text)


def test_data_are_made_once(folder):
    syntax = data.SYNTAXES["jpeg_ls"]
    first = [path.stat().st_mtime_ns for path in data.make(folder / "once", syntax, 2, 32)]
    assert [p.stat().st_mtime_ns for p in data.make(folder / "once", syntax, 2, 32)] == first


def test_native_data_hold_the_phantom(folder):
    (path,) = data.make(folder / "native", data.SYNTAXES["uncompressed"], 1, 64)
    stored = pydicom.dcmread(path).pixel_array
    assert np.array_equal(stored, data.phantom(0, 64))
    assert data.modality_values(data.phantom(0, 64)).min() >= -1024


def test_a_competitor_with_other_values_is_not_timed(folder, monkeypatch):
    readers = competitors.readers

    def wrong(paths, index):
        return {**readers(paths, index), "pydicom": lambda _: np.zeros((32, 32), np.float32)}

    monkeypatch.setattr(competitors, "readers", wrong)
    with pytest.raises(AssertionError, match="pydicom, uncompressed"):
        run(folder, "--workers", "0", "--syntaxes", "uncompressed")


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="this system cannot drop cached pages")
def test_samplers_are_measured_with_a_cold_cache(tmp_path, capsys):
    small = ["--files", "4", "--frames", "6", "--size", "8", "--batch-size", "6", "--repeats", "2"]
    places = ["--data", str(tmp_path / "data"), "--output", str(tmp_path)]
    assert samplers.main([*small, *places, "--orders", "6", "6:2"]) == 0
    rows = json.loads((tmp_path / "samplers.json").read_text())
    assert [row["order"] for row in rows] == [
        "plain shuffle",
        "window 6, block None",
        "window 6, block 2",
    ]
    assert rows[1]["files_per_batch"] == 1
    assert rows[2]["files_per_batch"] > 1
    assert all(row["frames_per_second"] > 0 and len(row["repeats"]) == 2 for row in rows)
    assert "files per batch" in capsys.readouterr().out


def test_scans_are_measured(tmp_path, capsys):
    from benchmarks import scan

    small = ["--files", "5", "--frames", "20", "--small", "6", "--repeats", "1"]
    assert scan.main([*small, "--data", str(tmp_path / "data"), "--output", str(tmp_path)]) == 0
    results = json.loads((tmp_path / "scan.json").read_text())
    assert len(results["ratios"]) == 4
    assert all(value > 0 for value in results["files_or_frames_per_second"].values())
    assert "per-frame groups" in capsys.readouterr().out
    assert 230 <= sum(1 for _ in scan.ct(0).iterall()) <= 280
