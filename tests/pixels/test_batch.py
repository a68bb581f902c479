"""Late conversion: the same values as while reading, whatever the plan."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Subset

from dicomtorch import DicomFrames
from dicomtorch.batches.loader import FrameLoader
from dicomtorch.errors import OptionError, PixelValueError
from dicomtorch.model.frame import FrameValues, LookupTable
from dicomtorch.model.image import ImagePixel
from dicomtorch.model.options import PixelOptions
from dicomtorch.pixels import frame as pixels
from dicomtorch.pixels.batch import Conversion, convert, convert_together
from dicomtorch.pixels.plan import make_plan
from tests.support.phantoms import ct, ct_pixels, write, write_series

TS = "1.2.840.10008.1.2.1"
SHAPE = (24, 32)


def lut(first: int, count: int, bits: int) -> LookupTable:
    data = np.random.default_rng(count).integers(0, 1 << bits, count).astype(np.uint16)
    return LookupTable(first, bits, data)


def about(bits: int = 16, signed: int = 1, samples: int = 1, **values: Any) -> FrameValues:
    interpretation = values.pop("photometric", "MONOCHROME2" if samples == 1 else "RGB")
    pixel = ImagePixel(
        TS, *SHAPE, samples_per_pixel=samples, photometric_interpretation=interpretation,
        bits_allocated=16 if bits > 8 else 8, bits_stored=bits, high_bit=bits - 1,
        pixel_representation=signed,
    )  # fmt: skip
    return FrameValues(pixel, modality=values.pop("modality", "CT"), **values)


KINDS: dict[str, FrameValues] = {
    "window": about(rescale_slope=1.0, rescale_intercept=-1024.0, windows=((40.0, 400.0),)),
    "narrow": about(rescale_slope=0.25, rescale_intercept=-1024.5, windows=((-1000.0, 1.5),)),
    "far": about(rescale_slope=17.3, rescale_intercept=3e5, windows=((3e5, 10.0),)),
    "exact": about(windows=((5.0, 0.5),), voi_lut_function="LINEAR_EXACT"),
    "monochrome1": about(12, 0, windows=((2000.0, 3000.0),), photometric="MONOCHROME1"),
    "sigmoid": about(windows=((40.0, 400.0),), voi_lut_function="SIGMOID"),
    "step": about(windows=((40.0, 1.0),)),
    "range": about(rescale_slope=2.0, rescale_intercept=7.0),
    "padded range": about(rescale_slope=2.0, padding=(-2000.0, -500.0)),
    "padded": about(padding=(100.0, 100.0), windows=((40.0, 400.0),)),
    "padding outside": about(padding=(-2000.0, -2000.0), windows=((40.0, 400.0),)),
    "modality lut": about(12, 0, modality_lut=lut(-5, 300, 16), windows=((30000.0, 9000.0),)),
    "modality lut range": about(12, 0, modality_lut=lut(-5, 300, 16)),
    "voi lut": about(12, 0, rescale_slope=1.0, rescale_intercept=-10.0, voi_luts=(lut(-3, 900, 10),)),
    "full": about(8, 0),
    "palette": about(8, 0, photometric="PALETTE COLOR", palette=(lut(0, 256, 16), lut(1, 200, 16), lut(0, 256, 16))),
    "supplemental": about(
        12, 0, windows=((500.0, 900.0),), pixel_presentation="COLOR",
        palette=(lut(900, 200, 8), lut(900, 200, 8), lut(900, 200, 8)),
    ),
    "binary": about(8, 0, segmentation_type="BINARY", modality="SEG"),
    "labels": about(8, 0, segmentation_type="LABELMAP", modality="SEG"),
    "rgb": about(8, 0, 3),
}  # fmt: skip


def stored_values(values: FrameValues, seed: int = 0) -> np.ndarray[Any, Any]:
    pixel = values.pixel
    low = -(1 << (pixel.bits_stored - 1)) if pixel.pixel_representation else 0
    high = low + (1 << pixel.bits_stored)
    rng = np.random.default_rng(seed)
    stored = rng.integers(low, high, pixel.shape).astype(pixel.stored_dtype)
    # Many of the values where windows and padding are.
    stored[::2] = np.clip(rng.integers(-100, 200, stored[::2].shape), low, high - 1)
    return stored


def as_batch(stored: np.ndarray[Any, Any], dtype: torch.dtype) -> torch.Tensor:
    planes = stored[None] if stored.ndim == 2 else stored.transpose(2, 0, 1)
    return torch.from_numpy(planes.astype(np.int64)).to(dtype)[None]


OPTIONS = [
    PixelOptions("modality"),
    PixelOptions("modality", padding="fill"),
    PixelOptions("modality", padding=-3.5),
    PixelOptions("modality", normalize="zscore"),
    PixelOptions("display"),
    PixelOptions("display", padding=0.5),
    PixelOptions("display", color="rgb"),
    PixelOptions("display", color="gray"),
    PixelOptions("display", window=(40, 400)),
    PixelOptions("display", window=[(40, 400), (-600, 1500), (7, 1)]),
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("kind", list(KINDS))
def test_equals_the_way_of_one_frame(kind: str, options: PixelOptions) -> None:
    values = KINDS[kind]
    stored = stored_values(values)
    try:
        plan = make_plan(values, options)
    except PixelValueError:
        pytest.skip("these options mean nothing for this kind of frame")
    expected, voi = pixels.apply(stored, values, options)
    for dtype in (torch.int16, torch.int32, torch.float64):
        if (
            dtype == torch.int16
            and values.pixel.bits_stored == 16
            and not values.pixel.pixel_representation
        ):
            continue
        for way in (convert, convert_together):
            result, applied = way(as_batch(stored, dtype), [Conversion(plan)])
            assert result.dtype == torch.float32
            assert dataclasses.astuple(applied[0]) == pytest.approx(
                dataclasses.astuple(voi), nan_ok=True
            )
            np.testing.assert_array_equal(result[0].numpy(), expected.numpy())


@pytest.mark.parametrize("bits", [20, 32])
def test_wide_integers(bits: int) -> None:
    pixel = ImagePixel(TS, *SHAPE, bits_allocated=32, bits_stored=bits, high_bit=bits - 1)
    values = FrameValues(pixel, rescale_slope=0.001, rescale_intercept=3.0)
    stored = np.random.default_rng(0).integers(0, 1 << bits, SHAPE).astype(np.uint32)
    for name in ("modality", "display"):
        options = PixelOptions(name)
        expected, _ = pixels.apply(stored, values, options)
        batch = torch.from_numpy(stored.astype(np.int64))[None, None]
        result, _ = convert_together(batch, [Conversion(make_plan(values, options))])
        np.testing.assert_array_equal(result[0].numpy(), expected.numpy())


MIXED = [
    "window",
    "sigmoid",
    "range",
    "padded",
    "voi lut",
    "monochrome1",
    "step",
    "padded range",
    "narrow",
]


@given(st.lists(st.sampled_from(MIXED), min_size=1, max_size=6), st.booleans())
def test_frames_of_a_batch_do_not_mix(kinds: list[str], fill: bool) -> None:
    options = PixelOptions("display", padding=0.25 if fill else "keep")
    stored = [stored_values(KINDS[kind], k) for k, kind in enumerate(kinds)]
    batch = torch.cat([as_batch(one, torch.int32) for one in stored])
    before = batch.clone()
    result, _ = convert_together(
        batch, [Conversion(make_plan(KINDS[kind], options)) for kind in kinds]
    )
    assert torch.equal(batch, before)
    for k, kind in enumerate(kinds):
        expected, _ = pixels.apply(stored[k], KINDS[kind], options)
        np.testing.assert_array_equal(result[k].numpy(), expected.numpy())


def test_all_padding() -> None:
    values = about(padding=(7.0, 7.0))
    stored = np.full(SHAPE, 7, np.int16)
    for options in (PixelOptions("display"), PixelOptions("modality", padding="fill")):
        expected, _ = pixels.apply(stored, values, options)
        result, _ = convert_together(
            as_batch(stored, torch.int16), [Conversion(make_plan(values, options))]
        )
        np.testing.assert_array_equal(result[0].numpy(), expected.numpy())


# --- Of a dataset -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("late")
    write_series(path / "windowed", 6)
    for k in range(5):
        dataset = ct(
            ct_pixels(k) + np.int16(50 * k),
            20 + k,
            RescaleSlope=2,
            RescaleIntercept=-k,
            PixelPaddingValue=7,
        )
        del dataset.WindowCenter, dataset.WindowWidth
        dataset.SeriesInstanceUID = "1.2.3"
        write(dataset, path / "unwindowed" / f"{k}.dcm")
    return path


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"values": "modality"},
        {"window": (40, 400), "color": "rgb"},
        {"window": "series"},
        {"window": [None, (40, 400)]},
        {"values": "modality", "normalize": "minmax"},
        {"values": "modality", "padding": "fill"},
    ],
    ids=str,
)
def test_equals_a_dataset_with_these_options(folder: Path, options: dict[str, Any]) -> None:
    stored, direct = DicomFrames(folder, values="stored"), DicomFrames(folder, **options)
    pairs = zip(
        DataLoader(Subset(stored, list(range(10, -1, -1))), 4),
        DataLoader(Subset(direct, list(range(10, -1, -1))), 4),
        strict=True,
    )
    for (images, meta), (expected, other) in pairs:
        assert images.dtype == torch.int16
        converted, late = stored.to_values(images, meta, **options)
        assert torch.equal(converted, expected)
        assert late["voi"] == other["voi"]
        torch.testing.assert_close(late["WindowCenter"], other["WindowCenter"], equal_nan=True)
        assert meta["voi"] == [""] * len(images)


def test_one_image(folder: Path) -> None:
    stored, direct = DicomFrames(folder, values="stored"), DicomFrames(folder)
    image, meta = stored.to_values(*stored[3])
    assert torch.equal(image, direct[3][0])
    assert {k: v for k, v in meta.items() if v == v} == {
        k: v for k, v in direct[3][1].items() if v == v
    }
    assert math.isnan(meta["FrameTime"])


def test_in_the_threads_of_a_loader(folder: Path) -> None:
    stored, direct = DicomFrames(folder, values="stored"), DicomFrames(folder)
    loader = FrameLoader(stored, 4, batch_transform=lambda batch: stored.to_values(*batch))
    for (images, _), (expected, _) in zip(loader, DataLoader(direct, 4), strict=True):
        assert torch.equal(images, expected)


def test_what_is_refused(folder: Path) -> None:
    direct = DicomFrames(folder)
    with pytest.raises(OptionError, match='needs a dataset with values="stored"'):
        direct.to_values(*direct[0:2])
    stored = DicomFrames(folder, values="stored")
    images, meta = stored[0:3]
    with pytest.raises(OptionError, match="meta is of 3 frames, images are 2"):
        stored.to_values(images[:2], meta)
    with pytest.raises(PixelValueError, match=r"\.dcm, frame 0 .*RealWorldValueMappingSequence"):
        stored.to_values(images, meta, values="real_world")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA is not available")
@pytest.mark.parametrize("kind", list(KINDS))
def test_cuda(kind: str) -> None:
    values = KINDS[kind]
    stored = stored_values(values)
    for options in (PixelOptions("display"), PixelOptions("modality", padding="fill")):
        expected, _ = pixels.apply(stored, values, options)
        batch = as_batch(stored, torch.int32).cuda()
        result, _ = convert(batch, [Conversion(make_plan(values, options))])
        assert result.is_cuda
        np.testing.assert_array_equal(result[0].cpu().numpy(), expected.numpy())
