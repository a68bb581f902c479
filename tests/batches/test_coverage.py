"""What ranks get together, of one process."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import RandomSampler

from dicomtorch.batches.coverage import Coverage, coverage_of
from dicomtorch.batches.epochs import ShuffleSampler
from dicomtorch.batches.loader import FrameLoader
from dicomtorch.errors import OptionError

ITEMS = list(range(10))


def test_each_sample_once() -> None:
    coverage = FrameLoader(ITEMS, 4, shuffle=True).check_coverage()
    assert coverage == Coverage(10, (3,), (), ())
    assert coverage.is_exact
    assert str(coverage) == "10 samples, 1 rank of 3 batches: each sample once"


def test_what_is_missing_or_comes_twice() -> None:
    coverage = FrameLoader(ITEMS, 4, sampler=[0, 1, 1, -1, 9, 3]).check_coverage()
    assert coverage == Coverage(10, (2,), (2, 4, 5, 6, 7, 8), (1, 9))
    assert str(coverage) == (
        "10 samples, 1 rank of 2 batches; 6 missing (2, 4, 5, 6, 7, ...); 2 more than once (1, 9)"
    )
    half = ShuffleSampler(ITEMS, num_replicas=2, rank=0)
    assert len(FrameLoader(ITEMS, 5, sampler=half).check_coverage().missing) == 5


def test_uneven_ranks_are_said() -> None:
    coverage = Coverage(10, (3, 2), (), ())
    assert not coverage.is_exact
    assert "2 ranks of 3, 2 batches; ranks get different numbers of batches" in str(coverage)


@pytest.mark.parametrize("kind", ["shuffle", "generator", "global"])
def test_the_order_is_left_as_it_was(kind: str) -> None:
    def loader() -> FrameLoader:
        if kind == "shuffle":
            return FrameLoader(ITEMS, 4, shuffle=True)
        generator = torch.Generator() if kind == "generator" else None
        return FrameLoader(ITEMS, 4, sampler=RandomSampler(ITEMS, generator=generator))

    torch.manual_seed(1)
    expected = [batch.tolist() for batch in loader()]
    checked = loader()
    torch.manual_seed(1)
    assert checked.check_coverage().is_exact
    passing = iter(checked)
    assert next(passing).tolist() == expected[0]
    if kind != "global":
        state = checked.state_dict()
        assert checked.check_coverage().is_exact
        resumed = loader()
        resumed.load_state_dict(state)
        assert resumed.check_coverage().is_exact
        assert [batch.tolist() for batch in resumed] == expected[1:]
    assert [batch.tolist() for batch in passing] == expected[1:]


def test_indices_that_are_no_positions() -> None:
    with pytest.raises(OptionError, match="gives tuples"):
        coverage_of([[(0, 1)]], 3)
