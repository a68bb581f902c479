"""Frames that left their files: shards, records, and the same tensors as the files give."""

from __future__ import annotations

import json
import math
import pickle
import stat
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from dicomtorch import DicomFrames, FrameReader, PixelOptions, scan
from dicomtorch.errors import DecodeError, DicomTorchError, HeaderError, OptionError
from dicomtorch.integrations import shards
from dicomtorch.integrations.shards import ReadSample, samples
from dicomtorch.reader import records
from tests.support.phantoms import ct, write, write_series
from tests.support.requirements import require, samples_folder

READING = {"index", "requested_index"}


@pytest.fixture(scope="module")
def real() -> Any:
    require("samples")
    folder = samples_folder()
    assert folder is not None
    index, _ = scan(folder)
    return index


def same(one: Any, other: Any) -> bool:
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    missing = isinstance(one, float) and math.isnan(one)
    return bool(missing and math.isnan(other)) or (type(one) is type(other) and one == other)


WAYS: dict[str, dict[str, Any]] = {
    "display": {},
    "modality": {"values": "modality"},
    "stored": {"values": "stored"},
}


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("contents", ["encoded", "stored"])
def test_every_sample_comes_back(real: Any, contents: Any) -> None:
    salt = b"of a test"
    ways = WAYS if contents == "encoded" else {"display": WAYS["display"]}
    readers = {
        name: FrameReader(real, options=PixelOptions(**options)) for name, options in ways.items()
    }
    back = {name: ReadSample(**options) for name, options in ways.items()}
    metas = DicomFrames(real, uids="hash", salt=salt, on_error="replace")
    skipped: list[str] = []
    seen = compared = 0
    for key, data, record in samples(real, contents, salt=salt, skipped=skipped):
        text = json.loads(json.dumps(record, allow_nan=False))
        position = int(key)
        seen += 1
        for name, reader in readers.items():
            (expected,) = reader.read_many([position])
            if isinstance(expected, DicomTorchError):
                with pytest.raises(type(expected)):
                    back[name].read(data, text)
                continue
            image, meta = back[name].read(data, text)
            torch.testing.assert_close(
                image, expected.image.to(image.dtype), rtol=0, atol=0, equal_nan=True
            )
            assert meta["voi"] == expected.voi.voi
            compared += 1
        if isinstance(expected, DicomTorchError):
            continue
        (theirs,) = metas._source.metas([position], [expected.voi], [position])
        for name in theirs.keys() - READING - {"voi", "WindowCenter", "WindowWidth"}:
            assert same(theirs[name], meta[name]), name
    assert seen + len(skipped) == len(real)
    assert compared > 0.9 * len(ways) * seen
    assert contents == "stored" or not skipped


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_series(tmp_path / "series", 6)
    return tmp_path / "series"


# What webdataset leaves open where a loop does not go to the end.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("contents", ["encoded", "stored"])
def test_shards_of_webdataset(folder: Path, tmp_path: Path, contents: Any) -> None:
    require("webdataset")
    import webdataset

    index, _ = scan(folder)
    out = tmp_path / "100%d shards"
    frames = DicomFrames(folder, values="modality")
    written = index.write(out, frames=contents, shard_bytes=4000)
    assert written.frames == 6
    assert len(written.shards) > 1
    assert sorted(out.iterdir()) == list(written.shards)
    if sys.platform != "win32":
        assert all(stat.S_IMODE(p.stat().st_mode) & 0o077 == 0 for p in (out, *written.shards))
    urls = [f"file:{path}" for path in written.shards]
    data = webdataset.WebDataset(urls, shardshuffle=False, empty_check=False)
    read = list(data.map(ReadSample(values="modality")))
    for (image, meta), (expected, about) in zip(read, frames, strict=True):
        assert torch.equal(image, expected)
        assert meta["InstanceNumber"] == about["InstanceNumber"]
    loader = DataLoader(data.map(ReadSample(values="modality")), batch_size=3, num_workers=0)
    (images, meta), _ = loader
    assert torch.equal(images, frames[:3][0])
    assert meta["PixelSpacing"].shape == (3, 2)
    pickle.loads(pickle.dumps(ReadSample(values="stored")))


@pytest.mark.parametrize("salt", [b"secret", b""])
def test_the_same_salt_gives_the_same_shards(folder: Path, tmp_path: Path, salt: bytes) -> None:
    index, _ = scan(folder)
    for name in ("one", "two"):
        index.write(tmp_path / name, salt=salt)
    one, two = ((tmp_path / name / "frames-000000.tar").read_bytes() for name in ("one", "two"))
    assert one == two


CANARY = "CANARY-7f3a"


@pytest.mark.filterwarnings("ignore:Invalid value for VR:UserWarning")
def test_nobody_is_named_unless_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = ct(np.zeros((8, 8), np.int16), 0, PatientID=CANARY, PatientName=CANARY)
    dataset.Modality = dataset.RescaleType = dataset.PixelPresentation = CANARY
    dataset.StudyDescription = CANARY
    write(dataset, tmp_path / CANARY / f"{CANARY}.dcm")
    index, _ = scan(tmp_path / CANARY, tags=["StudyDescription"])
    labelled = index.join(
        {"SOPInstanceUID": [dataset.SOPInstanceUID], "who": [CANARY], "label": [3]}
    )

    def text(name: str, **options: Any) -> bytes:
        labelled.write(tmp_path / name, **options)
        return (tmp_path / name / "frames-000000.tar").read_bytes()

    plain = text("plain", keep=["label"])
    for word in (CANARY, dataset.SOPInstanceUID, dataset.SeriesInstanceUID):
        assert word.encode() not in plain
    assert b'"label":3' in plain
    real = text("real", deidentified=False)
    for word in (CANARY, dataset.SOPInstanceUID, dataset.SeriesInstanceUID):
        assert word.encode() in real


def test_a_frame_that_cannot_be_read(folder: Path, tmp_path: Path) -> None:
    index, _ = scan(folder)
    (folder / Path(index.path(2)).name).unlink()
    with pytest.raises(DicomTorchError, match=r"frame 0 \(index 2\)"):
        index.write(tmp_path / "out")
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]
    written = index.write(tmp_path / "out", on_error="skip")
    assert written.frames == 5
    assert len(written.skipped) == 1
    with tarfile.open(written.shards[0]) as shard:
        assert "000000002.frame" not in shard.getnames()
        assert "000000003.frame" in shard.getnames()


def test_what_means_nothing(folder: Path, tmp_path: Path) -> None:
    index, _ = scan(folder)
    for options, words in (
        ({"format": "zip"}, 'format must be "webdataset"'),
        ({"frames": "jpeg"}, 'frames must be "encoded" or "stored"'),
        ({"keep": ["label"]}, "there is no column label"),
        ({"on_error": "replace"}, "on_error"),
        ({"shard_bytes": 0}, "shard_bytes"),
        ({"salt": "text"}, "salt must be bytes"),
        ({"salt": b"", "deidentified": False}, "goes with deidentified"),
    ):
        with pytest.raises(OptionError, match=words):
            index.write(tmp_path / "out", **options)
    with pytest.raises(OptionError, match="there is something at"):
        index.write(folder)
    for pixels in ({"window": "series"}, {"decode": "reduced", "size": (8, 8)}, {"masks": True}):
        with pytest.raises(OptionError):
            ReadSample(**pixels)


def test_what_is_no_sample(folder: Path) -> None:
    index, _ = scan(folder)
    read = ReadSample()
    ((_, data, record),) = samples(index.select([0]), "stored")
    with pytest.raises(HeaderError, match="needs json and frame"):
        read({"json": record})
    with pytest.raises(HeaderError, match="no record of version"):
        read({"json": {**record, "version": 2}, "npy": data})
    with pytest.raises(HeaderError, match="no record of a frame"):
        read({"json": {**record, "values": {**record["values"], "windows": 3}}, "npy": data})
    with pytest.raises(DecodeError):
        read({"json": record, "npy": data[:60]})
    for foreign in (b"{", "", b"\xff\xfe\x80", "[" * 100_000):
        with pytest.raises(HeaderError, match="json of a sample cannot be read"):
            read({"json": foreign, "npy": data})
    for name, value in (("meta", 3), ("values", None), ("values", {1, 2})):
        with pytest.raises(HeaderError):
            read({"json": {**record, name: value}, "npy": data})
    for name in ("meta", "values"):
        with pytest.raises(HeaderError):
            read({"json": {k: v for k, v in record.items() if k != name}, "npy": data})
    with pytest.raises(HeaderError, match="a frame is bytes"):
        read({"json": record, "npy": "text"})


def test_memory_bounds_what_is_read_ahead(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index, _ = scan(folder)
    size = 2 * math.prod(index.image_pixel(0).shape)
    monkeypatch.setattr(shards, "_AHEAD_BYTES", 2 * size)
    began: list[int] = []
    write_record = records.write_record

    def noted(reader: Any, position: int, *args: Any, **options: Any) -> Any:
        began.append(position)
        return write_record(reader, position, *args, **options)

    monkeypatch.setattr(shards, "write_record", noted)
    for k, (key, _, _) in enumerate(samples(index, "stored")):
        assert key == f"{k:09}"
        assert max(began) <= k + 2
    assert sorted(began) == list(range(len(index)))
