"""Frames of one sample: one mapping to display, one normalisation, each decoded once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dicomtorch import FrameReader, PixelOptions, scan
from dicomtorch.backends.imagecodecs import BACKEND
from dicomtorch.errors import DecodeError, PixelValueError, StaleIndexError
from tests.support.phantoms import ct, encapsulated, write


class Counting:
    """A backend that counts."""

    name = "counting"

    def __init__(self) -> None:
        self.decoded = 0

    def supports(self, pixel: Any) -> bool:
        return BACKEND.supports(pixel)

    def decode(self, data: Any, pixel: Any, out: Any = None) -> Any:
        self.decoded += 1
        return BACKEND.decode(data, pixel, out)


def reader(folder: Path, backend: Any = "auto", **options: Any) -> FrameReader:
    return FrameReader(scan(folder)[0], backend, PixelOptions(**options))


def files(
    folder: Path, frames: list[np.ndarray[Any, Any]], attributes: list[dict[str, Any]]
) -> Path:
    for k, (pixels, own) in enumerate(zip(frames, attributes, strict=True)):
        dataset = ct(pixels, k)
        for keyword, value in own.items():
            if value is None:
                delattr(dataset, keyword)
            else:
                setattr(dataset, keyword, value)
        write(dataset, folder / f"{k}.dcm")
    return folder


NO_WINDOW = {"WindowCenter": None, "WindowWidth": None}
CONSTANT = np.full((5, 6), 50, np.int16)


def pixels(low: int, high: int) -> np.ndarray[Any, Any]:
    return np.linspace(low, high, 30).round().astype(np.int16).reshape(5, 6)


@pytest.mark.parametrize("threads", [1, 3])
def test_different_windows_become_one_mapping(tmp_path, threads):
    windows = [
        {"WindowCenter": 40, "WindowWidth": 401},
        {"WindowCenter": 100, "WindowWidth": 101},
        {"WindowCenter": 300, "WindowWidth": 101},
    ]
    found = reader(files(tmp_path, [CONSTANT] * 3, windows))
    alone = [frame.image for frame in found.read_many([0, 1, 2])]
    assert not torch.equal(alone[0], alone[1])
    together = found.read_together([0, 1, 2], num_threads=threads)
    assert torch.equal(together[0].image, together[1].image)
    assert torch.equal(together[0].image, together[2].image)
    # c - 0.5 -+ (w - 1) / 2: -160.5 to 239.5, 49.5 to 149.5, 249.5 to 349.5.
    np.testing.assert_allclose(together[0].image, (50 + 160.5) / (349.5 + 160.5), atol=1e-6)
    assert together[0].voi.voi == "sample"
    pair = found.read_together([0, 1])
    np.testing.assert_allclose(pair[0].image, (50 + 160.5) / (239.5 + 160.5), atol=1e-6)


def test_a_common_window_is_kept(tmp_path):
    found = reader(files(tmp_path, [pixels(-500, 500), pixels(0, 90)], [{}, {"RescaleSlope": 2}]))
    alone = found.read_many([0, 1])
    for a, b in zip(alone, found.read_together([0, 1]), strict=True):
        assert torch.equal(a.image, b.image)
        assert (b.voi.voi, b.voi.window_center, b.voi.window_width) == ("file", 40, 400)


@pytest.mark.parametrize("second", [NO_WINDOW, {}])
def test_without_a_window_the_range_is_that_of_all_frames(tmp_path, second):
    backend = Counting()
    frames = [pixels(10, 20), pixels(0, 100)]
    found = reader(
        files(tmp_path, frames, [NO_WINDOW, {**second, "RescaleIntercept": -50}]), backend
    )
    out = torch.empty(2, 1, 5, 6)
    together = found.read_together([1, 0], out)
    assert backend.decoded == 2
    np.testing.assert_allclose(out[0, 0], (frames[1] - 50 + 50) / 100, atol=1e-6)
    np.testing.assert_allclose(out[1, 0], (frames[0] + 50) / 100, atol=1e-6)
    assert [frame.voi.voi for frame in together] == ["sample", "sample"]
    assert together[0].image.data_ptr() == out.data_ptr()


def test_padding_is_not_measured(tmp_path):
    frames = [pixels(10, 20), pixels(0, 100)]
    frames[0][0, 0] = -2000
    attributes = [{**NO_WINDOW, "PixelPaddingValue": -2000}, NO_WINDOW]
    first, second = reader(files(tmp_path, frames, attributes)).read_together([0, 1])
    assert first.image[0, 0, 0] == 0
    np.testing.assert_allclose(
        first.image[0].flatten()[1:], frames[0].flatten()[1:] / 100, atol=1e-6
    )
    np.testing.assert_allclose(second.image[0], frames[1] / 100, atol=1e-6)


@pytest.mark.parametrize(
    "options", [{"window": (40, 400)}, {"window": "lung"}, {"values": "modality"}]
)
def test_what_the_user_fixed_stays(tmp_path, options):
    found = reader(files(tmp_path, [pixels(-900, 0), pixels(0, 90)], [NO_WINDOW, {}]), **options)
    for a, b in zip(found.read_many([0, 1]), found.read_together([0, 1]), strict=True):
        assert torch.equal(a.image, b.image)
        assert a.voi == b.voi


def test_each_channel_has_its_mapping(tmp_path):
    found = reader(
        files(tmp_path, [pixels(0, 10), pixels(0, 90)], [NO_WINDOW] * 2), window=[None, (40, 81)]
    )
    (first, second) = found.read_together([0, 1])
    np.testing.assert_allclose(first.image[0], pixels(0, 10) / 90, atol=1e-6)
    np.testing.assert_allclose(
        second.image[1], np.clip((pixels(0, 90) - 39.5) / 80 + 0.5, 0, 1), atol=1e-6
    )


@pytest.mark.parametrize("how", ["minmax", "zscore", "percentile"])
def test_statistics_are_those_of_all_frames(tmp_path, how):
    frames = [pixels(-100, 300), pixels(500, 900), pixels(-30, 90)]
    frames[1][2, 3] = -2000
    backend = Counting()
    padded = {"PixelPaddingValue": -2000}
    found = reader(
        files(tmp_path, frames, [{}, padded, {}]), backend, values="modality", normalize=how
    )
    images = torch.stack([frame.image for frame in found.read_together([0, 1, 2])])[:, 0].numpy()
    assert backend.decoded == 3
    whole = np.stack(frames).astype(np.float64)
    counted = whole[whole > -2000]
    if how == "zscore":
        expected = (whole - counted.mean()) / counted.std()
    else:
        low, high = (
            np.percentile(counted, [1, 99])
            if how == "percentile"
            else (counted.min(), counted.max())
        )
        expected = np.clip((whole - low) / (high - low), 0, 1)
    expected[whole == -2000] = 0
    np.testing.assert_allclose(images, expected, atol=1e-5)


@pytest.mark.parametrize("values", ["modality", "stored"])
def test_padding_gets_the_lowest_value_of_all_frames(tmp_path, values):
    frames = [pixels(-100, 300), pixels(-1000, 900)]
    for each in frames:
        each[2, 3] = -2000
    found = reader(
        files(tmp_path, frames, [{"PixelPaddingValue": -2000}] * 2), values=values, padding="fill"
    )
    alone = [frame.image[0, 2, 3].item() for frame in found.read_many([0, 1])]
    assert alone == [-100, -1000]
    for frame, stored in zip(found.read_together([0, 1]), frames, strict=True):
        expected = np.where(stored == -2000, -1000, stored)
        np.testing.assert_array_equal(frame.image[0], expected)


def test_borders_get_the_lowest_value_of_all_frames(tmp_path):
    found = reader(
        files(tmp_path, [CONSTANT, CONSTANT - 1050], [{}, {}]), values="modality", size=(6, 6)
    )
    first, second = found.read_together([0, 1])
    assert first.image[0, :, 0].tolist() == [50] * 5 + [-1000]
    assert second.image.unique().tolist() == [-1000]
    (first, second) = found.read_many([0, 1])
    assert first.image.unique().tolist() == [50]


def test_colour_has_no_padding(tmp_path):
    colour = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    dataset = ct(colour[..., 0], PixelPaddingValue=0)
    dataset.SamplesPerPixel, dataset.PlanarConfiguration = 3, 0
    dataset.PhotometricInterpretation, dataset.PixelData = "RGB", colour.tobytes()
    del dataset.WindowCenter, dataset.WindowWidth
    write(dataset, tmp_path / "rgb.dcm")
    found = reader(tmp_path, values="modality", normalize="zscore")
    expected = ((colour - colour.mean()) / colour.std()).transpose(2, 0, 1)
    for (frame,) in (found.read_many([0]), found.read_together([0])):
        np.testing.assert_allclose(frame.image, expected, atol=1e-5)


def test_errors_name_the_frame(tmp_path):
    imagecodecs = pytest.importorskip("imagecodecs")
    for k in range(3):
        stream = imagecodecs.jpeg2k_encode(pixels(0, 90), codecformat="j2k", reversible=True)
        stream = stream[: len(stream) // 3] if k else stream
        write(
            encapsulated(ct(pixels(0, 90), k, WindowWidth=100 + k), [stream]), tmp_path / f"{k}.dcm"
        )
    with pytest.raises(DecodeError, match=r"2\.dcm, frame 0"):
        reader(tmp_path).read_together([0, 2, 1])
    with pytest.raises(DecodeError, match=r"1\.dcm, frame 0"):
        reader(tmp_path, values="modality", normalize="zscore").read_together([0, 1, 2])
    with pytest.raises(PixelValueError, match=r"0\.dcm, frame 0 .*real world values"):
        reader(tmp_path, values="real_world").read_together([0, 1, 2])
    found = reader(tmp_path)
    (tmp_path / "0.dcm").unlink()
    with pytest.raises(StaleIndexError, match=r"0\.dcm"):
        found.read_together([0])
