"""What frames, clips, volumes and crops have in common."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader

from dicomtorch import DicomClips, DicomCrops, DicomFrames, DicomVolumes
from dicomtorch.errors import (
    DicomTorchError,
    FrameIndexError,
    FrameNotFoundError,
    OptionError,
    PixelValueError,
)
from tests.support.phantoms import ct, ct_pixels, lut, write

SERIES, SLICES = 4, 3
Make = Callable[..., Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four CT series of three slices, and in each as many files: every dataset has at least four samples."""
    root = tmp_path_factory.mktemp("samples")
    for number in range(SERIES):
        for k in range(SLICES):
            name = {"SeriesInstanceUID": f"1.2.{number}", "SOPInstanceUID": f"1.2.{number}.{k}"}
            write(ct(ct_pixels(10 * number + k), k, **name), root / f"{number}{k}.dcm")
    return root


def crops(source: Any, **options: Any) -> DicomCrops:
    table = {
        "SeriesInstanceUID": [f"1.2.{number}" for number in range(SERIES)],
        "x": [8.0] * SERIES,
        "y": [7.0] * SERIES,
        "z": [2.5] * SERIES,
        "label": list(range(SERIES)),
    }
    return DicomCrops(source, table, size=(2, 8, 8), **options)


def clips(source: Any, **options: Any) -> DicomClips:
    return DicomClips(source, 1, **options)


everything = pytest.mark.parametrize("make", [DicomFrames, clips, DicomVolumes, crops])


def indices(batch: Any) -> list[int]:
    found: list[int] = batch[1]["index"].tolist()
    return found


@everything
def test_positions(folder: Path, make: Make) -> None:
    dataset = make(folder, values="modality")
    count = len(dataset)
    assert count >= SERIES
    for one in (1, np.int64(1), np.uint8(1), torch.tensor(1), torch.tensor(1, dtype=torch.uint8)):
        assert dataset[one][1]["index"] == 1
    assert dataset[-1][1]["index"] == count - 1
    mask = np.zeros(count, bool)
    mask[[0, 2]] = True
    for several in (
        [0, 2],
        (0, 2, 2)[:2] if make is not clips else [0, 2],
        range(0, 3, 2),
        slice(0, 3, 2),
        np.array([0, 2]),
        np.array([0, 2], np.uint8),
        torch.tensor([0, 2]),
        [np.int32(0), torch.tensor(2)],
        pd.Series([0, 2]),
        mask,
        mask.tolist(),
        torch.from_numpy(mask),
    ):
        batch = dataset[several]
        assert indices(batch) == [0, 2]
        assert torch.equal(batch[0][1], dataset[2][0])
    assert indices(dataset[-2:]) == [count - 2, count - 1]
    assert indices(dataset[[-1, 0]]) == [count - 1, 0]


@everything
@pytest.mark.parametrize(
    "wrong",
    [
        None,
        "0",
        "label",
        1.0,
        np.float32(1),
        torch.tensor(1.0),
        True,
        np.True_,
        torch.tensor(True),
        ...,
        {0: 1},
        {0, 1},
        slice("a", None),
        slice(0.5, 2),
        [0, "1"],
        [0.0, 1.0],
        np.array([0.0, 1.0]),
        torch.tensor([0.0]),
        np.array(["0"]),
        np.zeros((2, 2), int),
        torch.zeros(2, 2, dtype=torch.int64),
        [],
        slice(3, 3),
        np.array([], int),
        [True],
        np.ones(1000, bool),
        torch.zeros(3, dtype=torch.bool),
        [0, None],
        [[0, 1]],
    ],
    ids=str,
)
def test_what_is_no_position(folder: Path, make: Make, wrong: Any) -> None:
    dataset = make(folder)
    with pytest.raises(OptionError):
        dataset[wrong]


@everything
@pytest.mark.parametrize("wrong", [1000, -1000, [0, 1000], np.array([-1000]), np.int64(1000)])
def test_positions_outside(folder: Path, make: Make, wrong: Any) -> None:
    dataset = make(folder)
    name = dataset.sample_name
    with pytest.raises(FrameIndexError, match=rf"{name} -?1000 is outside .* has {len(dataset)} "):
        dataset[wrong]


@everything
def test_what_every_dataset_has(folder: Path, make: Make) -> None:
    dataset = make(folder)
    assert dataset.failures == []
    assert len(dataset.report.findings) == SERIES * SLICES
    dataset.will_need([0, 1])
    with pytest.raises(FrameIndexError):
        dataset.will_need([1000])
    assert [meta["index"] for _, meta in dataset] == list(range(len(dataset)))
    html = dataset._repr_html_()
    assert type(dataset).__name__ in html
    assert "<img" in html
    assert "1.2.0" not in html
    again = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(again[1][0], dataset[1][0])
    for images, meta in DataLoader(dataset, batch_size=2):
        assert len(images) == len(meta["index"])


@everything
def test_find(folder: Path, make: Make) -> None:
    dataset = make(folder)
    wanted = {"SOPInstanceUID": "1.2.2.1"}
    found = dataset.find(**wanted)
    meta = dataset[found][1]
    assert "1.2.2.1" in (meta["SOPInstanceUID"], *meta.get("SOPInstanceUIDs", ()))
    with pytest.raises(FrameNotFoundError, match="no "):
        dataset.find(SOPInstanceUID="9")
    with pytest.raises(FrameNotFoundError, match=r"4 |12 "):
        dataset.find(Modality="CT")
    with pytest.raises(OptionError, match="Nonsense"):
        dataset.find(Nonsense=1)


def test_crops_are_found_by_their_table_too(folder: Path) -> None:
    dataset = crops(folder)
    assert dataset.find(label=2) == dataset.find(candidate=2) == 2
    assert dataset.find(label=3, SeriesInstanceUID="1.2.3") == 3
    with pytest.raises(FrameNotFoundError, match="no crops of 4 match label, Modality"):
        dataset.find(label=3, Modality="MR")


def test_clips_of_sequences_are_found_by_any_of_their_frames(tmp_path: Path) -> None:
    pixels = np.stack([ct_pixels(k) for k in range(6)])
    for number in range(2):
        write(ct(pixels, number, SOPInstanceUID=f"1.{number}"), tmp_path / f"{number}.dcm")
    fixed = DicomClips(tmp_path, 2, step=2)
    assert fixed.find(SOPInstanceUID="1.1", frame=3) == 4
    wrapped = DicomClips(tmp_path, 4, 3, policy="wrap")
    assert wrapped.find(SOPInstanceUID="1.1", frame=3) == 1
    assert DicomClips(tmp_path, 3, clips="random").find(SOPInstanceUID="1.1", frame=0) == 1


@everything
def test_ahead_of_time_the_frames_of_a_sample_are_read(
    folder: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = make(folder)
    asked: list[int] = []
    monkeypatch.setattr(type(dataset._reader), "will_need", lambda _, frames: asked.extend(frames))
    dataset.will_need([-1])
    meta = dataset[-1][1]
    assert set(asked) == {*meta.get("frames", [meta["index"]])} - {-1}


# --- Frames that an option has no meaning for -------------------------------------------------------


def palette(number: int) -> Any:
    """A frame of indices into a palette."""
    dataset = ct(np.full((24, 32), 1, np.uint8), number, SeriesInstanceUID="1.9")
    dataset.PhotometricInterpretation = "PALETTE COLOR"
    for name in ("Red", "Green", "Blue"):
        table = lut([4, 0, 16], [0, 100, 200, 300])
        setattr(dataset, f"{name}PaletteColorLookupTableDescriptor", table.LUTDescriptor)
        setattr(dataset, f"{name}PaletteColorLookupTableData", table.LUTData)
    for name in ("WindowCenter", "WindowWidth", "RescaleSlope", "RescaleIntercept"):
        delattr(dataset, name)
    return dataset


def colour(number: int) -> Any:
    """A frame of red, green and blue."""
    dataset = ct(np.zeros((24, 32), np.uint8), number, SeriesInstanceUID="1.9")
    dataset.SamplesPerPixel, dataset.PlanarConfiguration = 3, 0
    dataset.PhotometricInterpretation = "RGB"
    dataset.PixelData = np.zeros((24, 32, 3), np.uint8).tobytes()
    return dataset


ODD = [
    (palette, {"values": "modality", "color": "gray"}),
    (colour, {"window": [(40, 400), (-600, 1500)]}),
    (colour, {"values": "real_world"}),
    (colour, {"values": "suvbw"}),
]


def mixed(root: Path, odd: Callable[[int], Any], options: dict[str, Any]) -> Path:
    """Frames 0, 2 and 3 have what is asked for, frame 1 cannot have it."""
    for k in range(4):
        dataset = odd(k) if k == 1 else ct(ct_pixels(k), k, SeriesInstanceUID=f"1.{k}")
        if options["values"] == "suvbw" and k != 1:
            _make_pet(dataset)
        if options["values"] == "real_world" and k != 1:
            _map_real_world(dataset)
        write(dataset, root / f"{k}.dcm")
    return root


def _make_pet(dataset: Any) -> None:
    from pydicom.dataset import Dataset

    dataset.Modality, dataset.Units = "PT", "BQML"
    dataset.CorrectedImage, dataset.DecayCorrection = ["ATTN", "DECY"], "START"
    dataset.PatientWeight = 70
    dataset.SeriesDate = dataset.AcquisitionDate = "20200101"
    dataset.SeriesTime = dataset.AcquisitionTime = "120000"
    dose = Dataset()
    dose.RadiopharmaceuticalStartTime = "113000"
    dose.RadionuclideTotalDose, dose.RadionuclideHalfLife = 3e8, 6586.2
    dataset.RadiopharmaceuticalInformationSequence = [dose]


def _map_real_world(dataset: Any) -> None:
    from pydicom.dataset import Dataset

    item = Dataset()
    item.add_new("RealWorldValueFirstValueMapped", "SS", -2000)
    item.add_new("RealWorldValueLastValueMapped", "SS", 3000)
    item.RealWorldValueIntercept, item.RealWorldValueSlope = 0.0, 2.0
    dataset.RealWorldValueMappingSequence = [item]


@pytest.mark.parametrize(("odd", "options"), ODD)
def test_a_frame_that_an_option_has_no_meaning_for_names_its_file(
    tmp_path: Path, odd: Callable[[int], Any], options: dict[str, Any]
) -> None:
    options = {"values": "display"} | options
    frames = DicomFrames(mixed(tmp_path, odd, options), **options)
    for asked in (1, [1], [0, 1, 2], slice(0, 2)):
        with pytest.raises(PixelValueError, match=r"1\.dcm, frame 0 \(index 1\): .*on_error="):
            frames[asked]
    assert len(frames[[0, 2]][0]) == 2


@pytest.mark.parametrize("context", [0, 1])
@pytest.mark.parametrize(("odd", "options"), ODD)
def test_a_frame_that_an_option_has_no_meaning_for_is_replaced_in_a_batch_too(
    tmp_path: Path, odd: Callable[[int], Any], options: dict[str, Any], context: int
) -> None:
    options = {"values": "display"} | options
    frames = DicomFrames(
        mixed(tmp_path, odd, options), **options, on_error="replace", context=context
    )
    with pytest.warns(UserWarning, match=r"1\.dcm, frame 0.*Frame 1 was replaced by frame 2"):
        images, meta = frames[[1]]
    assert meta["index"].tolist() == [2]
    assert meta["requested_index"].tolist() == [1]
    assert torch.equal(images[0], frames[2][0])
    images, meta = frames[:]
    assert meta["index"].tolist() == [0, 2, 2, 3]
    assert torch.equal(images[0], frames[0][0])
    assert torch.equal(images[1], images[2])
    assert [failure.index for failure in frames.failures] == [1, 1]
    images, _ = next(iter(DataLoader(frames, batch_size=4)))
    assert len(images) == 4


def test_volumes_and_clips_replace_such_frames_too(tmp_path: Path) -> None:
    root = mixed(tmp_path, colour, {"values": "display"})
    sequences = DicomClips(root, 1, window=[(40, 400), (-600, 1500)], on_error="replace")
    with pytest.warns(UserWarning, match=r"1\.dcm"):
        assert sequences[[1]][1]["index"].tolist() == [2]
    with pytest.raises(DicomTorchError, match=r"1\.dcm, frame 0"):
        DicomClips(root, 1, window=[(40, 400), (-600, 1500)])[[1, 2]]
