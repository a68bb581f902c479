"""What becomes of an image and its metadata: transforms, targets, random numbers that can be had again."""

from __future__ import annotations

import pickle
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, Subset

from dicomtorch import (
    DicomClips,
    DicomCrops,
    DicomFrames,
    DicomVolumes,
    FrameLoader,
    LocalShuffleSampler,
    ShuffleSampler,
    scan,
)
from dicomtorch.batches.metadata import FrameMeta
from dicomtorch.errors import MetaKeyError, OptionError
from tests.support.phantoms import ct, ct_pixels, write, write_series

COUNT = 8


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples") / "series"
    write_series(folder, COUNT)
    return folder


def labelled(series: Path) -> Any:
    index, _ = scan(series)
    table = {
        "InstanceNumber": range(1, COUNT + 1),
        "label": [k % 2 for k in range(COUNT)],
        "name": [f"n{k}" for k in range(COUNT)],
    }
    return index.join({key: list(values) for key, values in table.items()}, on="InstanceNumber")


# --- Joint transforms -------------------------------------------------------------------------------


def flipped(image: Any, meta: Any) -> Any:
    """A flip that depends on metadata, and says so in them."""
    if meta["InstanceNumber"] % 2:
        image = image.flip(-1)
    return image, {**meta, "flipped": meta["InstanceNumber"] % 2}


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_sample_transform_sees_the_metadata_and_is_batched(
    series: Path, num_workers: int
) -> None:
    plain = DicomFrames(series)
    frames = DicomFrames(series, sample_transform=flipped, transform=lambda image: image + 1)
    image, meta = frames[0]
    assert torch.equal(image, (plain[0][0] + 1).flip(-1))
    assert type(meta) is FrameMeta
    images, meta = next(iter(DataLoader(frames, batch_size=4, num_workers=num_workers)))
    assert meta["flipped"].tolist() == [1, 0, 1, 0]
    assert torch.equal(images[1], plain[1][0] + 1)
    assert torch.equal(images[2], (plain[2][0] + 1).flip(-1))
    assert torch.equal(frames[0:4][0], images)


def test_what_a_sample_transform_returns_is_the_sample(series: Path) -> None:
    as_dict = DicomFrames(series, sample_transform=lambda i, m: {"x": i, "y": m["index"]})
    batch = as_dict[[1, 2]]
    assert batch["y"].tolist() == [1, 2]
    assert batch["x"].shape == (2, 1, 24, 32)
    (batch,) = DataLoader(as_dict, batch_size=COUNT)
    assert batch["y"].tolist() == list(range(COUNT))
    alone = DicomFrames(series, sample_transform=lambda i, m: i)
    (images,) = DataLoader(alone, batch_size=3, sampler=range(3))
    assert images.shape == (3, *alone[0].shape)
    assert torch.equal(images, alone[:3])
    pair = DicomFrames(series, sample_transform=lambda i, m: (i, m["index"]))
    images, numbers = pair[[1, 2]]
    assert (images.shape, numbers.tolist()) == ((2, 1, 24, 32), [1, 2])
    with pytest.raises(OptionError, match="returned None"):
        DicomFrames(series, sample_transform=lambda i, m: None)[0]
    with pytest.raises(OptionError, match="sample_transform must be a function of image, mask"):
        DicomFrames(series, sample_transform="flip")  # type: ignore[call-overload]
    with pytest.raises(OptionError, match="sample_transform returned dict"):
        as_dict.show_batch([0])


def test_every_dataset_takes_one(series: Path) -> None:
    def marked(image: Any, meta: Any) -> Any:
        return image * 0 + 7, {**meta, "marked": 1}

    table = {
        "SeriesInstanceUID": [DicomFrames(series)[0][1]["SeriesInstanceUID"]],
        "x": [8],
        "y": [8],
        "z": [5],
    }
    for dataset in (
        DicomVolumes(series, sample_transform=marked),
        DicomClips(series, 1, sample_transform=marked),
        DicomCrops(series, table, (1, 4, 4), sample_transform=marked),
    ):
        image, meta = dataset[0]
        assert (meta["marked"], image.min(), image.max()) == (1, 7, 7)


# --- Targets ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_workers", [0, 2])
def test_samples_with_a_target_are_pairs(series: Path, num_workers: int) -> None:
    index = labelled(series)
    frames = DicomFrames(index, target="label")
    image, target = frames[3]
    assert (image.shape, target) == ((1, 24, 32), 1)
    images, targets = next(iter(DataLoader(frames, batch_size=4, num_workers=num_workers)))
    assert targets.dtype == torch.int64
    assert targets.tolist() == [0, 1, 0, 1]
    assert torch.equal(images[3], image)
    images, targets = frames[[5, 0]]
    assert targets.tolist() == [1, 0]
    images, targets = next(iter(FrameLoader(frames, batch_size=4)))
    assert targets.tolist() == [0, 1, 0, 1]


def test_images_of_a_batch_with_targets_are_not_copied(series: Path) -> None:
    frames = DicomFrames(labelled(series), target="label")
    samples = frames.__getitems__([0, 1, 2])
    images, _ = torch.utils.data.default_collate(samples)
    assert images is samples.images


def test_targets_of_every_kind(series: Path) -> None:
    index = labelled(series)
    assert DicomFrames(index, target="name")[[0, 1]][1] == ["n0", "n1"]
    assert DicomFrames(series, target="PatientSex")[[0, 1]][1] == ["F", "F"]
    assert DicomFrames(series, target="SliceThickness")[[0]][1].dtype == torch.float64
    one = DicomFrames(index, target=lambda meta: {"a": meta["label"], "b": torch.ones(2)})
    batch = one[[0, 1]][1]
    assert batch["a"].tolist() == [0, 1]
    assert batch["b"].shape == (2, 2)
    both = DicomFrames(index, target="flipped_label", sample_transform=_renamed)
    assert both[3][1] == 10
    volumes = DicomVolumes(series, target="spacing")
    assert volumes[0][1] == pytest.approx((2.5, 0.7, 0.8))
    table = {
        "SeriesInstanceUID": [volumes.index.column("SeriesInstanceUID")[0]],
        "x": [8],
        "y": [8],
        "z": [5],
        "grade": [3],
    }
    assert DicomCrops(series, table, (1, 4, 4), target="grade")[[0]][1].tolist() == [3]


def _renamed(image: Any, meta: Any) -> Any:
    return image, {**meta, "flipped_label": 10 * meta["label"]}


def test_targets_that_are_none(series: Path) -> None:
    with pytest.raises(OptionError, match="target='nonsense' is no key of meta"):
        DicomFrames(series, target="nonsense")
    with pytest.raises(MetaKeyError, match="meta has no 'nonsense'"):
        DicomVolumes(series, target="nonsense")[0]
    with pytest.raises(OptionError, match="target must be a key of meta or a function"):
        DicomFrames(series, target=3)  # type: ignore[call-overload]
    with pytest.raises(OptionError, match=r"returns \(image, meta\).*it returned dict"):
        DicomFrames(series, target="index", sample_transform=lambda i, m: {"x": i})[0]


# --- Random numbers ---------------------------------------------------------------------------------


def noisy(image: Any) -> Any:
    """Draws from all three global generators."""
    return image + random.random() + float(np.random.rand()) + torch.rand(1)


def noise(dataset: Any, loader: Any = None) -> list[float]:
    """The first pixel of each sample, by its position."""
    found: dict[int, float] = {}
    if loader is None:
        found = {meta["index"]: float(image.reshape(-1)[0]) for image, meta in dataset}
    else:
        for images, meta in loader:
            found.update(zip(meta["index"].tolist(), images[:, 0, 0, 0].tolist(), strict=True))
    return [found[k] for k in sorted(found)]


@pytest.fixture(autouse=True)
def _states() -> Iterator[None]:
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    yield
    random.setstate(before[0])
    np.random.set_state(before[1])
    torch.set_rng_state(before[2])


def seeded(series: Path, seed: int = 3) -> DicomFrames:
    return DicomFrames(series, values="stored", transform=noisy, seed=seed)


def test_draws_follow_from_seed_epoch_and_position(series: Path) -> None:
    frames = seeded(series)
    first = noise(frames)
    random.seed(1)
    torch.manual_seed(1)
    assert noise(frames) == first
    assert float(frames[5][0].reshape(-1)[0]) == first[5]
    assert frames[[5, 1]][0].reshape(2, -1)[:, 0].tolist() == [first[5], first[1]]
    plain = DicomFrames(series, values="stored")
    added = [a - float(plain[k][0].reshape(-1)[0]) for k, a in enumerate(first)]
    assert len({round(value, 4) for value in added}) == COUNT
    assert noise(seeded(series, 4)) != first
    frames.set_epoch(1)
    assert noise(frames) != first
    frames.set_epoch(0)
    assert noise(frames) == first
    assert len({frames[k][1]["seed"] for k in range(COUNT)}) == COUNT


def test_what_is_drawn_elsewhere_goes_on_as_if_nothing_had_been(series: Path) -> None:
    frames = seeded(series)
    drawn = []
    for between in (lambda: None, lambda: frames[0]):
        random.seed(5)
        np.random.seed(5)
        torch.manual_seed(5)
        between()
        drawn.append((random.random(), float(np.random.rand()), float(torch.rand(1))))
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("whole", [False, True])
def test_threads_of_a_loader_leave_the_draws_of_the_loop_alone(series: Path, whole: bool) -> None:
    """The loop draws too (dropout): neither it nor the samples get numbers of the other."""
    frames = seeded(series)
    expected = noise(frames)
    threads: set[int] = set()
    waiting = threading.Event()

    def slow(image: torch.Tensor) -> torch.Tensor:
        threads.add(threading.get_ident())
        waiting.wait(0.01)
        made: torch.Tensor = noisy(image)
        return made

    frames.transform = slow
    dataset: Any = Subset(frames, range(COUNT)) if whole else frames
    drawn = []
    for loader in ((), FrameLoader(dataset, batch_size=2, num_threads=3)):
        random.seed(5)
        np.random.seed(5)
        torch.manual_seed(5)
        found: dict[int, float] = {}
        numbers: list[float] = []
        for k in range(-(-COUNT // 2)):
            if loader and not k:
                batches = iter(loader)
            if loader:
                images, meta = next(batches)
                found.update(zip(meta["index"].tolist(), images[:, 0, 0, 0].tolist(), strict=True))
            numbers += [random.random(), float(np.random.rand()), float(torch.rand(1))]
        drawn.append(numbers)
    assert drawn[0] == drawn[1]
    assert [found[k] for k in sorted(found)] == expected
    assert threads == {threading.get_ident()}


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_the_epoch_reaches_workers_that_live_on(series: Path, method: str) -> None:
    expected = []
    frames = seeded(series)
    for epoch in range(3):
        frames.set_epoch(epoch)
        expected.append(noise(frames))
    frames.set_epoch(0)
    loader = DataLoader(
        frames,
        batch_size=3,
        num_workers=2,
        persistent_workers=True,
        sampler=ShuffleSampler(frames, seed=1),
        multiprocessing_context=method,
    )
    for epoch in range(3):
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        assert noise(frames, loader) == expected[epoch]


def test_samplers_and_frame_loader_say_which_epoch_it_is(series: Path) -> None:
    frames = seeded(series)
    frames.set_epoch(2)
    expected = noise(frames)
    frames.set_epoch(0)
    sampler = LocalShuffleSampler(frames, seed=1)
    sampler.set_epoch(2)
    assert len(list(sampler)) == COUNT
    assert noise(frames) == expected
    frames.set_epoch(0)
    dataset: Any
    for dataset in (frames, Subset(frames, range(COUNT)), ConcatDataset([frames])):
        loader = FrameLoader(dataset, batch_size=3, num_threads=2, shuffle=True)
        first = noise(frames, loader)
        assert first != expected
        assert noise(frames, loader) != first
        assert noise(frames, loader) == expected
    clips = DicomClips(series, 1, clips="random", transform=noisy, seed=1)
    drawn = clips.sampler(seed=0)
    drawn.set_epoch(2)
    iter(drawn)
    again = DicomClips(series, 1, transform=noisy, seed=1)
    again.set_epoch(2)
    assert torch.equal(clips[3, 0][0], again[3][0])


class Owner:
    """A transform with a generator of its own, as those of MONAI have."""

    def __init__(self) -> None:
        self.state = np.random.RandomState()

    def set_random_state(self, seed: int) -> None:
        self.state = np.random.RandomState(seed)

    def __call__(self, image: Any) -> Any:
        return image + self.state.rand()


def test_transforms_with_a_generator_of_their_own_are_seeded_too(series: Path) -> None:
    first, second = (DicomFrames(series, transform=Owner(), seed=3) for _ in range(2))
    assert torch.equal(first[2][0], second[2][0])
    assert not torch.equal(first[2][0] - first[2][0].min(), first[3][0] - first[3][0].min())


@pytest.mark.parametrize("seed", [-1, 1 << 64, 1.5, True, "1"])
def test_seeds_that_are_none(series: Path, seed: Any) -> None:
    with pytest.raises(OptionError, match="seed must be"):
        DicomFrames(series, seed=seed)
    with pytest.raises(OptionError, match="epochs count from 0"):
        DicomFrames(series, seed=0).set_epoch(-1)


def test_without_a_seed_nothing_is_added(series: Path) -> None:
    frames = DicomFrames(series)
    frames.set_epoch(3)
    assert "seed" not in frames[0][1]
    assert len(pickle.dumps(frames)) < 20_000


def test_clips_with_other_starts_draw_other_numbers(tmp_path: Path) -> None:
    write(ct(np.stack([ct_pixels()] * 5)), tmp_path / "a.dcm")
    clips = DicomClips(tmp_path, 2, clips="random", transform=noisy, seed=1)
    assert torch.equal(clips[0, 1][0], clips[0, 1][0])
    assert not torch.equal(clips[0, 1][0], clips[0, 2][0])
