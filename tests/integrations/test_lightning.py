"""`DicomDataModule`: parts by patient, and a whole training with it."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dicomtorch import BalancedSampler, DicomFrames, DicomVolumes, scan
from dicomtorch.errors import OptionError
from tests.support.phantoms import ct, write
from tests.support.requirements import require

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings(
        "ignore::FutureWarning"
    ),  # torch's, of how Lightning asks for leaves
]

PATIENTS, SLICES = 12, 3
QUIET: Any = dict.fromkeys(
    ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("patients")
    for patient in range(PATIENTS):
        for k in range(SLICES):
            about = {"PatientID": f"p{patient}", "SeriesInstanceUID": f"1.2.{patient}"}
            number = SLICES * patient + k
            dataset = ct(np.full((8, 8), number, np.int16), number, **about)
            dataset.StudyInstanceUID = f"1.3.{patient}"
            dataset.ImagePositionPatient = [0.0, 0.0, 2.5 * k]
            write(dataset, folder / f"{number:03}.dcm")
    return folder


def module(*arguments: Any, **options: Any) -> Any:
    require("lightning")
    from dicomtorch.integrations.lightning import DicomDataModule

    made = DicomDataModule(*arguments, **options)
    made.prepare_data()
    return made


def test_parts_have_no_patient_in_common(folder: Path) -> None:
    data = module(folder, split=(0.6, 0.2, 0.2), batch_size=4, seed=1, val={"values": "modality"})
    data.setup("fit")
    patients = [{*part.index.column("PatientID")} for part in data.datasets.values()]
    assert sum(map(len, patients)) == len(set.union(*patients)) == PATIENTS
    index = DicomFrames(folder).index
    expected = [len(part) for part in index.split((0.6, 0.2, 0.2), seed=1)]
    assert [len(part) for part in data.datasets.values()] == expected
    seen = torch.cat([meta["index"] for _, meta in data.train_dataloader()])
    assert sorted(seen.tolist()) == list(range(expected[0]))
    assert seen.tolist() != sorted(seen.tolist())
    ordered = torch.cat([meta["index"] for _, meta in data.val_dataloader()])
    assert ordered.tolist() == list(range(expected[1]))
    assert next(iter(data.val_dataloader()))[1]["voi"] == [""] * min(4, expected[1])
    assert len(data.test_dataloader().dataset) == expected[2]
    with pytest.raises(OptionError, match="no part 'predict'"):
        data.predict_dataloader()


def test_parts_that_are_given(folder: Path) -> None:
    index, _ = scan(folder)
    half = {"train": index.select(range(12)), "predict": index}
    data = module(None, split=half, batch_size=5, loader={"num_threads": 1})
    data.setup()
    assert len(data.train_dataloader()) == 3
    assert len(data.predict_dataloader().dataset) == PATIENTS * SLICES
    assert data.val_dataloader() == []


def test_volumes_and_another_sampler(folder: Path) -> None:
    data = module(folder, split=0.5, dataset=DicomVolumes, batch_size=2)
    data.setup()
    images, _ = next(iter(data.train_dataloader()))
    assert images.shape[:3] == (2, 1, SLICES)
    balanced = module(folder, sampler=lambda frames: BalancedSampler(frames, by="PatientID"))
    balanced.setup()
    assert isinstance(balanced.train_dataloader().sampler, BalancedSampler)


def test_what_means_nothing(folder: Path) -> None:
    with pytest.raises(OptionError, match="the parts of a split are"):
        module(folder, split={"training": folder})
    with pytest.raises(OptionError, match="4 fractions"):
        module(folder, split=[0.25] * 4)


@pytest.mark.slow
def test_a_trainer_takes_it(folder: Path) -> None:
    require("lightning")
    from lightning.pytorch import LightningModule, Trainer

    class Model(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)
            self.seen: list[list[int]] = [[], []]

        def training_step(self, batch: Any, _: int) -> Any:
            images, meta = batch
            self.seen[self.current_epoch] += meta["index"].tolist()
            return self.layer(images.mean((1, 2, 3))[:, None]).mean()

        def validation_step(self, batch: Any, _: int) -> None:
            assert not self.training

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.1)

    data = module(folder, batch_size=4)
    model = Model()
    Trainer(max_epochs=2, accelerator="cpu", devices=1, **QUIET).fit(model, datamodule=data)
    count = len(data.datasets["train"])
    assert sorted(model.seen[0]) == sorted(model.seen[1]) == list(range(count))
    assert model.seen[0] != model.seen[1]
    pickle.dumps(data.datasets)
