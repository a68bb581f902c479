"""`FrameReader`: what every dataset stands on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pydicom.uid import JPEG2000Lossless

from dicomtorch import DicomFrames
from dicomtorch.backends.base import decoding, say_once
from dicomtorch.model.options import PixelOptions
from dicomtorch.reader.reader import Frame, FrameReader
from dicomtorch.scanner.scan import scan
from tests.support.phantoms import ct, ct_pixels, encapsulated, image, write


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


def test_what_a_decoder_notices_names_the_file_it_was_first_seen_in(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    imagecodecs = pytest.importorskip("imagecodecs")
    array = np.zeros((24, 32, 3), np.uint8)
    stream = bytes(imagecodecs.jpeg2k_encode(array, level=0, codecformat="j2k", mct=False))
    for name in ("one.dcm", "two.dcm"):
        dataset = image(
            array[..., 0],
            PhotometricInterpretation="YBR_RCT",
            SamplesPerPixel=3,
            PlanarConfiguration=0,
        )
        padded = stream + b"\0" * (len(stream) % 2)
        write(encapsulated(dataset, [padded], JPEG2000Lossless), tmp_path / name)
    reader = FrameReader(scan(tmp_path)[0], options=PixelOptions("stored"))
    say_once.cache_clear()
    with caplog.at_level("WARNING", "dicomtorch"):
        for position in (1, 0, 1):
            reader.read_stored(position)
    (record,) = caplog.records
    assert "no component transform" in record.getMessage()
    assert "first seen in" in record.getMessage()
    assert "two.dcm" in record.getMessage()
    assert decoding.where is None
