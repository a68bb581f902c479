"""A full cache makes room in portions: the oldest go first, what was used stays, and totals are never too low."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from dicomtorch.index.locks import FileLock
from dicomtorch.reader import room as rooms
from dicomtorch.reader.room import Room, _oldest

SIZE = 100
SINCE = 1e6


@pytest.fixture
def full(tmp_path: Path) -> Room:
    """A thousand entries, the k-th used at second k."""
    for k in range(1000):
        path = tmp_path / f"{k % 256:02x}" / f"{k}.frame"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(SIZE))
        os.utime(path, (k, k))
    room = Room(tmp_path, 1000 * SIZE)
    (tmp_path / "used").write_bytes(b"%020d" % (1000 * SIZE))
    return room


def left(room: Room) -> list[int]:
    return sorted(int(path.stem) for path in room.folder.glob("*/*.frame"))


def used(room: Room) -> int:
    return int((room.folder / "used").read_bytes())


def test_the_oldest_go_and_the_lock_is_free_meanwhile(
    full: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rooms, "_LEAST", 64)
    monkeypatch.setattr(rooms, "_PORTION", 0.0)
    portions = 0
    while not full.take(SIZE):
        assert full.make(SIZE, SINCE)
        portions += 1
        assert len(left(full)) >= 1000 - 64 * portions
        with FileLock(full.folder / "lock", 0):
            assert used(full) >= SIZE * len(left(full))
    assert portions > 1000 // 64  # listing alone takes as many
    assert left(full) == list(range(1000 - len(left(full)), 1000))


def test_all_at_once_where_it_is_quick(full: Room) -> None:
    assert not full.take(SIZE)
    for _ in range(100):
        full.make(SIZE, SINCE)
        if full._plan is None:
            break
    assert left(full) == list(range(100, 1000))
    assert used(full) == 900 * SIZE
    assert full.take(SIZE)


def test_what_is_used_meanwhile_stays(full: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "_LEAST", 1000)
    monkeypatch.setattr(rooms, "_PORTION", 0.0)
    full.make(SIZE, SINCE)  # has listed all of them
    now = time.time()
    os.utime(next(full.folder.glob("*/0.frame")), (now, now))
    while full._plan is not None:
        full.make(SIZE, SINCE)
    assert 0 in left(full)
    assert 1 not in left(full)


def test_what_was_used_since_stays_and_it_says_so(full: Room) -> None:
    for _ in range(100):
        if not full.make(SIZE, 0.0):
            break
    else:
        pytest.fail("it never said that nothing may go")
    assert len(left(full)) == 1000
    assert not full.take(SIZE)


def test_what_others_write_meanwhile_counts(full: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "_LEAST", 64)
    monkeypatch.setattr(rooms, "_PORTION", 0.0)
    full.max_bytes = 990 * SIZE
    full.make(SIZE, SINCE)
    Room(full.folder, 2000 * SIZE).take(SIZE)  # an entry of another process, not there yet
    while full._plan is not None:
        full.make(SIZE, SINCE)
        assert used(full) >= SIZE * (len(left(full)) + 1)


def test_only_one_evicts(full: Room) -> None:
    with FileLock(full.folder / "evicting"):
        assert full.make(SIZE, SINCE)
    assert len(left(full)) == 1000


def test_the_first_entry_of_a_new_cache_waits_for_nobody(tmp_path: Path, full: Room) -> None:
    """As two threads write the first frames: the one that counts must not cost the other its frame."""
    new = tmp_path / "new"
    (new / "00").mkdir(parents=True)
    with FileLock(new / "evicting"):
        assert Room(new, 1000).take(SIZE)
    assert used(Room(new, 1000)) == SIZE
    (full.folder / "used").unlink()
    assert not full.take(SIZE)


def test_the_oldest_of_many_are_found_without_sorting_all() -> None:
    times = np.random.default_rng(0).permutation(100_000).astype(float)
    sizes = np.full(len(times), 7)
    found = list(_oldest(times, sizes, 7 * 9000))
    assert times[found].tolist() == list(range(9000)) or times[found].tolist() == list(range(9001))
    assert len(list(_oldest(times, sizes, 10**9))) == len(times)
    assert list(_oldest(times[:0], sizes[:0], 5)) == []
