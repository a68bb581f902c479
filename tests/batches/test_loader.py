"""`FrameLoader`: the batches of `DataLoader`, from threads that always end."""

from __future__ import annotations

import contextlib
import gc
import pickle
import subprocess
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    WeightedRandomSampler,
)

from dicomtorch import DicomFrames
from dicomtorch.batches import crew, transfer
from dicomtorch.batches.epochs import ShuffleSampler
from dicomtorch.batches.fetch import Fetch
from dicomtorch.batches.loader import FrameLoader
from dicomtorch.batches.metadata import FrameMeta
from dicomtorch.batches.samplers import LocalShuffleSampler
from dicomtorch.errors import DecodeError, OptionError
from dicomtorch.pixels import memory
from dicomtorch.pixels.memory import new_batch
from dicomtorch.reader.threads import usable_threads
from tests.support.phantoms import ct, encapsulated, write, write_series
from tests.support.requirements import require


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> DicomFrames:
    folder = tmp_path_factory.mktemp("series")
    write_series(folder, 23)
    return DicomFrames(folder, cache_dir=folder.parent / "cache")


def threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("dicomtorch-batch")]


def assert_threads_end() -> None:
    deadline = time.monotonic() + 10
    while threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not threads()
    assert not crew._running


class Items(Dataset[Any]):
    """Without `__getitems__`; each item takes its time."""

    def __init__(self, count: int = 40, fails_at: int = -1) -> None:
        self.count, self.fails_at = count, fails_at
        self.lock = threading.Lock()
        self.alive = self.most_alive = 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> torch.Tensor:
        if i == self.fails_at:
            raise ValueError(f"item {i} is bad")
        time.sleep(0.001 * (i % 3))
        return torch.tensor(i)


def equal(a: Any, b: Any) -> bool:
    (images, meta), (others, other) = a, b
    same = [
        torch.equal(torch.nan_to_num(x), torch.nan_to_num(y))
        if isinstance(x, torch.Tensor)
        else x == y
        for x, y in ((meta[key], other[key]) for key in meta)
    ]
    return torch.equal(images, others) and all(same) and meta.keys() == other.keys()


@pytest.mark.parametrize("wrap", ["plain", "subset", "concat"])
@pytest.mark.parametrize("drop_last", [False, True])
def test_gives_what_dataloader_gives(frames: DicomFrames, wrap: str, drop_last: bool) -> None:
    dataset: Any = {
        "plain": frames,
        "subset": Subset(frames, list(range(20, 0, -2))),
        "concat": ConcatDataset([frames, Subset(frames, [3, 3, 1])]),
    }[wrap]
    order = np.random.default_rng(0).permutation(len(dataset)).tolist()
    arguments: dict[str, Any] = {"batch_size": 4, "sampler": order, "drop_last": drop_last}
    ours = FrameLoader(dataset, num_threads=3, **arguments)
    theirs = DataLoader(dataset, **arguments)
    assert len(ours) == len(theirs)
    for _ in range(2):
        pairs = list(zip(ours, theirs, strict=True))
        assert len(pairs) == len(ours)
        assert all(equal(a, b) for a, b in pairs)
    assert_threads_end()


def test_the_same_sampler_object_draws_the_same(frames: DicomFrames) -> None:
    makers: list[Callable[[], Any]] = [
        lambda: RandomSampler(frames, generator=torch.Generator().manual_seed(3)),
        lambda: WeightedRandomSampler([1.0] * 23, 40, generator=torch.Generator().manual_seed(3)),
        lambda: DistributedSampler(frames, num_replicas=2, rank=1, seed=5),
        lambda: LocalShuffleSampler(frames, window=8, seed=2),
    ]
    for make in makers:
        ours = FrameLoader(frames, 5, sampler=make())
        theirs = DataLoader(frames, 5, sampler=make())
        for _ in range(2):
            assert all(equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_lists_of_indices(frames: DicomFrames) -> None:
    sampler = BatchSampler(SequentialSampler(frames), 6, drop_last=True)
    ours = FrameLoader(frames, None, sampler=sampler)
    assert [meta["index"].tolist() for _, meta in ours] == list(sampler)
    assert len(ours) == 3
    assert ours.batch_sampler is ours.sampler is sampler


def test_items_and_own_collate() -> None:
    ours = FrameLoader(Items(10), 4, collate_fn=lambda items: [int(item) for item in items])
    assert list(ours) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    doubled = FrameLoader(list(range(5)), 2, batch_transform=lambda batch: batch * 2)
    assert [batch.tolist() for batch in doubled] == [[0, 2], [4, 6], [8]]


def test_shuffle_depends_on_seed_and_epoch_only(frames: DicomFrames) -> None:
    def order(one: FrameLoader) -> list[int]:
        return [i for _, meta in one for i in meta["index"].tolist()]

    one, same = (FrameLoader(frames, 4, shuffle=True, seed=7) for _ in range(2))
    first, second = order(one), order(one)
    assert sorted(first) == sorted(second) == list(range(23))
    assert first != second
    same.set_epoch(1)
    assert order(same) == second
    same.set_epoch(0)
    assert order(same) == first
    assert order(FrameLoader(frames, 4, shuffle=True, seed=8)) != first


def test_an_epoch_that_was_left_is_over(frames: DicomFrames) -> None:
    one = FrameLoader(frames, 4, shuffle=True)
    for _ in one:
        break
    assert one.sampler.epoch == 1  # type: ignore[attr-defined]


def test_set_epoch_reaches_the_sampler(frames: DicomFrames) -> None:
    sampler: DistributedSampler[Any] = DistributedSampler(frames, num_replicas=2, rank=0)
    FrameLoader(frames, 4, sampler=sampler).set_epoch(9)
    assert sampler.epoch == 9


class Full(Dataset[Any]):
    """Batches full of their number."""

    def __len__(self) -> int:
        return 400

    def __getitems__(self, indices: list[int]) -> list[torch.Tensor]:
        return [new_batch((4, 1, 256, 128), torch.float32).fill_(indices[0])]


def test_memory_is_recycled_and_never_shared() -> None:
    pointers, kept = set(), []
    for k, batch in enumerate(FrameLoader(Full(), 4, num_threads=2, collate_fn=lambda s: s[0])):
        assert bool((batch == 4 * k).all())
        pointers.add(batch.data_ptr())
        if k % 20 == 0:
            kept.append((batch[1], 4 * k))
        del batch
        assert all(bool((view == value).all()) for view, value in kept)
    assert len(pointers) <= 4 + 2 + len(kept)


@pytest.mark.parametrize(("num_threads", "prefetch"), [(1, 0), (1, 2), (3, 1)])
def test_few_batches_exist(num_threads: int, prefetch: int) -> None:
    begun = []

    class Noted(Items):
        def __getitem__(self, i: int) -> torch.Tensor:
            begun.append(i)
            return torch.tensor(i)

    passing = iter(FrameLoader(Noted(), 1, num_threads=num_threads, prefetch=prefetch))
    for taken in range(1, 6):
        next(passing)
        time.sleep(0.05)
        assert len(begun) == taken + num_threads + prefetch


def test_an_exception_arrives_in_its_place_with_its_traceback() -> None:
    passing = iter(FrameLoader(Items(fails_at=13), 4, num_threads=2))
    got = [next(passing).tolist() for _ in range(3)]
    assert got == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    with pytest.raises(ValueError, match="item 13 is bad") as caught:
        next(passing)
    assert "__getitem__" in "".join(traceback.format_tb(caught.tb))
    assert_threads_end()


def test_a_damaged_frame_names_itself(tmp_path: Path) -> None:
    write_series(tmp_path, 5)
    pixels = np.zeros((24, 32), np.int16)
    write(encapsulated(ct(pixels, 9), [b"\xff\x4f\xff\x51 no image"]), tmp_path / "damaged.dcm")
    with pytest.raises(DecodeError, match=r"damaged\.dcm"):
        list(FrameLoader(DicomFrames(tmp_path), 2))


def test_a_pass_that_failed_is_over() -> None:
    passing = iter(FrameLoader(Items(fails_at=0), 4))
    with pytest.raises(ValueError, match="bad"):
        next(passing)
    assert next(passing, None) is None


def test_a_dataset_that_raises_stop_iteration_does_not_end_the_loop_in_silence() -> None:
    class Ends(Items):
        def __getitem__(self, i: int) -> torch.Tensor:
            if i == 13:
                raise StopIteration
            return torch.tensor(i)

    with pytest.raises(RuntimeError, match="raised StopIteration"):
        list(FrameLoader(Ends(), 4))


def test_an_exception_keeps_no_batch_alive() -> None:
    class Thing:
        pass

    things: list[weakref.ref[Thing]] = []

    class Fails(Items):
        def __getitem__(self, i: int) -> torch.Tensor:
            thing = Thing()
            things.append(weakref.ref(thing))
            raise ValueError("bad")

    gc.collect()
    gc.disable()
    try:
        with contextlib.suppress(ValueError):
            next(iter(FrameLoader(Fails(), 4, num_threads=2)))
        assert_threads_end()
        assert len(things) >= 1
        assert [thing() for thing in things] == [None] * len(things)
    finally:
        gc.enable()


def test_too_few_threads_leave_none(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start
    started: list[threading.Thread] = []

    def second_fails(thread: threading.Thread) -> None:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", second_fails)
    with pytest.raises(MemoryError, match="thread 2 of 3"):
        iter(FrameLoader(Items(), 4, num_threads=3))
    assert_threads_end()


def interrupted(ours: FrameLoader) -> None:
    for _ in ours:
        raise KeyboardInterrupt


@pytest.mark.parametrize("how", ["break", "collected", "cycle", "interrupted"])
def test_threads_end_when_the_loop_does(how: str) -> None:
    ours = FrameLoader(Items(400), 4, num_threads=2)
    if how == "interrupted":
        with pytest.raises(KeyboardInterrupt):
            interrupted(ours)
    elif how == "break":
        for _ in ours:
            break
    else:
        passing = iter(ours)
        next(passing)
        assert threads()
        if how == "cycle":
            passing.me = passing  # type: ignore[attr-defined]
        del passing
        gc.collect()
    assert_threads_end()


def test_an_interrupt_while_waiting(tmp_path: Path) -> None:
    program = (
        "import time, threading, _thread\n"
        "from dicomtorch.batches.loader import FrameLoader\n"
        "class Slow:\n"
        "    def __len__(self): return 100\n"
        "    def __getitem__(self, i): time.sleep(0.6); return i\n"
        "threading.Timer(0.3, _thread.interrupt_main).start()\n"
        "try:\n"
        "    for batch in FrameLoader(Slow(), 1): pass\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
        "for batch in FrameLoader(Slow(), 1): break\n"
        "kept = iter(FrameLoader(Slow(), 1))\n"  # still alive when the interpreter ends
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "interrupted", "")


def test_each_batch_is_decoded_by_one_thread() -> None:
    class Threads(Items):
        def __getitem__(self, i: int) -> torch.Tensor:
            return torch.tensor(usable_threads())

    assert {int(n) for n in FrameLoader(Threads(6), 1)} == {1}


def test_frames_are_announced_ahead(frames: DicomFrames, monkeypatch: pytest.MonkeyPatch) -> None:
    announced: list[list[int]] = []
    monkeypatch.setattr(
        DicomFrames, "will_need", lambda self, indices: announced.append(list(indices))
    )
    monkeypatch.setattr(
        Fetch,
        "_waits",
        property(lambda self: True, lambda self, value: None),
        raising=False,
    )
    chosen = Subset(frames, list(range(22, -1, -1)))
    list(FrameLoader(chosen, 2, num_threads=1, prefetch=1))
    assert sorted(i for batch in announced for i in batch)[0] == 0
    assert all(len(batch) <= 2 for batch in announced)


def test_hints_fail_in_silence_and_reads_do_not(frames: DicomFrames) -> None:
    frames.will_need([0, 5, -1])
    with pytest.raises(IndexError, match="frame 99"):
        list(FrameLoader(frames, 1, sampler=[0, 1, 2, 3, 4, 5, 99]))


# --- States -------------------------------------------------------------------------------------------


def samplers(frames: DicomFrames) -> dict[str, Any]:
    return {
        "shuffle": {"shuffle": True, "seed": 4},
        "sequential": {},
        "generator": {"sampler": RandomSampler(frames, generator=torch.Generator().manual_seed(1))},
        "distributed": {"sampler": DistributedSampler(frames, num_replicas=2, rank=1)},
        "local": {"sampler": LocalShuffleSampler(frames, window=6, seed=3)},
    }


@pytest.mark.parametrize("kind", ["shuffle", "sequential", "generator", "distributed", "local"])
@pytest.mark.parametrize("stop_at", [0, 1, 3, 4, 5, 7])
def test_a_state_goes_on_exactly(frames: DicomFrames, kind: str, stop_at: int) -> None:
    def run(one: FrameLoader, stop: int | None, state: Any = None) -> tuple[list[Any], Any]:
        """Batches of three epochs, up to batch `stop`."""
        seen: list[Any] = []
        first = 0
        if state is not None:
            one.load_state_dict(pickle.loads(pickle.dumps(state)))
            first = state["epoch"]
        for epoch in range(first, 3):
            if kind in ("distributed", "local"):
                one.set_epoch(epoch)
            if stop == 0:
                return seen, one.state_dict()
            for _, meta in one:
                seen.append((epoch, meta["index"].tolist()))
                if len(seen) == stop:
                    return seen, one.state_dict()
        return seen, one.state_dict()

    expected, _ = run(FrameLoader(frames, 6, **samplers(frames)[kind]), None)
    before, state = run(FrameLoader(frames, 6, **samplers(frames)[kind]), stop_at)
    fresh = FrameLoader(frames, 6, **samplers(frames)[kind])
    after, _ = run(fresh, None, state)
    assert before + after == expected


def test_a_state_after_an_epoch_is_of_the_next(frames: DicomFrames) -> None:
    one = FrameLoader(frames, 6, shuffle=True)
    list(one)
    state = one.state_dict()
    assert (state["epoch"], state["batches"]) == (1, 0)
    fresh = FrameLoader(frames, 6, shuffle=True)
    fresh.load_state_dict(state)
    assert fresh.state_dict() == state
    assert all(equal(a, b) for a, b in zip(one, fresh, strict=True))


def test_states_and_epochs_reach_the_sampler_inside_a_batch_sampler(frames: DicomFrames) -> None:
    def make(size: int = 6) -> FrameLoader:
        shuffled = ShuffleSampler(frames, seed=2, num_replicas=1, rank=0)
        return FrameLoader(frames, None, sampler=BatchSampler(shuffled, size, False))

    def indices(passing: Any) -> list[Any]:
        return [meta["index"].tolist() for _, meta in passing]

    one, fresh, early = make(), make(), make()
    early_order = indices(early)
    one.set_epoch(3)
    passing = iter(one)
    next(passing)
    state = pickle.loads(pickle.dumps(one.state_dict()))
    rest = indices(passing)
    assert state["epoch"] == 3
    assert rest != early_order[1:]
    fresh.load_state_dict(state)
    assert indices(fresh) == rest
    with pytest.raises(OptionError, match="batch_size is 6, here it is 5"):
        make(5).load_state_dict(state)
    drawn = FrameLoader(frames, None, sampler=BatchSampler(RandomSampler(frames), 4, False))
    with pytest.raises(OptionError, match="RandomSampler without a generator"):
        drawn.state_dict()


def test_states_that_cannot_be_had_or_do_not_fit(frames: DicomFrames) -> None:
    with pytest.raises(OptionError, match="RandomSampler without a generator"):
        FrameLoader(frames, 4, sampler=RandomSampler(frames)).state_dict()
    state = FrameLoader(frames, 4, shuffle=True).state_dict()
    with pytest.raises(OptionError, match="batch_size is 4, here it is 5"):
        FrameLoader(frames, 5, shuffle=True).load_state_dict(state)
    with pytest.raises(OptionError, match="seed"):
        FrameLoader(frames, 4, shuffle=True, seed=1).load_state_dict(state)
    with pytest.raises(OptionError, match="SequentialSampler"):
        FrameLoader(frames, 4).load_state_dict(state)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"batch_size": 0}, "batch_size must be 1 or more"),
        ({"batch_size": None}, "batch_size=None needs a sampler"),
        ({"batch_size": 2, "shuffle": True, "sampler": [0]}, "both decide the order"),
        ({"batch_size": 2, "num_threads": 0}, "num_threads must be 1"),
        ({"batch_size": 2, "prefetch": -1}, "prefetch must be 0"),
    ],
)
def test_arguments_that_mean_nothing(arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(OptionError, match=problem):
        FrameLoader(Items(), **arguments)


def test_streams_are_refused() -> None:
    class Stream(IterableDataset[int]):
        def __iter__(self) -> Iterator[int]:
            return iter(())

    with pytest.raises(OptionError, match="indexed"):
        FrameLoader(Stream(), 2)


# --- Devices ------------------------------------------------------------------------------------------


def test_what_goes_to_a_device() -> None:
    meta = FrameMeta(index=torch.arange(3))
    moved = transfer.mapped(
        (torch.ones(2), meta, {"label": [torch.ones(1), "text"]}), lambda t: t + 1
    )
    assert torch.equal(moved[0], torch.full((2,), 2.0))
    assert moved[1] is meta
    assert torch.equal(moved[2]["label"][0], torch.full((1,), 2.0))
    assert moved[2]["label"][1] == "text"
    seen: list[torch.Tensor] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        seen.append(tensor)
        return tensor

    transfer.mapped((torch.ones(2), meta), note, with_meta=True)
    assert len(seen) == 2


def test_batches_for_a_device_lie_in_its_memory(frames: DicomFrames) -> None:
    asked = []

    class Transfer(transfer.Transfer):
        def allocate(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
            asked.append(shape)
            return super().allocate(shape, dtype)

    ours = FrameLoader(frames, 8, batch_transform=lambda batch: (batch[0] * 2, batch[1]))
    ours._fetch._transfer = Transfer(torch.device("cpu"))
    for (images, meta), (others, _) in zip(ours, DataLoader(frames, 8), strict=True):
        assert torch.equal(images, others * 2)
        assert isinstance(meta, FrameMeta)
    assert sorted(asked) == [(7, 1, 24, 32), (8, 1, 24, 32), (8, 1, 24, 32)]
    meta_only = FrameLoader(frames, 8, device="meta")
    assert {images.device.type for images, _ in meta_only} == {"meta"}
    as_samples = FrameLoader(frames, 8, device="meta", collate_fn=lambda samples: samples)
    assert {image.device.type for samples in as_samples for image, _ in samples} == {"meta"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA is not available")
def test_cuda(frames: DicomFrames) -> None:
    ours = FrameLoader(frames, 4, device="cuda", num_threads=2)
    for _ in range(20):
        for (images, meta), (others, _) in zip(ours, DataLoader(frames, 4), strict=True):
            assert images.device.type == "cuda"
            assert meta["index"].device.type == "cpu"
            assert torch.equal(images.cpu(), others)


def test_memory_goes_with_the_last_loader() -> None:
    pool = memory._private
    gc.collect()
    first, second = (FrameLoader(Full(), 4, collate_fn=lambda s: s[0]) for _ in range(2))
    for batch in first:
        assert bool((batch == batch.flatten()[0]).all())
    del batch
    assert_threads_end()
    assert pool.kept() > 0
    del first
    gc.collect()
    assert pool.kept() > 0
    del second
    gc.collect()
    assert pool.kept() == 0


# --- Looking ------------------------------------------------------------------------------------------


def test_a_batch_is_drawn_as_the_loop_gets_it(frames: DicomFrames) -> None:
    require("PIL")
    loader = FrameLoader(frames, 4, shuffle=True, seed=2)
    picture = loader.show_batch(columns=2, tile=32)
    (_, meta), *_ = loader
    assert picture.tobytes() == frames.show_batch(meta["index"], columns=2, tile=32).tobytes()
    changed = FrameLoader(frames, 4, batch_transform=lambda batch: (batch[0] * 0, batch[1]))
    assert changed.show_batch().tobytes() != FrameLoader(frames, 4).show_batch().tobytes()
    part = FrameLoader(Subset(frames, [5, 3]), 2)
    assert part.show_batch().tobytes() == frames.show_batch([5, 3]).tobytes()
    pairs = FrameLoader(frames, 4, collate_fn=lambda samples: (samples.images, [0, 1, 1, 0]))
    assert pairs.show_batch(columns=2).size == FrameLoader(frames, 4).show_batch(columns=2).size


def test_drawing_changes_nothing_in_the_middle_of_an_epoch(frames: DicomFrames) -> None:
    require("PIL")
    expected = [meta["index"].tolist() for _, meta in FrameLoader(frames, 4, shuffle=True)]
    loader = FrameLoader(frames, 4, shuffle=True)
    passing = iter(loader)
    next(passing)
    state = loader.state_dict()
    loader.show_batch()
    assert loader.state_dict() == state
    assert [meta["index"].tolist() for _, meta in passing] == expected[1:]
    loader.load_state_dict(state)
    loader.show_batch()
    assert [meta["index"].tolist() for _, meta in loader] == expected[1:]


def test_what_cannot_be_drawn(frames: DicomFrames) -> None:
    with pytest.raises(OptionError, match="this is a list"):
        FrameLoader([1, 2], 2).show_batch()
    with pytest.raises(OptionError, match="collate_fn or batch_transform gives something else"):
        FrameLoader(frames, 2, collate_fn=len).show_batch()
