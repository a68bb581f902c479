"""The contract of loaders and samplers where several processes share an epoch, as docs/how-to/distributed.md has it."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from dicomtorch import DicomFrames
from tests.support import ranks
from tests.support.phantoms import write_series
from tests.support.programs import run_program
from tests.support.requirements import require
from tests.support.rooms import REPOSITORY

COUNT = 23  # no multiple of ranks or batches
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2)
PAGE = REPOSITORY / "docs" / "how-to" / "distributed.md"

pytestmark = pytest.mark.timeout(300)  # two processes import several frameworks


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("series")
    write_series(folder, COUNT)
    DicomFrames(folder)  # the index is there before the ranks ask for it
    return folder


def run(*arguments: Any) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True, text=True, timeout=280, check=False, cwd=REPOSITORY,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def found(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two ranks under torchrun was given."""
    out = tmp_path_factory.mktemp("out")
    also = [name for name in ranks.FRAMEWORKS if importlib.util.find_spec(name)]
    run(*TORCHRUN, "-m", "tests.support.ranks", folder, out, *also)
    return [json.loads((out / f"{rank}.json").read_text()) for rank in range(2)]


def seen(found: list[dict[str, Any]], way: str) -> tuple[Counter[int], list[int]]:
    """(how often each sample came, how many batches each rank got)."""
    whole = [rank[way]["whole"] for rank in found]
    return Counter(i for rank in whole for batch in rank for i in batch), [
        len(rank) for rank in whole
    ]


OWN = [
    "FrameLoader, ShuffleSampler",
    "FrameLoader, LocalShuffleSampler",
    "FrameLoader, GroupBatchSampler",
    "FrameLoader, DistributedSampler",
    "mesh 2 x 1, FrameLoader",
]
OTHERS = {
    "StatefulDataLoader, ShuffleSampler": "torchdata",
    "Accelerate, FrameLoader": "accelerate",
    "Ignite, FrameLoader": "ignite",
    "MONAI, FrameLoader": "monai",
}


def check(found: list[dict[str, Any]], name: str, drop_last: bool) -> None:
    way = f"{name}, drop_last={drop_last}"
    counts, batches = seen(found, way)
    assert batches[0] == batches[1] == found[0][way]["length"]
    if drop_last:
        assert max(counts.values()) == 1  # disjoint
        assert counts.total() == (18 if "Group" in name else 22)
    else:
        assert counts.keys() == set(range(COUNT))  # everything
        assert counts.total() <= COUNT + (3 if "Group" in name else 1)
    for rank in found:
        given = rank[way]
        assert given["first"] == given["whole"][: ranks.STOP]
        assert given["rest"] == given["whole"][ranks.STOP :]
    if "coverage" in found[0][way]:
        said = found[0][way]["coverage"]
        assert said == found[1][way]["coverage"]
        assert said.startswith(f"{COUNT} samples, 2 ranks of {batches[0]} batches")


@pytest.mark.slow
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("name", OWN)
def test_ranks_share_an_epoch(found: list[dict[str, Any]], name: str, drop_last: bool) -> None:
    check(found, name, drop_last)


@pytest.mark.slow
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("name", OTHERS)
def test_ranks_share_an_epoch_under(
    found: list[dict[str, Any]], name: str, drop_last: bool
) -> None:
    require(OTHERS[name])
    check(found, name, drop_last)


# Ray Train: one run of what the page has, whose workers then go over every loader, too.


def recipe(word: str) -> str:
    """The block of the page with a word."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (found,) = [block for block in blocks if word in block]
    return str(found)


@pytest.fixture(scope="module")
def found_by_ray(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two workers of Ray Train was given."""
    require("ray")
    out = tmp_path_factory.mktemp("out")
    functions, guard, rest = recipe("TorchTrainer").partition('if __name__ == "__main__":\n')
    noted = f"""page = train


def train():
    from tests.support.ray_ranks import note

    note(page, {str(folder)!r}, {str(out)!r})


"""
    assert rest.count('"ct/"') == 1
    script = out / "train.py"
    script.write_text(functions + noted + guard + rest.replace('"ct/"', repr(str(folder))))
    run_program(
        script,
        cwd=out,
        path=[REPOSITORY],
        seconds=280,
        HOME=str(out),
        OMP_NUM_THREADS="1",
    )
    return [json.loads((out / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.slow
def test_ray_train_shares_frames(found_by_ray: list[dict[str, Any]]) -> None:
    batches = [rank["shards"] for rank in found_by_ray]
    assert [[len(batch) for batch in rank] for rank in batches] == [[4, 4, 4] * 2] * 2
    for epoch in (slice(0, 3), slice(3, 6)):
        counts = Counter(i for rank in batches for batch in rank[epoch] for i in batch)
        assert counts == Counter([*range(COUNT), 0])  # the first one again, to fill up


@pytest.mark.slow
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("name", [name for name in OWN if "mesh" not in name])
def test_workers_of_ray_train_share_an_epoch(
    found_by_ray: list[dict[str, Any]], name: str, drop_last: bool
) -> None:
    check(found_by_ray, name, drop_last)


@pytest.mark.slow
@pytest.mark.parametrize("drop_last", [False, True])
def test_ranks_that_share_a_model_get_the_same(
    found: list[dict[str, Any]], drop_last: bool
) -> None:
    one, other = (rank[f"mesh 1 x 2, FrameLoader, drop_last={drop_last}"] for rank in found)
    assert one == other
    assert sorted(i for batch in one["whole"] for i in batch) == list(range(COUNT))
    assert one["coverage"] == f"{COUNT} samples, 1 rank of 6 batches: each sample once"


@pytest.mark.slow
@pytest.mark.parametrize("drop_last", [False, True])
def test_accelerate_shards_a_loader(found: list[dict[str, Any]], drop_last: bool) -> None:
    require("accelerate")
    way = f"Accelerate, DataLoader, drop_last={drop_last}"
    counts, batches = seen(found, way)
    assert batches[0] == batches[1] == found[0][way]["length"]
    if drop_last:
        assert max(counts.values()) == 1  # disjoint
        assert counts.total() == 16  # whole batches that both ranks get: what it is to leave out
    else:
        assert counts.keys() == set(range(COUNT))
    for rank in found:
        assert rank[way]["first"] == rank[way]["whole"][: ranks.STOP]
        assert rank[way]["rest"] == rank[way]["whole"][ranks.STOP :]


STOP = 4  # batches, as in lightning_ranks


@pytest.mark.slow
def test_lightning_goes_on_in_the_middle_of_an_epoch(folder: Path, tmp_path: Path) -> None:
    require("lightning")
    run(*TORCHRUN, "-m", "tests.support.lightning_ranks", folder, tmp_path)
    ways = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    for drop_last in (False, True):
        found = [way[str(drop_last)] for way in ways]
        for rank in found:
            assert len(rank["whole"]) == 12
            assert rank["rest"] == rank["whole"][STOP:]
        for epoch in range(2):
            counts = Counter(
                i for rank in found for e, batch in rank["whole"] if e == epoch for i in batch
            )
            if drop_last:
                assert (counts.total(), max(counts.values())) == (COUNT - 1, 1)
            else:
                assert counts.keys() == set(range(COUNT))
                assert counts.total() == COUNT + 1


@pytest.mark.slow
def test_the_recipe_for_lightning(folder: Path, tmp_path: Path) -> None:
    require("lightning")
    block = recipe("LightningModule")
    script = tmp_path / "train.py"
    quiet = "logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False"
    assert block.count("Trainer(max_epochs=2)") == block.count('DicomFrames("ct/")') == 1
    block = block.replace(
        "max_epochs=2", f"max_epochs=2, accelerator='cpu', devices=2, strategy='ddp', {quiet}"
    )
    block = block.replace('"ct/"', f"{str(folder)!r}")
    script.write_text(block)
    assert "batch_size=len(images)" in block
    assert "ambiguous collection" not in run(script)


def test_the_table_names_what_is_tested() -> None:
    page = PAGE.read_text(encoding="utf-8")
    names = {
        part for name in [*OWN, *OTHERS, "Lightning", "Ray Train"] for part in name.split(", ")
    }
    assert [name for name in names - {"mesh 2 x 1"} if name not in page] == []
