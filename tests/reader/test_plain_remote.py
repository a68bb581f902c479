"""Frames of servers by the compiled kernels: the bits of files, one call for a batch, errors of single frames."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydicom.uid import JPEGLSLossless, RLELossless

from dicomtorch import (
    DicomClips,
    DicomFrames,
    DicomVolumes,
    FrameLoader,
    FrameReader,
    PixelOptions,
    scan,
)
from dicomtorch.errors import StaleIndexError
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.reader import plain_given
from dicomtorch.reader.reader import Frame
from tests.reader.conftest import Calls
from tests.support.http_server import counts, http_server
from tests.support.kernel_jobs import without
from tests.support.phantoms import ct, write, write_series
from tests.support.requirements import require

require("obstore")
require("fsspec")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames in several syntaxes, at odd offsets, of which one kind is left to others."""
    rng = np.random.default_rng(0)
    folder: Path = tmp_path_factory.mktemp("served")
    for number in range(6):
        stored = rng.integers(0, 2000, (33, 31), np.int16)
        write(ct(stored, StudyDescription="x" * number), folder / f"{number}.dcm")
    write(ct(rng.integers(0, 2000, (4, 33, 31), np.int16)), folder / "many.dcm")
    rle = ct(rng.integers(0, 40, (3, 33, 31), np.int16))
    rle.compress(RLELossless)
    write(rle, folder / "rle.dcm")
    jpeg = ct(rng.integers(0, 4000, (33, 31), np.int16))
    jpeg.compress(JPEGLSLossless)
    write(jpeg, folder / "other.dcm")
    return folder


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[tuple[str, FrameIndex]]:
    with http_server(folder) as address:
        yield address, scan(address)[0]


@pytest.mark.parametrize(
    "options",
    [{"values": "stored"}, {}, {"window": (500, 900)}, {"size": (16, 16), "decode": "reduced"}],
)
def test_they_have_the_bits_of_files(
    folder: Path,
    served: tuple[str, FrameIndex],
    counted: Calls,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
) -> None:
    local, remote = DicomFrames(folder, **options), DicomFrames(served[1], **options)
    with monkeypatch.context() as inner:
        without(inner)
        slow = DicomFrames(served[1], **options)
    assert len(local) == len(remote) == 14
    order = np.random.default_rng(1).permutation(14).tolist()
    for positions in (order, [3, 3, 3], [0]):
        expected, got, plain = (frames[positions][0] for frames in (local, remote, slow))
        assert torch.equal(expected, got)
        assert torch.equal(expected, plain)
    assert counted.from_memory[0] >= 10
    loaders = (FrameLoader(frames, 5, sampler=order) for frames in (local, remote))
    for (expected, _), (got, _) in zip(*loaders, strict=True):
        assert torch.equal(expected, got)


def test_a_batch_is_one_call_and_large_ones_some(
    served: tuple[str, FrameIndex], counted: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, index = served
    frames = DicomFrames(index, values="stored")
    expected, _ = frames[:]
    assert counted.from_memory == [13]
    counted.from_memory.clear()
    monkeypatch.setattr(plain_given, "_AT_ONCE", 5000)
    counts(address)
    got, _ = frames[:]
    assert torch.equal(got, expected)
    assert sum(counted.from_memory) == 13
    assert len(counted.from_memory) > 3
    assert counts(address)["GET"] == 9


def test_volumes_and_clips_are_read_alike(tmp_path: Path, counted: Calls) -> None:
    write_series(tmp_path / "files", 8)
    random = np.random.default_rng(0).integers(0, 2000, (12, 20, 20), np.int16)
    write(ct(random), tmp_path / "cine" / "cine.dcm")
    with http_server(tmp_path) as address:
        volumes = [
            DicomVolumes(place, window=(40, 400))
            for place in (tmp_path / "files", f"{address}/files")
        ]
        assert torch.equal(volumes[0][0][0], volumes[1][0][0])
        clips = [DicomClips(place, 5) for place in (tmp_path / "cine", f"{address}/cine")]
        assert torch.equal(clips[0][[2, 0, 7]][0], clips[1][[2, 0, 7]][0])
    assert counted.from_memory[0] == 8
    assert counted.from_memory[-1] == 5


def test_an_object_that_changed_is_an_error_of_its_frames(tmp_path: Path, counted: Calls) -> None:
    paths = write_series(tmp_path / "files", 4)
    with http_server(tmp_path / "files") as address:
        reader = FrameReader(scan(address)[0], options=PixelOptions(values="stored"))
        paths[2].write_bytes(paths[1].read_bytes())
        counts(address)
        batch = torch.empty((4, *reader.shape(0)), dtype=reader.dtype)
        results = reader.read_many(range(4), batch)
        assert counts(address)["GET"] == 4
    assert counted.from_memory == [3]
    assert [type(result) for result in results] == [Frame, Frame, StaleIndexError, Frame]
    assert "002.dcm, frame 0 (index 2): the object changed" in str(results[2])
