"""`dicomtorch bench`: it measures what is there, says what is not, and names the fastest. Speed is not tested."""

from __future__ import annotations

import json
import re

import imagecodecs
import numpy as np
import pytest
from pydicom.uid import JPEGLSLossless

from dicomtorch import scan
from dicomtorch.backends.base import get_backend
from dicomtorch.cli import main as cli
from dicomtorch.cli.options import EXIT_FOUND_PROBLEMS, EXIT_OK
from dicomtorch.errors import DecodeError, OptionError
from dicomtorch.reader.kernels import Kernels
from dicomtorch.reports import bench
from tests.support.http_server import http_server
from tests.support.phantoms import ct, ct_pixels, encapsulated, write, write_series
from tests.support.requirements import require


@pytest.fixture
def tree(tmp_path):
    """Six slices of one size, two of another that are JPEG-LS, one of which is damaged."""
    write_series(tmp_path / "ct", 6)
    for k in (6, 7):
        pixels = ct_pixels(k, 16, 16).view("u2")
        stream = imagecodecs.jpegls_encode(pixels)
        dataset = encapsulated(ct(pixels, k), [stream if k == 6 else stream[:60]], JPEGLSLossless)
        write(dataset, tmp_path / "ct" / f"{k:03d}.dcm")
    return tmp_path / "ct"


def last(index, **options):
    *_, result = bench.measure(index, batch_size=2, counts=[1], seconds=1e-6, **options)
    return result


def test_measures_every_backend_and_loader(tree):
    index, _ = scan(tree)
    result = last(index)
    assert (result.frames, result.measured, result.left_out, result.failed) == (8, 4, 2, 0)
    assert result.shape == (1, 24, 32)
    assert result.cacheable == 0.25
    assert [(way.backend, way.loader, way.count) for way in result.ways] == [
        (backend, *rest)
        for backend in ("imagecodecs", "pydicom", "simpleitk")
        for rest in (("DataLoader", 0), ("DataLoader", 1), ("FrameLoader", 1))
    ]
    assert all(len(way.rates) == bench.REPEATS and not way.error for way in result.ways)
    assert result.best.frames_per_second == max(way.frames_per_second for way in result.ways)


def test_workers_of_frames_of_a_server_are_not_forked_after_the_first_request(tree):
    require("obstore")
    require("fsspec")
    with http_server(tree) as address:
        index, _ = scan(address)
        result = last(index.filter(Rows=24))
    assert not [way.error for way in result.ways if way.error]
    (forked, *_) = (way for way in result.ways if (way.loader, way.count) == ("DataLoader", 1))
    assert "multiprocessing_context='forkserver'" in forked.code


def test_mixed_sizes_are_measured_together_when_resized(tree):
    index, _ = scan(tree)
    result = last(index, size=(16, 16))
    assert (result.left_out, result.failed, result.shape) == (0, 1, (1, 16, 16))
    assert "1 frame that cannot be read is left out" in bench.format_result(result)


def test_a_backend_that_cannot_is_a_row(tree):
    index, _ = scan(tree)
    htj2k = imagecodecs.htj2k_encode(np.abs(ct_pixels(9)), reversible=True)
    dataset = encapsulated(ct(np.abs(ct_pixels(9)), 9), [htj2k], "1.2.840.10008.1.2.4.201")
    write(dataset, tree / "9.dcm")
    index, _ = scan(tree / "9.dcm")
    result = last(index)
    able = {way.backend for way in result.ways if way.rates}
    assert "imagecodecs" in able
    assert "simpleitk" not in able
    text = bench.format_result(result)
    assert re.search(r"^simpleitk +DataLoader +0 workers +not decoded by it$", text, re.MULTILINE)


def failing(monkeypatch, name, pixels):
    """Lets a backend fail on one frame."""
    backend = get_backend(name)
    decode = type(backend).decode

    def fails(self, data, pixel, out=None):
        values = decode(self, data, pixel, out)
        if np.array_equal(values, pixels):
            raise DecodeError("bad")
        return values

    monkeypatch.setattr(type(backend), "decode", fails)


def test_a_backend_that_fails_on_a_frame_is_a_row(tree, monkeypatch):
    # Uncompressed frames that compiled kernels read go through no backend.
    monkeypatch.setattr("dicomtorch.reader.kernels.kernels", lambda: Kernels(None, "left out"))
    index, _ = scan(tree)
    first, second = np.random.default_rng(0).permutation(6)[:2].tolist()
    failing(monkeypatch, "pydicom", ct_pixels(second))
    result = last(index)
    assert {way.backend for way in result.ways if way.rates} == {"imagecodecs", "simpleitk"}
    assert re.search(r"^pydicom +DataLoader +1 worker +fails$", bench.format_result(result), re.M)
    for name, k in (("imagecodecs", first), ("pydicom", first), ("simpleitk", second)):
        failing(monkeypatch, name, ct_pixels(k))
    monkeypatch.setattr(bench, "_sample", lambda index, *_: (index.select([first, second]), 0, 1.0))
    with pytest.raises(OptionError, match="no backend alone"):
        last(index)


def test_nothing_readable_is_an_error(tree):
    index, _ = scan(tree / "007.dcm")
    with pytest.raises(OptionError, match="dicomtorch verify"):
        last(index)


def test_code_is_what_to_write():
    assert (
        bench.Way("pydicom", "DataLoader", 2).code
        == "DataLoader(DicomFrames(..., backend='pydicom'), batch_size, shuffle=True, num_workers=2)"
    )
    assert "num_threads=3" in bench.Way("imagecodecs", "FrameLoader", 3).code


def test_command_line(tree, capsys):
    arguments = ["bench", str(tree), "--batch-size", "2", "--counts", "1", "--seconds", "1"]
    assert cli.main(arguments) == EXIT_OK
    out = capsys.readouterr().out
    assert re.search(r"^Best: (Data|Frame)Loader\(DicomFrames\(", out, re.MULTILINE)
    assert "2 frames of other shapes" in out
    assert cli.main([*arguments, "--json", "--size", "8", "8"]) == EXIT_FOUND_PROBLEMS
    out = capsys.readouterr().out
    assert json.loads(out)["best"]["rates"]
    assert str(tree) not in out
