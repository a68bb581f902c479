"""Frames of a DICOMweb server: each is asked for once while it is needed, with others; what servers do otherwise."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless, RLELossless, generate_uid

from dicomtorch import DicomClips, DicomFrames, DicomPatches, FrameLoader, FrameReader
from dicomtorch.errors import DicomTorchError, StaleIndexError, StorageError
from dicomtorch.reader import web
from dicomtorch.reader.web import GivenFrame, WantedFrame, WebFrames, frames_of
from dicomtorch.storage.web import WebClient, WebSettings
from tests.support.dicomweb_server import Server, dicomweb_server
from tests.support.phantoms import ct, ct_pixels
from tests.support.requirements import require

require("urllib3")

COUNT = 100  # frames of each instance
SIZE = 2 * 24 * 32  # bytes of each
OPTIONS: dict[str, Any] = {"max_retries": 0}


def cine(k: int, syntax: str = "") -> Dataset:
    """An instance of many frames, each other than all others."""
    found = ct(np.stack([ct_pixels(COUNT * k + j) for j in range(COUNT)]), k)
    if syntax:
        found.compress(syntax, generate_instance_uid=False)
    found.SeriesInstanceUID = generate_uid(entropy_srcs=[f"cine {k}"])
    return found


@pytest.fixture
def server() -> Iterator[Server]:
    with dicomweb_server([cine(0), cine(1)]) as made:
        yield made


def frames_at(server: Server, **options: Any) -> DicomFrames:
    """Its frames, cine 0 first; the requests of the scan are forgotten."""
    frames = DicomFrames(server.address, values="stored", storage_options=OPTIONS | options)
    uids = frames.index.column("SOPInstanceUID")
    first = str(server.datasets[0].SOPInstanceUID)
    order = sorted(range(len(frames)), key=lambda k: uids[k] != first)
    server.asked.clear()
    return DicomFrames(frames.index.select(order), values="stored")


def held(frames: DicomFrames) -> tuple[int, int]:
    ahead = frames_of(frames.index.root)._ahead
    return ahead._held, ahead._kept_bytes


def test_frames_of_future_batches_share_requests(server: Server) -> None:
    frames = frames_at(server, io_threads=2)
    # As of a network: where answers come at once, nothing waits that could share one.
    server.faults.latency = 0.02
    loader = FrameLoader(frames, 8, shuffle=True, num_threads=2)
    seen = {}
    for images, meta in loader:
        for image, index in zip(images, meta["index"], strict=True):
            seen[int(index)] = image[0]
    assert sorted(seen) == list(range(2 * COUNT))
    for k, image in seen.items():
        np.testing.assert_array_equal(image.numpy(), ct_pixels(k))
    assert len(server.frames_asked) == len(set(server.frames_asked)) == 2 * COUNT
    # Of a batch each instance has four; batches that wait share requests.
    assert len(server.requests) <= 25
    assert server.most_at_once <= 2
    assert held(frames) == (0, 0)


def test_overlapping_clips_ask_for_a_frame_once(server: Server) -> None:
    clips = DicomClips(frames_at(server).index, 16, step=4, values="stored")
    loader = FrameLoader(clips, 4, num_threads=2)
    for _ in range(2):
        server.asked.clear()
        assert sum(len(batch) for batch, _ in loader) == len(clips) == 44
        assert len(server.frames_asked) == len(set(server.frames_asked)) == 2 * COUNT
        assert len(server.requests) <= 20
    assert held(DicomFrames(clips.index)) == (0, 0)


def test_parts_of_a_frame_in_several_batches_ask_for_it_once(server: Server) -> None:
    frames = frames_at(server)
    frames = DicomFrames(frames.index.select(np.arange(20)), values="stored")
    patches = DicomPatches(frames, (8, 8), per_frame=6)
    server.asked.clear()
    order = np.random.default_rng(0).permutation(len(patches)).tolist()
    assert sum(len(images) for images, _ in FrameLoader(patches, 8, sampler=order)) == 120
    assert len(server.frames_asked) == len(set(server.frames_asked)) == 20
    assert held(frames) == (0, 0)


def test_what_is_held_ahead_is_bounded(server: Server) -> None:
    budget = 40 * SIZE
    frames = frames_at(server, prefetch_bytes=budget, frames_per_request=10, io_threads=3)
    ahead = frames_of(frames.index.root)._ahead
    source = frames.index
    reader = FrameReader(source)
    reader.will_need(range(2 * COUNT))
    reader.will_need(range(0, 2 * COUNT, 2))  # every other one is read twice
    most = 0
    for k in [*range(2 * COUNT), *range(0, 2 * COUNT, 2)]:
        image = reader.read_stored(k)
        np.testing.assert_array_equal(image, ct_pixels(k))
        most = max(most, ahead._held + ahead._kept_bytes)
    assert most <= budget + 3 * 10 * SIZE  # requests that somebody waits for go on
    assert held(frames)[0] == 0


def test_sizes_of_compressed_frames_are_learnt() -> None:
    with dicomweb_server([cine(0, RLELossless)]) as server:
        frames = frames_at(server)
        frames[list(range(30))]
        ahead = frames_of(frames.index.root)._ahead
        FrameReader(frames.index).will_need(range(30, 60))
        for _ in range(500):
            if ahead._held and not ahead._running:
                break
            time.sleep(0.01)
        sizes = [len(FrameReader(frames.index).read_encoded(k)) for k in range(30)]
        assert min(sizes) * 30 <= ahead._held <= max(sizes) * 30


def test_one_source_serves_all_datasets_of_a_server(server: Server) -> None:
    frames = frames_at(server)
    other = DicomFrames(frames.index, values="stored")
    frames._reader.will_need([0, 0])
    assert torch.equal(frames[0][0], other[0][0])
    assert server.frames_asked == [(server.datasets[0].SOPInstanceUID, 1)]
    again = pickle.loads(pickle.dumps(frames_of(frames.index.root)))
    assert again is frames_of(frames.index.root)


def test_decoded_frames_that_are_kept_are_not_asked_for(tmp_path: Path) -> None:
    pixels = np.stack([ct_pixels(k, 64, 64) for k in range(30)])
    dataset = ct(pixels)
    dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
    with dicomweb_server([dataset]) as server:
        index = frames_at(server).index
        frames = DicomFrames(index, values="stored", cache=tmp_path / "decoded")
        for epoch in range(2):
            server.asked.clear()
            images = torch.cat([batch for batch, _ in FrameLoader(frames, 8)])
            np.testing.assert_array_equal(images[:, 0], pixels)
            assert len(server.frames_asked) == (0 if epoch else 30)
        assert held(frames) == (0, 0)


def test_a_frame_that_is_missing_keeps_back_no_other(server: Server) -> None:
    frames = frames_at(server)
    server.faults.missing = frozenset({7, 8, 61})
    batch = FrameReader(frames.index).read_many(range(COUNT))
    gone = [k for k, one in enumerate(batch) if isinstance(one, DicomTorchError)]
    assert gone == [6, 7, 60]
    for k in gone:
        assert type(batch[k]) is StaleIndexError
        assert f"frame {k}" in str(batch[k])
    assert len(server.requests) < 40


def test_a_server_that_gives_one_frame_at_a_time(server: Server) -> None:
    frames = frames_at(server, io_threads=1)
    server.faults.alone = True
    images = frames[list(range(COUNT))][0]
    np.testing.assert_array_equal(images[:, 0], [ct_pixels(k) for k in range(COUNT)])
    # Thirty, then two, tell that lists are refused; what waits asks no more for lists.
    assert sum("," in path for path in server.requests) <= 2 + COUNT // 30
    assert len(server.requests) <= COUNT + 2 + COUNT // 30
    server.asked.clear()
    frames[list(range(COUNT))]
    assert len(server.requests) == COUNT  # it is known by now


@pytest.mark.parametrize("locates", [False, True])
def test_the_first_thirty_frames_of_a_server_that_gives_one_in_an_answer(
    server: Server, locates: bool
) -> None:
    frames = frames_at(server)
    server.faults.keeps_first, server.faults.locates = True, locates
    images = frames[list(range(30))][0]
    np.testing.assert_array_equal(images[:, 0], [ct_pixels(k) for k in range(30)])
    assert len(server.requests) == 32


def test_a_server_that_gives_ten_frames_at_most(server: Server) -> None:
    frames = frames_at(server, io_threads=1)
    server.faults.most = 10
    for expected in (30, 15):
        server.asked.clear()
        images = frames[list(range(COUNT))][0]
        np.testing.assert_array_equal(images[:, 0], [ct_pixels(k) for k in range(COUNT)])
        assert len(server.requests) <= expected


def test_a_server_is_asked_for_more_frames_again_after_many_answers() -> None:
    together = web._Together(30)
    together.given(30)
    together.refused(30)  # once may be a fault that passed
    assert together.most == 30
    together.given(30)
    together.refused(30)
    together.refused(30)
    assert together.most == 15
    for _ in range(web._OFTEN):
        together.given(14)  # the rest of a list says nothing
        together.given(15)
    assert together.most == 30


def test_frames_that_say_which_they_are_may_come_in_any_order(server: Server) -> None:
    frames = frames_at(server)
    server.faults.locates = server.faults.reverses = True
    for lengths in (True, False):
        server.faults.lengths = lengths
        images = frames[list(range(40))][0]
        np.testing.assert_array_equal(images[:, 0], [ct_pixels(k) for k in range(40)])
    assert len(server.requests) == 4


def test_a_frame_without_parts_is_one(server: Server) -> None:
    server.faults.bare = True
    frames = frames_at(server)
    np.testing.assert_array_equal(frames[5][0][0], ct_pixels(5))


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        ({"kind": "image/png"}, "gave image/png and no frame as it is encoded"),
        ({"kind": "text/html", "bare": True}, "answered with text/html and not multipart"),
        ({"kind": "image/jls"}, "gave the frame in JPEG-LS"),
        ({"boundary": "another one"}, "has no boundary"),
        ({"drops_part": True, "alone": True}, "400: it does not give frames as they are encoded"),
        ({"status": {"/frames/": [406]}}, "406: it does not give frames as they are encoded"),
        ({"status": {"/frames/": [200]}}, "answered with text/plain and not multipart"),
    ],
)  # fmt: skip
def test_answers_that_are_no_frames(server: Server, faults: dict[str, Any], message: str) -> None:
    frames = frames_at(server)
    for name, value in faults.items():
        setattr(server.faults, name, value)
    wanted: Any = 3 if faults.get("bare") else [0, 1, 2]
    if "alone" in faults:
        server.faults.status = {"/frames/1": [400]}
    with pytest.raises((StorageError, StaleIndexError), match=message) as caught:
        frames[wanted]
    assert type(caught.value) in (StorageError, StaleIndexError)
    assert len(server.requests) <= 5
    server.faults = type(server.faults)()
    np.testing.assert_array_equal(frames[3][0][0], ct_pixels(3))


@pytest.mark.parametrize("within", [False, True])
def test_a_server_that_stalls(server: Server, within: bool) -> None:
    frames = frames_at(server, timeout=0.5, max_retries=1)
    server.faults.stalls, server.faults.stalls_within = 1, within
    began = time.monotonic()
    np.testing.assert_array_equal(frames[0][0][0], ct_pixels(0))  # the second time it answers
    server.faults.stalls = 99
    with pytest.raises(StorageError, match=r"instances/.*frame 1.*did not answer") as caught:
        frames[1]
    assert type(caught.value) is StorageError
    assert time.monotonic() - began < 30
    server.faults.stalls = 0
    server.goes_on.set()
    np.testing.assert_array_equal(frames[1][0][0], ct_pixels(1))


@pytest.mark.parametrize("lengths", [True, False])
@pytest.mark.parametrize("framing", ["chunks", "close"])
def test_answers_without_their_length(server: Server, framing: str, lengths: bool) -> None:
    frames = frames_at(server)
    server.faults.framing, server.faults.lengths = framing, lengths
    images = frames[list(range(40))][0]
    np.testing.assert_array_equal(images[:, 0], [ct_pixels(k) for k in range(40)])
    server.faults.cut = 10_000
    with pytest.raises(StorageError, match=r"cut off|did not answer in whole") as caught:
        frames[list(range(4))]
    assert type(caught.value) is StorageError
    server.faults.cut = 0
    np.testing.assert_array_equal(frames[0][0][0], ct_pixels(0))


def test_faults_that_pass_cost_no_frame(server: Server) -> None:
    frames = frames_at(server, frames_per_request=2, max_retries=8)
    server.faults.share = 0.05
    for _ in range(4):
        seen: dict[int, torch.Tensor] = {}
        for images, meta in FrameLoader(frames, 16, shuffle=True, num_threads=2):
            seen.update(zip(meta["index"].tolist(), images.clone(), strict=True))
        assert sorted(seen) == list(range(2 * COUNT))
        for k, image in seen.items():
            np.testing.assert_array_equal(image[0].numpy(), ct_pixels(k))
    assert min(server.failed[kind] for kind in server.faults.kinds) > 2
    assert held(frames) == (0, 0)


def replaced(server: Server, with_: Dataset) -> None:
    with_.SOPInstanceUID = server.datasets[0].SOPInstanceUID
    with_.StudyInstanceUID = server.datasets[0].StudyInstanceUID
    with_.SeriesInstanceUID = server.datasets[0].SeriesInstanceUID
    server.datasets[0] = with_


@pytest.mark.parametrize(
    ("other", "kind", "message"),
    [
        (ct(np.stack([ct_pixels(k, 20, 30) for k in range(COUNT)])), StorageError, "gave 1200 bytes"),
        (ct(np.stack([ct_pixels(k) for k in range(3)])), StaleIndexError, "no such instance or frame"),
        (cine(0, RLELossless), StaleIndexError, "gave the frame in RLE"),
    ],
)  # fmt: skip
def test_an_instance_that_is_another_one_by_now(
    server: Server, other: Dataset, kind: type[DicomTorchError], message: str
) -> None:
    frames = frames_at(server)
    replaced(server, other)
    for asked in (50, [50, 51]):
        with pytest.raises(kind, match=message):
            frames[asked]


def test_a_frame_that_is_wanted_again_before_its_request_began_is_in_it_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[list[int]] = []
    goes_on = threading.Event()

    def fetch(_: WebFrames, instance: str, numbers: list[int]) -> list[GivenFrame]:
        if instance == "first":
            assert goes_on.wait(60)
        else:
            asked.append(numbers)
        return [GivenFrame(memoryview(bytes([k])), "") for k in numbers]

    monkeypatch.setattr(WebFrames, "fetch", fetch)
    source = WebFrames(b"dicomweb+http://127.0.0.1/web", WebClient(WebSettings(io_threads=1)))
    source.need([WantedFrame("first", 0, 1)])
    frames = [WantedFrame("second", k, 1) for k in range(3)]
    source.will_need(frames)
    with ThreadPoolExecutor(4) as pool:
        taken = [pool.submit(source.take, frames[1])]
        while frames[1] in source._ahead._where:
            time.sleep(0.001)
        source.need([frames[1]])
        taken += [pool.submit(source.take, frame) for frame in frames]
        while frames[1] in source._ahead._where:
            time.sleep(0.001)
        goes_on.set()
        assert [one.result(60).data.tobytes() for one in taken] == [b"\1", b"\0", b"\1", b"\2"]
    assert asked == [[0, 1, 2]]


def test_a_request_takes_a_share_of_the_budget(server: Server) -> None:
    frames = frames_at(server, prefetch_bytes=40 * SIZE)
    reader = FrameReader(frames.index)
    ahead = frames_of(frames.index.root)._ahead
    reader.will_need(range(COUNT))
    most = 0
    for k in range(COUNT):
        np.testing.assert_array_equal(reader.read_stored(k), ct_pixels(k))
        most = max(most, ahead._held)
    assert max(path.count(",") + 1 for path in server.requests) == 10
    assert most <= 40 * SIZE


def test_threads_make_one_source_of_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[WebFrames] = []

    class Slow(WebFrames):
        def __init__(self, root: bytes, client: WebClient | None = None) -> None:
            super().__init__(root, client)
            made.append(self)
            time.sleep(0.05)

    monkeypatch.setattr(web, "WebFrames", Slow)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(frames_of, [b"dicomweb+http://127.0.0.1/made-once"] * 4))
    assert len(made) == len(set(map(id, found))) == 1


def test_sources_pickle_without_what_they_hold(server: Server) -> None:
    frames = frames_at(server)
    frames[0]
    source = frames_of(frames.index.root)
    assert isinstance(source, WebFrames)
    assert len(pickle.dumps(source)) < 2000
