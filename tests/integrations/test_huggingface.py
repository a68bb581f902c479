"""An index as a dataset of Hugging Face: rows that are decoded when they are asked for, pickled as a path."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from benchmarks.index import synthetic
from dicomtorch import DicomFrames, FrameIndex, scan
from dicomtorch.errors import OptionError
from tests.support.phantoms import write_series
from tests.support.requirements import require

pytestmark = pytest.mark.filterwarnings("ignore:Specifying null_placement:FutureWarning")


@pytest.fixture
def frames(tmp_path: Path) -> DicomFrames:
    require("datasets")
    write_series(tmp_path, 12)
    return DicomFrames(tmp_path, values="modality")


def test_rows_are_frames(frames: DicomFrames) -> None:
    data = frames.index.to_hf(values="modality")
    assert len(data) == 12
    row = data[3]
    image, meta = frames[3]
    assert torch.equal(row["image"], image)
    assert {key: row[key] for key in ("index", "SOPInstanceUID")} == {
        key: meta[key] for key in ("index", "SOPInstanceUID")
    }
    several = data[2:5]
    assert torch.equal(torch.stack(several["image"]), frames[2:5][0])
    assert several["InstanceNumber"] == frames[2:5][1]["InstanceNumber"].tolist()


def test_rows_that_were_chosen_are_still_their_frames(frames: DicomFrames) -> None:
    data = frames.index.to_hf(values="modality")
    chosen = data.shuffle(seed=1).select(range(5)).sort("InstanceNumber", reverse=True)
    for row in chosen:
        assert torch.equal(row["image"], frames[row["index"]][0])
    last = data.with_format("numpy").filter(
        lambda number: number > 10, input_columns="InstanceNumber"
    )
    assert len(last) == 2
    parts = data.train_test_split(0.25, seed=0)
    assert {len(parts["train"]), len(parts["test"])} == {9, 3}
    batch = next(iter(DataLoader(chosen, batch_size=2)))
    assert batch["image"].shape == (2, *frames[0][0].shape)
    with pytest.raises(OptionError, match="the column 'index'"):
        data.remove_columns("index")[0]


def test_labels_and_identifiers_are_asked_for(frames: DicomFrames) -> None:
    uids = list(frames.index.column("SOPInstanceUID"))
    joined = frames.index.join({"SOPInstanceUID": uids, "label": list(range(12))})
    assert not {"label", "SOPInstanceUID", "PatientID"} & {*joined.to_hf().column_names}
    data = joined.to_hf(keep=["label", "SOPInstanceUID"])
    assert {"label", "SOPInstanceUID"} < {*data.column_names}
    assert data.with_format(None)["label"][:] == list(range(12))
    with pytest.raises(OptionError, match="there is no column weight"):
        joined.to_hf(keep=["weight"])


def test_pickled_it_is_a_path(tmp_path: Path) -> None:
    require("datasets")
    index = FrameIndex(synthetic(20_000))
    index.save(tmp_path / "index")
    index = FrameIndex.load(tmp_path / "index")
    data = index.to_hf()
    pickled = pickle.dumps(data)
    assert len(pickled) < 60_000 < data.data.nbytes
    again = pickle.loads(pickled)
    assert again.features == data.features
    for name in ("index", "patient", "Modality", "InstanceNumber", "ImagePositionPatient"):
        assert again.data.column(name).equals(data.data.column(name))
    assert again._fingerprint == data._fingerprint


@pytest.mark.slow
def test_workers_that_are_spawned(frames: DicomFrames, tmp_path: Path) -> None:
    data = scan(tmp_path)[0].to_hf(values="modality")
    loader: Any = DataLoader(data, 4, num_workers=1, multiprocessing_context="spawn")
    images = torch.cat([batch["image"] for batch in loader])
    np.testing.assert_array_equal(images, frames[:][0])


def test_its_columns_are_kept_without_what_decodes(frames: DicomFrames, tmp_path: Path) -> None:
    """A dataset with a transform is not written by that library, whatever the transform is."""
    import datasets

    rows = frames.index.to_hf()
    with pytest.raises(TypeError, match="JSON serializable"):
        rows.save_to_disk(tmp_path / "rows")
    rows.with_format(None).save_to_disk(tmp_path / "columns")
    back = datasets.load_from_disk(tmp_path / "columns")
    assert back["index"][:] == list(range(len(frames)))
    assert back["Modality"][:] == list(frames.index.column("Modality"))
