"""Frames of masks that a server gives: blocks are asked for once, whatever went wrong before."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from dicomtorch.errors import StaleIndexError, StorageError
from dicomtorch.reader import kept_frames
from dicomtorch.reader.kept_frames import KeptFrames
from dicomtorch.reader.web import WantedFrame, WebFrames
from dicomtorch.storage.kept_bytes import KeptBytes
from dicomtorch.storage.web import WebClient, WebSettings
from tests.support.dicomweb_server import Server, dicomweb_server
from tests.support.phantoms import ct, ct_pixels
from tests.support.requirements import require

require("urllib3")

COUNT = 60
SIZE = 2 * 24 * 32  # bytes of a frame


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(kept_frames, "_kept", KeptBytes(25 * SIZE))
    with dicomweb_server([ct(np.stack([ct_pixels(k) for k in range(COUNT)]), 0)]) as made:
        yield made


def source_of(server: Server) -> KeptFrames:
    client = WebClient(WebSettings(frames_per_request=10, max_retries=0))
    return KeptFrames(WebFrames(server.address.encode(), client))


def wanted(server: Server) -> list[WantedFrame]:
    """All frames."""
    (one,) = server.datasets
    path = f"studies/{one.StudyInstanceUID}/series/{one.SeriesInstanceUID}/instances"
    return [WantedFrame(f"{path}/{one.SOPInstanceUID}", k, SIZE, COUNT) for k in range(COUNT)]


def read(source: KeptFrames, frames: list[WantedFrame]) -> None:
    for frame in frames:
        assert bytes(source.take(frame).data) == ct_pixels(frame.number).tobytes()


def test_no_more_is_asked_for_ahead_than_is_kept(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_frames, "_BYTES_AHEAD", 20 * SIZE)
    source, frames = source_of(server), wanted(server)
    source.need(frames)
    assert len(server.requests) == 2
    read(source, frames)
    assert len(server.frames_asked) == len(set(server.frames_asked)) == COUNT
    assert len(server.requests) == COUNT // 10


def test_what_a_server_could_not_give_for_a_while_is_asked_for_together_again(
    server: Server,
) -> None:
    source, frames = source_of(server), wanted(server)[:20]
    server.faults.status["/frames/"] = [503]
    with pytest.raises(StorageError, match="503"):
        source.take(frames[0])
    source.need(frames)  # says nothing: reading does
    server.faults.status.clear()
    server.asked.clear()
    for _ in range(2):
        read(source, frames)
    assert len(server.requests) == 2


def test_a_frame_that_is_missing_is_told_alone(server: Server) -> None:
    server.faults.missing = frozenset({4})
    source, frames = source_of(server), wanted(server)[:10]
    with ThreadPoolExecutor(4) as pool:
        others = frames[:3] + frames[4:]
        for frame, given in zip(others, pool.map(source.take, others), strict=True):
            assert bytes(given.data) == ct_pixels(frame.number).tobytes()
    with pytest.raises(StaleIndexError, match="no such instance or frame"):
        source.take(frames[3])
