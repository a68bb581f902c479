"""Frames by the compiled kernels: the same bits and words as without them, and nothing outside their buffers."""

from __future__ import annotations

import ctypes
import itertools
import os
import random
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import torch
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from torch.utils.data import DataLoader

from dicomtorch import (
    DicomClips,
    DicomCrops,
    DicomFrames,
    DicomVolumes,
    FrameLoader,
    FrameReader,
    PixelOptions,
    scan,
)
from dicomtorch.backends.base import get_backend
from dicomtorch.errors import DicomTorchError
from dicomtorch.pixels import linear
from dicomtorch.pixels.resize import resized
from dicomtorch.reader import kernels as k
from dicomtorch.reader import templates as t
from dicomtorch.storage.local import LocalStorage
from tests.support import kernel_jobs, spoil
from tests.support.kernel_jobs import both, without
from tests.support.phantoms import ct, ct_pixels, encapsulated, image, write, write_series

pytestmark = [pytest.mark.filterwarnings("ignore:.*PatientID:UserWarning")]


TYPES = ["i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8"]
SYNTAXES = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian]


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("dtype", TYPES)
def test_every_type_has_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: list[int], dtype: str, syntax: str
) -> None:
    rng = np.random.default_rng(0)
    kind = np.dtype(dtype)
    if kind.kind == "f":
        stored = rng.normal(0, 900, (3, 17, 23)).astype(kind)
        stored[0, 0, :4] = [np.nan, -0.0, 1e30, -1e30]
    else:
        ends = np.iinfo(kind)
        stored = rng.integers(ends.min, ends.max, (3, 17, 23), kind, endpoint=True)
    data = stored.astype(kind.newbyteorder(">")) if syntax == ExplicitVRBigEndian else stored
    keyword = {"f4": "FloatPixelData", "f8": "DoubleFloatPixelData"}.get(dtype, "PixelData")
    pixels: dict[str, Any] = {keyword: data.tobytes()}
    windowed: dict[str, Any] = {
        "RescaleSlope": 0.3,
        "RescaleIntercept": -7.7,
        "WindowCenter": 40,
        "WindowWidth": 90,
    }
    path = write(image(stored, syntax, **pixels, **windowed), tmp_path / "a.dcm")
    options: list[dict[str, Any]] = [
        {"values": "stored"},
        {"values": "modality"},
        {},
        {"window": (12.5, 3000)},
        {"normalize": (3.0, 17.0), "values": "modality"},
    ]
    for each in options:
        both(path, monkeypatch, **each)
    if not (syntax == ExplicitVRBigEndian and dtype in ("i4", "u4")):
        assert sum(counted) >= 9


@pytest.mark.parametrize("high_bit", [11, 13, 15])
@pytest.mark.parametrize("sign", [0, 1])
def test_unused_bits_are_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: list[int], high_bit: int, sign: int
) -> None:
    words = np.random.default_rng(1).integers(0, 1 << 16, (2, 40, 30), np.uint16, endpoint=False)
    about: dict[str, Any] = {
        "BitsStored": 12,
        "PixelRepresentation": sign,
        "RescaleSlope": -2.5,
        "RescaleIntercept": 1e6,
    }
    dataset = image(words, **about)
    dataset.HighBit = high_bit
    path = write(dataset, tmp_path / "a.dcm")
    both(path, monkeypatch, values="modality")
    stored = both(path, monkeypatch, values="stored")
    field = (words >> (high_bit - 11)) & 0xFFF
    expected = np.where(field >= 2048, field.astype(int) - 4096, field) if sign else field
    np.testing.assert_array_equal(stored[:, 0].numpy(), expected)
    assert sum(counted) == 4


@pytest.mark.parametrize("planar", [0, 1])
@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_colour_lies_in_planes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: list[int], planar: int, dtype: str
) -> None:
    rng = np.random.default_rng(2)
    stored = rng.integers(0, np.iinfo(dtype).max, (2, 21, 34, 3), dtype)
    dataset = image(np.zeros((2, 21, 34), dtype))
    dataset.SamplesPerPixel, dataset.PlanarConfiguration = 3, planar
    dataset.PhotometricInterpretation = "RGB"
    dataset.PixelData = (np.moveaxis(stored, -1, 1) if planar else stored).tobytes()
    path = write(dataset, tmp_path / "a.dcm")
    got = both(path, monkeypatch, values="stored")
    np.testing.assert_array_equal(got.numpy(), np.moveaxis(stored, -1, 1))
    both(path, monkeypatch)
    assert sum(counted) == 4


def test_blocks_join_without_a_seam(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: list[int]
) -> None:
    stored = np.random.default_rng(3).integers(-1000, 1000, (2, 901, 777), np.int16)
    path = write(image(stored, RescaleSlope=2.5, RescaleIntercept=-900.5), tmp_path / "a.dcm")
    both(path, monkeypatch, values="modality")
    assert sum(counted) == 2


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize(("samples", "planar"), [(1, 0), (3, 0), (3, 1)])
def test_stored_values_of_several_blocks_are_read_where_they_go(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    counted: list[int],
    syntax: str,
    samples: int,
    planar: int,
) -> None:
    stored = np.random.default_rng(3).integers(0, 1 << 16, (2, samples, 901, 777), np.uint16)
    order = np.dtype(">u2" if syntax == ExplicitVRBigEndian else "<u2")
    data = (stored if planar else np.moveaxis(stored, 1, -1)).astype(order)
    dataset = image(stored[:, 0], syntax, PixelData=data.tobytes())
    if samples > 1:
        dataset.SamplesPerPixel, dataset.PlanarConfiguration = samples, planar
        dataset.PhotometricInterpretation = "RGB"
    path = write(dataset, tmp_path / "a.dcm")
    got = both(path, monkeypatch, values="stored")
    np.testing.assert_array_equal(got.numpy(), stored)
    assert sum(counted) == 2


@pytest.mark.parametrize("shape", [(64, 96), (61, 83), (130, 9), (8, 8), (33, 400)])
@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2"])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_means_of_blocks_have_the_same_bits(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    counted: list[int],
    syntax: str,
    dtype: str,
    shape: tuple[int, int],
) -> None:
    rng, kind = np.random.default_rng(5), np.dtype(dtype)
    ends = np.iinfo(kind)
    stored = rng.integers(ends.min, ends.max, (2, *shape), kind, endpoint=True)
    data = stored.astype(kind.newbyteorder(">")) if syntax == ExplicitVRBigEndian else stored
    about: dict[str, Any] = {"RescaleSlope": -0.3, "RescaleIntercept": 7.7}
    path = write(image(stored, syntax, PixelData=data.tobytes(), **about), tmp_path / "a.dcm")
    for size in ((4, 4), (16, 20), (30, 3)):
        for each in ({"values": "modality"}, {"window": (12.5, 300)}, {"padding": 0.25}):
            both(path, monkeypatch, size=size, decode="reduced", **each)
    smallest = [size for size in ((4, 4), (16, 20), (30, 3)) if _is_smaller(shape, size)]
    assert sum(counted) == 4 * len(smallest)


def _is_smaller(shape: tuple[int, int], size: tuple[int, int]) -> bool:
    where = resized(*shape, size)
    return -(-shape[0] // 2) >= where.rows and -(-shape[1] // 2) >= where.columns


@pytest.mark.parametrize("planar", [0, 1])
def test_means_of_blocks_of_colour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: list[int], planar: int
) -> None:
    stored = np.random.default_rng(2).integers(0, 255, (2, 61, 34, 3), np.uint8)
    dataset = image(np.zeros((2, 61, 34), np.uint8))
    dataset.SamplesPerPixel, dataset.PlanarConfiguration = 3, planar
    dataset.PhotometricInterpretation = "RGB"
    dataset.PixelData = (np.moveaxis(stored, -1, 1) if planar else stored).tobytes()
    path = write(dataset, tmp_path / "a.dcm")
    got = both(path, monkeypatch, size=(15, 15), decode="reduced")
    means = torch.from_numpy(np.moveaxis(stored, -1, 1) / 255).mean((2, 3))
    np.testing.assert_allclose(got[:, :, :, 3:11].mean((2, 3)), means, atol=0.05)
    assert sum(counted) == 2


def test_means_of_twelve_bits_and_of_large_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: list[int]
) -> None:
    words = np.random.default_rng(1).integers(0, 1 << 16, (2, 700, 810), np.uint16)
    about: dict[str, Any] = {"BitsStored": 12, "PixelRepresentation": 1, "RescaleSlope": 1e-20}
    dataset = image(words, **about, WindowCenter=1e-18, WindowWidth=1e-17)
    dataset.HighBit = 13
    path = write(dataset, tmp_path / "a.dcm")
    for values in ("modality", "display"):
        both(path, monkeypatch, size=(90, 91), decode="reduced", values=values)
    assert sum(counted) == 4
    both(path, monkeypatch, size=(90, 91))
    both(path, monkeypatch, size=(90, 91), decode="reduced", window="series")
    assert sum(counted) == 4


def test_rows_too_long_for_a_block_are_left_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: list[int]
) -> None:
    for columns, calls in ((1 << 15, 1), ((1 << 15) + 8, 0)):
        wide = np.random.default_rng(1).integers(0, 99, (1, 16, columns), np.uint16)
        path = write(image(wide), tmp_path / f"{columns}.dcm")
        both(path, monkeypatch, size=(2, 4096), decode="reduced", values="modality")
        assert len(counted) == calls
        counted.clear()


def test_mixed_batches_and_what_kernels_leave_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: list[int]
) -> None:
    write_series(tmp_path, 3)
    stream = imagecodecs.jpeg2k_encode(ct_pixels(9), level=0, codecformat="j2k", reversible=True)
    write(encapsulated(ct(ct_pixels(9), 9), [bytes(stream)]), tmp_path / "j2k.dcm")
    padded = ct(ct_pixels(8), 8, PixelPaddingValue=-1000)
    padded["PixelPaddingValue"].VR = "SS"
    write(padded, tmp_path / "padded.dcm")
    both(tmp_path, monkeypatch, values="modality", padding=-1.0)
    assert counted == [3]
    both(tmp_path, monkeypatch)


def test_gray_in_three_channels_and_given_statistics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: list[int]
) -> None:
    stored = np.random.default_rng(3).integers(-1000, 1000, (2, 61, 77), np.int16)
    path = write(image(stored, RescaleSlope=2.5, RescaleIntercept=-900.5), tmp_path / "a.dcm")
    reduced: dict[str, Any] = {"size": (15, 15), "decode": "reduced"}
    sizes: list[dict[str, Any]] = [{}, reduced]
    for size in sizes:
        got = both(path, monkeypatch, color="rgb", window=(10, 900), **size)
        assert got.shape[1] == 3
        both(path, monkeypatch, values="modality", color="rgb", **size)
        both(path, monkeypatch, values="modality", normalize=(3.0, 17.0), **size)
        both(path, monkeypatch, values="modality", normalize=(3.0, 17.0), color="rgb", **size)
    assert counted == [2] * 8
    for odd in ((1e33, 1.0), (0.0, 1e-33)):
        both(path, monkeypatch, values="modality", normalize=odd)
    assert counted == [2] * 8


@pytest.mark.parametrize("size", [(24, 32), (5, 7)])
def test_what_codecs_gave_is_converted_by_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: Any, size: tuple[int, int]
) -> None:
    for number in range(3):
        pixels = ct_pixels(number, *size)
        stream = imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="j2k", reversible=True)
        about: dict[str, Any] = {"RescaleSlope": 2.5, "RescaleIntercept": -900.5}
        dataset = encapsulated(ct(pixels, number, **about), [bytes(stream)])
        write(dataset, tmp_path / f"{number}.dcm")
    options: list[dict[str, Any]] = [
        {"values": "stored"},
        {"values": "modality"},
        {},
        {"values": "modality", "normalize": (3.0, 17.0)},
        {"color": "rgb"},
    ]
    for number, each in enumerate(options, 1):
        both(tmp_path, monkeypatch, **each)
        assert counted.converted == 3 * number
    for each in ({"size": (9, 9)}, {"normalize": "zscore", "values": "modality"}):
        both(tmp_path, monkeypatch, **each)
    assert (counted, counted.converted) == ([], 3 * len(options))


def volume(paths: Any, monkeypatch: pytest.MonkeyPatch, **options: Any) -> torch.Tensor:
    """A volume, which must have the same bits without kernels."""
    image: torch.Tensor
    image, meta = DicomVolumes(paths, **options)[0]
    with monkeypatch.context() as inner:
        without(inner)
        expected, other = DicomVolumes(paths, **options)[0]
    assert image.numpy().tobytes() == expected.numpy().tobytes()
    for key in ("voi", "WindowCenter", "WindowWidth"):
        np.testing.assert_equal(meta[key], other[key])
    return image


def test_volumes_have_one_window_and_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: list[int]
) -> None:
    alike = write_series(tmp_path / "a", 5)
    volume(alike, monkeypatch)
    assert counted == [5]
    apart = [
        write(ct(ct_pixels(k), k, WindowCenter=40 + k), tmp_path / f"b{k}.dcm") for k in range(5)
    ]
    volume(apart, monkeypatch)
    assert counted == [5, 5]
    for each in ({"window": (1, 9)}, {"values": "modality", "normalize": (1.0, 9.0)}):
        volume(apart, monkeypatch, **each)
    assert counted == [5] * 4
    volume(apart, monkeypatch, values="modality", normalize="minmax")
    volume(apart, monkeypatch, size=(9, 9), values="modality")
    assert counted == [5] * 4


def test_neighbours_are_read_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: list[int]
) -> None:
    paths = [write(ct(ct_pixels(k), k, WindowCenter=40 + k), tmp_path / f"{k}") for k in range(6)]
    cases: list[tuple[dict[str, Any], list[int]]] = [
        ({}, [3, 5, 4]),
        ({"values": "modality"}, [5]),
    ]
    for options, calls in cases:
        frames = DicomFrames(paths, context=2, **options)
        images, meta = frames[[0, 2, 1]]
        assert counted == calls
        with monkeypatch.context() as inner:
            without(inner)
            expected, other = DicomFrames(paths, context=2, **options)[[0, 2, 1]]
        assert torch.equal(images, expected)
        np.testing.assert_array_equal(meta["WindowCenter"], other["WindowCenter"])
        counted.clear()


def test_every_loader_uses_them(tmp_path: Path, counted: list[int]) -> None:
    paths = write_series(tmp_path, 8)
    frames = DicomFrames(paths, values="modality")
    alone = torch.stack([frames[i][0] for i in range(8)])
    assert counted == [1] * 8
    for loader in (DataLoader(frames, 4), FrameLoader(frames, 4)):
        counted.clear()
        batches = torch.cat([images for images, _ in loader])
        assert torch.equal(batches, alone)
        assert sum(counted) == 8
    counted.clear()
    assert torch.equal(frames[[7, 0]][0], alone[[7, 0]])
    (volume,) = (DicomVolumes(paths, values="modality")[0][0],)
    assert torch.equal(volume[0], alone[:, 0])
    assert counted == [2, 8]


def test_forked_workers_use_them(tmp_path: Path, counted: list[int]) -> None:
    frames = DicomFrames(write_series(tmp_path, 8), values="modality")
    alone = torch.stack([frames[i][0] for i in range(8)])
    workers = DataLoader(frames, 4, num_workers=1)
    assert torch.equal(torch.cat([images.clone() for images, _ in workers]), alone)


def test_every_dataset_uses_them(tmp_path: Path, counted: list[int]) -> None:
    paths = write_series(tmp_path, 8)
    volumes = DicomVolumes(paths, values="modality")
    volume = volumes[0][0]
    assert counted == [8]
    at = volumes.index.record(4)
    x, y, z = at["ImagePositionPatient"]
    table = tmp_path / "places.csv"
    table.write_text(f"SeriesInstanceUID,x,y,z\n{at['SeriesInstanceUID']},{x + 8},{y + 8},{z}\n")
    counted.clear()
    crop, meta = DicomCrops(paths, str(table), size=(4, 6, 8), values="modality")[0]
    first, top, left = meta["start"]
    inside = np.s_[:, first : first + 4, top : top + 6, left : left + 8]
    assert torch.equal(crop, volume[inside])
    assert counted == [4]
    stored = np.random.default_rng(0).integers(0, 4000, (9, 24, 32)).astype(np.uint16)
    cine = write(image(stored, FrameTime=30.0, Modality="US"), tmp_path / "cine.dcm")
    counted.clear()
    clip, _ = DicomClips(cine, 4, values="stored")[1]
    np.testing.assert_array_equal(clip[:, 0].numpy(), stored[1:5])
    assert counted == [4]


@pytest.mark.skipif(not hasattr(select, "epoll"), reason="counts with inotify, of Linux")
def test_a_file_of_many_frames_is_opened_once(tmp_path: Path, counted: list[int]) -> None:
    stored = np.random.default_rng(0).integers(0, 4000, (3, 9, 24, 32)).astype(np.uint16)
    for number in range(3):
        write(image(stored[number]), tmp_path / f"{number}.dcm")
    index, _ = scan(tmp_path)
    reader = FrameReader(index, options=PixelOptions(values="stored"))
    out = torch.empty((27, 1, 24, 32), dtype=reader.dtype)
    reader.read_many(range(27), out, num_threads=1)
    libc = ctypes.CDLL(None, use_errno=True)
    watched = libc.inotify_init1(os.O_NONBLOCK)
    assert libc.inotify_add_watch(watched, os.fsencode(tmp_path), 0x20) >= 0  # IN_OPEN
    try:
        order = np.random.default_rng(1).permutation(27).tolist()
        reader.read_many(order, out, num_threads=1)
        events = os.read(watched, 1 << 16)
    finally:
        os.close(watched)
    np.testing.assert_array_equal(out[:, 0].numpy(), stored.reshape(27, 24, 32)[order])
    assert counted == [27, 27]
    assert sum(events.count(f"{number}.dcm".encode()) for number in range(3)) == 3


SPOILED = [
    spoil.truncate,
    spoil.touch,
    spoil.remove,
    spoil.replace_by_folder,
    spoil.replace,
    spoil.replace_by_fifo,
]


@pytest.mark.parametrize("spoiled", SPOILED, ids=lambda spoiled: spoiled.__name__)
def test_errors_have_the_same_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: list[int], spoiled: Any
) -> None:
    paths = write_series(tmp_path, 3)
    index, _ = scan(tmp_path)
    spoiled(paths[1])
    results = []
    for _ in range(2):
        reader = FrameReader(index, options=PixelOptions(values="modality"))
        out = torch.zeros(3, 1, 24, 32)
        results.append(reader.read_many(range(3), out))
        without(monkeypatch)
    assert counted == [2]
    for got, expected in zip(*results, strict=True):
        assert type(got) is type(expected)
        if isinstance(expected, DicomTorchError):
            assert str(got) == str(expected)
    assert isinstance(results[0][1], DicomTorchError)


def test_a_backend_of_the_user_is_always_asked(tmp_path: Path, counted: list[int]) -> None:
    class Mine:
        name = "mine"

        def supports(self, pixel: Any) -> bool:
            return True

        def decode(self, data: Any, pixel: Any, out: Any = None) -> Any:
            return get_backend("imagecodecs").decode(data, pixel, out) + 1

    paths = write_series(tmp_path, 2)
    frames = DicomFrames(paths, values="stored", backend=Mine())
    np.testing.assert_array_equal(frames[[0, 1]][0][1, 0].numpy(), ct_pixels(1) + 1)
    assert counted == []


LARGE = (-1, -(1 << 63), (1 << 63) - 1, 1 << 40)
WRONG = [
    *((name, number) for name in ("path", "offset", "template", "out") for number in LARGE),
    *(("path_length", number) for number in (0, -1, 10_000, (1 << 63) - 1)),
    *((name, number) for name in ("pixels", "samples") for number in LARGE),
    *(
        (name, number)
        for name in ("type", "mode", "out_type", "flags")
        for number in (*LARGE, t.FLAGS + 1)
    ),
    *((name, number) for name in ("left", "right") for number in (*LARGE, 16)),
    *(("samples", 0), ("samples", 5), ("pixels", 101), ("offset", 1), ("out", 8), ("out", 1)),
    *(("factor", number) for number in (*LARGE, 0, 3, 16)),
]
MEANS = (
    *("factor", "rows", "columns", "inner_rows", "inner_columns", "top", "left_column"),
    *("out_rows", "out_columns", "row_taps", "column_taps", "row_at", "column_at"),
)
WRONG_MEANS = [
    *((name, number) for name in MEANS for number in LARGE),
    *(("rows", 0), ("columns", 11), ("inner_rows", 0), ("inner_rows", 4), ("left_column", 2)),
    *(("row_taps", 0), ("row_taps", 4), ("column_at", 7), ("mode", t.COPY)),
    *(("type", 4), ("out_columns", 3)),
]


@pytest.mark.parametrize(("name", "number"), WRONG)
def test_a_record_that_points_outside_is_refused(
    tmp_path: Path, module: k.Module, name: str, number: int
) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(range(200)))
    template = np.zeros(1, t.TEMPLATE)
    template["type"], template["out_type"], template["mode"] = 3, 6, t.SINGLE
    template["samples"], template["pixels"], template["factor"] = 1, 100, 1
    job = kernel_jobs.make_job(random.Random(0), [os.fsencode(path)], template)
    job["out"] = job["offset"] = 0
    out = np.zeros(400, np.uint8)
    assert module.read(job, template, b"", b"", os.fsencode(path), out, 1) == 0
    words = np.frombuffer(path.read_bytes(), "<u2")
    np.testing.assert_array_equal(out.view(np.float32), words.astype(np.float32))
    (job if name in (k.JOB.names or ()) else template)[name] = number
    out[:] = 7
    with pytest.raises(ValueError, match="out of range"):
        module.read(job, template, b"", b"", os.fsencode(path), out, 1)
    assert (out == 7).all()


def test_frames_in_memory_are_converted_and_bounded(module: k.Module) -> None:
    template = np.zeros(1, t.TEMPLATE)
    template["type"], template["out_type"], template["mode"] = 3, 6, t.SINGLE
    template["samples"], template["pixels"], template["factor"] = 1, 100, 1
    words = np.arange(300, dtype=np.uint16)
    sources = [words[:100].tobytes(), memoryview(bytes(1) + words[100:].tobytes())]
    jobs = np.zeros(3, k.JOB)
    jobs["path"], jobs["offset"], jobs["out"] = (0, 1, 1), (0, 1, 201), (800, 0, 400)
    out = np.zeros(300, np.float32)
    assert module.read_memory(jobs, template, b"", sources, out.view(np.uint8), 2) == 0
    assert out.tolist() == [*range(100, 300), *range(100)]
    for name, number in (
        *((name, number) for name in ("path", "offset", "template", "out") for number in LARGE),
        *(("path", 2), ("offset", 202), ("out", 804)),
    ):
        wrong = jobs.copy()
        wrong[name][2] = number
        out[:] = 7
        with pytest.raises(ValueError, match="out of range"):
            module.read_memory(wrong, template, b"", sources, out.view(np.uint8), 1)
        assert (out == 7).all()
    template["mode"], template["out_type"] = t.COPY, 2  # as they are, from an odd address too
    copied = np.zeros(300, np.int16)
    jobs["out"] = jobs["out"] // 2
    assert module.read_memory(jobs, template, b"", sources, copied.view(np.uint8), 2) == 0
    assert copied.tolist() == [*range(100, 300), *range(100)]
    for problem in ([sources[0]], [sources[0], 5], [sources[0], words[::2]], tuple(sources)):
        with pytest.raises((ValueError, TypeError, BufferError)):
            module.read_memory(jobs, template, b"", problem, out.view(np.uint8), 1)  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "number"), [*WRONG_MEANS, ("index", -1), ("index", 5)])
def test_means_that_point_outside_are_refused(module: k.Module, name: str, number: int) -> None:
    template, taps = np.zeros(1, t.TEMPLATE), np.zeros(7, t.TAP)
    numbers = {"type": 3, "out_type": 6, "mode": t.SINGLE, "pixels": 100, "samples": 1}
    numbers |= {"factor": 2, "rows": 10, "columns": 10, "row_taps": 1, "column_taps": 1}
    numbers |= {"inner_rows": 3, "inner_columns": 4, "out_rows": 3, "out_columns": 5}
    numbers |= {"left_column": 1, "column_at": 3}
    for key, value in numbers.items():
        template[key] = value
    taps["index"], taps["weight"] = (0, 2, 4, 0, 1, 3, 4), 1
    data, out = np.arange(100, dtype=np.uint16), np.zeros(15, np.float32)
    assert module.convert(template, taps, data, out) == 0
    assert out.reshape(3, 5)[:, 1:].tolist() == [
        [5.5, 7.5, 11.5, 13.5],
        [45.5, 47.5, 51.5, 53.5],
        [85.5, 87.5, 91.5, 93.5],
    ]
    if name == "index":
        taps["index"][4] = number
    else:
        template[name] = number
    out[:] = 7
    with pytest.raises(ValueError, match="out of range"):
        module.convert(template, taps, data, out)
    assert (out == 7).all()


def test_buffers_that_do_not_fit_are_refused(module: k.Module) -> None:
    template = np.zeros(1, t.TEMPLATE)
    template["type"], template["out_type"], template["samples"], template["pixels"] = 1, 1, 1, 8
    template["factor"] = 1
    data, out = np.arange(8, dtype=np.uint8), np.zeros(8, np.uint8)
    assert module.convert(template, b"", data, out) == 0
    assert (out == data).all()
    for arguments in (
        (template, b"", data[:7], out),
        (template, b"", data, out[:7]),
        (np.zeros(0, t.TEMPLATE), b"", data, out),
        (np.zeros(7, np.uint8), b"", data, out),
        (template, b"1234567", data, out),
        (np.concatenate([template, template]), b"", data, out),
    ):
        with pytest.raises(ValueError, match=r"template|convert|taps"):
            module.convert(*arguments)
    with pytest.raises(TypeError):
        module.convert(template, b"", data, bytes(8))
    with pytest.raises(ValueError, match="jobs must be"):
        module.read(np.zeros(9, np.uint8), template, b"", b"", b"x", out, 1)


def test_random_calls_agree_with_numpy(tmp_path: Path, module: k.Module) -> None:
    rng = random.Random(4)
    paths = []
    for number, size in enumerate((0, 999, 64_000, 900_000)):
        path = tmp_path / f"{number}.bin"
        path.write_bytes(rng.randbytes(size))
        paths.append(os.fsencode(path))
    right = 0
    for _ in range(600):
        template, taps = kernel_jobs.make_template(rng)
        job = kernel_jobs.make_job(rng, paths, template)
        job["out"] = 0
        out = np.zeros(1 << 21, np.uint8)
        for level in range(module.LEVELS):
            try:
                if module.read(job, template, taps, b"", b"".join(paths), out, 1, level):
                    continue
            except ValueError:
                continue
            with np.errstate(all="ignore"):
                expected = kernel_jobs.expected(job[0], template[0], taps, paths)
            if expected is not None:
                got = out[: expected.nbytes].view(expected.dtype)
                np.testing.assert_array_equal(got, expected)
                right += 1
    assert right > 100


SLOPES = (1.0, -1.0, 2.0, 255.0, 256.0, 0.1, 1 / 3, 2.5, 1e-3, 1.7e-29, 3e-31, 7e30, 0.0)
INTERCEPTS = (0.0, 1.0, -1024.0, -1024.5, 12345.6, 1e9)
RANGES = ((-np.inf, np.inf), (0.0, 1.0), (-np.inf, 3.0), (-100.0, np.inf), (-7.5, 1e4))


@pytest.mark.parametrize("dtype", TYPES)
def test_every_step_has_the_same_bits_with_every_instruction_set(
    module: k.Module, dtype: str
) -> None:
    rng, kind = np.random.default_rng(8), np.dtype(dtype)
    if kind.kind == "f":
        stored = rng.normal(0, 1e4, 4096).astype(kind)
        stored[:6] = [0, -0.0, np.nan, np.inf, -np.inf, 1e-40]
    else:
        ends = np.iinfo(kind)
        stored = rng.integers(ends.min, ends.max, 4096, kind, endpoint=True)
        stored[:2] = ends.min, ends.max
    planes, expected, got = stored[None, None], np.empty((2, 1, 1, 4096), np.float32), 0
    for scale, offset, (low, high) in itertools.product(SLOPES, INTERCEPTS, RANGES):
        with np.errstate(all="ignore"):
            linear.fill_linear(planes, expected[0], scale, offset, low, high)
            record = t.scaled(kind, 4096, 1, scale, offset, low, high)
        for level in range(module.LEVELS):
            expected[1] = 77
            assert module.convert(record, b"", stored, expected[1], level) == 0
            assert expected[0].tobytes() == expected[1].tobytes(), (scale, offset, low, high, level)
            got += 1
    assert got >= len(SLOPES) * len(INTERCEPTS) * len(RANGES)


def test_another_version_or_other_bits_are_not_used(
    module: k.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wrong:
        def __getattr__(self, name: str) -> Any:
            return getattr(module, name)

    class Older(Wrong):
        ABI = k.ABI - 1

    class Newer(Wrong):
        ABI = k.ABI + 1

    class Fused(Wrong):
        def convert(self, template: Any, taps: Any, data: Any, out: Any, level: int = -1) -> int:
            code = module.convert(template, taps, data, out, level)
            out.view(np.uint32)[0, 0, 3] ^= 1
            return code

    wrong = [
        (Older(), "another version"),
        (Newer(), "another version"),
        (Fused(), "otherwise here"),
    ]
    for other, reason in wrong:
        k.kernels.cache_clear()
        monkeypatch.setitem(sys.modules, "dicomtorch_kernels", other)
        assert k.kernels().module is None
        assert reason in k.kernels().reason
    monkeypatch.undo()
    k.kernels.cache_clear()


def test_the_environment_turns_them_off(tmp_path: Path) -> None:
    code = "from dicomtorch.reader.kernels import kernels; print(kernels().reason)"
    environment = os.environ | {"DICOMTORCH_KERNELS": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.strip() == "DICOMTORCH_KERNELS=0 is set"


def test_without_them_everything_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch)
    frames = DicomFrames(write_series(tmp_path, 2), values="stored")
    np.testing.assert_array_equal(frames[[1]][0][0, 0].numpy(), ct_pixels(1))
    assert not k.PlainReader(frames.index, LocalStorage(), torch.float32).is_used
