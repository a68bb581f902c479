"""Samples as dictionaries, and under the datasets of MONAI."""

from __future__ import annotations

import hashlib
import importlib
import os
import pickle
import subprocess
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from dicomtorch import DicomFrames, DicomVolumes
from dicomtorch.errors import FrameIndexError, OptionError
from tests.support.phantoms import write_series
from tests.support.requirements import require


@pytest.fixture
def series(tmp_path: Path) -> Path:
    write_series(tmp_path / "series", 6)
    return tmp_path / "series"


def test_a_sample_has_the_image_and_every_key_of_meta(series: Path) -> None:
    frames = DicomFrames(series, tags=["PatientSex"])
    dicts = frames.as_dicts(image="img")
    image, meta = frames[2]
    sample = dicts[2]
    assert isinstance(sample, Mapping)
    assert torch.equal(sample["img"], image)
    assert sample.keys() == {"img", *meta}
    assert sample["PatientSex"] == "F"
    assert len(dicts) == 6
    assert [one["index"] for one in dicts] == list(range(6))
    assert [one["index"] for one in dicts[1:3]] == [1, 2]
    assert dicts[-1]["index"] == 5
    with pytest.raises(FrameIndexError):
        dicts[6]
    volume = DicomVolumes(series).as_dicts()[0]
    assert volume["image"].shape == (1, 6, 24, 32)


def test_batches(series: Path) -> None:
    dicts = DicomFrames(series).as_dicts()
    batch = next(iter(DataLoader(dicts, batch_size=4)))
    assert batch["image"].shape == (4, 1, 24, 32)
    assert batch["index"].tolist() == [0, 1, 2, 3]


def test_what_cannot_be_a_dictionary(series: Path) -> None:
    with pytest.raises(OptionError, match="meta has index already"):
        DicomFrames(series).as_dicts("index")[0]
    with pytest.raises(OptionError, match="leave out target="):
        DicomFrames(series, target="index").as_dicts()[0]


def test_pickles_are_read_again(series: Path) -> None:
    sample = DicomFrames(series).as_dicts()[1]
    again = pickle.loads(pickle.dumps(sample))
    assert torch.equal(again["image"], sample["image"])
    again["image"][0, 0, 0] = 3
    assert again.keys() == sample.keys()


PICKLE = """
import hashlib, pickle, sys
from dicomtorch import DicomFrames
sample = DicomFrames(sys.argv[1]).as_dicts()[int(sys.argv[2])]
print(hashlib.sha256(pickle.dumps(sample)).hexdigest())
"""


def test_pickles_are_the_same_in_every_run(series: Path) -> None:
    dicts = DicomFrames(series).as_dicts()
    here = [hashlib.sha256(pickle.dumps(dicts[k])).hexdigest() for k in (1, 2)]
    assert here[0] != here[1]
    for k, expected in enumerate(here, 1):
        found = subprocess.run(
            [sys.executable, "-c", PICKLE, str(series), str(k)],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True, text=True, timeout=100, check=True,
        )  # fmt: skip
        assert found.stdout.strip() == expected


def test_under_the_datasets_of_monai(series: Path, tmp_path: Path) -> None:
    require("monai")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data: Any = importlib.import_module("monai.data")
        transforms: Any = importlib.import_module("monai.transforms")
    change = transforms.Compose(
        [
            transforms.ScaleIntensityd("image"),
            transforms.RandFlipd("image", prob=1.0, spatial_axis=1),
        ]
    )
    folder = tmp_path / "persistent"
    for _ in range(2):
        frames = DicomFrames(series)
        dicts: Any = frames.as_dicts(image="image")
        for dataset in (
            data.Dataset(dicts, change),
            data.CacheDataset(dicts, change, progress=False),
            data.CacheDataset(dicts, change, progress=False, hash_as_key=True),
            data.PersistentDataset(dicts, change, folder),
        ):
            image = dataset[3]["image"]
            expected = frames[3][0].flip(-1)
            expected = (expected - expected.min()) / (expected.max() - expected.min())
            torch.testing.assert_close(torch.as_tensor(image), expected, check_dtype=False)
            batch = next(iter(data.DataLoader(dataset, batch_size=2)))
            assert batch["image"].shape == (2, 1, 24, 32)
            assert batch["index"].tolist() == [0, 1]
    assert len(list(folder.iterdir())) == 3  # of samples 0, 1 and 3: the second round found them
    batch = next(iter(data.DataLoader(data.Dataset(dicts), batch_size=2)))
    assert batch["image"].shape == (2, 1, 24, 32)
