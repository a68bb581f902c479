"""Ranges of one object as requests, for all ranges."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from dicomtorch.storage.spans import coalesce

SPANS = st.lists(st.tuples(st.integers(0, 500), st.integers(1, 60)), max_size=30)


@given(SPANS, st.integers(0, 40), st.integers(1, 200))
def test_every_range_lies_in_one_request(
    spans: list[tuple[int, int]], gap: int, block: int
) -> None:
    blocks = coalesce(spans, gap, block)
    assert sorted(k for one in blocks for k in one.numbers) == list(range(len(spans)))
    for one in blocks:
        inside = [spans[k] for k in one.numbers]
        assert one.offset == min(offset for offset, _ in inside)
        assert one.offset + one.length == max(sum(span) for span in inside)
        assert one.length <= max(block, max(length for _, length in inside))
        covered = {byte for offset, length in inside for byte in range(offset, offset + length)}
        holes = [b for b in range(one.offset, one.offset + one.length) if b not in covered]
        runs = [b for b in holes if b - 1 not in holes]
        assert all(any(start + gap >= o for o, _ in inside if o > start) for start in runs)


@given(SPANS, st.integers(0, 40), st.integers(1, 200))
def test_requests_that_could_share_one_do(
    spans: list[tuple[int, int]], gap: int, block: int
) -> None:
    blocks = coalesce(spans, gap, block)
    assert [one.offset for one in blocks] == sorted(one.offset for one in blocks)
    for one, after in itertools.pairwise(blocks):
        offset, length = spans[after.numbers[0]]
        is_near = offset <= one.offset + one.length + gap
        assert not (is_near and offset + length - one.offset <= block)
        assert offset + length > one.offset + one.length


def test_a_clip_is_one_request_and_two_far_frames_are_two() -> None:
    frame = 150_000
    clip = [(132 + k * frame, frame) for k in range(16)]
    assert [len(one.numbers) for one in coalesce(clip)] == [16]
    assert len(coalesce([clip[0], (1 << 30, frame)])) == 2
    assert coalesce([]) == []
