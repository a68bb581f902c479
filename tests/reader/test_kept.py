"""Encoded frames of remote objects on a disk of this machine, and many frames of a server that fails now and then."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from dicomtorch import DicomFrames, FrameLoader, scan
from dicomtorch.reader import cache
from tests.support.http_server import counts, http_server
from tests.support.phantoms import ct, write
from tests.support.requirements import require

require("obstore")
require("fsspec")


@pytest.fixture
def images(tmp_path: Path) -> np.ndarray:
    random = np.random.default_rng(0).integers(0, 2000, (40, 32, 32), np.int16)
    for k, image in enumerate(random):
        write(ct(image), tmp_path / "files" / f"{k:03}.dcm")
    return random


def test_what_is_kept_is_not_asked_for_again(images: np.ndarray, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    with http_server(tmp_path / "files") as address:
        index, _ = scan(address)
        options = {"range_cache": str(kept)}
        for expected in (40, 0):
            counts(address)
            frames = DicomFrames(index, values="stored", storage_options=options)
            frames = pickle.loads(pickle.dumps(frames))
            got, _ = frames[0:40]
            assert torch.equal(got[:, 0].to(torch.int16), torch.from_numpy(images))
            assert counts(address).get("GET", 0) == expected
        for file in kept.rglob("*.frame"):
            assert not os.stat(file).st_mode & 0o077
            file.write_bytes(b"damaged")
        again, _ = frames[0:40]
        assert torch.equal(again, got)


def test_ranges_of_any_size_are_kept(
    images: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_MOST_OF_ARRAY", 100)  # as 256 MiB are of a slide
    with http_server(tmp_path / "files") as address:
        options = {"range_cache": str(tmp_path / "kept")}
        frames = DicomFrames(scan(address)[0], values="stored", storage_options=options)
        for expected in (40, 0):
            counts(address)
            frames[0:40]
            assert counts(address).get("GET", 0) == expected


def test_none_is_wrong_and_none_is_lost_where_answers_stall(
    images: np.ndarray, tmp_path: Path
) -> None:
    """`tests/long/remote_faults.py` has ten thousand frames, and how long they take."""
    order = np.random.default_rng(1).permutation(np.repeat(np.arange(40), 10)).tolist()
    with http_server(tmp_path / "files", rate=0.05, faults="stall,hang") as address:
        options = {"timeout": 0.5, "prefetch_bytes": 20_000}  # less than what all frames take
        index, _ = scan(address, storage_options=options)
        frames = DicomFrames(index, values="stored", storage_options=options)
        counts(address)
        got = torch.cat([batch for batch, _ in FrameLoader(frames, 20, sampler=order)])
        seen = counts(address)
    assert torch.equal(got[:, 0].to(torch.int16), torch.from_numpy(images[order]))
    assert min(seen["stall"], seen["hang"]) > 0


def test_none_is_wrong_and_none_is_lost_where_one_of_twenty_requests_fails(
    images: np.ndarray, tmp_path: Path
) -> None:
    order = np.random.default_rng(1).integers(0, 40, 4000).tolist()
    faults = "cut,503,reset,short,ignored"
    with http_server(tmp_path / "files", rate=0.05, faults=faults) as address:
        options = {"prefetch_bytes": 20_000}  # less than what all frames take
        frames = DicomFrames(scan(address)[0], values="stored", storage_options=options)
        counts(address)
        loader = FrameLoader(frames, 50, sampler=order)
        got = torch.cat([batch for batch, _ in loader])
        assert torch.equal(got[:, 0].to(torch.int16), torch.from_numpy(images[order]))
        seen = counts(address)
        assert sum(seen[fault] for fault in faults.split(",")) > 40
