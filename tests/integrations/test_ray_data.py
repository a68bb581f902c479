"""Frames through Ray Data are the frames of the dataset."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dicomtorch import DicomFrames, scan
from dicomtorch.errors import OptionError
from tests.support.phantoms import ct, write, write_series
from tests.support.requirements import require

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings(
        "ignore"
    ),  # of Ray's: files and sockets that it leaves open, old Pydantic
]


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    require("ray")
    import ray

    ray.init(
        num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=200 << 20,
        configure_logging=False,
    )  # fmt: skip
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield ray
    ray.shutdown()


def test_frames_and_labels(ray: Any, tmp_path: Path) -> None:
    from dicomtorch.integrations.ray_data import frames_to_ray

    write_series(tmp_path, 23)
    index, _ = scan(tmp_path)
    uids = list(index.column("SOPInstanceUID"))
    index = index.join({"SOPInstanceUID": uids, "label": list(range(100, 123))})
    frames = DicomFrames(index, values="modality")
    data = frames_to_ray(index, batch_size=4, keys=["label"], values="modality")
    seen = {}
    for batch in data.iter_torch_batches(batch_size=5):
        for position, image, label in zip(
            batch["index"].tolist(), batch["image"], batch["label"].tolist(), strict=True
        ):
            assert torch.equal(image, frames[position][0])
            assert label == position + 100
            seen[position] = True
    assert seen.keys() == set(range(23))
    with pytest.raises(OptionError, match="batch_size"):
        frames_to_ray(index, batch_size=0)


def test_frames_of_several_sizes(ray: Any, tmp_path: Path) -> None:
    from dicomtorch.integrations.ray_data import frames_to_ray

    for k in range(4):
        write(ct(np.full((8, 8 + k % 2), k, np.int16), k), tmp_path / f"{k}.dcm")
    frames = DicomFrames(tmp_path, values="stored")
    rows = frames_to_ray(frames.index, values="stored").take_all()
    for row in rows:
        np.testing.assert_array_equal(row["image"], frames[row["index"]][0])
    assert len(rows) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keys": ["label"]}, "meta has no 'label'"),
        ({"keys": "patient"}, "list of keys"),
        ({"num_replicas": 0}, "num_replicas must be 1 or more"),
        ({"keys": ["index"]}, "index is a column already"),
        ({"target": "patient"}, "leave out target="),
        ({"sample_transform": lambda image, meta: image}, "leave out target="),
    ],
)
def test_what_tasks_would_fail_at_is_refused_here(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    require("ray")
    from dicomtorch.integrations.ray_data import frames_to_ray

    write_series(tmp_path, 2)
    index, _ = scan(tmp_path)
    with pytest.raises(OptionError, match=message):
        frames_to_ray(index, **options)
