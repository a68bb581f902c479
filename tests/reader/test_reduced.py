"""`decode="reduced"` against `decode="exact"`: position, level and noise, and which frames it leaves alone."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import torch
from pydicom.dataset import Dataset

from dicomtorch import DicomClips, DicomFrames, DicomVolumes
from dicomtorch.backends import codecs, low_pass
from dicomtorch.backends.base import get_backend
from dicomtorch.backends.reduced import block_means, decode_reduced, reduced_shape
from dicomtorch.errors import DecodeError, OptionError
from dicomtorch.model.image import ImagePixel
from dicomtorch.model.syntaxes import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    HTJ2K_LOSSLESS,
    JPEG_2000_LOSSLESS,
    JPEG_BASELINE,
    JPEG_LOSSLESS_SV1,
    RLE_LOSSLESS,
)
from tests.support import streams_by_encoders as encoders
from tests.support.phantoms import encapsulated, image, lut, write
from tests.support.requirements import require

Array = np.ndarray[Any, Any]


def radiograph(rows: int, columns: int, bits: int, *, signed: bool = False) -> Array:
    """Soft shapes, some edges, and twice the noise of a chest radiograph, over most of the range of `bits`."""
    chance = np.random.default_rng(rows * columns + bits)
    y, x = np.mgrid[0:rows, 0:columns]
    y, x = y / rows, x / columns
    tissue = 0.25 + 0.5 * np.exp(-(((y - 0.5) / 0.35) ** 2 + ((x - 0.4) / 0.3) ** 2))
    for cy, cx, radius in chance.uniform((0.1, 0.1, 0.02), (0.9, 0.9, 0.1), (25, 3)):
        tissue += 0.06 / (1 + np.exp((np.hypot(y - cy, x - cx) - radius) * 150))
    tissue += chance.normal(0, 0.006, (rows, columns))
    top = (1 << bits) - 1
    pixels = np.clip(np.rint(tissue * top), 0, top).astype(np.int64)
    low = -(1 << bits - 1) if signed else 0
    picture: Array = (pixels + low).astype(f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}")
    return picture


def dataset_of(pixels: Array, syntax: str, bits: int, **attributes: Any) -> Dataset:
    plain: dict[str, Any] = {"BitsStored": bits}
    if pixels.ndim == 3:
        plain |= {
            "SamplesPerPixel": 3,
            "PhotometricInterpretation": "RGB",
            "PlanarConfiguration": 0,
        }
        plain |= {"Rows": pixels.shape[0], "Columns": pixels.shape[1]}
    dataset = image(pixels, **(plain | attributes))
    if pixels.ndim == 3:
        del dataset.NumberOfFrames
    if syntax == EXPLICIT_VR_LITTLE_ENDIAN:
        return dataset
    if syntax == JPEG_BASELINE:
        return encapsulated(dataset, [encoders.jpeg_dct(pixels, bits)], syntax)
    source = pixels if syntax in encoders.SIGNED_STREAMS else encoders.unsigned(pixels, bits)
    return encapsulated(dataset, [encoders.LOSSLESS[syntax](source, bits)], syntax)


def htj2k_of(pixels: Array, bits: int) -> bytes:
    """Reversible, with a SIZ that says `bits`: the encoder takes the width of a word."""
    low = 0 if pixels.dtype.kind == "i" else 1 << bits - 1
    signed = (pixels.astype(np.int64) - low).astype(np.int16)
    data = bytearray(imagecodecs.htj2k_encode(signed, reversible=True))
    data[42] = bits - 1 | (0x80 if pixels.dtype.kind == "i" else 0)
    return bytes(data)


def both(path: Path, size: tuple[int, int], **options: Any) -> tuple[Array, Array, Any]:
    exact, meta = DicomFrames(path, size=size, **options)[0]
    assert meta["resized"][-1] == 1
    reduced, meta = DicomFrames(path, size=size, decode="reduced", **options)[0]
    assert exact.dtype == reduced.dtype
    assert exact.shape == reduced.shape
    return exact.numpy(), reduced.numpy(), meta


def shift_between(exact: Array, reduced: Array) -> Array:
    """(rows, columns) by which one picture has to be moved to give the other, by least squares."""
    inner = np.s_[4:-4, 4:-4]
    gradients = [gradient[inner].ravel() for gradient in np.gradient(exact)]
    (found, *_) = np.linalg.lstsq(
        np.stack(gradients, 1), (exact - reduced)[inner].ravel(), rcond=None
    )
    return np.asarray(found)


KINDS = [
    pytest.param(EXPLICIT_VR_LITTLE_ENDIAN, 12, id="native 12"),
    pytest.param(EXPLICIT_VR_LITTLE_ENDIAN, 16, id="native 16"),
    pytest.param(EXPLICIT_VR_LITTLE_ENDIAN, 8, id="native 8"),
    pytest.param(RLE_LOSSLESS, 12, id="RLE"),
    pytest.param(JPEG_LOSSLESS_SV1, 12, id="JPEG lossless"),
    pytest.param(JPEG_2000_LOSSLESS, 12, id="JPEG 2000"),
    pytest.param(HTJ2K_LOSSLESS, 12, id="HTJ2K 12"),
    pytest.param(HTJ2K_LOSSLESS, 16, id="HTJ2K 16"),
    pytest.param(HTJ2K_LOSSLESS, 8, id="HTJ2K 8"),
    pytest.param(JPEG_BASELINE, 8, id="JPEG"),
]


@pytest.mark.parametrize(("syntax", "bits"), KINDS)
@pytest.mark.parametrize("size", [(96, 96), (210, 210), (450, 450)])
@pytest.mark.parametrize("signed", [False, True])
def test_pictures_are_nearly_the_same_and_in_their_place(
    tmp_path: Path, syntax: str, bits: int, size: tuple[int, int], signed: bool
) -> None:
    """rms of at most 0.7 of 255, no bias above 0.05 of 255, and less than 0.02 pixels beside."""
    if signed and syntax == JPEG_BASELINE:
        pytest.skip("JPEG has no sign")
    pixels = radiograph(901, 703, bits, signed=signed)
    window = {"WindowCenter": float(round(pixels.mean())), "WindowWidth": float(1 << bits)}
    dataset = dataset_of(pixels, syntax, bits, **window)
    if syntax == HTJ2K_LOSSLESS:
        dataset = encapsulated(dataset, [htj2k_of(pixels, bits)], syntax)
    exact, reduced, meta = both(write(dataset, tmp_path / "case.dcm"), size)
    factor = {96: 8, 210: 4, 450: 2}[size[0]]
    assert meta["resized"][-1] == factor
    difference = 255 * (reduced[0] - exact[0])
    inside = np.s_[:, size[1] // 8 : -(size[1] // 8)]  # not the borders that keep the aspect
    assert np.sqrt(np.square(difference).mean()) <= 0.7
    assert abs(difference[inside].mean()) <= 0.05
    shift = shift_between(exact[0][inside], reduced[0][inside])
    assert np.abs(shift).max() < 0.02
    assert reduced.min() >= 0
    assert reduced.max() <= 1


@pytest.mark.parametrize("syntax", [EXPLICIT_VR_LITTLE_ENDIAN, JPEG_BASELINE])
@pytest.mark.parametrize("color", ["rgb", "gray"])
def test_colour(tmp_path: Path, syntax: str, color: str) -> None:
    planes = [radiograph(500, 403, 8) // (k + 1) for k in range(3)]
    pixels = np.ascontiguousarray(np.stack(planes, -1))
    dataset = dataset_of(pixels, syntax, 8)
    if syntax == JPEG_BASELINE:
        dataset.PhotometricInterpretation = "YBR_FULL_422"
    exact, reduced, meta = both(write(dataset, tmp_path / "case.dcm"), (100, 100), color=color)
    assert meta["resized"][-1] == 4
    assert 255 * np.sqrt(np.square(reduced - exact).mean()) <= 0.9
    assert 255 * abs((reduced - exact).mean()) <= 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_modality_values(tmp_path: Path, dtype: torch.dtype) -> None:
    pixels = radiograph(600, 480, 12)
    attributes = {"RescaleSlope": 2, "RescaleIntercept": -1024, "Modality": "CT"}
    dataset = dataset_of(pixels, EXPLICIT_VR_LITTLE_ENDIAN, 12, **attributes)
    path = write(dataset, tmp_path / "case.dcm")
    exact, reduced, _ = both(path, (150, 120), values="modality", dtype=dtype)
    assert abs(float((reduced - exact).astype(np.float64).mean())) < 0.5
    assert np.abs(reduced - exact)[0, 4:-4, 4:-4].max() < 8192 / 50
    exact, reduced, _ = both(path, (150, 120), values="modality", normalize=(1000.0, 500.0))
    assert np.sqrt(np.square(reduced - exact).mean()) < 0.05
    # The border gets the lowest value, as in "exact".
    _, reduced, _ = both(path, (150, 150), values="modality")
    assert (reduced[0, :, :10] == reduced.min()).all()


# --- Frames that are decoded whole ---------------------------------------------------------------


WHOLE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "stored values": ({}, {"values": "stored"}),
    "a range that the pixels decide": ({"WindowWidth": None}, {}),
    "a VOI LUT": ({"VOILUTSequence": [lut([4, 100, 8], b"\x00\x40\x80\xff")]}, {}),
    "padding": ({"PixelPaddingValue": 0}, {}),
    "minmax": ({}, {"values": "modality", "normalize": "minmax"}),
    "zscore": ({}, {"values": "modality", "normalize": "zscore"}),
}


@pytest.mark.parametrize("name", WHOLE)
def test_what_would_not_be_the_same_is_decoded_whole(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    attributes, options = WHOLE[name]
    pixels = radiograph(300, 256, 12)
    header = {"WindowCenter": 2048, "WindowWidth": 4096, **attributes}
    header = {keyword: value for keyword, value in header.items() if value is not None}
    dataset = dataset_of(pixels, EXPLICIT_VR_LITTLE_ENDIAN, 12, **header)
    with caplog.at_level("WARNING", "dicomtorch"):
        exact, reduced, meta = both(write(dataset, tmp_path / "case.dcm"), (64, 64), **options)
    np.testing.assert_array_equal(exact, reduced)
    assert meta["resized"][-1] == 1
    assert sum("are decoded whole" in record.getMessage() for record in caplog.records) == 1


def test_frames_that_are_hardly_made_smaller_are_decoded_whole(tmp_path: Path) -> None:
    pixels = radiograph(300, 256, 12)
    dataset = dataset_of(pixels, EXPLICIT_VR_LITTLE_ENDIAN, 12, WindowCenter=2048, WindowWidth=4096)
    path = write(dataset, tmp_path / "case.dcm")
    for size in ((200, 200), (400, 400)):
        exact, reduced, meta = both(path, size)
        np.testing.assert_array_equal(exact, reduced)
        assert meta["resized"][-1] == 1
    _, _, meta = both(path, (150, 128))
    assert meta["resized"][-1] == 2


def test_options() -> None:
    with pytest.raises(OptionError, match="needs size"):
        DicomFrames("nowhere", decode="reduced")
    with pytest.raises(OptionError, match="decode='half'"):
        DicomFrames("nowhere", decode="half", size=(8, 8))  # type: ignore[call-overload]
    with pytest.raises(OptionError, match="context"):
        DicomFrames("nowhere", decode="reduced", size=(8, 8), context=1)


# --- The low-pass bands ---------------------------------------------------------------------------


def low_passed(pixels: Array, bits: int, levels: int) -> Any:
    pixel = encoders.pixel_of(pixels, HTJ2K_LOSSLESS, bits, signed=pixels.dtype.kind == "i")
    found = get_backend("imagecodecs").decode_reduced(htj2k_of(pixels, bits), pixel, levels)  # type: ignore[attr-defined]
    assert found is not None
    assert found.samples.shape == reduced_shape(pixel, levels)
    return found


@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("shape", [(64, 64), (63, 65), (301, 403), (17, 9)])
def test_a_ramp_is_where_it_was(levels: int, shape: tuple[int, int]) -> None:
    ramp = np.add.outer(np.arange(shape[0]) * 4, np.arange(shape[1]) * 3).astype(np.uint16)
    found = low_passed(ramp, 12, levels)
    factor = 1 << levels
    assert (found.factor, found.offset) == (factor, 0.0)
    inner = np.s_[1:-1, 1:-1]
    expected = ramp[::factor, ::factor].astype(np.float32)
    assert np.abs(found.samples - expected)[inner].max(initial=0) <= 2.0
    means = block_means(ramp, levels)
    assert means.offset == (factor - 1) / 2
    whole = np.s_[: shape[0] // factor, : shape[1] // factor]
    middle = expected + means.offset * (4 + 3)
    np.testing.assert_allclose(means.samples[whole], middle[whole], atol=1e-3)


@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("signed", [False, True])
def test_constant_pictures_stay_what_they_are(levels: int, bits: int, signed: bool) -> None:
    low = -(1 << bits - 1) if signed else 0
    for level in (low, low + (1 << bits - 1), low + (1 << bits) - 1, low + 77):
        pixels = np.full((64, 72), level).astype(f"{'i' if signed else 'u'}{1 if bits == 8 else 2}")
        found = low_passed(pixels, bits, levels)
        assert np.abs(found.samples - level).max() <= 0.5 * levels + 0.5


@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("bits", [8, 12, 15, 16])
@pytest.mark.parametrize("signed", [False, True])
def test_overshoot_at_edges_is_clamped(levels: int, bits: int, signed: bool) -> None:
    """Blocks of the whole range, whose low-pass bands go beyond it."""
    low = -(1 << bits - 1) if signed else 0
    high = low + (1 << bits) - 1
    board = np.add.outer(np.arange(192) // 12 % 2, np.arange(160) // 20 % 2) % 2
    pixels = np.where(board, high, low).astype(f"{'i' if signed else 'u'}{1 if bits == 8 else 2}")
    found = low_passed(pixels, bits, levels)
    assert found.samples.min() >= low
    assert found.samples.max() <= high
    means = block_means(pixels, levels).samples
    # No pixel on the other side of the middle where a block is of one colour.
    one = (means == low) | (means == high)
    wrong = (found.samples > (low + high) / 2) != (means > (low + high) / 2)
    assert not (wrong & one).any()


class _Newer:
    """imagecodecs whose JPEG 2000 takes `skipres`, as from 2026.10.10 on: the same OpenJPEG, by way of Pillow."""

    def __getattr__(self, name: str) -> Any:
        return getattr(imagecodecs, name)

    @staticmethod
    def jpeg2k_decode(
        data: bytes, /, *, skipres: int = 0, numthreads: int | None = None, out: Any = None
    ) -> Any:
        pil = pytest.importorskip("PIL.Image")
        picture = pil.open(io.BytesIO(bytes(data)))
        picture.reduce = skipres
        picture.load()
        samples = np.asarray(picture)
        if samples.dtype.itemsize == 2:  # Pillow moves samples to the top of the word
            samples = samples >> (15 - data[42])
        assert out.shape == samples.shape
        out[...] = samples
        return out


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize(("size", "factor"), [(96, 8), (210, 4), (440, 2)])
def test_jpeg_2000_where_imagecodecs_skips_resolutions(
    tmp_path: Path, bits: int, size: int, factor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = radiograph(896, 704, bits)
    window = {"WindowCenter": 1 << bits - 1, "WindowWidth": 1 << bits}
    path = write(dataset_of(pixels, JPEG_2000_LOSSLESS, bits, **window), tmp_path / "case.dcm")
    exact, _ = DicomFrames(path, size=(size, size))[0]
    if not low_pass.skips_resolutions():
        monkeypatch.setattr(codecs, "library", _Newer)
        monkeypatch.setattr(low_pass, "skips_resolutions", lambda: True)
    pixel = encoders.pixel_of(pixels, JPEG_2000_LOSSLESS, bits)
    data = encoders.jpeg_2000(pixels, bits)
    levels = factor.bit_length() - 1
    found = get_backend("imagecodecs").decode_reduced(data, pixel, levels)  # type: ignore[attr-defined]
    assert (found.factor, found.offset) == (factor, 0.0)
    reduced, meta = DicomFrames(path, size=(size, size), decode="reduced")[0]
    assert meta["resized"][-1] == factor
    inside = np.s_[:, size // 8 : -(size // 8)]
    difference = 255 * (reduced[0] - exact[0]).numpy()
    assert np.sqrt(np.square(difference).mean()) <= 0.7
    assert abs(difference[inside].mean()) <= 0.05
    shift = shift_between(exact[0].numpy()[inside], reduced[0].numpy()[inside])
    assert np.abs(shift).max() < 0.02


def test_streams_that_cannot_be_reduced_are_decoded_whole() -> None:
    pixels = radiograph(96, 80, 12)
    pixel = encoders.pixel_of(pixels, HTJ2K_LOSSLESS, 12)
    backend = get_backend("imagecodecs")
    data = htj2k_of(pixels, 12)
    flat = imagecodecs.htj2k_encode(pixels, reversible=True, level=None)
    cases = {
        "header of fewer bits": (data, encoders.pixel_of(pixels, HTJ2K_LOSSLESS, 11)),
        "9/7": (bytes(imagecodecs.htj2k_encode(pixels, reversible=False)), pixel),
        "signed header": (data, encoders.pixel_of(pixels, HTJ2K_LOSSLESS, 12, signed=True)),
    }
    assert flat
    for name, (stream, header) in cases.items():
        assert backend.decode_reduced(stream, header, 2) is None, name  # type: ignore[attr-defined]
        found = decode_reduced(backend, stream, header, 2, None)
        expected = block_means(backend.decode(stream, header), 2)
        np.testing.assert_array_equal(found.samples, expected.samples)


def test_damaged_streams_are_refused() -> None:
    pixels = radiograph(96, 80, 12)
    pixel = encoders.pixel_of(pixels, HTJ2K_LOSSLESS, 12)
    data = htj2k_of(pixels, 12)
    backend = get_backend("imagecodecs")
    with pytest.raises(DecodeError):
        decode_reduced(backend, data[: len(data) // 2], pixel, 1, None)
    with pytest.raises(DecodeError, match="96 rows"):
        decode_reduced(backend, data, encoders.pixel_of(pixels[:90], HTJ2K_LOSSLESS, 12), 1, None)


@pytest.mark.parametrize("subsampling", ["444", "420", "422"])
def test_jpeg_by_scaled_dct(subsampling: str) -> None:
    require("simplejpeg")
    planes = [radiograph(301, 403, 8) // (k + 1) for k in range(3)]
    pixels = np.ascontiguousarray(np.stack(planes, -1))
    data = bytes(imagecodecs.jpeg8_encode(pixels, level=95, subsampling=subsampling))
    pixel = encoders.pixel_of(pixels, JPEG_BASELINE, 8, photometric_interpretation="YBR_FULL_422")
    backend = get_backend("imagecodecs")
    found = backend.decode_reduced(data, pixel, 2)  # type: ignore[attr-defined]
    if subsampling == "422":
        assert found is None
        return
    expected = block_means(backend.decode(data, pixel), 2)
    assert found.offset == expected.offset
    assert np.sqrt(np.square(found.samples - expected.samples).mean()) < 1.2


def test_without_simplejpeg_jpeg_is_decoded_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(low_pass, "_simplejpeg", lambda: None)
    pixels = radiograph(64, 64, 8)
    pixel = encoders.pixel_of(pixels, JPEG_BASELINE, 8)
    data = encoders.jpeg_dct(pixels, 8)
    backend = get_backend("imagecodecs")
    assert backend.decode_reduced(data, pixel, 1) is None  # type: ignore[attr-defined]
    assert decode_reduced(backend, data, pixel, 1, None).offset == 0.5


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2"])
@pytest.mark.parametrize("shape", [(64, 64), (63, 65), (7, 9), (5, 3), (1, 1), (2, 17), (700, 900)])
def test_block_means(dtype: str, shape: tuple[int, int]) -> None:
    info = np.iinfo(dtype)
    pixels = np.random.default_rng(1).integers(info.min, info.max, shape, dtype, endpoint=True)
    for levels in (1, 2, 3):
        factor = 1 << levels
        rows, columns = (-(-length // factor) * factor for length in shape)
        padded = np.full((rows, columns), np.nan)
        padded[: shape[0], : shape[1]] = pixels
        blocks = padded.reshape(rows // factor, factor, columns // factor, factor)
        expected = np.nanmean(blocks, (1, 3))
        found = block_means(pixels, levels).samples
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=2e-2)


# --- With the rest of the reader -----------------------------------------------------------------


@pytest.mark.parametrize("syntax", [HTJ2K_LOSSLESS, JPEG_LOSSLESS_SV1])
def test_the_cache_keeps_what_was_decoded_apart(
    tmp_path: Path, syntax: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = radiograph(400, 320, 16)
    dataset = dataset_of(pixels, syntax, 16, WindowCenter=32768, WindowWidth=65536)
    path = write(dataset, tmp_path / "files" / "case.dcm")
    ways: list[dict[str, Any]] = [
        {"size": (100, 80)},
        {"size": (100, 80), "decode": "reduced"},
        {"size": (50, 40), "decode": "reduced"},
        {},
    ]
    plain = [DicomFrames(path, **options)[0][0] for options in ways]
    cached = [DicomFrames(path, cache=tmp_path / "cache", **options)[0][0] for options in ways]
    backend = type(get_backend("imagecodecs"))

    def never(*_: object, **__: object) -> None:
        raise AssertionError("it is in the cache")

    monkeypatch.setattr(backend, "decode", never)
    monkeypatch.setattr(backend, "decode_reduced", never)
    again = [DicomFrames(path, cache=tmp_path / "cache", **options)[0][0] for options in ways]
    for first, second, third in zip(plain, cached, again, strict=True):
        assert torch.equal(first, second)
        assert torch.equal(first, third)


def test_batches_workers_and_pickles(tmp_path: Path) -> None:
    for k, shape in enumerate(((400, 320), (96, 80), (800, 640))):
        pixels = radiograph(*shape, 12)
        dataset = dataset_of(pixels, HTJ2K_LOSSLESS, 12, WindowCenter=2048, WindowWidth=4096)
        dataset = encapsulated(dataset, [htj2k_of(pixels, 12)], HTJ2K_LOSSLESS)
        dataset.SOPInstanceUID = f"1.2.{k}"
        write(dataset, tmp_path / f"{k}.dcm")
    frames = DicomFrames(tmp_path, size=(100, 80), decode="reduced")
    images, meta = frames[:]
    assert sorted(meta["resized"][:, -1].tolist()) == [1, 4, 8]
    assert frames.factors() == {1: 1, 4: 1, 8: 1}
    assert "1 whole, 1 at 1/4, 1 at 1/8" in frames._repr_html_()
    assert DicomFrames(tmp_path).factors() == {1: 3}
    alone = torch.stack([frames[k][0] for k in range(3)])
    assert torch.equal(images, alone)
    assert torch.equal(pickle.loads(pickle.dumps(frames))[:][0], images)
    loader = torch.utils.data.DataLoader(frames, batch_size=3, num_workers=1)
    (batch, _), *_ = loader
    assert torch.equal(batch, images)


@pytest.mark.parametrize("name", ["pydicom", "simpleitk"])
def test_backends_that_decode_whole_frames_give_means(tmp_path: Path, name: str) -> None:
    require(name)
    pixels = radiograph(400, 320, 12)
    dataset = dataset_of(pixels, JPEG_2000_LOSSLESS, 12, WindowCenter=2048, WindowWidth=4096)
    path = write(dataset, tmp_path / "case.dcm")
    pixel = ImagePixel(JPEG_2000_LOSSLESS, 400, 320, bits_stored=12, high_bit=11)
    if not get_backend(name).supports(pixel):
        pytest.skip(f"{name} says that it does not decode this")
    exact, reduced, meta = both(path, (100, 80), backend=name)
    assert meta["resized"][-1] == 4
    assert 255 * np.sqrt(np.square(reduced - exact).mean()) <= 0.7


def slices(folder: Path, count: int, **attributes: Any) -> Path:
    """A series of HTJ2K slices, larger than those of CT."""
    for k in range(count):
        pixels = radiograph(400, 320, 12) + k
        window = {"WindowCenter": 2048, "WindowWidth": 4096, **attributes}
        window = {keyword: value for keyword, value in window.items() if value is not None}
        dataset = dataset_of(pixels, HTJ2K_LOSSLESS, 12, **window)
        dataset = encapsulated(dataset, [htj2k_of(pixels, 12)], HTJ2K_LOSSLESS)
        dataset.SOPInstanceUID = f"1.2.{k}"
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        dataset.ImagePositionPatient = [0, 0, 2 * k]
        dataset.PixelSpacing = [0.5, 0.5]
        write(dataset, folder / f"{k}.dcm")
    return folder


def test_volumes_and_clips(tmp_path: Path) -> None:
    slices(tmp_path, 3)
    frames = DicomFrames(tmp_path, size=(100, 80), decode="reduced")[:][0]
    volume, meta = DicomVolumes(tmp_path, size=(100, 80), decode="reduced")[0]
    assert meta["resized"][-1] == 4
    assert torch.equal(volume, frames.movedim(0, 1))
    exact, meta = DicomVolumes(tmp_path, size=(100, 80))[0]
    assert meta["resized"][-1] == 1
    assert not torch.equal(exact, volume)
    assert 255 * (exact - volume).square().mean().sqrt() <= 0.7
    clips = DicomClips(tmp_path, 1, size=(100, 80), decode="reduced")
    clip, meta = clips[0]
    assert meta["resized"][-1] == 4
    assert torch.equal(clip[0], frames[0])


@pytest.mark.parametrize(
    ("attributes", "options"),
    [
        pytest.param({"WindowWidth": None}, {}, id="no window"),
        pytest.param({}, {"values": "modality", "size": (100, 100)}, id="borders of one value"),
    ],
)
def test_volumes_whose_slices_have_a_value_in_common_are_decoded_whole(
    tmp_path: Path,
    attributes: dict[str, Any],
    options: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    slices(tmp_path, 3, **attributes)
    options = {"size": (100, 80), **options}
    exact, _ = DicomVolumes(tmp_path, **options)[0]
    with caplog.at_level("WARNING", "dicomtorch"):
        volume, meta = DicomVolumes(tmp_path, decode="reduced", **options)[0]
    assert torch.equal(volume, exact)
    assert meta["resized"][-1] == 1
    assert sum("decoded whole" in record.getMessage() for record in caplog.records) == 1
