"""`FrameReader`: what every dataset stands on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dicomtorch import DicomFrames
from dicomtorch.attributes import PixelOptions
from dicomtorch.reader import Frame, FrameReader
from dicomtorch.scanner import scan
from tests.phantoms import ct, ct_pixels, write


@pytest.fixture
def unwindowed(tmp_path: Path) -> Path:
    for k in range(5):
        dataset = ct(ct_pixels(k) + np.int16(100 * k), k)
        del dataset.WindowCenter, dataset.WindowWidth
        write(dataset, tmp_path / f"{k}.dcm")
    return tmp_path


@pytest.mark.parametrize("first", [0, 2, 4])
def test_measuring_a_series_leaves_the_frame_alone_that_asked_for_it(
    unwindowed: Path, first: int
) -> None:
    pixels = np.stack([ct_pixels(k) + np.int16(100 * k) for k in range(5)])
    low, high = int(pixels.min()), int(pixels.max())
    image, meta = DicomFrames(unwindowed, window="series")[first]
    np.testing.assert_allclose(image[0], (pixels[first] - low) / (high - low), atol=1e-6)
    assert meta["voi"] == "series"


def test_results_come_in_the_order_asked_for(unwindowed: Path) -> None:
    index, _ = scan(unwindowed)
    reader = FrameReader(index, options=PixelOptions("stored"))
    for threads in (1, 3):
        out = torch.empty(6, 1, 24, 32, dtype=torch.int16)
        results = reader.read_many([4, 0, 4, 2, 1, 3], out, num_threads=threads)
        for k, position in enumerate([4, 0, 4, 2, 1, 3]):
            frame = results[k]
            assert isinstance(frame, Frame)
            assert frame.image.data_ptr() == out[k].data_ptr()
            expected = ct_pixels(position) + np.int16(100 * position)
            np.testing.assert_array_equal(frame.image[0], expected)


def test_kept_frames_are_not_overwritten(unwindowed: Path) -> None:
    index, _ = scan(unwindowed)
    reader = FrameReader(index, options=PixelOptions("stored"))
    kept = [reader.read_stored(k) for k in range(5)]
    for k, stored in enumerate(kept):
        np.testing.assert_array_equal(stored, ct_pixels(k) + np.int16(100 * k))
