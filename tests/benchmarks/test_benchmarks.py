"""The benchmarks run, check what they time, and say what they could not measure. Nothing is timed here."""

from __future__ import annotations

import json
import os
import re

import numpy as np
import pydicom
import pytest
from pydicom.pixels.utils import pixel_array

from benchmarks import __main__ as benchmark
from benchmarks import cache, competitors, data, report, samplers
from dicomtorch import scan

CASES = ("jpeg_2000", "colour_jpeg_cine")
TINY = ["--frames", "6", "--size", "32", "--repeats", "1", "--batch-size", "2", "--files", "20"]


@pytest.fixture(autouse=True, scope="module")
def once_is_enough():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "LEAST_SECONDS", 0.0)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("benchmark")


def run(folder, *arguments):
    places = ["--data", str(folder / "data"), "--output", str(folder)]
    assert benchmark.main([*TINY, *places, *arguments]) == 0
    return json.loads((folder / "results.json").read_text())


@pytest.fixture(scope="module")
def results(folder):
    pytest.importorskip("matplotlib", reason="draws a chart")
    return run(folder, "--workers", "0", "1", "--cases", *CASES)


def measured(rows, **equals):
    return [
        row
        for row in rows
        if "missing" not in row and all(row.get(k) == v for k, v in equals.items())
    ]


def test_every_library_is_measured_or_says_why_not(results):
    libraries = {*competitors.LIBRARIES, *competitors.CONVERTED, report.OURS}
    for case in CASES:
        rows = [row for row in results["loading"] if row["data"] == case]
        assert {row["library"] for row in rows} == libraries
        ours = measured(rows, library=report.OURS)
        assert {(row["loader"], row["workers"]) for row in ours} == {
            ("DataLoader", 0),
            ("DataLoader", 1),
            ("FrameLoader", 2),
        }
        assert {row["workers"] for row in measured(rows, library="pydicom")} == {0, 1}
        assert max(row["times_base"] for row in measured(rows, library="pydicom")) == 1
    for row in results["loading"]:
        assert row["missing"] if "missing" in row else row["frames_per_second"] > 0
        assert "missing" in row or len(row["repeats"]) == 1


def test_decoding_is_beside_the_codec_alone(results):
    for threads in (1, 2):
        rows = measured(results["decoding"], syntax="jpeg_2000", threads=threads)
        assert {"codec alone", "imagecodecs", "FrameLoader"} <= {row["library"] for row in rows}
        (codec,) = (row for row in rows if row["library"] == "codec alone")
        assert codec["times_base"] == 1


def test_single_frames_and_trees_are_measured(results):
    ours = measured(results["single"], library=report.OURS)
    assert [row["times_base"] > 0 for row in ours] == [True, True]
    assert [(row["files"], row["library"]) for row in results["trees"]] == [
        (20, report.OURS),
        (20, "pydicom"),
    ]
    for row in results["trees"]:
        assert row["first_batch_s"] > 0


def test_table_chart_and_versions_are_written(results, folder):
    text = (folder / "results.md").read_text()
    assert "Shuffled epoch: jpeg_2000" in text
    assert re.search(
        r"^\| dicomtorch, FrameLoader, 2 threads \| [\d.e+]+ \| [\d.e+]+ \|$", text, re.MULTILINE
    )
    assert re.search(r"^\| MONAI \| \S+ \| - \|$", text, re.MULTILINE)
    assert "| DataLoader | 0 | pydicom |" in text
    assert (folder / "chart.png").read_bytes().startswith(b"\x89PNG")
    assert results["versions"]["pydicom"] == pydicom.__version__
    assert results["machine"]["usable_cores"] >= 1


def test_results_name_no_host_and_no_path(results, folder):
    text = json.dumps(results)
    assert str(folder) not in text
    assert not re.search(r"node|host|/home|/root|/tmp", text)


def test_a_library_that_is_not_there_is_a_row(folder, monkeypatch):
    def absent(path):
        raise ImportError("No module named 'torchio'")

    monkeypatch.setitem(competitors.MODALITY, "TorchIO", absent)
    found = run(folder, "--workers", "0", "--cases", "uncompressed", "--parts", "loading", "single")
    for part in ("loading", "single"):
        row = next(row for row in found[part] if row["library"] == "TorchIO")
        assert row["missing"] == "No module named 'torchio'"
    assert "not measured: No module named" in (folder / "results.md").read_text()


def test_a_library_that_ends_the_process_is_a_row(folder, monkeypatch):
    items = [competitors.Item(folder / "absent.dcm", -1, folder / "absent")]
    with pytest.raises(competitors.NotOffered, match="absent"):
        competitors.survives("pydicom", items)
    monkeypatch.setattr(competitors.sys, "executable", "/bin/sh")
    real = competitors.subprocess.run

    def killed(command, **options):
        return real(["/bin/sh", "-c", "kill -SEGV $$"], **options)

    monkeypatch.setattr(competitors.subprocess, "run", killed)
    with pytest.raises(competitors.NotOffered, match="signal 11"):
        competitors.survives("pydicom", items)


def test_a_library_with_other_values_is_not_timed(folder, monkeypatch):
    wrong = {**competitors.MODALITY, "SimpleITK": lambda path: np.zeros((32, 32), np.float32)}
    monkeypatch.setattr(competitors, "MODALITY", wrong)
    with pytest.raises(AssertionError, match="SimpleITK, "):
        run(folder, "--workers", "0", "--cases", "uncompressed", "--parts", "loading")


def test_reasons_name_no_folders():
    error = OSError("cannot open '/some/where/secret/file.dcm' today\nsecond line")
    assert report.first_line(error) == "cannot open file.dcm today"
    assert report.first_line(ValueError()) == "ValueError"


# The data


def test_data_are_made_once(folder):
    syntax = data.SYNTAXES["jpeg_ls"]
    first = [path.stat().st_mtime_ns for path in data.make(folder / "once", syntax, 2, 32)]
    assert [p.stat().st_mtime_ns for p in data.make(folder / "once", syntax, 2, 32)] == first
    (cine,) = data.cines(folder / "once", 1, 3, 32, 48)
    first = [cine.stat().st_mtime_ns]
    assert [path.stat().st_mtime_ns for path in data.cines(folder / "once", 1, 3, 32, 48)] == first


def test_native_data_hold_the_phantom(folder):
    (path,) = data.make(folder / "native", data.SYNTAXES["uncompressed"], 1, 64)
    stored = pydicom.dcmread(path).pixel_array
    assert np.array_equal(stored, data.phantom(0, 64))
    assert data.modality_values(data.phantom(0, 64)).min() >= -1024


def test_cines_hold_colour_within_the_loss_of_jpeg(folder):
    (path,) = data.cines(folder / "native", 1, 3, 64, 96)
    expected = data.colour(2, 64, 96).astype(int)
    assert np.abs(pixel_array(path, index=2).astype(int) - expected).mean() < 8
    assert np.ptp(expected[..., 0] - expected[..., 2]) > 50


def test_speckle_and_quanta_are_noise_that_grows_with_the_signal():
    flat = data.xray(0, 64).astype(float) - data.xray(1, 64)
    assert 10 < flat.std() < 60
    echo = data.speckle(0, 120, 160)
    assert (echo == 0).mean() > 0.2
    assert echo[echo > 0].std() > 10


def test_files_of_a_tree_differ_in_their_identity(folder):
    root = data.tree(folder, 120)
    index, report_ = scan(root)
    assert len(set(index.column("SOPInstanceUID"))) == 120
    assert not report_.duplicates
    made = (root / "complete").stat().st_mtime_ns
    assert (data.tree(folder, 120) / "complete").stat().st_mtime_ns == made


# The other measurements


def test_ways_of_keeping_frames_are_measured(tmp_path, capsys):
    places = ["--data", str(tmp_path / "data"), "--output", str(tmp_path)]
    small = ["--size", "32", "--frames", "4", "--repeats", "1", "--epochs", "1"]
    assert cache.main([*small, *places]) == 0
    found = json.loads((tmp_path / "cache.json").read_text())
    assert {row["frame"] for row in found["codecs"]} == set(cache.frames(32))
    kinds = {row["what"] for row in found["codecs"]}
    assert {f"read: {way}" for way in cache.WAYS} <= kinds
    assert {"decode: JPEG 2000", "decode: RLE", "decode: JPEG"} <= kinds
    assert found["epochs"][0]["first/second"] > 0
    assert "Blosc2 LZ4 shuffle" in capsys.readouterr().out


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="this system cannot drop cached pages")
def test_samplers_are_measured_with_a_cold_cache(tmp_path, capsys):
    small = ["--files", "4", "--frames", "6", "--size", "8", "--batch-size", "6", "--repeats", "2"]
    places = ["--data", str(tmp_path / "data"), "--output", str(tmp_path)]
    assert samplers.main([*small, *places, "--orders", "6", "6:2"]) == 0
    found = json.loads((tmp_path / "samplers.json").read_text())
    rows = found["epochs"]
    assert [row["order"] for row in rows] == [
        "plain shuffle",
        "window 6, block None",
        "window 6, block 2",
    ]
    assert rows[1]["files_per_batch"] == 1
    assert rows[2]["files_per_batch"] > 1
    assert all(row["frames_per_second"] > 0 and len(row["repeats"]) == 2 for row in rows)
    names = {row["sampler"].split(",")[0] for row in found["orders"]}
    assert {"LocalShuffleSampler", "GroupSampler", "BalancedSampler", "GroupBatchSampler"} <= names
    assert all(row["milliseconds_per_100000"] > 0 for row in found["orders"])
    out = capsys.readouterr().out
    assert "files per batch" in out
    assert "ms for 100,000 indices" in out
