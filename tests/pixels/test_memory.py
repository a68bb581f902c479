"""Recycled batch memory: never given out twice, always given back."""

from __future__ import annotations

import gc
import itertools
import mmap
import os
import pickle
import random
import signal
import sys
import time
from collections.abc import Iterator
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, random_split
from torch.utils.data._utils import signal_handling

from dicomtorch import DicomFrames
from dicomtorch.batches.metadata import BatchMeta
from dicomtorch.pixels import attached, pool, slots
from dicomtorch.pixels import memory as buffers
from dicomtorch.pixels.memory import new_batch, new_picture
from tests.support.numbered import SHAPE, Numbers, only
from tests.support.phantoms import ct, ct_pixels, write


@pytest.fixture
def eager_gc():
    old = gc.get_threshold()
    gc.set_threshold(10, 2, 2)
    yield
    gc.set_threshold(*old)


class Cycle:
    """Keeps a tensor alive until the collector comes."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor, self.me = tensor, self


def keep_something(batch: torch.Tensor, chosen: random.Random) -> object:
    kind = chosen.randrange(7)
    if kind == 0:
        return batch[chosen.randrange(len(batch))]
    if kind == 1:
        return np.asarray(batch.numpy()[::2])
    if kind == 2:
        return torch.from_numpy(batch.numpy()[1:])
    if kind == 3:
        return batch.view(-1)[5:90]
    if kind == 4:
        try:
            raise ValueError(batch)
        except ValueError as error:
            return error
    if kind == 5:
        Cycle(batch)
        return None
    return batch.detach()


def first_value(kept: object) -> float:
    if isinstance(kept, Exception):
        kept = kept.args[0]
    return float(kept.reshape(-1)[0])  # type: ignore[attr-defined]


def all_equal(kept: object, value: float) -> bool:
    if isinstance(kept, Exception):
        kept = kept.args[0]
    return bool((kept == value).all())  # type: ignore[attr-defined]


@pytest.mark.usefixtures("eager_gc")
@pytest.mark.parametrize("seed", range(3))
def test_private_batches_never_alias_what_is_alive(seed: int) -> None:
    chosen = random.Random(seed)
    kept: list[tuple[object, float]] = []
    for number in range(400):
        rows = chosen.choice([4, 4, 4, 3, 8])
        batch = new_batch((rows, *SHAPE[1:]), torch.float32)
        batch.fill_(number)
        thing = keep_something(batch, chosen)
        if thing is not None and chosen.random() < 0.3:
            kept.append((thing, float(number)))
        del batch, thing
        if len(kept) > 12:
            kept.pop(chosen.randrange(len(kept)))
        for thing, value in kept:
            assert all_equal(thing, value)


def test_private_memory_comes_back() -> None:
    pointers = set()
    for _ in range(20):
        batch = new_batch(SHAPE, torch.float32)
        pointers.add(batch.data_ptr())
        del batch
    assert len(pointers) <= 2


@pytest.mark.usefixtures("eager_gc")
@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("persistent", [False, True])
def test_shared_batches_never_alias_what_is_alive(method: str, persistent: bool) -> None:
    chosen = random.Random(7)
    loader = DataLoader(
        Numbers(160, sizes=True), batch_size=4, num_workers=2, collate_fn=only,
        multiprocessing_context=method, persistent_workers=persistent,
    )  # fmt: skip
    kept: list[tuple[object, float]] = []
    for epoch in range(2 if method == "spawn" else 3):
        for step, batch in enumerate(loader):
            assert all_equal(batch, 4.0 * step)
            thing = keep_something(batch, chosen)
            if thing is not None and chosen.random() < 0.4:
                kept.append((thing, 4.0 * step))
            del batch, thing
            if len(kept) > 10:
                kept.pop(chosen.randrange(len(kept)))
            for thing, value in kept:
                assert all_equal(thing, value)
            if epoch == 1 and step == 20:
                break  # leaving early must not lose or mix anything
    if persistent:
        # Left to the collector, workers that persist are waited for in vain, five seconds each, by any dataset.
        loader._iterator._shutdown_workers()  # type: ignore[union-attr]


def test_batches_kept_take_no_descriptors() -> None:
    loader = DataLoader(Numbers(200), batch_size=4, num_workers=1, collate_fn=only)
    kept, counts = [], []
    for batch in loader:
        kept.append(batch)
        counts.append(len(os.listdir("/proc/self/fd")))
    assert max(counts[5:]) - min(counts[5:]) <= 2, counts
    assert [first_value(batch) for batch in kept] == [4.0 * k for k in range(50)]


def test_small_batches_are_plain() -> None:
    assert new_batch((2, 3), torch.int16).shape == (2, 3)


# --- Of a dataset, through the stock DataLoader -------------------------------------------------------


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> DicomFrames:
    """Images large enough for recycled memory."""
    folder = tmp_path_factory.mktemp("large")
    for k in range(24):
        write(ct(ct_pixels(k, 128, 160), k), folder / f"{k:02}.dcm")
    return DicomFrames(folder, cache_dir=folder.parent / "cache")


def assert_same(batch: Any, frames: DicomFrames) -> None:
    images, meta = batch
    assert isinstance(meta, BatchMeta)
    for k, i in enumerate(meta["index"].tolist()):
        assert torch.equal(images[k], frames[i][0])
        assert meta["SOPInstanceUID"][k] == frames[i][1]["SOPInstanceUID"]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("wrap", ["plain", "subset", "concat", "split"])
def test_wrapped_datasets(frames: DicomFrames, wrap: str, workers: int) -> None:
    dataset: Any = {
        "plain": lambda: frames,
        "subset": lambda: Subset(frames, list(range(23, 0, -2))),
        "concat": lambda: ConcatDataset([frames, Subset(frames, [1, 2, 3])]),
        "split": lambda: random_split(frames, [20, 4], torch.Generator().manual_seed(0))[0],
    }[wrap]()
    kept = list(DataLoader(dataset, batch_size=5, num_workers=workers))
    assert sum(len(images) for images, _ in kept) == len(dataset)
    for batch in kept:
        assert_same(batch, frames)


@pytest.mark.parametrize("workers", [0, 1])
def test_own_collate_functions(frames: DicomFrames, workers: int) -> None:
    for images, metas in DataLoader(frames, 6, num_workers=workers, collate_fn=as_lists):
        assert all(
            torch.equal(image, frames[meta["index"]][0])
            for image, meta in zip(images, metas, strict=True)
        )
    for images, index in DataLoader(frames, 6, num_workers=workers, collate_fn=stacked):
        assert all(
            torch.equal(image, frames[i][0])
            for image, i in zip(images, index.tolist(), strict=True)
        )


def as_lists(samples: list[Any]) -> Any:
    return [sample[0] for sample in samples], [sample[1] for sample in samples]


def stacked(samples: list[Any]) -> Any:
    return torch.stack([image for image, _ in samples]), torch.tensor(
        [meta["index"] for _, meta in samples]
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is available")
def test_pinning_without_a_device_only_warns(frames: DicomFrames) -> None:
    loader = DataLoader(frames, 6, num_workers=1, pin_memory=True)
    with pytest.warns(UserWarning, match="no accelerator"):
        kept = list(loader)
    for batch in kept:
        assert_same(batch, frames)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA is not available")
def test_pinned(frames: DicomFrames) -> None:
    for batch in list(DataLoader(frames, 6, num_workers=1, pin_memory=True)):
        assert batch[0].is_pinned()
        assert_same(batch, frames)


def test_numbers_take_no_descriptors(frames: DicomFrames) -> None:
    kept, counts = [], []
    for _ in range(4):
        for batch in DataLoader(frames, 2, num_workers=1, persistent_workers=False):
            kept.append(batch)
            counts.append(len(os.listdir("/proc/self/fd")))
    assert max(counts) - min(counts) <= 4, counts
    for batch in kept:
        assert_same(batch, frames)


def test_what_metadata_becomes_on_its_way() -> None:
    large = torch.arange(1 << 15)
    meta = BatchMeta(
        index=torch.arange(3), weight=torch.rand(3, 2)[:, 1], half=torch.ones(2).bfloat16(),
        large=large, text=["a", "b"], mask=torch.tensor([True, False]), one=2.5,
    )  # fmt: skip
    sent = pickle.loads(ForkingPickler.dumps(meta))
    assert type(sent) is BatchMeta
    assert sent.keys() == meta.keys()
    for key, value in meta.items():
        if isinstance(value, torch.Tensor):
            assert sent[key].dtype == value.dtype
            assert torch.equal(sent[key], value)
            assert sent[key].is_shared() == (key in ("large", "half"))
            sent[key][0] = 0  # a receiver may change what it got
        else:
            assert sent[key] == value


class Deadly(Dataset[Any]):
    """Its worker is killed in the middle of the epoch, as by the system when memory runs out."""

    def __len__(self) -> int:
        return 160

    def __getitems__(self, indices: list[int]) -> list[torch.Tensor]:
        if indices[0] == 80:  # the other worker lives
            os.kill(os.getpid(), signal.SIGKILL)
        return [new_batch((4, *SHAPE[1:]), torch.float32).fill_(indices[0])]


@pytest.fixture
def errors_where_they_belong(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """torch tells of a dead worker when it asks for a batch, and what a finalizer raises is not kept.

    Its handler of signals raises wherever this process is by then: in a finalizer, or after the loop. multiprocessing
    leaves a socket open when the other side is gone. pytest would keep what comes of that, and with its frames the
    iterator of the loader and the batches that it has.
    """
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    signal_handling._set_SIGCHLD_handler()  # which is done once
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGCHLD, before)


@pytest.mark.usefixtures("errors_where_they_belong")
def test_a_killed_worker_leaves_nothing() -> None:
    shared = set(os.listdir("/dev/shm"))
    known = set(map(id, attached.attached.mappings()))
    kept: list[torch.Tensor] = []
    loader = DataLoader(Deadly(), batch_size=4, num_workers=2, collate_fn=only)
    with pytest.raises(RuntimeError, match=r"exited unexpectedly|killed by signal"):
        collect(loader, kept)
    assert len(kept) >= 10
    for k, batch in enumerate(kept):
        assert all_equal(batch, 4.0 * k)  # what has arrived stays whole
    del kept, batch
    gc.collect()
    again = DataLoader(Numbers(80), batch_size=4, num_workers=2, collate_fn=only)
    assert all(all_equal(batch, 4.0 * k) for k, batch in enumerate(again))
    del again
    end = time.monotonic() + 60  # a busy machine takes a while to end a worker
    while True:
        gc.collect()
        pool.give_back()
        left = [each for each in attached.attached.mappings() if id(each) not in known]
        if not left or time.monotonic() > end:
            break
        time.sleep(0.2)
    assert not [(each.state, bool(each.claim), each.size) for each in left]
    assert not left_in_shared_memory(shared)


def left_in_shared_memory(before: set[str]) -> set[str]:
    """Names that were not there before and stay: those that others make are gone in no time, for torch removes them.

    Tests that run beside this one have folders there.
    """
    left = set(os.listdir("/dev/shm")) - before
    for _ in range(20):
        left &= set(os.listdir("/dev/shm"))
        left = {name for name in left if not name.startswith(("sem.", "dicomtorch-tests-"))}
        if not left:
            break
        time.sleep(0.1)
    return left


def collect(loader: DataLoader[Any], kept: list[torch.Tensor]) -> None:
    for batch in loader:
        kept.append(batch)  # noqa: PERF402 - what came before the exception is looked at


def resident() -> int:
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * mmap.PAGESIZE


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="/proc/self/statm does not exist")
@pytest.mark.parametrize("workers", [0, 2])
def test_memory_is_flat_over_epochs(frames: DicomFrames, workers: int) -> None:
    loader = DataLoader(
        frames, 8, shuffle=True, num_workers=workers, persistent_workers=bool(workers)
    )
    sizes = []
    for _ in range(10):
        for _ in range(3 if not workers else 1):
            for images, _ in loader:
                images.sum()
        sizes.append(resident())
    # Once the allocator of a large process may take another piece; what leaks grows in every epoch.
    grown = [later - sooner > 1 << 18 for sooner, later in itertools.pairwise(sizes[3:])]
    assert sum(grown) <= 1, sizes
    assert sizes[-1] - sizes[3] < 16 << 20, sizes


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="/proc/self/statm does not exist")
def test_memory_is_flat_over_items(frames: DicomFrames) -> None:
    chosen = random.Random(0)
    sizes = []
    for _ in range(10):
        for _ in range(1000):
            frames[chosen.randrange(24)]
        sizes.append(resident())
    assert sizes[-1] - sizes[2] < 2 << 20, sizes


def test_memory_from_somewhere_else() -> None:
    own = torch.zeros(4, 5)
    with buffers.allocated_by(lambda shape, dtype: own.to(dtype).view(shape)):
        assert new_batch((4, 5), torch.float32).data_ptr() == own.data_ptr()
    assert new_batch((4, 5), torch.float32).data_ptr() != own.data_ptr()


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.int16, torch.float16, torch.float32, torch.bfloat16, torch.int64]
)
@pytest.mark.parametrize("shape", [(3, 4, 3), (5, 2, 1), (600, 500, 3)])
def test_a_picture_is_one_memory(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    image, samples = new_picture(shape, dtype)
    assert (image.dtype, tuple(image.shape)) == (dtype, (shape[2], *shape[:2]))
    assert samples.shape == shape
    assert samples.flags.c_contiguous
    assert samples.flags.writeable
    samples[:] = np.arange(samples.size).reshape(shape) % 100
    raw = image.view(torch.int16) if dtype == torch.bfloat16 else image
    assert np.array_equal(raw.permute(1, 2, 0).numpy(), samples)
    assert samples.dtype.itemsize == dtype.itemsize


def test_a_small_picture_begins_where_decoders_keep_it_in_the_caches() -> None:
    pictures = [new_picture((64, 64, 3), torch.uint8) for _ in range(8)]
    assert {one.image.data_ptr() % 32 for one in pictures} == {16}


def test_a_picture_where_memory_is_from_somewhere_else() -> None:
    own = torch.zeros(4 * 5 * 3)
    with buffers.allocated_by(lambda shape, dtype: own.to(dtype).view(shape)):
        image, samples = new_picture((4, 5, 3), torch.float32)
    assert image.data_ptr() == own.data_ptr() == samples.ctypes.data


def test_a_picture_when_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    def empty(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(np, "empty", empty)
    assert new_picture((4, 5, 3), torch.uint8).samples.shape == (4, 5, 3)


@pytest.mark.parametrize("lacks", [(slots, "_has_memfd"), (buffers, "HAS_PRIVATE")])
def test_platforms_that_lack_something(
    frames: DicomFrames, lacks: tuple[Any, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(*lacks, False)
    for batch in list(DataLoader(frames, 8, num_workers=1, multiprocessing_context="fork")):
        assert_same(batch, frames)
    for batch in list(DataLoader(frames, 8)):
        assert_same(batch, frames)
