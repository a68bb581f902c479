"""Mean and deviation of channels: measured, and taken out of samples."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from dicomtorch import DicomClips, DicomCrops, DicomFrames, DicomVolumes
from dicomtorch.errors import DicomTorchError, OptionError
from tests.support.phantoms import ct, ct_pixels, write, write_series

IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("standardize") / "series"
    write_series(folder, 6)
    return folder


def by_hand(images: Any, mean: Any, std: Any, axis: int) -> Any:
    """As torchvision's Normalize has it."""
    shape = [1] * images.ndim
    shape[axis] = -1
    means, deviations = (torch.tensor(numbers).view(shape) for numbers in (mean, std))
    return (images - means) / deviations


def test_the_recipe_of_imagenet(series: Path) -> None:
    plain = DicomFrames(series, color="rgb")
    frames = DicomFrames(series, color="rgb", normalize=IMAGENET)
    expected = by_hand(plain[:][0], *IMAGENET, 1)
    torch.testing.assert_close(frames[:][0], expected)
    torch.testing.assert_close(frames[3][0], expected[3])
    assert torch.equal(plain[3][0], plain[3][0].clamp(0, 1))
    for num_workers in (0, 2):
        loader = DataLoader(frames, batch_size=6, num_workers=num_workers)
        torch.testing.assert_close(next(iter(loader))[0], expected)
    samples = frames.__getitems__([0, 1])
    assert torch.utils.data.default_collate(samples)[0] is samples.images


@pytest.mark.parametrize(
    "normalize",
    [(0.5, 0.25), ([0.5], [0.25]), (np.float32(0.5), 0.25), (torch.tensor([0.5]), 0.25)],
)
def test_one_mean_for_all_channels(series: Path, normalize: Any) -> None:
    options: Any
    for options in ({}, {"color": "rgb"}, {"window": [(40, 400), "lung"]}):
        frames = DicomFrames(series, normalize=normalize, **options)
        expected = (DicomFrames(series, **options)[:][0] - 0.5) / 0.25
        torch.testing.assert_close(frames[:][0], expected)


def test_windows_context_and_modality_values(series: Path) -> None:
    two = ([0.1, 0.2], [0.5, 0.25])
    options: dict[str, Any] = {"window": [(40, 400), "lung"]}
    plain, frames = DicomFrames(series, **options), DicomFrames(series, normalize=two, **options)
    torch.testing.assert_close(frames[:][0], by_hand(plain[:][0], *two, 1))
    plain = DicomFrames(series, context=1, **options)
    frames = DicomFrames(series, context=1, normalize=two, **options)
    torch.testing.assert_close(
        frames[2][0], by_hand(plain[2][0], [0.1, 0.2] * 3, [0.5, 0.25] * 3, 0)
    )
    plain = DicomFrames(series, values="modality")
    frames = DicomFrames(series, values="modality", normalize=([100.0], [50.0]))
    torch.testing.assert_close(frames[:][0], (plain[:][0] - 100) / 50)
    torch.testing.assert_close(
        frames[0][0], DicomFrames(series, values="modality", normalize=(100, 50))[0][0]
    )


def test_every_dataset(series: Path) -> None:
    uid = DicomFrames(series).index.column("SeriesInstanceUID")[0]
    table = {"SeriesInstanceUID": [uid], "x": [0.0], "y": [0.0], "z": [0.0]}
    options: dict[str, Any] = {"color": "rgb"}
    made: list[tuple[Any, Any, int]] = [
        (DicomVolumes(series, **options), DicomVolumes(series, normalize=IMAGENET, **options), 0),
        (DicomClips(series, 1, **options), DicomClips(series, 1, normalize=IMAGENET, **options), 1),
        (
            DicomCrops(series, table, (2, 8, 8), **options),
            DicomCrops(series, table, (2, 8, 8), normalize=IMAGENET, **options),
            0,
        ),
    ]
    for plain, standardized, axis in made:
        expected = by_hand(plain[0][0], *IMAGENET, axis)
        torch.testing.assert_close(standardized[0][0], expected)
        torch.testing.assert_close(standardized[[0]][0][0], expected)


def test_late_values_too(series: Path) -> None:
    stored = DicomFrames(series, values="stored")
    images, _ = stored.to_values(*stored[:], color="rgb", normalize=IMAGENET)
    torch.testing.assert_close(
        images, DicomFrames(series, color="rgb", normalize=IMAGENET)[:][0], atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"normalize": IMAGENET}, "3 means and deviations, but these images have 1 channels"),
        ({"normalize": ([0.5, 0.5], [1, 1, 1])}, "as many finite means as deviations"),
        ({"normalize": ([0.5], [0.0])}, "above 0"),
        ({"normalize": ([math.nan], [1.0])}, "finite"),
        ({"normalize": ("a", "b")}, "is not a mean and a standard deviation"),
        ({"normalize": ([[0.5]], [[1.0]])}, "is not a mean and a standard deviation"),
        ({"normalize": ([], [])}, "is not a mean and a standard deviation"),
        ({"normalize": ([0.5], [1.0]), "values": "stored"}, "values='stored'"),
        ({"normalize": ([0.5], [1.0]), "dtype": "uint8"}, "floating point"),
        ({"normalize": "minmax"}, "acts on modality values"),
        ({"normalize": (1, 2, 3)}, "normalize"),
        ({"normalize": 5}, "normalize"),
    ],
)
def test_what_means_nothing(series: Path, options: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        DicomFrames(series, **options)


# --- Measured ---------------------------------------------------------------------------------------


def test_statistics_are_those_of_all_pixels(series: Path) -> None:
    options: Any
    for options in ({}, {"values": "modality"}, {"color": "rgb"}, {"values": "stored"}):
        frames = DicomFrames(series, **options)
        images = frames[:][0].double()
        found = frames.statistics()
        assert found.frames == 6
        np.testing.assert_allclose(found.mean, images.mean((0, 2, 3)), rtol=1e-6)
        np.testing.assert_allclose(found.std, images.std((0, 2, 3), correction=0), rtol=1e-6)
    mean, std, _ = DicomFrames(series, window=["bone", "lung"]).statistics()
    again = DicomFrames(series, window=["bone", "lung"], normalize=(mean, std))[:][0].double()
    np.testing.assert_allclose(again.mean((0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(again.std((0, 2, 3), correction=0), 1, atol=1e-5)


def test_a_fraction_is_drawn_from_the_seed(series: Path) -> None:
    frames = DicomFrames(series, normalize=(0.5, 0.5), transform=lambda image: image * 100)
    half = frames.statistics(0.5)
    assert half.frames == 3
    assert half == frames.statistics(0.5)
    assert len({frames.statistics(0.5, seed=k).mean for k in range(8)}) > 1
    assert frames.statistics(1e-9).frames == 1
    assert 0 <= half.mean[0] <= 1
    for wrong in (0, -1, 1.5, math.nan):
        with pytest.raises(OptionError, match="fraction"):
            frames.statistics(wrong)


def test_padding_is_left_out(tmp_path: Path) -> None:
    pixels = ct_pixels()
    pixels[:, :10] = -2000
    write(ct(pixels, PixelPaddingValue=-2000), tmp_path / "a.dcm")
    inside = pixels[:, 10:].astype(np.float64)
    found = DicomFrames(tmp_path, values="modality").statistics()
    np.testing.assert_allclose(found.mean, [inside.mean()])
    np.testing.assert_allclose(found.std, [inside.std()])
    shown = np.clip((inside - 39.5) / 399 + 0.5, 0, 1)
    np.testing.assert_allclose(DicomFrames(tmp_path).statistics().mean, [shown.mean()], rtol=1e-5)


def test_frames_that_cannot_be_read_or_differ_in_channels(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "a", 3)
    frames = DicomFrames(tmp_path / "a", on_error="replace")
    strict = DicomFrames(tmp_path / "a")
    paths[1].unlink()
    assert frames.statistics().frames == 2
    with pytest.raises(DicomTorchError, match=r"001\.dcm"):
        strict.statistics()
    write_series(tmp_path / "b", 1)
    colour = ct(np.zeros((24, 32), np.uint8), 5)
    colour.SamplesPerPixel, colour.PlanarConfiguration = 3, 0
    colour.PhotometricInterpretation = "RGB"
    colour.PixelData = bytes(24 * 32 * 3)
    write(colour, tmp_path / "b" / "colour.dcm")
    with pytest.raises(OptionError, match="1 and 3 channels"):
        DicomFrames(tmp_path / "b").statistics()
    assert len(DicomFrames(tmp_path / "b", color="rgb").statistics().mean) == 3
