"""`FrameFetcher`: threads inside a frame."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest

from dicomtorch import DicomFrames, FrameReader, scan
from dicomtorch.backends import codecs
from dicomtorch.backends.base import decoding
from dicomtorch.model.syntaxes import JPEG_2000_LOSSLESS
from dicomtorch.reader.threads import limit_threads
from tests.support import streams_by_encoders as encoders
from tests.support.phantoms import encapsulated, image, write


class Watched:
    """imagecodecs, and with how many threads it decodes JPEG 2000."""

    def __init__(self) -> None:
        self.threads: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(imagecodecs, name)

    def jpeg2k_decode(self, data: Any, **options: Any) -> Any:
        self.threads.append(options["numthreads"])
        return imagecodecs.jpeg2k_decode(data, **options)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    library = Watched()
    monkeypatch.setattr(codecs, "library", lambda: library)
    return library


def jpeg_2000(path: Path, size: int, count: int = 1) -> Path:
    y, x = np.mgrid[0:size, 0:size]
    for k in range(count):
        pixels = ((x + 3 * y + k) % 4096).astype(np.uint16)
        dataset = encapsulated(
            image(pixels, BitsStored=12, SOPInstanceUID=f"1.2.{k}"),
            [encoders.jpeg_2000(pixels, 12)],
            JPEG_2000_LOSSLESS,
        )
        write(dataset, path / f"{k}.dcm")
    return path


def test_a_large_frame_alone_uses_all_threads_that_are_allowed(
    tmp_path: Path, watched: Watched
) -> None:
    reader = FrameReader(scan(jpeg_2000(tmp_path, 1024, 3))[0])
    expected = [reader.read_stored(k) for k in range(3)]
    assert watched.threads == [1, 1, 1]
    for positions, most, each in (
        ([0], 1, [1]),
        ([0], 4, [4]),
        ([0, 1], 4, [2, 2]),
        ([0, 1], 3, [1, 1]),
        ([0, 1, 2], 2, [1, 1, 1]),
    ):
        watched.threads.clear()
        reader.read_many(positions, num_threads=most)
        assert watched.threads == each
    assert decoding.threads == 1
    watched.threads.clear()
    for k in range(3):
        np.testing.assert_array_equal(reader.read_stored(k), expected[k])


def test_small_frames_and_threads_of_a_loader_do_not(tmp_path: Path, watched: Watched) -> None:
    small = FrameReader(scan(jpeg_2000(tmp_path / "small", 1023))[0])
    small.read_many([0], num_threads=4)
    frames = DicomFrames(jpeg_2000(tmp_path / "large", 1024))
    limit_threads(1)
    try:
        frames[0]
    finally:
        limit_threads(0)
    assert watched.threads == [1, 1]


def test_pickles_carry_no_names_of_objects_that_were_read(tmp_path: Path) -> None:
    reader = FrameReader(scan(jpeg_2000(tmp_path, 16, 5))[0])
    before = len(pickle.dumps(reader))
    reader.will_need(range(5))
    assert reader.fetcher.objects.ranges(np.arange(5)) is not None
    assert len(pickle.dumps(reader)) == before
