"""RLE frames by the compiled kernels: the same bits and words as without them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydicom.encaps import encapsulate_extended
from pydicom.uid import RLELossless

from dicomtorch import DicomFrames, FrameReader, PixelOptions, scan
from dicomtorch.errors import DicomTorchError
from dicomtorch.reader import kernels as k
from dicomtorch.reader import templates as t
from tests.support import kernel_jobs
from tests.support.kernel_jobs import both, without
from tests.support.phantoms import encapsulated, image, write
from tests.support.streams_by_encoders import rle

pytestmark = [pytest.mark.filterwarnings("ignore:.*PatientID:UserWarning")]
Array = np.ndarray[Any, Any]


def smooth(shape: tuple[int, ...], kind: np.dtype[Any], seed: int) -> Array:
    """Runs of every length, from noise to a constant."""
    rng = np.random.default_rng(seed)
    ends = np.iinfo(kind)
    noise = rng.integers(ends.min, ends.max, shape, kind, endpoint=True)
    ramp = np.arange(noise.size).reshape(shape) // 150
    flat = np.asarray(ramp % 100, kind)
    return np.where(rng.random(shape) < 0.1, noise, np.where(ramp % 3 == 0, noise, flat))


def written(stored: Array, path: Path, colour: bool = False, **about: Any) -> Path:
    plain = stored[..., 0].copy() if colour else stored
    dataset = image(plain, **about)
    if colour:
        dataset.SamplesPerPixel, dataset.PlanarConfiguration = 3, 0
        dataset.PhotometricInterpretation = "RGB"
    bits = 8 * stored.dtype.itemsize
    return write(encapsulated(dataset, [rle(one, bits) for one in stored], RLELossless), path)


@pytest.mark.parametrize("shape", [(17, 23), (64, 64), (1, 1), (90, 1003)])
@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4"])
def test_every_type_has_the_same_bits(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    counted: list[int],
    dtype: str,
    shape: tuple[int, int],
) -> None:
    stored = smooth((2, *shape), np.dtype(dtype), 1)
    about: dict[str, Any] = {"RescaleSlope": 0.3, "RescaleIntercept": -7.7}
    path = written(stored, tmp_path / "a.dcm", **about, WindowCenter=40, WindowWidth=90)
    got = both(path, monkeypatch, values="stored")
    np.testing.assert_array_equal(got[:, 0].numpy(), stored)
    for options in ({"values": "modality"}, {}, {"window": (12.5, 3000)}):
        both(path, monkeypatch, **options)
    assert counted == [2] * 4


@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_samples_of_colour_come_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: list[int], dtype: str
) -> None:
    stored = smooth((2, 61, 80, 3), np.dtype(dtype), 2)
    path = written(stored, tmp_path / "a.dcm", colour=True)
    got = both(path, monkeypatch, values="stored")
    np.testing.assert_array_equal(got.numpy(), np.moveaxis(stored, -1, 1))
    both(path, monkeypatch)
    both(path, monkeypatch, size=(15, 15), decode="reduced")
    assert counted == [2] * 3


def test_unused_bits_and_means_of_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: list[int]
) -> None:
    stored = smooth((2, 700, 810), np.dtype(np.uint16), 3)
    about: dict[str, Any] = {"BitsStored": 12, "PixelRepresentation": 1, "RescaleSlope": 2.5}
    path = written(stored, tmp_path / "a.dcm", **about)
    for options in ({"values": "stored"}, {}, {"size": (90, 91), "decode": "reduced"}):
        both(path, monkeypatch, **{"values": "modality", **options})
    assert counted == [2] * 3


def results(path: Path) -> list[str | bytes]:
    """Stored values of the frames of a file, or what is wrong with them."""
    index, _ = scan(path)
    reader = FrameReader(index, options=PixelOptions(values="stored"))
    out = torch.zeros((len(index), *reader.shape(0)), dtype=reader.dtype)
    found = reader.read_many(range(len(index)), out)
    return [
        str(one) if isinstance(one, DicomTorchError) else out[k].numpy().tobytes()
        for k, one in enumerate(found)
    ]


def spoiled(rng: random.Random, item: bytes) -> bytes:
    """The stream of an item, damaged or odd in one of many ways."""
    stream = bytearray(item[8:])
    kind = rng.randrange(7)
    if kind == 0:
        stream[rng.randrange(64)] = rng.randrange(256)
    elif kind == 1:
        stream[rng.randrange(64, len(stream))] = rng.randrange(256)
    elif kind == 2:
        del stream[rng.randrange(60, len(stream)) :]
    elif kind == 3:
        stream += rng.randbytes(rng.choice([1, 2, 5, 300]))
    elif kind == 4:
        stream += bytes([128]) * rng.choice([1, 2, 3])
    elif kind == 5:  # the last run gives more than is left
        stream[-2 - stream[-1] % 2] = rng.choice([129, 200, 250, 5])
    return bytes(stream)


def test_damage_has_the_same_words_and_what_is_odd_the_same_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: list[int]
) -> None:
    rng = random.Random(5)
    template = np.zeros(1, t.TEMPLATE)[0]
    template["type"], template["samples"], template["pixels"] = 3, 1, 40 * 30
    streams = [spoiled(rng, kernel_jobs.rle_item(rng, template)) for _ in range(200)]
    dataset = image(np.zeros((200, 40, 30), np.uint16))
    path = write(encapsulated(dataset, streams, RLELossless), tmp_path / "a.dcm")
    got = results(path)
    without(monkeypatch)
    assert results(path) == got
    assert {type(one) for one in got} == {str, bytes}
    assert 0 < sum(counted) < 200


def test_lengths_of_an_extended_offset_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: list[int]
) -> None:
    rng = random.Random(6)
    template = np.zeros(1, t.TEMPLATE)[0]
    template["type"], template["samples"], template["pixels"] = 1, 1, 33 * 35
    streams = [kernel_jobs.rle_item(rng, template)[8:] for _ in range(4)]
    streams[1] = streams[1][:-1]
    dataset = image(np.zeros((4, 33, 35), np.uint8))
    encapsulated(dataset, streams, RLELossless)
    dataset.PixelData, dataset.ExtendedOffsetTable, _ = encapsulate_extended(streams)
    lengths = np.array([*map(len, streams)], "<u8")
    lengths[3] -= 2
    dataset.ExtendedOffsetTableLengths = lengths.tobytes()
    path = write(dataset, tmp_path / "a.dcm")
    index, _ = scan(path)
    assert index.column("true_length").tolist() == lengths.tolist()
    results = []
    for _ in range(2):
        reader = FrameReader(index, options=PixelOptions(values="stored"))
        out = torch.zeros(4, 1, 33, 35, dtype=reader.dtype)
        found = reader.read_many(range(4), out)
        results.append(
            (
                out.numpy().tobytes(),
                [str(each) for each in found if isinstance(each, DicomTorchError)],
            )
        )
        without(monkeypatch)
    assert results[0] == results[1]
    assert counted == [3]


def test_streams_that_are_isolated_stay_so(tmp_path: Path, counted: list[int]) -> None:
    path = written(smooth((2, 9, 11), np.dtype(np.uint16), 7), tmp_path / "a.dcm")
    kept = DicomFrames(path, values="stored", isolation="process")[[0, 1]][0]
    assert counted == []
    assert (DicomFrames(path, values="stored")[[0, 1]][0] == kept).all()
    assert counted == [2]


@pytest.mark.parametrize(
    ("name", "number"),
    [("number", 7), ("number", -1), ("number", 1 << 62), ("flags", t.RLE | t.SWAP)],
)
def test_a_record_that_points_outside_is_refused(
    tmp_path: Path, module: k.Module, name: str, number: int
) -> None:
    rng = random.Random(8)
    template = np.zeros(1, t.TEMPLATE)
    template["type"], template["out_type"], template["samples"], template["factor"] = 3, 3, 1, 1
    template["pixels"], template["flags"] = 100, t.RLE
    (path,) = kernel_jobs.write_streams(rng, tmp_path, template).values()
    job = kernel_jobs.make_job(rng, [path], template)
    job["out"] = job["offset"] = 0
    out = np.zeros(200, np.uint8)
    assert module.read(job.copy(), template, b"", b"", path, out, 1) == 0
    right = kernel_jobs.expected(job[0], template[0], np.zeros(0, t.TAP), [path])
    assert right is not None
    np.testing.assert_array_equal(out.view(np.uint16), right)
    (job if name == "number" else template)[name] = number
    with pytest.raises(ValueError, match="out of range"):
        module.read(job, template, b"", b"", path, out, 1)
