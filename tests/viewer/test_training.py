"""Looking changes no training: no random state, no order, no epoch, and it shows what training gets."""

from __future__ import annotations

import random
import threading

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, RandomSampler, Subset

from dicomtorch import BalancedSampler, DicomFrames, FrameLoader, LocalShuffleSampler
from dicomtorch.viewer.content import Content
from dicomtorch.viewer.looked import Opened
from tests.support.phantoms import write_series


def noisy(image: torch.Tensor) -> torch.Tensor:
    """Draws from all three global generators."""
    return image + random.random() + float(np.random.rand()) + torch.rand(())


class Counting:
    """A transform that has a generator and a counter of its own."""

    def __init__(self) -> None:
        self.calls = 0
        self.generator = np.random.default_rng(0)

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return image + float(self.generator.random())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("training")
    write_series(found, 10)
    return found


@pytest.fixture
def content():
    """Makes contents that end with the test."""
    made = []

    def make(given):
        made.append(Content(Opened(given)))
        return made[-1]

    yield make
    for one in made:
        one.close()


def states():
    return (
        random.getstate(),
        [part.tolist() if isinstance(part, np.ndarray) else part for part in np.random.get_state()],
        torch.get_rng_state().tolist(),
    )


def ask(content, path, **query):
    found = content.answer(path, {name: str(value) for name, value in query.items()})
    assert found.status == 200, found.info
    return found


def look(content):
    """Everything that calls code of a user."""
    for draw in range(3):
        ask(content, "samples/2/training", draw=draw)
        ask(content, "samples/2", draw=draw)
    if content._opened.loader is not None:
        ask(content, "batches")
        ask(content, "batches/1")
        ask(content, "batches/1/training", item=0)


def test_draws_differ_and_can_be_had_again(folder, content):
    made = content(DicomFrames(folder, transform=noisy))
    draws = [bytes(ask(made, "samples/3/training", draw=draw).data) for draw in range(4)]
    assert len(set(draws)) == 4
    other = content(DicomFrames(folder, transform=noisy))
    assert bytes(ask(other, "samples/3/training", draw=2).data) == draws[2]


def test_with_a_seed_the_first_draw_is_that_of_training(folder, content):
    frames = DicomFrames(folder, transform=noisy, seed=5)
    frames.set_epoch(3)
    made = content(frames)
    assert bytes(ask(made, "samples/4/training").data) == frames[4][0].numpy().tobytes()
    later = ask(made, "samples/4/training", draw=2).data
    assert frames.drawn_epoch == 3, "looking is no epoch"
    frames.set_epoch(5)
    assert bytes(later) == frames[4][0].numpy().tobytes()


@pytest.mark.parametrize("is_loader", [False, True])
def test_looking_changes_no_random_state(folder, content, is_loader):
    transform = Counting()
    frames = DicomFrames(folder, transform=lambda image: transform(noisy(image)))
    generator = torch.Generator().manual_seed(1)
    given = DataLoader(frames, 3, shuffle=True, generator=generator) if is_loader else frames
    before, own, drawn = states(), transform.generator.bit_generator.state, generator.get_state()
    look(content(given))
    assert states() == before
    assert transform.calls == 0
    assert transform.generator.bit_generator.state == own
    assert torch.equal(generator.get_state(), drawn)


def test_a_training_that_draws_meanwhile_draws_what_it_would_have(folder, content):
    """Putting a state back would take back what another thread drew in between."""
    frames = DicomFrames(folder, transform=noisy)
    made = content(frames)
    torch.manual_seed(0)
    expected = [float(torch.rand(())) for _ in range(3000)]
    torch.manual_seed(0)
    ended = threading.Event()

    def keep_looking():
        draw = 0
        while not ended.is_set():
            draw += 1
            made.answer(f"samples/{draw % 10}/training", {"draw": str(draw)})

    looking = threading.Thread(target=keep_looking)
    ask(made, "samples/0/training")
    looking.start()
    found = [float(torch.rand(())) for _ in range(3000)]
    ended.set()
    looking.join()
    assert found == expected


LOADERS = {
    "shuffled": lambda frames: FrameLoader(frames, 3, shuffle=True, seed=2),
    "in order": lambda frames: FrameLoader(frames, 4, drop_last=True),
    "local": lambda frames: FrameLoader(frames, 3, sampler=LocalShuffleSampler(frames, seed=1)),
    "balanced": lambda frames: FrameLoader(
        frames, 3, sampler=BalancedSampler(frames, by=[k % 2 for k in range(len(frames))], seed=1)
    ),
    "torch, shuffled": lambda frames: DataLoader(
        frames, 3, shuffle=True, generator=torch.Generator().manual_seed(7)
    ),
    "torch, sampler": lambda frames: DataLoader(
        frames, 3, sampler=RandomSampler(frames, generator=torch.Generator().manual_seed(9))
    ),
    "torch, in order": lambda frames: DataLoader(frames, 4),
    "subset": lambda frames: DataLoader(
        Subset(frames, [7, 1, 5, 3]), 2, shuffle=True, generator=torch.Generator().manual_seed(3)
    ),
}


@pytest.mark.parametrize("kind", LOADERS)
def test_batches_are_those_that_training_gets_next(folder, content, kind):
    loader = LOADERS[kind](DicomFrames(folder))
    made = content(loader)
    for epoch in range(2):
        said = ask(made, "batches", new=1).info
        assert said["repeats"]
        shown = []
        for number in range(said["count"]):
            images = ask(made, f"batches/{number}").info["shape"][0]
            shown.append(
                [bytes(ask(made, f"batches/{number}/training", item=k).data) for k in range(images)]
            )
        expected = [[image.numpy().tobytes() for image in images] for images, _ in loader]
        assert shown == expected, epoch


def test_looking_in_the_middle_of_an_epoch_leaves_its_position(folder, content):
    frames = DicomFrames(folder)
    loader = FrameLoader(frames, 2, shuffle=True, seed=4)
    whole = [meta["index"].tolist() for _, meta in loader]
    loader.set_epoch(0)
    running = iter(loader)
    given = [next(running)[1]["index"].tolist() for _ in range(2)]
    state = loader.state_dict()
    look(content(loader))
    assert loader.state_dict() == state
    given += [meta["index"].tolist() for _, meta in running]
    assert given == whole


def test_says_where_training_gets_another_order(folder, content):
    made = content(DataLoader(DicomFrames(folder), 3, shuffle=True))
    assert not ask(made, "batches").info["repeats"]


def test_batches_of_something_else_are_an_error(folder, content):
    made = content(DataLoader(DicomFrames(folder), 3, collate_fn=lambda samples: {"a": samples}))
    found = made.answer("batches/0", {})
    assert found.status == 422
    assert "begin with images" in found.info["error"]
    assert made.answer("batches/99", {}).status == 404
    assert content(DicomFrames(folder)).answer("batches", {}).status == 404


def test_a_child_that_dies_is_started_again(folder, content):
    import os

    def deadly(image: torch.Tensor) -> torch.Tensor:
        if float(image.mean()) >= 0 and os.getpid() != parent and image.shape[0] == 1 and doomed:
            os._exit(3)
        return image

    parent, doomed = os.getpid(), [True]
    made = content(DicomFrames(folder, transform=deadly))
    found = made.answer("samples/0/training", {})
    assert found.status == 422
    assert "ended unexpectedly" in found.info["error"]
    doomed.clear()
    assert ask(made, "samples/0/training").data
