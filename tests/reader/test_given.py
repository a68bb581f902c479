"""Frames that a DICOMweb server gave before are not asked for again, and those of a batch are converted in one call."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydicom.dataset import Dataset
from pydicom.uid import JPEGLSLossless, RLELossless, generate_uid

from dicomtorch import DicomFrames, FrameLoader, FrameReader, scan
from dicomtorch.errors import OptionError, StaleIndexError, StorageError
from dicomtorch.reader import plain_given
from dicomtorch.reader.reader import Frame
from tests.reader.conftest import Calls
from tests.support.dicomweb_server import TOKEN, Server, dicomweb_server
from tests.support.kernel_jobs import without
from tests.support.phantoms import ct, write
from tests.support.requirements import require

require("urllib3")

COUNT = 14
HEADERS = {"Authorization": TOKEN}


def datasets() -> list[Dataset]:
    """Frames in several syntaxes, of odd sizes, of which one kind is left to others."""
    rng = np.random.default_rng(0)
    found = [ct(rng.integers(0, 2000, (33, 31), np.int16), k) for k in range(6)]
    found.append(ct(rng.integers(0, 2000, (4, 33, 31), np.int16), 6))
    for k, syntax, shape in ((7, RLELossless, (3, 33, 31)), (8, JPEGLSLossless, (33, 31))):
        one = ct(rng.integers(0, 40, shape, np.int16), k)
        one.compress(syntax, generate_instance_uid=False)
        found.append(one)
    for k, one in enumerate(found):
        one.SeriesInstanceUID = generate_uid(entropy_srcs=[f"series {max(k, 5)}"])
        one.PatientName, one.PatientID = "Kept^Nowhere", "kept-nowhere"
    return found


@pytest.fixture
def server() -> Iterator[Server]:
    with dicomweb_server(datasets(), TOKEN) as made:
        yield made


def options(folder: Path | None = None, **more: Any) -> dict[str, Any]:
    kept = {} if folder is None else {"range_cache": str(folder)}
    return {"headers": HEADERS, "max_retries": 0, **kept, **more}


def by_uid(frames: DicomFrames) -> list[int]:
    """Positions in the order of instances and frames."""
    every = np.arange(len(frames))
    names = (frames.index.gather(name, every) for name in ("SOPInstanceUID", "frame"))
    keys = list(zip(*names, strict=True))
    return sorted(range(len(keys)), key=keys.__getitem__)


@pytest.mark.parametrize(
    "how", [{"values": "stored"}, {}, {"window": (500, 900)}, {"size": (16, 16), "decode": "reduced"}]
)  # fmt: skip
@pytest.mark.parametrize("is_kept", [False, True])
def test_they_have_the_bits_of_files(
    server: Server,
    tmp_path: Path,
    counted: Calls,
    monkeypatch: pytest.MonkeyPatch,
    how: dict[str, Any],
    is_kept: bool,
) -> None:
    for k, one in enumerate(datasets()):
        write(one, tmp_path / "files" / f"{k}.dcm")
    given = options(tmp_path / "kept" if is_kept else None)
    local = DicomFrames(tmp_path / "files", **how)
    web = DicomFrames(server.address, storage_options=given, **how)
    with monkeypatch.context() as inner:
        without(inner)
        slow = DicomFrames(web.index, **how)
    assert len(local) == len(web) == COUNT
    places, others = by_uid(local), by_uid(web)
    order = np.random.default_rng(1).permutation(COUNT).tolist()
    for chosen in (order, [3, 3, 3], [0]):
        expected = local[[places[k] for k in chosen]][0]
        for frames in (web, slow):
            assert torch.equal(frames[[others[k] for k in chosen]][0], expected)
    assert counted.from_memory[0] == COUNT - 1  # all of a batch in one call, but for JPEG-LS
    for k in (0, 9):
        assert torch.equal(web[others[k]][0], local[places[k]][0])


def test_large_batches_are_some_calls(
    server: Server, counted: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = DicomFrames(server.address, storage_options=options(), values="stored")
    expected, _ = frames[:]
    assert counted.from_memory == [COUNT - 1]
    counted.from_memory.clear()
    server.asked.clear()
    monkeypatch.setattr(plain_given, "_AT_ONCE", 5000)
    assert torch.equal(frames[:][0], expected)
    assert sum(counted.from_memory) == COUNT - 1
    assert len(counted.from_memory) > 3
    assert len(server.frames_asked) == len(set(server.frames_asked)) == COUNT
    assert len(server.requests) == 9  # one for each instance all the same


def test_what_is_wrong_with_a_frame_keeps_back_no_other(server: Server, counted: Calls) -> None:
    frames = DicomFrames(server.address, storage_options=options(), values="stored")
    order = by_uid(frames)
    reader = FrameReader(frames.index)
    uids = frames.index.gather("SOPInstanceUID", np.arange(COUNT))
    many = [k for k in order if uids.count(uids[k]) == 4]
    rle = [k for k in order if uids.count(uids[k]) == 3]
    server.faults.missing = frozenset({4})
    out = torch.empty((4, 1, 33, 31), dtype=reader.dtype)
    batch = reader.read_many(many, out)
    assert [type(one) for one in batch] == [Frame, Frame, Frame, StaleIndexError]
    assert "frame 3" in str(batch[3])
    server.faults.missing = frozenset()
    (of_rle,) = (one for one in server.datasets if one.SOPInstanceUID == uids[rle[0]])
    of_rle.file_meta.TransferSyntaxUID = JPEGLSLossless
    with pytest.raises(StaleIndexError, match=r"gave the frame in JPEG-LS.*the index has RLE"):
        frames[rle]
    of_rle.file_meta.TransferSyntaxUID = RLELossless
    server.faults.status = {"/frames/": [403]}
    with pytest.raises(StorageError, match=r"instances/.*, frame 0.*403") as caught:
        frames[rle]
    assert type(caught.value) is StorageError
    assert TOKEN not in str(caught.value)


def test_what_is_kept_is_not_asked_for_again(server: Server, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    index, _ = scan(server.address, storage_options=options())
    got: list[torch.Tensor] = []
    for expected in (COUNT, 0, 0):
        server.asked.clear()
        frames = DicomFrames(index, values="stored", storage_options=options(kept))
        frames = pickle.loads(pickle.dumps(frames))
        images = frames[:][0]
        loaded = torch.cat([batch for batch, _ in FrameLoader(frames, 5)])
        single = torch.stack([frames[k][0] for k in range(COUNT)])
        assert torch.equal(images, loaded)
        assert torch.equal(images, single)
        got.append(images)
        assert torch.equal(images, got[0])
        assert len(server.frames_asked) == expected
    assert len(list(kept.rglob("*.frame"))) == COUNT
    said = (TOKEN.split()[1], "Kept", "nowhere", *map(str, index.column("SOPInstanceUID")))
    for path in kept.rglob("*"):
        assert not any(text in str(path.relative_to(kept)) for text in said)
        if path.is_file():
            assert not os.stat(path).st_mode & 0o077
            assert not any(text.encode() in path.read_bytes() for text in said)
    for path in kept.rglob("*.frame"):
        path.write_bytes(b"damaged")
    server.asked.clear()
    assert torch.equal(frames[:][0], got[0])
    assert len(server.frames_asked) == COUNT


def test_other_processes_find_what_is_kept(server: Server, tmp_path: Path) -> None:
    frames = DicomFrames(
        server.address,
        storage_options=options(tmp_path / "kept"),
        values="stored",
        cache_dir=tmp_path / "indexes",
    )
    images = frames[:][0]
    server.asked.clear()
    script = (
        "import pickle, sys\n"
        "frames = pickle.load(sys.stdin.buffer)\n"
        "sys.stdout.buffer.write(frames[:][0].numpy().tobytes())"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, input=pickle.dumps(frames), capture_output=True, check=True)
    assert done.stdout == images.numpy().tobytes()
    assert server.requests == []


def test_an_instance_with_another_header_is_another_one(server: Server, tmp_path: Path) -> None:
    given = options(tmp_path / "kept")
    frames = DicomFrames(server.address, storage_options=given, values="stored")
    uids = frames.index.column("SOPInstanceUID")
    frames[:]
    one = server.datasets[0]
    position = list(uids).index(one.SOPInstanceUID)
    one.ContentTime, one.PixelData = "120000", one.PixelData[::-1]
    # What was scanned is what it was; a scan anew says which it is now.
    before = frames[position][0]
    again, _ = scan(server.address, storage_options=given)
    server.asked.clear()
    frames = DicomFrames(again, storage_options=given, values="stored")
    images = frames[:][0]
    assert server.frames_asked == [(one.SOPInstanceUID, 1)]
    position = list(again.column("SOPInstanceUID")).index(one.SOPInstanceUID)
    np.testing.assert_array_equal(images[position, 0].numpy(), one.pixel_array)
    assert not torch.equal(images[position], before)


def test_frames_whose_version_nobody_said_are_not_kept(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicomtorch.scanner.web_rows._checksum", lambda _: "")
    frames = DicomFrames(server.address, storage_options=options(tmp_path / "kept"))
    for _ in range(2):
        server.asked.clear()
        frames[:]
        assert len(server.frames_asked) == COUNT
    assert not list(tmp_path.rglob("*.frame"))


def test_they_take_no_more_than_they_may(server: Server, tmp_path: Path) -> None:
    most = 6 * 2 * 33 * 31
    given = options(tmp_path / "kept", range_cache_bytes=most)
    frames = DicomFrames(server.address, storage_options=given, values="stored")
    images = frames[:][0]
    sizes = [os.stat(path).st_size for path in tmp_path.rglob("*.frame")]
    assert 0 < sum(sizes) <= most
    server.asked.clear()
    assert torch.equal(frames[:][0], images)
    assert len(server.frames_asked) == COUNT - len(sizes)


def test_frames_that_are_not_what_the_index_says_are_not_kept(
    server: Server, tmp_path: Path
) -> None:
    frames = DicomFrames(server.address, storage_options=options(tmp_path / "kept"))
    server.faults.syntax = JPEGLSLossless
    native = [
        k for k in range(COUNT) if frames.index.column("TransferSyntaxUID")[k] != JPEGLSLossless
    ]
    with pytest.raises(StaleIndexError, match="gave the frame in JPEG-LS"):
        frames[native]
    assert not list(tmp_path.rglob("*.frame"))
    server.faults.syntax = ""
    frames[native]


def test_options_are_checked(server: Server) -> None:
    with pytest.raises(OptionError, match="range_cache_bytes"):
        DicomFrames(server.address, storage_options=options(range_cache_bytes=0))
