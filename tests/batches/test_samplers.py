"""Samplers: permutations where promised, disjoint shards, states that go on, seeds with nothing in common."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch.distributed
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, DistributedSampler

from dicomtorch import (
    BalancedSampler,
    ClipSampler,
    DicomClips,
    DicomFrames,
    GroupBatchSampler,
    GroupSampler,
    LocalShuffleSampler,
    ShuffleSampler,
    scan,
)
from dicomtorch.batches.orders import shuffle_windows
from dicomtorch.errors import OptionError
from dicomtorch.index.frame_index import FrameIndex
from tests.support.phantoms import ct, write

SIZES = [1, 2, 3, 5, 8, 13, 21, 34, 40, 40, 7, 1]  # frames per file: 175
SERIES = [0, 0, 1, 1, 1, 2, 3, 4, 4, 5, 6, 7]
PATIENTS = [0, 0, 0, 0, 0, 1, 1, 2, 2, 2, 3, 3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("frames")
    for k, (size, series, patient) in enumerate(zip(SIZES, SERIES, PATIENTS, strict=True)):
        pixels = np.full((size, 4, 4), k, np.uint8)
        dataset = ct(
            pixels, k, PatientID=f"patient-{patient}", SeriesInstanceUID=f"1.2.{series + 1}"
        )
        dataset.Modality = "MR" if series == 2 else "CT"
        dataset.StudyInstanceUID = f"1.3.{patient + 1}"
        write(dataset, root / f"{k:02d}.dcm")
    return root


@pytest.fixture(scope="module")
def index(folder: Path) -> FrameIndex:
    return scan(folder)[0]


def epochs(sampler: Any, count: int = 3) -> list[list[Any]]:
    found = []
    for epoch in range(count):
        sampler.set_epoch(epoch)
        found.append(list(sampler))
    return found


MAKERS: dict[str, Any] = {
    "local": lambda index, **o: LocalShuffleSampler(index, window=16, block=None, **o),
    "blocks": lambda index, **o: LocalShuffleSampler(index, window=7, block=3, **o),
    "group": lambda index, **o: GroupSampler(index, num_frames=3, **o),
    "uniform": lambda index, **o: GroupSampler(index, "PatientID", 4, "uniform", **o),
    "all": lambda index, **o: GroupSampler(index, mode="all", **o),
    "balanced": lambda index, **o: BalancedSampler(index, "Modality", **o),
    "exact": lambda index, **o: BalancedSampler(index, "file", replacement=False, **o),
    "weights": lambda index, **o: BalancedSampler(
        index, weights=np.arange(1, len(index) + 1), replacement=False, num_samples=-(-len(index) // 2), **o
    ),
    "batches": lambda index, **o: GroupBatchSampler(index, batch_size=4, **o),
    "bags": lambda index, **o: GroupBatchSampler(
        index, num_groups=2, num_frames=3, small_groups="repeat", **o
    ),
    "shuffle": lambda index, **o: ShuffleSampler(index, **o),
    "clips": lambda index, **o: ClipSampler(np.arange(1, len(index) + 1), num_clips=2, **o),
}  # fmt: skip
ONCE = ("local", "blocks", "shuffle", "group", "uniform", "all", "exact", "weights")
makers = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
seeds = st.integers(0, 2**64 - 1)
subsets = st.sets(st.integers(0, sum(SIZES) - 1), min_size=8).map(sorted)


def hashable(items: list[Any]) -> list[Any]:
    return [tuple(item) if isinstance(item, list) else item for item in items]


@settings(max_examples=30)
@given(
    rows=subsets, seed=seeds, epoch=st.integers(0, 2**40), window=st.integers(1, 300),
    block=st.none() | st.integers(1, 50),
)  # fmt: skip
def test_local_shuffle_is_a_permutation(index, rows, seed, epoch, window, block):
    part = index.select(rows)
    sampler = LocalShuffleSampler(part, window=window, block=block, seed=seed)
    sampler.set_epoch(epoch)
    assert sorted(sampler) == list(range(len(part)))


@makers
@settings(max_examples=20)
@given(rows=subsets, seed=seeds, replicas=st.integers(1, 4), epoch=st.integers(0, 5))
def test_ranks_share_the_epoch(index, make, rows, seed, replicas, epoch):
    part = index.select(rows)

    def ranks(drop_last: bool) -> list[list[Any]]:
        found = []
        for rank in range(replicas):
            sampler = make(part, seed=seed, num_replicas=replicas, rank=rank, drop_last=drop_last)
            sampler.set_epoch(epoch)
            found.append(hashable(list(sampler)))
            assert len(sampler) == len(found[-1])
        assert len({len(items) for items in found}) == 1
        return found

    alone = make(part, seed=seed, num_replicas=1, rank=0)
    alone.set_epoch(epoch)
    whole = Counter(hashable(list(alone)))
    padded = Counter(itertools.chain(*ranks(drop_last=False)))
    surplus = -whole.total() % replicas
    assert padded.keys() == whole.keys()
    assert (padded - whole).total() == surplus
    try:
        dropped = ranks(drop_last=True)
    except OptionError:  # fewer items than ranks
        return
    if not isinstance(next(iter(whole)), tuple):
        short = Counter(itertools.chain(*dropped))
        assert not short - whole
        assert (whole - short).total() == whole.total() % replicas


@pytest.mark.parametrize("name", ONCE)
@settings(max_examples=20)
@given(rows=subsets, seed=seeds, replicas=st.integers(1, 4))
def test_no_frame_comes_twice(index, name, rows, seed, replicas):
    try:
        samplers = [
            MAKERS[name](index.select(rows), seed=seed, num_replicas=replicas, rank=r, drop_last=True)
            for r in range(replicas)
        ]  # fmt: skip
    except OptionError:
        return
    assert max(Counter(itertools.chain(*samplers)).values()) == 1


@makers
@settings(max_examples=20)
@given(
    rows=subsets, seed=seeds, replicas=st.integers(1, 3), epoch=st.integers(0, 9), share=st.floats(0, 1)
)  # fmt: skip
def test_resumed_is_uninterrupted(index, make, rows, seed, replicas, epoch, share):
    options = {"seed": seed, "num_replicas": replicas, "rank": replicas - 1}
    part = index.select(rows)
    sampler = make(part, **options)
    sampler.set_epoch(epoch)
    whole = list(sampler)
    stop = int(share * len(whole))
    iterator = iter(sampler)
    assert list(itertools.islice(iterator, stop)) == whole[:stop]
    state = sampler.state_dict()
    assert state == sampler.state_dict(stop)

    resumed = make(part, **options)
    resumed.load_state_dict(state)
    resumed.set_epoch(epoch)  # as a loop over epochs does
    assert resumed.epoch == epoch
    assert list(resumed) == whole[stop:]
    assert list(resumed) == whole  # and only the first iteration is short
    resumed.set_epoch(epoch + 1)
    sampler.set_epoch(epoch + 1)
    assert list(resumed) == list(sampler)


@makers
def test_an_epoch_depends_on_seed_and_number_only(index, make):
    first, second = make(index, seed=5), make(index, seed=5)
    third = epochs(first, 4)[3]
    second.set_epoch(3)
    assert list(second) == third


@pytest.mark.parametrize("name", [name for name in MAKERS if name != "uniform"])
def test_neighbouring_seeds_and_epochs_differ(index, name):
    orders = {
        (seed, epoch): tuple(hashable(order))
        for seed in range(4)
        for epoch, order in enumerate(epochs(MAKERS[name](index, seed=seed), 4))
    }
    assert len(set(orders.values())) == 16


def test_neighbouring_seeds_and_epochs_are_uncorrelated(large):
    part = large.select(np.arange(4000))
    place = {}
    for seed, epoch in itertools.product([0, 1, 2, 3, 2**63, 2**63 + 1], range(4)):
        sampler = LocalShuffleSampler(part, window=4000, seed=seed)
        sampler.set_epoch(epoch)
        place[seed, epoch] = np.argsort(list(sampler))
    correlation = np.corrcoef(np.array(list(place.values())))
    beside = correlation[np.triu_indices(len(place), 1)]
    assert len(beside) == 276
    # Of independent permutations it is normal with standard deviation 1 / sqrt(3999).
    assert np.abs(beside).max() < 4.5 / np.sqrt(3999)
    assert 0.8 < beside.std() * np.sqrt(3999) < 1.2


@settings(max_examples=20)
@given(seed=seeds, window=st.integers(1, 60), block=st.integers(1, 9))
def test_blocks_stay_near_and_files_do_not(index, seed, window, block):
    sampler = LocalShuffleSampler(index, window=window, block=block, seed=seed)
    order = list(sampler)
    files = np.asarray(index.column("file"))[order]
    blocks = np.asarray(index.column("frame"))[order] // block
    for k in range(len(SIZES)):
        for number in range(-(-SIZES[k] // block)):
            places = np.flatnonzero((files == k) & (blocks == number))
            assert len(places) == min(block, SIZES[k] - number * block)
            assert places[-1] - places[0] < block + 2 * window


@settings(max_examples=20)
@given(seed=seeds, window=st.integers(1, 60))
def test_frames_of_a_file_stay_near(index, seed, window):
    files = np.asarray(index.column("file"))[
        list(LocalShuffleSampler(index, window=window, block=None, seed=seed))
    ]
    for k, size in enumerate(SIZES):
        places = np.flatnonzero(files == k)
        assert places[-1] - places[0] < size + 2 * window


def test_shuffle_sampler_can_keep_the_order():
    assert list(ShuffleSampler("abcde", shuffle=False, num_replicas=2, rank=1)) == [1, 3, 0]


def test_local_shuffle_with_one_frame_windows_keeps_files_in_order(index):
    order = list(LocalShuffleSampler(index, window=1, block=None, seed=3))
    for number in range(len(SIZES)):
        mine = [i for i in order if index.gather("file", np.array([i]))[0] == number]
        assert mine == sorted(mine)
        assert order.index(mine[-1]) - order.index(mine[0]) == len(mine) - 1
    first = [order[0] for order in epochs(LocalShuffleSampler(index, window=1), 30)]
    assert len(set(first)) > 3


def test_large_windows_reach_every_position(index):
    first = Counter(order[0] for order in epochs(LocalShuffleSampler(index, window=175), 300))
    assert len(first) > 120


def test_group_sampler_takes_some_of_each(index):
    series = np.asarray(SERIES)[np.asarray(index.column("file"))]
    sampler = GroupSampler(index, "SeriesInstanceUID", 4, seed=1)
    drawn = epochs(sampler)
    sizes = Counter(series.tolist())
    for order in drawn:
        assert len(set(order)) == len(order)
        assert Counter(series[order].tolist()) == {k: min(4, n) for k, n in sizes.items()}
    assert {*drawn[0]} != {*drawn[1]}
    every = [{*order} for order in epochs(sampler, 60)]
    assert len(set.union(*every)) > 160


def test_group_sampler_uniform_is_the_middle_of_equal_parts(index):
    order = list(GroupSampler(index, "file", 4, "uniform", shuffle=False))
    frames = np.asarray(index.column("frame"))[order]
    files = np.asarray(index.column("file"))[order]
    assert files.tolist() == sorted(files.tolist())
    assert frames[files == 8].tolist() == [5, 15, 25, 35]
    assert frames[files == 3].tolist() == [0, 1, 3, 4]
    assert frames[files == 1].tolist() == [0, 1]


def test_group_sampler_all_in_order(index):
    order = list(GroupSampler(index, mode="all", shuffle=False))
    assert order == list(range(175))  # paths, series and instance numbers ascend together here
    random = list(GroupSampler(index, "file", 5, shuffle=False, seed=9))
    assert random == sorted(random)
    assert random != list(GroupSampler(index, "file", 5, "uniform", shuffle=False))


def test_patients_without_an_id_are_grouped_by_study(tmp_path):
    for k in range(4):
        dataset = ct(
            np.zeros((4, 4), np.uint8), k, PatientID="", StudyInstanceUID=f"1.2.{k // 2 + 1}"
        )
        write(dataset, tmp_path / f"{k}.dcm")
    assert len(GroupSampler(scan(tmp_path)[0], "PatientID", 1)) == 2


def test_balanced_sampler_draws_classes_alike(index):
    classes = np.asarray(index.column("Modality"))
    counts = Counter(
        classes[[i for order in epochs(BalancedSampler(index, "Modality"), 20) for i in order]]
    )
    assert counts.total() == 3500
    assert abs(counts["MR"] - 1750) < 4.5 * np.sqrt(3500 / 4)
    exact = list(BalancedSampler(index, "Modality", replacement=False))
    assert Counter(classes[exact]) == {"MR": 13, "CT": 13}
    with pytest.raises(OptionError, match=r"27 samples of 2 classes .* the smallest has 13"):
        BalancedSampler(index, "Modality", replacement=False, num_samples=27)


def test_balanced_sampler_follows_weights(index):
    weights = np.zeros(175)
    weights[[3, 10, 170]] = 1, 2, 5
    drawn = Counter(BalancedSampler(index, weights=weights, num_samples=8000, seed=2))
    assert {*drawn} == {3, 10, 170}
    assert abs(drawn[170] - 5000) < 4.5 * np.sqrt(8000 * 5 / 8 * 3 / 8)
    without = BalancedSampler(index, weights=weights, num_samples=1, replacement=False)
    first = Counter(order[0] for order in epochs(without, 800))
    assert abs(first[170] - 500) < 4.5 * np.sqrt(800 * 5 / 8 * 3 / 8)
    with pytest.raises(OptionError, match="at most 3"):
        BalancedSampler(index, weights=weights, num_samples=4, replacement=False)


def test_group_batches_of_one_group(index):
    series = np.asarray(SERIES)[np.asarray(index.column("file"))]
    sampler = GroupBatchSampler(index, batch_size=5, seed=1)
    batches = list(sampler)
    assert sorted(itertools.chain(*batches)) == list(range(175))
    assert all(len({*series[batch]}) == 1 for batch in batches)
    sizes = Counter(SERIES[k] for k, size in enumerate(SIZES) for _ in range(size))
    assert len(batches) == len(sampler) == sum(-(-n // 5) for n in sizes.values())
    full = list(GroupBatchSampler(index, batch_size=5, seed=1, drop_last=True))
    assert [len(batch) for batch in full] == [5] * sum(n // 5 for n in sizes.values())


def test_group_batches_of_several_groups(index):
    files = np.asarray(index.column("file"))
    sampler = GroupBatchSampler(index, "file", num_groups=4, num_frames=3, small_groups="skip")
    seen: Counter[int] = Counter()
    for batch in sampler:
        assert len({*batch}) == len(batch)
        groups = Counter(files[batch].tolist())
        assert {*groups.values()} == {3}
        seen.update(groups.keys())
    assert seen == {k: 1 for k, size in enumerate(SIZES) if size >= 3}
    assert [len(batch) for batch in sampler] == [12, 12, 3]
    assert len(GroupBatchSampler(
        index, "file", num_groups=4, num_frames=3, small_groups="skip", drop_last=True
    )) == 2  # fmt: skip
    with pytest.raises(OptionError, match="3 of 12 groups have fewer than 3"):
        GroupBatchSampler(index, "file", num_groups=4, num_frames=3)
    repeated = GroupBatchSampler(index, "file", num_groups=12, num_frames=3, small_groups="repeat")
    assert Counter(files[next(iter(repeated))].tolist()) == {k: 3 for k in range(12)}


def test_group_batches_load_both_ways(folder):
    frames = DicomFrames(folder, values="stored")
    batches = GroupBatchSampler(frames, "file", batch_size=8)
    for loader in (
        DataLoader(frames, batch_sampler=batches, num_workers=1),
        DataLoader(frames, sampler=batches, batch_size=None, num_workers=1),
    ):
        seen = [
            meta["index"].tolist()
            for images, meta in loader
            if len({*images.flatten().tolist()}) == 1
        ]
        assert seen == list(batches)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> FrameIndex:
    root = tmp_path_factory.mktemp("large")
    for k in range(10):
        write(
            ct(np.zeros((10_000, 1, 1), np.uint8), k, SeriesInstanceUID=f"1.2.{k}"),
            root / f"{k}.dcm",
        )
    return scan(root)[0]


@makers
def test_an_order_is_made_by_arrays_and_not_frame_by_frame(large, make):
    assert len(large) == 100_000
    sampler = make(large)
    ran = 0

    def count(frame: FrameType, event: str, _: object) -> Any:
        nonlocal ran
        if frame.f_code.co_name == "_items":
            return None  # hands on one item after the other, as an iterator must
        frame.f_trace_opcodes = True
        ran += event == "opcode"
        return count

    before = sys.gettrace()
    sys._getframe().f_trace_opcodes = True  # Python 3.12 looks for one when tracing begins
    sys.settrace(count)
    try:
        items = list(sampler)
    finally:
        sys.settrace(before)
    together = sum(not isinstance(item, int) for item in items)  # batches and clips
    assert 100 < ran < 2_000 + 30 * together


def test_the_process_group_is_looked_up_when_it_is_there(index, monkeypatch):
    sampler = LocalShuffleSampler(index)
    whole = list(sampler)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 4)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    assert len(sampler) == 44
    assert list(sampler) == whole[44:88]
    alone = LocalShuffleSampler(index, num_replicas=1, rank=0)
    assert list(alone) == whole


@makers
def test_trainers_see_a_distributed_sampler(index, make):
    assert isinstance(make(index), DistributedSampler)


def test_a_foreign_state_is_refused(index):
    state = LocalShuffleSampler(index).state_dict()
    for other in (
        LocalShuffleSampler(index, seed=1),
        LocalShuffleSampler(index, window=5),
        LocalShuffleSampler(index.select(range(100))),
        LocalShuffleSampler(index.select([*range(1, 175), 0])),
        LocalShuffleSampler(index, num_replicas=2, rank=0),
        GroupSampler(index, mode="all"),
    ):
        with pytest.raises(OptionError, match="cannot continue from this state"):
            other.load_state_dict(state)
    classes, others = ([0, 1] * 87, [0] * 87 + [1] * 87)
    state = BalancedSampler(index.select(range(174)), by=classes, replacement=False).state_dict()
    with pytest.raises(OptionError, match="cannot continue from this state"):
        BalancedSampler(index.select(range(174)), by=others, replacement=False).load_state_dict(
            state
        )
    state = LocalShuffleSampler(index).state_dict()
    with pytest.raises(OptionError, match="at item 176"):
        LocalShuffleSampler(index).load_state_dict({**state, "position": 176})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda i: LocalShuffleSampler(i, window=0), "window must be 1 or more"),
        (lambda i: LocalShuffleSampler(i, seed=-1), "seed must be"),
        (lambda i: LocalShuffleSampler(i, rank=1), "go together"),
        (lambda i: LocalShuffleSampler(i, num_replicas=2, rank=2), "rank 2 of 2"),
        (lambda i: LocalShuffleSampler(i, num_replicas=200, rank=2, drop_last=True), "too few"),
        (lambda i: LocalShuffleSampler(i.select([])), "nothing to draw"),
        (lambda i: LocalShuffleSampler(list(range(9))), "FrameIndex or a dataset"),  # type: ignore[arg-type]
        (lambda i: GroupSampler(i), "num_frames is needed"),
        (lambda i: GroupSampler(i, num_frames=3, mode="all"), "num_frames is needed"),
        (lambda i: GroupSampler(i, "KVP", 1), "175 of 175 frames have no KVP"),
        (
            lambda i: GroupSampler(i, "StackID", 1),
            r"no StackID; leave them out, as in index\.filter\(StackID=\['a', 'b'\]\), or give one",
        ),
        (lambda i: GroupSampler(i, "EchoNumber", 1), "no column 'EchoNumber'"),
        (lambda i: GroupSampler(i, "PixelSpacing", 1), "one value per frame"),
        (lambda i: GroupSampler(i, [1, 2], 1), "shape \\(2,\\) for 175"),
        (lambda i: GroupSampler(i, ["a", None] * 87 + ["b"], 1), "87 of 175"),
        (lambda i: BalancedSampler(i, i.select([1]).column("Modality")), "shape \\(1,\\) for 175"),
        (lambda i: BalancedSampler(i), "one of them"),
        (lambda i: BalancedSampler(i, weights=[1.0]), "one per frame"),
        (lambda i: BalancedSampler(i, weights=[-1.0] * 175), "not negative"),
        (lambda i: BalancedSampler(i, weights=[1.0] * 175, replacement=False), "need num_samples"),
        (lambda i: GroupBatchSampler(i), "give batch_size="),
        (lambda i: GroupBatchSampler(i, num_groups=3), "give batch_size="),
        (lambda i: GroupBatchSampler(i, batch_size=3, num_groups=3, num_frames=2), "give batch_size="),
    ],
)  # fmt: skip
def test_options_that_mean_nothing(index, make, message):
    with pytest.raises(OptionError, match=message):
        make(index)


def test_clips_are_no_frames_even_if_they_are_as_many(folder):
    clips = DicomClips(folder, 1)
    assert len(clips) == len(clips.index)
    with pytest.raises(OptionError, match="dataset of frames; got DicomClips"):
        GroupSampler(clips, mode="all")


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # torchdata calls it
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batches", [False, True])
def test_a_stateful_loader_goes_on_where_it_stopped(folder, workers, batches):
    loaders = pytest.importorskip("torchdata.stateful_dataloader")
    frames = DicomFrames(folder, values="stored")

    def loader() -> tuple[Any, Any]:
        if batches:
            sampler: Any = GroupBatchSampler(frames, batch_size=8, seed=3)
            return sampler, loaders.StatefulDataLoader(
                frames, batch_sampler=sampler, num_workers=workers
            )
        sampler = LocalShuffleSampler(frames, window=32, seed=3)
        return sampler, loaders.StatefulDataLoader(
            frames, sampler=sampler, batch_size=8, num_workers=workers
        )

    sampler, whole = loader()
    sampler.set_epoch(2)
    expected = [meta["index"].tolist() for _, meta in whole]
    iterator = iter(whole)
    for _ in range(5):
        next(iterator)
    state = whole.state_dict()
    sampler, resumed = loader()
    resumed.load_state_dict(state)
    sampler.set_epoch(2)
    assert [meta["index"].tolist() for _, meta in resumed] == expected[5:]
    assert [meta["index"].tolist() for _, meta in resumed] == expected


LIGHTNING = """
import sys
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from dicomtorch import DicomFrames, GroupBatchSampler, LocalShuffleSampler

class Model(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
    def training_step(self, batch, number):
        images, meta = batch
        with open(f"{sys.argv[2]}/{self.current_epoch}-{self.global_rank}", "a") as file:
            print(*meta["index"].tolist(), file=file)
        return self.layer(images.float().mean((1, 2, 3))[:, None]).mean()
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

if __name__ == "__main__":
    frames = DicomFrames(sys.argv[1])
    if sys.argv[3] == "frames":
        loader = DataLoader(frames, batch_size=5, sampler=LocalShuffleSampler(frames, window=32))
    else:
        loader = DataLoader(frames, batch_size=None, sampler=GroupBatchSampler(frames, batch_size=7))
    Trainer(
        max_epochs=2, devices=2, accelerator="cpu", strategy="ddp", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    ).fit(Model(), loader)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["frames", "batches"])
def test_lightning_gives_each_sample_once(folder, tmp_path, kind):
    pytest.importorskip("lightning")
    script, out = tmp_path / "train.py", tmp_path / "out"
    script.write_text(LIGHTNING)
    out.mkdir()
    DicomFrames(folder)  # the index is there before the ranks ask for it
    done = subprocess.run(
        [sys.executable, script, folder, out, kind], capture_output=True, text=True, timeout=110, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    orders = []
    for epoch in range(2):
        ranks = [
            [int(i) for i in (out / f"{epoch}-{rank}").read_text().split()] for rank in range(2)
        ]
        seen = Counter(itertools.chain(*ranks))
        assert {*seen} == set(range(175))
        assert seen.total() <= 175 + 7
        assert min(map(len, ranks)) > 70
        orders.append(ranks)
    assert orders[0] != orders[1]


@given(st.lists(st.integers(0, 5), max_size=40), st.integers(1, 50))
def test_windows_are_ordered_as_by_a_sort_of_all(values: list[int], window: int) -> None:
    bits = np.array(values, np.uint64)
    wanted = np.lexsort((bits, np.arange(len(bits)) // window))
    np.testing.assert_array_equal(shuffle_windows(window, bits), wanted)
