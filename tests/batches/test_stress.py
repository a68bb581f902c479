"""Loaders, threads, workers and forked children over one dataset; `python -m tests.long.stress_batches` for longer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.stress import Stress, write_frames

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="os.fork does not exist")


def test_no_pixel_is_of_another_frame(tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    found = Stress(write_frames(folder), seed=3).run(250)
    assert found.wrong == []
    assert found.most_shm < 1 << 20  # so a /dev/shm of 64 MB, as in a container, is enough
    assert min(found.batches, found.passes, found.left, found.kept, found.children) > 2, found


def test_a_pixel_of_another_frame_would_be_found(tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    stress = Stress(write_frames(folder), seed=3)
    stress.expected[5] = stress.expected[6]
    found = stress.run(40)
    assert found.wrong
    assert "of frame 5 has pixels of [5]" in found.wrong[0]
